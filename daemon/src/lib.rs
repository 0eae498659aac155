//! The parts of `shadowmesh`: the peer's command line, configuration, control socket, metrics and demo.
//!
//! ```text
//!   cli ─▶ commands (keygen id network config version completions man)   nothing runs
//!       ─▶ up       settings ─▶ runtime's peer; answers on the control socket and the metrics port
//!       ─▶ status peer wait ping capture log bugreport metrics down          clients of the control socket
//!       ─▶ netcheck a client too, or with a peer of its own for a moment
//!       ─▶ id rotate a client too, or alone where no peer runs
//!       ─▶ demo     relay and two peers in this process
//! ```
mod bugreport;
mod capture;
mod cli;
mod commands;
mod config;
mod control;
mod credentials;
mod demo;
mod explain;
mod failure;
mod logs;
mod metrics;
mod names;
mod netcheck;
mod out;
mod peers;
mod ping;
mod resolve;
mod rotate;
mod runtime;
mod status;
mod up;
mod userspace;
mod wait;
mod warnings;

use clap::{Parser, error::ErrorKind};
use cli::{Cli, Command, ConfigCommand, IdCommand, LogCommand, NetworkCommand, PeerCommand};
use control::{Client, Request};
use failure::Failure;
use std::process::ExitCode;

/// Runs the command that this process was started with.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.sentence.is_empty() {
                eprintln!("shadowmesh: {failure}");
            }
            ExitCode::from(failure.code)
        }
    }
}

/// Reads a configuration file's text as `config check` does, without looking at what it names; an error is the one sentence.
pub fn check_config(text: &str) -> Result<(), String> {
    let understood = config::parse_text("peer.toml", text).and_then(|layers| config::settings(&layers));
    understood.map(drop).map_err(|failure| failure.to_string())
}

/// Whether a command line, its program's name included, is one of ours; nothing is run. An error is the one sentence.
pub fn check_command(words: &[String]) -> Result<(), String> {
    match Cli::try_parse_from(words) {
        Err(error) if error.use_stderr() => Err(one_line(&error.to_string())),
        _ => Ok(()),
    }
}

/// Help and version are results; anything else about the command line is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        out::raw(&error.to_string());
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        eprint!("{text}");
    } else {
        eprintln!("shadowmesh: {}; `shadowmesh help` tells more", one_line(&text));
    }
    ExitCode::from(2)
}

/// What is wrong and what would be right in one line; the usage stands in the help.
fn one_line(text: &str) -> String {
    let said = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let said: Vec<&str> = said.take_while(|line| !line.starts_with("Usage:")).collect();
    said.join(" ").trim_start_matches("error: ").to_owned()
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Keygen { out, files } => commands::keygen(out, &files),
        Command::Id { command: Some(IdCommand::Rotate { json, files }), .. } => rotate::run(json, &files),
        Command::Id { command: None, identity, files } => commands::id(identity, &files),
        Command::Network(NetworkCommand::New { name, relay, relay_id, relay_token }) => {
            commands::network_new(&name, &relay, &relay_id, &relay_token)
        }
        Command::Join(args) => up::join(&args),
        Command::Up(args) => up::run(&args),
        Command::Down { files } => Client::connect(&files)?.leave(),
        Command::Status { json, watch, check, files } => status::run(json, watch, check, &files),
        Command::Wait(args) => wait::run(&args),
        Command::Ping(args) => ping::run(&args),
        Command::Capture(args) => capture::run(&args),
        Command::Peer(PeerCommand::List { json, files }) => peers::list(json, &files),
        Command::Peer(PeerCommand::Show { peer, json, files }) => peers::show(&peer, json, &files),
        Command::Peer(PeerCommand::Explain { peer, json, files }) => explain::run(&peer, json, &files),
        Command::Netcheck(args) => netcheck::run(&args),
        Command::Config(ConfigCommand::Check { file }) => commands::config_check(&file),
        Command::Config(ConfigCommand::Show { effective, files }) => commands::config_show(effective, &files),
        Command::Log(LogCommand::Show { files }) => {
            let text: String = Client::connect(&files)?.ask(&Request::RecentLog {})?;
            out::raw(&text);
            Ok(())
        }
        Command::Bugreport { out, files } => bugreport::run(out.as_deref(), &files),
        Command::Log(LogCommand::Level { level, files }) => {
            let level: String = Client::connect(&files)?.ask(&Request::LogLevel { level })?;
            out::line(level);
            Ok(())
        }
        Command::Metrics { files } => {
            let text: String = Client::connect(&files)?.ask(&Request::Metrics {})?;
            out::raw(&text);
            Ok(())
        }
        Command::Demo { seconds, json, runtime } => demo::run(seconds, json, runtime),
        Command::Completions { shell } => {
            commands::completions(shell);
            Ok(())
        }
        Command::Man { dir } => commands::man(&dir),
        Command::Version { json } => {
            commands::version(json);
            Ok(())
        }
    }
}
