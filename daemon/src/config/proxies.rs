//! `network.proxy`: what lies between this peer and its relays. Where nobody says so, what other programs on this machine go by.
use super::{Failure, Raw, Taker, parse};
use shadowmesh_runtime_std::tunnel::{HttpProxy, Proxies};
use std::sync::Arc;

/// The proxy and the hosts that are reached without it; and why the one that other programs go by is none for us.
pub(super) fn understand(take: &mut Taker<'_>) -> Result<(Proxies, Option<String>), Failure> {
    let asked = take.optional("network.proxy", value)?;
    let customary = take.layers.customary.clone();
    let not_for = customary.no_proxy;
    if let Some((proxy, _)) = asked {
        return Ok((Proxies { proxy: proxy.map(Arc::new), not_for, not_for_local: false }, None));
    }
    let Some((variable, text)) = customary.proxy else { return Ok((Proxies::default(), None)) };
    match text.parse::<HttpProxy>() {
        Ok(proxy) => {
            take.show("network.proxy", format!("\"{proxy}\""), variable.to_owned());
            // what is on this machine or in its own network is no matter for a proxy, which may not even know it
            Ok((Proxies { proxy: Some(Arc::new(proxy)), not_for, not_for_local: true }, None))
        }
        Err(why) => Ok((
            Proxies::default(),
            Some(format!("{variable}: {why}; relays are dialled without a proxy, and network.proxy may name another")),
        )),
    }
}

/// A proxy, or `off`. What was written is not said again: there may be a password in it.
fn value(raw: &Raw) -> Result<Option<HttpProxy>, String> {
    match parse::text(raw) {
        Ok(text) if text == "off" => Ok(None),
        Ok(text) => text.parse().map(Some).map_err(|why: String| format!("{why}, or \"off\"")),
        Err(_) => Err("this is no proxy; write it like \"http://proxy.example:3128\", or \"off\"".to_owned()),
    }
}

/// As it may be shown.
pub(super) fn shown(raw: &Raw) -> String {
    match value(raw) {
        Ok(Some(proxy)) => format!("\"{proxy}\""),
        _ => "\"off\"".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Given, Layers, Source, raw::Customary};
    use std::collections::BTreeMap;

    fn layers(key: Option<&str>, variables: &[(&str, &str)]) -> Layers {
        let variables: BTreeMap<_, _> = variables.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        let flag = |text: &str| Given { key: "network.proxy", raw: Raw::Text(text.to_owned()), source: Source::Flag("--network-proxy") };
        Layers { flags: key.map(flag).into_iter().collect(), customary: Customary::of(&variables), ..Layers::default() }
    }

    fn way(layers: &Layers, url: &str) -> Option<String> {
        config::settings(layers).expect("good").proxies.on_the_way_to(url)
    }

    const RELAY: &str = "wss://relay.example:443";
    const LOCAL: &str = "wss://127.0.0.1:8443";

    #[test]
    fn the_key_goes_before_what_other_programs_go_by() {
        let custom = [("HTTPS_PROXY", "http://custom:1"), ("ALL_PROXY", "http://all:1"), ("NO_PROXY", "inside.example")];
        assert_eq!(way(&layers(None, &[]), RELAY), None);
        assert_eq!(way(&layers(None, &custom), RELAY).as_deref(), Some("http://custom:1"));
        assert_eq!(way(&layers(None, &[("https_proxy", ""), ("ALL_PROXY", "all:3")]), RELAY).as_deref(), Some("http://all:3"));
        assert_eq!(way(&layers(None, &[("https_proxy", "small:1"), custom[0]]), RELAY).as_deref(), Some("http://small:1"));
        assert_eq!(way(&layers(Some("http://key:1"), &custom), RELAY).as_deref(), Some("http://key:1"));
        assert_eq!(way(&layers(Some("off"), &custom), RELAY), None);
        for key in [None, Some("http://key:1")] {
            assert_eq!(way(&layers(key, &custom), "wss://relay.inside.example:443"), None, "NO_PROXY counts for both");
        }
        assert_eq!(way(&layers(None, &custom), LOCAL), None, "what is on this machine");
        assert_eq!(way(&layers(Some("http://key:1"), &custom), LOCAL).as_deref(), Some("http://key:1"), "who says so means it");
    }

    #[test]
    fn a_password_is_not_shown_and_its_change_is_noticed() {
        let [one, other] = ["http://me:s3cret@proxy:3128", "http://me:other@proxy:3128"]
            .map(|text| config::settings(&layers(Some(text), &[])).expect("good"));
        let shown = one.shown.iter().find(|shown| shown.key == "network.proxy").expect("shown");
        assert_eq!((shown.text.as_str(), shown.source.as_str()), ("\"http://***@proxy:3128\"", "--network-proxy"));
        assert_eq!(one.fixed_that_differ(&other), ["network.proxy"]);
        assert!(!format!("{one:?}").contains("s3cret"));
        let custom = config::settings(&layers(None, &[("HTTPS_PROXY", "http://me:s3cret@proxy:3128")])).expect("good");
        let shown = custom.shown.iter().find(|shown| shown.key == "network.proxy").expect("shown");
        assert_eq!((shown.text.as_str(), shown.source.as_str()), ("\"http://***@proxy:3128\"", "HTTPS_PROXY"));
    }

    #[test]
    fn a_proxy_of_other_programs_that_is_none_for_us_is_told_and_no_mistake() {
        let settings = config::settings(&layers(None, &[("ALL_PROXY", "socks5://proxy:1080")])).expect("good");
        assert_eq!(settings.proxies, Proxies::default());
        assert!(settings.unusable_proxy.is_some_and(|why| why.contains("ALL_PROXY: SOCKS") && why.contains("network.proxy")));
        let wrong = config::settings(&layers(Some("socks5://me:s3cret@proxy:1080"), &[])).map(drop).expect_err("a mistake").to_string();
        assert!(wrong.contains("--network-proxy: network.proxy: SOCKS") && !wrong.contains("s3cret"), "{wrong}");
    }
}
