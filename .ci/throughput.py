#!/usr/bin/env python3
"""Speed of the tunnel on real interfaces: a TCP stream and small UDP packets by iperf3, CPU time of both, and the median of a fast ping.

    a ── veth ──┐ bridge and relay ┌── veth ── b        three network namespaces, gone at the end

Needs root, iperf3, ping and release builds (`cargo build --release --bins -p shadowmesh-daemon -p shadowmesh-relay`).
Each FOLDER of binaries is one contender; runs are interleaved, so that a busy machine is as unfair to one as to the other:

    .ci/throughput.py [--rounds 3] [--seconds 4] [--paths udp,wss,relay,relay-udp] [--runtimes smol,threads] [--mtu 1280]
                       [--perf FOLDER] [--write FOLDER] [NAME[+VARIABLE=VALUE…]=]FOLDER…

A contender may have settings of its own, as environment of its peers: `off+SHADOWMESH_P2P_MODE=off=target/release`.
A contender `wg:NAME=PROGRAM` is a WireGuard in user space (boringtun-cli, gotatun, wireguard-go), told what to do by `wg` of wireguard-tools;
`nebula:NAME=PROGRAM`, `tinc:NAME=PROGRAM` (tincd) and `openvpn:NAME=PROGRAM` are those, `iroh:NAME=PROGRAM` is the small program in
contenders/iroh. They have the path udp alone.

With --write, table and plots go to that folder. With --perf, `perf record` watches the programs while the stream that counts runs: FOLDER/PATH-RUNTIME-NAME.data.
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

sys.dont_write_bytecode = True
import neighbours  # noqa: E402
from delays import run, wait_for  # noqa: E402

# Direct transports, and whether datagrams over the relay are wanted.
PATHS = {"udp": ("udp", "false"), "wss": ("wss", "false"), "relay": ("", "false"), "relay-udp": ("", "true")}
NETWORK = "10.97.0"
OVERLAY = "10.78.0"
# A stream of its own warms the windows up before the one that counts.
WARM_SECONDS = 1


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


def start_mesh(world, programs, settings, runtime, path, mtu):
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
            "--state-dir", state / name, "--runtime", runtime, log=f"{name}.log",
            SHADOWMESH_P2P_TRANSPORTS=PATHS[path][0], SHADOWMESH_P2P_RELAY_UDP=PATHS[path][1],
            **{"SHADOWMESH_INTERFACE_MTU": str(mtu), **settings}))
    wait_for("the first ping", lambda: "bytes from" in world.run(1, "ping", "-c1", "-W1", f"{OVERLAY}.2", check=False))
    if path == "relay-udp":
        wait_for("datagrams over the relay", lambda: takes_datagrams(world, peer, state))
    elif path != "relay":
        world.run(1, peer, "ping", "b", "--until-direct", "--state-dir", state / "a")
    return pids if path.startswith("relay") else pids[1:]


def takes_datagrams(world, peer, state):
    """Whether both send datagrams over the relay, while something flows."""
    world.run(1, "ping", "-c2", "-i0.2", "-W1", f"{OVERLAY}.2", check=False)
    told = (json.loads(world.run(1, peer, "status", "--json", "--state-dir", state / name)) for name in "ab")
    return all((told["peers"][0].get("path") or {}).get("transport") == "udp" for told in told)


def stream(world, seconds, pids, perf=None):
    """What iperf3 says was received, and the CPU seconds that it took; `perf` watches."""
    watch = perf and subprocess.Popen(["perf", "record", "-q", "-F", "499", "--call-graph", "dwarf,8192", "-o", perf, "-p", ",".join(map(str, pids))],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        return stream_once(world, seconds, pids)
    finally:
        if watch:
            watch.send_signal(signal.SIGINT)
            watch.wait()


def small_packets(world, seconds, pids):
    """CPU microseconds for each UDP packet of 64 bytes that came, and how many came a second, as fast as iperf3 sends."""
    before = cpu_seconds(pids)
    report = json.loads(world.run(1, "iperf3", "-c", f"{OVERLAY}.2", "-u", "-l", "64", "-b", "0", "-t", str(seconds), "-J", check=False))
    spent = cpu_seconds(pids) - before
    if "error" in report:
        sys.exit(report["error"])
    came = report["end"]["sum"]["packets"] - report["end"]["sum"]["lost_packets"]
    return spent / came * 1e6, came / seconds / 1e3


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


def loaded_ping(world):
    """Median and 99th percentile of ping in ms while a stream takes all that it can get."""
    load = subprocess.Popen(["ip", "netns", "exec", world.names[1], "iperf3", "-c", f"{OVERLAY}.2", "-t", "4"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(WARM_SECONDS)
        times = ping_times(world, 250, 0.01)
    finally:
        load.terminate()
        load.wait()
    return statistics.median(times), sorted(times)[len(times) * 99 // 100]


def ping_times(world, count, interval):
    out = world.run(1, "ping", "-c", str(count), "-i", str(interval), f"{OVERLAY}.2", check=False)
    return [float(found) for found in re.findall(r"time=([\d.]+)", out)]


# What is measured: name, unit, whether more is better.
COLUMNS = [("TCP", "Gbit/s", True), ("CPU a GB", "s", False), ("CPU a small packet", "µs", False), ("small packets", "thousands/s", True),
           ("ping", "ms", False), ("ping under load", "ms", False), ("its 99th percentile", "ms", False)]


def measure(world, programs, settings, runtime, path, options, perf):
    """One figure for each column."""
    if runtime in neighbours.KINDS:
        pids = neighbours.start(runtime, world, programs, NETWORK, OVERLAY, options.mtu)
    else:
        pids = start_mesh(world, programs, settings, runtime, path, options.mtu)
    ping = statistics.median(ping_times(world, 600, 0.003))
    world.start(2, "iperf3", "-s", "-B", f"{OVERLAY}.2", log="iperf3.log")
    wait_for("iperf3 to listen", lambda: world.run(2, "ss", "-ltnH", "sport", "=", ":5201"))
    stream(world, WARM_SECONDS, pids)
    received, spent = stream(world, options.seconds, pids, perf)
    small = small_packets(world, options.seconds, pids)
    loaded = loaded_ping(world)
    world.end_programs()
    return received["bits_per_second"] / 1e9, spent / (received["bytes"] / 1e9), *small, ping, *loaded


def table(results):
    """Markdown: medians, in brackets lowest to highest."""
    head = ["path", "runtime", "program", *(f"{name}, {unit}" for name, unit, _ in COLUMNS)]
    rows = [head, ["---"] * len(head)]
    for (path, runtime, name), runs in sorted(results.items()):
        rows.append([path, runtime, name, *(f"{statistics.median(c):.3g} ({min(c):.3g}–{max(c):.3g})" for c in zip(*runs))])
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def plot(results, column):
    """An SVG of one column: a bar to the median of each contender, a line from the lowest to the highest."""
    name, unit, more = COLUMNS[column]
    bars = sorted(((statistics.median(values), min(values), max(values), f"{contender}, {runtime}, {path}", runtime in neighbours.KINDS)
                   for (path, runtime, contender), runs in results.items() for values in [[run[column] for run in runs]]), reverse=more)
    most, width, line = max(bar[2] for bar in bars), 420, 22
    left = 24 + 7 * max(len(bar[3]) for bar in bars)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 90}" height="{line * len(bars) + 40}" '
             f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="#fff"/>'
             f'<text x="8" y="18" font-weight="bold">{name}, {unit} ({"more" if more else "less"} is better)</text>']
    for number, (median, low, high, label, is_neighbour) in enumerate(bars):
        y, scale = 32 + line * number, width / most
        colour = "#b0b7c0" if is_neighbour else "#2f6fb0"
        parts.append(f'<text x="{left - 8}" y="{y + 13}" text-anchor="end">{label}</text>'
                     f'<rect x="{left}" y="{y + 2}" width="{median * scale:.1f}" height="14" fill="{colour}"/>'
                     f'<path d="M{left + low * scale:.1f} {y + 9}H{left + high * scale:.1f}" stroke="#222"/>'
                     f'<text x="{left + high * scale + 6:.1f}" y="{y + 13}">{median:.3g}</text>')
    return "".join(parts) + "</svg>\n"


def write(folder, results):
    """Table and plots, with what a reader has to know about them."""
    folder.mkdir(parents=True, exist_ok=True)
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    facts = [f"{os.cpu_count()} cores of {model.group(1) if model else 'an unknown machine'}", f"Linux {os.uname().release}",
             time.strftime("%Y-%m-%d"), "load {:.1f}".format(os.getloadavg()[0]), "`.ci/throughput.py " + " ".join(
                 pathlib.Path(word).name if word.startswith("/") else re.sub(r"=.*/", "=…/", word) for word in sys.argv[1:]) + "`"]
    text = "# Throughput\n\nMedians, in brackets lowest to highest; " + "; ".join(facts) + ".\n\n" + table(results)
    for column, (name, _, _) in enumerate(COLUMNS):
        file = name.replace(" ", "-").lower() + ".svg"
        (folder / file).write_text(plot(results, column), encoding="utf-8")
        text += f"\n![{name}]({file})\n"
    (folder / "README.md").write_text(text, encoding="utf-8")


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=int, default=4)
    options.add_argument("--paths", default="udp,wss,relay,relay-udp")
    options.add_argument("--runtimes", default="smol,threads")
    options.add_argument("--mtu", type=int, default=1280)
    options.add_argument("--perf", type=pathlib.Path)
    options.add_argument("--write", type=pathlib.Path)
    options.add_argument("folders", nargs="+", metavar="[NAME[+VARIABLE=VALUE…]=]FOLDER")
    options = options.parse_args()
    contenders = []
    for text in options.folders:
        name, _, folder = text.rpartition("=")
        kind, name = neighbours.named(name) or (None, name)
        name, *settings = name.split("+")
        settings = dict(setting.split("=", 1) for setting in settings)
        runtimes = [kind] if kind else options.runtimes.split(",")
        contenders.append((name or pathlib.Path(folder).name, pathlib.Path(folder).resolve(), settings, runtimes))
    results = {}
    with tempfile.TemporaryDirectory() as folder, World(pathlib.Path(folder)) as world:
        for _ in range(options.rounds):
            for path in options.paths.split(","):
                for name, programs, settings, runtimes in contenders:
                    for runtime in runtimes if path == "udp" or runtimes[0] not in neighbours.KINDS else []:
                        perf = options.perf and options.perf / f"{path}-{runtime}-{name}.data"
                        figures = measure(world, programs, settings, runtime, path, options, perf)
                        results.setdefault((path, runtime, name), []).append(figures)
                        print(path, runtime, name, *(f"{figure:.3f}" for figure in figures), file=sys.stderr)
    print(table(results), end="")
    if options.write:
        write(options.write, results)


if __name__ == "__main__":
    main()
