//! What the other end of a session says on lane FF, and what is done when it says something else.
use super::*;
use crate::{
    crypto::rustcrypto::RustCrypto,
    event::Action,
    handshake::Job,
    link::{
        OTHER_FIRST,
        tests::{VIA, at, connected, room, settle},
    },
    session::Suite,
    wire::RECORD_HEADER_LEN,
};
use zeroize::Zeroizing;

const UNKNOWN: u8 = 0x7f;

/// A link with a session, and the other end of that session.
struct World {
    room: Room,
    link: Link,
    other: Live,
}

impl World {
    fn new(side: Side) -> Self {
        let mut room = room(Vec::new());
        let link = connected(&mut room, side);
        let chain = Arc::new(Chain::start(Zeroizing::new([9; 64]), Suite::ChaCha20Poly1305));
        let local = link.live().expect("a session").local();
        let other = Live::new(at(1), chain, side.other(), 77, local, &RustCrypto);
        let mut world = Self { room, link, other };
        world.told(at(1));
        world
    }

    /// A frame of the other end comes; whether it is authentic.
    fn comes(&mut self, now: Instant, via: Option<Via>, inner: u8, body: &[u8]) -> bool {
        let mut bytes = self.other.lane.seal(inner, |out| out.extend_from_slice(body));
        let header = FrameHeader::parse(&bytes).expect("a frame");
        self.link.frame(now, &mut self.room, header, via, &mut bytes)
    }

    /// A control message of the other end comes.
    fn control(&mut self, now: Instant, control: &NodeControl) {
        let mut body = Vec::new();
        control.emit(&mut body);
        assert!(self.comes(now, Some(VIA), INNER_CONTROL, &body));
    }

    /// The other end says this on the acknowledged stream.
    fn says(&mut self, now: Instant, message: &PeerMessage) {
        self.other.control.send(message).expect("there is room");
        while let Some(piece) = self.other.control.poll_transmit(now) {
            self.control(now, &piece);
        }
    }

    fn actions(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.room.drain(usize::MAX, &mut actions);
        actions
    }

    /// What the other end was told on the stream since this was last asked, and the jobs that were ordered.
    fn told(&mut self, now: Instant) -> (Vec<PeerMessage>, Vec<Job>) {
        let mut jobs = Vec::new();
        for action in self.actions() {
            match action {
                Action::Send { bytes, .. } => {
                    let mut frame = bytes[RECORD_HEADER_LEN..].to_vec();
                    let header = FrameHeader::parse(&frame).expect("a frame");
                    let (_, inner, body) = self.other.lane.open(now, header, &mut frame).expect("authentic");
                    match (inner == INNER_CONTROL).then(|| NodeControl::parse(body).expect("a control message")) {
                        Some(NodeControl::Stream { offset, bytes }) => self.other.control.on_stream(offset, &bytes),
                        Some(NodeControl::Ack { offset }) => self.other.control.on_ack(offset),
                        _ => {}
                    }
                }
                Action::Compute(job) => jobs.push(job),
                _ => {}
            }
        }
        let messages = core::iter::from_fn(|| self.other.control.poll_message()).map(|message| message.expect("well-formed"));
        (messages.collect(), jobs)
    }

    /// Runs the one job that was ordered; its ticket, and the session it is for.
    fn compute(&mut self, now: Instant) -> (Ticket, u32, Outcome) {
        let (_, mut jobs) = self.told(now);
        let job = jobs.pop().expect("a job");
        assert!(jobs.is_empty(), "one job");
        let sid = self.link.live().expect("a session").local();
        let done = job.run(&RustCrypto);
        (done.ticket, sid, done.outcome)
    }

    fn dropped(&self, reason: Drop) -> u64 {
        self.room.drops.get(reason)
    }
}

impl Live {
    /// The least that confirms a session.
    pub(crate) fn keepalive_frame(&mut self) -> Vec<u8> {
        self.lane.seal(INNER_KEEPALIVE, |_| {})
    }
}

