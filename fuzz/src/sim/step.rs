//! One thing that befalls the network, after some time without anything. A list of steps with any of them taken out is a list of steps.
use super::plan::{Plan, Quality};
use crate::world::Rng;
use arbitrary::Arbitrary;
use std::time::Duration;

/// Time, and then a deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
pub struct Step {
    /// Grows with the square: 0 to four seconds.
    pub wait: u8,
    /// What happens then.
    pub deed: Deed,
}

impl Step {
    /// How long nothing happens before.
    pub fn pause(self) -> Duration {
        Duration::from_millis(u64::from(self.wait) * u64::from(self.wait) / 16)
    }
}

/// What can happen. Hosts are numbered: peers, then relays, then round again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Arbitrary)]
#[expect(missing_docs, reason = "the fields say what they are: hosts by number, and how much of it")]
pub enum Deed {
    /// Packets at a steady pace: up to 255 a second, so many, 60 to 1,335 bytes each.
    Stream { from: u8, to: u8, rate: u8, packets: u8, len: u8 },
    /// Packets all at once.
    Burst { from: u8, to: u8, packets: u8, len: u8 },
    /// Nothing passes between two hosts, and nobody is told.
    Cut { a: u8, b: u8 },
    /// Nothing passes one way.
    CutOneWay { from: u8, to: u8 },
    /// All is well between them again.
    Heal { a: u8, b: u8 },
    /// New connections are refused.
    Refuse { a: u8, b: u8 },
    /// Connections get a TCP reset.
    Reset { a: u8, b: u8 },
    /// The way between them is another.
    Shape { a: u8, b: u8, quality: Quality },
    /// The process is killed.
    Crash { host: u8 },
    /// The power goes: nobody is told.
    PowerLoss { host: u8 },
    /// What does not run is started.
    Start { host: u8 },
    /// Killed and started.
    Restart { host: u8 },
    /// It leaves in good order.
    Leave { host: u8 },
    /// Suspended.
    Sleep { host: u8 },
    /// Awake again.
    Wake { host: u8 },
    /// A peer's clock jumps ahead, by up to four hours.
    Jump { host: u8, minutes: u8 },
    /// A peer's interface takes so many packets a second; 0: all.
    SlowInterface { host: u8, rate: u8 },
    /// A peer gets other addresses.
    Move { host: u8 },
    /// A relay tells its next clients that they are elsewhere.
    Lie { relay: u8 },
    /// An overlay ping.
    Ping { from: u8, to: u8, len: u8 },
    /// A stranger comes with noise, or with what it overheard, whole or altered.
    Stranger { target: u8, how: u8 },
    /// A relay drops, doubles, reorders or alters what it carries of one peer.
    Meddle { peer: u8, relay: u8, how: u8 },
    /// It stops doing so.
    Behave { peer: u8, relay: u8 },
    /// A while without anything: up to two minutes.
    Idle { seconds: u8 },
    /// All is well everywhere.
    Calm,
    /// The box in front of a peer forgets its mappings.
    Remap { host: u8 },
    /// Larger datagrams do not pass between two peers any more: see `largest`.
    Narrow { a: u8, b: u8, size: u8 },
    /// A relay tells its clients to take another one, and ends within so many seconds.
    Drain { relay: u8, seconds: u8 },
}

/// Kinds of deeds that a seed may leave out.
const KINDS: usize = 22;

impl Deed {
    /// What befalls datagrams alone.
    fn draw_for_datagrams(rng: &mut Rng) -> Self {
        let [a, b, size, kind] = (rng.u64() as u32).to_be_bytes();
        if kind & 1 == 0 { Self::Remap { host: a } } else { Self::Narrow { a, b, size } }
    }

    /// What befalls relays that are not alone.
    fn draw_for_relays(rng: &mut Rng) -> Self {
        let [relay, seconds, ..] = (rng.u64() as u32).to_be_bytes();
        Self::Drain { relay, seconds: seconds % 16 }
    }

    /// The largest IP packet that `Narrow` leaves, bytes.
    pub fn largest(size: u8) -> usize {
        [600, 1_200, 1_300, 1_340, 1_400][usize::from(size) % 5]
    }

    fn draw(rng: &mut Rng, allowed: u32) -> Self {
        let [a, b, c, d] = (rng.u64() as u32).to_be_bytes();
        loop {
            // traffic and cure are more frequent than any one illness
            let kind = match rng.below(100) {
                0..25 => return Self::Stream { from: a, to: b, rate: c, packets: d, len: rng.u64() as u8 },
                25..35 => return Self::Heal { a, b },
                35..40 => return Self::Start { host: a },
                40..42 => return Self::Calm,
                _ => rng.below(KINDS),
            };
            if allowed & (1 << kind) == 0 {
                continue;
            }
            return match kind {
                0 => Self::Burst { from: a, to: b, packets: c, len: d },
                1 | 2 => Self::Cut { a, b },
                3 => Self::CutOneWay { from: a, to: b },
                4 => Self::Refuse { a, b },
                5 | 6 => Self::Reset { a, b },
                7 => Self::Shape { a, b, quality: Quality::draw(rng) },
                8 => Self::Crash { host: a },
                9 => Self::PowerLoss { host: a },
                10 => Self::Restart { host: a },
                11 => Self::Leave { host: a },
                12 => Self::Sleep { host: a },
                13 => Self::Wake { host: a },
                14 => Self::Jump { host: a, minutes: b },
                15 => Self::SlowInterface { host: a, rate: b },
                16 => Self::Move { host: a },
                17 => Self::Lie { relay: a },
                18 => Self::Ping { from: a, to: b, len: c },
                19 => Self::Stranger { target: a, how: b },
                20 => {
                    if d & 1 == 0 {
                        Self::Meddle { peer: a, relay: b, how: c }
                    } else {
                        Self::Behave { peer: a, relay: b }
                    }
                }
                _ => Self::Idle { seconds: a },
            };
        }
    }
}

/// A seed's whole story: each leaves out other kinds of deeds, so that the rest of them meet more often (swarm testing).
pub fn story(seed: u64) -> (Plan, Vec<Step>) {
    let mut rng = Rng::new(seed ^ 0x5eed_5eed_5eed_5eed);
    let plan = Plan::draw(seed, &mut rng);
    let allowed = (rng.u64() & rng.u64() | rng.u64() & rng.u64() | 1) as u32;
    let count = 8 + rng.below(25);
    let mut steps: Vec<Step> = (0..count).map(|_| Step { wait: rng.u64() as u8, deed: Deed::draw(&mut rng, allowed) }).collect();
    if plan.has_datagrams() {
        // drawn last and apart: the rest of the story is what it would be without
        for _ in 0..rng.below(4) {
            let at = rng.below(steps.len() + 1);
            steps.insert(at, Step { wait: rng.u64() as u8, deed: Deed::draw_for_datagrams(&mut rng) });
        }
    }
    if plan.relay_count() > 1 {
        for _ in 0..rng.below(3) {
            let at = rng.below(steps.len() + 1);
            steps.insert(at, Step { wait: rng.u64() as u8, deed: Deed::draw_for_relays(&mut rng) });
        }
    }
    (plan, steps)
}

/// One step by chance, any kind allowed.
pub fn any_step(rng: &mut Rng) -> Step {
    let wait = rng.u64() as u8;
    let deed = match rng.below(40) {
        0 | 1 => Deed::draw_for_datagrams(rng),
        2 => Deed::draw_for_relays(rng),
        _ => Deed::draw(rng, u32::MAX),
    };
    Step { wait, deed }
}
