#!/usr/bin/env python3
"""House rules that no compiler knows: sizes, openings, leftovers, and what lies where."""

import pathlib
import re
import subprocess
import sys

TOP_LEVEL = {
    "Cargo.toml", "Cargo.lock", "core", "runtime-smol", "runtime-std", "daemon", "relay", "fuzz", "docs",
    "justfile", "Containerfile", "README.md", "LICENSE-MIT", "LICENSE-APACHE",
}
FILE_LINES = 600
LINE_LENGTH = 160
# Written so that this file does not find itself.
LEFTOVERS = [r"\btodo" + r"!\s*\(", r"\bunimplemented" + r"!\s*\(", r"\bdbg" + r"!\s*\(", "FIX" + "ME", "X" * 3, "TO" + "DO", "CON" + r"TRACT \(", "scaf" + "fold"]
# An absolute path in a text belongs to the system of the user, never to the machine of whoever wrote it.
SYSTEM_FOLDERS = {"etc", "var", "run", "proc", "sys", "dev", "usr", "bin", "lib"}
MADE_UP = {"nowhere", "flag", "s"}  # folders that tests name and that are nowhere
ABSOLUTE_PATH = re.compile(r"(?<![\w./:}\]>)*$~-])/([a-z]+)/[a-z]")
TEXT = {".rs", ".md", ".toml", ".py", ".yml", ".yaml", ".json", ".service", ".sh", ""}


def tracked():
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], check=True, stdout=subprocess.PIPE)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return [pathlib.Path(name) for name in names if pathlib.Path(name).is_file()]


def is_test(path):
    return "tests" in path.parts or path.name in ("tests.rs", "test.rs") or path.name.endswith("_tests.rs")


def check_rust(path, lines):
    """Sizes and the opening line of a source file."""
    if not lines or not lines[0].startswith("//!"):
        yield 1, "a file opens with `//!` and what it is for"
    if not is_test(path):
        test = (number for number, line in enumerate(lines) if line.strip() == "#[cfg(test)]")
        length = next(test, len(lines))
        if length > FILE_LINES:
            yield length, f"{length} lines before the tests, at most {FILE_LINES}"
        for number, line in enumerate(lines[:length], 1):
            if re.search(r"\bunsafe\b\s*(\{|fn|impl)", line) and path.parts[0] == "core" and path.parts[1] != "wide":
                yield number, "no unsafe code in core"
    for number, line in enumerate(lines, 1):
        if len(line) > LINE_LENGTH:
            yield number, f"{len(line)} characters in a line, at most {LINE_LENGTH}"


def check_text(path, lines):
    """Leftovers and paths of somebody's machine."""
    for number, line in enumerate(lines, 1):
        for leftover in LEFTOVERS:
            if re.search(leftover, line):
                yield number, f"a leftover: {line.strip()[:80]}"
        if path.suffix in (".rs", ".md", ".toml"):
            for match in ABSOLUTE_PATH.finditer(line):
                if match.group(1) not in SYSTEM_FOLDERS | MADE_UP:
                    yield number, f"a path of one machine: {line[match.start():match.start() + 60]}"
        if line != line.rstrip() and path.suffix != ".md":
            yield number, "a blank at the end of the line"


def main():
    complaints = []
    for path in tracked():
        first = path.parts[0]
        if not first.startswith(".") and first not in TOP_LEVEL:
            complaints.append(f"{path}: the top level holds only {', '.join(sorted(TOP_LEVEL))}")
        if path.suffix not in TEXT or path.name in ("Cargo.lock",) or "corpus" in path.parts:
            continue
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            if path.suffix:
                complaints.append(f"{path}: not UTF-8")
            continue
        found = list(check_text(path, lines))
        if path.suffix == ".rs":
            found += check_rust(path, lines)
        complaints += [f"{path}:{number}: {text}" for number, text in found]
    for complaint in complaints:
        print(f"error: {complaint}", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