// protocol 4.2, 4.3
#[test]
fn what_is_no_word_of_lane_ff_is_dropped_and_counted_and_the_session_goes_on() {
    let mut world = World::new(Side::Initiator);
    assert!(world.comes(at(2), Some(VIA), UNKNOWN, b"?"));
    assert_eq!(world.dropped(Drop::Unexpected), 1);
    for (count, body) in [&[][..], &[0xee, 1, 2], &[0x01]].into_iter().enumerate() {
        assert!(world.comes(at(2), Some(VIA), INNER_CONTROL, body));
        assert_eq!(world.dropped(Drop::Malformed), 1 + count as u64);
    }
    let mut altered = world.other.lane.seal(INNER_KEEPALIVE, |_| {});
    let header = FrameHeader::parse(&altered).expect("a frame");
    altered[FRAME_LAST] ^= 1;
    assert!(!world.link.frame(at(2), &mut world.room, header, Some(VIA), &mut altered));
    assert_eq!(world.dropped(Drop::Forged), 1);
    let elsewhere = FrameHeader { receiver: header.receiver ^ 1, ..header };
    assert!(!world.link.frame(at(2), &mut world.room, elsewhere, Some(VIA), &mut altered));
    assert_eq!(world.dropped(Drop::UnknownSession), 1);
    world.says(at(2), &PeerMessage::Search { address: "192.0.2.1:5".parse().expect("an address"), step: 0 });
    assert!(world.link.live().is_some());
}

/// The last byte of a frame without a body.
const FRAME_LAST: usize = crate::wire::FRAME_HEADER_LEN + crate::wire::TAG_LEN;

#[test]
fn a_frame_is_heard_and_not_answered_while_no_way_back_is_known() {
    let mut world = World::new(Side::Initiator);
    world.link.uplink_lost(at(2), &mut world.room, 0);
    world.actions();
    let mut ping = Vec::new();
    NodeControl::Ping { id: 9, payload: vec![1] }.emit(&mut ping);
    assert!(world.comes(at(3), None, INNER_CONTROL, &ping), "it is authentic");
    assert_eq!(world.dropped(Drop::Unexpected), 1);
    assert!(!world.actions().iter().any(|action| matches!(action, Action::Send { .. })));
}

// protocol 7.8
#[test]
fn what_the_other_end_says_of_itself_later_is_taken_if_it_follows_the_layout() {
    let mut world = World::new(Side::Initiator);
    let mut params = Vec::new();
    Params { addresses: vec!["10.1.2.3".parse().expect("an address")], ..Params::default() }.emit(&mut params);
    world.says(at(2), &PeerMessage::Update { params });
    assert_eq!(world.room.claims.len(), 1);
    world.says(at(3), &PeerMessage::Update { params: vec![0, 1] });
    assert_eq!((world.dropped(Drop::Malformed), world.room.claims.len()), (1, 1));
}

// protocol 7.8
#[test]
fn a_message_of_the_stream_that_is_none_is_left_out_and_the_next_one_counts() {
    let mut world = World::new(Side::Initiator);
    world.control(at(2), &NodeControl::Stream { offset: 0, bytes: vec![0, 2, 0xee, 1, 0, 2, 0x24, 0] });
    assert_eq!(world.dropped(Drop::Malformed), 1);
    assert!(world.link.live().is_none(), "CLOSE was read behind it");
}

// protocol 7.8
#[test]
fn a_stream_that_breaks_the_protocol_ends_the_session_and_the_next_is_not_made_at_once() {
    let mut world = World::new(Side::Responder);
    world.control(at(2), &NodeControl::Stream { offset: 0, bytes: vec![0x10, 0x01, 0x23] });
    assert!(world.link.live().is_none());
    let actions = world.actions();
    let refused = |action: &Action| matches!(action, Action::Note(Note::Refused { what, .. }) if what.contains("control stream"));
    assert!(actions.iter().any(refused), "the operator is told");
    assert!(!actions.iter().any(|action| matches!(action, Action::Compute(_))));
    let (soon, then) = (at(2) + OTHER_FIRST / 2, at(2) + OTHER_FIRST);
    settle(&mut world.link, soon, &mut world.room);
    assert!(!world.actions().iter().any(|action| matches!(action, Action::Compute(_))), "it cannot keep us busy");
    settle(&mut world.link, then, &mut world.room);
    assert!(world.actions().iter().any(|action| matches!(action, Action::Compute(_))));
}

