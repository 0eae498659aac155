//! Relays that want an access token (protocol 2.7).
use super::*;
use futures_lite::AsyncReadExt;
use shadowmesh_core::{
    config::{Access, Limits},
    network::AccessKey,
};
use shadowmesh_runtime_std::relay::Live;
use smol::net::TcpStream;

stories! { [on_smol: support::SMOL, on_threads: support::THREADS]
    who_has_the_relays_token_is_let_in_and_nobody_else,
    a_token_is_replaced_while_the_relay_runs,
}

fn a_token_is_replaced_while_the_relay_runs(on: Runtime) {
    let [old, new] = ["the old token of this relay", "the new token of this relay"].map(AccessKey::of);
    let relay = relay(on, |options| options.hub.access.keys = vec![old.clone()]);
    story(async {
        let with = |number, access: &AccessKey| {
            peer(on, number, &at(&relay), |options| options.node.network.relays[0].access = Some(access.clone()))
        };
        let early = with(1, &old);
        connected(&early).await;
        let limits = Limits { preauth_per_source: 2, preauth_time: Duration::from_secs(2), ..Limits::default() };
        let access = Access { keys: vec![new.clone()], ..Access::default() };
        relay.configure(Live { limits: limits.clone(), access: access.clone(), trusted_proxies: Vec::new() }).await;
        let late = with(2, &new);
        connected(&late).await;
        assert!(refused(&with(3, &old)).await.contains("access token"));
        let mute = TcpStream::connect(relay.addresses()[0]).await.expect("it listens");
        let (mut heard, mut byte) = (mute.clone(), [0]);
        assert!(!matches!(heard.read(&mut byte).await, Ok(1..)), "the new preauth_time holds in TLS already");
        let (_, status) = relay.status().await.expect("the relay runs");
        assert_eq!((status.clients.len(), status.dropped("preauth_time")), (2, 1), "who was in stays");
        let notes = early.notes(); // its next attempt is refused for another reason
        relay.configure(Live { limits, access: Access { peers: vec![late_id()], ..access }, trusted_proxies: Vec::new() }).await;
        assert!(lost(&early, notes).await.contains("listed identities only"));
        connected(&late).await;
    });
}

fn late_id() -> PeerId {
    Identity::from_seed([2; 32]).id()
}

fn who_has_the_relays_token_is_let_in_and_nobody_else(on: Runtime) {
    let key = AccessKey::of("the token of this relay");
    let relay = relay(on, |options| options.hub.access.keys = vec![key.clone()]);
    story(async {
        let with =
            |number, access: Option<AccessKey>| peer(on, number, &at(&relay), |options| options.node.network.relays[0].access = access);
        let member = with(1, Some(key.clone()));
        connected(&member).await;
        for (number, access) in [(2, None), (3, Some(AccessKey::of("a guess")))] {
            let stranger = with(number, access);
            let why = refused(&stranger).await;
            assert!(why.contains("the relay refused us: it wants an access token") && why.contains("--relay-token"), "{why}");
            stranger.leave().await;
        }
        let (_, status) = relay.status().await.expect("the relay runs");
        assert!(status.dropped("access_denied") >= 2 && status.clients.len() == 1);
        member.leave().await;
    });
}
