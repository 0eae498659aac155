//! What seeds found, as the shortest stories that showed it. Each is named after what was wrong.
use shadowmesh_core::status::RelayState;
use shadowmesh_fuzz::sim::{
    Deed::*,
    Direct::*,
    Home::{self, *},
    Mode::*,
    PEERS_MAX, Plan, Quality, Step, run,
};
use shadowmesh_fuzz::world::{PeerPlan, World};
use std::time::Duration;

const HOMES: [Home; PEERS_MAX] = [Open; PEERS_MAX];

/// Two peers and a relay with nothing remarkable about them.
const PLAIN: Plan = Plan {
    seed: 0,
    peers: 0,
    relays: 0,
    mode: Lossless,
    layer2: false,
    close_relay: false,
    retry: 0,
    homes: HOMES,
    between: Quality::GOOD,
    to_relays: Quality::GOOD,
    direct: Streams,
};

fn holds(plan: &Plan, steps: &[Step]) {
    if let Err(violation) = run(plan, steps) {
        panic!("{violation}\n{}", violation.trace.join("\n"));
    }
}

/// With `p2p.close_relay`, the relay was closed and not dialled again when the only peer left: nobody could tell of its return.
#[test]
fn a_peer_that_left_while_relays_were_parked_is_found_again() {
    let plan = Plan { seed: 101, close_relay: true, ..PLAIN };
    holds(&plan, &[Step { wait: 126, deed: Leave { host: 135 } }]);
}

/// A host that changed its addresses believed in its silent relay connection until the next keepalive, half a minute later.
#[test]
fn a_relay_connection_of_an_address_that_is_gone_is_doubted_at_once() {
    let plan = Plan { seed: 5, ..PLAIN };
    let steps = [
        Step { wait: 125, deed: Move { host: 71 } },
        Step { wait: 0, deed: Stream { from: 52, to: 148, rate: 126, packets: 194, len: 34 } },
        Step { wait: 0, deed: Restart { host: 137 } },
        Step { wait: 100, deed: Reset { a: 9, b: 238 } },
    ];
    holds(&plan, &steps);
}

/// The plane kept the timer of a session that had ended.
#[test]
fn a_session_takes_its_timer_with_it() {
    let plan = Plan { seed: 1, peers: 1, ..PLAIN };
    let steps = [
        Step { wait: 0, deed: Stream { from: 206, to: 73, rate: 170, packets: 98, len: 140 } },
        Step { wait: 99, deed: Jump { host: 218, minutes: 194 } },
        Step { wait: 197, deed: Leave { host: 7 } },
        Step { wait: 240, deed: Heal { a: 109, b: 25 } },
        Step { wait: 0, deed: Leave { host: 32 } },
        Step { wait: 210, deed: Leave { host: 50 } },
    ];
    holds(&plan, &steps);
}

/// An Ethernet frame that was to go to all peers while there was none vanished without being counted.
#[test]
fn a_flood_to_nobody_is_counted() {
    let plan = Plan { seed: 381, layer2: true, ..PLAIN };
    let steps = [
        Step { wait: 0, deed: Burst { from: 48, to: 37, packets: 44, len: 46 } },
        Step { wait: 0, deed: Stream { from: 44, to: 250, rate: 93, packets: 126, len: 55 } },
    ];
    holds(&plan, &steps);
}

/// A peer gave up its first handshake for a second one over another, faster relay; the last message of the first came late, and the other
/// end took that session for the newest. Each then refused what the other proved.
#[test]
fn a_handshake_that_was_overtaken_by_a_newer_one_makes_no_session() {
    let homes = [Behind { rules: 159, forwards: true }, Open, Open, Open, Open];
    let between = Quality { latency: 33, jitter: 150, loss: 215, flavour: 136 };
    let to_relays = Quality { latency: 68, jitter: 49, loss: 243, flavour: 50 };
    holds(&Plan { seed: 1479, peers: 1, relays: 1, homes, between, to_relays, ..PLAIN }, &[Step { wait: 61, deed: Heal { a: 98, b: 14 } }]);
}

