//! What the running peer answers: on the control socket and on the metrics port.
use super::observer::Observer;
use crate::{
    capture::record,
    config::parse::TransportChoice,
    control::{Answer, Capturing, Pinged, Reply, Request, Waited},
    credentials,
    explain::Explanation,
    logs::Levels,
    names::table::Names,
    netcheck,
    resolve::{Unresolved, listed_name, resolve},
    rotate::Rotated,
    status::{self, Facts, PeerReport, Report},
    userspace::{Resolve, Resolved, Target},
    warnings::{self, Known},
};
use serde::Serialize;
use shadowmesh_core::{id::PeerId, status::Status, time::Instant, wire::PathLabel};
use shadowmesh_runtime_smol::{control, http::Response};
use shadowmesh_runtime_std::{
    identity::KeyPlace,
    peer::{Peer, Wanted},
};
use smol::{Timer, future, stream::Stream};
use std::{
    cell::RefCell,
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::Duration,
};

/// The longest that a ping may ask to wait; the client's own limit is above it.
const MAX_PING_WAIT: Duration = Duration::from_secs(5);
/// The longest wait for something to happen; the client's own limit is above it.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// Bytes in an overlay ping, as `ping` has by custom.
const PING_BYTES: usize = 56;

/// The running peer and what is known about it.
pub(crate) struct Service {
    /// The peer.
    pub(crate) peer: Peer,
    /// What it told so far.
    pub(crate) observer: Rc<RefCell<Observer>>,
    /// What the node does not know.
    pub(crate) facts: Facts,
    /// Names from `[[peer]]`.
    pub(crate) listed: RefCell<Vec<(String, PeerId)>>,
    /// `p2p.transports`.
    pub(crate) transports: Vec<TransportChoice>,
    /// Where our own identity is.
    pub(crate) identity: KeyPlace,
    /// Why files of the state directory could not be written last time, by their names.
    pub(crate) state_faults: RefCell<BTreeMap<&'static str, String>>,
    /// The log's.
    pub(crate) levels: Levels,
    /// Tells the main task to leave.
    pub(crate) leave: flume::Sender<()>,
}

impl Service {
    /// One control request and what it gets.
    pub(crate) async fn answer(&self, line: String) -> control::Answer {
        match serde_json::from_str(&line) {
            Ok(Request::Capture { snaplen, peer }) => match self.capture(snaplen, peer.as_deref()).await {
                Ok((capturing, records)) => control::Answer::Stream(answer(Ok(capturing)), Box::pin(records)),
                Err(why) => answer::<()>(Err(why)).into(),
            },
            request => self.line(request).await.into(),
        }
    }

    /// A request that one line answers.
    async fn line(&self, request: serde_json::Result<Request>) -> String {
        match request {
            Ok(Request::Status {}) => answer(self.report().await.map(|(report, _, _)| report)),
            Ok(Request::Metrics {}) => answer(self.metrics().await),
            Ok(Request::Ping { peer, wait_ms }) => answer(self.ping(&peer, wait_ms).await),
            Ok(Request::Peer { peer }) => answer(self.peer(&peer).await.map(|(peer, _, _)| peer)),
            Ok(Request::Wait { peer, direct, wait_ms }) => answer(self.wait(peer.as_deref(), direct, wait_ms).await),
            Ok(Request::LogLevel { level }) => answer(self.log_level(level.as_deref())),
            Ok(Request::RecentLog {}) => answer(Ok(self.levels.recent())),
            Ok(Request::Explain { peer }) => answer(self.explain(&peer).await),
            Ok(Request::Rotate {}) => answer(self.rotate().await),
            Ok(Request::Netcheck {}) => {
                let uses_udp = self.transports.contains(&TransportChoice::Udp);
                answer(netcheck::look(&self.peer, "peer", uses_udp, Some(self.facts.interface_name.clone())).await)
            }
            Ok(Request::Leave {}) => {
                // The main task takes the first wish to leave; the connection ends when everything is tidied up.
                let _ = self.leave.try_send(());
                future::pending().await
            }
            Ok(Request::Capture { .. }) => unreachable!("a stream answers it"),
            Err(error) => answer::<()>(Err(format!("unknown request: {error}"))),
        }
    }

