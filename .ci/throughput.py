#!/usr/bin/env python3
"""Speed of the tunnel on real interfaces: one TCP stream by iperf3, CPU seconds a GB, and the median of a fast ping.

    a ── veth ──┐ bridge and relay ┌── veth ── b        three network namespaces, gone at the end

Needs root, iperf3, ping and release builds (`cargo build --release --bins -p shadowmesh-daemon -p shadowmesh-relay`).
Each FOLDER of binaries is one contender; runs are interleaved, so that a busy machine is as unfair to one as to the other:

    .ci/throughput.py [--rounds 3] [--seconds 4] [--paths udp,wss,relay] [--runtimes smol,threads] [--mtu 1280]
                       [--perf FOLDER] [NAME=]FOLDER…

With --perf, `perf record` watches the programs while the stream that counts runs: FOLDER/PATH-RUNTIME-NAME.data.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

PATHS = {"udp": "udp", "wss": "wss", "relay": ""}
NETWORK = "10.97.0"
OVERLAY = "10.78.0"
# A stream of its own warms the windows up before the one that counts.
WARM_SECONDS = 1


def run(*command, check=True, **options):
    return subprocess.run(command, check=check, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options).stdout


def cpu_seconds(pids):
    """User and system time of these processes so far."""
    ticks = 0
    for pid in pids:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class World:
    """The namespaces, and the programs in them."""

    def __init__(self, folder):
        self.folder, self.prefix, self.programs = folder, f"smt{os.getpid()}-", []
        self.names = [self.prefix + name for name in ("relay", "a", "b")]

    def __enter__(self):
        try:
            self.build()
        except BaseException:
            self.__exit__()
            raise
        return self

    def build(self):
        for name in self.names:
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        relay = self.names[0]
        run("ip", "-n", relay, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", relay, "address", "add", f"{NETWORK}.1/24", "dev", "br0")
        run("ip", "-n", relay, "link", "set", "br0", "up")
        for number, name in enumerate(self.names[1:], 2):
            run("ip", "-n", relay, "link", "add", f"p{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "-n", relay, "link", "set", f"p{number}", "master", "br0", "up")
            run("ip", "-n", name, "address", "add", f"{NETWORK}.{number}/24", "dev", "eth0")
            run("ip", "-n", name, "link", "set", "eth0", "up")

    def start(self, host, *command, log, **environment):
        with open(self.folder / log, "wb") as out:
            program = subprocess.Popen(["ip", "netns", "exec", self.names[host], *command], stdout=out, stderr=out,
                                       env=os.environ | environment)
        self.programs.append(program)
        return program.pid  # `ip netns exec` becomes the program

    def run(self, host, *command, **options):
        return run("ip", "netns", "exec", self.names[host], *command, **options)

    def end_programs(self):
        for program in reversed(self.programs):
            program.send_signal(signal.SIGTERM)
        for program in self.programs:
            with contextlib.suppress(subprocess.TimeoutExpired):
                program.wait(5)
            program.kill()
            program.wait()
        self.programs.clear()

    def __exit__(self, *_):
        self.end_programs()
        for name in self.names:
            run("ip", "netns", "delete", name, check=False)


def wait_for(what, found, seconds=20):
    end = time.monotonic() + seconds
    while not found():
        if time.monotonic() > end:
            sys.exit(f"waited {seconds} s in vain for {what}")
        time.sleep(0.05)


def start_mesh(world, programs, runtime, path, mtu):
    """A relay and two peers; gives the ids of the processes that carry the traffic."""
    state = pathlib.Path(tempfile.mkdtemp(dir=world.folder))
    relay, peer = programs / "shadowmesh-relay", programs / "shadowmesh"
    identity = run(relay, "id", "--state-dir", state / "relay").strip()
    token = run(peer, "network", "new", "--name", "speed", "--relay", f"wss://{NETWORK}.1:4443", "--relay-id", identity)
    (state / "token").write_text(token, encoding="utf-8")
    pids = [world.start(0, relay, "--state-dir", state / "relay", "--listen", f"{NETWORK}.1:4443", "--runtime", runtime, log="relay.log")]
    for number, name in enumerate("ab", 1):
        pids.append(world.start(
            number, peer, "up", "--join-file", state / "token", "--name", name, "--address", f"{OVERLAY}.{number}/24",
            "--state-dir", state / name, "--runtime", runtime, log=f"{name}.log", SHADOWMESH_P2P_TRANSPORTS=PATHS[path],
            SHADOWMESH_INTERFACE_MTU=str(mtu)))
    wait_for("the first ping", lambda: "bytes from" in world.run(1, "ping", "-c1", "-W1", f"{OVERLAY}.2", check=False))
    if path != "relay":
        world.run(1, peer, "ping", "b", "--until-direct", "--state-dir", state / "a")
    return pids if path == "relay" else pids[1:]


def stream(world, seconds, pids, perf=None):
    """What iperf3 says was received, and the CPU seconds that it took; `perf` watches."""
    watch = perf and subprocess.Popen(["perf", "record", "-q", "-F", "999", "-g", "-o", perf, "-p", ",".join(map(str, pids))],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return stream_once(world, seconds, pids)
    finally:
        if watch:
            watch.send_signal(signal.SIGINT)
            watch.wait()


def stream_once(world, seconds, pids):
    for _ in range(10):
        before = cpu_seconds(pids)
        report = json.loads(world.run(1, "iperf3", "-c", f"{OVERLAY}.2", "-t", str(seconds), "-J", check=False))
        spent = cpu_seconds(pids) - before
        if "error" not in report:
            return report["end"]["sum_received"], spent
        print(report["error"], file=sys.stderr)  # mostly: the server is still busy with the end of the last one
        time.sleep(0.5)
    sys.exit("iperf3 does not come through")


def measure(world, programs, runtime, path, seconds, mtu, perf):
    """Gbit/s, CPU seconds a GB, and the median of ping in ms."""
    pids = start_mesh(world, programs, runtime, path, mtu)
    pings = world.run(1, "ping", "-c", "600", "-i", "0.003", f"{OVERLAY}.2")
    ping = statistics.median(map(float, re.findall(r"time=([\d.]+)", pings)))
    world.start(2, "iperf3", "-s", "-B", f"{OVERLAY}.2", log="iperf3.log")
    wait_for("iperf3 to listen", lambda: world.run(2, "ss", "-ltnH", "sport", "=", ":5201"))
    stream(world, WARM_SECONDS, pids)
    received, spent = stream(world, seconds, pids, perf)
    world.end_programs()
    return received["bits_per_second"] / 1e9, spent / (received["bytes"] / 1e9), ping


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=4)
    options.add_argument("--paths", default="udp,wss,relay")
    options.add_argument("--runtimes", default="smol,threads")
    options.add_argument("--mtu", type=int, default=1280)
    options.add_argument("--perf", type=pathlib.Path)
    options.add_argument("folders", nargs="+", metavar="[NAME=]FOLDER")
    options = options.parse_args()
    contenders = []
    for text in options.folders:
        name, _, folder = text.rpartition("=")
        contenders.append((name or pathlib.Path(folder).name, pathlib.Path(folder).resolve()))
    results = {}
    with tempfile.TemporaryDirectory() as folder, World(pathlib.Path(folder)) as world:
        for _ in range(options.rounds):
            for path in options.paths.split(","):
                for runtime in options.runtimes.split(","):
                    for name, programs in contenders:
                        perf = options.perf and options.perf / f"{path}-{runtime}-{name}.data"
                        figures = measure(world, programs, runtime, path, options.seconds, options.mtu, perf)
                        results.setdefault((path, runtime, name), []).append(figures)
                        print(path, runtime, name, *(f"{figure:.3f}" for figure in figures), file=sys.stderr)
    print(f"{'path':6} {'runtime':8} {'binaries':12} Gbit/s              CPU-s/GB            ping p50 ms         (median, lowest to highest)")
    for (path, runtime, name), runs in sorted(results.items()):
        columns = [f"{statistics.median(c):.3f} ({min(c):.3f}-{max(c):.3f})" for c in zip(*runs)]
        print(f"{path:6} {runtime:8} {name:12} " + " ".join(f"{column:19}" for column in columns))


if __name__ == "__main__":
    main()
