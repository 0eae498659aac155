//! `shadowmesh`: the command.
use std::process::ExitCode;

/// musl's own asks the kernel for each large piece and gives it back at once: TLS costs three times as much.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    shadowmesh_daemon::main()
}