    /// One request at the metrics port.
    pub(crate) async fn http(&self, path: String) -> Response {
        match path.as_str() {
            "/metrics" => match self.metrics().await {
                Ok(text) => Response::metrics(text),
                Err(why) => Response::text(503, why + "\n"),
            },
            "/healthz" => match self.peer.status().await {
                Some(_) => Response::text(200, "ok\n"),
                None => Response::text(503, "the peer has ended\n"),
            },
            "/readyz" => match self.report().await {
                Ok((report, _, _)) if report.state == "ready" => Response::text(200, "ready\n"),
                Ok((report, _, _)) => Response::text(503, report.state + "\n"),
                Err(why) => Response::text(503, why + "\n"),
            },
            _ => Response::not_found(),
        }
    }

    async fn report(&self) -> Result<(Report, Instant, Status), String> {
        let (now, status) = self.peer.status().await.ok_or("the peer has ended")?;
        let (been_ready, known) = (self.observer.borrow().been_ready, self.known(&status));
        Ok((status::from_core(now, &status, &self.facts, been_ready, (&known, &self.listed.borrow())), now, status))
    }

    /// What is known besides the node's status.
    fn known(&self, status: &Status) -> Known {
        let observer = self.observer.borrow();
        Known {
            certificate_left: self.peer.certificate_overdue(),
            shared_identity_at: observer.shared_identity_at,
            state_fault: self.state_faults.borrow().values().next().cloned(),
            missed_relays: observer.missed_relays.clone(),
            ambiguous: Names::new(status, &self.listed.borrow()).ambiguous().to_vec(),
        }
    }

    /// How things stand, for the service manager; nothing, when the peer has ended.
    pub(crate) async fn in_a_line(&self) -> Option<String> {
        let (report, _, _) = self.report().await.ok()?;
        let connected = report.peers.iter().filter(|peer| peer.state == "connected");
        let direct = connected.clone().filter(|peer| peer.path.as_ref().is_some_and(|path| path.kind == "direct"));
        Some(format!("{}: {} peers connected, {} of them directly", report.state, connected.count(), direct.count()))
    }

    async fn metrics(&self) -> Result<String, String> {
        let (now, status) = self.peer.status().await.ok_or("the peer has ended")?;
        let warnings = warnings::list(now, &status, &self.known(&status));
        Ok(self.observer.borrow().metrics.render(&status, self.facts.started.elapsed(), &warnings))
    }

    async fn ping(&self, text: &str, wait_ms: u64) -> Result<Pinged, String> {
        let (report, _, status) = self.report().await?;
        let id = resolve(&status, &self.listed.borrow(), text).map_err(|why| sentence(&why))?;
        let key = id.to_string();
        let known = report.peers.iter().find(|peer| peer.id == key);
        let name = listed_name(&status, &self.listed.borrow(), id);
        let mut pinged = Pinged {
            id: key.clone(),
            name: name.or_else(|| known.and_then(|peer| peer.name.clone())),
            address: known.and_then(|peer| peer.address().cloned()),
            reply: None,
        };
        let (ping, answers) = self.observer.borrow_mut().expect_pong().ok_or("too many pings at once; try again")?;
        self.peer.ping(id, ping, vec![0; PING_BYTES])?;
        let wait = Duration::from_millis(wait_ms).min(MAX_PING_WAIT);
        let late = async {
            Timer::after(wait).await;
            None
        };
        let answer = future::or(async { answers.recv_async().await.ok() }, late).await;
        self.observer.borrow_mut().forget_ping(ping);
        pinged.reply = answer.map(|pong| Reply { rtt_ms: status::millis(pong.rtt), out: path_text(pong.out), back: path_text(pong.back) });
        Ok(pinged)
    }

    /// Copies of what passes the interface, as records.
    async fn capture(&self, snaplen: u32, peer: Option<&str>) -> Result<(Capturing, impl Stream<Item = Vec<u8>> + use<>), String> {
        let only = match peer {
            None => None,
            Some(text) => {
                let (_, status) = self.peer.status().await.ok_or("the peer has ended")?;
                let id = resolve(&status, &self.listed.borrow(), text).map_err(|why| sentence(&why))?;
                let addresses = status.peers.iter().find(|peer| peer.id == id).map(|peer| peer.addresses.clone()).unwrap_or_default();
                if addresses.is_empty() {
                    return Err(format!("{text} has no address yet; leave --peer away, or try again when it is connected"));
                }
                Some(addresses)
            }
        };
        let snaplen = usize::try_from(snaplen).expect("32 bits fit");
        let watch = self.peer.capture(Wanted { snaplen, only }).await?;
        tracing::info!(peer, "somebody captures what passes the interface");
        let capturing = Capturing { interface: self.facts.interface_name.clone(), ethernet: self.facts.interface_mode == "tap" };
        Ok((capturing, record::stream(watch)))
    }

