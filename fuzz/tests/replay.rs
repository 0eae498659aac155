//! Every handshake and re-handshake message of a whole life, sent again in every state, at every door: nothing comes of it.
use shadowmesh_core::{event::Note, id::Handle, time::Instant};
use shadowmesh_fuzz::world::{HostId, Recorded, World, deliver, forward, payloads};
use std::{collections::BTreeSet, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

// protocol 4.4, 5.3
#[test]
fn replayed_while_traffic_goes_direct() {
    let mut scene = Scene::new(80);
    scene.replay_all();
    scene.end();
}

#[test]
fn replayed_while_traffic_goes_over_the_relay() {
    let mut scene = Scene::new(81);
    scene.world.cut(scene.a, scene.b);
    scene.world.until_relayed(scene.a, scene.b);
    scene.replay_all();
    scene.end();
}

#[test]
fn replayed_after_the_keys_were_replaced() {
    let mut scene = Scene::new(82);
    scene.world.run(130 * SECOND);
    scene.replay_all();
    scene.end();
}

#[test]
fn replayed_to_a_peer_that_has_restarted() {
    let mut scene = Scene::new(83);
    scene.flows.into_iter().for_each(|flow| scene.world.stop(flow));
    scene.world.run(SECOND);
    scene.world.restart(scene.b);
    let sessions = scene.sessions();
    // while the relay lets it in, while it greets, while it looks for the direct path
    for _ in 0..4 {
        scene.replay_briefly();
        scene.world.run(Duration::from_millis(40));
    }
    scene.world.until_direct(scene.a, scene.b);
    assert_eq!(scene.sessions(), [sessions[0] + 1, sessions[1] + 1], "one new session, and no other");
    scene.flows = scene.world.both_ways(scene.a, scene.b, 200);
    scene.replay_all();
    scene.end();
}

#[test]
fn replayed_while_nobody_has_a_session() {
    let mut scene = Scene::new(84);
    scene.world.assert_whole(&scene.flows);
    scene.world.kill(scene.a);
    scene.world.restart(scene.b);
    scene.world.until("the relay lets b in", 5 * SECOND, |w| w.hub_status(scene.relay).clients.len() == 1);
    let sessions = scene.sessions();
    scene.replay_briefly();
    scene.world.run(12 * SECOND);
    assert_eq!(scene.sessions(), sessions, "nobody is there, so nobody has a session");
    scene.world.start(scene.a);
    scene.world.until_direct(scene.a, scene.b);
    scene.flows = scene.world.both_ways(scene.a, scene.b, 200);
    scene.end();
}

/// When the session was made, its path and epoch, switches and fallbacks.
type State = (Option<Instant>, Option<u32>, u32, u64, u64);

/// Two peers that have done everything once, and what was heard of it.
struct Scene {
    world: World,
    relay: HostId,
    a: HostId,
    b: HostId,
    stranger: HostId,
    heard: Vec<Vec<u8>>,
    flows: [shadowmesh_fuzz::world::FlowId; 2],
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut world = World::new(seed);
        world.record();
        let relay = world.relay();
        let (a, b, stranger) = (world.peer(relay), world.peer(relay), world.stranger());
        world.until_direct(a, b);
        // a second session, a path that died and came back
        world.restart(b);
        world.until_direct(a, b);
        world.cut(a, b);
        world.both_ways(a, b, 50).into_iter().for_each(|flow| {
            world.run(SECOND);
            world.stop(flow);
        });
        world.heal(a, b);
        world.until_direct(a, b);
        let heard = handshakes(&world.recorded());
        let kinds: BTreeSet<u8> = heard.iter().map(|message| message[0]).collect();
        assert_eq!(kinds.into_iter().collect::<Vec<_>>(), [0x01, 0x02, 0x03, 0x20, 0x21, 0x22], "all kinds were heard");
        let flows = world.both_ways(a, b, 200);
        world.run(SECOND);
        Self { world, relay, a, b, stranger, heard, flows }
    }

    /// Every message to every door; then as long as anything half done could live.
    fn replay_all(&mut self) {
        let before = self.state();
        self.replay_briefly();
        assert_eq!(self.state(), before, "{}", self.world.story());
        self.world.run(12 * SECOND);
        assert_eq!(self.state(), before, "{}", self.world.story());
        let drops = [self.a, self.b].map(|host| self.world.dropped_in_all(host));
        assert!(drops[0] > 0 && drops[1] > 0, "what was sent again was counted");
    }

    fn replay_briefly(&mut self) {
        let (relay, a, b) = (self.relay, self.a, self.b);
        for at in 0..self.heard.len() {
            let message = self.heard[at].clone();
            for (host, other) in [(a, b), (b, a)] {
                // the relay plays it as the other's, as its own, as one that nobody has; the other plays it on their own path
                let handle = self.handle(other);
                for bytes in [deliver(handle, &message), message.clone(), deliver(Handle(77), &message)] {
                    self.world.inject(relay, host, &bytes);
                }
                self.world.inject(other, host, &message);
                self.world.inject(other, host, &forward(Handle(0), &message));
            }
            self.world.run(Duration::from_millis(1));
        }
        self.knock_everywhere();
    }

    /// The same on connections of nobody: at the relay and at the direct listeners.
    fn knock_everywhere(&mut self) {
        let doors = [Some((self.world.address(self.relay, true), 443).into()), self.world.listener(self.a), self.world.listener(self.b)];
        for door in doors.into_iter().flatten() {
            for start in (0..self.heard.len()).step_by(4) {
                let Some(conn) = self.world.knock(self.stranger, door) else { continue };
                for message in &self.heard[start..self.heard.len().min(start + 4)] {
                    self.world.say(self.stranger, conn, message);
                }
                self.world.run(Duration::from_millis(20));
                self.world.hang_up(self.stranger, conn);
            }
        }
    }

    fn handle(&mut self, host: HostId) -> Handle {
        let id = self.world.id(host);
        let clients = self.world.hub_status(self.relay).clients;
        clients.into_iter().find(|client| client.id == id).map_or(Handle(1), |client| client.handle)
    }

    /// What no replay may change.
    fn state(&mut self) -> [State; 2] {
        [(self.a, self.b), (self.b, self.a)].map(|(one, other)| {
            let peer = self.world.peer_status(one, other).expect("known");
            (peer.handshake_at, peer.path.map(|path| path.id.0), peer.epoch, peer.migrations, peer.fallbacks)
        })
    }

    fn sessions(&mut self) -> [usize; 2] {
        [self.a, self.b].map(|host| self.world.noted(host, |note| matches!(note, Note::PeerConnected { .. })))
    }

    fn end(mut self) {
        self.world.run(SECOND);
        self.world.assert_whole(&self.flows);
    }
}

/// The messages of handshakes and re-handshakes, each once.
fn handshakes(recorded: &[Recorded]) -> Vec<Vec<u8>> {
    let mut known = BTreeSet::new();
    let all = recorded.iter().flat_map(|letter| payloads(&letter.bytes)).map(|(_, payload)| payload);
    all.filter(|payload| matches!(payload[0], 0x01..=0x03 | 0x20..=0x22)).filter(|payload| known.insert(payload.clone())).collect()
}
