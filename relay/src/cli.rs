//! The command line, and the commands that do not run a relay.
use crate::{
    Failure,
    report::Report,
    run::{self, Runtime},
    say,
    settings::{self, Settings},
};
use clap::{CommandFactory, Parser, Subcommand};
use core::net::SocketAddr;
use shadowmesh_runtime_smol::control;
use shadowmesh_runtime_std::identity::IdentityError;
use std::{
    ffi::OsString,
    fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// The longest wait for an answer of a running relay.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(5);

/// The self-hosted `ShadowMesh` relay: forwards what it cannot read.
#[derive(Debug, Parser)]
#[command(
    name = "shadowmesh-relay",
    version,
    about = "The self-hosted ShadowMesh relay: forwards what it cannot read",
    args_conflicts_with_subcommands = true
)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file [default: /etc/shadowmesh/relay.toml where there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Take clients here; may be given several times
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Vec<SocketAddr>,
    /// Tell clients their UDP addresses here and on the next port [default: on the port numbers of --listen]
    #[arg(long, value_name = "ADDR:PORT")]
    pub udp: Option<SocketAddr>,
    /// Identity and control socket live here
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Serve /metrics, /healthz and /readyz here
    #[arg(long, value_name = "ADDR")]
    pub metrics: Option<SocketAddr>,
    /// What drives the relay: smol or threads
    #[arg(long, value_name = "RUNTIME", default_value = "smol")]
    runtime: String,
    /// Record the run in a new file, to be replayed; it holds all keys of the run
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Loopback, state under target/dev, and a join token
    #[arg(long)]
    pub dev: bool,
    /// Check the configuration and leave
    #[arg(long)]
    check: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a directory
    Man {
        /// An existing directory
        dir: PathBuf,
    },
    /// Print the relay's id; makes the identity where there is none
    Id {
        /// Where the state of the relay is
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
        /// Configuration file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Show clients, queues and rates of a running relay
    Status {
        /// One line of JSON
        #[arg(long)]
        json: bool,
        /// Where the state of the relay is
        #[arg(long, value_name = "DIR")]
        state_dir: Option<PathBuf>,
        /// Its control socket
        #[arg(long, value_name = "SOCKET")]
        control: Option<PathBuf>,
        /// Configuration file
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

/// Whether a command line, its program's name included, is one of ours; nothing is run. An error is the one sentence.
pub fn check_command(words: &[String]) -> Result<(), String> {
    match Arguments::try_parse_from(words) {
        Err(error) if error.use_stderr() => Err(first_line(&error.to_string())),
        _ => Ok(()),
    }
}

/// Does what the command line says.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Result<(), Failure> {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) if !error.use_stderr() => {
            say(error.render().to_string().trim_end());
            return Ok(());
        }
        Err(error) => return Err(Failure::usage(first_line(&error.to_string()))),
    };
    match &arguments.command {
        Some(Command::Completions { shell }) => {
            completions(*shell);
            Ok(())
        }
        Some(Command::Man { dir }) => man(dir),
        Some(Command::Id { state_dir, config }) => id(state_dir.as_deref(), config.as_deref()),
        Some(Command::Status { json, state_dir, control, config }) => {
            status(*json, state_dir.as_deref(), control.as_deref(), config.as_deref())
        }
        None => relay(&arguments),
    }
}

fn completions(shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "shadowmesh-relay", &mut script);
    say(String::from_utf8_lossy(&script).trim_end());
}

fn man(dir: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(Arguments::command(), dir)
        .map_err(|error| Failure::failed(format!("{}: the manual pages cannot be written: {error}", dir.display())))
}

fn relay(arguments: &Arguments) -> Result<(), Failure> {
    let runtime = match arguments.runtime.as_str() {
        "smol" => Runtime::Smol,
        "threads" => Runtime::Threads,
        other => return Err(Failure::usage(format!("--runtime {other}: there is no such runtime; right would be `smol` or `threads`"))),
    };
    let read = || Settings::load(&flags(arguments), &settings::environment);
    let settings = read()?;
    if arguments.check {
        if let Some(files) = settings.certificate_files() {
            files.load(None).map_err(Failure::usage)?;
        }
        say(format!("{}: good", settings.source()));
        return Ok(());
    }
    run::run(&settings, &read, runtime, arguments.journal.as_deref())
}

fn flags(arguments: &Arguments) -> settings::Flags {
    settings::Flags {
        config: arguments.config.clone(),
        listen: arguments.listen.clone(),
        udp: arguments.udp,
        state_dir: arguments.state_dir.clone(),
        metrics: arguments.metrics,
        dev: arguments.dev,
    }
}

fn at(state_dir: Option<&Path>, config: Option<&Path>) -> Result<Settings, Failure> {
    let flags =
        settings::Flags { config: config.map(Path::to_owned), state_dir: state_dir.map(Path::to_owned), ..settings::Flags::default() };
    Settings::load(&flags, &settings::environment)
}

fn id(state_dir: Option<&Path>, config: Option<&Path>) -> Result<(), Failure> {
    let settings = at(state_dir, config)?;
    say(load_identity(&settings)?.id());
    Ok(())
}

/// The relay's identity, made where there is none; but not beside the one that the service manager has.
pub(crate) fn load_identity(settings: &Settings) -> Result<shadowmesh_core::crypto::Identity, Failure> {
    make_state_dir(&settings.state_dir)?;
    let place = settings.identity();
    place.load_or_create().map_err(|error| match error {
        IdentityError::Io(..) => Failure::failed(place.sentence(&error)),
        _ => Failure::usage(place.sentence(&error)),
    })
}

fn make_state_dir(dir: &Path) -> Result<(), Failure> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| {
        Failure::failed(format!("state directory {}: {error}; make it writable or choose another with --state-dir", dir.display()))
    })
}

fn status(json: bool, state_dir: Option<&Path>, socket: Option<&Path>, config: Option<&Path>) -> Result<(), Failure> {
    let socket = match socket {
        Some(path) => path.to_owned(),
        None => at(state_dir, config)?.control_socket(),
    };
    let answer = control::request(&socket, r#"{"cmd":"status"}"#, CONTROL_TIMEOUT).map_err(Failure::failed)?;
    if json {
        say(answer);
        return Ok(());
    }
    let report: Report = serde_json::from_str(&answer)
        .map_err(|error| Failure::failed(format!("the relay at {} gave no status: {error}", socket.display())))?;
    say(report.to_text().trim_end());
    Ok(())
}

/// What is wrong, out of clap's several lines.
fn first_line(text: &str) -> String {
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("wrong usage");
    let line = line.trim().trim_start_matches("error: ");
    format!("{line}; `shadowmesh-relay --help` shows what is right")
}
