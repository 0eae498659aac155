//! The directory alone, where real handshakes would be too many.
use crate::{
    hub::directory::{Directory, EAGER_MEMBERS, Member},
    id::{ConnId, Handle, PeerId},
    time::{Duration, Instant},
    wire::DirectoryEntry,
};
use std::collections::BTreeMap;

const NET: [u8; 32] = [1; 32];
const NOW: Instant = Instant::from_millis(5_000);

fn peer(n: u32) -> PeerId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&n.to_be_bytes());
    PeerId(id)
}

fn member(n: u32) -> Member {
    Member {
        conn: ConnId(n.into()),
        handle: Handle(0),
        observed: "192.0.2.1:1".parse().expect("an address"),
        withhold: false,
        supports_direct: false,
    }
}

fn join(directory: &mut Directory, net_r: [u8; 32], n: u32) -> (Handle, u32) {
    let joined = directory.join(NOW, net_r, peer(n), member(n)).expect("handles are left");
    (joined.handle, joined.network)
}

/// Everything that is due `millis` later, in order.
fn due(directory: &mut Directory, millis: u64) -> Vec<(ConnId, Vec<DirectoryEntry>)> {
    core::iter::from_fn(|| directory.poll(NOW + Duration::from_millis(millis))).collect()
}

// protocol 6.4, 6.6
#[test]
fn pages_hold_256_and_large_networks_are_looked_up() {
    let mut directory = Directory::default();
    for n in 0..EAGER_MEMBERS as u32 {
        join(&mut directory, NET, n);
    }
    let pages = directory.pages(1, peer(0));
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 256, 255]);
    assert!(!due(&mut directory, 100).is_empty());
    let (handle, network) = join(&mut directory, NET, 5_000);
    assert!(directory.pages(network, peer(5_000)).is_empty());
    assert_eq!(directory.lookup(network, peer(5_000)).handle, handle);
    assert!(!directory.lookup(network, peer(5_001)).online);
    assert!(due(&mut directory, 300).is_empty(), "nobody is told of the 1,025th");
    directory.leave(NOW, network, peer(3), ConnId(3));
    let told = due(&mut directory, 300);
    let last = told
        .iter()
        .filter(|(conn, _)| *conn == ConnId(0))
        .flat_map(|(_, entries)| entries)
        .map(|entry| (entry.peer, entry))
        .collect::<BTreeMap<_, _>>();
    assert!(last[&peer(5_000)].online && !last[&peer(3)].online, "small enough again: what was not told is told");
}

#[test]
fn a_broadcast_tells_the_state_of_its_sending_in_pages() {
    let mut directory = Directory::default();
    for n in 0..300 {
        join(&mut directory, NET, n);
    }
    let at = NOW + Duration::from_millis(100);
    let first = directory.poll(at).expect("due");
    assert_eq!((first.0, first.1.len()), (ConnId(0), 255), "all of the first page but itself");
    directory.leave(at, 1, peer(250), ConnId(250));
    let second = directory.poll(at).expect("due");
    assert_eq!(second.0, ConnId(1));
    assert!(second.1.iter().any(|entry| entry.peer == peer(250) && !entry.online), "gone since the broadcast began");
    let rest = due(&mut directory, 100);
    assert_eq!(rest.len(), 299 * 2 - 2, "each of 299 members gets two pages");
    let later = due(&mut directory, 200);
    assert_eq!(later.len(), 299, "then those told too early hear of it");
    assert!(later.iter().all(|(_, entries)| entries.len() == 1 && !entries[0].online));
}

#[test]
fn networks_take_turns() {
    let mut directory = Directory::default();
    for n in 0..4 {
        join(&mut directory, NET, n);
        join(&mut directory, [2; 32], 100 + n);
    }
    let order: Vec<_> = due(&mut directory, 100).into_iter().map(|(conn, _)| conn.0 >= 100).collect();
    assert_eq!(order, [false, true, false, true, false, true, false, true]);
}

#[test]
fn an_empty_network_is_forgotten_with_all_it_had_to_tell() {
    let mut directory = Directory::default();
    let (first, network) = join(&mut directory, NET, 1);
    directory.leave(NOW, network, peer(1), ConnId(9));
    assert_eq!(directory.networks(), 1, "another connection cannot take it out");
    directory.leave(NOW, network, peer(1), ConnId(1));
    assert_eq!((directory.networks(), directory.deadline()), (0, None));
    let (second, again) = join(&mut directory, NET, 1);
    assert!(second > first && again != network, "no handle is used twice");
    join(&mut directory, NET, 2);
    directory.poll(NOW + Duration::from_millis(100)).expect("under way");
    directory.leave(NOW, again, peer(1), ConnId(1));
    directory.leave(NOW, again, peer(2), ConnId(2));
    assert!(due(&mut directory, 200).is_empty());
    assert_eq!(directory.deadline(), None);
}