/// A peer lost its relay after FIN and before the answer to it, and forgot the keys of that session; the other end had sent packets in it.
#[test]
fn a_session_that_lost_its_relay_before_it_was_confirmed_is_kept() {
    let homes = [OpenV6, OpenV4, Open, Open, Open];
    let to_relays = Quality { latency: 222, jitter: 70, loss: 204, flavour: 144 };
    let steps = [
        Step { wait: 148, deed: Stream { from: 219, to: 154, rate: 7, packets: 249, len: 49 } },
        Step { wait: 109, deed: Stream { from: 33, to: 70, rate: 141, packets: 12, len: 244 } },
        Step { wait: 86, deed: Heal { a: 223, b: 41 } },
        Step { wait: 238, deed: Stranger { target: 165, how: 133 } },
        Step { wait: 191, deed: Heal { a: 125, b: 49 } },
        Step { wait: 229, deed: Sleep { host: 84 } },
        Step { wait: 0, deed: Cut { a: 221, b: 222 } },
        Step { wait: 201, deed: Heal { a: 176, b: 80 } },
        Step { wait: 188, deed: Start { host: 18 } },
        Step { wait: 184, deed: Start { host: 45 } },
        Step { wait: 52, deed: Sleep { host: 187 } },
    ];
    holds(&Plan { seed: 30396, relays: 1, homes, to_relays, ..PLAIN }, &steps);
}

/// One end had replaced the session and the other had not. After both had come back to the relay, what the replaced session still owed was
/// taken for the sign of life that was waited for, and the two ends stayed in different sessions.
#[test]
fn what_a_replaced_session_owes_does_not_speak_for_it() {
    let homes = [OpenV4, Open, Twice { rules: 197 }, Open, Open];
    let between = Quality { latency: 160, jitter: 232, loss: 157, flavour: 129 };
    let to_relays = Quality { latency: 121, jitter: 158, loss: 138, flavour: 243 };
    let steps = [
        Step { wait: 196, deed: Stream { from: 11, to: 115, rate: 159, packets: 215, len: 166 } },
        Step { wait: 229, deed: Cut { a: 110, b: 203 } },
        Step { wait: 0, deed: Cut { a: 186, b: 155 } },
        Step { wait: 10, deed: Stream { from: 186, to: 67, rate: 206, packets: 54, len: 208 } },
        Step { wait: 183, deed: Stream { from: 61, to: 173, rate: 203, packets: 201, len: 73 } },
        Step { wait: 49, deed: Lie { relay: 165 } },
        Step { wait: 66, deed: Stream { from: 205, to: 75, rate: 139, packets: 26, len: 249 } },
        Step { wait: 78, deed: Start { host: 189 } },
        Step { wait: 158, deed: Heal { a: 149, b: 99 } },
        Step { wait: 172, deed: Reset { a: 7, b: 212 } },
    ];
    holds(&Plan { seed: 20020, peers: 1, relays: 1, homes, between, to_relays, ..PLAIN }, &steps);
}

/// A burst after a silence went two ways, and the main path was dead: what filled its connection came over the other one. When that died, too,
/// packets waited for ever for room on the dead connection.
#[test]
fn a_dead_path_that_is_full_is_left_also_when_all_that_is_out_came_another_way() {
    let between = Quality { latency: 161, jitter: 157, loss: 53, flavour: 38 };
    let steps = [
        Step { wait: 103, deed: Start { host: 80 } },
        Step { wait: 159, deed: Move { host: 141 } },
        Step { wait: 218, deed: Burst { from: 246, to: 159, packets: 245, len: 140 } },
        Step { wait: 43, deed: Move { host: 9 } },
    ];
    holds(&Plan { seed: 6121, between, ..PLAIN }, &steps);
}

/// Two of three peers went direct and closed their relay connections while their handshakes with the third, far from the relay,
/// were under way. A whole story cannot demand this under `close_relay`: who comes later finds nobody at the relay, by design.
#[test]
fn relays_are_not_closed_while_a_peer_that_is_there_has_no_session_yet() {
    let mut world = World::new(0);
    let relay = world.relay();
    let closes = |peer: &mut PeerPlan| peer.config.close_relay = true;
    let far = world.idle_peer(&[relay], closes);
    world.change_way(far, relay, |way| way.latency = Duration::from_millis(400));
    world.start(far);
    world.until("it stands with the relay", Duration::from_secs(10), |world| world.relay_states(far) == [RelayState::Connected]);
    world.run(Duration::from_secs(1));
    let near = [(); 2].map(|()| world.peer_with(&[relay], closes));
    for (a, b) in [(near[0], near[1]), (near[0], far), (near[1], far)] {
        world.until_connected(a, b);
    }
}

