//! Runs the built binary in an environment of its own.

#![allow(dead_code, reason = "each test binary uses a part")]
use std::{
    path::Path,
    process::{Command, Output},
};

/// The binary, without any variable of the caller that could change what it does.
pub(crate) fn shadowmesh(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shadowmesh"));
    command.args(args);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("SHADOWMESH_") || name == "CREDENTIALS_DIRECTORY" {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    shadowmesh(args).output().expect("the binary starts")
}

/// Stdout of a run that must succeed.
pub(crate) fn succeed(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("stdout is text")
}

/// A path as text.
pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}
