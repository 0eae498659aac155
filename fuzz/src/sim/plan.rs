//! What stands before the first step: who is there, behind what, how far apart, and how they are configured.
use crate::world::{Depends, NatKind, Ports, Rng, Way};
use arbitrary::Arbitrary;
use shadowmesh_core::config::{self, Transports};
use std::{sync::LazyLock, time::Duration};

/// Plans of a thousand whose relays pass datagrams on, if `SHADOWMESH_SIM_RELAY_UDP` says nothing else.
const DETOURS: u16 = 250;

/// The most peers of a plan.
pub const PEERS_MAX: usize = 5;

/// A small network. Any values make one: numbers are taken round.
#[derive(Clone, Debug, PartialEq, Eq, Arbitrary)]
pub struct Plan {
    /// All chance of the run.
    pub seed: u64,
    /// Peers: 2 to 5.
    pub peers: u8,
    /// Relays: 1 or 2.
    pub relays: u8,
    /// What a migration keeps, at every peer.
    pub mode: Mode,
    /// Ethernet instead of IP.
    pub layer2: bool,
    /// `p2p.close_relay`.
    pub close_relay: bool,
    /// `p2p.retry_interval`, in steps of five seconds.
    pub retry: u8,
    /// Where each peer is.
    pub homes: [Home; PEERS_MAX],
    /// Ways between peers.
    pub between: Quality,
    /// Ways to relays.
    pub to_relays: Quality,
    /// What direct paths are made of, at every peer.
    pub direct: Direct,
}

/// `p2p.transports`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Direct {
    /// WebSocket in TLS alone.
    Streams,
    /// UDP and, where that fails, WebSocket.
    Both,
    /// UDP alone.
    Datagrams,
}

impl Direct {
    /// Plans of a thousand that have datagrams, if `SHADOWMESH_SIM_UDP` says nothing else.
    const SHARE: u16 = 300;

    /// Plans of a thousand that have datagrams.
    pub fn share() -> u16 {
        static SHARE: LazyLock<u16> =
            LazyLock::new(|| std::env::var("SHADOWMESH_SIM_UDP").ok().and_then(|text| text.parse().ok()).unwrap_or(Direct::SHARE));
        *SHARE
    }

    /// What a seed has. Drawn apart from all else, so that the rest of the plan is the same whatever the share is.
    pub fn draw(seed: u64, share: u16) -> Self {
        let mut rng = Rng::new(seed ^ 0xda7a_96a0);
        match (rng.per_mille(share), rng.per_mille(700)) {
            (true, true) => Self::Both,
            (true, false) => Self::Datagrams,
            (false, _) => Self::Streams,
        }
    }
}

impl From<Direct> for Transports {
    fn from(direct: Direct) -> Self {
        match direct {
            Direct::Streams => Self::WSS,
            Direct::Both => Self::ALL,
            Direct::Datagrams => Self::UDP,
        }
    }
}

/// `p2p.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Mode {
    /// `switch-lossless`.
    Lossless,
    /// `reliable`.
    Reliable,
    /// `redundant`.
    Redundant,
    /// `off`.
    Off,
}

impl From<Mode> for config::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Lossless => Self::SwitchLossless,
            Mode::Reliable => Self::Reliable,
            Mode::Redundant => Self::Redundant,
            Mode::Off => Self::Off,
        }
    }
}

/// Where a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub enum Home {
    /// On the open net, with an address of each family.
    Open,
    /// With IPv4 alone.
    OpenV4,
    /// With IPv6 alone.
    OpenV6,
    /// Behind a NAT box.
    Behind {
        /// What the box does: see `Home::nat`.
        rules: u8,
        /// It forwards the port of the listener.
        forwards: bool,
    },
    /// Behind two of them.
    Twice {
        /// What both do.
        rules: u8,
    },
}

