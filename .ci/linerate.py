#!/usr/bin/env python3
"""A soak at line rate on real interfaces: TCP both ways as fast as it goes, keys replaced every two seconds, certificates of half a
minute, and the direct path cut and healed more often than a path may be changed (six moves a minute, protocol 7.5). No error, no session
made anew, no growth.

Needs root, nft, iperf3, ping and release builds (`cargo build --release --bins -p shadowmesh-daemon -p shadowmesh-relay`):

    .ci/linerate.py [--minutes 30] [--runtime smol] [--cycle 12] [--rekey 2s] [--cert 30s] [--json FILE] FOLDER

Prints one line a minute: bytes each way, memory in KiB of peers and relay, epoch, moves; then what came of it, and ends 1 where a
rule is broken: a stream that broke, an error in a log, a session that was made anew, memory that grew by more than 1 % after the fifth minute (lowest of five).
"""

import argparse
import json
import pathlib
import re
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
from delays import run, table, wait_for  # noqa: E402
from soak import standing  # noqa: E402
from throughput import NETWORK, OVERLAY, World, start_mesh  # noqa: E402

WARM_MINUTES = 5
DRIFT = 0.01


class Soak:
    def __init__(self, world, options):
        self.world, self.options, self.cuts = world, options, 0
        settings = {
            "SHADOWMESH_CRYPTO_REKEY_INTERVAL": options.rekey, "SHADOWMESH_TLS_CERT_LIFETIME": options.cert,
            "SHADOWMESH_P2P_RETRY_INTERVAL": "1s", "SHADOWMESH_P2P_CONNECT_TIMEOUT": "1s"}
        self.peers = start_mesh(world, options.folder, settings, options.runtime, "udp", options.mtu)
        self.relay = world.programs[0].pid
        self.state = next(folder for folder in world.folder.iterdir() if (folder / "token").exists())
        self.folders = {name: self.state / name for name in "ab"}

    def status(self, name):
        text = run(self.options.folder / "shadowmesh", "status", "--json", "--state-dir", self.folders[name])
        return json.loads(text)["peers"][0]

    def cut(self):
        """What each sends to the other directly disappears."""
        for host, other in ((1, 3), (2, 2)):
            rule = f"ip saddr {NETWORK}.{other} meta l4proto {{ tcp, udp }} drop"
            self.world.run(host, "nft", "-f", "-", text=table("inet cut", "in", "filter hook input priority 0", [rule]))
        self.cuts += 1

    def heal(self):
        for host in (1, 2):
            self.world.run(host, "nft", "delete", "table", "inet", "cut")

    def break_paths(self, until):
        """Half of a cycle cut, half of it whole."""
        while time.monotonic() < until:
            time.sleep(self.options.cycle / 2)
            self.cut()
            time.sleep(self.options.cycle / 2)
            self.heal()

    def look(self):
        pids = {"a": self.peers[0], "b": self.peers[1], "relay": self.relay}
        told = {name: self.status(name) for name in "ab"}
        memory = {name: standing(pid) for name, pid in pids.items()}
        return {"memory": memory, "peers": {name: {key: peer[key] for key in (
            "epoch", "migrations", "fallbacks", "rx_bytes", "lost_frames", "duplicate_frames", "reordered_frames", "resent_frames",
            "handshake_age_s")} for name, peer in told.items()}}


def streams(world, seconds):
    """TCP both ways at once; the reports, when they are there."""
    reports, threads = {}, []
    for port, direction in ((5201, []), (5202, ["-R"])):
        world.start(2, "iperf3", "-s", "-p", str(port), "-B", f"{OVERLAY}.2", log=f"iperf3-{port}.log")
        wait_for("iperf3 to listen", lambda port=port: world.run(2, "ss", "-ltnH", "sport", "=", f":{port}"))
        command = ["iperf3", "-c", f"{OVERLAY}.2", "-p", str(port), "-t", str(seconds), "-J", *direction]
        thread = threading.Thread(target=lambda port=port, command=command: reports.update({port: world.run(1, *command, check=False)}))
        thread.start()
        threads.append(thread)
    return reports, threads


