//! From settings to what the runtime is started with.
use crate::{
    Failure,
    config::{
        Listed, Settings,
        parse::{InterfaceMode, TransportChoice},
    },
    credentials,
    userspace::{self, Ends},
};
use shadowmesh_core::{
    config::{Member, NodeConfig, Transports, Tuning},
    crypto::Identity,
    id::PeerId,
    network::Network,
    session::Suite,
    succession::Followers,
};
use shadowmesh_runtime_std::{
    journal::JournalFile,
    peer::{Interface, PeerOptions},
};
use std::{net::IpAddr, sync::Arc};

/// How patient the peer is, where that changes while it runs.
pub(crate) fn tuning(settings: &Settings) -> Tuning {
    Tuning {
        retry_interval: settings.retry_interval,
        health_check_interval: settings.health_check_interval,
        connect_timeout: settings.connect_timeout,
        close_relay: settings.close_relay,
    }
}

/// The suites that this machine offers, or what to do where those that are configured leave none.
pub(crate) fn suites(offered: Vec<Suite>) -> Result<Vec<Suite>, Failure> {
    let why =
        "crypto.suites: this machine does not compute aes-256-gcm in hardware, and no other suite is named; add \"chacha20-poly1305\"";
    if offered.is_empty() { Err(Failure::usage(why)) } else { Ok(offered) }
}

/// The options of a peer, and our end of its interface where no device of the kernel is that.
pub(crate) fn options(
    settings: &Settings,
    suites: Vec<Suite>,
    identity: Identity,
    network: Network,
    (claims, followers): (Vec<(IpAddr, PeerId)>, Followers),
    journal: Option<JournalFile>,
) -> (PeerOptions, Option<Ends>) {
    let layer2 = settings.interface_mode == InterfaceMode::Tap;
    let mac = layer2.then(|| network.mac_address(identity.id()));
    let node = NodeConfig {
        identity: Arc::new(identity),
        crypto: credentials::provider(),
        network,
        name: settings.name.clone(),
        suites,
        layer2,
        mtu: settings.mtu,
        addresses: settings.addresses.clone(),
        direct: Transports {
            udp: settings.transports.contains(&TransportChoice::Udp),
            wss: settings.transports.contains(&TransportChoice::Wss),
        },
        relay_udp: settings.relay_udp,
        rekey_interval: settings.rekey_interval,
        retry_interval: settings.retry_interval,
        health_check_interval: settings.health_check_interval,
        connect_timeout: settings.connect_timeout,
        close_relay: settings.close_relay,
        mode: settings.mode,
        advertise: settings.advertise.clone(),
        members: members(settings),
        revoked: settings.revoked.clone(),
        claims,
        followers,
        lanes: 1,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let (interface, ends) = if settings.interface_mode == InterfaceMode::Userspace {
        let (interface, ends) = userspace::interface(settings.mtu);
        (interface, Some(ends))
    } else {
        let (name, addresses) = (settings.interface_name.clone(), node.overlay_addresses());
        // frames of Ethernet are no flows: a broadcast goes to everybody
        let queues = if layer2 { 1 } else { settings.queues };
        (Interface::Device { name, layer2, mtu: settings.mtu, addresses, mac, queues }, None)
    };
    let options = PeerOptions {
        node,
        interface,
        listen_tcp: settings.listen_tcp,
        listen_udp: settings.listen_udp,
        port_mapping: settings.port_mapping,
        proxies: settings.proxies.clone(),
        cert_lifetime: settings.cert_lifetime,
        journal,
    };
    (options, ends)
}

/// `[[peer]]` as the node wants it.
pub(crate) fn members(settings: &Settings) -> Vec<Member> {
    let member =
        |peer: &Listed| Member { id: peer.id, name: peer.name.clone(), allowed: peer.allowed.clone(), endpoints: peer.endpoints.clone() };
    settings.peers.iter().map(member).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // protocol 3.7
    #[test]
    fn a_machine_without_hardware_for_the_only_suite_that_is_named_says_what_to_name() {
        let failure = suites(Vec::new()).expect_err("no suite is left");
        assert_eq!((failure.code, failure.to_string().contains("add \"chacha20-poly1305\"")), (2, true), "{failure}");
        assert_eq!(suites(vec![Suite::ChaCha20Poly1305]).ok(), Some(vec![Suite::ChaCha20Poly1305]));
    }
}