    /// The one peer that is meant.
    async fn peer(&self, text: &str) -> Result<(PeerReport, Instant, Status), String> {
        let (report, now, status) = self.report().await?;
        let key = resolve(&status, &self.listed.borrow(), text).map_err(|why| sentence(&why))?.to_string();
        let peer = report.peers.into_iter().find(|peer| peer.id == key);
        peer.map(|peer| (peer, now, status)).ok_or_else(|| format!("{text} has not been seen since the start"))
    }

    async fn wait(&self, peer: Option<&str>, direct: bool, wait_ms: u64) -> Result<Waited, String> {
        let until = std::time::Instant::now() + Duration::from_millis(wait_ms).min(MAX_WAIT);
        loop {
            // Asked for before the look, so that nothing happens between the two.
            let next = self.observer.borrow_mut().next_note();
            let waited = self.stands(peer, direct).await?;
            if waited.reached || std::time::Instant::now() >= until {
                return Ok(waited);
            }
            let late = async {
                Timer::at(until).await;
            };
            let noted = async {
                let _ = next.recv_async().await;
            };
            future::or(noted, late).await;
        }
    }

    /// Whether what somebody waits for is so.
    async fn stands(&self, peer: Option<&str>, direct: bool) -> Result<Waited, String> {
        let (report, _, status) = self.report().await?;
        let Some(text) = peer else {
            return Ok(Waited { reached: report.state == "ready", state: format!("the peer is {}", report.state) });
        };
        let key = match resolve(&status, &self.listed.borrow(), text) {
            Ok(id) => id.to_string(),
            Err(Unresolved::Unknown(state)) => return Ok(Waited { reached: false, state }),
            Err(ambiguous @ Unresolved::Ambiguous(_)) => return Err(sentence(&ambiguous)),
        };
        let Some(peer) = report.peers.iter().find(|peer| peer.id == key) else {
            return Ok(Waited { reached: false, state: format!("{text} has not been seen since the start") });
        };
        let path = peer.path.as_ref();
        let over = path.map(|path| format!(" over {}/{}", path.kind, path.transport)).unwrap_or_default();
        let reached = peer.state == "connected" && (!direct || path.is_some_and(|path| path.kind == "direct"));
        Ok(Waited { reached, state: format!("{text} is {}{over}", peer.state) })
    }

    /// Makes an identity that follows ours at the next start, and has the others told.
    async fn rotate(&self) -> Result<Rotated, String> {
        let (_, status) = self.peer.status().await.ok_or("the peer has ended")?;
        let kept = credentials::identity(&self.identity).map_err(|failure| failure.sentence)?.id();
        if kept != status.id {
            return Err(format!("{kept} is in the identity file, and {} runs; restart the peer first", status.id));
        }
        let prepared = credentials::prepare_succession(&self.identity).map_err(|failure| failure.sentence)?;
        let rotated = Rotated::new(&prepared, true);
        if !prepared.was_there {
            tracing::info!(old = rotated.old, new = rotated.new, "a new identity follows at the next start; the others are told");
        }
        self.peer.succeed(prepared.statement).await;
        Ok(rotated)
    }

    fn log_level(&self, level: Option<&str>) -> Result<String, String> {
        if let Some(level) = level {
            let wrong =
                |why| format!("the log's level is not changed: {why}; give error, warn, info, debug, trace, off, or filters by module");
            self.levels.set(level).map_err(wrong)?;
            tracing::info!(level, "the log's level is changed");
        }
        Ok(self.levels.level())
    }

    async fn explain(&self, text: &str) -> Result<Explanation, String> {
        let (peer, now, status) = self.peer(text).await?;
        let direct = self.transports.iter().map(|transport| match transport {
            TransportChoice::Udp => "udp".to_owned(),
            TransportChoice::Wss => "wss".to_owned(),
        });
        let told = status.peers.iter().find(|told| told.id.to_string() == peer.id).ok_or("the peer has just gone")?;
        let history = self.observer.borrow().history(now, told.id);
        Ok(Explanation::new(now, (&status, told), peer, history, direct.collect()))
    }
}

