//! The directory against what its members must come to believe: whatever happens in whatever order, each is told the truth.
use super::directory::{Directory, Member};
use crate::{
    id::{ConnId, Handle, PeerId},
    time::{Duration, Instant},
    wire::{DirectoryEntry, MAX_DIRECTORY_ENTRIES},
};
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use std::collections::BTreeMap;

const NETWORKS: u8 = 2;
const PEERS: u8 = 5;

/// Who is connected, by network and peer: the connection, and what it says of itself.
#[derive(Clone, Debug, Default)]
struct Truth {
    online: BTreeMap<(u8, u8), Said>,
    conns: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Said {
    conn: u64,
    direct: bool,
    withhold: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Join {
        network: u8,
        peer: u8,
        direct: bool,
        withhold: bool,
    },
    Leave {
        network: u8,
        peer: u8,
        old: bool,
    },
    Update {
        network: u8,
        peer: u8,
        direct: bool,
        withhold: bool,
    },
    /// Time goes on, and at most so many messages are sent.
    Run {
        millis: u64,
        messages: usize,
    },
}

impl ReferenceStateMachine for Truth {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Step> {
        let who = (0..NETWORKS, 0..PEERS);
        prop_oneof![
            3 => (who.clone(), any::<bool>(), any::<bool>())
                .prop_map(|((network, peer), direct, withhold)| Step::Join { network, peer, direct, withhold }),
            2 => (who.clone(), any::<bool>()).prop_map(|((network, peer), old)| Step::Leave { network, peer, old }),
            2 => (who, any::<bool>(), any::<bool>())
                .prop_map(|((network, peer), direct, withhold)| Step::Update { network, peer, direct, withhold }),
            4 => (0_u64..150, 0_usize..6).prop_map(|(millis, messages)| Step::Run { millis, messages }),
        ]
        .boxed()
    }

    fn apply(mut state: Self, step: &Step) -> Self {
        match *step {
            Step::Join { network, peer, direct, withhold } => {
                state.conns += 1;
                state.online.insert((network, peer), Said { conn: state.conns, direct, withhold });
            }
            Step::Leave { old: true, .. } | Step::Run { .. } => {}
            Step::Leave { network, peer, old: false } => {
                state.online.remove(&(network, peer));
            }
            Step::Update { network, peer, direct, withhold } => {
                if let Some(said) = state.online.get_mut(&(network, peer)) {
                    (said.direct, said.withhold) = (direct, withhold);
                }
            }
        }
        state
    }
}

/// The directory, and what the relay and its members know.
struct Told {
    directory: Directory,
    now: Instant,
    conns: u64,
    /// Number of the network and the connection of each member, as the relay keeps them.
    places: BTreeMap<(u8, u8), (u32, ConnId)>,
    /// What each connection was told of each peer.
    views: BTreeMap<ConnId, BTreeMap<PeerId, DirectoryEntry>>,
    names: BTreeMap<ConnId, (u8, u8)>,
}

impl Told {
    /// Sends what is due, at most so many messages.
    fn run(&mut self, messages: usize) {
        for _ in 0..messages {
            let Some((conn, entries)) = self.directory.poll(self.now) else { break };
            self.tell(conn, entries);
        }
    }

    fn tell(&mut self, conn: ConnId, entries: Vec<DirectoryEntry>) {
        let (_, own) = *self.names.get(&conn).expect("only connections are told");
        assert!(!entries.is_empty() && entries.len() <= MAX_DIRECTORY_ENTRIES, "a page is neither empty nor over its bound");
        let view = self.views.entry(conn).or_default();
        for entry in entries {
            assert_ne!(entry.peer, id(own), "nobody is told of itself");
            view.insert(entry.peer, entry);
        }
    }

    /// When all has been told, each member believes what is true.
    fn all_know(&mut self, truth: &Truth) {
        for _ in 0..10_000 {
            self.run(usize::MAX);
            let Some(due) = self.directory.deadline() else { break };
            assert!(due.at > self.now, "the directory wants an alarm that does nothing");
            self.now = due.at;
        }
        assert!(self.directory.deadline().is_none(), "the directory never rests");
        for ((network, peer), said) in &truth.online {
            let view = self.views.get(&ConnId(said.conn)).cloned().unwrap_or_default();
            for other in (0..PEERS).filter(|other| other != peer) {
                let believed = view.get(&id(other)).filter(|entry| entry.online);
                match truth.online.get(&(*network, other)) {
                    None => assert!(believed.is_none(), "{peer} of {network} believes that {other} is there"),
                    Some(told) => {
                        let entry = believed.expect("everybody is told of everybody who is there");
                        assert_eq!((entry.supports_direct, entry.public.is_none()), (told.direct, told.withhold), "{peer} of {other}");
                        let (number, _) = self.places[&(*network, other)];
                        assert_eq!(self.directory.member(number, id(other)).map(|member| member.handle), Some(entry.handle));
                    }
                }
            }
        }
        let networks: std::collections::BTreeSet<u8> = truth.online.keys().map(|(network, _)| *network).collect();
        assert_eq!(self.directory.networks(), networks.len(), "an empty network is forgotten");
    }
}

impl StateMachineTest for Told {
    type SystemUnderTest = Self;
    type Reference = Truth;

    fn init_test(_: &Truth) -> Self {
        Self {
            directory: Directory::default(),
            now: Instant::from_millis(1),
            conns: 0,
            places: BTreeMap::new(),
            views: BTreeMap::new(),
            names: BTreeMap::new(),
        }
    }

    fn apply(mut state: Self, _: &Truth, step: Step) -> Self {
        match step {
            Step::Join { network, peer, direct, withhold } => {
                state.conns += 1;
                let conn = ConnId(state.conns);
                let observed = "192.0.2.1:5000".parse().expect("an address");
                let member = Member { conn, handle: Handle(0), observed, withhold, supports_direct: direct };
                let joined = state.directory.join(state.now, [network; 32], id(peer), member).expect("handles are left");
                let replaced = state.places.insert((network, peer), (joined.network, conn)).map(|(_, conn)| conn);
                assert_eq!(joined.replaced, replaced, "a join says whom it replaces");
                state.names.insert(conn, (network, peer));
                for page in state.directory.pages(joined.network, id(peer)) {
                    state.tell(conn, page);
                }
            }
            Step::Leave { network, peer, old } => {
                if let Some((number, conn)) = state.places.get(&(network, peer)).copied() {
                    // a connection that was replaced ends later than the new one begins
                    let leaving = if old { ConnId(u64::MAX) } else { conn };
                    state.directory.leave(state.now, number, id(peer), leaving);
                    if !old {
                        state.places.remove(&(network, peer));
                    }
                }
            }
            Step::Update { network, peer, direct, withhold } => {
                if let Some((number, _)) = state.places.get(&(network, peer)) {
                    state.directory.update(state.now, *number, id(peer), direct, withhold);
                }
            }
            Step::Run { millis, messages } => {
                state.now = state.now + Duration::from_millis(millis);
                state.run(messages);
            }
        }
        state
    }

    fn teardown(mut state: Self, truth: Truth) {
        state.all_know(&truth);
    }
}

prop_state_machine! {
    #[test]
    fn members_are_told_the_truth(sequential 1..60 => Told);
}

fn id(peer: u8) -> PeerId {
    PeerId([peer; 32])
}
