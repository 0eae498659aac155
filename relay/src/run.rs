//! A relay in the foreground: from the settings to SIGINT or SIGTERM. SIGHUP reads the settings again.
use crate::{
    Failure, cli, dev,
    logs::{self, Levels},
    metrics, page,
    report::{Report, Sample},
    say,
    settings::Settings,
};
use async_signal::{Signal, Signals};
use core::net::SocketAddr;
use futures_lite::StreamExt;
use shadowmesh_core::{
    config::{HubConfig, Limits},
    crypto::{self, awslc::AwsLc},
    hub::HubStatus,
    id::PeerId,
    session::Suite,
    time::{Duration, Instant},
};
use shadowmesh_runtime_smol::{
    control::ControlSocket,
    http::{self, Response},
    service as manager,
};
use shadowmesh_runtime_std::{
    StartError, clock, descriptors,
    journal::JournalFile,
    relay::{Live, Relay, RelayOptions},
};
use smol::{future, net::TcpListener};
use std::{
    cell::{Cell, RefCell},
    path::Path,
    sync::Arc,
};

/// Rates in `status` are told over at least this, or since the start.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5);
/// A second signal ends the relay at once: clients are still told, if that takes no longer than this.
const AT_ONCE: Duration = Duration::from_millis(200);

/// Descriptors for listeners, files, the control socket and scrapers.
const DESCRIPTORS_BESIDE: u64 = 64;

/// What drives the relay: both have the same doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// One asynchronous thread.
    Smol,
    /// A thread that waits for all descriptors at once.
    Threads,
}

impl Runtime {
    /// Its name, as people give it and as `status` tells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Smol => "smol",
            Self::Threads => "threads",
        }
    }

    fn start(self, options: RelayOptions) -> Result<Relay, StartError> {
        match self {
            Self::Smol => shadowmesh_runtime_smol::relay::start(options),
            Self::Threads => shadowmesh_runtime_std::relay::start(options),
        }
    }
}

/// How the settings are read once more, on SIGHUP.
pub type Reread<'a> = &'a dyn Fn() -> Result<Settings, Failure>;

/// Runs until a signal, or until the relay cannot go on.
pub fn run(settings: &Settings, reread: Reread<'_>, runtime: Runtime, journal: Option<&Path>) -> Result<(), Failure> {
    let levels = logs::start(settings);
    let identity = cli::load_identity(settings)?;
    let id = identity.id();
    let control = ControlSocket::bind(&settings.control_socket()).map_err(Failure::failed)?;
    let http = settings.metrics.map(bind_metrics).transpose()?;
    let open_files = descriptors::raise();
    let options = RelayOptions {
        hub: HubConfig {
            identity: Arc::new(identity),
            crypto: Arc::new(AwsLc),
            suites: crypto::offered(&[Suite::Aes256Gcm, Suite::ChaCha20Poly1305]),
            access: settings.access.clone(),
            limits: fitting(&settings.limits, open_files),
            keepalive: settings.keepalive,
            // the runtime knows which ports it got
            udp_ports: [None; 2],
        },
        listen: listen_addresses(settings),
        udp: settings.udp,
        cert_lifetime: settings.cert_lifetime,
        certificate: settings.certificate_files(),
        trusted_proxies: settings.trusted_proxies.clone(),
        journal: journal.map(JournalFile::create).transpose().map_err(Failure::failed)?,
    };
    // Before anybody can know that the relay is there: whoever reads the line may send a signal at once.
    let signals = Signals::new([Signal::Int, Signal::Term, Signal::Hup]).map_err(|error| Failure::failed(format!("signals: {error}")))?;
    let relay = runtime.start(options).map_err(Failure::failed)?;
    announce(settings, id, relay.addresses())?;
    manager::ready("running");
    let asked = Asked { settings, reread, levels, open_files, drain_timeout: Cell::new(settings.drain_timeout) };
    smol::block_on(Running::new(relay, runtime, http.as_ref()).until_the_end(&asked, signals, control, http))
}

