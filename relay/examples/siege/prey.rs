//! The relay under siege: the real program, started here, seen from outside by its control socket and `/proc`.
use core::net::SocketAddr;
use futures_lite::{AsyncBufReadExt, AsyncWriteExt, io::BufReader};
use serde_json::Value;
use shadowmesh_core::id::PeerId;
use smol::{Timer, future, net::unix::UnixStream};
use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader as StdReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// How long it may take to say how it is.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

/// Clock ticks of `/proc` in milliseconds: `USER_HZ` is 100 on every Linux that we run on.
const TICK_MS: u64 = 10;

/// A running relay.
pub(crate) struct Prey {
    child: Child,
    state: tempfile::TempDir,
    /// Where it takes clients.
    pub(crate) address: SocketAddr,
    /// Who it is.
    pub(crate) id: PeerId,
}

/// The relay at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// Resident memory in KiB.
    pub(crate) rss_kib: u64,
    /// The most that it ever was.
    pub(crate) peak_kib: u64,
    /// CPU time in all, milliseconds.
    pub(crate) cpu_ms: u64,
    /// The same of the thread that owns hub, TLS and sockets; the rest is handshake arithmetic.
    pub(crate) main_ms: u64,
    pub(crate) threads: u64,
    /// What it says about itself.
    pub(crate) drops: BTreeMap<String, u64>,
    pub(crate) clients: u64,
    pub(crate) preauth: u64,
    pub(crate) joined: u64,
    pub(crate) failed: u64,
    pub(crate) answered: u64,
    pub(crate) queue_bytes: u64,
    /// It said nothing: it was too busy.
    pub(crate) mute: bool,
}

impl Prey {
    /// Starts the program. Its settings are the defaults and what the environment says.
    pub(crate) fn start(program: &Path, runtime: &str) -> Result<Self, String> {
        let state = tempfile::tempdir().map_err(|why| format!("no folder for its state: {why}"))?;
        let mut child = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--runtime", runtime, "--state-dir"])
            .arg(state.path())
            .env("SHADOWMESH_LOG", std::env::var("SHADOWMESH_LOG").unwrap_or_else(|_| "error".into()))
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|why| format!("{}: {why}; build it, or name it with --program", program.display()))?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            StdReader::new(out).read_line(&mut line).map_err(|why| format!("it says nothing: {why}"))?;
        }
        // "shadowmesh-relay listening on wss://127.0.0.1:1234 id sm-…"
        let mut words = line.split_whitespace();
        let address = words.find_map(|word| word.strip_prefix("wss://")?.parse().ok());
        let id = words.last().and_then(|word| word.parse().ok());
        match (address, id) {
            (Some(address), Some(id)) => Ok(Self { child, state, address, id }),
            _ => Err(format!("it did not say where it listens: {line:?}")),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What `/proc` and the relay itself say now.
    pub(crate) async fn look(&self) -> Look {
        let mut look = Look::default();
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let field = |name: &str| status.lines().find_map(|line| number(line.strip_prefix(name)?));
        look.rss_kib = field("VmRSS:").unwrap_or_default();
        look.peak_kib = field("VmHWM:").unwrap_or_default();
        look.threads = field("Threads:").unwrap_or_default();
        look.cpu_ms = ticks(&format!("/proc/{}/stat", self.pid())) * TICK_MS;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten() {
            let name = fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            if name.trim() == "mesh-relay" {
                look.main_ms += ticks(&task.path().join("stat").to_string_lossy()) * TICK_MS;
            }
        }
        if let Some(said) = self.ask().await {
            let count = |path: &[&str]| path.iter().try_fold(&said, |at, key| at.get(key)).and_then(Value::as_u64).unwrap_or_default();
            look.clients = said.get("clients").and_then(Value::as_array).map_or(0, |list| list.len() as u64);
            look.preauth = count(&["preauth"]);
            look.joined = count(&["handshakes", "success"]);
            look.failed = count(&["handshakes", "failure"]);
            look.answered = count(&["handshakes", "answered"]);
            look.queue_bytes = count(&["totals", "queue_bytes"]);
            let drops = said.get("drops").and_then(Value::as_object).into_iter().flatten();
            look.drops = drops.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?))).collect();
        } else {
            look.mute = true;
        }
        look
    }

    /// What it says about itself, unless it is too busy to.
    async fn ask(&self) -> Option<Value> {
        future::or(self.answer(), async {
            Timer::after(ANSWERS_WITHIN).await;
            None
        })
        .await
    }

    async fn answer(&self) -> Option<Value> {
        let mut stream = UnixStream::connect(self.state.path().join("control.sock")).await.ok()?;
        stream.write_all(b"{\"cmd\":\"status\"}\n").await.ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.ok()?;
        serde_json::from_str(&line).ok()
    }
}

impl Drop for Prey {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Look {
    /// What was dropped since an earlier look.
    pub(crate) fn drops_since(&self, earlier: &Self) -> BTreeMap<String, u64> {
        let before = |name: &str| earlier.drops.get(name).copied().unwrap_or_default();
        self.drops.iter().map(|(name, count)| (name.clone(), count.saturating_sub(before(name)))).filter(|(_, count)| *count > 0).collect()
    }
}

fn number(text: &str) -> Option<u64> {
    text.split_whitespace().next()?.parse().ok()
}

/// User and system time of a `stat` file, in ticks.
fn ticks(path: &str) -> u64 {
    let stat = fs::read_to_string(path).unwrap_or_default();
    // The name in brackets may hold blanks; behind it the state is field 3, the times are 14 and 15.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
}
