//! Values as they were written, with where they stand: the layers flag, environment, file and default.
//!
//! Every value of every layer is checked, also one that another layer overrides: a mistake in a file is told while it is
//! fresh, not on the day on which the flag goes away.
use super::keys::{self, KEYS, Key, PEER_KEYS};
use crate::failure::Failure;
use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
};
use toml::de::{DeTable, DeValue};

/// Larger files are not configuration; the bound keeps a wrong path (a disk, a log) from being read whole.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A value before it is understood.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Raw {
    /// A string; from flags and variables always this.
    Text(String),
    /// An array of strings.
    List(Vec<String>),
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Integer(i64),
}

impl fmt::Display for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::List(list) => write!(f, "{list:?}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
        }
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A command line flag.
    Flag(&'static str),
    /// An environment variable.
    Variable(String),
    /// A line of the configuration file.
    File {
        /// The file as it was named.
        path: String,
        /// Counted from 1.
        line: usize,
    },
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "{name}"),
            Self::Variable(name) => write!(f, "{name}"),
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Default => write!(f, "default"),
        }
    }
}

/// One key as one layer gives it.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// The key's full name.
    pub(crate) key: &'static str,
    /// What was written.
    pub(crate) raw: Raw,
    /// Where.
    pub(crate) source: Source,
}

/// One `[[peer]]` table as written.
#[derive(Clone, Debug, Default)]
pub(crate) struct GivenPeer {
    /// Key, value and line.
    pub(crate) fields: BTreeMap<&'static str, (Raw, usize)>,
    /// Line of the table's head.
    pub(crate) line: usize,
}

/// What a configuration file holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileLayer {
    /// The file as it was named.
    pub(crate) path: String,
    /// Plain keys.
    pub(crate) given: Vec<Given>,
    /// `[[peer]]` tables.
    pub(crate) peers: Vec<GivenPeer>,
}

/// The values of all variables of the table that are set.
pub(crate) fn environment(variables: &BTreeMap<String, String>) -> Vec<Given> {
    KEYS.iter()
        .filter_map(|key| {
            let name = key.variable();
            let text = variables.get(&name)?.clone();
            Some(Given { key: key.name, raw: Raw::Text(text), source: Source::Variable(name) })
        })
        .collect()
}

/// Variables of other programs that are understood too.
#[derive(Clone, Debug, Default)]
pub(crate) struct Customary {
    /// The proxy for TLS, and the variable that names it.
    pub(crate) proxy: Option<(&'static str, String)>,
    /// Hosts that are reached without it.
    pub(crate) no_proxy: Vec<String>,
}

impl Customary {
    /// Each is known in small and in large letters; the small ones go first, and an empty one is none.
    pub(crate) fn of(variables: &BTreeMap<String, String>) -> Self {
        let first = |names: &[&'static str]| {
            let mut given = names.iter().filter_map(|name| variables.get(*name).map(|text| (*name, text.trim().to_owned())));
            given.find(|(_, text)| !text.is_empty())
        };
        let listed = first(&["no_proxy", "NO_PROXY"]).map(|(_, text)| text).unwrap_or_default();
        let no_proxy = listed.split(',').map(|host| host.trim().to_owned()).filter(|host| !host.is_empty()).collect();
        Self { proxy: first(&["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]), no_proxy }
    }
}

/// Reads and takes apart a configuration file. `Ok(None)`: there is none.
pub(crate) fn read_file(path: &Path) -> Result<Option<FileLayer>, Failure> {
    let shown = path.display();
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Failure::usage(format!("{shown}: cannot be read: {error}"))),
    };
    if !meta.is_file() {
        return Err(Failure::usage(format!("{shown}: is not a file; give a TOML file such as /etc/shadowmesh/peer.toml")));
    }
    if meta.len() > MAX_FILE_BYTES {
        return Err(Failure::usage(format!("{shown}: has {} bytes; a configuration file has at most {MAX_FILE_BYTES}", meta.len())));
    }
    let bytes = std::fs::read(path).map_err(|error| Failure::usage(format!("{shown}: cannot be read: {error}")))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = line_at(error.as_bytes(), error.utf8_error().valid_up_to());
        Failure::usage(format!("{shown}:{line}: is not UTF-8 text; a configuration file is TOML"))
    })?;
    parse_text(&shown.to_string(), &text).map(Some)
}

/// Takes apart the text of a configuration file; `path` is for messages.
pub(crate) fn parse_text(path: &str, text: &str) -> Result<FileLayer, Failure> {
    let reader = Reader { path, text };
    let root = DeTable::parse(text).map_err(|error| {
        let line = error.span().map_or(1, |span| reader.line(&span));
        Failure::usage(format!("{path}:{line}: is not valid TOML: {}", error.message().replace('\n', "; ")))
    })?;
    let mut layer = FileLayer { path: path.to_owned(), ..FileLayer::default() };
    for (name, value) in root.get_ref() {
        let line = reader.line(&name.span());
        match (name.get_ref().as_ref(), value.get_ref()) {
            ("peer", DeValue::Array(tables)) => {
                for table in tables {
                    layer.peers.push(reader.peer(reader.line(&table.span()), table.get_ref())?);
                }
            }
            ("peer", _) => return Err(reader.wrong(line, "peer", "is not a list of tables; write each peer under [[peer]]")),
            (section, DeValue::Table(table)) => {
                for (key, value) in table {
                    let full = format!("{section}.{}", key.get_ref());
                    let line = reader.line(&key.span());
                    let known = keys::find(&full).ok_or_else(|| reader.unknown(line, section, &full))?;
                    let raw = reader.raw(line, known.name, value.get_ref())?;
                    layer.given.push(Given { key: known.name, raw, source: Source::File { path: path.to_owned(), line } });
                }
                if table.is_empty() && !sections().contains(&section) {
                    return Err(reader.unknown(line, section, section));
                }
            }
            (other, _) => return Err(reader.unknown(line, "", other)),
        }
    }
    Ok(layer)
}

