//! Two channels over loopback.
use super::*;
use crate::{
    tls::{CertStore, client_config},
    ws::MESSAGE_BYTES,
};
use rustls::{ClientConnection, ServerConnection};
use shadowmesh_core::{crypto::Identity, time::Instant};
use std::{
    net::TcpListener,
    time::{Duration, SystemTime},
};

/// A client's channel and a server's, and their sockets.
struct Pair {
    client: (Channel, TcpStream),
    server: (Channel, TcpStream),
}

impl Pair {
    fn new() -> Self {
        let identity = Identity::from_seed([7; 32]);
        let store = CertStore::new(&identity, Duration::from_hours(24), Instant::ZERO, SystemTime::now()).expect("a certificate");
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let mut there = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (mut here, _) = listener.accept().expect("accept");
        let name = tls::server_name("localhost").expect("a name");
        let mut client = ClientConnection::new(client_config(Some(identity.id()), false), name).expect("a client");
        let mut server = ServerConnection::new(tls::server_config(store)).expect("a server");
        let serving = std::thread::spawn(move || {
            while server.is_handshaking() {
                server.complete_io(&mut here).expect("a handshake");
            }
            (server, here)
        });
        while client.is_handshaking() || client.wants_write() {
            client.complete_io(&mut there).expect("a handshake");
        }
        let (server, here) = serving.join().expect("no panic");
        for socket in [&here, &there] {
            socket.set_nonblocking(true).expect("a socket");
        }
        Self {
            client: (Channel::new(Connection::Client(client), ReadAhead::default()), there),
            server: (Channel::new(Connection::Server(server), ReadAhead::of_handshake()), here),
        }
    }
}

/// Reads until the kernel has no more: messages in order, or how it ended.
fn read_all((channel, tcp): &mut (Channel, TcpStream), into: &mut Vec<Vec<u8>>) -> Option<Ended> {
    loop {
        match channel.read(tcp) {
            Ok(Came::Message(message)) => into.push(message),
            Ok(Came::Later) => {}
            Ok(Came::Nothing) => return None,
            Err(why) => return Some(why),
        }
    }
}

fn flush((channel, tcp): &mut (Channel, TcpStream)) -> Flushed {
    channel.flush(tcp).expect("the connection stands")
}

