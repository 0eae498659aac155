//! A peer's doors: its relay connection, its direct connection, its listener, its driver; any bytes, any order, at any stage. It does not
//! panic, does not turn for ever, keeps what it has, and is connected again when the others leave it in peace.
use super::{memo::Memo, script::Script};
use crate::world::{HostId, World, deliver, forward, payloads};
use shadowmesh_core::{
    event::{Ended, Event, MappingProtocol, PortMapping},
    id::{ConnId, Handle},
    time::Duration,
    wire::Transport,
};
use std::{net::SocketAddr, sync::Arc};

/// Steps of one script.
const STEPS: usize = 32;
const SEED: u64 = 11;

/// The stage at which it begins, then steps.
pub fn peer_door(data: &[u8]) {
    let mut script = Script::new(data);
    let mut scene = Scene::new(script.byte());
    for _ in 0..STEPS {
        if script.is_empty() {
            break;
        }
        scene.step(&mut script);
    }
    scene.end();
}

struct Scene {
    world: World,
    relay: HostId,
    a: HostId,
    b: HostId,
    stranger: HostId,
    conns: Vec<ConnId>,
    /// Messages that were heard.
    samples: Vec<Vec<u8>>,
}

impl Scene {
    fn new(stage: u8) -> Self {
        let mut world = World::with_crypto(SEED, Arc::new(Memo));
        world.record();
        let relay = world.relay();
        let a = world.peer(relay);
        let b = world.peer(relay);
        let stranger = world.stranger();
        match stage % 4 {
            0 => {}
            1 => world.run(Duration::from_millis(u64::from(stage))),
            2 => drop(world.until_connected(a, b)),
            _ => drop(world.until_direct(a, b)),
        }
        let samples: Vec<_> = world.recorded().iter().flat_map(|letter| payloads(&letter.bytes)).map(|(_, bytes)| bytes).collect();
        Self { world, relay, a, b, stranger, conns: Vec::new(), samples }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let op = script.byte();
        match op % 12 {
            0 | 1 => {
                let bytes = self.message(script);
                self.world.inject(self.relay, self.a, &bytes);
            }
            2 | 3 => {
                let bytes = self.message(script);
                let handle = Handle(u32::from(script.byte() % 5));
                self.world.inject(self.relay, self.a, &deliver(handle, &bytes));
            }
            4 => {
                let bytes = self.message(script);
                self.world.inject(self.b, self.a, &bytes);
            }
            5 => {
                let bytes = self.message(script);
                self.world.inject(self.b, self.a, &forward(Handle(u32::from(script.byte() & 1)), &bytes));
            }
            6 => {
                let door = self.world.listener(self.a);
                self.conns.extend(door.and_then(|door| self.world.knock(self.stranger, door)));
            }
            7 => {
                let bytes = self.message(script);
                if let Some(conn) = self.conns.get(script.below(self.conns.len())).copied() {
                    self.world.say(self.stranger, conn, &bytes);
                }
            }
            8 => self.world.run(Duration::from_millis(u64::from(script.byte()))),
            9 => self.driver(script),
            10 => match script.byte() % 4 {
                0 => self.world.reset(self.a, self.b),
                1 => self.world.reset(self.a, self.relay),
                2 => self.world.cut(self.a, self.b),
                _ => self.world.heal(self.a, self.b),
            },
            _ => self.world.run(Duration::from_secs(u64::from(script.byte() % 8))),
        }
        self.world.run(Duration::from_millis(1));
    }

    /// Bytes of the script, or something that was heard, spoiled or not; a record header is added where a payload would be too long for one.
    fn message(&mut self, script: &mut Script<'_>) -> Vec<u8> {
        let choice = script.byte();
        if choice & 1 == 0 || self.samples.is_empty() {
            return script.piece().to_vec();
        }
        let sample = self.samples[script.below(self.samples.len())].clone();
        let mut bytes = if choice & 2 == 0 { sample } else { script.spoil(&sample, &[]) };
        bytes.truncate(60_000);
        bytes
    }

    /// What a driver may say at any time, of connections that may not exist.
    fn driver(&mut self, script: &mut Script<'_>) {
        let conn = ConnId(u64::from(script.byte() % 16));
        let address = SocketAddr::from((script.bytes(16).try_into().unwrap_or([0; 16]), script.u16()));
        match script.byte() % 8 {
            0 => self.world.event(self.a, Event::Closed { conn, why: Ended::Reset }),
            1 => self.world.event(self.a, Event::Interfaces(&[(address.ip(), script.byte())])),
            2 => {
                let peer = self.world.id(self.b);
                self.world.event(self.a, Event::Ping { peer, id: script.u32(), payload: script.piece().to_vec() });
            }
            3 => self.world.event(self.a, Event::Alarm),
            4 => self.world.event(self.a, Event::Entropy(&[script.byte(); 32])),
            5 => self.world.event(self.a, Event::Examine),
            6 => {
                let until = self.world.now() + Duration::from_secs(u64::from(script.byte()));
                let mapping = PortMapping { protocol: MappingProtocol::Pcp, transport: Transport::Udp, external: address, until };
                self.world.event(self.a, Event::PortMapped(&[mapping]));
            }
            _ => {
                let mut bytes = script.piece().to_vec();
                self.world.event(self.a, Event::Message { conn, handle: Some(Handle(2)), bytes: &mut bytes });
            }
        }
    }

    /// Left in peace, they find each other again.
    fn end(mut self) {
        self.world.heal(self.a, self.b);
        let status = self.world.status(self.a);
        assert!(status.peers.len() <= 4, "{} peers of two", status.peers.len());
        self.world.until("they are connected again", Duration::from_mins(2), |world| {
            world.run(Duration::from_millis(49));
            world.is_connected(self.a, self.b) && world.is_connected(self.b, self.a)
        });
    }
}
