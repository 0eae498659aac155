//! systemd-resolved is told to ask us for `.mesh`, on our link alone; with the link all of it goes, however we end.
use std::{
    fs, io,
    net::Ipv6Addr,
    path::Path,
    process::{Command, Stdio},
};

/// It is there when it runs.
const RUNTIME_DIR: &str = "/run/systemd/resolve";

/// The domain goes first: a link with servers and without domains would be asked for everything for a moment. Nobody signs `.mesh`, and
/// nothing on the way could read along, so what holds for other links is switched off for this one; an old resolved lacks the latter.
const SETTINGS: [(&[&str], bool); 4] = [(&["domain"], true), (&["dnssec"], false), (&["dnsovertls"], false), (&["dns"], true)];

/// Tells it; an error is a sentence about why it was not told. It can take seconds.
pub(super) fn register(interface: &str, server: Ipv6Addr) -> Result<(), String> {
    if !Path::new(RUNTIME_DIR).is_dir() {
        return Err("systemd-resolved does not run here".to_owned());
    }
    if is_elsewhere() {
        return Err("systemd-resolved is outside of this network namespace".to_owned());
    }
    tell("resolvectl", interface, server)
}

fn tell(program: &str, interface: &str, server: Ipv6Addr) -> Result<(), String> {
    let server = server.to_string();
    for (what, is_needed) in SETTINGS {
        let value = match what {
            ["domain"] => "~mesh",
            ["dns"] => &server,
            _ => "no",
        };
        let mut command = Command::new(program);
        command.arg("--no-ask-password").args(what).args([interface, value]).stdin(Stdio::null());
        let output = command.output().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => format!("{program} is not installed"),
            _ => format!("{program} cannot be run: {error}"),
        })?;
        if !output.status.success() && is_needed {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{program} {} failed: {}", what.join(" "), said.lines().next().unwrap_or_default().trim()));
        }
    }
    Ok(())
}

/// Links are told by number, and in another namespace our number is another link. Who may not look there runs as a service, in ours.
fn is_elsewhere() -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
    matches!((namespace("1"), namespace("self")), (Some(first), Some(own)) if first != own)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that writes down how it was called and fails for a word.
    fn told(fails: &str) -> (Result<(), String>, String) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (program, calls) = (dir.path().join("resolvectl"), dir.path().join("calls"));
        let script =
            format!("#!/bin/sh\necho \"$@\" >> {}\n[ \"$2\" != {fails} ] || {{ echo 'no such verb' >&2; exit 1; }}\n", calls.display());
        fs::write(&program, script).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("made executable");
        let result = tell(program.to_str().expect("text"), "mesh0", "fd00::53".parse().expect("an address"));
        (result.map_err(|why| why.replace(&program.display().to_string(), "resolvectl")), fs::read_to_string(&calls).expect("called"))
    }

    #[test]
    fn the_domain_goes_first_and_what_is_missing_in_an_old_one_is_no_failure() {
        let calls = "--no-ask-password domain mesh0 ~mesh\n--no-ask-password dnssec mesh0 no\n--no-ask-password dnsovertls mesh0 no\n\
                     --no-ask-password dns mesh0 fd00::53\n";
        assert_eq!(told("nothing"), (Ok(()), calls.to_owned()));
        assert_eq!(told("dnsovertls"), (Ok(()), calls.to_owned()));
        let (result, calls) = told("domain");
        assert_eq!(result, Err("resolvectl domain failed: no such verb".to_owned()));
        assert_eq!(calls.lines().count(), 1, "without the domain nothing else: {calls}");
        let missing = tell("nowhere/resolvectl", "mesh0", Ipv6Addr::LOCALHOST);
        assert_eq!(missing, Err("nowhere/resolvectl is not installed".to_owned()));
    }
}
