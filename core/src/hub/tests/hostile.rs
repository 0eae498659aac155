//! Bad input on the relay's door: nothing panics, nothing harms another client, nothing recorded works again.
use super::*;
use crate::wire::{TYPE_FIN, TYPE_FRAME, TYPE_INIT, TYPE_RESP};
use proptest::prelude::*;

/// HELLO and RESPONSE of a handshake that succeeded, and what the relay sent.
fn recorded(stage: &mut Stage) -> (Client, [Vec<u8>; 4]) {
    let caller = stage.call(&identity(1), ADDRESS);
    let hello = caller.offer.init().to_vec();
    stage.message(caller.conn, &hello);
    let resp = stage.mail(caller.conn).expect("CHALLENGE");
    let (fin, finish) = caller.conclude(stage.relay, resp.clone(), params(NETWORK)).expect("good");
    stage.message(caller.conn, &fin);
    let established = stage.mail(caller.conn).expect("ESTABLISHED");
    (finish(established.clone()), [hello, resp, fin, established])
}

#[test]
fn a_recorded_handshake_replayed_on_another_connection_has_no_effect() {
    let mut stage = Stage::new();
    let (mut victim, [hello, resp, fin, established]) = recorded(&mut stage);
    let mut witness = stage.member(2);
    stage.pass(200);
    let thief = stage.open(address("198.51.100.66:6"));
    // protocol 3.1: the HELLO is good for anybody, the RESPONSE only on the TLS connection it was made for.
    stage.message(thief, &hello);
    assert_eq!(stage.mail(thief).map(|bytes| bytes[0]), Some(TYPE_RESP));
    stage.message(thief, &fin);
    assert_eq!((stage.dropped("bad_response"), stage.mail(thief)), (1, None));
    for bytes in [&resp, &established, &fin, &hello, &hello] {
        stage.message(thief, bytes);
    }
    assert_eq!(stage.status().clients.len(), 2);
    stage.assert_healthy(&mut victim, &mut witness);
    // On the victim's own connection, too, the messages have had their time.
    for bytes in [&hello, &resp, &fin, &established] {
        stage.message(victim.conn, bytes);
    }
    stage.assert_healthy(&mut victim, &mut witness);
    assert_eq!(stage.hung.get(&victim.conn), None);
}

// protocol 3.9
#[test]
fn a_bad_response_does_not_end_the_attempt() {
    let mut stage = Stage::new();
    let caller = stage.call(&identity(1), ADDRESS);
    stage.message(caller.conn, caller.offer.init());
    let resp = stage.mail(caller.conn).expect("CHALLENGE");
    let (fin, finish) = caller.conclude(stage.relay, resp, params(NETWORK)).expect("good");
    let mut flipped = fin.clone();
    *flipped.last_mut().expect("long") ^= 0x80;
    stage.message(caller.conn, &flipped);
    stage.message(caller.conn, &fin[..fin.len() - 1]);
    assert_eq!(stage.dropped("bad_response"), 2);
    stage.message(caller.conn, &fin);
    finish(stage.mail(caller.conn).expect("ESTABLISHED"));
}

#[test]
fn a_result_for_a_connection_that_is_gone_is_ignored() {
    let mut stage = Stage::new();
    let caller = stage.call(&identity(1), ADDRESS);
    stage.message(caller.conn, caller.offer.init());
    let resp = stage.mail(caller.conn).expect("CHALLENGE");
    let (fin, _) = caller.conclude(stage.relay, resp, params(NETWORK)).expect("good");
    stage.hold = true;
    stage.message(caller.conn, &fin);
    stage.close(caller.conn);
    stage.hold = false;
    stage.compute();
    let status = stage.status();
    assert_eq!((status.clients.len(), status.half_open, status.preauth, status.handshakes_failed), (0, 0, 0, 1));
}

/// Every message of a handshake and of a session, to be cut and flipped.
fn material() -> Vec<Vec<u8>> {
    let mut stage = Stage::new();
    let (mut client, recorded) = recorded(&mut stage);
    let mut all = recorded.to_vec();
    all.push(client.seal(&RelayMessage::Ping { id: 1 }));
    let mut record = Vec::new();
    Record { kind: TYPE_FWD, flags: 1, handle: Handle(2), payload: &[TYPE_INIT; 40] }.emit(&mut record);
    all.push(record);
    all
}

fn bad_message(material: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let random = (
        prop::sample::select(vec![TYPE_INIT, TYPE_RESP, TYPE_FIN, TYPE_FRAME, TYPE_FWD, TYPE_DLV, 0x20, 0xff]),
        prop::collection::vec(any::<u8>(), 0..2_000),
    )
        .prop_map(|(kind, mut bytes)| {
            bytes.insert(0, kind);
            bytes
        });
    let bent = (prop::sample::select(material), any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0u8..8, any::<bool>())
        .prop_map(|(mut bytes, at, cut, bit, shorten)| {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if shorten {
                bytes.truncate(cut.index(bytes.len()));
            }
            bytes
        });
    prop_oneof![random, bent]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Greeting, challenged, established: bad messages in any of them harm nobody else, and good ones still work behind them.
    #[test]
    fn bad_messages_in_every_state_harm_nobody(bad in prop::collection::vec(bad_message(material()), 1..8), state in 0..3) {
        let mut stage = Stage::new();
        let (mut a, mut b) = (stage.member(8), stage.member(9));
        let conn = match state {
            0 => stage.open(address(ADDRESS)),
            1 => {
                let caller = stage.call(&identity(3), ADDRESS);
                stage.message(caller.conn, caller.offer.init());
                caller.conn
            }
            _ => stage.member(4).conn,
        };
        for bytes in &bad {
            stage.message(conn, bytes);
        }
        stage.assert_healthy(&mut a, &mut b);
        prop_assert!(!stage.hung.contains_key(&a.conn) && !stage.hung.contains_key(&b.conn));
        stage.close(conn);
        stage.pass(6_000);
        let status = stage.status();
        prop_assert_eq!((status.clients.len(), status.preauth, status.half_open), (2, 0, 0));
    }
}
