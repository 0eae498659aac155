//! When a new epoch seals, and how long the one before opens (protocol 4.5).
use super::*;

// protocol 4.5
#[test]
fn the_responder_seals_in_the_new_epoch_when_the_first_data_frame_of_it_comes() {
    let mut world = World::new();
    let next = chain(7).next(&[1; 32], &[2; 32], &[3; 64]);
    let keys = |side| next.keys(side, &RustCrypto);
    world.b.apply(world.now, Edit::Epoch { link: LINK, local: 20, keys: keys(Side::Responder), seal: false });
    world.a.apply(world.now, Edit::Epoch { link: LINK, local: 10, keys: keys(Side::Initiator), seal: true });
    world.packets(1);
    world.a.plane.alarm(world.now, &mut world.a.ports);
    carry(world.now, &mut world.a, &mut world.b, &[]);
    world.now = world.now + Duration::from_millis(20);
    world.b.plane.alarm(world.now, &mut world.b.ports);
    let (_, receipt) = world.b.ports.out.back().expect("a receipt");
    assert_eq!(receipt[1], 1, "sealed in epoch 1");
}

// protocol 4.5
#[test]
fn old_keys_open_for_a_minute_at_most_and_for_ten_seconds_after_a_new_frame() {
    for (new_frame, limit) in [(false, Duration::from_mins(1)), (true, Duration::from_secs(10))] {
        let mut world = World::new();
        world.packets(2);
        let held: Vec<_> = world.a.ports.out.drain(..).collect();
        let next = chain(7).next(&[1; 32], &[2; 32], &[3; 64]);
        let keys = |side| next.keys(side, &RustCrypto);
        world.b.apply(world.now, Edit::Epoch { link: LINK, local: 20, keys: keys(Side::Responder), seal: false });
        if new_frame {
            world.a.apply(world.now, Edit::Epoch { link: LINK, local: 10, keys: keys(Side::Initiator), seal: true });
            world.packets(1);
            carry(world.now, &mut world.a, &mut world.b, &[]);
        }
        for (frame, (age, refused)) in held.into_iter().zip([(limit.saturating_sub(Duration::from_millis(1)), 0), (limit, 1)]) {
            let now = world.now + age;
            world.b.plane.alarm(now, &mut world.b.ports);
            world.a.ports.out.push_back(frame);
            carry(now, &mut world.a, &mut world.b, &[]);
            assert_eq!(world.b.plane.tally().drops.get(Drop::UnknownEpoch), refused, "after {age:?}");
        }
    }
}