/// The line, counted from 1, in which a byte stands.
fn line_at(text: &[u8], at: usize) -> usize {
    text.split(|byte| *byte == b'\n')
        .scan(0, |begin, line| {
            *begin += line.len() + 1;
            Some(*begin)
        })
        .take_while(|end| *end <= at)
        .count()
        + 1
}

fn sections() -> Vec<&'static str> {
    let mut sections: Vec<&str> = KEYS.iter().filter_map(|key| key.name.split('.').next()).collect();
    sections.dedup();
    sections
}

/// What is needed to turn spans into lines and lines into messages.
struct Reader<'a> {
    path: &'a str,
    text: &'a str,
}

impl Reader<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        line_at(self.text.as_bytes(), span.start)
    }

    fn wrong(&self, line: usize, key: &str, what: &str) -> Failure {
        Failure::usage(format!("{}:{line}: {key}: {what}", self.path))
    }

    fn unknown(&self, line: usize, section: &str, name: &str) -> Failure {
        let hint = if let Some(near) = keys::nearest(name, KEYS.iter().map(|key| key.name)) {
            format!("did you mean {near}?")
        } else {
            let inside: Vec<&str> = KEYS.iter().filter(|key| key.name.split('.').next() == Some(section)).map(|key| key.name).collect();
            if inside.is_empty() {
                format!("the sections are [{}] and [[peer]]", sections().join("], ["))
            } else {
                format!("[{section}] knows {}", inside.join(", "))
            }
        };
        self.wrong(line, name, &format!("unknown key; {hint}"))
    }

    fn raw(&self, line: usize, key: &str, value: &DeValue<'_>) -> Result<Raw, Failure> {
        match value {
            DeValue::String(text) => Ok(Raw::Text(text.clone().into_owned())),
            DeValue::Boolean(value) => Ok(Raw::Bool(*value)),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map(Raw::Integer)
                .map_err(|_| self.wrong(line, key, &format!("{} is too large a number", number.as_str()))),
            DeValue::Array(items) => items
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::String(text) => Ok(text.clone().into_owned()),
                    other => Err(self.wrong(
                        self.line(&item.span()),
                        key,
                        &format!("holds a value of type {}; the list holds strings in quotes", other.type_str()),
                    )),
                })
                .collect::<Result<_, _>>()
                .map(Raw::List),
            DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => {
                Err(self.wrong(line, key, &format!("is of type {}; write the value as text in quotes", value.type_str())))
            }
        }
    }

    fn peer(&self, line: usize, value: &DeValue<'_>) -> Result<GivenPeer, Failure> {
        let DeValue::Table(table) = value else {
            return Err(self.wrong(line, "peer", "is not a list of tables; write each peer under [[peer]]"));
        };
        let mut peer = GivenPeer { line, ..GivenPeer::default() };
        for (key, value) in table {
            let line = self.line(&key.span());
            let name = key.get_ref().as_ref();
            let Some(known) = PEER_KEYS.into_iter().find(|known| *known == name) else {
                return Err(self.wrong(line, &format!("peer.{name}"), "unknown key; [[peer]] knows id, name, allowed, endpoint"));
            };
            let raw = self.raw(line, &format!("peer.{known}"), value.get_ref())?;
            peer.fields.insert(known, (raw, line));
        }
        Ok(peer)
    }
}

/// All layers together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    /// Command line.
    pub(crate) flags: Vec<Given>,
    /// Environment.
    pub(crate) variables: Vec<Given>,
    /// File.
    pub(crate) file: FileLayer,
    /// What other programs go by.
    pub(crate) customary: Customary,
    /// Where the service manager put secrets for us.
    pub(crate) credentials: Option<PathBuf>,
}

impl Layers {
    /// The layers in order of precedence.
    pub(crate) fn in_order(&self) -> [&[Given]; 3] {
        [&self.flags, &self.variables, &self.file.given]
    }

    /// Understands a key in every layer that gives it, and returns what wins. `None`: only the default is left.
    pub(crate) fn take<T>(
        &self,
        key: &'static Key,
        parse: impl Fn(&Raw) -> Result<T, String>,
    ) -> Result<Option<(T, Raw, Source)>, Failure> {
        let mut winner = None;
        for given in self.in_order().into_iter().flatten().filter(|given| given.key == key.name) {
            let value = parse(&given.raw).map_err(|why| Failure::usage(format!("{}: {}: {why}", given.source, key.name)))?;
            if winner.is_none() {
                winner = Some((value, given.raw.clone(), given.source.clone()));
            }
        }
        Ok(winner)
    }
}
