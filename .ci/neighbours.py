"""Other VPNs in user space, each set up between the hosts `a` (1) and `b` (2) of a `World` of throughput.py: what `start(kind, …)` gives
are the ids of the two processes. All have AES with 256 bits, or what they have instead, and the same inner MTU; else their own defaults.
"""

import os
import pathlib
import re
import subprocess
import sys

sys.dont_write_bytecode = True
from delays import run, wait_for  # noqa: E402


class Pair:
    """What both ends need to know of each other."""

    def __init__(self, world, network, overlay, mtu):
        self.world, self.network, self.overlay, self.mtu = world, network, overlay, mtu
        self.ends = [(1, "a"), (2, "b")]

    def folder(self, name):
        folder = self.world.folder / f"neighbour-{name}"
        folder.mkdir(exist_ok=True)
        return folder

    def inner(self, number):
        return f"{self.overlay}.{number}"

    def outer(self, number):
        return f"{self.network}.{number + 1}"

    def interface(self, name):
        return f"smt{os.getpid()}{name}"

    def others(self):
        """Each end, and the other one."""
        return zip(self.ends, reversed(self.ends))


def wireguard(pair, program):
    """boringtun-cli, gotatun, wireguard-go: told what to do by `wg`."""
    ends = []
    for number, name in pair.ends:
        key = run("wg", "genkey")
        file = pair.folder(name) / "key"
        file.write_text(key, encoding="ascii")
        interface = pair.interface(name)
        pathlib.Path(f"/var/run/wireguard/{interface}.sock").unlink(missing_ok=True)  # of the contender before
        ends.append((number, name, interface, file, run("wg", "pubkey", text=key).strip()))
    pids = []
    foreground = ["-f"] if program.name == "wireguard-go" else ["--foreground", "--disable-drop-privileges"]
    for number, name, interface, _, _ in ends:
        pids.append(pair.world.start(number, program, *foreground, interface, log=f"{name}.log", WG_SUDO="1",
                                     WG_PROCESS_FOREGROUND="1", LOG_LEVEL="error", WG_LOG_LEVEL="error"))
    for (number, _, interface, file, _), (other, _, _, _, public) in zip(ends, reversed(ends)):
        wait_for("the control socket", pathlib.Path(f"/var/run/wireguard/{interface}.sock").exists)
        pair.world.run(number, "wg", "set", interface, "private-key", file, "listen-port", "51820", "peer", public,
                       "allowed-ips", f"{pair.inner(other)}/32", "endpoint", f"{pair.outer(other)}:51820")
        pair.world.run(number, "ip", "address", "add", f"{pair.inner(number)}/24", "dev", interface)
        pair.world.run(number, "ip", "link", "set", interface, "mtu", str(pair.mtu), "up")
    return pids


def nebula(pair, program):
    """Two hosts that know each other's address, with certificates of one authority."""
    maker = program.with_name("nebula-cert")
    authority = pair.folder("authority")
    for file in authority.iterdir():
        file.unlink()
    run(maker, "ca", "-name", "speed", "-out-crt", authority / "ca.crt", "-out-key", authority / "ca.key")
    pids = []
    for (number, name), (other, _) in pair.others():
        folder = pair.folder(name)
        for file in (folder / "crt", folder / "secret"):
            file.unlink(missing_ok=True)
        run(maker, "sign", "-ca-crt", authority / "ca.crt", "-ca-key", authority / "ca.key", "-name", name, "-ip",
            f"{pair.inner(number)}/24", "-out-crt", folder / "crt", "-out-key", folder / "secret")
        (folder / "config.yml").write_text(f"""\
pki: {{ca: {authority}/ca.crt, cert: {folder}/crt, key: {folder}/secret}}
static_host_map: {{"{pair.inner(other)}": ["{pair.outer(other)}:4242"]}}
lighthouse: {{am_lighthouse: false, hosts: []}}
listen: {{host: 0.0.0.0, port: 4242}}
tun: {{dev: {pair.interface(name)}, mtu: {pair.mtu}}}
logging: {{level: error}}
firewall:
  outbound: [{{port: any, proto: any, host: any}}]
  inbound: [{{port: any, proto: any, host: any}}]
""", encoding="utf-8")
        pids.append(pair.world.start(number, program, "-config", folder / "config.yml", log=f"{name}.log"))
    return pids