// protocol 7.8
#[test]
fn what_does_not_fit_into_the_stream_is_counted() {
    let mut world = World::new(Side::Initiator);
    let update = PeerMessage::Update { params: vec![0; 900] };
    for _ in 0..60 {
        world.link.tell(at(2), &mut world.room, &update);
    }
    assert_eq!(world.dropped(Drop::Control), 0);
    for _ in 0..20 {
        world.link.tell(at(2), &mut world.room, &update);
    }
    assert!(world.dropped(Drop::Control) > 0, "64 KiB wait for an acknowledgement");
    let (told, _) = world.told(at(2));
    assert!(told.len() >= 60 && told.iter().all(|message| *message == update), "and what fitted came");
}

// protocol 4.5
#[test]
fn a_wish_for_new_keys_is_granted_to_the_responder_and_not_every_moment() {
    let mut world = World::new(Side::Initiator);
    world.says(at(2), &PeerMessage::RekeyPlease);
    assert_eq!((world.dropped(Drop::Control), world.told(at(2)).1.len()), (1, 0), "the epoch is a second old");
    world.says(at(3), &PeerMessage::RekeyPlease);
    assert_eq!(world.told(at(3)).1.len(), 1);
    world.says(at(4), &PeerMessage::RekeyPlease);
    assert_eq!(world.told(at(4)).1.len(), 0, "one is under way");
    let mut world = World::new(Side::Responder);
    world.says(at(9), &PeerMessage::RekeyPlease);
    assert_eq!(world.told(at(9)).1.len(), 0, "the responder offers none");
}

// protocol 4.5
#[test]
fn the_responder_asks_for_new_keys_when_the_initiator_has_not_acted_for_ten_seconds() {
    let mut world = World::new(Side::Responder);
    for second in [200, 209] {
        world.link.consider_rekey(at(second), &mut world.room, 5);
        assert_eq!(world.told(at(second)).0, [], "the initiator sees the same counters");
    }
    world.link.consider_rekey(at(210), &mut world.room, 6);
    assert_eq!(world.told(at(210)).0, [PeerMessage::RekeyPlease]);
}

// protocol 4.5
#[test]
fn an_answer_to_a_rekey_that_was_not_asked_for_or_is_not_good_is_counted_and_another_rekey_may_come() {
    let mut world = World::new(Side::Initiator);
    let rekey2 = |epoch, x25519| PeerMessage::Rekey2 { epoch, x25519, mlkem_ct: vec![3; 1568] };
    world.says(at(2), &rekey2(1, [5; 32]));
    assert_eq!(world.dropped(Drop::Unexpected), 1, "nothing was offered");
    world.link.start_rekey(&mut world.room);
    let (ticket, sid, outcome) = world.compute(at(3));
    world.link.rekey_computed(at(3), &mut world.room, sid, ticket, outcome);
    assert!(matches!(world.told(at(3)).0[..], [PeerMessage::Rekey1 { epoch: 1, .. }]));
    world.says(at(3), &rekey2(2, [5; 32]));
    assert_eq!(world.dropped(Drop::Unexpected), 2, "of another epoch");
    // a share of small order
    world.says(at(3), &rekey2(1, [0; 32]));
    let (ticket, sid, outcome) = world.compute(at(3));
    world.link.rekey_computed(at(3), &mut world.room, sid, ticket, outcome);
    let live = world.link.live().expect("the session goes on");
    assert_eq!((world.room.drops.get(Drop::Handshake), live.chain().epoch()), (1, 0));
    world.link.start_rekey(&mut world.room);
    assert_eq!(world.told(at(4)).1.len(), 1);
}

#[test]
fn the_result_of_a_rekey_that_is_over_changes_nothing() {
    let mut world = World::new(Side::Initiator);
    world.link.start_rekey(&mut world.room);
    let (ticket, sid, outcome) = world.compute(at(3));
    let Outcome::RekeyOffered(offer) = outcome else { panic!("an offer") };
    let offered = || Outcome::RekeyOffered(Arc::clone(&offer));
    for (sid, ticket) in [(sid, Ticket(ticket.0 + 1)), (sid ^ 1, ticket)] {
        world.link.rekey_computed(at(3), &mut world.room, sid, ticket, offered());
        assert_eq!(world.told(at(3)).0, [], "another job's, or of a session before");
    }
    world.link.rekey_computed(at(3), &mut world.room, sid, ticket, offered());
    assert_eq!(world.told(at(3)).0.len(), 1);
    world.link.rekey_computed(at(4), &mut world.room, sid, ticket, offered());
    assert_eq!(world.told(at(4)).0, [], "it was told already");
}