impl Home {
    /// The box of these rules.
    pub fn nat(rules: u8) -> NatKind {
        let depends = |number: u8| [Depends::Nothing, Depends::Address, Depends::AddressAndPort][usize::from(number % 3)];
        NatKind {
            mapping: depends(rules),
            filtering: depends(rules / 3),
            ports: [Ports::Preserved, Ports::Sequential, Ports::Random][usize::from(rules / 9 % 3)],
            hairpin: rules & 0x80 == 0,
            refuses: rules & 0x40 != 0,
            ..NatKind::default()
        }
    }

    /// Whether it has addresses of this family.
    pub fn has(self, v4: bool) -> bool {
        match self {
            Self::Open => true,
            Self::OpenV4 | Self::Behind { .. } | Self::Twice { .. } => v4,
            Self::OpenV6 => !v4,
        }
    }

    /// Whether its address and port look the same to everybody, or nothing keeps strangers out: two such meet by UDP without a guess.
    pub fn meets_by_udp(self, other: Self) -> bool {
        let is_open = |home| matches!(home, Self::Open | Self::OpenV4 | Self::OpenV6);
        let is_constant = |home| match home {
            Self::Open | Self::OpenV4 | Self::OpenV6 => true,
            Self::Behind { rules, .. } | Self::Twice { rules } => Self::nat(rules).mapping == Depends::Nothing,
        };
        let share = [true, false].into_iter().any(|v4| self.has(v4) && other.has(v4));
        share && (is_open(self) || is_open(other) || (is_constant(self) && is_constant(other)))
    }

    /// Whether a connection from outside can come in.
    pub fn is_reachable(self) -> bool {
        match self {
            Self::Open | Self::OpenV4 | Self::OpenV6 => true,
            Self::Behind { forwards, .. } => forwards,
            Self::Twice { .. } => false,
        }
    }
}

/// How a way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub struct Quality {
    /// Grows with the square: 0 to 160 ms.
    pub latency: u8,
    /// 0 to 60 ms, mostly none.
    pub jitter: u8,
    /// 0 to 3 %, mostly none.
    pub loss: u8,
    /// Rate, window, corruption: see `Quality::way`.
    pub flavour: u8,
}

impl Quality {
    /// Nothing remarkable.
    pub const GOOD: Self = Self { latency: 45, jitter: 0, loss: 0, flavour: 0 };

    /// Whether datagrams may be lost on it or overtake each other, without anybody's fault.
    pub fn is_rough(self) -> bool {
        let way = self.way();
        way.loss > 0 || way.corruption > 0 || way.jitter > Duration::ZERO || way.reordering > 0
    }

    /// The way that it stands for.
    pub fn way(self) -> Way {
        let above = |value: u8, least: u8| u64::from(value.saturating_sub(least));
        let rates = [125_000_000, 12_500_000, 1_250_000, 250_000];
        let windows = [256, 64, 32, 1_024];
        Way {
            latency: Duration::from_millis(u64::from(self.latency) * u64::from(self.latency) / 400),
            jitter: Duration::from_millis(above(self.jitter, 135) / 2),
            loss: (above(self.loss, 135) / 4) as u16,
            doubling: (above(self.loss, 200)) as u16,
            reordering: (above(self.jitter, 200)) as u16,
            corruption: u16::from(self.flavour >= 0xf0),
            rate: rates[usize::from(self.flavour % 4)],
            window: windows[usize::from(self.flavour / 4 % 4)] * 1024,
            ..Way::default()
        }
    }

    pub(super) fn draw(rng: &mut Rng) -> Self {
        let [latency, jitter, loss, flavour] = (rng.u64() as u32).to_be_bytes();
        Self { latency, jitter, loss, flavour }
    }
}

impl Plan {
    /// How many peers.
    pub fn peer_count(&self) -> usize {
        2 + usize::from(self.peers) % (PEERS_MAX - 1)
    }

    /// How many relays.
    pub fn relay_count(&self) -> usize {
        1 + usize::from(self.relays) % 2
    }

