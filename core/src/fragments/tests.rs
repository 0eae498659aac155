//! From a first fragment to a whole message, and all that must not lead there.
use super::{
    cookie::{OLD_FOR, RENEW_AFTER},
    inbox::REASSEMBLY_TIME,
    parcel::SENDINGS,
    *,
};
use crate::{
    bound::Bound,
    drops::Drop,
    handshake::{FIN_LEN_MIN, INIT_LEN_MIN, RESP_LEN_MIN, Setup},
    id::PeerId,
    network::{Network, RelayAddress},
    time::{Duration, Instant},
    wire::FRAGMENT_MAX_LEN,
};
use core::net::SocketAddr;
use proptest::prelude::*;
use zeroize::Zeroizing;

const SID: u32 = 77;
const START: Instant = Instant::from_millis(50_000);

fn mac1(secret: u8, responder: u8) -> Mac1Key {
    let relay = RelayAddress::new("wss://relay.example", None).expect("a relay");
    let network = Network::new([secret; 32], "test", vec![relay]).expect("a network");
    Setup::peer_peer(&network).mac1_key(PeerId([responder; 32]))
}

fn from(last: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, last], 51_820))
}

fn message(len: usize, fill: u8) -> Vec<u8> {
    (0..len).map(|place| (place as u8).wrapping_mul(3) ^ fill).collect()
}

/// A responder, with a count of the secrets that it drew.
struct Responder {
    door: Door,
    mac1: Mac1Key,
    secrets: u8,
}

impl Responder {
    fn new() -> Self {
        Self { door: Door::default(), mac1: mac1(1, 2), secrets: 0 }
    }

    fn take(&mut self, now: Instant, remote: SocketAddr, bytes: &[u8]) -> Result<Arrived, Drop> {
        let fragment = Fragment::parse(bytes).expect("a fragment");
        let secrets = &mut self.secrets;
        self.door.take(now, &self.mac1, remote, &fragment, || {
            *secrets += 1;
            Zeroizing::new([*secrets; 32])
        })
    }

    /// Asks for a cookie from there, as an initiator does, and gives the key for all further fragments.
    fn admits(&mut self, now: Instant, remote: SocketAddr, sid: u32) -> FragmentKey {
        let first = first(&self.mac1, sid);
        let Ok(Arrived::Asked(reply)) = self.take(now, remote, &first) else { panic!("a good first fragment is answered") };
        assert!(reply.len() <= first.len(), "never more than came");
        let cookie = cookie_of(&self.mac1, &first, &CookieReply::parse(&reply).expect("a reply")).expect("a good reply");
        FragmentKey::with_cookie(&self.mac1, &cookie)
    }

    fn whole(&mut self, now: Instant, remote: SocketAddr, fragments: &[Vec<u8>]) -> Option<Vec<u8>> {
        let mut all = fragments.iter().filter_map(|fragment| match self.take(now, remote, fragment) {
            Ok(Arrived::Whole { message, .. }) => Some(message),
            Ok(Arrived::Kept | Arrived::Asked(_)) | Err(_) => None,
        });
        all.next()
    }

    fn held(&self) -> (usize, usize) {
        let mut held = Vec::new();
        self.door.bounds(&mut |bound: Bound| {
            assert!(bound.is_kept(), "{bound:?}");
            held.push(bound.held);
        });
        (held[0], held[1])
    }
}

fn first(mac1: &Mac1Key, sid: u32) -> Vec<u8> {
    FragmentKey::first(mac1).cut(FragmentKind::Init, sid, &message(INIT_LEN_MIN, 0)).swap_remove(0)
}

