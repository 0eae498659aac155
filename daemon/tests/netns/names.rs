//! Names of peers below `.mesh`, asked as the resolver of the system asks.

use crate::mesh::{Mesh, Options, overlay};
use crate::world::{Host, World};
use crate::{Scenario, scenario};
use std::net::{IpAddr, Ipv6Addr, UdpSocket};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);
const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;

pub(crate) fn all() -> Vec<Scenario> {
    vec![scenario("names_of_peers_are_answered", names_of_peers)]
}

fn names_of_peers(world: &World) {
    let mut mesh = Mesh::start(world, &["a", "b"], false, |options| options);
    mesh.until_all("direct");
    let derived = mesh.peers[1].derived_address();
    let status = mesh.peers[0].status().expect("a running peer answers status");
    let server: Ipv6Addr = status["interface"]["dns"].as_str().expect("names are on by default").parse().expect("an address");
    let host = mesh.peers[0].host.clone();
    let ask = |name: &str, kind| ask(&host, server, name, kind).expect("an answer");
    assert_eq!(ask("b.mesh", A), (0, vec![IpAddr::V4(overlay(2))]));
    assert_eq!(ask("B.Mesh", AAAA), (0, vec![derived]));
    assert_eq!(ask("a.mesh", A), (0, vec![IpAddr::V4(overlay(1))]), "this machine itself");
    assert_eq!(ask("2.0.77.10.in-addr.arpa", PTR).0, 0);
    assert_eq!(ask("3.0.77.10.in-addr.arpa", PTR).0, 3);
    assert_eq!(ask("nobody.mesh", A), (3, vec![]));
    assert_eq!(ask("relay.example", A), (5, vec![]), "all else is refused, the relay's own name too");
    // A peer cannot ask: what it sends to the address ends in its own name server, or at this one's kernel.
    let other = mesh.peers[1].host.clone();
    assert_eq!(ask_from(&other, derived, server, "a.mesh", A).map(|(code, _)| code), Some(0), "its own answers it");
    // Two that call themselves the same are none, whatever their letters.
    let twin = world.host("c");
    let _twin = crate::mesh::Peer::start_with(world, &twin, &mesh.relay.token, 3, |options| Options {
        arguments: options.arguments.iter().map(|word| if word == "c" { "B".to_owned() } else { word.clone() }).collect(),
        ..options
    });
    mesh.peers[0].until_path("B", "direct");
    world.wait_for("the name to be nobody's", LIMIT, || (ask("b.mesh", A) == (3, vec![])).then_some(()));
    assert!(mesh.peers[0].said().contains("several peers are called so"), "the log says why");
    let warnings = mesh.peers[0].status().expect("a running peer answers status")["warnings"].clone();
    assert!(warnings[0]["kind"] == "name" && warnings[0]["text"].as_str().is_some_and(|text| text.contains("\"b\"")), "{warnings:#}");
    // Without names there is nobody at the address.
    let off = world.host("d");
    let off = crate::mesh::Peer::start_with(world, &off, &mesh.relay.token, 4, |options| options.with(&["--dns", "false"]));
    world.wait_for("a peer without names", LIMIT, || off.status().filter(|status| status["interface"]["dns"].is_null()).map(drop));
    assert_eq!(ask_from(&off.host, IpAddr::V6(Ipv6Addr::UNSPECIFIED), server, "a.mesh", A), None);
}

fn ask(host: &Host, server: Ipv6Addr, name: &str, kind: u16) -> Option<(u8, Vec<IpAddr>)> {
    ask_from(host, IpAddr::V6(Ipv6Addr::UNSPECIFIED), server, name, kind)
}

/// Code and addresses of an answer, or `None` when none comes.
fn ask_from(host: &Host, from: IpAddr, server: Ipv6Addr, name: &str, kind: u16) -> Option<(u8, Vec<IpAddr>)> {
    let socket = host.enter(|| UdpSocket::bind((from, 0))).expect("an address of this host");
    socket.set_read_timeout(Some(Duration::from_millis(500))).expect("a plain option");
    let mut question = vec![0x77, 0x11, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(label.len() as u8);
        question.extend_from_slice(label.as_bytes());
    }
    question.push(0);
    question.extend_from_slice(&[kind.to_be_bytes(), [0, 1]].concat());
    let mut answer = [0; 1500];
    // A datagram may be lost; a resolver asks again.
    let len = (0..4).find_map(|_| {
        socket.send_to(&question, (server, 53)).expect("there is a route");
        socket.recv(&mut answer).ok()
    })?;
    let (head, records) = answer[..len].split_at(question.len());
    assert_eq!((&head[..2], &head[12..]), (&question[..2], &question[12..]));
    let mut at = 0;
    let addresses = (0..head[7]).map(|_| {
        let data = &records[at + 12..at + 12 + usize::from(records[at + 11])];
        at += 12 + data.len();
        <[u8; 4]>::try_from(data).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(data).map(IpAddr::from)).ok()
    });
    Some((head[3] & 15, addresses.collect::<Vec<_>>().into_iter().flatten().collect()))
}
