//! Attackers before a running relay, on both runtimes: what one connection does takes nothing from another.
#[path = "../examples/siege/client.rs"]
#[expect(dead_code, reason = "the siege uses all of it")]
mod client;
#[path = "../examples/siege/raw.rs"]
mod raw;

use client::{Client, Target, forward};
use core::net::Ipv4Addr;
use raw::{Raw, frame};
use shadowmesh_core::{
    config::{HubConfig, Limits},
    crypto::{Identity, awslc::AwsLc},
    hub::HubStatus,
    id::Handle,
    wire::{TYPE_DLV, TYPE_FRAME, TYPE_INIT},
};
use shadowmesh_runtime_std::relay::{Relay, RelayOptions};
use smol::{Task, Timer, future};
use std::{io, sync::Arc, time::Duration};

const HERE: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Where attackers are: limits are by source.
const THERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);
/// Far more than any test takes; what waits longer is lost.
const PATIENCE: Duration = Duration::from_mins(1);

fn identity(n: u8) -> Arc<Identity> {
    Arc::new(Identity::from_seed([n; 32]))
}

/// Runs the story once on each runtime.
fn on_both<F: Future<Output = ()>>(limits: &Limits, story: impl Fn(Relay, Target) -> F) {
    for start in [shadowmesh_runtime_smol::relay::start, shadowmesh_runtime_std::relay::start] {
        let mut hub = HubConfig::new(identity(200), Arc::new(AwsLc));
        hub.limits = limits.clone();
        let id = hub.identity.id();
        let relay = start(RelayOptions::new(hub, "127.0.0.1:0".parse().expect("an address"))).expect("starts");
        let target = Target::new(relay.addresses()[0], id);
        smol::block_on(future::or(story(relay, target), async {
            Timer::after(PATIENCE).await;
            panic!("nothing happened for {PATIENCE:?}");
        }));
    }
}

async fn status(relay: &Relay) -> HubStatus {
    relay.status().await.expect("it runs").1
}

/// Its status when nobody is left who has proven nothing: the relay hears of an end a moment after the attacker.
async fn settled(relay: &Relay) -> HubStatus {
    loop {
        let status = status(relay).await;
        if status.preauth == 0 {
            return status;
        }
        future::yield_now().await;
    }
}

/// An attack that goes on until it is dropped, on a thread of the pool.
fn attack(work: impl Future<Output = io::Result<()>> + Send + 'static) -> Task<()> {
    smol::spawn(async move {
        // Shown out at last: all the same.
        let _ = work.await;
    })
}

/// Each of the two gets what the other one sends.
async fn exchange(a: &mut Client, b: &mut Client, number: u8) {
    let ends = [a.handle(), b.handle()];
    a.connected.writer.send(forward(ends[1], &[TYPE_FRAME, number])).await.expect("sent");
    b.connected.writer.send(forward(ends[0], &[TYPE_FRAME, number])).await.expect("sent");
    for client in [a, b] {
        loop {
            let message = client.connected.reader.next().await.expect("the connection lives");
            if message.first() == Some(&TYPE_DLV) && message.ends_with(&[TYPE_FRAME, number]) {
                break;
            }
        }
    }
}

/// Honest clients exchange frames, and others join, while a connection sends `again` without end after `first`.
fn while_one_sends(first: &[u8], again: &[u8]) {
    // the attacker proves nothing: without this limit of its time the test would end with its connection
    let limits = Limits { preauth_time: Duration::from_mins(5), ..Limits::default() };
    on_both(&limits, async |relay, target| {
        let mut a = target.join(HERE, identity(1), 1).await.expect("joins");
        let mut b = target.join(HERE, identity(2), 1).await.expect("joins");
        let mut raw = Raw::connect(&target, THERE).await.expect("connects");
        raw.upgrade().await.expect("a WebSocket");
        let (first, again) = (first.to_vec(), again.to_vec());
        let attacking = attack(async move {
            raw.write(&first).await?;
            loop {
                raw.write(&again).await?;
            }
        });
        for number in 0..20 {
            exchange(&mut a, &mut b, number).await;
        }
        target.join(HERE, identity(3), 1).await.expect("joins under siege");
        assert_eq!(status(&relay).await.preauth, 1, "the attacker is still there");
        drop(attacking);
        relay.leave().await;
    });
}

// protocol 9.4: a message in pieces without content and without an end once held the whole relay for as long as they came
#[test]
fn a_message_without_an_end_takes_turns_with_others() {
    while_one_sends(&frame(0x02, &[]), &frame(0x00, &[]).repeat(5_000));
}

// protocol 9.4: so did pings
#[test]
fn pings_without_an_end_take_turns_with_others() {
    while_one_sends(&frame(0x89, b"x"), &frame(0x89, b"x").repeat(5_000));
}

