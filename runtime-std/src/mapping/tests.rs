//! The thread: what it wants of which router, and how it ends.
use super::*;

#[test]
fn it_ends_at_once_and_wants_nothing_of_a_peer_that_listens_elsewhere() {
    let (commands, _obeyed) = flume::bounded(8);
    let listens = Listens { udp: IpAddr::V4(Ipv4Addr::LOCALHOST), tcp: IpAddr::V4(Ipv4Addr::LOCALHOST) };
    let mapper = PortMapper::start(listens, None, commands.downgrade()).expect("a thread");
    mapper.want(Ports { udp: (Some(1), None), tcp: Some(2) });
    mapper.look();
    let ended = mapper.ended.clone();
    drop(mapper);
    assert_eq!(ended.try_recv(), Err(flume::TryRecvError::Disconnected), "the thread has ended");
}

#[test]
fn a_socket_that_is_bound_to_one_address_is_wanted_only_there() {
    let own = "192.168.1.2";
    let both = Ports { udp: (Some(1), Some(2)), tcp: Some(3) };
    for (udp, tcp, expected) in [
        ("0.0.0.0", "0.0.0.0", (Some(1), Some(3))),
        (own, "192.168.1.9", (Some(1), None)),
        ("127.0.0.1", own, (None, Some(3))),
        ("::", "::1", (None, None)),
    ] {
        let mut mapper = mapper(udp, tcp);
        mapper.lines[0] = Some(line(own));
        let wanted = mapper.wanted(0, both);
        assert_eq!((wanted.udp, wanted.tcp), expected, "{udp} and {tcp}");
        assert_eq!(mapper.wanted(1, both), Wanted::default(), "there is no router");
    }
    let mut mapper = mapper("0.0.0.0", "::");
    mapper.lines[1] = Some(line("2001:db8::2"));
    assert_eq!(mapper.wanted(1, both), Wanted { udp: Some(2), tcp: Some(3) });
}

fn mapper(udp: &str, tcp: &str) -> Mapper {
    let address = |text: &str| text.parse().expect("an address");
    let bell = eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor");
    Mapper {
        shared: Arc::new(Shared { orders: Mutex::default(), bell }),
        listens: Listens { udp: address(udp), tcp: address(tcp) },
        device: None,
        commands: flume::bounded(1).0.downgrade(),
        lines: [None, None],
        look_at: Instant::ZERO,
        look_pause: FIRST_LOOK_PAUSE,
        upnp: Upnp::default(),
        told: Vec::new(),
        is_late: false,
    }
}

fn line(own: &str) -> Line {
    let own = own.parse().expect("an address");
    let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("loopback");
    let gateway = Gateway { address: SocketAddr::new(own, codec::PORT), own };
    Line { gateway, socket, client: Client::new(own, own, [[1; 12], [2; 12]]) }
}
