"""A small internet with delays on real interfaces, and a numbered stream through it. Needs root; the kernel needs no netem.

    a ── eth0 ──┐                  ┌── eth0 ── relay       each eth0 is a TAP device whose other end is the forwarder, a process
                │    forwarder     │                       that passes each frame on after the delay of its pair of ports
    b ── eth0 ──┘                  └── …                   a host behind a NAT: host ── veth ── router ── eth0 ──

The forwarder, the stream and the programs run before all other processes (SCHED_RR), or a busy machine would be measured.
"""

import array
import collections
import contextlib
import ctypes
import fcntl
import gc
import heapq
import mmap
import os
import pathlib
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

NEW_NETWORK = 0x40000000  # CLONE_NEWNET
SET_INTERFACE = 0x400454CA  # TUNSETIFF
TAP_WITHOUT_HEADER = 0x1002  # IFF_TAP | IFF_NO_PI
RECEIVE_BUFFER_FORCE = 33  # SO_RCVBUFFORCE
RECEIVE_BUFFER_BYTES = 16 << 20
FRAME_BYTES = 2048
DATAGRAM_BYTES = 256
NUMBER = struct.Struct("!Qd")
UNDERLAY = "10.96.0"
UDP_MARK = 1
LIBC = ctypes.CDLL(None, use_errno=True)


def run(*command, check=True, text=None):
    return subprocess.run(command, check=check, input=text, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True).stdout