/// The limits, lowered to what there are descriptors for: whoever is refused costs the others nothing, but a relay that has none left
/// can take nobody, answer no `status` and no scraper.
fn fitting(limits: &Limits, descriptors: u64) -> Limits {
    let connections = usize::try_from(descriptors.saturating_sub(DESCRIPTORS_BESIDE)).unwrap_or(usize::MAX).max(2);
    let preauth_total = limits.preauth_total.min(connections / 2);
    let clients = limits.clients.min(connections - preauth_total);
    if (clients, preauth_total) != (limits.clients, limits.preauth_total) {
        let wanted = limits.clients + limits.preauth_total;
        tracing::warn!(
            descriptors,
            clients,
            preauth_total,
            "limits.clients and limits.preauth_total are lowered: allow {wanted} open files"
        );
    }
    Limits { clients, preauth_total, preauth_per_source: limits.preauth_per_source.min(preauth_total), ..limits.clone() }
}

/// What to listen on: a machine without IPv6 cannot take the default.
fn listen_addresses(settings: &Settings) -> Vec<SocketAddr> {
    let has_v6 = || std::net::UdpSocket::bind((core::net::Ipv6Addr::LOCALHOST, 0)).is_ok();
    if settings.listen == Settings::default().listen && !has_v6() {
        return settings.listen.iter().map(|address| SocketAddr::from(([0, 0, 0, 0], address.port()))).collect();
    }
    settings.listen.clone()
}

/// The one line that says where the relay is and who it is, and with `--dev` the token.
fn announce(settings: &Settings, id: PeerId, addresses: &[SocketAddr]) -> Result<(), Failure> {
    let token =
        if settings.dev { Some(dev::join_token(&settings.state_dir, id, addresses, settings.access.keys.first().cloned())?) } else { None };
    say(format!("shadowmesh-relay listening on {} id {id}", urls(addresses).join(", ")));
    if let Some(token) = token {
        say(token);
    }
    Ok(())
}

fn urls(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(|address| format!("wss://{address}")).collect()
}

fn bind_metrics(address: SocketAddr) -> Result<TcpListener, Failure> {
    smol::block_on(TcpListener::bind(address)).map_err(|error| Failure::failed(format!("--metrics {address}: {error}")))
}

/// What signals ask for.
struct Asked<'a> {
    settings: &'a Settings,
    reread: Reread<'a>,
    levels: Levels,
    /// As many as this process may have.
    open_files: u64,
    drain_timeout: Cell<Duration>,
}

impl Asked<'_> {
    /// Waits for a signal that asks for the end: its name. SIGHUP reads the settings again.
    async fn to_end(&self, signals: &mut Signals, relay: &Relay) -> &'static str {
        loop {
            match signals.next().await {
                Some(Ok(Signal::Hup)) => self.reload(relay).await,
                Some(Ok(Signal::Int)) => return "SIGINT",
                _ => return "SIGTERM",
            }
        }
    }

    /// Takes over what can change without a new start, and names what cannot. A mistake changes nothing.
    async fn reload(&self, relay: &Relay) {
        let settings = match (self.reread)() {
            Ok(settings) => settings,
            Err(failure) => return tracing::warn!(error = %failure, "the configuration has a mistake; everything stays as it was"),
        };
        if let Err(error) = self.levels.set(&settings.log_level) {
            tracing::warn!(error, "the log level cannot be changed");
        }
        self.drain_timeout.set(settings.drain_timeout);
        relay.show(settings.certificate_files()).await;
        let limits = fitting(&settings.limits, self.open_files);
        relay.configure(Live { limits, access: settings.access.clone(), trusted_proxies: settings.trusted_proxies.clone() }).await;
        let fixed = self.settings.fixed_that_differ(&settings).join(", ");
        let level = settings.log_level;
        if fixed.is_empty() {
            tracing::info!(level, drain_timeout = ?settings.drain_timeout, "configuration read again");
        } else {
            tracing::warn!(level, drain_timeout = ?settings.drain_timeout, fixed, "configuration read again; these keys take effect at the next start");
        }
    }
}

/// A started relay and what is asked of it.
struct Running {
    relay: Relay,
    runtime: Runtime,
    started: Instant,
    metrics: Option<String>,
    samples: RefCell<Option<[Sample; 2]>>,
}

impl Running {
    fn new(relay: Relay, runtime: Runtime, http: Option<&TcpListener>) -> Self {
        let metrics = http.and_then(|listener| listener.local_addr().ok()).map(|address| format!("http://{address}/metrics"));
        Self { relay, runtime, started: clock::now(), metrics, samples: RefCell::new(None) }
    }

