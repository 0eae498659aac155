//! An identity that gives way to another one, among peers that list their members.

use crate::alone::identity;
use crate::mesh::{Peer, Relay, list, overlay};
use crate::stream::Stream;
use crate::world::World;
use crate::{Scenario, scenario};
use serde_json::Value;
use std::fs;
use std::time::Duration;

pub(crate) fn all() -> Vec<Scenario> {
    vec![scenario("a_new_identity_takes_its_place", a_new_identity_takes_its_place)]
}

fn a_new_identity_takes_its_place(world: &World) {
    let relay = Relay::new(world, &world.host("relay"));
    let [a, b, thief] = ["a", "b", "thief"].map(|name| world.host(name));
    let old = identity(world, &a);
    // whoever has the old key has it from here
    fs::copy(world.folder(&a.name).join("identity.key"), world.folder(&thief.name).join("identity.key")).expect("a key and a folder");
    let file = world.folder(&b.name).join("peer.toml");
    let address = overlay(1);
    fs::write(&file, format!("[[peer]]\nid = \"{old}\"\nname = \"ann\"\nallowed = [\"{address}/32\"]\n")).expect("its folder is there");
    let config = file.display().to_string();
    let mut a = Peer::start_with(world, &a, &relay.token, 1, |options| options);
    let mut b = Peer::start_with(world, &b, &relay.token, 2, |options| options.with(&["--config", &config]));
    b.until_path("ann", "direct");
    a.until_path("b", "direct");
    let derived = a.derived_address().to_string();

    // under traffic
    let between = |a: &Peer, b: &Peer| Stream::start((&a.host, overlay(1).into()), (&b.host, overlay(2).into()));
    let stream = between(&a, &b);
    stream.wait_for_more(world, 200);
    let rotated: Value = serde_json::from_str(&said(&a, &["id", "rotate", "--json"])).expect("JSON");
    assert_eq!((&rotated["old"], &rotated["running"], &rotated["was_there"]), (&old.clone().into(), &true.into(), &false.into()));
    let new = rotated["new"].as_str().expect("an id").to_owned();
    a.until("b knows it", Duration::from_secs(10), |status| {
        status["succession"]["id"] == new.as_str() && list(&status["succession"], "untold").is_empty()
    });
    assert!(said(&a, &["status"]).contains(&format!("{new} follows at the next start; all who were here")), "people see it, too");
    assert!(said(&a, &["id", "rotate"]).contains("as was prepared before"), "asked twice is once");
    stream.wait_for_more(world, 200);
    stream.finish_perfect();

    // the next start
    said(&a, &["down"]);
    assert!(a.process().end_within(Duration::from_secs(10)).success(), "{}", a.said());
    a.start_again();
    let takes = |b: &mut Peer, new: &str| {
        let status = b.until("the new one is ann", Duration::from_secs(20), |status| {
            list(status, "peers").iter().any(|peer| peer["id"] == new && peer["name"] == "ann" && peer["state"] == "connected")
        });
        let known = list(&status, "peers").iter().find(|peer| peer["id"] == new).expect("just seen");
        let addresses: Vec<_> = list(known, "addresses").iter().filter_map(Value::as_str).collect();
        assert!(addresses.contains(&address.to_string().as_str()) && addresses.contains(&derived.as_str()), "{known:#}");
        assert!(list(known, "refused").is_empty(), "{known:#}");
    };
    takes(&mut b, &new);
    let status = a.until("a is the new one", Duration::from_secs(10), |status| status["id"] == new.as_str());
    assert_eq!(status["succession"], Value::Null, "it has taken effect");
    for meant in ["ann", &derived, &new] {
        said(&b, &["ping", meant, "-c", "1", "--timeout", "10s"]);
    }
    let status = b.status().expect("b runs");
    assert_eq!((list(&status, "peers").len(), list(&status, "warnings").len()), (1, 0), "it is one peer, and well: {status:#}");
    let stream = between(&a, &b);
    stream.wait_for_more(world, 200);
    stream.finish_perfect();

    // the old key opens nothing any more, also after a restart of b
    let mut thief = Peer::start_with(world, &thief, &relay.token, 3, |options| options);
    assert_eq!(thief.until_relay()["id"], old.as_str(), "it has the old key");
    let refused = |thief: &Peer| {
        let waited = thief.ask(&["wait", "b", "--timeout", "3s"]);
        assert_eq!(waited.status.code(), Some(1), "{}", waited.text());
    };
    refused(&thief);
    said(&b, &["down"]);
    assert!(b.process().end_within(Duration::from_secs(10)).success(), "{}", b.said());
    b.start_again();
    takes(&mut b, &new);
    refused(&thief);
    let status = b.status().expect("b runs");
    let connected: Vec<_> = list(&status, "peers").iter().filter(|peer| peer["state"] == "connected").map(|peer| &peer["id"]).collect();
    assert_eq!(connected, [new.as_str()], "{status:#}");
}

/// What a command printed that has to succeed.
fn said(peer: &Peer, arguments: &[&str]) -> String {
    let output = peer.ask(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", output.text());
    output.stdout
}
