//! One journal through both runtimes gives the same bytes; and what both of them recorded replays.
use shadowmesh_core::journal::{Journal, Loan, Recorded, Tape};
use std::path::Path;

#[test]
fn a_peers_journal_gives_the_same_actions_on_both_runtimes() {
    let bytes = journal("peer.journal");
    let tape = || if let Ok(Journal::Node(tape)) = Journal::open(&bytes) { tape } else { panic!("a peer's journal") };
    same_on_both(tape);
}

#[test]
fn a_relays_journal_gives_the_same_actions_on_both_runtimes() {
    let bytes = journal("relay.journal");
    let tape = || if let Ok(Journal::Hub(tape)) = Journal::open(&bytes) { tape } else { panic!("a relay's journal") };
    same_on_both(tape);
}

/// A journal whose digest was altered is refused by both: the comparison compares.
#[test]
fn another_action_is_noticed_on_both_runtimes() {
    let bytes = journal("peer.journal");
    let Ok(Journal::Node(tape)) = Journal::open(&bytes) else { panic!("a peer's journal") };
    let mut other = shadowmesh_core::journal::Recorder::<shadowmesh_core::Node>::new(&tape.config());
    let mut tape = tape;
    while let Some(mut entry) = tape.next_entry().expect("a good journal") {
        let at = entry.at;
        other.event(at, &entry.event::<shadowmesh_core::Node>(&mut Loan::default()).expect("a good event"));
        other.actions(&[]);
    }
    let tape = || if let Ok(Journal::Node(tape)) = Journal::open(other.bytes()) { tape } else { panic!("a peer's journal") };
    for why in [shadowmesh_runtime_smol::rerun::rerun(tape()), shadowmesh_runtime_std::rerun::rerun(tape())] {
        assert!(why.expect_err("no action is not some action").contains("other actions"));
    }
}

fn same_on_both<'a, M: Recorded + 'static>(tape: impl Fn() -> Tape<'a, M>) {
    let on_smol = shadowmesh_runtime_smol::rerun::rerun(tape()).expect("the actions of the journal");
    let on_threads = shadowmesh_runtime_std::rerun::rerun(tape()).expect("the actions of the journal");
    assert!(on_smol == on_threads, "{} bytes on smol, {} on threads, and not the same", on_smol.len(), on_threads.len());
    assert!(on_smol.len() > 10_000, "it is a run, and no empty one: {} bytes", on_smol.len());
}

fn journal(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/journals").join(name)).expect("it is committed")
}
