//! Log lines on stderr: text or JSON, coloured only on a terminal, with a level that SIGHUP can change.
use crate::settings::Settings;
use std::io::{IsTerminal, stderr};
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// Changes the level of the running process.
pub(crate) struct Levels(reload::Handle<EnvFilter, Registry>);

impl Levels {
    /// Takes other filters from now on.
    pub(crate) fn set(&self, level: &str) -> Result<(), String> {
        let filter = EnvFilter::try_new(level).map_err(|error| error.to_string())?;
        self.0.reload(filter).map_err(|error| error.to_string())
    }
}

/// Starts logging for the whole process.
pub(crate) fn start(settings: &Settings) -> Levels {
    let filter = EnvFilter::try_new(&settings.log_level).expect("the filter was checked with the settings");
    let (filter, handle) = reload::Layer::new(filter);
    let base = tracing_subscriber::registry().with(filter);
    let colour = stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    // A second subscriber in one process would be a test's: the first one stays.
    let _ = if settings.log_json {
        base.with(fmt::layer().json().with_writer(stderr)).try_init()
    } else {
        base.with(fmt::layer().with_ansi(colour).with_target(false).with_writer(stderr)).try_init()
    };
    Levels(handle)
}
