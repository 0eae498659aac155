//! The handshake that this end starts: answers that are wrong, and confirmations that are late.
use super::*;
use crate::{
    crypto::{Identity, awslc::AwsLc, rustcrypto::RustCrypto},
    event::{Action, Note},
    handshake::{Answer, Job},
    id::{LinkId, PeerId},
    link::tests::{VIA, at, room},
    node::Presence,
    wire::FrameHeader,
};
use zeroize::Zeroizing;

/// A link whose peer is there at a relay, and that peer.
struct World {
    room: Room,
    link: Link,
    peer: Arc<Identity>,
}

impl World {
    fn new() -> Self {
        let (mut room, peer) = (room(Vec::new()), Arc::new(Identity::from_seed([8; 32])));
        let mut link = Link::new(at(1), LinkId(0), peer.id(), &mut room);
        let presence = Presence { peer: peer.id(), handle: VIA.handle.expect("at a relay"), public: None, online: true };
        link.present(at(1), &mut room, 0, presence, VIA, 256, true);
        link.greet(at(2), &mut room);
        Self { room, link, peer }
    }

    fn actions(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        self.room.drain(usize::MAX, &mut actions);
        actions
    }

    /// The job that was ordered last.
    fn job(&mut self) -> Job {
        let jobs = self.actions().into_iter().filter_map(|action| if let Action::Compute(job) = action { Some(job) } else { None });
        jobs.last().expect("a job")
    }

    /// Runs the job that was ordered last.
    fn compute(&mut self, now: Instant) {
        let done = self.job().run(&AwsLc);
        self.link.greeting_computed(now, &mut self.room, done.ticket, done.outcome);
    }

    /// Makes INIT, and what the peer answers.
    fn offered(&mut self) -> Arc<Answer> {
        self.compute(at(2));
        let Stage::Offered { offer, .. } = &self.link.greeting.0 else { panic!("INIT is out") };
        let work = Work::Answer {
            setup: self.room.setup.clone(),
            identity: Arc::clone(&self.peer),
            init: offer.init().to_vec(),
            sid: 77,
            suites: self.room.config.suites.clone(),
            params: Params::default(),
            coins: Zeroizing::new([6; 96]),
        };
        let Outcome::Answered(Ok(answer)) = run(work) else { panic!("a good INIT") };
        answer
    }

    /// FIN is out; the index of the session, and the peer's end of it.
    fn unconfirmed(&mut self) -> (u32, Live) {
        let answer = self.offered();
        self.link.response(&mut self.room, answer.resp());
        self.compute(at(2));
        let Stage::Unconfirmed { fin, live, .. } = &self.link.greeting.0 else { panic!("FIN is out") };
        let (sid, fin) = (live.local(), fin.clone());
        let Outcome::Verified(Ok(verified)) = run(Work::Verify { identity: Arc::clone(&self.peer), answer, fin }) else {
            panic!("a good FIN")
        };
        let live = Live::new(at(2), verified.chain, Side::Responder, 77, sid, &RustCrypto);
        self.actions();
        (sid, live)
    }

    /// A frame of this session comes; whether it is authentic.
    fn hears(&mut self, now: Instant, from: &mut Live) -> bool {
        let mut bytes = from.keepalive_frame();
        let header = FrameHeader::parse(&bytes).expect("a frame");
        self.link.frame(now, &mut self.room, header, Some(VIA), &mut bytes)
    }

    /// Alarms, a few a second, up to this moment.
    fn wait(&mut self, from: Instant, until: Instant) {
        let mut now = from;
        while now < until {
            now = now + Duration::from_millis(100);
            self.link.alarm(now, &mut self.room);
        }
    }
}

fn run(work: Work) -> Outcome {
    Job { ticket: Ticket(0), work }.run(&AwsLc).outcome
}

fn retires(actions: &[Action], sid: u32) -> bool {
    actions.iter().any(|action| matches!(action, Action::Edit(Edit::Retire { local, .. }) if *local == sid))
}

