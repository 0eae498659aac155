//! Log lines on stderr: text or JSON, coloured only on a terminal, with a level that SIGHUP can change.
use crate::config::parse::LogFormat;
use std::io::{IsTerminal, stderr};
use tracing_subscriber::{EnvFilter, Registry, filter::ParseError, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

/// Changes the level of the running process.
pub(crate) struct Levels(reload::Handle<EnvFilter, Registry>);

impl Levels {
    /// Takes another level or other filters from now on.
    pub(crate) fn set(&self, level: &str) -> Result<(), String> {
        let filter = filter(level).map_err(|error| error.to_string())?;
        self.0.reload(filter).map_err(|error| error.to_string())
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
    let base = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Json => base.with(fmt::layer().json().flatten_event(true).with_writer(stderr)).try_init(),
        LogFormat::Text => {
            let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let ansi = stderr().is_terminal() && !no_colour;
            base.with(fmt::layer().with_ansi(ansi).with_target(false).with_writer(stderr)).try_init()
        }
    };
    started.map(|()| Levels(handle)).map_err(|error| error.to_string())
}