def shown(minute, look, before):
    peers = look["peers"]
    rates = [(peers[name]["rx_bytes"] - (before["peers"][name]["rx_bytes"] if before else 0)) * 8 / 60e9 for name in "ab"]
    memory = " ".join(f"{name} {value['rss']}" for name, value in look["memory"].items())
    rest = " ".join(f"{key} {peers['a'][key]}/{peers['b'][key]}" for key in ("epoch", "migrations", "fallbacks", "lost_frames", "reordered_frames"))
    return f"{minute:3} min  {rates[0]:.2f} + {rates[1]:.2f} Gbit/s  {memory}  {rest}"


def verdict(looks, reports, logs):
    """What broke a rule."""
    faults = []
    for port, text in reports.items():
        report = json.loads(text)
        if "error" in report:
            faults.append(f"the stream of port {port} broke: {report['error']}")
    for name, text in logs.items():
        faults += [f"{name}: {line}" for line in text.splitlines() if re.search(r"\bERROR\b|panicked", line)]
    first, last = looks[min(len(looks), WARM_MINUTES) - 1], looks[-1]
    for name, after in last["memory"].items():
        before = first["memory"][name]
        # What waits in rings comes and goes: the lowest of five minutes says what stays.
        then, now = (min(look["memory"][name]["rss"] for look in part) for part in (looks[WARM_MINUTES : 2 * WARM_MINUTES] or looks, looks[-WARM_MINUTES:]))
        if now > then * (1 + DRIFT):
            faults.append(f"{name} grew from {then} to {now} KiB")
        if after["files"] > before["files"] + 4:
            faults.append(f"{name}: {before['files']} descriptors became {after['files']}")
    for name, peer in last["peers"].items():
        if peer["handshake_age_s"] < 60 * (len(looks) - 1):
            faults.append(f"{name}: the session was made anew {peer['handshake_age_s']:.0f} s ago")
    return faults


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--runtime", default="smol")
    parser.add_argument("--cycle", type=float, default=12.0, help="seconds; for one half of it the direct path is cut")
    parser.add_argument("--rekey", default="2s")
    parser.add_argument("--cert", default="30s")
    parser.add_argument("--mtu", type=int, default=1420)
    parser.add_argument("--json", type=pathlib.Path, help="keeps what each minute was like there")
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    looks = []
    with tempfile.TemporaryDirectory() as folder, World(pathlib.Path(folder)) as world:
        soak = Soak(world, options)
        reports, threads = streams(world, options.minutes * 60 + 5)
        start = time.monotonic()
        breaking = threading.Thread(target=soak.break_paths, args=(start + options.minutes * 60 - options.cycle,))
        breaking.start()
        for minute in range(1, options.minutes + 1):
            time.sleep(max(0.0, start + 60 * minute - time.monotonic()))
            looks.append(soak.look())
            print(shown(minute, looks[-1], looks[-2] if minute > 1 else None), flush=True)
            if options.json:
                options.json.write_text(json.dumps(looks))
        breaking.join()
        for thread in threads:
            thread.join()
        logs = {name: (world.folder / f"{name}.log").read_text(errors="replace") for name in ("relay", "a", "b")}
    faults = verdict(looks, reports, logs)
    for port, text in reports.items():
        end = json.loads(text).get("end", {})
        if end:
            print(f"port {port}: {end['sum_received']['bytes'] / 1e9:.1f} GB, {end['sum_received']['bits_per_second'] / 1e9:.2f} Gbit/s, {end['sum_sent'].get('retransmits', 0)} segments sent again")
    print(f"{soak.cuts} times the direct path was cut")
    for fault in faults:
        print(f"fault: {fault}")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
