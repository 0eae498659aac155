//! Other limits and another list of those who may come, while the relay runs (protocol 9.4).
use super::{entry::proves_itself, *};
use crate::{network::AccessKey, wire::CLOSE_REFUSED};

impl Stage {
    fn configure(&mut self, limits: Limits, access: Access) {
        self.handle(HubEvent::Configure { limits: Box::new(limits), access: Box::new(access) });
        self.forwarder.configure(self.hub.limits());
        self.pass(0);
    }
}

fn closed(told: &[RelayMessage]) -> Option<u8> {
    told.iter().find_map(|message| if let RelayMessage::Close { reason } = message { Some(*reason) } else { None })
}

#[test]
fn who_is_in_stays_and_who_comes_meets_the_new_limits() {
    let mut stage = Stage::new();
    let (mut a, mut b) = (stage.member(1), stage.member(2));
    let limits = Limits { clients: 1, preauth_total: 2, preauth_per_source: 1, queue_frames: 17, frame_bytes: 10_000, ..Limits::default() };
    stage.configure(limits, Access::default());
    stage.assert_healthy(&mut a, &mut b);
    assert_eq!(stage.status().clients.len(), 2, "above the limit, and in before");
    let one = stage.open(address("192.0.2.1:1"));
    assert_eq!(stage.hub.admit(stage.now, address("192.0.2.1:2")), Err(Refusal::Because("preauth_per_source")));
    let other = stage.open(address("192.0.2.2:1"));
    assert_eq!(stage.hub.admit(stage.now, address("192.0.2.3:1")), Err(Refusal::Full));
    stage.close(one);
    stage.close(other);
    let third = proves_itself(&mut stage, 3);
    assert_eq!(stage.hung[&third], "clients_full");
    stage.configure(Limits { clients: 3, queue_frames: 17, frame_bytes: 10_000, ..Limits::default() }, Access::default());
    let third = stage.member(4).established;
    assert_eq!((third.window, third.max_frame), (256, 9_216), "what others were told is not changed for one");
    stage.assert_healthy(&mut a, &mut b);
}

#[test]
fn who_is_not_taken_any_more_is_shown_out_and_the_others_notice_nothing() {
    let mut stage = Stage::new();
    let (mut a, mut b) = (stage.member(1), stage.member(2));
    let far = stage.join(&identity(3), "198.51.100.3:7", params(NETWORK));
    let unnamed = stage.member(4);
    let waiting = stage.open(address("198.51.100.4:7"));
    for client in [&a, &b, &far, &unnamed] {
        stage.told(client);
    }
    let deny = vec![(address("198.51.100.0:0").ip(), 24)];
    let access = Access { deny, peers: vec![a.id, b.id, far.id], ..Access::default() };
    stage.configure(Limits::default(), access.clone());
    for gone in [&far, &unnamed] {
        let told = stage.told(gone);
        assert_eq!(closed(&told), Some(CLOSE_REFUSED));
        assert_eq!(stage.hung.get(&gone.conn), Some(&"not taken any more"));
    }
    assert!(stage.hung.contains_key(&waiting), "who has proven nothing goes too");
    assert_eq!((stage.dropped("source_denied"), stage.dropped("peer_denied")), (2, 1));
    stage.assert_healthy(&mut a, &mut b);
    let hung = stage.hung.len();
    stage.configure(Limits::default(), Access { keys: vec![AccessKey::of("another token")], ..access });
    assert_eq!(stage.hung.len(), hung, "a token is asked for when somebody comes");
    stage.assert_healthy(&mut a, &mut b);
    let again = proves_itself(&mut stage, 1);
    assert_eq!(stage.hung[&again], "access_denied");
    stage.assert_healthy(&mut a, &mut b);
}

/// However many go, one call of the hub gives a bounded number of actions: `Stage::handle` looks at it.
#[test]
fn a_crowd_is_shown_out_in_parts() {
    let mut stage = Stage::with(Limits { preauth_per_source: 1_000, preauth_total: 1_000, join_burst: 1_000, ..Limits::default() });
    for port in 1..=600 {
        stage.open(SocketAddr::new(address(ADDRESS).ip(), port));
    }
    let mut stays = stage.join(&identity(1), "192.0.2.77:1", params(NETWORK));
    let mut too = stage.join(&identity(2), "192.0.2.78:1", params(NETWORK));
    stage.configure(Limits::default(), Access { deny: vec![(address(ADDRESS).ip(), 32)], ..Access::default() });
    assert_eq!((stage.hung.len(), stage.status().preauth), (600, 0));
    stage.assert_healthy(&mut stays, &mut too);
}

#[test]
fn a_rate_that_is_set_later_holds_and_one_that_is_taken_back_does_not() {
    let mut stage = Stage::new();
    let (a, b) = (stage.member(1), stage.member(2));
    let passed = |stage: &mut Stage| {
        for _ in 0..200 {
            stage.forward(&a, b.established.your_handle, b"\x20 a frame");
        }
        stage.records(&b).len()
    };
    assert_eq!(passed(&mut stage), 200);
    stage.configure(Limits { client_frames_per_second: 1, ..Limits::default() }, Access::default());
    stage.pass(1_000);
    let some = passed(&mut stage);
    assert!((1..=65).contains(&some), "{some}");
    stage.configure(Limits { frames_per_second: 1, ..Limits::default() }, Access::default());
    stage.pass(1_000);
    let some = passed(&mut stage);
    assert!((1..=65).contains(&some), "{some}");
    stage.configure(Limits { queue_bytes: 16_384, queue_total_bytes: 1 << 20, ..Limits::default() }, Access::default());
    assert_eq!(passed(&mut stage), 200);
}