def wait_for(what, found, seconds=20, pause=0.01):
    end = time.monotonic() + seconds
    while not (value := found()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s in vain for {what}")
        time.sleep(pause)
    return value


@contextlib.contextmanager
def inside(namespace):
    """Sockets and devices that are made here belong to this namespace."""
    with open("/proc/self/ns/net", "rb") as home, open(f"/run/netns/{namespace}", "rb") as there:
        enter(there)
        try:
            yield
        finally:
            enter(home)


def enter(file):
    if LIBC.setns(file.fileno(), NEW_NETWORK):
        raise OSError(ctypes.get_errno(), "setns")


def first_in_line():
    """Runs before ordinary processes, where the kernel lets us."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(10))


def fork(work):
    """Runs `work` in a process of its own, which ends when it returns or with SIGTERM."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        LIBC.prctl(1, signal.SIGKILL)  # ends with its parent, whatever befalls that
        first_in_line()
        gc.disable()
        work()
        status = 0
    except BaseException as error:  # nothing may get into the parent's code
        print(f"{error!r}", file=sys.stderr)
    finally:
        os._exit(status)


def forward(ports, delays):
    """A switch whose ways take their time. `ports` maps numbers to TAP devices, `delays` a pair of numbers to seconds."""
    known, line, order = {}, [], 0
    numbers = {device: number for number, device in ports.items()}
    while True:
        wait = max(0.0, line[0][0] - time.monotonic()) if line else None
        ready = select.select(list(numbers), (), (), wait)[0]
        for device in ready:
            source = numbers[device]
            for _ in range(64):
                try:
                    frame = os.read(device, FRAME_BYTES)
                except OSError:  # nothing left, or the link is down
                    break
                now = time.monotonic()
                known[frame[6:12]] = source
                to = known.get(frame[:6])
                for target in [to] if to is not None else ports:
                    if (source, target) in delays:
                        order += 1
                        heapq.heappush(line, (now + delays[source, target], order, target, frame))
        now = time.monotonic()
        while line and line[0][0] <= now:
            _, _, target, frame = heapq.heappop(line)
            with contextlib.suppress(OSError):
                os.write(ports[target], frame)


class Net:
    """The namespaces, the forwarder between them, and the programs in them."""

    def __init__(self):
        self.prefix = f"smo{os.getpid()}-"
        self.names, self.ports, self.delays, self.addresses, self.programs, self.forwarder = [], {}, {}, {}, [], None
        self.links = {}
        self.files = tempfile.TemporaryDirectory()
        self.folder = pathlib.Path(self.files.name)

    def __enter__(self):
        return self

    def namespace(self, name):
        self.names.append(name)
        run("ip", "netns", "add", self.prefix + name)
        self.ip(name, "link", "set", "lo", "up")

    def ip(self, name, *arguments, check=True):
        return run("ip", "-n", self.prefix + name, *arguments, check=check)

    def set(self, name, setting, value):
        with inside(self.prefix + name):
            pathlib.Path("/proc/sys/net", setting).write_text(value, encoding="ascii")

    def link(self, name, device="eth0", network=UNDERLAY):
        """Another TAP device of a host; gives its number, which is the last byte of its address, too."""
        number = len(self.ports) + 1
        with inside(self.prefix + name):
            file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
            fcntl.ioctl(file, SET_INTERFACE, struct.pack("16sH22x", device.encode(), TAP_WITHOUT_HEADER))
        self.ports[number] = file
        self.links[number] = (name, device, network)
        self.set(name, f"ipv6/conf/{device}/disable_ipv6", "1")
        self.ip(name, "link", "set", device, "address", hardware(number))
        self.ip(name, "address", "add", f"{network}.{number}/24", "dev", device)
        self.ip(name, "link", "set", device, "up")
        self.addresses.setdefault(name, f"{network}.{number}")
        return number

    def host(self, name):
        self.namespace(name)
        return self.link(name)

    def behind(self, name, rules):
        """A host with a router before it, which has these rules; gives the number of the router."""
        router = f"nat-{name}"
        number = self.host(router)
        self.namespace(name)
        self.ip(router, "link", "add", "lan0", "type", "veth", "peer", "name", "eth0", "netns", self.prefix + name)
        self.ip(router, "address", "add", "192.168.1.1/24", "dev", "lan0")
        self.ip(router, "link", "set", "lan0", "up")
        self.set(router, "ipv4/ip_forward", "1")
        for host, device in ((router, "lan0"), (name, "eth0")):
            self.set(host, f"ipv6/conf/{device}/disable_ipv6", "1")
        self.ip(name, "address", "add", "192.168.1.2/24", "dev", "eth0")
        self.ip(name, "link", "set", "eth0", "up")
        self.ip(name, "route", "add", "default", "via", "192.168.1.1", "dev", "eth0", "onlink")
        self.nft(router, rules)
        self.addresses[name] = self.addresses[router]
        return number

    def way(self, one, other, milliseconds):
        """What the ports with these numbers send each other takes so long."""
        self.delays[one, other] = self.delays[other, one] = milliseconds / 1e3

    def neighbours(self, more=()):
        """Nobody has to ask for an address: over a real internet, nobody does. `more` are other addresses of ports."""
        for number, (name, device, network) in self.links.items():
            others = [(f"{there}.{other}", other) for other, (_, _, there) in self.links.items() if there == network]
            for address, other in [*others, *more]:
                if other != number:
                    self.ip(name, "neigh", "replace", address, "lladdr", hardware(other), "dev", device, "nud", "permanent")

    def open(self):
        """Starts the forwarder."""
        self.neighbours()
        self.forwarder = fork(lambda: forward(self.ports, self.delays))

    def nft(self, name, rules):
        run("ip", "netns", "exec", self.prefix + name, "nft", "-f", "-", text=rules)

    def nft_all(self, scripts):
        """Rules for several hosts, as near to the same moment as can be."""
        runs = [subprocess.Popen(["ip", "netns", "exec", self.prefix + name, "nft", "-f", "-"], stdin=subprocess.PIPE, text=True)
                for name in scripts]
        for process, rules in zip(runs, scripts.values()):
            process.stdin.write(rules)
            process.stdin.close()
        if any(process.wait() for process in runs):
            raise RuntimeError(f"nft refused {scripts}")

    def start(self, name, *command, log, **environment):
        with open(self.folder / log, "ab") as out:
            program = subprocess.Popen(["ip", "netns", "exec", self.prefix + name, *map(str, command)], stdout=out, stderr=out,
                                       env=os.environ | environment, preexec_fn=first_in_line)
        self.programs.append(program)
        return program  # `ip netns exec` becomes the program

    def end(self, program, how=signal.SIGKILL):
        self.programs.remove(program)
        program.send_signal(how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            program.wait(5)
        program.kill()
        program.wait()

    def __exit__(self, *_):
        for program in self.programs:
            program.send_signal(signal.SIGTERM)
        for program in list(self.programs):
            self.end(program, signal.SIGTERM)
        if self.forwarder:
            os.kill(self.forwarder, signal.SIGTERM)
            os.waitpid(self.forwarder, 0)
        for file in self.ports.values():
            os.close(file)
        for name in self.names:
            run("ip", "netns", "delete", self.prefix + name, check=False)
        self.files.cleanup()


def hardware(number):
    return f"02:00:00:00:00:{number:02x}"


def nat(kind):
    """Rules of a router: `port-restricted` keeps ports, `symmetric` has one by chance for each destination; in comes what answers."""
    chance = " fully-random" if kind == "symmetric" else ""
    translate = [f'oifname "eth0" meta l4proto udp masquerade{chance}', 'oifname "eth0" masquerade']
    answers = [f"meta l4proto udp ct mark set {UDP_MARK}", 'iifname "eth0" ct state { new, invalid } drop']
    return (table("ip nat", "post", "nat hook postrouting priority 100", translate)
            + table("ip door", "forward", "filter hook forward priority 0", answers)
            + table("ip wall", "input", "filter hook input priority 0", ["meta l4proto { tcp, udp } drop"]))


def table(name, chain, kind, rules):
    """A table with one chain."""
    return "\n".join([f"table {name} {{", f"chain {chain} {{", f"type {kind};", *rules, "}", "}", ""])


def forget_udp(namespace):
    """The table of connections of a router loses all UDP: IPCTNL_MSG_CT_DELETE with a mark and a mask."""
    with inside(namespace):
        netlink = socket.socket(16, socket.SOCK_RAW, 12)
    request = struct.pack("=IHHII", 36, 0x0102, 5, 0, 0) + bytes(4)
    request += b"".join(struct.pack("=HH", 8, kind) + struct.pack(">I", value) for kind, value in ((8, UDP_MARK), (21, 0xFFFFFFFF)))
    netlink.send(request)
    answer = netlink.recv(4096)
    netlink.close()
    if answer[16:20] != bytes(4):
        raise OSError("the router did not forget")


class Stream:
    """Numbered datagrams both ways, each with the time of its sending; one process holds both ends, so one clock measures."""

    # What it shows while it runs, for each direction: when the last came and how long that took, how many came, how many were sent.
    LIVE = struct.Struct("ddQQ")

    def __init__(self, sockets, rate=1000):
        self.live = mmap.mmap(-1, 4096)
        self.store = tempfile.TemporaryFile()
        pipe = os.pipe()
        self.stop = pipe[1]
        self.pid = fork(lambda: (os.close(pipe[1]), self.carry(sockets, rate, pipe[0])))
        os.close(pipe[0])
        for end in sockets:
            end.close()

    def carry(self, sockets, rate, stop):
        a, b = sockets
        files = {a.fileno(): (a, 1), b.fileno(): (b, 0)}  # what b receives is direction 0
        ways = [(a, b.getsockname()), (b, a.getsockname())]
        sent = [array.array("d"), array.array("d")]
        came = [(array.array("d"), array.array("Q")) for _ in ways]
        filling, step, due = bytes(DATAGRAM_BYTES - NUMBER.size), 1 / rate, time.monotonic()
        sending, last = True, 0.0
        while sending or time.monotonic() < last:
            now = time.monotonic()
            if sending and now >= due:
                due = max(due + step, now)  # held up, it goes on at its pace and makes no burst of it
                for way, (end, target) in enumerate(ways):
                    with contextlib.suppress(OSError):  # what the kernel refuses was not sent
                        end.sendto(NUMBER.pack(len(sent[way]), now) + filling, target)
                        sent[way].append(now)
            ready = select.select([*files, *([stop] if sending else [])], (), (), max(0.0, due - time.monotonic()) if sending else 0.05)[0]
            for file in ready:
                if file == stop:
                    sending, last = False, time.monotonic() + 2.0
                    continue
                end, way = files[file]
                with contextlib.suppress(OSError):
                    while True:
                        number, at = NUMBER.unpack_from(end.recv(FRAME_BYTES))
                        now = time.monotonic()
                        came[way][0].append(now)
                        came[way][1].append(number)
                        self.LIVE.pack_into(self.live, way * self.LIVE.size, now, now - at, len(came[way][0]), len(sent[way]))
        with os.fdopen(os.dup(self.store.fileno()), "wb") as out:
            for way in (0, 1):
                for part in (sent[way], *came[way]):
                    out.write(struct.pack("Q", len(part)))
                    part.tofile(out)

    def now(self):
        """For each direction: when the last one came and how long it took, how many came and were sent."""
        return [self.LIVE.unpack_from(self.live, way * self.LIVE.size) for way in (0, 1)]

    def finish(self):
        """Ends it; gives what happened in each direction."""
        os.close(self.stop)
        if os.waitpid(self.pid, 0)[1]:
            raise RuntimeError("the stream broke")
        self.store.seek(0)
        data, at, parts = self.store.read(), 0, []
        for kind in "ddQddQ":
            count = struct.unpack_from("Q", data, at)[0]
            part = array.array(kind)
            part.frombytes(data[at + 8:at + 8 + 8 * count])
            parts.append(part)
            at += 8 + 8 * count
        return [Account(*parts[:3]), Account(*parts[3:])]


class Account:
    """What one direction came to."""

    def __init__(self, sent, times, numbers):
        self.sent, self.times, self.numbers = sent, times, numbers
        counts = collections.Counter(numbers)
        self.doubled = sorted(number for number, count in counts.items() if count > 1)
        self.lost = [number for number in range(len(sent)) if number not in counts]
        self.reordered, highest = [], -1
        for number in numbers:
            if number < highest:
                self.reordered.append(number)
            highest = max(highest, number)

    def within(self, numbers, start, end):
        return sum(1 for number in numbers if start <= self.sent[number] < end)

    def gap(self, start, end):
        """The longest gap between arrivals that touches this time."""
        longest, last = 0.0, None
        for now in self.times:
            if now >= start and last is not None and last <= end:
                longest = max(longest, now - last)
            last = now
        return longest

    def since(self, start, end, limit):
        """When, from `start`, the first arrived that took at most `limit` seconds; the others of that path follow."""
        for now, number in zip(self.times, self.numbers):
            if start <= now < end and now - self.sent[number] <= limit:
                return now - start
        return None


def sockets(ends):
    """A socket for each namespace and address."""
    made = []
    for namespace, address in ends:
        with inside(namespace):
            end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        end.setsockopt(socket.SOL_SOCKET, RECEIVE_BUFFER_FORCE, RECEIVE_BUFFER_BYTES)
        end.setblocking(False)
        end.bind((address, 0))
        made.append(end)
    return made


def pause(least, most):
    """A time by chance, so that no run falls on the same moment of any timer."""
    time.sleep(random.uniform(least, most))
