//! Child processes that cannot be forgotten: their output goes to a log file, their waits have an end,
//! and dropping one kills it.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What one look of a wait counts for at most.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// The time that a wait may still take. A machine that stood still meanwhile (a virtual one that was moved, a
/// laptop that slept) has not made the program late: between two looks only `LONGEST_LOOK` is counted.
pub(crate) struct Patience {
    left: Duration,
    looked: Instant,
}

impl Patience {
    pub(crate) fn new(limit: Duration) -> Self {
        Self { left: limit, looked: Instant::now() }
    }

    /// What is left of it; called once for each look.
    pub(crate) fn left(&mut self) -> Duration {
        let now = Instant::now();
        self.left = self.left.saturating_sub((now - self.looked).min(LONGEST_LOOK));
        self.looked = now;
        self.left
    }

    /// Whether nothing is left of it; called once for each look.
    pub(crate) fn is_over(&mut self) -> bool {
        self.left().is_zero()
    }
}

/// A running program of ours.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it with stdout and stderr in `log`.
    pub(crate) fn start(mut command: Command, log: PathBuf) -> Self {
        let output = File::create(&log).expect("a log file in the temporary folder");
        let errors = output.try_clone().expect("a second handle of the log");
        prepare(&mut command);
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { child, log }
    }

    /// Its number among processes.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has said so far.
    pub(crate) fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal; a process that has already ended is left alone.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.ended().is_none() {
            let pid = Pid::from_child(&self.child);
            kill_process(pid, signal).expect("our own child takes a signal");
        }
    }

    /// How it ended, or `None` while it runs.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be waited for")
    }

    /// SIGKILL, and gone when this returns.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("a killed child ends");
    }

    /// Its exit status once it has ended; panics when it has not within `limit`.
    pub(crate) fn end_within(&mut self, limit: Duration) -> ExitStatus {
        wait_bounded(&mut self.child, limit).unwrap_or_else(|| panic!("still running after {limit:?}; it said:\n{}", self.said()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What a program printed, and how it ended.
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// Both streams, for messages.
    pub(crate) fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a program to its end; panics when it takes longer than `limit`.
pub(crate) fn bounded(mut command: Command, limit: Duration) -> Output {
    prepare(&mut command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = collect(child.stdout.take().expect("stdout was piped"));
    let stderr = collect(child.stderr.take().expect("stderr was piped"));
    let ended = wait_bounded(&mut child, limit);
    if ended.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let [stdout, stderr] = [stdout, stderr].map(|thread| thread.join().expect("reading a pipe does not panic"));
    let Some(status) = ended else {
        panic!("{command:?} did not end within {limit:?}; it said:\n{stdout}{stderr}");
    };
    Output { status, stdout, stderr }
}

/// The last lines of a file.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let all: Vec<_> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// The caller's own settings must not leak into a test.
fn prepare(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let given = command.get_envs().any(|(key, _)| key == name);
        if name.to_string_lossy().starts_with("SHADOWMESH_") && !given {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1").env("RUST_BACKTRACE", "1");
}

fn collect(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn wait_bounded(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let mut patience = Patience::new(limit);
    loop {
        if let Some(status) = child.try_wait().expect("our own child can be waited for") {
            return Some(status);
        }
        if patience.is_over() {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
