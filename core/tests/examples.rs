//! The examples run as part of the tests.
#[path = "../examples/pipe.rs"]
mod pipe;

/// Each peer is told what the other one said, over pipes alone; `main` asserts it.
#[test]
fn two_peers_talk_over_pipes() {
    pipe::main();
}
