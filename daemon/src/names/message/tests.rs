//! What is asked and answered, and that nothing that comes can do harm.
use super::*;
use proptest::prelude::*;

/// Peer `server` with two addresses, peer `bare` without any, and the net 10.77.0.0/24 of ours.
struct Two([IpAddr; 2]);

impl Directory for Two {
    fn addresses(&self, label: &str) -> Found<&[IpAddr]> {
        match label {
            "server" => Found::There(&self.0),
            "bare" => Found::There(&[]),
            _ => Found::Nowhere,
        }
    }

    fn label(&self, address: IpAddr) -> Found<&str> {
        match address {
            known if self.0.contains(&known) => Found::There("server"),
            IpAddr::V4(v4) if v4.octets().starts_with(&[10, 77, 0]) => Found::Nowhere,
            _ => Found::NotOurs,
        }
    }
}

fn two() -> Two {
    Two([IpAddr::from([10, 77, 0, 1]), "fd77::1".parse().expect("an address")])
}

fn name(text: &str) -> Vec<u8> {
    let labels = text.split('.').filter(|label| !label.is_empty());
    let mut bytes: Vec<u8> = labels.flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).collect();
    bytes.push(0);
    bytes
}

fn ask(text: &str, kind: u16, edns: Option<u8>) -> Vec<u8> {
    let header = [0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns.is_some())];
    let mut bytes = [&header[..], &name(text), &kind.to_be_bytes(), &[0, 1]].concat();
    bytes.extend(edns.iter().flat_map(|version| [0, 0, 41, 4, 0xd0, 0, *version, 0, 0, 0, 0]));
    bytes
}

/// Code, and the data of each record in the answer and authority sections: all must lie where their lengths say.
fn read(question: &[u8], answer: &[u8]) -> (u8, Vec<(u16, Vec<u8>)>, u16) {
    assert_eq!((&answer[..2], answer[2] & 0x84, answer[3] & 0xf0), (&question[..2], 0x84, 0), "the id, and an answer with authority");
    let word = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    let mut at = HEADER_LEN;
    if word(4) == 1 {
        let asked = Question::parse(&question[HEADER_LEN..]).expect("it was understood").bytes;
        assert_eq!(&answer[at..at + asked.len()], asked, "the question again, with its capitals");
        at += asked.len();
    }
    let mut records = Vec::new();
    for _ in 0..word(6) + word(8) {
        assert_eq!(answer[at] & 0xc0, 0xc0);
        assert!(usize::from(word(at) & 0x3fff) < at, "a name that points back");
        let end = at + 12 + usize::from(word(at + 10));
        records.push((word(at + 2), answer[at + 12..end].to_vec()));
        at = end;
    }
    if word(10) == 1 {
        assert_eq!(answer[at..at + 3], [0, 0, 41]);
        at += OPT_LEN;
    }
    assert_eq!(at, answer.len(), "nothing behind it");
    (answer[3] & 15, records, word(6))
}

fn asked(text: &str, kind: u16) -> (u8, Vec<(u16, Vec<u8>)>, u16) {
    let question = ask(text, kind, None);
    read(&question, &answer(&question, &two()).expect("an answer"))
}

#[test]
fn names_have_their_addresses() {
    let (v4, v6) = ((A, vec![10, 77, 0, 1]), (AAAA, [&[0xfd, 0x77][..], &[0; 13], &[1]].concat()));
    assert_eq!(asked("server.mesh", A), (0, vec![v4.clone()], 1));
    assert_eq!(asked("SerVer.MESH.", AAAA), (0, vec![v6.clone()], 1));
    assert_eq!(asked("server.mesh", ANY), (0, vec![v4, v6], 2));
}

#[test]
fn what_is_not_there_is_said_with_a_time() {
    for (text, kind, code) in [
        ("server.mesh", 16, Code::Good),
        ("bare.mesh", A, Code::Good),
        ("mesh", A, Code::Good),
        ("nobody.mesh", A, Code::NoSuchName),
        ("www.server.mesh", AAAA, Code::NoSuchName),
    ] {
        let (said, records, answers) = asked(text, kind);
        assert_eq!((said, answers), (code as u8, 0), "{text}");
        assert_eq!((records.len(), records[0].0, records[0].1.len()), (1, SOA, 22), "{text}");
    }
}