// protocol 8.6
#[test]
fn with_the_cookie_a_message_becomes_whole_and_without_it_nothing_is_kept() {
    let mut responder = Responder::new();
    let init = message(INIT_LEN_MIN, 0);
    let without = FragmentKey::first(&responder.mac1).cut(FragmentKind::Init, SID, &init);
    assert!(matches!(responder.take(START, from(1), &without[0]), Ok(Arrived::Asked(_))));
    assert_eq!(responder.take(START, from(1), &without[1]).err(), Some(Drop::Unexpected), "the first alone asks");
    assert_eq!(responder.held(), (0, 0));
    let key = responder.admits(START, from(1), SID);
    assert_eq!(responder.whole(START, from(1), &key.cut(FragmentKind::Init, SID, &init)), Some(init));
    let fin = message(FIN_LEN_MIN + 40, 9);
    let cut = key.cut(FragmentKind::Fin, SID, &fin);
    assert_eq!(cut.len(), 8);
    assert_eq!(responder.whole(START, from(1), &cut), Some(fin));
    assert_eq!(responder.held(), (0, 0), "what is whole is not kept");
}

// protocol 8.6
#[test]
fn a_cookie_is_of_one_address_and_one_attempt() {
    let mut responder = Responder::new();
    let key = responder.admits(START, from(1), SID);
    let cut = key.cut(FragmentKind::Init, SID, &message(INIT_LEN_MIN, 0));
    let other_port = SocketAddr::new(from(1).ip(), 51_821);
    for remote in [from(2), other_port, "[2001:db8::1]:51820".parse().expect("an address")] {
        assert_eq!(responder.take(START, remote, &cut[0]).err(), Some(Drop::Forged));
    }
    let elsewhere = key.cut(FragmentKind::Init, SID + 1, &message(INIT_LEN_MIN, 0));
    assert_eq!(responder.take(START, from(1), &elsewhere[0]).err(), Some(Drop::Forged));
    assert_eq!(responder.held(), (0, 0));
}

// protocol 8.6
#[test]
fn each_altered_bit_another_network_and_another_responder_are_refused_in_silence() {
    let mut responder = Responder::new();
    let key = responder.admits(START, from(1), SID);
    let good = key.cut(FragmentKind::Init, SID, &message(INIT_LEN_MIN, 0)).swap_remove(1);
    for (place, bytes) in [(0, first(&responder.mac1, SID)), (1, good)] {
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            if Fragment::parse(&bad).is_ok() {
                assert!(responder.take(START, from(1), &bad).is_err(), "bit {bit} of {place}");
            }
        }
    }
    for stranger in [mac1(9, 2), mac1(1, 3)] {
        assert_eq!(responder.take(START, from(1), &first(&stranger, SID)).err(), Some(Drop::Forged));
    }
    assert_eq!(responder.held(), (0, 0));
}

// protocol 8.6
#[test]
fn the_secret_is_renewed_after_two_minutes_and_the_one_before_is_good_for_ten_seconds() {
    let mut responder = Responder::new();
    let old = responder.admits(START, from(1), SID).cut(FragmentKind::Init, SID, &message(INIT_LEN_MIN, 0));
    let almost = START + RENEW_AFTER - Duration::from_millis(1);
    responder.admits(almost, from(2), SID);
    assert_eq!(responder.secrets, 1);
    let renewed = START + RENEW_AFTER;
    responder.admits(renewed, from(2), SID);
    assert_eq!(responder.secrets, 2);
    assert!(responder.take(renewed + OLD_FOR - Duration::from_millis(1), from(1), &old[0]).is_ok());
    assert_eq!(responder.take(renewed + OLD_FOR, from(1), &old[1]).err(), Some(Drop::Forged));
}

// protocol 8.6
#[test]
fn a_secret_that_nobody_asked_to_renew_is_old_all_the_same() {
    let mut responder = Responder::new();
    let old = responder.admits(START, from(1), SID).cut(FragmentKind::Init, SID, &message(INIT_LEN_MIN, 0));
    let late = START + RENEW_AFTER + OLD_FOR;
    assert!(responder.take(late - Duration::from_millis(1), from(1), &old[0]).is_ok());
    assert_eq!(responder.take(late, from(1), &old[0]).err(), Some(Drop::Forged));
    responder.admits(late, from(1), SID);
    assert_eq!(responder.take(late, from(1), &old[0]).err(), Some(Drop::Forged), "not as the one before either");
}