/// Seeds have no datagrams unless asked (see `Direct::share`): here are the faults that befall them, on a way that is smooth.
#[test]
fn a_story_by_datagrams_holds() {
    let steps = [
        Step { wait: 200, deed: Stream { from: 0, to: 1, rate: 200, packets: 255, len: 100 } },
        Step { wait: 50, deed: Move { host: 0 } },
        Step { wait: 120, deed: CutOneWay { from: 0, to: 1 } },
        Step { wait: 120, deed: Heal { a: 0, b: 1 } },
        Step { wait: 200, deed: Remap { host: 1 } },
        Step { wait: 200, deed: Stream { from: 1, to: 0, rate: 200, packets: 255, len: 200 } },
        Step { wait: 60, deed: Narrow { a: 0, b: 1, size: 1 } },
    ];
    let homes = [Open, Behind { rules: 6, forwards: false }, Open, Open, Open];
    for direct in [Both, Datagrams] {
        holds(&Plan { seed: 3, direct, homes, ..PLAIN }, &steps);
    }
}

/// One of each: a peer that could not be found would be one that its home hides.
#[test]
fn peers_of_every_home_find_each_other() {
    for other in [OpenV4, OpenV6, Behind { rules: 0, forwards: true }, Behind { rules: 7, forwards: false }, Twice { rules: 200 }] {
        let mut homes = HOMES;
        homes[1] = other;
        holds(&Plan { homes, ..PLAIN }, &[]);
    }
}

/// FIN took four seconds over a relay that lost much: this end began anew, and the other sealed in the session that was given up (3.9).
#[test]
fn keys_of_an_attempt_that_was_given_up_open_what_its_late_fin_brings() {
    let plan = Plan {
        seed: 299,
        peers: 1,
        relays: 0,
        mode: Redundant,
        layer2: false,
        close_relay: false,
        retry: 0,
        homes: [Open, OpenV6, Twice { rules: 166 }, Open, Open],
        between: Quality { latency: 86, jitter: 3, loss: 214, flavour: 53 },
        to_relays: Quality { latency: 228, jitter: 242, loss: 217, flavour: 32 },
        direct: Streams,
    };
    let steps = [
        Step { wait: 84, deed: Stream { from: 175, to: 198, rate: 149, packets: 200, len: 12 } },
        Step { wait: 124, deed: Stream { from: 156, to: 25, rate: 104, packets: 68, len: 62 } },
        Step { wait: 184, deed: Move { host: 224 } },
        Step { wait: 77, deed: Stream { from: 83, to: 235, rate: 194, packets: 215, len: 182 } },
        Step { wait: 194, deed: Cut { a: 201, b: 143 } },
        Step { wait: 228, deed: Stream { from: 106, to: 253, rate: 196, packets: 93, len: 111 } },
    ];
    holds(&plan, &steps);
}

/// A clock went 52 minutes ahead between REKEY2 and the first frame under the new keys: the old ones were gone, and what was sealed with
/// them could not be opened (4.5).
#[test]
fn keys_whose_time_passed_while_a_host_slept_still_open_what_was_under_way() {
    let plan = Plan {
        seed: 4507,
        peers: 1,
        relays: 1,
        mode: Lossless,
        layer2: false,
        close_relay: false,
        retry: 0,
        homes: [Open, Open, Open, Open, Open],
        between: Quality { latency: 45, jitter: 0, loss: 0, flavour: 0 },
        to_relays: Quality { latency: 45, jitter: 0, loss: 0, flavour: 0 },
        direct: Streams,
    };
    let steps = [
        Step { wait: 23, deed: Heal { a: 200, b: 105 } },
        Step { wait: 61, deed: Move { host: 74 } },
        Step { wait: 156, deed: Move { host: 144 } },
        Step { wait: 0, deed: Jump { host: 41, minutes: 33 } },
        Step { wait: 96, deed: Calm },
        Step { wait: 0, deed: Stream { from: 215, to: 145, rate: 49, packets: 76, len: 116 } },
        Step { wait: 226, deed: Jump { host: 217, minutes: 52 } },
    ];
    holds(&plan, &steps);
}

