#!/usr/bin/env python3
"""How long an outage of the direct path is felt on real interfaces with delays: relay way 40 ms, direct way 10 ms one way,
1,000 datagrams a second both ways through the tunnel. Uses the programs as an operator does.

Needs root, nft and release builds (`cargo build --release --bins -p shadowmesh-daemon -p shadowmesh-relay`):

    .ci/outages.py [--runs 10] [--runtimes smol,threads] [--only NAME,…] [--json FILE] FOLDER

Each line of the result is one fault: how many runs, the longest gap of either direction around it (p50, p99, longest), the same
for the way back to the direct path, the time from healing until both directions are direct again, and what was lost, doubled or
reordered in all. "Direct" is seen from outside: a datagram that took less than 25 ms cannot have gone over the relay.
"""

import argparse
import contextlib
import json
import math
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
from delays import Net, Stream, forget_udp, inside, nat, pause, run, sockets, table, wait_for  # noqa: E402

OVERLAY = "10.76.0"
PORT = 4443
DIRECT_MS, LEG_MS = 10, 20
# Between the two ways: what takes longer went over the relay.
DIRECT_LIMIT = 0.025
QUIET = 0.4
FAULT_SECONDS = 1.5
RETURN_SECONDS = 30
# A path that comes and goes is damped after five moves in a minute (protocol 7.5); so peers are started anew before that.
RUNS_A_LIFE = 2


class Mesh(Net):
    """A relay and two peers."""

    def __init__(self, options, runtime, transports):
        super().__init__()
        self.options, self.runtime, self.transports = options, runtime, transports
        self.state = {name: self.folder / name for name in ("relay", "a", "b")}
        self.peers = {}

    def place(self, kinds=("none", "none"), direct_link=False):
        """Hosts, each behind what its kind says; with `direct_link`, the direct way is a second interface of both."""
        relay = self.host("relay")
        ends = [self.host(name) if kind == "none" else self.behind(name, nat(kind)) for name, kind in zip("ab", kinds)]
        for end in ends:
            self.way(end, relay, LEG_MS)
        if direct_link:
            ends = [self.link(name, "eth1", "10.96.1") for name in "ab"]
        self.way(*ends, DIRECT_MS)
        self.open()

    def start_relay(self):
        if not self.token:
            self.new_network()
        address = f"{self.addresses['relay']}:{PORT}"
        self.relay = self.start("relay", self.options.folder / "shadowmesh-relay", "--state-dir", self.state["relay"],
                                "--listen", address, "--runtime", self.runtime, log="relay.log")

    token = None

    def new_network(self):
        programs = self.options.folder
        identity = run(programs / "shadowmesh-relay", "id", "--state-dir", self.state["relay"]).strip()
        url = f"wss://{self.addresses['relay']}:{PORT}"
        self.token = self.folder / "token"
        self.token.write_text(run(programs / "shadowmesh", "network", "new", "--relay", url, "--relay-id", identity), encoding="utf-8")

    def start_peers(self):
        for name in "ab":
            self.start_peer(name)

    def end_peers(self):
        for name in "ab":
            counts = run(self.options.folder / "shadowmesh", "metrics", "--state-dir", self.state[name], check=False)
            counts += self.ip(name, "-s", "link", "show", "mesh0", check=False)
            with open(self.folder / f"{name}.log", "a", encoding="utf-8") as log:
                log.write("\n".join(line for line in counts.splitlines() if not line.startswith("#")) + "\n")
            self.end(self.peers[name], signal.SIGTERM)

    def start_peer(self, name):
        number = 1 + "ab".index(name)
        self.peers[name] = self.start(
            name, self.options.folder / "shadowmesh", "up", "--join-file", self.token, "--name", name,
            "--address", f"{OVERLAY}.{number}/24", "--state-dir", self.state[name], "--runtime", self.runtime, log=f"{name}.log",
            SHADOWMESH_P2P_TRANSPORTS=self.transports, SHADOWMESH_LOG=self.options.log)

    def up(self):
        """Both interfaces have their addresses."""
        for number, name in enumerate("ab", 1):
            wait_for(f"the interface of {name}", lambda: f"{OVERLAY}.{number}/" in self.ip(name, "address"))

    def sockets(self):
        return sockets((self.prefix + name, f"{OVERLAY}.{number}") for number, name in enumerate("ab", 1))

    def status(self, name):
        """What a peer says, or nothing."""
        text = run(self.options.folder / "shadowmesh", "status", "--json", "--state-dir", self.state[name], check=False)
        return json.loads(text) if text else None

    def other(self, name):
        """What a peer says of the other one."""
        peers = (self.status(name) or {}).get("peers", [])
        return next((peer for peer in peers if peer["state"] == "connected"), None)

    def transport(self, name):
        path = (self.other(name) or {}).get("path") or {}
        return path.get("transport") if path.get("kind") == "direct" else path.get("kind")

    def connected(self):
        """Both are with the relay."""
        return all(any(relay["state"] in ("connected", "parked") for relay in (self.status(name) or {}).get("relays", [])) for name in "ab")

    def switches(self):
        return sum(peer[key] for peer in map(self.other, "ab") if peer for key in ("migrations", "fallbacks"))

    def drop(self, ways=("ab", "ba")):
        """What one sends to the other disappears before it, without a word."""
        scripts = {}
        for one, other in ways:
            rest = f"ip saddr {self.addresses[one]}" if self.direct_device == "eth0" else ""
            rule = f'iifname "{self.direct_device}" {rest} meta l4proto {{ tcp, udp }} drop'
            scripts[other] = table("inet cut", "in", "filter hook input priority 0", [rule])
        self.nft_all(scripts)
        self.cut = list(scripts)

    direct_device = "eth0"
    cut = ()

    def reset(self):
        """Each segment by TCP from one to the other is answered with a reset."""
        scripts = {}
        for one, other in ("ab", "ba"):
            rule = f"ip daddr {self.addresses[other]} meta l4proto tcp reject with tcp reset"
            scripts[one] = table("inet cut", "out", "filter hook output priority 0", [rule])
        self.nft_all(scripts)
        self.cut = list(scripts)

    def heal(self):
        self.nft_all({name: "delete table inet cut\n" for name in self.cut})

    def restart_relay(self):
        self.end(self.relay)
        self.start_relay()

    def relay_away(self):
        """The relay and the direct path are gone together, and the relay comes back within half a second."""
        self.end(self.relay)
        self.drop()
        pause(0.0, 0.5)
        self.start_relay()

    def link_down(self):
        self.ip("a", "link", "set", "eth1", "down")

    def link_up(self):
        self.ip("a", "link", "set", "eth1", "up")
        self.neighbours()

    def logs(self):
        return {name: (self.folder / f"{name}.log").read_text(errors="replace") for name in ("relay", "a", "b")}