#[test]
fn addresses_have_their_names() {
    let pointer = (0, vec![(PTR, name("server.mesh"))], 1);
    assert_eq!(asked("1.0.77.10.in-addr.arpa", PTR), pointer);
    assert_eq!(asked(&format!("1.{}7.7.d.f.ip6.arpa", "0.".repeat(27)), PTR), pointer);
    assert_eq!(asked("9.0.77.10.in-addr.arpa", PTR), (Code::NoSuchName as u8, vec![], 0));
    for other in ["1.0.0.127.in-addr.arpa", "01.0.77.10.in-addr.arpa", "1.0.77.in-addr.arpa", "1.0.0.ip6.arpa"] {
        assert_eq!(asked(other, PTR).0, Code::Refused as u8, "{other}");
    }
}

#[test]
fn what_is_not_ours_is_refused_and_what_is_no_question_too() {
    for other in ["example.com", "mesh.example.com", "relay.example", "", "meshy"] {
        assert_eq!(asked(other, A).0, Code::Refused as u8, "{other}");
    }
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut question = ask("server.mesh", A, None);
        change(&mut question);
        answer(&question, &two()).map(|answer| answer[3] & 15)
    };
    assert_eq!(with(&|q| q[2] |= 0x80), None, "an answer is not answered");
    assert_eq!(with(&|q| q.truncate(11)), None);
    assert_eq!(with(&|q| q[2] |= 0x28), Some(Code::NotImplemented as u8), "an update");
    assert_eq!(with(&|q| q[5] = 2), Some(Code::Malformed as u8), "two questions");
    assert_eq!(with(&|q| q[5] = 0), Some(Code::Malformed as u8), "none");
    assert_eq!(with(&|q| q[12] = 0xc0), Some(Code::Malformed as u8), "a pointer");
    assert_eq!(with(&|q| q.truncate(20)), Some(Code::Malformed as u8), "cut off");
    assert_eq!(with(&|q| *q.last_mut().expect("bytes") = 3), Some(Code::Refused as u8), "the class CHAOS");
    let long = ask(&"abcdefghi.".repeat(26), A, None);
    assert_eq!(answer(&long, &two()).map(|answer| answer[3] & 15), Some(Code::Malformed as u8), "a name of 261 bytes");
}

#[test]
fn extensions_are_answered_in_kind() {
    let question = ask("server.mesh", A, Some(0));
    let answered = answer(&question, &two()).expect("an answer");
    assert_eq!((read(&question, &answered).2, answered[answered.len() - 6]), (1, 0));
    let question = ask("server.mesh", A, Some(7));
    let answered = answer(&question, &two()).expect("an answer");
    assert_eq!((read(&question, &answered).2, answered[answered.len() - 6]), (0, 1), "BADVERS");
}

#[test]
fn many_addresses_stop_where_the_room_does() {
    struct Many(Vec<IpAddr>);
    impl Directory for Many {
        fn addresses(&self, _: &str) -> Found<&[IpAddr]> {
            Found::There(&self.0)
        }
        fn label(&self, _: IpAddr) -> Found<&str> {
            Found::NotOurs
        }
    }
    let many = Many((0..200).map(|last| IpAddr::from([10, 77, 0, last])).collect());
    for (edns, most) in [(None, PLAIN_BYTES), (Some(0), EDNS_BYTES)] {
        let question = ask("server.mesh", A, edns);
        let answered = answer(&question, &many).expect("an answer");
        assert!(answered.len() <= most && answered.len() > most - 16, "{} bytes", answered.len());
        read(&question, &answered);
    }
}

proptest! {
    #[test]
    fn whatever_comes_the_answer_is_short_and_whole(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Some(answered) = answer(&bytes, &two()) {
            prop_assert!(answered.len() <= EDNS_BYTES);
            read(&bytes, &answered);
        }
    }

    #[test]
    fn a_question_with_any_flaw_gets_a_whole_answer(at in 2_usize..60, value: u8, cut in 0_usize..60, edns in proptest::option::of(0_u8..2)) {
        let mut question = ask("www.server.mesh", ANY, edns);
        if let Some(byte) = question.get_mut(at) {
            *byte = value;
        }
        question.truncate(question.len().saturating_sub(cut / 4));
        if let Some(answered) = answer(&question, &two()) {
            prop_assert!(answered.len() <= EDNS_BYTES);
            read(&question, &answered);
        }
    }

    #[test]
    fn every_label_and_kind_is_answered(label in "[ -~]{1,63}", kind: u16) {
        prop_assume!(!label.contains('.'));
        let question = ask(&format!("{label}.mesh"), kind, None);
        let answered = answer(&question, &two()).expect("an answer");
        let (code, _, _) = read(&question, &answered);
        let is_known = ["server", "bare"].contains(&label.to_ascii_lowercase().as_str());
        prop_assert_eq!(code == 0, is_known);
    }
}
