//! `shadowmesh`: the command.
use std::process::ExitCode;

fn main() -> ExitCode {
    shadowmesh_daemon::main()
}