#[test]
fn more_than_the_kernel_takes_comes_in_order_and_is_told_when_it_is_gone() {
    let mut pair = Pair::new();
    let messages: Vec<Vec<u8>> = (0..400_usize).map(|at| vec![(at % 251) as u8; at * 997 % MESSAGE_BYTES]).collect();
    let (mut came, mut told, mut blocked) = (Vec::new(), 0, false);
    for message in &messages {
        pair.client.0.send(message.clone()).expect("it stands");
        if !pair.client.0.is_full() {
            continue;
        }
        loop {
            match flush(&mut pair.client) {
                Flushed::Blocked => {
                    blocked = true;
                    assert_eq!(read_all(&mut pair.server, &mut came), None);
                }
                Flushed::Messages(len) => {
                    told += len;
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    }
    while came.len() < messages.len() {
        if let Flushed::Messages(len) = flush(&mut pair.client) {
            told += len;
        }
        assert_eq!(read_all(&mut pair.server, &mut came), None);
    }
    assert_eq!(flush(&mut pair.client), Flushed::Nothing);
    assert!(came == messages && blocked);
    assert_eq!(told, messages.iter().map(Vec::len).sum::<usize>());
}

#[test]
fn a_gathered_message_is_one_record_of_tls() {
    let mut pair = Pair::new();
    pair.client.0.send(vec![1; 16 * 1024 - 8]).expect("it stands");
    let mut sealed = Vec::new();
    while pair.client.0.tls.wants_write() {
        pair.client.0.tls.write_tls(&mut sealed).expect("room");
    }
    let record = usize::from(u16::from_be_bytes([sealed[3], sealed[4]]));
    assert_eq!(sealed.len(), 5 + record, "one record and no second");
}

#[test]
fn short_messages_share_records_and_keep_their_order() {
    let mut pair = Pair::new();
    let messages: Vec<Vec<u8>> = [100, 100, 5_000, 100, 4_095, 4_095, 4_095, 100].map(|len: usize| vec![(len % 251) as u8; len]).into();
    for message in &messages {
        pair.client.0.send(message.clone()).expect("it stands");
    }
    pair.client.0.seal_short().expect("it stands");
    let mut sealed = Vec::new();
    while pair.client.0.tls.wants_write() {
        pair.client.0.tls.write_tls(&mut sealed).expect("room");
    }
    let (mut records, mut rest) = (0, sealed.as_slice());
    while let [_, _, _, high, low, after @ ..] = rest {
        (records, rest) = (records + 1, &after[usize::from(u16::from_be_bytes([*high, *low]))..]);
    }
    assert_eq!(records, 4, "two short ones, the long one, four short ones, the last");
    assert!(pair.client.0.short.capacity() <= KEPT_BYTES);
    (&pair.client.1).write_all(&sealed).expect("room");
    let mut came = Vec::new();
    while came.len() < messages.len() {
        assert_eq!(read_all(&mut pair.server, &mut came), None);
    }
    assert!(came == messages);
}

#[test]
fn a_ping_is_answered_and_a_goodbye_comes_behind_what_was_sent() {
    let mut pair = Pair::new();
    let mut came = Vec::new();
    let mut ping = b"are you there".to_vec();
    let mut head = Head::of(Kind::Pong, &mut ping, Some([1, 2, 3, 4])).as_bytes().to_vec();
    head[0] = 0x89;
    pair.client.0.tls.writer().write_all(&[head, ping].concat()).expect("it stands");
    assert_eq!(flush(&mut pair.client), Flushed::Nothing);
    // the kernel may be slower than this thread
    loop {
        assert_eq!(read_all(&mut pair.server, &mut came), None);
        match pair.client.0.read(&pair.client.1) {
            Ok(Came::Nothing) => {}
            Ok(Came::Later) => break, // the pong
            other => panic!("{other:?}"),
        }
    }
    pair.server.0.send(b"last".to_vec()).expect("it stands");
    pair.server.0.say_goodbye().expect("it stands");
    assert!(pair.server.0.is_full());
    assert_eq!(flush(&mut pair.server), Flushed::Goodbye);
    let ended = loop {
        if let Some(ended) = read_all(&mut pair.client, &mut came) {
            break ended;
        }
    };
    assert_eq!((came, ended), (vec![b"last".to_vec()], Ended::ByPeer));
}

/// Who pings and takes no answers makes this end owe one, not all of them.
#[test]
fn answers_that_nobody_takes_are_not_kept() {
    let mut pair = Pair::new();
    socket2::SockRef::from(&pair.server.1).set_send_buffer_size(4_096).expect("a socket");
    socket2::SockRef::from(&pair.client.1).set_recv_buffer_size(4_096).expect("a socket");
    let mut came = Vec::new();
    for at in 0..5_000_u32 {
        let mut ping = [at.to_be_bytes().as_slice(), &[7; 121]].concat();
        let mut head = Head::of(Kind::Pong, &mut ping, Some([1, 2, 3, 4])).as_bytes().to_vec();
        head[0] = 0x89;
        pair.client.0.tls.writer().write_all(&[head, ping].concat()).expect("it stands");
        while flush(&mut pair.client) == Flushed::Blocked {
            assert_eq!(read_all(&mut pair.server, &mut came), None);
        }
    }
    assert_eq!(read_all(&mut pair.server, &mut came), None);
    let mut kept = Vec::new();
    while pair.server.0.tls.wants_write() {
        pair.server.0.tls.write_tls(&mut kept).expect("room");
    }
    assert!(kept.len() < 200, "{} bytes wait for somebody to take them", kept.len());
}

#[test]
fn a_connection_that_ends_without_a_word_ended_by_peer() {
    let mut pair = Pair::new();
    drop(pair.server);
    let ended = loop {
        if let Some(ended) = read_all(&mut pair.client, &mut Vec::new()) {
            break ended;
        }
    };
    assert_eq!(ended, Ended::ByPeer);
}

#[test]
fn keys_to_mask_with_differ_and_a_server_has_none() {
    let mut masks = Masks::new(Side::Client);
    let mut drawn: Vec<_> = (0..100).map(|_| masks.next().expect("a key")).collect();
    drawn.sort_unstable();
    drawn.dedup();
    assert!(drawn.len() > 98, "two of a hundred may be alike once in a million");
    assert_eq!(Masks::new(Side::Server).next(), None);
}
