//! `shadowmesh-relay`: the command.
use shadowmesh_relay::cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::main(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr().lock(), "shadowmesh-relay: {failure}");
            ExitCode::from(failure.code)
        }
    }
}
