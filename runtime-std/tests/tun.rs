//! Real TUN and TAP devices, in a network namespace of their own. Needs root; without it the tests are ignored and say why.
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::event::{PollFd, PollFlags, poll};
use shadowmesh_core::offload::{Large, Offload, Segmentation, Segments};
use shadowmesh_runtime_std::{
    tun::{Device, Shape},
    udp,
};
use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

/// Set in the copy of this program that runs inside its own network namespace.
const INSIDE: &str = "SHADOWMESH_TEST_NETNS";

/// Set in the copy that lacks the capability; it tries once and reports.
const POWERLESS: &str = "SHADOWMESH_TEST_POWERLESS";

fn main() -> ExitCode {
    if std::env::var_os(POWERLESS).is_some() {
        return powerless();
    }
    let arguments = Arguments::from_args();
    if !arguments.list && std::env::var_os(INSIDE).is_none() && can_unshare() {
        let program = std::env::current_exe().expect("this program has a path");
        let mut inside = Command::new("unshare");
        inside.arg("--net").arg("--").arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1");
        let status = inside.status().expect("unshare ran a moment ago");
        return if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let ready = std::env::var_os(INSIDE).is_some();
    let trial = |name: &str, test: fn() -> Result<(), Failed>| {
        let name = if ready { name.to_owned() } else { format!("{name} [needs root, unshare and /dev/net/tun]") };
        Trial::test(name, test).with_ignored_flag(!ready)
    };
    let trials = vec![
        trial("a_tun_device_carries_packets_both_ways_and_goes_when_dropped", tun_both_ways),
        trial("a_tap_device_has_its_mac_and_carries_frames", tap_frames),
        trial("large_packets_cross_uncut", large_packets),
        trial("a_flow_stays_in_its_queue_whatever_answers_it", flows_stay_in_their_queues),
        trial("a_name_that_is_taken_is_a_sentence", name_taken),
        trial("bad_names_and_mtus_are_sentences", bad_shapes),
        trial("no_permission_is_a_sentence", no_permission),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn can_unshare() -> bool {
    let tried = Command::new("unshare").args(["--net", "--", "test", "-c", "/dev/net/tun"]).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

fn tun_both_ways() -> Result<(), Failed> {
    let shape = shape("smtun0", false);
    let device = Device::open(&shape)?;
    assert_eq!(device.name(), "smtun0");
    let (own, other) = neighbours(&shape);
    let socket = UdpSocket::bind((own, 4000))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.send_to(b"out", (other, 4001))?;
    let (_, out) = first(&device, |packet| packet[0] >> 4 == 4)?;
    assert_eq!(out[12..20], [own.octets(), other.octets()].concat());
    assert!(out.ends_with(b"out"));
    device.write(Offload::default(), &udp_packet(other, own, 4001, 4000, b"in"))?;
    let mut came = [0; 16];
    let (len, from) = socket.recv_from(&mut came)?;
    assert_eq!((&came[..len], from.ip()), (&b"in"[..], IpAddr::V4(other)));
    let addresses = shadowmesh_runtime_std::interfaces::local_addresses(None)?;
    assert!(shape.addresses.iter().all(|given| addresses.iter().any(|a| (a.address, a.prefix) == *given)));
    let without = shadowmesh_runtime_std::interfaces::local_addresses(Some("smtun0"))?;
    assert!(without.iter().all(|a| a.interface != "smtun0"));
    drop(device);
    assert!(!std::path::Path::new("/proc/sys/net/ipv4/conf/smtun0").exists());
    Ok(())
}

/// What the kernel hands over uncut it takes back uncut, and an application sees its datagrams; so it does with each of them alone.
fn large_packets() -> Result<(), Failed> {
    let shape = shape("smlarge0", false);
    let device = Device::open(&shape)?;
    if !device.joins().udp {
        return Ok(()); // before Linux 6.2
    }
    let (own, other) = neighbours(&shape);
    let socket = UdpSocket::bind((own, 4000))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let run: Vec<u8> = (0..2_500_u32).map(|i| (i / 1000) as u8).collect();
    udp::send_run(&socket, (other, 4001).into(), &run, 1000)?;
    let (offload, mut packet) = first(&device, |packet| packet[0] >> 4 == 4 && packet[9] == 17)?;
    assert_eq!((packet.len(), offload.segmentation), (2_528, Some(Segmentation { kind: Large::Udp, size: 1000 })));
    let mut segments = Segments::new(false, offload, &packet)?;
    let mut pieces = Vec::new();
    while let Some((head, body)) = segments.step() {
        pieces.push([head, body].concat());
    }
    assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [1028, 1028, 528]);
    turn_round(&mut packet);
    device.write(offload, &packet)?;
    for piece in &mut pieces {
        turn_round(piece);
        device.write(Offload { segmentation: None, ..offload }, piece)?;
    }
    for number in [0, 1, 2, 0, 1, 2] {
        let mut came = [9; 2000];
        let (len, from) = socket.recv_from(&mut came)?;
        assert_eq!((len, from), (if number == 2 { 500 } else { 1000 }, (other, 4001).into()));
        assert!(came[..len].iter().all(|byte| *byte == number));
    }
    Ok(())
}

/// The kernel would move a flow to the queue into which what answers it was written.
fn flows_stay_in_their_queues() -> Result<(), Failed> {
    let shape = Shape { queues: 4, ..shape("smqueue0", false) };
    let mut first = Device::open(&shape)?;
    let mut queues = first.take_queues();
    queues.insert(0, first);
    assert_eq!(queues.len(), 4);
    assert!(queues.iter().all(|queue| queue.joins() == queues[0].joins() && queue.name() == "smqueue0"));
    let why = Device::open(&shape).map(drop).expect_err("taken").to_string();
    assert!(why.contains("is taken"), "nobody joins a device of another: {why}");
    let (own, other) = neighbours(&shape);
    let mut used = [0; 4];
    for port in 4000..4032 {
        let socket = UdpSocket::bind((own, port))?;
        socket.set_read_timeout(Some(Duration::from_secs(5)))?;
        let place = queue_of(&queues, &socket, (other, 7))?;
        used[place] += 1;
        let answer = udp_packet(other, own, 7, port, b"answer");
        for queue in &queues {
            queue.write(Offload::default(), &answer)?;
            assert_eq!(socket.recv_from(&mut [0; 16])?.0, 6);
            assert_eq!(queue_of(&queues, &socket, (other, 7))?, place, "port {port}");
        }
    }
    assert!(used.iter().filter(|flows| **flows > 0).count() > 1, "32 flows are not in one queue: {used:?}");
    drop(queues);
    assert!(!std::path::Path::new("/proc/sys/net/ipv4/conf/smqueue0").exists());
    Ok(())
}

/// The queue that a datagram of this socket comes out of.
fn queue_of(queues: &[Device], socket: &UdpSocket, to: (Ipv4Addr, u16)) -> Result<usize, Failed> {
    socket.send_to(b"where", to)?;
    let mut buffer = vec![0; queues[0].buffer_len()];
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        for (place, queue) in queues.iter().enumerate() {
            while let Ok((_, len)) = queue.read(&mut buffer) {
                if buffer[..len].ends_with(b"where") {
                    return Ok(place);
                }
            }
        }
        let left = end.checked_duration_since(Instant::now()).ok_or("no such packet came")?;
        let mut all: Vec<_> = queues.iter().map(|queue| PollFd::new(queue, PollFlags::IN)).collect();
        poll(&mut all, Some(&left.try_into()?))?;
    }
}

/// Source and destination of an IPv4 packet with a UDP datagram change places; no checksum notices.
fn turn_round(packet: &mut [u8]) {
    let (addresses, ports) = packet[12..24].split_at_mut(8);
    addresses.rotate_left(4);
    ports.rotate_left(2);
}

fn tap_frames() -> Result<(), Failed> {
    let shape = shape("smtap0", true);
    let device = Device::open(&shape)?;
    let (own, other) = neighbours(&shape);
    UdpSocket::bind((own, 0))?.send_to(b"who is there", (other, 4001))?;
    let (_, question) = first(&device, |frame| frame[12..14] == [0x08, 0x06])?;
    assert_eq!(&question[..6], &[0xff; 6]);
    assert_eq!(&question[6..12], &MAC);
    Ok(())
}

fn name_taken() -> Result<(), Failed> {
    let _first = Device::open(&shape("smtwice0", false))?;
    let why = Device::open(&shape("smtwice0", false)).map(drop).expect_err("taken").to_string();
    assert!(why.contains("smtwice0 is taken") && why.contains("--interface"), "{why}");
    let why = Device::open(&shape("lo", false)).map(drop).expect_err("taken").to_string();
    assert!(why.contains("lo is taken"), "{why}");
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the form of all trials")]
fn bad_shapes() -> Result<(), Failed> {
    for name in ["", "a name", "much-too-long-a-name", "a/b", ".."] {
        let why = Device::open(&shape(name, false)).map(drop).expect_err(name).to_string();
        assert!(why.contains("cannot be the name of an interface"), "{why}");
    }
    let why = Device::open(&Shape { mtu: 1000, ..shape("smmtu0", false) }).map(drop).expect_err("mtu").to_string();
    assert!(why.contains("at least 1280"), "{why}");
    Ok(())
}

fn no_permission() -> Result<(), Failed> {
    let program = std::env::current_exe()?;
    let mut powerless = Command::new("setpriv");
    powerless.args(["--bounding-set", "-net_admin", "--inh-caps", "-net_admin", "--"]).arg(program).env(POWERLESS, "1");
    let output = powerless.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Ok(())
}

/// Tries to make a device without the capability; succeeds if that fails with the right sentence.
fn powerless() -> ExitCode {
    match Device::open(&shape("smnone0", false)) {
        Err(why) if why.to_string().contains("needs CAP_NET_ADMIN") => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("another reason: {why}");
            ExitCode::FAILURE
        }
        Ok(_) => {
            eprintln!("it was allowed");
            ExitCode::FAILURE
        }
    }
}

// --- helpers ---

const MAC: [u8; 6] = [0x02, 0x91, 0, 0, 0, 0x01];

/// A device in a subnet of its own: the tests run side by side.
fn shape(name: &str, layer2: bool) -> Shape {
    let net = name.bytes().fold(0u8, |sum, b| sum.wrapping_mul(31).wrapping_add(b));
    Shape {
        name: name.to_owned(),
        layer2,
        mtu: 1280,
        addresses: vec![
            (IpAddr::V4(Ipv4Addr::new(10, 91, net, 1)), 24),
            (IpAddr::V6(Ipv6Addr::new(0xfd00, 0x91, 0, net.into(), 0, 0, 0, 1)), 64),
        ],
        mac: layer2.then_some(MAC),
        queues: 1,
    }
}

/// The device's own address and one beside it.
fn neighbours(shape: &Shape) -> (Ipv4Addr, Ipv4Addr) {
    let IpAddr::V4(own) = shape.addresses[0].0 else { panic!("the first address is IPv4") };
    (own, Ipv4Addr::from_bits(own.to_bits() + 1))
}

/// The first packet that fits; the kernel sends some of its own.
fn first(device: &Device, fits: fn(&[u8]) -> bool) -> Result<(Offload, Vec<u8>), Failed> {
    let (mut buffer, end) = (vec![0; device.buffer_len()], Instant::now() + Duration::from_secs(5));
    loop {
        match device.read(&mut buffer) {
            Ok((offload, len)) if fits(&buffer[..len]) => return Ok((offload, buffer[..len].to_vec())),
            Ok(_) => {}
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                let left = end.checked_duration_since(Instant::now()).ok_or("no such packet came")?;
                poll(&mut [PollFd::new(device, PollFlags::IN)], Some(&left.try_into()?))?;
            }
            Err(why) => return Err(why.into()),
        }
    }
}

/// An IPv4 packet with a UDP datagram (RFC 791, RFC 768; UDP checksum left out).
fn udp_packet(from: Ipv4Addr, to: Ipv4Addr, from_port: u16, to_port: u16, body: &[u8]) -> Vec<u8> {
    let udp_len = u16::try_from(8 + body.len()).expect("short");
    let mut packet = vec![0x45, 0];
    packet.extend((20 + udp_len).to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    let sum: u32 = packet.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    packet[10..12].copy_from_slice(&(!u16::try_from(folded).expect("ten words carry once")).to_be_bytes());
    packet.extend(from_port.to_be_bytes());
    packet.extend(to_port.to_be_bytes());
    packet.extend(udp_len.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(body);
    packet
}