/// A stranger dialled a peer's listener and repeated there what it had overheard on the way to a relay, handles included (6.2).
#[test]
fn a_handle_in_a_record_makes_no_relay_of_a_stranger() {
    let plan = Plan {
        seed: 3421,
        peers: 0,
        relays: 0,
        mode: Lossless,
        layer2: false,
        close_relay: false,
        retry: 0,
        homes: [Open, Open, Open, Open, Open],
        between: Quality { latency: 45, jitter: 0, loss: 0, flavour: 0 },
        to_relays: Quality { latency: 184, jitter: 21, loss: 246, flavour: 11 },
        direct: Streams,
    };
    let steps = [
        Step { wait: 178, deed: Cut { a: 84, b: 159 } },
        Step { wait: 59, deed: Stream { from: 241, to: 14, rate: 71, packets: 194, len: 59 } },
        Step { wait: 161, deed: Stranger { target: 150, how: 39 } },
    ];
    holds(&plan, &steps);
}

/// A host that moved each two seconds, its relays parked, had nowhere to go but to the next direct path: no flapping (7.5).
#[test]
fn a_move_from_a_path_that_is_gone_is_not_damped() {
    let plan = Plan {
        seed: 5_064_015_606_766_099_202,
        peers: 0,
        relays: 183,
        mode: Redundant,
        layer2: true,
        close_relay: true,
        retry: 192,
        homes: [Open, Twice { rules: 30 }, Behind { rules: 0, forwards: true }, OpenV4, OpenV6],
        between: Quality { latency: 55, jitter: 51, loss: 38, flavour: 66 },
        to_relays: Quality { latency: 84, jitter: 78, loss: 98, flavour: 115 },
        direct: Streams,
    };
    let mut steps = vec![Step { wait: 84, deed: Move { host: 175 } }];
    steps.extend([Step { wait: 175, deed: Move { host: 175 } }; 9]);
    steps.push(Step { wait: 175, deed: Crash { host: 78 } });
    steps.push(Step { wait: 65, deed: Restart { host: 158 } });
    holds(&plan, &steps);
}

/// A path by UDP died at one end while the other slept and went on using it. Asked again there, it was taken for a new one, whose requests
/// begin at 1 anew: the sleeper dropped them as old ones, and so for ever (5.4, 8.2).
#[test]
fn a_path_that_one_end_gave_up_is_made_anew() {
    let homes = [Behind { rules: 196, forwards: false }, Open, Open, Open, Open];
    let between = Quality { latency: 125, jitter: 188, loss: 157, flavour: 113 };
    let to_relays = Quality { latency: 137, jitter: 164, loss: 200, flavour: 210 };
    let plan = Plan { seed: 183, homes, between, to_relays, direct: Both, ..PLAIN };
    let steps = [
        Step { wait: 204, deed: Stream { from: 16, to: 211, rate: 224, packets: 91, len: 105 } },
        Step { wait: 0, deed: Stream { from: 233, to: 37, rate: 194, packets: 167, len: 114 } },
        Step { wait: 0, deed: Sleep { host: 84 } },
        Step { wait: 250, deed: Stream { from: 244, to: 0, rate: 176, packets: 2, len: 53 } },
    ];
    holds(&plan, &steps);
}

/// What came from another address than the one that was asked moved the path there, and padded requests followed (8.2, 8.3).
#[test]
fn padded_requests_go_where_a_small_one_was_answered() {
    let plan = Plan { seed: 85, peers: 1, homes: [Open, Open, Behind { rules: 164, forwards: false }, Open, Open], direct: Both, ..PLAIN };
    holds(&plan, &[]);
}

/// Path numbers begin anew with each session: SWITCH of a replaced one went out on a path of the next that nobody had proven (5.4).
#[test]
fn a_replaced_session_says_nothing_on_a_path_of_the_next_one() {
    let homes = [Open, Open, Twice { rules: 115 }, Open, Open];
    let between = Quality { latency: 228, jitter: 216, loss: 16, flavour: 47 };
    let to_relays = Quality { latency: 201, jitter: 113, loss: 40, flavour: 7 };
    let plan = Plan { seed: 28, peers: 1, homes, between, to_relays, direct: Both, ..PLAIN };
    holds(&plan, &[Step { wait: 232, deed: Crash { host: 70 } }]);
}

