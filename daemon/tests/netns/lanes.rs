//! Several lanes: each flow comes whole and in order whatever lane it is in, and whatever becomes of the path.

use crate::bulk::Iperf;
use crate::mesh::{Mesh, Options};
use crate::paths::assert_fell_back;
use crate::stream::Stream;
use crate::world::{World, drop_between, heal};
use crate::{Scenario, scenario};
use std::cell::Cell;
use std::fs;

/// About a third of a second of each stream in both directions.
const A_WHILE: u64 = 300;
/// Flows at most until one of them is in a lane beyond the first: one chance in four to the sixteenth that none is.
const FLOWS: usize = 16;

pub(crate) fn all() -> Vec<Scenario> {
    vec![scenario("lanes_journey_loses_nothing", journey_of_equals), scenario("lanes_of_peers_with_four_and_with_one", journey_of_unequals)]
}

fn journey_of_equals(world: &World) {
    let mesh = journey(world, [4, 4]);
    for peer in &mesh.peers {
        assert!(busy_lanes(&mesh, &peer.name) > 0, "more than one lane was used");
    }
}

fn journey_of_unequals(world: &World) {
    let mesh = journey(world, [4, 1]);
    assert_eq!(busy_lanes(&mesh, "b"), 0);
}

/// Relay, direct, relay, direct again, with several flows under way.
fn journey(world: &World, queues: [u8; 2]) -> Mesh<'_> {
    let next = Cell::new(0);
    let with_queues = |options: Options| {
        let queues = queues[next.replace(next.get() + 1)];
        options.set("SHADOWMESH_INTERFACE_QUEUES", &queues.to_string())
    };
    let mut mesh = Mesh::start(world, &["a", "b"], true, with_queues);
    let [a, b] = [0, 1].map(|index| mesh.peers[index].host.clone());
    mesh.until_all("relay");
    let mut streams = vec![Stream::start(mesh.end(0), mesh.end(1)), Stream::start(mesh.end(1), mesh.end(0))];
    let iperf = Iperf::start(world, mesh.end(0).0, mesh.end(1));
    let step = |streams: &[Stream], name: &str| {
        for stream in streams {
            stream.step(world, name, A_WHILE);
        }
    };
    step(&streams, "over the relay");
    while busy_lanes(&mesh, "a") == 0 && streams.len() < FLOWS {
        streams.push(Stream::start(mesh.end(0), mesh.end(1)));
        step(&streams, "over the relay");
    }
    mesh.join();
    mesh.until_all("direct");
    step(&streams, "to direct");
    drop_between(&a, &b);
    mesh.until_all("relay");
    step(&streams, "back to the relay");
    heal(&a, &b);
    mesh.until_all("direct");
    step(&streams, "to direct again");
    if let Some(iperf) = iperf {
        iperf.finish();
    }
    for stream in streams {
        stream.finish_perfect();
    }
    assert_fell_back(&mesh);
    mesh
}

/// Threads of lanes beyond the first that have carried traffic: each batch of it wakes them.
fn busy_lanes(mesh: &Mesh<'_>, peer: &str) -> usize {
    const WAKES: u64 = 100;
    let process = mesh.peers.iter().find(|known| known.name == peer).expect("one of ours").process_id();
    let threads = fs::read_dir(format!("/proc/{process}/task")).expect("it runs");
    let read = |thread: &fs::DirEntry, what: &str| fs::read_to_string(thread.path().join(what)).unwrap_or_default();
    let wakes = |thread: fs::DirEntry| {
        let is_lane = read(&thread, "comm").starts_with("mesh-lane-");
        let status = read(&thread, "status");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap_or("0");
        if is_lane { line.trim().parse().unwrap_or(0) } else { 0 }
    };
    threads.flatten().map(wakes).filter(|wakes| *wakes > WAKES).count()
}