impl Resolve for Service {
    fn resolve(&self, target: Target) -> Resolved<'_> {
        let nobody = |why: String| io::Error::new(io::ErrorKind::NotFound, why);
        Box::pin(async move {
            let (text, port) = match target {
                Target::Address(address) => (address.ip().to_string(), address.port()),
                Target::Name(name, port) => (name, port),
            };
            let (_, status) = self.peer.status().await.ok_or_else(|| nobody("the peer has ended".to_owned()))?;
            let name = text.strip_suffix('.').unwrap_or(&text);
            let name = name.strip_suffix(".mesh").unwrap_or(name);
            let id = resolve(&status, &self.listed.borrow(), name).map_err(|why| nobody(sentence(&why)))?;
            let addresses = status.peers.iter().find(|peer| peer.id == id).map(|peer| peer.addresses.as_slice()).unwrap_or_default();
            // An address that was asked for is that one; of a name, an IPv4 one where there is one.
            let asked = name.parse().ok().filter(|address| addresses.contains(address));
            let address = asked.or_else(|| addresses.iter().copied().find(IpAddr::is_ipv4)).or_else(|| addresses.first().copied());
            address.map(|address| SocketAddr::new(address, port)).ok_or_else(|| nobody(format!("{text} has no address")))
        })
    }
}

fn path_text(path: PathLabel) -> String {
    let (kind, transport) = status::label(path);
    format!("{kind}/{transport}")
}

fn sentence(why: &Unresolved) -> String {
    why.sentence().to_owned()
}

