//! Each byte of FRAG and `COOKIE_REPLY` in its place, and nothing else taken.
use super::*;
use proptest::prelude::*;

const KINDS: [(FragmentKind, usize, usize); 3] = [
    (FragmentKind::Init, INIT_LEN_MIN, INIT_LEN_MAX),
    (FragmentKind::Resp, RESP_LEN_MIN, RESP_LEN_MAX),
    (FragmentKind::Fin, FIN_LEN_MIN, FIN_LEN_MAX),
];

fn sample(body: &[u8]) -> Fragment<'_> {
    let total = u16::try_from(INIT_LEN_MIN).expect("small");
    Fragment { kind: FragmentKind::Init, with_cookie: true, index: 1, mark: 7, sid: 0x0102_0304, total, tag: [0x3c; 16], body }
}

fn whole(emit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    emit(&mut bytes);
    bytes
}

// protocol 8.6
#[test]
fn the_bytes_are_where_protocol_8_puts_them() {
    let body = [9; INIT_LEN_MIN - FRAGMENT_BODY_LEN];
    let bytes = whole(|out| sample(&body).emit(out));
    assert_eq!(bytes[..10], [0x27, 0x81, 1, 7, 1, 2, 3, 4, 0x06, 0x76]);
    assert_eq!(bytes[10..26], [0x3c; 16]);
    assert_eq!(bytes[26..], body);
    let reply = whole(|out| CookieReply { sid: 0x0102_0304, cookie: [5; 16], mac: [6; 16] }.emit(out));
    assert_eq!(reply[..8], [0x28, 0, 0, 0, 1, 2, 3, 4]);
    assert_eq!((&reply[8..24], &reply[24..]), (&[5; 16][..], &[6; 16][..]));
    assert_eq!(reply.len(), COOKIE_REPLY_LEN);
}

// protocol 8.6
#[test]
fn an_ip_packet_of_a_thousand_bytes_carries_the_longest_fragment_and_a_reply_is_shorter_than_a_first_one() {
    const IPV6_AND_UDP: usize = 40 + 8;
    assert_eq!(FRAGMENT_MAX_LEN + IPV6_AND_UDP, 1_000);
    for (kind, least, _) in KINDS {
        assert!(least > FRAGMENT_BODY_LEN, "the first fragment of {kind:?} is a long one");
    }
    const { assert!(COOKIE_REPLY_LEN < FRAGMENT_MAX_LEN) };
}

// protocol 8.6
#[test]
fn each_wrong_field_is_refused() {
    let body = [9; INIT_LEN_MIN - FRAGMENT_BODY_LEN];
    let good = whole(|out| sample(&body).emit(out));
    assert!(Fragment::parse(&good).is_ok());
    for (at, value, why) in [
        (0, 0x28, "fragment type"),
        (1, 0x80, "fragment kind"),
        (1, 0x84, "fragment kind"),
        (1, 0xc1, "fragment kind"),
        (1, 0x82, "fragment total"),
        (2, 0, "fragment body"),
        (2, 2, "fragment body"),
        (2, 255, "fragment body"),
        (8, 0, "fragment total"),
        (8, 0xff, "fragment total"),
        (9, 0x77, "fragment body"),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(Fragment::parse(&bad), Err(Malformed(why)), "byte {at} is {value:#x}");
    }
    for len in 0..good.len() {
        assert!(Fragment::parse(&good[..len]).is_err(), "{len} bytes");
    }
    assert!(Fragment::parse(&[&good[..], &[0]].concat()).is_err(), "nothing follows");
    let reply = whole(|out| CookieReply { sid: 1, cookie: [5; 16], mac: [6; 16] }.emit(out));
    for at in 0..4 {
        let mut bad = reply.clone();
        bad[at] ^= 1;
        assert!(CookieReply::parse(&bad).is_err(), "byte {at}");
    }
    for len in (0..COOKIE_REPLY_LEN).chain([COOKIE_REPLY_LEN + 1]) {
        let mut cut = reply.clone();
        cut.resize(len, 0);
        assert!(CookieReply::parse(&cut).is_err(), "{len} bytes");
    }
}

proptest! {
    /// The bodies of all fragments of a message are the message, each but the last is a long one, and each is read as it was written.
    #[test]
    fn round_trip(choice in 0_usize..3, more in 0_usize..1_100, sid: u32, mark: u8, with_cookie: bool, tag: [u8; 16]) {
        let (kind, least, most) = KINDS[choice];
        let message: Vec<u8> = (0..(least + more).min(most)).map(|place| place as u8).collect();
        let total = u16::try_from(message.len()).expect("small");
        let mut joined = Vec::new();
        for (index, body) in message.chunks(FRAGMENT_BODY_LEN).enumerate() {
            let fragment = Fragment { kind, with_cookie, index: index as u8, mark, sid, total, tag, body };
            let bytes = whole(|out| fragment.emit(out));
            prop_assert!(bytes.len() <= FRAGMENT_MAX_LEN);
            prop_assert_eq!(Fragment::parse(&bytes), Ok(fragment));
            prop_assert_eq!(fragment.offset(), joined.len());
            joined.extend_from_slice(body);
            prop_assert_eq!(fragment.count(), message.len().div_ceil(FRAGMENT_BODY_LEN));
        }
        prop_assert_eq!(joined, message);
    }

    #[test]
    fn a_reply_makes_the_round_trip(sid: u32, cookie: [u8; 16], mac: [u8; 16]) {
        let reply = CookieReply { sid, cookie, mac };
        prop_assert_eq!(CookieReply::parse(&whole(|out| reply.emit(out))), Ok(reply));
    }

    #[test]
    fn any_bytes_end_without_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..1_000), fit: bool, kind in 0_u8..5, index in 0_u8..12, total in 1_600_u16..10_000,
    ) {
        let mut bytes = bytes;
        if fit && bytes.len() >= FRAGMENT_HEADER_LEN {
            bytes[..3].copy_from_slice(&[TYPE_FRAG, kind, index]);
            bytes[8..10].copy_from_slice(&total.to_be_bytes());
            if let Some(len) = body_len(total, index) {
                bytes.resize(FRAGMENT_HEADER_LEN + len, 0);
            }
        }
        if let Ok(fragment) = Fragment::parse(&bytes) {
            prop_assert_eq!(whole(|out| fragment.emit(out)), &bytes[..]);
        }
        if let Ok(reply) = CookieReply::parse(&bytes) {
            prop_assert_eq!(whole(|out| reply.emit(out)), &bytes[..]);
        }
    }
}