def is_direct(stream):
    """Both directions are direct right now."""
    now = time.monotonic()
    return all(now - at < 0.05 and took < DIRECT_LIMIT for at, took, _, _ in stream.now())


def is_over_relay(stream):
    now = time.monotonic()
    return all(now - at < 0.05 and took > DIRECT_LIMIT for at, took, _, _ in stream.now())


def until_direct(mesh, stream, seconds=60):
    wait_for("both directions to be direct", lambda: is_direct(stream), seconds)
    wanted = mesh.transports.split(",")[0]
    wait_for(f"both to say {wanted}", lambda: all(mesh.transport(name) == wanted for name in "ab"), seconds, 0.1)


# A fault, and what ends it.
FAULTS = {
    "drop both ways": (Mesh.drop, Mesh.heal),
    "drop one way": (lambda mesh: mesh.drop([random.choice(("ab", "ba"))]), Mesh.heal),
    "reset": (Mesh.reset, Mesh.heal),
    "link down": (Mesh.link_down, Mesh.link_up),
    "drop and relay restart": (lambda mesh: (mesh.restart_relay(), mesh.drop()), Mesh.heal),
    "drop and relay away": (Mesh.relay_away, Mesh.heal),
    "relay restart": (Mesh.restart_relay, None),
}


def fault(options, runtime, transports, name):
    """Runs of one fault: rows of figures."""
    rows = []
    with Mesh(options, runtime, transports) as mesh, logged(mesh, options):
        if name == "link down":
            mesh.direct_device = "eth1"
        mesh.place(direct_link=name == "link down")
        mesh.start_relay()
        while len(rows) < options.runs:
            mesh.start_peers()
            mesh.up()
            stream = Stream(mesh.sockets())
            marks = [one_fault(options, mesh, stream, *FAULTS[name]) for _ in range(min(1 if "relay" in name else RUNS_A_LIFE, options.runs - len(rows)))]
            ways = stream.finish()
            rows += [figures(ways, mark) for mark in marks]
            mesh.end_peers()
    return rows


