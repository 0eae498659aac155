//! INIT, RESP and FIN of both roles, changed in every way: only the genuine transcript makes a session, and it makes that one (protocol 3).
use super::{cast, script::Script};
use shadowmesh_core::handshake::{Role, peek_init, peek_resp};

const MAC_LEN: usize = 16;

/// Role, message, changes, and whether mac1 is made anew as a member could.
pub fn handshake(data: &[u8]) {
    let mut script = Script::new(data);
    let choice = script.byte();
    let (role, other) = match choice & 1 {
        0 => (Role::ClientRelay, Role::PeerPeer),
        _ => (Role::PeerPeer, Role::ClientRelay),
    };
    let (genuine, foreign) = (cast::genuine(role), cast::genuine(other));
    let donors = [&genuine.init, &genuine.resp, &genuine.fin, &foreign.init, &foreign.resp, &foreign.fin].map(Vec::as_slice);
    let remac = choice & 2 != 0;
    match choice >> 2 & 3 {
        0 => init(role, script.spoil(&genuine.init, &donors), remac),
        1 => resp(role, script.spoil(&genuine.resp, &donors), remac),
        2 => fin(role, script.spoil(&genuine.fin, &donors)),
        // any message in the place of any other
        _ => {
            let message = script.spoil(donors[usize::from(choice >> 4) % donors.len()], &donors);
            init(role, message.clone(), false);
            resp(role, message.clone(), false);
            fin(role, message);
        }
    }
}

fn init(role: Role, mut init: Vec<u8>, remac: bool) {
    let genuine = cast::genuine(role);
    let end = init.len().saturating_sub(2 * MAC_LEN);
    let want = cast::mac1(role, cast::bob().id(), &init[..end]);
    if remac && init.len() >= 2 * MAC_LEN {
        init[end..end + MAC_LEN].copy_from_slice(&want);
    }
    let holds = peek_init(&init).is_ok() && init[end..end + MAC_LEN] == want;
    let key = cast::setup(role).mac1_key(cast::bob().id());
    assert_eq!(key.verify_init(&init).is_ok(), holds, "mac1 holds exactly when it was made with its key");
    let same = init[..end] == genuine.init[..genuine.init.len() - 2 * MAC_LEN];
    let Ok(answer) = cast::answer(role, init) else {
        assert!(!same || !holds, "the genuine INIT is answered");
        return;
    };
    let offer = cast::offer(role);
    match cast::conclude(role, &offer, answer.resp().to_vec()) {
        Ok(concluded) => {
            assert!(same, "an altered offer makes no session");
            let verified = cast::verify(&answer, concluded.fin.clone()).expect("a good FIN");
            assert_eq!(cast::print(&verified.chain), cast::print(&genuine.verified.chain));
        }
        Err(_) => assert!(!same, "the genuine offer makes a session"),
    }
}

fn resp(role: Role, mut resp: Vec<u8>, remac: bool) {
    let genuine = cast::genuine(role);
    let end = resp.len().saturating_sub(MAC_LEN);
    let want = cast::mac1(role, cast::bob().id(), &resp[..end]);
    if remac && resp.len() >= MAC_LEN {
        resp[end..].copy_from_slice(&want);
    }
    let holds = peek_resp(&resp).is_ok() && resp[end..] == want;
    let key = cast::setup(role).mac1_key(cast::bob().id());
    assert_eq!(key.verify_resp(&resp).is_ok(), holds, "mac1 holds exactly when it was made with its key");
    let same = resp[..end] == genuine.resp[..genuine.resp.len() - MAC_LEN];
    match cast::conclude(role, &cast::offer(role), resp) {
        Ok(concluded) => {
            assert!(same, "an altered RESP makes no session");
            assert_eq!(concluded.fin, genuine.fin);
            assert_eq!(concluded.peer.id(), cast::bob().id());
            assert_eq!(cast::print(&concluded.chain), cast::print(&genuine.concluded.chain));
        }
        Err(_) => assert!(!same, "the genuine RESP makes a session"),
    }
}

fn fin(role: Role, fin: Vec<u8>) {
    let genuine = cast::genuine(role);
    let same = fin == genuine.fin;
    let answer = cast::answer(role, genuine.init.clone()).expect("a good INIT");
    match cast::verify(&answer, fin) {
        Ok(verified) => {
            assert!(same, "an altered FIN makes no session");
            assert_eq!(verified.peer.id(), cast::alice().id());
            assert_eq!(cast::print(&verified.chain), cast::print(&genuine.verified.chain));
        }
        Err(_) => assert!(!same, "the genuine FIN makes a session"),
    }
}