// protocol 8.6
#[test]
fn what_is_not_whole_after_five_seconds_is_given_up() {
    let mut responder = Responder::new();
    let init = message(INIT_LEN_MIN, 0);
    let cut = responder.admits(START, from(1), SID).cut(FragmentKind::Init, SID, &init);
    assert_eq!(responder.whole(START, from(1), &cut[..1]), None);
    assert_eq!(responder.door.deadline(), Some(START + REASSEMBLY_TIME));
    assert_eq!(responder.held(), (1, INIT_LEN_MIN));
    let late = START + REASSEMBLY_TIME;
    assert_eq!(responder.whole(late, from(1), &cut[1..]), None, "the first one is gone");
    assert_eq!(responder.whole(late, from(1), &cut[..1]), Some(init));
    responder.door.expire(late + REASSEMBLY_TIME);
    assert_eq!((responder.held(), responder.door.deadline()), ((0, 0), None));
}

// protocol 8.6: the answer to it may have been lost, so whoever looks at messages has to know it again
#[test]
fn a_message_that_comes_again_is_handed_on_again() {
    let mut responder = Responder::new();
    let init = message(INIT_LEN_MIN, 0);
    let cut = responder.admits(START, from(1), SID).cut(FragmentKind::Init, SID, &init);
    assert!(responder.whole(START, from(1), &cut).is_some());
    assert_eq!(responder.whole(START, from(1), &cut[1..]), None, "not by a part of it");
    assert_eq!(responder.whole(START, from(1), &cut[..1]), Some(init));
}

// protocol 8.6
#[test]
fn fragments_of_two_messages_are_never_put_together() {
    let mut responder = Responder::new();
    let key = responder.admits(START, from(1), SID);
    let (one, other) = (message(FIN_LEN_MIN, 1), message(FIN_LEN_MIN, 2));
    let (a, b) = (key.cut(FragmentKind::Fin, SID, &one), key.cut(FragmentKind::Fin, SID, &other));
    assert_ne!(a[0][3], b[0][3], "their marks differ");
    assert_eq!(responder.whole(START, from(1), &a[..7]), None);
    assert_eq!(responder.whole(START, from(1), &b[7..]), None, "the last of another one");
    assert_eq!(responder.whole(START, from(1), &b[..7]), Some(other), "which took its place");
    let init = key.cut(FragmentKind::Init, SID, &message(INIT_LEN_MIN, 0));
    assert_eq!(responder.whole(START, from(1), &a[..7]), None);
    assert_eq!(responder.take(START, from(1), &init[0]).err(), Some(Drop::Late), "a late one of an earlier step disturbs nothing");
    assert_eq!(responder.whole(START, from(1), &a[7..]), Some(one));
}

// protocol 8.6: who has the keys may contradict himself, and gets what he sent first
#[test]
fn of_two_fragments_for_one_place_the_first_stays() {
    let mut responder = Responder::new();
    let key = responder.admits(START, from(1), SID);
    let (one, mut other) = (message(INIT_LEN_MIN, 1), message(INIT_LEN_MIN, 1));
    other[0] ^= 1;
    let a = key.cut(FragmentKind::Init, SID, &one);
    let mut b = Fragment { body: &other[..FRAGMENT_BODY_LEN], ..Fragment::parse(&a[0]).expect("a fragment") };
    b.tag = key.tag(&b);
    let mut contradicting = Vec::new();
    b.emit(&mut contradicting);
    assert!(matches!(responder.take(START, from(1), &a[0]), Ok(Arrived::Kept)));
    assert!(matches!(responder.take(START, from(1), &contradicting), Ok(Arrived::Kept)));
    assert_eq!(responder.whole(START, from(1), &a[1..]), Some(one));
}