def one_fault(options, mesh, stream, break_it, heal):
    """When it began, when it was done, when it was healed, when all was direct again, and the end."""
    until_direct(mesh, stream)
    wait_for("the relay", mesh.connected, 30, 0.1)
    pause(QUIET + 0.1, QUIET + 0.6)
    start = time.monotonic()
    break_it(mesh)
    done = time.monotonic()
    time.sleep(options.outage)
    if heal:
        heal(mesh)
    healed = back = time.monotonic()
    if heal:
        with contextlib.suppress(TimeoutError):
            wait_for("direct", lambda: is_direct(stream), RETURN_SECONDS)
        back = time.monotonic()
    time.sleep(0.4)
    return start, done, healed, back, time.monotonic()


def figures(ways, mark):
    start, done, healed, back, end = mark
    window = (start - QUIET, end)
    return {
        "quiet": max(way.gap(start - QUIET, start - 0.02) for way in ways),
        "gap": max(way.gap(start, min(healed, done + FAULT_SECONDS * 4)) for way in ways),
        "return_gap": max(way.gap(healed, end) for way in ways) if back > healed else 0.0,
        "return": back - healed,
        "fault_took": done - start,
        "start": start,
        **{what: sum(way.within(getattr(way, what), *window) for way in ways) for what in ("lost", "doubled", "reordered")},
    }


@contextlib.contextmanager
def logged(mesh, options):
    """When something breaks, the logs are kept where the user says."""
    try:
        yield
    finally:
        if options.keep:
            folder = options.keep / f"{mesh.runtime}-{mesh.transports}-{int(time.time())}"
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in mesh.logs().items():
                (folder / f"{name}.log").write_text(text)


def first(options, runtime, kinds):
    """From when both interfaces are up to the first datagram over the relay, and to the first direct one, both ways."""
    rows = []
    for _ in range(options.runs):
        with Mesh(options, runtime, "udp,wss") as mesh, logged(mesh, options):
            mesh.place(kinds)
            mesh.start_relay()
            wait_for("the relay", lambda: (mesh.folder / "relay.log").read_text())
            before = time.monotonic()
            mesh.start_peers()
            mesh.up()
            start = time.monotonic()
            stream = Stream(mesh.sockets())
            with contextlib.suppress(TimeoutError):
                wait_for("direct", lambda: is_direct(stream), options.patience, 0.05)
            time.sleep(0.3)
            ways = stream.finish()
        talk = [way.since(start, math.inf, math.inf) for way in ways]
        direct = [way.since(start, math.inf, DIRECT_LIMIT) for way in ways]
        row = {"start": start - before}
        row["talk"] = max(talk) if None not in talk else math.inf
        row["direct"] = max(direct) if None not in direct else math.inf
        for what in ("lost", "doubled", "reordered"):
            # What was sent before anybody knew the other is not counted.
            row[what] = sum(way.within(getattr(way, what), way.sent[min(way.numbers)], math.inf) if way.numbers else 0 for way in ways)
        rows.append(row)
    return rows


def flap(options, runtime, transports, seconds=60):
    """The direct path goes and comes each half second: moves of both peers in a minute, and what was lost."""
    with Mesh(options, runtime, transports) as mesh, logged(mesh, options):
        mesh.place()
        mesh.start_relay()
        mesh.start_peers()
        mesh.up()
        stream = Stream(mesh.sockets())
        until_direct(mesh, stream)
        time.sleep(2 * QUIET)
        before, start = mesh.switches(), time.monotonic()
        for turn in range(seconds * 2):
            time.sleep(max(0.0, start + turn / 2 - time.monotonic()))
            (mesh.heal if turn % 2 else mesh.drop)()
        time.sleep(0.5)
        # An end counts its migrations and fallbacks; a switch is one move of one end.
        moves = (mesh.switches() - before) / 2
        end = time.monotonic()
        ways = stream.finish()
    return [figures(ways, (start, start, end, end, end)) | {"moves": moves, "gap": max(way.gap(start, end) for way in ways)}]