def tinc(pair, program):
    """tinc 1.0 in router mode."""
    for number, name in pair.ends:
        folder = pair.folder(name)
        (folder / "hosts").mkdir(exist_ok=True)
        for file in (folder / "rsa_key.priv", folder / "hosts" / name):
            file.unlink(missing_ok=True)
        (folder / "tinc.conf").write_text(f"Name = {name}\nInterface = {pair.interface(name)}\nConnectTo = {'ba'[number - 1]}\n", encoding="utf-8")
        text = f"Address = {pair.outer(number)}\nSubnet = {pair.inner(number)}/32\nCipher = aes-256-cbc\nDigest = sha256\n"
        (folder / "hosts" / name).write_text(text, encoding="utf-8")
        subprocess.run([program, "-c", folder, "-K", "2048"], stdin=subprocess.DEVNULL, capture_output=True, check=True)
        up = folder / "tinc-up"
        up.write_text(f"#!/bin/sh\nip address add {pair.inner(number)}/24 dev $INTERFACE\nip link set $INTERFACE mtu {pair.mtu} up\n", encoding="utf-8")
        up.chmod(0o755)
    for (_, name), (_, other) in pair.others():
        hosts = pair.folder(name) / "hosts"
        (hosts / other).write_text((pair.folder(other) / "hosts" / other).read_text(encoding="utf-8"), encoding="utf-8")
    return [pair.world.start(number, program, "-c", pair.folder(name), "-D", f"--pidfile={pair.folder(name)}/pid", log=f"{name}.log")
            for number, name in pair.ends]


def openvpn(pair, program):
    """Between two, over TLS with pinned certificates, without the kernel's module."""
    prints = {}
    for _, name in pair.ends:
        folder = pair.folder(name)
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj",
            f"/CN={name}", "-keyout", folder / "secret", "-out", folder / "crt")
        prints[name] = run("openssl", "x509", "-in", folder / "crt", "-noout", "-fingerprint", "-sha256").strip().split("=")[1]
    pids = []
    for (number, name), (other, its_name) in pair.others():
        folder = pair.folder(name)
        role = ["--tls-server", "--dh", "none"] if number == 1 else ["--tls-client"]
        pids.append(pair.world.start(
            number, program, "--dev", pair.interface(name), "--dev-type", "tun", "--ifconfig", pair.inner(number), pair.inner(other),
            "--proto", "udp", "--remote", pair.outer(other), "--port", "1194", *role, "--cert", folder / "crt", "--key", folder / "secret",
            "--peer-fingerprint", prints[its_name], "--cipher", "AES-256-GCM", "--data-ciphers", "AES-256-GCM", "--tun-mtu", str(pair.mtu),
            "--mssfix", "0", "--disable-dco", "--verb", "1", log=f"{name}.log"))
    return pids


def iroh(pair, program):
    """The small program in contenders/iroh: packets as QUIC datagrams, between two that know each other's key and address."""
    ids = {name: run(program, "key", pair.folder(name) / "iroh.key").strip() for _, name in pair.ends}
    return [pair.world.start(
        number, program, "run", pair.folder(name) / "iroh.key", pair.interface(name), f"{pair.inner(number)}/24", str(pair.mtu),
        f"{pair.outer(number)}:7842", ids[its_name], f"{pair.outer(other)}:7842", log=f"{name}.log")
        for (number, name), (other, its_name) in pair.others()]


KINDS = {"wg": wireguard, "nebula": nebula, "tinc": tinc, "openvpn": openvpn, "iroh": iroh}


def start(kind, world, program, network, overlay, mtu):
    """Starts both ends, and waits until a ping comes back."""
    pids = KINDS[kind](Pair(world, network, overlay, mtu), program)
    wait_for("the first ping", lambda: "bytes from" in world.run(1, "ping", "-c1", "-W1", f"{overlay}.2", check=False))
    return pids


def named(text):
    """Kind and name of a contender that is a neighbour: `wg:NAME`, or nothing."""
    found = re.match(rf"({'|'.join(KINDS)}):(.+)$", text)
    return found and found.groups()
