#!/usr/bin/env python3
"""What our dependencies may be: known licences, the public registry alone, one generation of the
cryptographic crates, no second runtime, nothing with a known flaw. Works offline on `cargo metadata`.
cargo-deny reads the same rules from .deny.toml; this needs only Python."""

import collections
import json
import re
import subprocess
import sys

ALLOWED_LICENCES = {
    "MIT", "MIT-0", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause",
    "ISC", "CC0-1.0", "Unlicense", "Unicode-3.0", "Zlib", "0BSD",
}
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"
ONE_VERSION = {
    "aead", "aes-gcm", "aws-lc-rs", "aws-lc-sys", "chacha20", "chacha20poly1305", "cipher", "crypto-common",
    "digest", "hkdf", "hmac", "hybrid-array", "ml-dsa", "ml-kem", "rand_core", "rustls", "sha2", "sha3",
    "signature", "subtle", "x25519-dalek", "zeroize",
}
BANNED = {
    "tokio": "smol and plain threads are our runtimes",
    "openssl": "one TLS library: rustls",
    "openssl-sys": "one TLS library: rustls",
    "native-tls": "one TLS library: rustls",
    "libcrux-ml-dsa": "a flaw of 2026",
    "snow": "not our handshake; RUSTSEC-2024-0011",
    "quinn-proto": "not our transport; RUSTSEC-2026-0185",
}
AT_LEAST = {"ml-dsa": (0, 1, 0), "rustls": (0, 23, 18), "ml-kem": (0, 3, 0)}


def licence_allowed(expression):
    """Evaluates an SPDX expression: OR needs one allowed side, AND both."""
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def peek():
        return tokens[position] if position < len(tokens) else None

    def take():
        nonlocal position
        position += 1
        return tokens[position - 1]

    def either():
        allowed = both()
        while peek() == "OR":
            take()
            right = both()
            allowed = allowed or right
        return allowed

    def both():
        allowed = single()
        while peek() == "AND":
            take()
            right = single()
            allowed = allowed and right
        return allowed

    def single():
        if peek() is None:
            return False
        token = take()
        if token == "(":
            allowed = either()
            if peek() == ")":
                take()
            return allowed
        if peek() == "WITH":
            take()
            token = f"{token} WITH {take()}"
        return token in ALLOWED_LICENCES

    allowed = either()
    return allowed and position == len(tokens)


def in_programs(metadata, ours):
    """What a crate of ours is built from, without what only its tests use."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    found, left = set(), list(ours)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            left += [dep["pkg"] for dep in nodes[name]["deps"] if any(kind["kind"] is None for kind in dep["dep_kinds"])]
    return found


def main():
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--all-features"]
    command += ["--filter-platform", "x86_64-unknown-linux-gnu"]
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    used = {node["id"] for node in metadata["resolve"]["nodes"]}
    ours = set(metadata["workspace_members"])
    packages = [package for package in metadata["packages"] if package["id"] in used]
    wrong = []
    versions = collections.defaultdict(set)
    for package in packages:
        name, version = package["name"], package["version"]
        versions[name].add(version)
        label = f"{name} {version}"
        if not licence_allowed(package["license"] or ""):
            wrong.append(f"{label}: licence {package['license']!r} is not on the list of allowed ones")
        if package["id"] not in ours and package["source"] != REGISTRY:
            wrong.append(f"{label}: comes from {package['source']}, not from the public registry")
        if name in BANNED:
            wrong.append(f"{label}: banned ({BANNED[name]})")
        if name in AT_LEAST:
            numbers = tuple(int(part) for part in re.match(r"(\d+)\.(\d+)\.(\d+)", version).groups())
            if numbers < AT_LEAST[name] or "-" in version:
                wrong.append(f"{label}: at least {'.'.join(map(str, AT_LEAST[name]))} is needed, no release candidate")
    shipped = in_programs(metadata, ours)
    for name in sorted(ONE_VERSION):
        of_programs = {package["version"] for package in packages if package["name"] == name and package["id"] in shipped}
        if len(of_programs) > 1:
            wrong.append(f"{name}: one version, please, not {', '.join(sorted(of_programs))}")
    doubled = sorted(name for name, found in versions.items() if len(found) > 1)
    print(f"{len(packages)} packages; in more than one version: {', '.join(doubled) or 'none'}")
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    assert licence_allowed("(MIT OR GPL-3.0) AND Unicode-3.0") and not licence_allowed("MIT AND GPL-3.0")
    sys.exit(main())
