#!/usr/bin/env python3
"""Instructions for each frame that is cut, sealed, opened and joined, by valgrind, beside those that are on record.

    .ci/instructions.py           reports what changed by more than 3 %
    .ci/instructions.py --keep    puts them on record: docs/performance/instructions.json

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
SHORT, LONG = 20, 120
# Frames of a round: a large packet of 40 each way (`fuzz/src/pair.rs`).
FRAMES = 80
NOTABLE = 0.03


def count(program, suite, rounds):
    with tempfile.NamedTemporaryFile() as out:
        command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out.name}", program, suite, str(rounds)]
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
    found = {suite: round((count(program, suite, LONG) - count(program, suite, SHORT)) / ((LONG - SHORT) * FRAMES)) for suite in SUITES}
    known = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.exists() else {}
    for suite, instructions in found.items():
        change = instructions / known[suite] - 1 if suite in known else None
        note = "not on record" if change is None else f"{change:+.1%}" + (" ◀" if abs(change) > NOTABLE else "")
        print(f"{suite:18} {instructions:7} instructions a frame of 1,240 bytes  {note}")
    if sys.argv[1:] == ["--keep"]:
        RECORD.parent.mkdir(parents=True, exist_ok=True)
        RECORD.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
