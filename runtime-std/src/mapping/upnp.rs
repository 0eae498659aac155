//! Ports by UPnP-IGD. All of this blocks, so it runs on threads of its own; only the default gateway itself is spoken to.
//!
//! ```text
//!   M-SEARCH to the group and to the gateway ─▶ LOCATION ─GET─▶ description: services ─POST─▶ GetExternalIPAddress, AddPortMapping …
//! ```
mod text;

use core::{
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4},
    time::Duration,
};
use shadowmesh_core::wire::Transport;
use std::{
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    time::Instant,
};
use text::{Service, Url};

/// Devices answer at some time within 2 s.
const SEARCH_TIME: Duration = Duration::from_millis(2_500);
/// One request to the router and its answer.
const REQUEST_TIME: Duration = Duration::from_secs(3);
/// Descriptions of routers have some 10 KB.
const LONGEST_ANSWER: u64 = 256 * 1024;
/// What a router shows of a mapping to its owner.
const DESCRIPTION: &str = "shadowmesh";
/// Ports outside that are tried, when the one of inside is somebody else's there.
const TRIES: u16 = 4;
/// Errors of `AddPortMapping` (`WANIPConnection` 2.4.16): somebody else has the port; a mapping is for ever or not at all.
const CONFLICT: &str = "718";
const ONLY_PERMANENT: &str = "725";

/// A router that speaks `UPnP-IGD`.
#[derive(Clone)]
pub(crate) struct Device {
    own: Ipv4Addr,
    router: Ipv4Addr,
    service: Service,
}

impl Device {
    /// Looks for it at the default gateway, and gives its address outside.
    ///
    /// # Errors
    /// A sentence: it does not answer, or has nothing to map ports with.
    pub(crate) fn find(own: Ipv4Addr, router: Ipv4Addr) -> Result<(Self, IpAddr), String> {
        let described_at = search(own, router)?;
        let (status, description) = exchange(&described_at, &text::get(&described_at))?;
        if status != 200 {
            return Err(format!("its description is not to be had: HTTP status {status}"));
        }
        let mut last = "it has nothing to map ports with".to_owned();
        for service in text::services(&description, &described_at) {
            let device = Self { own, router, service };
            match device.external() {
                Ok(address) => return Ok((device, address)),
                Err(why) => last = why,
            }
        }
        Err(last)
    }

    /// Whether this is the router there, as seen from this address of ours.
    pub(crate) fn is_at(&self, own: IpAddr, router: IpAddr) -> bool {
        (IpAddr::V4(self.own), IpAddr::V4(self.router)) == (own, router)
    }

    /// Its address outside.
    ///
    /// # Errors
    /// A sentence: it has none, or does not say.
    pub(crate) fn external(&self) -> Result<IpAddr, String> {
        let answer = self.call("GetExternalIPAddress", &[])?;
        let address = text::element(&answer, "NewExternalIPAddress").and_then(|text| text.parse().ok());
        address.filter(|address: &IpAddr| !address.is_unspecified()).ok_or_else(|| "it has no address outside".to_owned())
    }

    /// Asks for a port, or renews one; gives the one outside.
    ///
    /// # Errors
    /// A sentence: it will not.
    pub(crate) fn map(&self, transport: Transport, internal: u16, had: Option<u16>, lifetime_s: u32) -> Result<u16, String> {
        let mut last = String::new();
        for external in had.into_iter().chain((0..TRIES).map(|step| internal.wrapping_add(step * 7).max(1_024))) {
            let mut result = self.add(transport, internal, external, lifetime_s);
            if result.as_ref().is_err_and(|why| why == ONLY_PERMANENT) {
                result = self.add(transport, internal, external, 0);
            }
            match result {
                Ok(()) => return Ok(external),
                Err(why) if why == CONFLICT => last = why,
                Err(why) => return Err(format!("it maps no port: {why}")),
            }
        }
        Err(format!("it maps no port: {last}"))
    }

