//! What the relay is told: flag > environment > file > default (relay.toml).
//!
//! Each key stands once in the table of `keys`; file and environment both go through it.
mod file;
mod keys;

use crate::Failure;
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use shadowmesh_core::config::{Access, Limits};
use shadowmesh_runtime_std::{credential, identity::KeyPlace, tls::CertFiles};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

pub use keys::names;

/// The file that is read where there is one and no other is named.
pub const DEFAULT_FILE: &str = "/etc/shadowmesh/relay.toml";
/// Where the state is unless said otherwise.
const DEFAULT_STATE_DIR: &str = "/var/lib/shadowmesh";
/// Where `--dev` keeps its state, from the folder in which it is started.
const DEV_STATE_DIR: &str = "target/dev";
/// More than this was never meant as a configuration.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// What `limits.memory` leaves for connections at least: 128 of them.
const LEAST_CONNECTIONS_BYTES: u64 = 16 * 1024 * 1024;

/// What the command line says.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--config`.
    pub config: Option<PathBuf>,
    /// `--listen`, each time.
    pub listen: Vec<SocketAddr>,
    /// `--udp`.
    pub udp: Option<SocketAddr>,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--metrics`.
    pub metrics: Option<SocketAddr>,
    /// `--dev`.
    pub dev: bool,
}

/// Everything that can be set, merged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where clients are taken.
    pub listen: Vec<SocketAddr>,
    /// Where BIND is answered, and on the next port; unset: on the port numbers of `listen`.
    pub udp: Option<SocketAddr>,
    /// Where identity and control socket are.
    pub state_dir: PathBuf,
    /// The identity file, seen from the state directory, where one was named.
    pub identity: Option<PathBuf>,
    /// The identity that the service manager handed in.
    pub sealed_identity: Option<PathBuf>,
    /// Where metrics are served.
    pub metrics: Option<SocketAddr>,
    /// The life of a certificate.
    pub cert_lifetime: Duration,
    /// The operator's own certificate and its chain.
    pub certificate: Option<PathBuf>,
    /// Its key.
    pub certificate_key: Option<PathBuf>,
    /// How long clients have to take another relay when this one goes away.
    pub drain_timeout: Duration,
    /// Longest silence of a client before it pings.
    pub keepalive: Duration,
    /// What may be logged.
    pub log_level: String,
    /// Whether logs are JSON.
    pub log_json: bool,
    /// The bounds of everything.
    pub limits: Limits,
    /// Who may use the relay.
    pub access: Access,
    /// Networks of proxies that say from where their connections come.
    pub trusted_proxies: Vec<(IpAddr, u8)>,
    /// Loopback, token, state under `target/dev`.
    pub dev: bool,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            // Takes IPv4 as well.
            listen: vec![SocketAddr::from((core::net::Ipv6Addr::UNSPECIFIED, 443))],
            state_dir: DEFAULT_STATE_DIR.into(),
            identity: None,
            sealed_identity: None,
            udp: None,
            metrics: None,
            cert_lifetime: Duration::from_hours(24),
            certificate: None,
            certificate_key: None,
            drain_timeout: Duration::from_secs(2),
            keepalive: Duration::from_secs(20),
            log_level: "info".into(),
            log_json: false,
            limits: Limits::default(),
            access: Access::default(),
            trusted_proxies: Vec::new(),
            dev: false,
            file: None,
        }
    }
}

/// The value of an environment variable; one that is not UTF-8 reads as something no key takes.
pub fn environment(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

impl Settings {
    /// Merges all sources. `environment` gives the value of a variable.
    pub fn load(flags: &Flags, environment: &dyn Fn(&str) -> Option<String>) -> Result<Self, Failure> {
        let mut settings = Self::default();
        if flags.dev {
            settings.dev = true;
            settings.listen = vec![SocketAddr::from(([127, 0, 0, 1], 8443))];
            settings.state_dir = DEV_STATE_DIR.into();
        }
        match &flags.config {
            Some(path) => settings.read(path)?,
            // --dev is the same on every machine, whatever the machine serves besides.
            None if flags.dev => {}
            None if Path::new(DEFAULT_FILE).exists() => settings.read(Path::new(DEFAULT_FILE))?,
            None => {}
        }
        keys::from_environment(&mut settings, environment)?;
        if !flags.listen.is_empty() {
            settings.listen.clone_from(&flags.listen);
        }
        if let Some(dir) = &flags.state_dir {
            settings.state_dir.clone_from(dir);
        }
        if !settings.dev {
            let directory = credential::directory(environment(credential::DIRECTORY).map(Into::into));
            settings.sealed_identity = credential::find(directory.as_deref(), credential::IDENTITY);
        }
        settings.udp = flags.udp.or(settings.udp);
        settings.metrics = flags.metrics.or(settings.metrics);
        settings.check()?;
        Ok(settings)
    }

    /// The settings of one file's text alone, and nothing from environment and command line; `path` is for messages.
    pub fn of_text(path: &Path, text: &str) -> Result<Self, Failure> {
        let mut settings = Self::default();
        file::apply(&mut settings, path, text)?;
        settings.file = Some(path.to_owned());
        settings.check()?;
        Ok(settings)
    }

    /// Where the identity is: the file that was named, else what the service manager handed in, else the usual file.
    pub fn identity(&self) -> KeyPlace {
        match (&self.identity, &self.sealed_identity) {
            (None, Some(sealed)) => KeyPlace::Credential(sealed.clone()),
            (named, _) => KeyPlace::File(self.state_dir.join(named.as_deref().unwrap_or(Path::new("relay.key")))),
        }
    }

    /// Where a running relay answers.
    pub fn control_socket(&self) -> PathBuf {
        self.state_dir.join("control.sock")
    }

    /// The certificate that is shown instead of one of the relay's own.
    pub fn certificate_files(&self) -> Option<CertFiles> {
        let (certificate, key) = (self.certificate.clone()?, self.certificate_key.clone()?);
        Some(CertFiles { certificate, key })
    }

    /// The keys that differ in `other` and that only a start takes up.
    pub fn fixed_that_differ(&self, other: &Self) -> Vec<&'static str> {
        let all = [
            ("identity.file", (&self.identity, &self.sealed_identity) != (&other.identity, &other.sealed_identity)),
            ("state.dir", self.state_dir != other.state_dir),
            ("listen.tcp", self.listen != other.listen),
            ("listen.udp", self.udp != other.udp),
            ("tls.cert_lifetime", self.cert_lifetime != other.cert_lifetime),
            ("log.format", self.log_json != other.log_json),
            ("metrics.listen", self.metrics != other.metrics),
            ("limits.keepalive", self.keepalive != other.keepalive),
            ("limits.frame_bytes", self.limits.frame_bytes != other.limits.frame_bytes),
            ("limits.queue_frames", self.limits.queue_frames != other.limits.queue_frames),
        ];
        all.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect()
    }

    /// What the settings were read from, for people.
    pub fn source(&self) -> String {
        self.file.as_ref().map_or_else(|| "configuration".into(), |path| path.display().to_string())
    }

    fn read(&mut self, path: &Path) -> Result<(), Failure> {
        let wrong = |why: String| Failure::usage(format!("{}: {why}", path.display()));
        let meta = fs::metadata(path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => wrong("there is no such file; name one that exists, or leave --config out".into()),
            _ => wrong(error.to_string()),
        })?;
        if !meta.is_file() || meta.len() > MAX_FILE_BYTES {
            return Err(wrong("this is not a configuration file; right would be a TOML file of at most 1 MiB".into()));
        }
        let text = fs::read_to_string(path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => wrong("this is not text; right would be a TOML file in UTF-8".into()),
            _ => wrong(error.to_string()),
        })?;
        file::apply(self, path, &text)?;
        self.file = Some(path.to_owned());
        Ok(())
    }

    /// What no single key can see.
    fn check(&self) -> Result<(), Failure> {
        let limits = &self.limits;
        let wrong = |why: String| Err(Failure::usage(format!("{}: {why}", self.source())));
        match (&self.certificate, &self.certificate_key) {
            (Some(_), None) => return wrong("tls.certificate needs tls.key: the PEM file with the key of the certificate".into()),
            (None, Some(_)) => return wrong("tls.key needs tls.certificate: the PEM file with the certificate and its chain".into()),
            _ => {}
        }
        if limits.queue_bytes < limits.frame_bytes + 8 {
            return wrong(format!(
                "limits.queue_bytes ({}) must hold one frame: at least limits.frame_bytes ({}) + 8",
                limits.queue_bytes, limits.frame_bytes
            ));
        }
        if limits.queue_total_bytes < limits.queue_bytes {
            return wrong(format!(
                "limits.queue_total_bytes ({}) must be at least limits.queue_bytes ({})",
                limits.queue_total_bytes, limits.queue_bytes
            ));
        }
        let least = (limits.queue_memory() as u64).saturating_add(LEAST_CONNECTIONS_BYTES);
        if limits.memory < least {
            return wrong(format!(
                "limits.memory ({}) must hold the queues, 5/4 of limits.queue_total_bytes ({}), and 16 MiB for connections: at least {least}",
                limits.memory, limits.queue_total_bytes
            ));
        }
        if limits.preauth_per_source > limits.preauth_total {
            return wrong(format!(
                "limits.preauth_per_source ({}) must be at most limits.preauth_total ({})",
                limits.preauth_per_source, limits.preauth_total
            ));
        }
        if limits.join_burst < limits.joins_per_second {
            return wrong(format!(
                "limits.join_burst ({}) must be at least limits.joins_per_second ({})",
                limits.join_burst, limits.joins_per_second
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