    /// `p2p.retry_interval`.
    pub fn retry_interval(&self) -> Duration {
        Duration::from_secs(5 + 5 * u64::from(self.retry % 12))
    }

    /// Whether order is promised: `reliable` delivers what it repairs behind what came meanwhile; and in calm a lane hands on whatever a
    /// path of datagrams brings as it comes (protocol 7.3), so the disorder of the way between is its own.
    pub fn is_ordered(&self) -> bool {
        self.mode == Mode::Lossless && !self.has_rough_datagrams()
    }

    /// Whether paths may be of datagrams.
    pub fn has_datagrams(&self) -> bool {
        self.direct != Direct::Streams || self.has_detours()
    }

    /// Whether relays pass datagrams on (`p2p.relay_udp`). Of the seed alone, so that a plan's bytes mean what they did.
    pub fn has_detours(&self) -> bool {
        static SHARE: LazyLock<u16> =
            LazyLock::new(|| std::env::var("SHADOWMESH_SIM_RELAY_UDP").ok().and_then(|text| text.parse().ok()).unwrap_or(DETOURS));
        Rng::new(self.seed ^ 0xde70_0a5e).per_mille(*SHARE)
    }

    /// Whether datagrams may be lost or overtake each other without anybody's fault.
    pub fn has_rough_datagrams(&self) -> bool {
        (self.direct != Direct::Streams && self.between.is_rough()) || (self.has_detours() && self.to_relays.is_rough())
    }

    /// The plan of a seed.
    pub fn draw(seed: u64, rng: &mut Rng) -> Self {
        let home = |rng: &mut Rng| {
            let rules = rng.u64() as u8;
            match rng.below(10) {
                0..=4 => Home::Open,
                5 => Home::OpenV4,
                6 => Home::OpenV6,
                7 => Home::Behind { rules, forwards: false },
                8 => Home::Behind { rules, forwards: true },
                _ => Home::Twice { rules },
            }
        };
        let modes =
            [Mode::Lossless, Mode::Lossless, Mode::Lossless, Mode::Lossless, Mode::Lossless, Mode::Reliable, Mode::Redundant, Mode::Off];
        Self {
            seed,
            // two or three peers show most of what five do, for less
            peers: rng.pick(&[0, 0, 0, 1, 1, 1, 2, 3]),
            relays: u8::from(rng.per_mille(250)),
            mode: rng.pick(&modes),
            layer2: rng.per_mille(150),
            close_relay: rng.per_mille(150),
            retry: rng.u64() as u8,
            homes: core::array::from_fn(|_| home(rng)),
            between: Quality::draw(rng),
            to_relays: Quality::draw(rng),
            direct: Direct::draw(seed, Direct::share()),
        }
    }

    /// Simpler plans, for the shrinker: each with one thing less.
    pub fn simpler(&self) -> Vec<Self> {
        let with = |change: &dyn Fn(&mut Self)| {
            let mut plan = self.clone();
            change(&mut plan);
            plan
        };
        let mut all = vec![
            with(&|plan| plan.peers = (plan.peer_count() as u8 - 2).saturating_sub(1)),
            with(&|plan| plan.peers = plan.peer_count() as u8 - 2),
            with(&|plan| plan.relays = 0),
            with(&|plan| plan.layer2 = false),
            with(&|plan| plan.close_relay = false),
            with(&|plan| plan.mode = Mode::Lossless),
            with(&|plan| plan.retry = 0),
            with(&|plan| plan.direct = Direct::Streams),
            with(&|plan| plan.between = Quality::GOOD),
            with(&|plan| plan.to_relays = Quality::GOOD),
            with(&|plan| plan.homes = [Home::Open; PEERS_MAX]),
        ];
        if self.direct == Direct::Datagrams {
            all.push(with(&|plan| plan.direct = Direct::Both));
        }
        for at in 0..PEERS_MAX {
            all.push(with(&|plan| plan.homes[at] = Home::Open));
        }
        all.retain(|plan| plan != self);
        all
    }
}