    async fn until_the_end(
        &self,
        asked: &Asked<'_>,
        mut signals: Signals,
        control: ControlSocket,
        http: Option<TcpListener>,
    ) -> Result<(), Failure> {
        let serve_control = async {
            control.serve(|line| self.answer(line)).await;
            Ok(())
        };
        let serve_http = async {
            match http {
                Some(listener) => http::serve(listener, |path| self.page(path)).await,
                None => future::pending().await,
            }
            Ok(())
        };
        let stop = async {
            let by = asked.to_end(&mut signals, &self.relay).await;
            let within = asked.drain_timeout.get();
            tracing::info!(by, ?within, "leaving: clients are told to take another relay");
            manager::leaving("draining");
            self.relay.drain(within).await;
            let by = asked.to_end(&mut signals, &self.relay).await;
            tracing::info!(by, "leaving at once");
            future::or(self.relay.leave(), async {
                smol::Timer::after(AT_ONCE).await;
            })
            .await;
            Ok(())
        };
        let told = async {
            manager::keep_telling(|| self.in_a_line()).await;
            Ok(())
        };
        let end = future::or(told, async { self.relay.finished().await.map_err(Failure::failed) });
        future::or(future::or(stop, end), future::or(serve_control, serve_http)).await
    }

    /// How things stand, for the service manager; nothing, when the relay has ended.
    async fn in_a_line(&self) -> Option<String> {
        let (_, status) = self.relay.status().await?;
        let state = if status.draining { "draining" } else { "ready" };
        Some(format!("{state}: {} clients in {} networks", status.clients.len(), status.networks))
    }

    /// One line of the control socket.
    async fn answer(&self, line: String) -> String {
        let request: Option<serde_json::Value> = serde_json::from_str(&line).ok();
        let command = request.as_ref().and_then(|request| request.get("cmd")).and_then(serde_json::Value::as_str);
        match command {
            Some("status") => match self.relay.status().await {
                Some((now, status)) => {
                    let report = self.report(now, &status);
                    serde_json::to_string(&report).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"))
                }
                None => r#"{"error":"the relay is leaving"}"#.into(),
            },
            Some(_) => r#"{"error":"the only command is {\"cmd\":\"status\"}"}"#.into(),
            None => r#"{"error":"a request is one line like {\"cmd\":\"status\"}"}"#.into(),
        }
    }

    fn report(&self, now: Instant, status: &HubStatus) -> Report {
        let mut report =
            Report::new(now, self.started, urls(self.relay.addresses()), self.metrics.clone(), status, &self.sample(now, status));
        self.runtime.name().clone_into(&mut report.runtime);
        report.certificate = self.relay.certificate();
        report
    }

    /// The counters to tell rates from: those of the start for the first asker, later ones of some seconds ago.
    fn sample(&self, now: Instant, status: &HubStatus) -> Sample {
        let mut samples = self.samples.borrow_mut();
        let current = Sample::of(now, status);
        let [old, new] = samples.take().unwrap_or_else(|| [Sample::empty(self.started), current.clone()]);
        let kept = if now.since(new.at()) >= SAMPLE_INTERVAL { [new, current] } else { [old, new] };
        let [old, _] = samples.insert(kept);
        old.clone()
    }

    /// One page of the metrics port.
    async fn page(&self, path: String) -> Response {
        match path.as_str() {
            "/" => match self.relay.status().await {
                Some((now, status)) => Response::html(page::render(&self.report(now, &status))),
                None => Response::text(503, "leaving\n"),
            },
            "/metrics" => match self.relay.status().await {
                Some((_, status)) => Response::metrics(metrics::render(&status)),
                None => Response::text(503, "leaving\n"),
            },
            "/healthz" | "/readyz" => match self.relay.status().await {
                Some((_, status)) if status.draining && path == "/readyz" => Response::text(503, "draining\n"),
                Some(_) => Response::text(200, "ok\n"),
                None => Response::text(503, "leaving\n"),
            },
            _ => Response::not_found(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_fit_into_the_descriptors_that_there_are() {
        let limits = Limits::default();
        assert_eq!(fitting(&limits, 20_000), limits);
        let few = fitting(&limits, 1_024);
        assert_eq!((few.clients, few.preauth_total, few.preauth_per_source), (480, 480, 8));
        let some = fitting(&limits, 10_064);
        assert_eq!((some.clients, some.preauth_total), (10_000 - 1_024, 1_024));
        let none = fitting(&limits, 0);
        assert_eq!((none.clients, none.preauth_total, none.preauth_per_source), (1, 1, 1));
    }
}
