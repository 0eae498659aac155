//! What is needed to make the same machine again. The identity's seed and the network's secret are in it.
use super::codec::{Field, record};
use crate::{
    config::{Access, HubConfig, Limits, Member, NodeConfig, Transports},
    crypto::{Identity, Provider, rustcrypto::RustCrypto},
    network::{AccessKey, Network, RelayAddress},
    succession::{Followers, STATEMENT_LEN, Statement, Succession},
    wire::{Malformed, Reader},
};
use std::sync::Arc;
use zeroize::Zeroizing;

record!(NodeConfig {
    identity,
    crypto,
    network,
    name,
    suites,
    layer2,
    mtu,
    addresses,
    direct,
    rekey_interval,
    retry_interval,
    health_check_interval,
    connect_timeout,
    relay_udp,
    close_relay,
    mode,
    advertise,
    members,
    revoked,
    claims,
    followers,
    version,
    lanes,
});
record!(Network { secret, name, relays });
record!(RelayAddress { url, id, access });
record!(Transports { udp, wss });
record!(Member { id, name, allowed, endpoints });
record!(HubConfig { identity, crypto, suites, limits, access, keepalive, udp_ports });
record!(Access { allow, deny, peers, keys });
record!(Limits {
    frame_bytes,
    control_bytes,
    preauth_time,
    preauth_bytes,
    preauth_total,
    preauth_per_source,
    joins_per_second,
    join_burst,
    queue_frames,
    queue_bytes,
    queue_total_bytes,
    stall_time,
    handshakes_per_second,
    handshake_burst,
    half_open_total,
    client_bytes_per_second,
    client_frames_per_second,
    bytes_per_second,
    frames_per_second,
    clients,
    refuse_time,
    memory,
});

record!(Succession { old, new, proven });

impl Field for Statement {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.bytes());
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::parse(from.bytes(STATEMENT_LEN, "succession")?)
    }
}

impl Field for Followers {
    fn put(&self, out: &mut Vec<u8>) {
        self.own().to_vec().put(out);
        self.remembered().put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let own = Field::take(from)?;
        let remembered: Vec<Succession> = Field::take(from)?;
        Ok(Self::new(own, &remembered))
    }
}

impl Field for AccessKey {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Field::take(from).map(Self)
    }
}

impl Field for Arc<Identity> {
    fn put(&self, out: &mut Vec<u8>) {
        self.seed().put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let seed = Zeroizing::new(from.array("identity")?);
        Ok(Self::new(Identity::from_seed(*seed)))
    }
}

/// The name of the back end, for people. A replay uses the portable one: what a machine itself computes is the same with each,
/// and the results of jobs are in the journal.
impl Field for Arc<dyn Provider> {
    fn put(&self, out: &mut Vec<u8>) {
        self.name().to_owned().put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        String::take(from)?;
        Ok(Arc::new(RustCrypto))
    }
}
