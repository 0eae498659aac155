#!/usr/bin/env python3
"""Instructions for each frame that is cut, sealed, opened and joined, by valgrind, beside those that are on record.

    .ci/instructions.py           reports what changed by more than 3 %
    .ci/instructions.py --keep    puts them on record: docs/performance/instructions.json

Beside them, what a frame costs where the peer has 1,000 others that are idle, and where it talks with 1,000 by turns (a large packet
each, so that a receipt is due for every 40 frames, not every 256).

What the difference of a long and a short run of `fuzz/examples/frames.rs` counts is the frames alone. Valgrind's processor has no
AVX-512 and no VAES, so the cipher counts for more than on most machines; the count is the same on each.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
RECORD = ROOT / "docs" / "performance" / "instructions.json"
SUITES = ["chacha20-poly1305", "aes-256-gcm"]
ROUNDS = 20, 120
PEERS = 1_000
# Frames of a round: a large packet of 40 each way (`fuzz/src/pair.rs`).
FRAMES = 80
NOTABLE = 0.03


def count(program, suite, rounds, *peers):
    with tempfile.NamedTemporaryFile() as out:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", program, suite, *map(str, (rounds, *peers))]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
    found = re.search(r"Collected : (\d+)", done.stderr)
    if done.returncode or not found:
        sys.exit(done.stderr)
    return int(found.group(1))


def main():
    if sys.argv[1:] not in ([], ["--keep"]):
        sys.exit(__doc__)
    subprocess.run(["cargo", "build", "--locked", "--release", "-p", "shadowmesh-fuzz", "--example", "frames"], cwd=ROOT, check=True)
    program = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release" / "examples" / "frames"
    kinds = [(suite, suite, (), ROUNDS) for suite in SUITES]
    kinds.append((f"one of {PEERS} peers", SUITES[1], (PEERS, 1), ROUNDS))
    # Each must have had its turn before the short run ends.
    kinds.append((f"{PEERS} peers by turns", SUITES[1], (PEERS,), (PEERS, 2 * PEERS)))
    found = {}
    for name, suite, peers, (short, long) in kinds:
        counted = count(program, suite, long, *peers) - count(program, suite, short, *peers)
        found[name] = round(counted / ((long - short) * FRAMES))
    known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    for name, instructions in found.items():
        change = instructions / known[name] - 1 if name in known else None
        note = "not on record" if change is None else f"{change:+.1%}" + (" ◀" if abs(change) > NOTABLE else "")
        print(f"{name:20} {instructions:7} instructions a frame of 1,240 bytes  {note}")
    if sys.argv[1:] == ["--keep"]:
        RECORD.parent.mkdir(parents=True, exist_ok=True)
        RECORD.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
