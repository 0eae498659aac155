#!/usr/bin/env python3
"""A soak on real interfaces: two peers and a relay with delays between them, a reduced stream both ways, and a fault each minute.
Nothing may grow: memory, descriptors, threads; the log only with what happens.

Needs root, nft and release builds (`cargo build --release --bins -p shadowmesh-daemon -p shadowmesh-relay`):

    .ci/soak.py [--minutes 60] [--rate 200] [--runtime smol] [--transports udp,wss] [--json FILE] FOLDER

Prints one line of each program every ten minutes, then what the stream lost, and how each program stands beside its tenth minute.
Settings of the programs can be given as their environment: `SHADOWMESH_TLS_CERT_LIFETIME=30s .ci/soak.py --minutes 20 --transports wss FOLDER`.
"""

import argparse
import json
import os
import pathlib
import random
import signal
import sys
import time

sys.dont_write_bytecode = True
from delays import Stream, wait_for  # noqa: E402
from outages import FAULTS, Mesh, is_direct, until_direct  # noqa: E402

# The first minutes fill caches, tables and pools.
WARM_MINUTES = 10
# What is done each minute, in turn: a fault and what heals it, by its name in `outages`.
DEEDS = ("drop both ways", "drop one way", "quiet")


def standing(pid):
    """Memory in KiB, descriptors, threads."""
    status = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "rss": int(status["VmRSS"].split()[0]),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": int(status["Threads"]),
    }


def look(mesh):
    programs = {"a": mesh.peers["a"], "b": mesh.peers["b"], "relay": mesh.relay}
    logs = mesh.logs()
    return {name: {**standing(program.pid), "log": len(logs[name])} for name, program in programs.items()}


def deed(mesh, stream, name):
    if name == "quiet":
        return
    break_it, heal = FAULTS[name]
    break_it(mesh)
    if heal:
        time.sleep(random.uniform(0.5, 3.0))
        heal(mesh)
    wait_for("both directions to be direct again", lambda: is_direct(stream), 90, 0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--rate", type=int, default=200, help="datagrams a second each way")
    parser.add_argument("--runtime", default="smol")
    parser.add_argument("--transports", default="udp,wss")
    parser.add_argument("--json", type=pathlib.Path, help="keeps what each minute was like there")
    parser.add_argument("--log", default="info")
    parser.add_argument("folder", type=pathlib.Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that nothing is left behind
    options.folder = options.folder.resolve()
    minutes = []
    with Mesh(options, options.runtime, options.transports) as mesh:
        mesh.place()
        mesh.start_relay()
        mesh.start_peers()
        mesh.up()
        stream = Stream(mesh.sockets(), options.rate)
        until_direct(mesh, stream)
        start = time.monotonic()
        for minute in range(options.minutes):
            time.sleep(max(0.0, start + 60 * minute + 5 - time.monotonic()))
            deed(mesh, stream, DEEDS[minute % len(DEEDS)])
            time.sleep(max(0.0, start + 60 * (minute + 1) - time.monotonic()))
            minutes.append(look(mesh))
            if options.json:
                options.json.write_text(json.dumps(minutes))
            if (minute + 1) % WARM_MINUTES == 0:
                for name, values in minutes[-1].items():
                    print(f"{minute + 1:3} min  {name:6}", "  ".join(f"{what} {value}" for what, value in values.items()), flush=True)
        moves = mesh.switches()
        ages = [mesh.other(name)["handshake_age_s"] for name in "ab"]
        ways = stream.finish()
    for way, name in zip(ways, ("a to b", "b to a")):
        # what was sent before anybody knew the other is not counted
        first = way.sent[min(way.numbers)]
        counts = {what: way.within(getattr(way, what), first, float("inf")) for what in ("lost", "doubled", "reordered")}
        print(f"{name}: {len(way.sent)} sent, {counts}, longest gap {way.gap(min(way.times), max(way.times)) * 1e3:.0f} ms")
    print(f"{moves} moves of both ends in all (faults: {', '.join(DEEDS)}, one a minute); the session of {options.minutes} minutes is {min(ages):.0f} s old")
    if len(minutes) > WARM_MINUTES:
        for name, last in minutes[-1].items():
            warm = minutes[WARM_MINUTES - 1][name]
            print(f"{name}: " + ", ".join(f"{what} {warm[what]} → {last[what]}" for what in ("rss", "files", "threads", "log")))


if __name__ == "__main__":
    main()
