//! `shadowmesh-relay`: the command.
use shadowmesh_relay::cli;
use std::process::ExitCode;

/// musl's own asks the kernel for each large piece and gives it back at once: TLS costs three times as much.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

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