/// A path by UDP that the other end had only asked for got receipts, longer than what they answered, before it was shown to lead to it (8).
#[test]
fn a_path_that_was_only_asked_for_gets_no_receipts() {
    let between = Quality { latency: 13, jitter: 159, loss: 117, flavour: 177 };
    let to_relays = Quality { latency: 94, jitter: 95, loss: 76, flavour: 108 };
    holds(&Plan { seed: 313, peers: 1, between, to_relays, direct: Both, ..PLAIN }, &[]);
}

/// A path by UDP had lost the last frame and answered each probe, which called the stall off before that frame went again (7.5).
#[test]
fn the_last_frame_of_a_path_that_answers_goes_again() {
    let homes = [Open, Behind { rules: 41, forwards: false }, Open, Open, Open];
    let between = Quality { latency: 167, jitter: 114, loss: 248, flavour: 144 };
    let plan = Plan { seed: 1919, close_relay: true, homes, between, direct: Datagrams, ..PLAIN };
    let steps = [
        Step { wait: 97, deed: Restart { host: 139 } },
        Step { wait: 0, deed: Remap { host: 49 } },
        Step { wait: 40, deed: Leave { host: 77 } },
        Step { wait: 0, deed: Stream { from: 122, to: 175, rate: 98, packets: 20, len: 204 } },
        Step { wait: 0, deed: Heal { a: 46, b: 68 } },
    ];
    holds(&plan, &steps);
}

/// A receipt that waited while its host slept made the probe timeout as long as that: a path that was dead afterwards was not missed (7.5).
#[test]
fn a_sleep_is_no_round_trip() {
    let homes = [Open, Open, Behind { rules: 130, forwards: false }, Open, Open];
    let to_relays = Quality { latency: 122, jitter: 219, loss: 85, flavour: 158 };
    let plan = Plan { seed: 4112, peers: 1, homes, to_relays, direct: Datagrams, ..PLAIN };
    let steps = [
        Step { wait: 176, deed: Stream { from: 153, to: 20, rate: 162, packets: 105, len: 17 } },
        Step { wait: 0, deed: Sleep { host: 44 } },
        Step { wait: 209, deed: Heal { a: 145, b: 125 } },
        Step { wait: 195, deed: Stream { from: 137, to: 247, rate: 61, packets: 12, len: 184 } },
        Step { wait: 108, deed: Jump { host: 77, minutes: 159 } },
        Step { wait: 133, deed: Stream { from: 82, to: 203, rate: 8, packets: 47, len: 195 } },
        Step { wait: 152, deed: Remap { host: 242 } },
        Step { wait: 195, deed: Start { host: 239 } },
    ];
    holds(&plan, &steps);
}

/// One end asked each second on a path that it missed and the other had given up; each left the other's new path for its own (5.4, 8.2).
#[test]
fn a_missed_path_gives_way_to_one_that_the_other_end_asks_for() {
    let homes = [Open, Open, Behind { rules: 171, forwards: true }, Open, Open];
    let even = Quality { latency: 45, jitter: 0, loss: 0, flavour: 0 };
    let plan = Plan { seed: 5883, peers: 2, retry: 0, homes, between: even, to_relays: even, direct: Datagrams, ..PLAIN };
    let steps = [
        Step { wait: 62, deed: CutOneWay { from: 37, to: 62 } },
        Step { wait: 0, deed: Stream { from: 102, to: 9, rate: 218, packets: 93, len: 42 } },
        Step { wait: 220, deed: Start { host: 216 } },
        Step { wait: 249, deed: Wake { host: 190 } },
    ];
    holds(&plan, &steps);
}

/// Packets that had gone over the relay while a path was in doubt were out for as long as that takes, and the path was doubted for it again and
/// again, each time with a switch. The other end waits half a second for all of a run of switches, and gave up what came later.
#[test]
fn what_goes_over_the_relay_does_not_put_a_path_in_doubt() {
    let plan = Plan {
        seed: 25550,
        peers: 3,
        homes: [Open, Open, Open, Open, Twice { rules: 49 }],
        between: Quality { latency: 17, jitter: 94, loss: 77, flavour: 31 },
        to_relays: Quality { latency: 227, jitter: 254, loss: 242, flavour: 234 },
        direct: Both,
        ..PLAIN
    };
    holds(&plan, &[Step { wait: 166, deed: Reset { a: 177, b: 111 } }, Step { wait: 180, deed: Remap { host: 159 } }]);
}