// protocol 3.9
#[test]
fn an_answer_that_is_not_good_never_ends_an_attempt() {
    let mut world = World::new();
    let dropped = |world: &World, reason| world.room.drops.get(reason);
    let good = world.offered();
    let mut altered = good.resp().to_vec();
    altered[40] ^= 1;
    world.link.response(&mut world.room, &altered);
    assert_eq!(dropped(&world, Drop::Forged), 1, "no arithmetic for it");
    let mut elsewhere = good.resp().to_vec();
    elsewhere[11] ^= 1;
    world.link.response(&mut world.room, &elsewhere);
    assert_eq!(dropped(&world, Drop::Handshake), 1, "of another attempt");
    // the sealed part is altered by one who knows the network: only the arithmetic tells
    let mut forged = good.resp().to_vec();
    let maced = forged.len() - 16;
    forged[maced - 1] ^= 1;
    let mac1 = world.room.setup.mac1_key(world.peer.id()).hmac().mac(&[&forged[..maced]]);
    forged[maced..].copy_from_slice(&mac1[..16]);
    world.link.response(&mut world.room, &forged);
    world.compute(at(3));
    assert_eq!(dropped(&world, Drop::Handshake), 2);
    let refused = |action: &Action| matches!(action, Action::Note(Note::Refused { what, .. }) if what.contains("refused"));
    assert!(world.actions().iter().any(refused));
    world.link.response(&mut world.room, good.resp());
    world.link.response(&mut world.room, good.resp());
    assert_eq!(dropped(&world, Drop::Handshake), 3, "the same answer again is not looked at while the first is");
    world.compute(at(3));
    assert!(matches!(world.link.greeting.0, Stage::Unconfirmed { .. }), "the right one came all the same");
}

// protocol 3.9
#[test]
fn a_session_that_was_given_up_stands_when_its_confirmation_comes_late() {
    let mut world = World::new();
    let (sid, mut other) = world.unconfirmed();
    world.wait(at(2), at(7));
    assert!(world.link.greeting.is_unanswered(), "another attempt is under way");
    assert!(world.link.live().is_none());
    assert!(world.hears(at(7), &mut other));
    assert_eq!(world.link.live().map(Live::local), Some(sid));
    assert!(!retires(&world.actions(), sid));
    world.wait(at(7), at(20));
    assert_eq!(world.link.live().map(Live::local), Some(sid), "its keys are kept for good now");
    assert!(world.hears(at(20), &mut other));
}

// protocol 3.9
#[test]
fn a_session_that_was_given_up_and_is_not_confirmed_in_ten_seconds_leaves_nothing() {
    let mut world = World::new();
    let (sid, mut other) = world.unconfirmed();
    world.wait(at(2), at(7));
    assert!(world.room.sids.contains_key(&sid));
    world.wait(at(7), at(17));
    assert!(!world.room.sids.contains_key(&sid) && retires(&world.actions(), sid));
    assert!(!world.hears(at(17), &mut other));
    assert!(world.link.live().is_none());
}

// protocol 3.9
#[test]
fn a_peer_that_has_a_new_place_while_its_answer_is_verified_is_greeted_anew() {
    let mut world = World::new();
    let answer = world.offered();
    world.link.response(&mut world.room, answer.resp());
    let old = world.job();
    world.link.greet_newcomer(at(3), &mut world.room, 0);
    assert!(world.link.greeting.is_unanswered());
    let done = old.run(&AwsLc);
    world.link.greeting_computed(at(3), &mut world.room, done.ticket, done.outcome);
    assert!(world.link.greeting.is_unanswered(), "what comes of the answer before is not looked at");
}

#[test]
fn an_attempt_for_which_there_is_no_job_is_made_a_little_later() {
    let mut world = World::new();
    world.link.abandon_greeting(&mut world.room);
    let mut tickets = Vec::new();
    while let Some(ticket) =
        world.room.compute(Owner::Greeting(PeerId([9; 32])), Work::RekeyOffer { epoch: 1, coins: Zeroizing::new([1; 96]) })
    {
        tickets.push(ticket);
    }
    let sids = world.room.sids.len();
    world.link.greet(at(5), &mut world.room);
    assert!(!world.link.greeting.is_under_way());
    assert_eq!(world.room.sids.len(), sids, "no index is kept for it");
    for ticket in tickets {
        world.room.done(ticket);
    }
    world.wait(at(5), at(6));
    assert!(world.link.greeting.is_under_way());
}
