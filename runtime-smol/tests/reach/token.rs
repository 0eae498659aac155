//! Relays that want an access token (protocol 2.7).
use super::*;
use shadowmesh_core::network::AccessKey;

stories! { [on_smol: support::SMOL, on_threads: support::THREADS]
    who_has_the_relays_token_is_let_in_and_nobody_else,
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