// protocol 9.4
#[test]
fn when_all_places_are_taken_the_oldest_gives_way() {
    let limits = Limits { preauth_total: 4, preauth_per_source: 4, preauth_time: Duration::from_mins(5), ..Limits::default() };
    on_both(&limits, async |relay, target| {
        let mut silent = Vec::new();
        for n in 0..6 {
            let mut raw = Raw::connect(&target, Ipv4Addr::new(127, 0, 0, 20 + n)).await.expect("connects");
            let hello = raw.hello();
            raw.write_plain(&hello[..100]).await.expect("sent");
            silent.push(raw);
        }
        target.join(HERE, identity(1), 1).await.expect("joins, though others hold all places");
        let status = status(&relay).await;
        assert_eq!((status.preauth, status.dropped("preauth_total"), status.handshakes_failed), (3, 3, 3));
        for gone in &silent[..3] {
            gone.until_closed().await;
        }
        relay.leave().await;
    });
}

// protocol 9.4
#[test]
fn one_deadline_ends_who_is_slow_in_tls_in_the_upgrade_and_in_init() {
    let limits = Limits { preauth_time: Duration::from_millis(400), ..Limits::default() };
    on_both(&limits, async |relay, target| {
        let mut in_tls = Raw::connect(&target, THERE).await.expect("connects");
        let hello = in_tls.hello();
        in_tls.write_plain(&hello[..100]).await.expect("sent");
        let mut in_upgrade = Raw::connect(&target, THERE).await.expect("connects");
        in_upgrade.handshake().await.expect("TLS");
        in_upgrade.write(b"GET / HTTP/1.1\r\n").await.expect("sent");
        let mut in_init = Raw::connect(&target, THERE).await.expect("connects");
        in_init.upgrade().await.expect("a WebSocket");
        in_init.write(&frame(0x02, &[TYPE_INIT])).await.expect("sent");
        for slow in [&in_tls, &in_upgrade, &in_init] {
            slow.until_closed().await;
        }
        let status = settled(&relay).await;
        assert_eq!((status.dropped("preauth_time"), status.handshakes_answered), (3, 0));
        relay.leave().await;
    });
}

// protocol 9.4
#[test]
fn tls_that_is_longer_than_it_needs_to_be_is_ended() {
    on_both(&Limits::default(), async |relay, target| {
        let mut raw = Raw::connect(&target, THERE).await.expect("connects");
        raw.handshake().await.expect("TLS");
        // a header of HTTP that goes on and on, in portions that look busy
        for _ in 0..40 {
            if raw.write(&[b'a'; 1_024]).await.is_err() {
                break;
            }
        }
        raw.until_closed().await;
        let status = settled(&relay).await;
        assert_eq!((status.handshakes_failed, status.dropped("preauth_time")), (1, 0));
        relay.leave().await;
    });
}

// protocol 3.8, 9.4
#[test]
fn inits_with_a_wrong_mac1_cost_no_arithmetic() {
    on_both(&Limits::default(), async |relay, target| {
        let mut raw = Raw::connect(&target, THERE).await.expect("connects");
        raw.upgrade().await.expect("a WebSocket");
        let mut init = vec![0x5a; 1_654];
        init[0] = TYPE_INIT;
        for _ in 0..30 {
            if raw.write(&frame(0x82, &init)).await.is_err() {
                break;
            }
        }
        raw.until_closed().await;
        let status = settled(&relay).await;
        let counts = ["bad_hello", "preauth_bytes"].map(|reason| status.dropped(reason));
        assert_eq!((counts, status.handshakes_answered), ([19, 1], 0), "32 KiB of them");
        relay.leave().await;
    });
}

// protocol 9.4
#[test]
fn a_flood_of_small_records_to_nobody_takes_turns_with_others() {
    on_both(&Limits::default(), async |relay, target| {
        let mut a = target.join(HERE, identity(1), 1).await.expect("joins");
        let mut b = target.join(HERE, identity(2), 1).await.expect("joins");
        let mut attacking = Vec::new();
        for n in 0..3 {
            let mut hostile = target.join(THERE, identity(10 + n), 1).await.expect("joins");
            let records = forward(Handle(0x7fff_ffff), &[TYPE_FRAME]).repeat(6_000);
            attacking.push(attack(async move {
                while hostile.connected.writer.send(records.clone()).await.is_ok() {}
                Ok(())
            }));
        }
        for number in 0..20 {
            exchange(&mut a, &mut b, number).await;
        }
        assert!(status(&relay).await.dropped("unknown_handle") > 0);
        drop(attacking);
        relay.leave().await;
    });
}
