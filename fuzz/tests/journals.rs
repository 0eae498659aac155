//! Whole stories are recorded, and each machine's journal replays to the same actions, whatever happened to it.
use shadowmesh_core::{
    Node,
    event::{Action, Event, Note},
    journal::{Journal, Recorded, Recorder, Replay, Tape, Verdict},
    time::Instant,
    wire::PathLabel,
};
use shadowmesh_fuzz::world::{HostId, World};
use std::{collections::BTreeSet, path::Path, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_story_of_migration_fallback_restarts_and_new_keys_replays() {
    let mut world = World::new(90);
    world.keep_journals();
    let relay = world.relay();
    let (a, b) = (world.peer(relay), world.peer(relay));
    world.until_direct(a, b);
    let flows = world.both_ways(a, b, 50);
    world.run(SECOND);
    world.cut(a, b);
    world.until_relayed(a, b);
    world.heal(a, b);
    world.until_direct(a, b);
    world.restart(relay);
    world.run(5 * SECOND);
    world.until("new keys", 130 * SECOND, |w| w.status(a).peers.iter().any(|peer| peer.epoch > 0));
    world.assert_whole(&flows);
    world.restart(b);
    world.until_direct(a, b);
    world.run(2 * SECOND);
    assert_eq!(world.label(a, b), Some(PathLabel::DirectWss));
    assert!(world.noted(a, |note| matches!(note, Note::FellBack { .. })) > 0);
    let lives: Vec<_> = world.journals().map(|(host, life, bytes)| (host, life, replayed(bytes))).collect();
    assert_eq!(lives.len(), 5, "a peer lived once, the other one and the relay twice");
    let seen: BTreeSet<&str> = lives.iter().flat_map(|(_, _, seen)| seen.iter().copied()).collect();
    for kind in ["Opened", "Accepted", "Closed", "Message", "Computed", "Report", "Tally", "Listening", "Entropy", "Alarm"] {
        assert!(seen.contains(kind), "no {kind} in {seen:?}");
    }
}

#[test]
fn journals_of_many_peers_replay_after_noise_and_departures() {
    let mut world = World::repeatable(91);
    world.keep_journals();
    let relay = world.relay();
    let peers: Vec<HostId> = (0..4).map(|_| world.peer(relay)).collect();
    for pair in peers.windows(2) {
        world.until_connected(pair[0], pair[1]);
    }
    world.cut(peers[0], peers[1]);
    world.run(8 * SECOND);
    world.kill(peers[3]);
    world.run(30 * SECOND);
    assert_eq!(world.journals().map(|(_, _, bytes)| replayed(bytes).len()).filter(|kinds| *kinds > 3).count(), 5);
}

/// The same story again gives the same bytes: nothing of this process (an address, an order of a map) is in a journal.
#[test]
fn the_same_seed_gives_the_same_journals() {
    let story = || {
        let mut world = World::repeatable(92);
        world.keep_journals();
        let relay = world.relay();
        let (a, b) = (world.peer(relay), world.peer(relay));
        world.until_direct(a, b);
        world.journals().map(|(host, life, bytes)| (host, life, bytes.to_vec())).collect::<Vec<_>>()
    };
    assert!(story() == story(), "two runs of one seed");
}

/// The journals that the runtimes are compared by. When a change of the protocol makes them old, run this with BLESS=1.
#[test]
fn the_committed_journals_replay() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime-smol/tests/journals");
    if std::env::var_os("BLESS").is_some() {
        let mut world = World::repeatable(93);
        world.keep_journals();
        let relay = world.relay();
        let (a, b) = (world.peer(relay), world.peer(relay));
        world.until_direct(a, b);
        world.both_ways(a, b, 10);
        world.run(SECOND);
        world.cut(a, b);
        world.until_relayed(a, b);
        let of = |host| world.journals().find(|(other, _, _)| *other == host).expect("it has lived").2.to_vec();
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("relay.journal"), of(relay)).expect("written");
        std::fs::write(folder.join("peer.journal"), of(a)).expect("written");
    }
    for name in ["relay.journal", "peer.journal"] {
        let bytes = std::fs::read(folder.join(name)).expect("it is committed");
        assert!(replayed(&bytes).contains("Computed"), "{name} has jobs in it");
    }
}

/// The tool that people have: exit code 0, 1 with the first difference, 2 when there is no journal.
#[test]
fn the_tool_tells_a_good_journal_from_others() {
    let good = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime-smol/tests/journals/peer.journal");
    let tool = |file: &Path| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_replay")).arg(file).output().expect("the tool runs");
        let said = String::from_utf8(if output.stdout.is_empty() { output.stderr } else { output.stdout }).expect("text");
        (output.status.code(), said)
    };
    let (code, said) = tool(&good);
    assert_eq!(code, Some(0), "{said}");
    for part in [
        "the journal of a peer",
        "Compute job 0: INIT for sm-",
        "Computed job 0: INIT is made",
        "Edit Switch",
        "the same actions after each",
    ] {
        assert!(said.contains(part), "no {part:?} in {} bytes", said.len());
    }
    let mut recorder = Recorder::<Node>::new(&tape_of(&std::fs::read(&good).expect("it is committed")).config());
    recorder.event(Instant::from_millis(7), &Event::Alarm);
    recorder.actions(&[Action::Listen(true)]);
    let file = std::env::temp_dir().join(format!("shadowmesh-replay-{}", std::process::id()));
    std::fs::write(&file, recorder.bytes()).expect("written");
    let (code, said) = tool(&file);
    assert!(code == Some(1) && said.contains("record 1 at 0.007000 s, Alarm") && said.contains("Listen"), "{code:?} {said}");
    std::fs::write(&file, "smesh1:").expect("written");
    let (code, said) = tool(&file);
    std::fs::remove_file(&file).expect("removed");
    assert!(code == Some(2) && said.contains("not a journal"), "{code:?} {said}");
    assert_eq!(tool(&file).0, Some(2), "no file");
}

fn tape_of(bytes: &[u8]) -> Tape<'_, Node> {
    let Ok(Journal::Node(tape)) = Journal::open(bytes) else { panic!("a peer's journal") };
    tape
}

/// Replays a journal to its end; the kinds of its events.
fn replayed(bytes: &[u8]) -> BTreeSet<&'static str> {
    match Journal::open(bytes).expect("a journal") {
        Journal::Node(tape) => all_the_same(tape),
        Journal::Hub(tape) => all_the_same(tape),
    }
}

fn all_the_same<M: Recorded>(tape: Tape<'_, M>) -> BTreeSet<&'static str> {
    let mut replay = Replay::new(tape);
    let mut kinds = BTreeSet::new();
    while let Some(step) = replay.step().expect("a good journal") {
        assert_eq!(step.verdict, Verdict::Same, "{}: record {}, {} {}", M::NAME, step.number, step.kind, step.detail);
        kinds.insert(step.kind);
    }
    assert!(!replay.tape().is_cut());
    kinds
}
