//! Replays every committed input through its target: what once crashed, and what reaches far. A new file in `fuzz/corpus/TARGET` is run
//! by the next `cargo test`; a file that panics fails the target's test and is named.
#[path = "../targets/config.rs"]
mod config;
#[path = "../targets/websocket.rs"]
mod websocket;

use libtest_mimic::{Arguments, Failed, Trial};
use shadowmesh_fuzz::targets::{ALL, Target, seeds};
use std::{
    fs,
    panic::catch_unwind,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// A corpus is small: what it is for is reach, not volume.
const MOST_FILES: usize = 300;
const MOST_BYTES: u64 = 300 * 1024;

fn main() -> ExitCode {
    let targets = ALL.into_iter().chain([("config", config::config as Target), ("websocket", websocket::websocket)]);
    let mut trials: Vec<Trial> =
        targets.clone().map(|(name, target)| Trial::test(format!("corpus_{name}"), move || replay(name, target))).collect();
    let names: Vec<&str> = targets.map(|(name, _)| name).collect();
    trials.push(Trial::test("each_seed_passes", seeds_pass));
    trials.push(Trial::test("each_corpus_has_a_target", move || each_has_a_target(&names)));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, Failed> {
    let listed = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files = listed.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    files.sort();
    Ok(files)
}

fn replay(name: &str, target: Target) -> Result<(), Failed> {
    let files = files(&corpus().join(name))?;
    if files.is_empty() || files.len() > MOST_FILES {
        return Err(format!("{} files, want 1 to {MOST_FILES}: minimise with `cargo fuzz cmin`", files.len()).into());
    }
    let (mut bytes, mut crashed) = (0, Vec::new());
    for file in files {
        let input = fs::read(&file)?;
        bytes += input.len() as u64;
        if catch_unwind(|| target(&input)).is_err() {
            crashed.push(file.display().to_string());
        }
    }
    if bytes > MOST_BYTES {
        return Err(format!("{bytes} bytes, at most {MOST_BYTES}: minimise with `cargo fuzz cmin`").into());
    }
    if crashed.is_empty() { Ok(()) } else { Err(format!("these panic:\n{}", crashed.join("\n")).into()) }
}

fn seeds_pass() -> Result<(), Failed> {
    for (name, inputs) in seeds::all() {
        let (_, target) = ALL.into_iter().find(|(target, _)| *target == name).ok_or("seeds of no target")?;
        for (number, input) in inputs.iter().enumerate() {
            catch_unwind(|| target(input)).map_err(|_| format!("seed {number} of {name} panics"))?;
        }
    }
    Ok(())
}

fn each_has_a_target(names: &[&str]) -> Result<(), Failed> {
    for folder in files(&corpus())? {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !names.contains(&name) {
            return Err(format!("fuzz/corpus/{name} is of no target").into());
        }
    }
    Ok(())
}