def roam(options, runtime, how):
    """Another address of `a` behind its router, or another port of its mapping."""
    marks = []
    with Mesh(options, runtime, "udp,wss") as mesh, logged(mesh, options):
        mesh.place(("port-restricted", "none"))
        mesh.start_relay()
        mesh.start_peers()
        mesh.up()
        stream = Stream(mesh.sockets())
        for turn in range(options.runs):
            until_direct(mesh, stream)
            wait_for("the relay", mesh.connected, 30, 0.1)
            pause(QUIET + 0.1, QUIET + 1.0)
            start = time.monotonic()
            if how == "roaming":
                readdress(mesh, 10 + turn)
            else:
                mesh.nft("nat-a", f'insert rule ip nat post oifname "eth0" meta l4proto udp masquerade to :{40000 + turn}\n')
                forget_udp(mesh.prefix + "nat-a")
            done = time.monotonic()
            time.sleep(1.5)
            wait_for("direct", lambda: is_direct(stream), RETURN_SECONDS)
            marks.append((start, done, done, time.monotonic() - 1.5, time.monotonic()))
            time.sleep(1.0)
        ways = stream.finish()
    return [figures(ways, mark) for mark in marks]


def readdress(mesh, number):
    script = f"address flush dev eth0\naddress add 192.168.1.{number}/24 dev eth0\nroute add default via 192.168.1.1 dev eth0\n"
    run("ip", "-n", mesh.prefix + "a", "-batch", "-", text=script)


def cases(options):
    """Names of all that is measured, and how."""
    for transports in ("udp,wss", "wss"):
        label = transports.split(",")[0]
        for name in FAULTS:
            if name == "reset" and label == "udp":
                continue
            yield f"{label} {name}", lambda runtime, t=transports, n=name: fault(options, runtime, t, n)
        yield f"{label} flapping", lambda runtime, t=transports: flap(options, runtime, t)
    for kinds in (("none", "none"), ("port-restricted", "port-restricted"), ("symmetric", "port-restricted")):
        yield f"first {' x '.join(kinds)}", lambda runtime, k=kinds: first(options, runtime, k)
    for how in ("roaming", "rebinding"):
        yield how, lambda runtime, h=how: roam(options, runtime, h)


def at(values, percent):
    values = sorted(values)
    return values[min(len(values), max(1, math.ceil(len(values) * percent / 100))) - 1]


def show(name, runtime, rows):
    """One line."""
    parts = [f"{name:38} {runtime:8} {len(rows):3} runs"]
    for key, unit in (("quiet", 1e3), ("gap", 1e3), ("return_gap", 1e3), ("return", 1), ("talk", 1), ("direct", 1), ("moves", 1)):
        values = [row[key] for row in rows if key in row]
        if values and max(values) > 0:
            digits = 0 if unit == 1e3 else 2
            parts.append(f"{key} {'/'.join(f'{at(values, p) * unit:.{digits}f}' for p in (50, 95 if unit == 1 else 99, 100))}")
    parts.append("lost/doubled/reordered " + "/".join(str(sum(row[key] for row in rows)) for key in ("lost", "doubled", "reordered")))
    print("  ".join(parts), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--runtimes", default="smol,threads")
    parser.add_argument("--only", default="", help="parts of names, by commas")
    parser.add_argument("--outage", type=float, default=FAULT_SECONDS, help="seconds from fault to healing")
    parser.add_argument("--patience", type=float, default=12, help="seconds to wait for a first direct path")
    parser.add_argument("--json", type=pathlib.Path, help="keeps all rows there")
    parser.add_argument("--keep", type=pathlib.Path, help="keeps the logs in this folder")
    parser.add_argument("--log", default="info")
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that nothing is left behind
    options.folder = options.folder.resolve()
    print("gaps in ms: p50/p99/longest; times in s: p50/p95/longest", flush=True)
    kept = []
    for name, measure in cases(options):
        if options.only and not any(part in name for part in options.only.split(",")):
            continue
        for runtime in options.runtimes.split(","):
            rows = measure(runtime)
            show(name, runtime, rows)
            kept.append({"name": name, "runtime": runtime, "rows": rows})
            if options.json:
                options.json.write_text(json.dumps(kept))


if __name__ == "__main__":
    main()
