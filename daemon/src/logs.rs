//! Log lines on stderr: text or JSON, coloured only on a terminal, with a level that SIGHUP can change.
use crate::config::parse::LogFormat;
use std::{
    collections::VecDeque,
    io::{self, IsTerminal, Write, stderr},
    sync::{Arc, Mutex, PoisonError},
};

/// Bytes of the log that a running process keeps: some thousand lines.
const RECENT_BYTES: usize = 256 * 1024;
use tracing_subscriber::{EnvFilter, Registry, filter::ParseError, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// The end of the log, for who comes when it has scrolled away.
#[derive(Clone, Debug, Default)]
struct Recent(Arc<Mutex<VecDeque<u8>>>);

impl Recent {
    /// Whole lines.
    fn text(&self) -> String {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, second) = kept.as_slices();
        let all = [first, second].concat();
        // What was pushed out ended somewhere in the first line.
        let cut = if all.len() < RECENT_BYTES { 0 } else { all.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1) };
        String::from_utf8_lossy(&all[cut..]).into_owned()
    }
}

impl Write for Recent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes_kept = &bytes[bytes.len().saturating_sub(RECENT_BYTES)..];
        let over = (kept.len() + bytes_kept.len()).saturating_sub(RECENT_BYTES);
        kept.drain(..over);
        kept.extend(bytes_kept);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Changes the level of the running process.
pub(crate) struct Levels {
    handle: reload::Handle<EnvFilter, Registry>,
    recent: Recent,
    /// As it was given last.
    level: Mutex<String>,
}

impl Levels {
    /// Takes another level or other filters from now on.
    pub(crate) fn set(&self, level: &str) -> Result<(), String> {
        let filter = filter(level).map_err(|error| error.to_string())?;
        self.handle.reload(filter).map_err(|error| error.to_string())?;
        level.clone_into(&mut self.level.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }

    /// Levels of no log, for tests of what sets them.
    #[cfg(test)]
    pub(crate) fn unused(level: &str) -> Self {
        let (layer, handle) = reload::Layer::new(filter(level).expect("a level"));
        // A handle works for as long as its layer is somewhere.
        std::mem::forget(layer);
        Self { handle, recent: Recent::default(), level: Mutex::new(level.to_owned()) }
    }

    /// The last lines of the log.
    pub(crate) fn recent(&self) -> String {
        self.recent.text()
    }

    /// What holds now.
    pub(crate) fn level(&self) -> String {
        self.level.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A plain level means this program's modules; libraries speak from `warn` on. Anything else is taken as filters.
pub(crate) fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    match level {
        "error" => EnvFilter::builder().parse("error"),
        "warn" | "info" | "debug" | "trace" => EnvFilter::builder().parse(format!("warn,shadowmesh={level}")),
        "off" => EnvFilter::builder().parse("off"),
        filters => EnvFilter::builder().parse(filters),
    }
}

/// Starts logging for the whole process.
pub(crate) fn start(level: &str, format: LogFormat) -> Result<Levels, String> {
    let filter = filter(level).map_err(|error| error.to_string())?;
    let (filter, handle) = reload::Layer::new(filter);
    let recent = Recent::default();
    let kept = recent.clone();
    let keeps = fmt::layer().with_ansi(false).with_target(false).with_writer(move || kept.clone());
    let base = tracing_subscriber::registry().with(filter).with(keeps);
    let started = match format {
        LogFormat::Json => base.with(fmt::layer().json().flatten_event(true).with_writer(stderr)).try_init(),
        LogFormat::Text => {
            let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let ansi = stderr().is_terminal() && !no_colour;
            base.with(fmt::layer().with_ansi(ansi).with_target(false).with_writer(stderr)).try_init()
        }
    };
    started.map(|()| Levels { handle, recent, level: Mutex::new(level.to_owned()) }).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_log_is_kept_in_whole_lines() {
        let mut recent = Recent::default();
        recent.write_all(b"first\n").expect("memory");
        assert_eq!(recent.text(), "first\n");
        for number in 0..RECENT_BYTES / 8 {
            writeln!(recent, "{number:010}").expect("memory");
        }
        let text = recent.text();
        assert!(text.len() <= RECENT_BYTES && text.len() > RECENT_BYTES - 11, "{} bytes", text.len());
        assert!(text.lines().all(|line| line.len() == 10), "a torn line");
        assert!(text.ends_with(&format!("{:010}\n", RECENT_BYTES / 8 - 1)));
        recent.write_all(&vec![b'x'; RECENT_BYTES + 5]).expect("memory");
        assert!(recent.0.lock().is_ok_and(|kept| kept.len() == RECENT_BYTES), "one line that is larger than all");
    }
}
