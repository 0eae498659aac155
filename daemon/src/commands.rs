//! The small commands: identities, networks, configuration, version, completions.
use crate::{
    cli::{Cli, FileArgs, Runtime},
    config::{self, JoinSource, Settings, Shown},
    credentials,
    failure::Failure,
    out,
};
use clap::CommandFactory;
use clap_complete::Shell;
use serde::Serialize;
use shadowmesh_runtime_std::identity::KeyPlace;
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// Runs `shadowmesh keygen`.
pub(crate) fn keygen(out_file: Option<PathBuf>, files: &FileArgs) -> Result<(), Failure> {
    if out_file.as_deref() == Some(Path::new("-")) {
        return keygen_into_pipe();
    }
    let path = match identity_place(out_file, files)? {
        KeyPlace::File(path) => path,
        KeyPlace::Credential(path) => {
            return Err(Failure::usage(format!(
                "{}: this identity is the service manager's; name another place with --out",
                path.display()
            )));
        }
    };
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.exists()) {
        return Err(Failure::failed(format!(
            "{}: there is no such directory; make it first, or choose another place with --out",
            parent.display()
        )));
    }
    let identity = credentials::new_identity(&path)?;
    out::line(identity.id());
    Ok(())
}

/// The key alone on standard output, for whatever seals it; the id where people see it.
fn keygen_into_pipe() -> Result<(), Failure> {
    if out::is_terminal() {
        return Err(Failure::usage(
            "--out -: this would show the secret key; pipe it into `systemd-creds encrypt --name=identity.key - FILE`",
        ));
    }
    let (identity, line) = credentials::loose_identity()?;
    out::raw(&line);
    eprintln!("{}", identity.id());
    Ok(())
}

/// Runs `shadowmesh id`.
pub(crate) fn id(identity: Option<PathBuf>, files: &FileArgs) -> Result<(), Failure> {
    out::line(credentials::identity(&identity_place(identity, files)?)?.id());
    Ok(())
}

/// The file that was named, or that of the configuration.
fn identity_place(named: Option<PathBuf>, files: &FileArgs) -> Result<KeyPlace, Failure> {
    match named {
        Some(path) => Ok(KeyPlace::File(path)),
        None => Ok(config::settings(&config::layers(files.config.as_deref(), files.layer())?)?.identity),
    }
}

/// Runs `shadowmesh network new`.
pub(crate) fn network_new(name: &str, relays: &[String], ids: &[String], tokens: &[String]) -> Result<(), Failure> {
    out::line(credentials::new_network(name, relays, ids, tokens)?);
    Ok(())
}

/// Runs `shadowmesh man`: a page for each command, from the same words as its help.
pub(crate) fn man(dir: &Path) -> Result<(), Failure> {
    clap_mangen::generate_to(Cli::command(), dir)
        .map_err(|error| Failure::failed(format!("{}: the manual pages cannot be written: {error}", dir.display())))
}

/// Runs `shadowmesh config check`.
pub(crate) fn config_check(file: &Path) -> Result<(), Failure> {
    let settings = config::settings(&config::file_alone(file)?)?;
    if let Some(JoinSource::File(path, source)) = &settings.join {
        credentials::network_of_file(path).map_err(|why| Failure::usage(format!("{source}: network.join_file: {why}")))?;
    }
    match &settings.identity {
        KeyPlace::File(path) if !path.exists() => {}
        place => drop(credentials::identity(place)?),
    }
    out::line(format!("{}: ok", file.display()));
    Ok(())
}

/// Runs `shadowmesh config show`.
pub(crate) fn config_show(effective: bool, files: &FileArgs) -> Result<(), Failure> {
    let settings = config::settings(&config::layers(files.config.as_deref(), files.layer())?)?;
    out::raw(&show(&settings, effective));
    Ok(())
}

/// The configuration as TOML, each value with its origin behind it.
pub(crate) fn show(settings: &Settings, effective: bool) -> String {
    let mut text = String::new();
    let mut section = "";
    let shown: Vec<_> = settings.shown.iter().filter(|shown| effective || !shown.source.starts_with("default")).collect();
    let line = |shown: &Shown| format!("{} = {}", shown.key.rsplit('.').next().unwrap_or_default(), shown.text);
    let width = shown.iter().map(|shown| line(shown).chars().count()).max().unwrap_or(0).min(64);
    for shown in shown {
        let head = shown.key.split('.').next().unwrap_or_default();
        if head != section {
            text.push_str(if section.is_empty() { "" } else { "\n" });
            let _ = writeln!(text, "[{head}]");
            section = head;
        }
        let line = line(shown);
        let padding = " ".repeat(width.saturating_sub(line.chars().count()));
        let meaning = config::keys::find(shown.key).map_or("", |key| key.meaning);
        let _ = writeln!(text, "{line}{padding}  # {}: {meaning}", shown.source);
    }
    for peer in &settings.peers {
        let _ = writeln!(text, "\n[[peer]]\nid = \"{}\"", peer.id);
        if let Some(name) = &peer.name {
            let _ = writeln!(text, "name = {name:?}");
        }
        let allowed: Vec<String> = peer.allowed.iter().map(|(address, length)| format!("{address}/{length}")).collect();
        let _ = writeln!(text, "allowed = {allowed:?}");
        if !peer.endpoints.is_empty() {
            let endpoints: Vec<String> = peer.endpoints.iter().map(ToString::to_string).collect();
            let _ = writeln!(text, "endpoint = {endpoints:?}");
        }
    }
    text
}

/// What `version --json` prints.
#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the fields are the names in the JSON")]
struct Version {
    name: &'static str,
    version: &'static str,
    protocol: u8,
    os: &'static str,
    arch: &'static str,
    crypto: String,
    runtimes: [&'static str; 2],
}

/// Runs `shadowmesh version`.
pub(crate) fn version(json: bool) {
    let provider = credentials::provider();
    let version = Version {
        name: "shadowmesh",
        version: env!("CARGO_PKG_VERSION"),
        protocol: 1,
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
        crypto: provider.name().to_owned(),
        runtimes: Runtime::NAMES,
    };
    if json {
        out::json(&version);
    } else {
        out::line(format!(
            "shadowmesh {} (protocol {}, {}-{}, {})",
            version.version, version.protocol, version.os, version.arch, version.crypto
        ));
    }
}

/// Runs `shadowmesh completions`.
pub(crate) fn completions(shell: Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "shadowmesh", &mut script);
    out::raw(&String::from_utf8_lossy(&script));
}