fn answer<T: Serialize>(result: Result<T, String>) -> String {
    let answer = match result {
        Ok(value) => Answer::Ok(value),
        Err(sentence) => Answer::Error(sentence),
    };
    serde_json::to_string(&answer).expect("answers are plain data")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Report;
    use serde_json::Value;
    use shadowmesh_core::{
        config::{Mode, NodeConfig},
        crypto::Identity,
        network::{Network, RelayAddress},
        session::Suite,
        succession::Followers,
    };
    use shadowmesh_runtime_std::peer::{self, Interface, MemoryInterface, PeerOptions};
    use std::sync::Arc;

    /// A peer without a device, whose relay never answers.
    fn alone() -> Service {
        let relay = RelayAddress::new("wss://127.0.0.1:9", None).expect("a relay");
        let node = NodeConfig {
            identity: Arc::new(Identity::from_seed([7; 32])),
            crypto: credentials::provider(),
            network: Network::new([8; 32], "test", vec![relay]).expect("a network"),
            name: "alone".to_owned(),
            suites: vec![Suite::ChaCha20Poly1305],
            layer2: false,
            mtu: 1280,
            addresses: Vec::new(),
            direct: shadowmesh_core::config::Transports::WSS,
            rekey_interval: NodeConfig::REKEY_INTERVAL,
            retry_interval: Duration::from_secs(1),
            health_check_interval: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(1),
            close_relay: false,
            relay_udp: false,
            mode: Mode::SwitchLossless,
            advertise: Vec::new(),
            members: Vec::new(),
            revoked: Vec::new(),
            claims: Vec::new(),
            followers: Followers::default(),
            lanes: 1,
            version: "test".to_owned(),
        };
        let (_, inbound) = flume::bounded(1);
        let (outbound, _) = flume::bounded(1);
        let interface = Interface::Memory(MemoryInterface { inbound, outbound });
        let listen_tcp = SocketAddr::from(([127, 0, 0, 1], 0));
        let peer = peer::start(PeerOptions {
            node,
            interface,
            listen_tcp,
            listen_udp: listen_tcp,
            port_mapping: false,
            proxies: shadowmesh_runtime_std::tunnel::Proxies::default(),
            cert_lifetime: Duration::from_hours(1),
            journal: None,
        })
        .expect("starts");
        Service {
            facts: Facts {
                proxies: Arc::default(),
                runtime: "threads",
                interface_name: peer.interface_name(),
                interface_mode: "tun",
                proxy: None,
                dns: None,
                mtu: 1280,
                started: std::time::Instant::now(),
            },
            peer,
            observer: Rc::new(RefCell::new(Observer::new())),
            listed: RefCell::new(vec![("server".to_owned(), PeerId([1; 32]))]),
            transports: vec![TransportChoice::Wss],
            identity: KeyPlace::File("identity.key".into()),
            state_faults: RefCell::default(),
            levels: Levels::unused("info"),
            leave: flume::bounded(1).0,
        }
    }

    fn ask(service: &Service, line: &str) -> Value {
        let answer = smol::block_on(service.line(serde_json::from_str(line)));
        assert!(!answer.contains('\n'), "one line: {answer}");
        serde_json::from_str(&answer).expect("an answer is JSON")
    }

    #[test]
    fn a_lonely_peer_answers_for_itself() {
        let service = alone();
        let report: Report = serde_json::from_value(ask(&service, r#"{"op":"status"}"#)["ok"].clone()).expect("a report");
        assert_eq!((report.name.as_str(), report.peers.len(), report.relays.len()), ("alone", 0, 1));
        assert_ne!(report.state, "ready");
        let metrics = ask(&service, r#"{"op":"metrics"}"#);
        assert!(metrics["ok"].as_str().is_some_and(|text| text.contains("shadowmesh_peers{path=\"none\"} 0")), "{metrics}");
        let ping = ask(&service, r#"{"op":"ping","peer":"b","wait_ms":10}"#);
        assert!(ping["error"].as_str().is_some_and(|text| text.starts_with("no peer is called")), "{ping}");
        // Listed, but never seen: a ping may be tried, and nothing answers.
        let ping = ask(&service, r#"{"op":"ping","peer":"server","wait_ms":10}"#);
        assert_eq!((&ping["ok"]["name"], &ping["ok"]["reply"]), (&Value::from("server"), &Value::Null));
        let explained = ask(&service, r#"{"op":"explain","peer":"server"}"#);
        assert!(explained["error"].as_str().is_some(), "{explained}");
        let shown = ask(&service, r#"{"op":"peer","peer":"server"}"#);
        assert_eq!(shown["error"], "server has not been seen since the start");
        smol::block_on(service.peer.leave());
        assert_eq!(ask(&service, r#"{"op":"status"}"#)["error"], "the peer has ended");
    }

    #[test]
    fn a_wait_ends_with_what_is_missing() {
        let service = alone();
        for (line, state) in [
            (r#"{"op":"wait","peer":null,"direct":false,"wait_ms":1}"#, "the peer is "),
            (r#"{"op":"wait","peer":"b","direct":false,"wait_ms":1}"#, "no peer is called"),
            (r#"{"op":"wait","peer":"server","direct":true,"wait_ms":1}"#, "server has not been seen"),
        ] {
            let waited: Waited = serde_json::from_value(ask(&service, line)["ok"].clone()).expect("an answer");
            assert!(!waited.reached && waited.state.starts_with(state), "{line} gave {waited:?}");
        }
        smol::block_on(service.peer.leave());
    }

    #[test]
    fn the_level_of_the_log_is_told_and_set() {
        let service = alone();
        let level = |line: &str| ask(&service, line);
        assert_eq!(level(r#"{"op":"log_level","level":null}"#)["ok"], "info");
        assert_eq!(level(r#"{"op":"log_level","level":"debug"}"#)["ok"], "debug");
        let wrong = level(r#"{"op":"log_level","level":"a=b=c"}"#);
        assert!(wrong["error"].as_str().is_some_and(|text| text.contains("is not changed")), "{wrong}");
        assert_eq!(level(r#"{"op":"log_level","level":null}"#)["ok"], "debug");
        smol::block_on(service.peer.leave());
    }

    #[test]
    fn a_state_directory_that_cannot_be_written_is_told() {
        let service = alone();
        service.state_faults.borrow_mut().insert("claims", "Read-only file system".to_owned());
        let status = ask(&service, r#"{"op":"status"}"#);
        assert_eq!(status["ok"]["warnings"][0]["kind"], "state_dir", "{status}");
        let metrics = ask(&service, r#"{"op":"metrics"}"#);
        let text = metrics["ok"].as_str().expect("text");
        assert!(text.contains("shadowmesh_warnings{kind=\"state_dir\"} 1") && text.contains("{kind=\"relay\"} 0"), "{text}");
        smol::block_on(service.peer.leave());
    }

    #[test]
    fn nonsense_on_the_control_socket_gets_an_error() {
        let service = alone();
        let deep = "[".repeat(10_000);
        for line in [
            "",
            "status",
            "{}",
            r#"{"op":"fly"}"#,
            r#"{"op":"status","why":1}"#,
            r#"{"op":"ping"}"#,
            r#"{"op":"ping","peer":"b","wait_ms":-1}"#,
            r#"{"op":"ping","peer":7,"wait_ms":1}"#,
            "\u{0}\u{1}",
            &deep,
        ] {
            let answer = ask(&service, line);
            assert!(answer["error"].as_str().is_some_and(|text| text.starts_with("unknown request")), "{line:?} gave {answer}");
        }
        assert!(ask(&service, r#"{"op":"status"}"#)["ok"].is_object());
        smol::block_on(service.peer.leave());
    }

    #[test]
    fn the_metrics_port_tells_live_from_ready() {
        let service = alone();
        let status = |path: &str| smol::block_on(service.http(path.to_owned())).status;
        assert_eq!([status("/healthz"), status("/readyz"), status("/metrics"), status("/"), status("/../etc")], [200, 503, 200, 404, 404]);
        smol::block_on(service.peer.leave());
        assert_eq!([status("/healthz"), status("/readyz"), status("/metrics")], [503, 503, 503]);
    }
}