// protocol 8.6
#[test]
fn places_are_bounded_in_all_and_for_one_ip_address() {
    let mut responder = Responder::new();
    let mut kept = 0;
    for ip in 0..40_u8 {
        for port in 1..=20 {
            let remote = SocketAddr::new(from(ip).ip(), port);
            let cut = responder.admits(START, remote, SID).cut(FragmentKind::Fin, SID, &message(FIN_LEN_MIN, 0));
            kept += usize::from(responder.take(START, remote, &cut[0]).is_ok());
            responder.held();
        }
        assert_eq!(kept, (usize::from(ip) + 1).min(16) * 16);
    }
    let later = START + REASSEMBLY_TIME;
    let cut = responder.admits(later, from(99), SID).cut(FragmentKind::Fin, SID, &message(FIN_LEN_MIN, 0));
    assert!(responder.take(later, from(99), &cut[0]).is_ok(), "all that waited is gone");
}

// protocol 8.6
#[test]
fn an_answer_is_not_taken_in_and_a_reply_is_of_one_question() {
    let mut responder = Responder::new();
    let key = responder.admits(START, from(1), SID);
    let resp = key.cut(FragmentKind::Resp, SID, &message(RESP_LEN_MIN, 0));
    assert_eq!(responder.take(START, from(1), &resp[0]).err(), Some(Drop::Unexpected));
    let asked = first(&responder.mac1, SID);
    let Ok(Arrived::Asked(bytes)) = responder.take(START, from(1), &asked) else { panic!("a reply") };
    let reply = CookieReply::parse(&bytes).expect("a reply");
    assert!(cookie_of(&responder.mac1, &asked, &reply).is_some());
    assert_eq!(cookie_of(&responder.mac1, &first(&responder.mac1, SID + 1), &reply), None, "of another attempt");
    assert_eq!(cookie_of(&mac1(1, 3), &asked, &reply), None, "of another responder");
    assert_eq!(cookie_of(&responder.mac1, &asked, &CookieReply { cookie: [0; 16], ..reply }), None, "altered");
}

// protocol 8.6
#[test]
fn a_parcel_goes_again_at_doubling_distances_and_then_no_more() {
    let mut parcel = Parcel::new(START, vec![vec![1], vec![2]]);
    let mut times = Vec::new();
    while let Some(at) = parcel.deadline() {
        assert!(parcel.due(at - Duration::from_millis(1)).is_empty(), "not before it is due");
        assert_eq!(parcel.due(at).len(), 2);
        times.push(at.since(START).as_millis());
    }
    assert_eq!(times, [0, 250, 750, 1_750, 3_750, 7_750]);
    assert_eq!(times.len(), SENDINGS as usize);
    assert!(parcel.due(START + Duration::from_mins(9)).is_empty());
}

proptest! {
    /// In whatever order fragments come, however often, with altered ones among them: whole is only what was sent.
    #[test]
    fn what_is_whole_was_sent(len in 0_usize..900, picks in proptest::collection::vec((0_usize..3, 0_usize..9, any::<u8>()), 0..120)) {
        let mut responder = Responder::new();
        let keys = [responder.admits(START, from(1), 1), responder.admits(START, from(2), 2)];
        let sent = [message(FIN_LEN_MIN + len, 1), message(FIN_LEN_MIN + len, 2)];
        let cut = [0, 1].map(|who: usize| keys[who].cut(FragmentKind::Fin, who as u32 + 1, &sent[who]));
        for (who, index, flip) in picks {
            let mut bytes = cut[who % 2][index % cut[who % 2].len()].clone();
            let spoiled = who == 2 && bytes.len() <= FRAGMENT_MAX_LEN;
            if spoiled {
                let at = usize::from(flip) % (bytes.len() - 10) + 10;
                bytes[at] ^= 0x40;
            }
            if let Ok(Arrived::Whole { message, sid, .. }) = responder.take(START, from(who as u8 % 2 + 1), &bytes) {
                prop_assert!(!spoiled);
                prop_assert_eq!(&message, &sent[who % 2]);
                prop_assert_eq!(sid, who as u32 % 2 + 1);
            }
            prop_assert!(responder.held().0 <= 2);
        }
    }
}
