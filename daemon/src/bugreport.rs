//! `bugreport`: one text with what a person who looks for a fault asks for first. It holds names and addresses, and no secret: no token,
//! no key.
use crate::{
    cli::FileArgs,
    commands, config,
    control::{Client, Request},
    credentials,
    failure::Failure,
    out,
    status::Report,
};
use serde_json::Value;
use shadowmesh_core::network::TOKEN_PREFIX;
use std::{
    fmt::Write as _,
    fs::OpenOptions,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Runs `shadowmesh bugreport`.
pub(crate) fn run(out_file: Option<&Path>, files: &FileArgs) -> Result<(), Failure> {
    let mut text =
        String::from("This report holds names, PeerIds and addresses. It holds no join token and no key. Read it before you pass it on.\n");
    section(&mut text, "versions", &versions());
    section(&mut text, "configuration", &configuration(files));
    match Client::find(files)? {
        None => section(&mut text, "status", "no peer is running at the control socket"),
        Some(mut client) => running(&mut text, &mut client),
    }
    let text = without_tokens(&text);
    let Some(path) = out_file else {
        out::raw(&text);
        return Ok(());
    };
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes())).map_err(|error| {
        let what = if error.kind() == io::ErrorKind::AlreadyExists { "it exists; name a new file".to_owned() } else { error.to_string() };
        Failure::failed(format!("{}: the report cannot be written: {what}", path.display()))
    })?;
    out::line(path.display());
    Ok(())
}

fn section(text: &mut String, name: &str, body: &str) {
    let _ = write!(text, "\n==== {name} ====\n{}\n", body.trim_end());
}

fn versions() -> String {
    let system = rustix::system::uname();
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let pretty = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown");
    format!(
        "shadowmesh {} ({})\n{} {} {}\n{}",
        env!("CARGO_PKG_VERSION"),
        credentials::provider().name(),
        system.sysname().to_string_lossy(),
        system.release().to_string_lossy(),
        system.machine().to_string_lossy(),
        pretty.trim_matches('"'),
    )
}

fn configuration(files: &FileArgs) -> String {
    match config::layers(files.config.as_deref(), files.layer()).and_then(|layers| config::settings(&layers)) {
        Ok(settings) => commands::show(&settings, false),
        Err(failure) => format!("it has a mistake: {failure}"),
    }
}

/// What only a running peer can tell.
fn running(text: &mut String, client: &mut Client) {
    let status = client.ask::<Report>(&Request::Status {});
    section(text, "status", &as_json(&status));
    for peer in status.iter().flat_map(|report| &report.peers) {
        let explained = client.ask::<Value>(&Request::Explain { peer: peer.id.clone() });
        section(text, &format!("peer {}", peer.name.as_deref().unwrap_or(&peer.id)), &as_json(&explained));
    }
    section(text, "netcheck", &as_json(&client.ask::<Value>(&Request::Netcheck {})));
    section(text, "metrics", &as_text(client.ask::<String>(&Request::Metrics {})));
    section(text, "log", &as_text(client.ask::<String>(&Request::RecentLog {})));
}

fn as_json<T: serde::Serialize>(result: &Result<T, Failure>) -> String {
    match result {
        Ok(value) => serde_json::to_string_pretty(value).expect("answers are plain data"),
        Err(failure) => failure.to_string(),
    }
}

fn as_text(result: Result<String, Failure>) -> String {
    result.unwrap_or_else(|failure| failure.to_string())
}

/// The text with each join token in it cut after its prefix.
fn without_tokens(text: &str) -> String {
    let mut parts = text.split(TOKEN_PREFIX);
    let mut clean = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|character: char| character.is_ascii_alphanumeric() || "-_=".contains(character));
        clean.push_str(TOKEN_PREFIX);
        clean.push_str(if part.len() == rest.len() { "" } else { "(hidden)" });
        clean.push_str(rest);
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_got_into_the_text_does_not_leave() {
        let network = credentials::new_network("n", &["wss://192.0.2.1:443".to_owned()], &[], &[]).expect("a network");
        let secret = network.trim_start_matches(TOKEN_PREFIX);
        let text = without_tokens(&format!("started with --join {network}, then \"{network}\"\nsmesh1:(hidden) smesh1:"));
        assert_eq!(text, "started with --join smesh1:(hidden), then \"smesh1:(hidden)\"\nsmesh1:(hidden) smesh1:");
        assert!(!text.contains(secret));
    }
}
