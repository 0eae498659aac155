#!/usr/bin/env python3
"""What it costs when the relay that carries fails, on real interfaces with delays: two relays, 20 and 25 ms from each peer (80 and 100 ms
from one peer to the other and back), no direct path, 1,000 datagrams a second both ways through the tunnel.

Needs root, nft and built programs (`cargo build --release --bins -p shadowmesh-daemon -p shadowmesh-relay`):

    .ci/relays.py [--runs 5] [--runtimes smol,threads] [--only NAME,…] FOLDER

Each line is one fault: how many runs, the longest gap of either direction around it (p50, longest), the same when the relay is back, and what
was lost, doubled or reordered in all. A run begins with new peers, and with a wait until the nearer relay carries both ways.
"""

import argparse
import pathlib
import signal
import statistics
import sys
import time

sys.dont_write_bytecode = True
from delays import Stream, pause, run, table, wait_for  # noqa: E402
from outages import PORT, Mesh  # noqa: E402

LEGS_MS = {"near": 20, "far": 25}
FAULT_SECONDS = 3.0


class Pair(Mesh):
    """Two relays and two peers."""

    def __init__(self, options, runtime):
        super().__init__(options, runtime, "")
        self.state |= {name: self.folder / name for name in LEGS_MS}
        self.relays = {}

    def place(self):
        relays = {name: self.host(name) for name in LEGS_MS}
        for end in [self.host(name) for name in "ab"]:
            for name, relay in relays.items():
                self.way(end, relay, LEGS_MS[name])
        self.open()
        self.new_network()

    def url(self, name):
        return f"wss://{self.addresses[name]}:{PORT}"

    def new_network(self):
        programs, named = self.options.folder, []
        for name in LEGS_MS:
            identity = run(programs / "shadowmesh-relay", "id", "--state-dir", self.state[name]).strip()
            named += ["--relay", self.url(name), "--relay-id", identity]
        self.token = self.folder / "token"
        self.token.write_text(run(programs / "shadowmesh", "network", "new", *named), encoding="utf-8")

    def start_one(self, name):
        self.relays[name] = self.start(name, self.options.folder / "shadowmesh-relay", "--state-dir", self.state[name], "--listen",
                                       f"{self.addresses[name]}:{PORT}", "--runtime", self.runtime, log=f"{name}.log")

    def carriers(self):
        """The relays over which the two send."""
        return {((self.other(name) or {}).get("path") or {}).get("relay") for name in "ab"}

    def at_both(self):
        return all(sum(relay["state"] == "connected" for relay in (self.status(name) or {}).get("relays", [])) == 2 for name in "ab")

    def cut_off(self):
        """Nothing passes between one peer and the nearer relay, and nobody is told."""
        relay = self.addresses["near"]
        self.nft("a", table("inet cut", "in", "filter hook input priority 0", [f"ip saddr {relay} drop"])
                 + table("inet gag", "out", "filter hook output priority 0", [f"ip daddr {relay} drop"]))

    def heal(self):
        self.nft("a", "delete table inet cut\ndelete table inet gag\n")

    def kill(self):
        self.end(self.relays["near"])

    def drain(self):
        self.end(self.relays["near"], signal.SIGTERM)

    def back(self):
        self.start_one("near")


FAULTS = {"killed": (Pair.kill, Pair.back), "cut off": (Pair.cut_off, Pair.heal), "drained": (Pair.drain, Pair.back)}


def measure(options, runtime, fault):
    """One run: the gap around the fault and the return, how long the choice took, and what went wrong with datagrams."""
    away, back = FAULTS[fault]
    with Pair(options, runtime) as pair:
        pair.place()
        for name in LEGS_MS:
            pair.start_one(name)
        started = time.monotonic()
        pair.start_peers()
        pair.up()
        wait_for("the nearer relay to carry both ways", lambda: pair.at_both() and pair.carriers() == {pair.url("near")}, 60)
        chosen = time.monotonic() - started
        stream = Stream(pair.sockets())
        pause(1.0, 1.5)
        failed = time.monotonic()
        away(pair)
        time.sleep(max(0.0, failed + FAULT_SECONDS - time.monotonic()))
        left = pair.carriers() == {pair.url("far")}
        returned = time.monotonic()
        back(pair)
        wait_for("both relays to be back", pair.at_both, 30)
        pause(1.0, 1.5)
        accounts = stream.finish()
        end = time.monotonic()
        gaps = [max(account.gap(*span) for account in accounts) for span in ((failed, returned), (returned, end))]
        wrong = [sum(len(part) for part in parts) for parts in zip(*((account.lost, account.doubled, account.reordered) for account in accounts))]
        pair.end_peers()
        return gaps, chosen, wrong, left


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--runtimes", default="smol,threads")
    parser.add_argument("--only", default="")
    parser.add_argument("--log", default="info")
    parser.add_argument("folder", type=lambda text: pathlib.Path(text).resolve())
    options = parser.parse_args()
    bad = False
    for runtime in options.runtimes.split(","):
        for fault in options.only.split(",") if options.only else FAULTS:
            runs = [measure(options, runtime, fault) for _ in range(options.runs)]
            gaps = [[1e3 * gap for gap in part] for part in zip(*(gaps for gaps, *_ in runs))]
            text = [f"{statistics.median(part):.0f}/{max(part):.0f} ms" for part in gaps]
            wrong = [sum(part) for part in zip(*(wrong for _, _, wrong, _ in runs))]
            left = sum(left for *_, left in runs)
            chosen = max(chosen for _, chosen, _, _ in runs)
            print(f"{runtime} {fault}: {len(runs)} runs, gap p50/longest {text[0]}, when back {text[1]}, lost/doubled/reordered {wrong}, "
                  f"left by both {left}, nearer one chosen within {chosen:.1f} s", flush=True)
            bad |= any(wrong) or left < len(runs) or max(gaps[0]) > 1000
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