    fn add(&self, transport: Transport, internal: u16, external: u16, lifetime_s: u32) -> Result<(), String> {
        let arguments = [
            ("NewRemoteHost", String::new()),
            ("NewExternalPort", external.to_string()),
            ("NewProtocol", protocol(transport).to_owned()),
            ("NewInternalPort", internal.to_string()),
            ("NewInternalClient", self.own.to_string()),
            ("NewEnabled", "1".to_owned()),
            ("NewPortMappingDescription", DESCRIPTION.to_owned()),
            ("NewLeaseDuration", lifetime_s.to_string()),
        ];
        self.call("AddPortMapping", &arguments).map(drop)
    }

    /// Gives a port back.
    pub(crate) fn give_back(&self, transport: Transport, external: u16) {
        let arguments =
            [("NewRemoteHost", String::new()), ("NewExternalPort", external.to_string()), ("NewProtocol", protocol(transport).to_owned())];
        if let Err(why) = self.call("DeletePortMapping", &arguments) {
            tracing::debug!(why, "the router keeps a port");
        }
    }

    /// The body of the answer; an error is `UPnP`'s own number, or a sentence.
    fn call(&self, action: &str, arguments: &[(&str, String)]) -> Result<String, String> {
        let (status, body) = exchange(&self.service.control, &text::call(&self.service, action, arguments))?;
        if status == 200 {
            return Ok(body);
        }
        let code = text::element(&body, "errorCode").filter(|code| !code.is_empty() && code.bytes().all(|byte| byte.is_ascii_digit()));
        Err(code.map_or_else(|| format!("HTTP status {status}"), str::to_owned))
    }
}

/// Where the default gateway describes itself. Whatever others answer is not looked at.
fn search(own: Ipv4Addr, router: Ipv4Addr) -> Result<Url, String> {
    let failed = |why: std::io::Error| format!("it cannot be searched: {why}");
    // The kernel sends to the group where our address is.
    let socket = UdpSocket::bind((own, 0)).map_err(failed)?;
    let mut sent = Err(std::io::ErrorKind::NetworkUnreachable.into());
    for at in [text::SEARCH_AT, SocketAddrV4::new(router, text::SEARCH_AT.port())] {
        for kind in text::SEARCHED {
            sent = socket.send_to(text::search(kind).as_bytes(), at).or(sent);
        }
    }
    sent.map_err(failed)?;
    let end = Instant::now() + SEARCH_TIME;
    let mut buffer = [0; 2_048];
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        socket.set_read_timeout(Some(left)).map_err(failed)?;
        let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
        if from.ip() != IpAddr::V4(router) {
            continue;
        }
        let location = text::location(&String::from_utf8_lossy(&buffer[..len])).filter(|url| *url.at.ip() == router);
        if let Some(location) = location {
            return Ok(location);
        }
    }
    Err("it does not answer".to_owned())
}

/// One request and its answer: status and body.
fn exchange(url: &Url, request: &str) -> Result<(u16, String), String> {
    let failed = |why: std::io::Error| format!("it does not answer: {why}");
    let end = Instant::now() + REQUEST_TIME;
    let mut stream = TcpStream::connect_timeout(&SocketAddr::V4(url.at), REQUEST_TIME).map_err(failed)?;
    stream.set_write_timeout(Some(REQUEST_TIME)).map_err(failed)?;
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()).ok_or("it does not answer in time")?;
        stream.set_read_timeout(Some(left)).map_err(failed)?;
        let len = stream.read(&mut buffer).map_err(failed)?;
        bytes.extend_from_slice(&buffer[..len]);
        if bytes.len() as u64 > LONGEST_ANSWER {
            return Err("it says more than a router has to say".to_owned());
        }
        if let Some(answer) = text::answer(&bytes, len == 0) {
            return Ok(answer);
        }
        if len == 0 {
            return Err("it answers something that is not HTTP".to_owned());
        }
    }
}

fn protocol(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "UDP",
        Transport::Wss => "TCP",
    }
}

#[cfg(test)]
#[path = "upnp/tests.rs"]
mod tests;
