//! REKEY1 and REKEY2, changed in every way: both ends reach the same epoch only over the genuine messages (protocol 4.5).
use super::{cast, script::Script};
use shadowmesh_core::handshake::{REKEY_LEN, Role};
use std::sync::OnceLock;

/// Both messages and the keys that they lead to.
struct Genuine {
    rekey1: Vec<u8>,
    rekey2: Vec<u8>,
    next: Vec<u8>,
}

fn genuine() -> &'static Genuine {
    static GENUINE: OnceLock<Genuine> = OnceLock::new();
    GENUINE.get_or_init(|| {
        let handshake = cast::genuine(Role::PeerPeer);
        let offer = cast::rekey_offer(1);
        let (rekey2, theirs) = cast::rekey_answer(1, offer.rekey1().to_vec(), &handshake.verified.chain).expect("a good REKEY1");
        let ours = cast::rekey_conclude(1, &offer, rekey2.clone(), &handshake.concluded.chain).expect("a good REKEY2");
        assert_eq!(cast::print(&ours), cast::print(&theirs));
        Genuine { rekey1: offer.rekey1().to_vec(), rekey2, next: cast::print(&ours) }
    })
}

/// Which message, the epoch that it names, and changes.
pub fn rekey(data: &[u8]) {
    let mut script = Script::new(data);
    let choice = script.byte();
    let genuine = genuine();
    let handshake = cast::genuine(Role::PeerPeer);
    let epoch = match choice >> 1 & 3 {
        0 | 1 => 1,
        2 => u32::from(script.byte()),
        _ => script.u32(),
    };
    let donors = [genuine.rekey1.as_slice(), &genuine.rekey2];
    let (original, chain) = match choice & 1 {
        0 => (&genuine.rekey1, &handshake.verified.chain),
        _ => (&genuine.rekey2, &handshake.concluded.chain),
    };
    let message = script.spoil(original, &donors);
    let same = epoch == 1 && message == *original;
    let fits = epoch == 1 && message.len() == REKEY_LEN;
    let outcome = match choice & 1 {
        0 => cast::rekey_answer(epoch, message, chain).map(|(rekey2, next)| {
            assert_eq!(rekey2.len(), REKEY_LEN);
            next
        }),
        _ => cast::rekey_conclude(epoch, &cast::rekey_offer(1), message, chain),
    };
    match outcome {
        Ok(next) => {
            assert!(fits, "only the next epoch is made");
            assert_eq!((next.epoch(), next.session_id()), (1, chain.session_id()));
            assert_eq!(cast::print(&next) == genuine.next, same, "the keys follow from both messages, bit for bit");
        }
        Err(_) => assert!(!same, "the genuine message is taken"),
    }
}
