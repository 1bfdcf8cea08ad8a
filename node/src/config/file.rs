//! The options of `lode serve` in a TOML file: the names of the command line without the two hyphens, and its
//! checks, told with file, line, option, what stands there and what may.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::address::AdminAddress;
use super::{
    ALLOWED, ConfigError, ConfigErrors, ServeOptions, TABLE_OPTIONS, TableDefaults, TableDefaultsError,
    allowed,
};
use crate::cli::size::Size;

/// Longest piece of the file that a message repeats, in characters.
const MAX_SHOWN_CHARS: usize = 60;

/// A value with the place where it stands.
type Placed<'a> = Spanned<DeValue<'a>>;

/// What a file says, and where.
#[derive(Debug, Default)]
pub struct FromFile {
    /// Its options.
    pub options: ServeOptions,
    /// The line of each, by name.
    pub lines: BTreeMap<&'static str, usize>,
}

impl FromFile {
    /// The options of a file; or all that is wrong with it.
    pub fn read(path: &Path) -> Result<FromFile, ConfigErrors> {
        let shown = path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigErrors(vec![ConfigError::Io { path: shown.clone(), error }]))?;
        FromFile::from_toml(&shown, &text)
    }

    /// The options of a file with this text.
    pub(super) fn from_toml(path: &str, text: &str) -> Result<FromFile, ConfigErrors> {
        let source = Source { path, text };
        let table = DeTable::parse(text).map_err(|error| ConfigErrors(vec![source.syntax(&error)]))?;
        // In the order of the file.
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let mut file = FromFile::default();
        let mut wrong = Vec::new();
        for (key, value) in entries {
            let name = key.get_ref().as_ref();
            let Some((name, _)) = ALLOWED.iter().find(|(known, _)| *known == name) else {
                wrong.push(source.unknown(name, &key.span(), ALLOWED.map(|(known, _)| known).join(", ")));
                continue;
            };
            let before = file.options.clone();
            let found = match (*name, value.get_ref()) {
                ("table-defaults", DeValue::Table(table)) => {
                    let defaults = table_defaults(&source, table);
                    file.options.table_defaults = defaults.as_ref().ok().cloned();
                    defaults.err().unwrap_or_default()
                }
                (_, given) => match file.options.set(name, given) {
                    Some(()) if file.options.out_of_range().is_empty() => Vec::new(),
                    _ => vec![source.wrong(name, value, allowed(name))],
                },
            };
            if !found.is_empty() {
                // The rest is looked at without it.
                file.options = before;
                wrong.extend(found);
            }
            file.lines.insert(name, source.line(key.span().start));
        }
        ConfigErrors::none_of(wrong)?;
        Ok(file)
    }
}

impl ServeOptions {
    /// Sets one option; `None` where the value is not of its kind.
    fn set(&mut self, name: &str, value: &DeValue<'_>) -> Option<()> {
        match name {
            "data" => self.data = Some(value.as_str()?.into()),
            "size" => self.size = Some(size(value)?),
            "shards" => self.shards = Some(whole(value)?),
            "listen" => self.listen = Some(text::<SocketAddr>(value)?),
            "redis" => self.redis = Some(text::<SocketAddr>(value)?),
            "admin" => self.admin = Some(admin(value)?),
            "admin-hosts" => self.admin_hosts = Some(text(value)?),
            "memory" => self.memory = Some(size(value)?),
            "cache" => self.cache = Some(size(value)?),
            "table-defaults" => self.table_defaults = Some(text(value)?),
            "io-properties" => self.io_properties = Some(value.as_str()?.into()),
            "commit-window" => self.commit_window = Some(text(value)?),
            "scrub-rate" => self.scrub_rate = Some(size(value)?),
            "name" => self.name = Some(value.as_str()?.to_owned()),
            "max-connections" => self.max_connections = Some(whole(value)?),
            "segment" => self.segment = Some(size(value)?),
            "max-value" => self.max_value = Some(size(value)?),
            "no-format" => self.no_format = Some(value.as_bool()?),
            "no-pin" => self.no_pin = Some(value.as_bool()?),
            "tokens" => self.tokens = Some(value.as_str()?.into()),
            "tls-cert" => self.tls_cert = Some(value.as_str()?.into()),
            "tls-key" => self.tls_key = Some(value.as_str()?.into()),
            "client-connections" => self.client_connections = Some(whole(value)?),
            "client-requests-per-s" => self.client_requests_per_s = Some(whole(value)?),
            "slow-request" => self.slow_request = Some(text(value)?),
            "log" => self.log = Some(text(value)?),
            "log-level" => self.log_level = Some(text(value)?),
            _ => unreachable!("{name} has words, but is no option"),
        }
        Some(())
    }
}

/// `[table-defaults]`; or all that is wrong with it.
fn table_defaults(source: &Source<'_>, table: &DeTable<'_>) -> Result<TableDefaults, Vec<ConfigError>> {
    let mut defaults = TableDefaults::default();
    let mut wrong = Vec::new();
    for (key, value) in table {
        let name = key.get_ref().as_ref();
        // What is a number here is a text on the command line.
        let given = match name {
            "partitions" | "weight" => whole::<u32>(value.get_ref()).map(|number| number.to_string()),
            "requests-per-s" => whole::<u64>(value.get_ref()).map(|number| number.to_string()),
            "read-bytes-per-s" | "write-bytes-per-s" => size(value.get_ref()).map(|size| size.0.to_string()),
            _ => value.get_ref().as_str().map(str::to_owned),
        };
        let given = given.unwrap_or_default();
        let set = defaults.set(name, &given).map_err(|error| match error {
            TableDefaultsError::BadValue { expected, .. } => {
                source.wrong(&format!("table-defaults.{name}"), value, expected)
            }
            _ => source.unknown(&format!("table-defaults.{name}"), &key.span(), TABLE_OPTIONS.into()),
        });
        wrong.extend(set.err());
    }
    if wrong.is_empty() { Ok(defaults) } else { Err(wrong) }
}

/// A whole number of this width.
fn whole<T: TryFrom<u64>>(value: &DeValue<'_>) -> Option<T> {
    let number = value.as_integer()?;
    u64::from_str_radix(number.as_str(), number.radix()).ok()?.try_into().ok()
}

/// Bytes, or a text with a unit.
fn size(value: &DeValue<'_>) -> Option<Size> {
    match value.is_str() {
        true => text(value),
        false => whole(value).map(Size),
    }
}

/// A port, or a text with an address.
fn admin(value: &DeValue<'_>) -> Option<AdminAddress> {
    match value.is_str() {
        true => text(value),
        false => whole(value).map(AdminAddress::of_port),
    }
}

/// A text that means something.
fn text<T: FromStr>(value: &DeValue<'_>) -> Option<T> {
    value.as_str()?.parse().ok()
}

/// The file, to name places of.
struct Source<'a> {
    path: &'a str,
    text: &'a str,
}

impl Source<'_> {
    fn line(&self, at: usize) -> usize {
        self.text[..at].matches('\n').count() + 1
    }

    fn place(&self, span: &Range<usize>) -> String {
        format!("{}, line {}", self.path, self.line(span.start))
    }

    fn unknown(&self, key: &str, span: &Range<usize>, known: String) -> ConfigError {
        ConfigError::UnknownOption { place: self.place(span), key: key.to_owned(), known }
    }

    /// That `value`, told as it stands in the file, cannot be this option's.
    fn wrong(&self, option: &str, value: &Placed<'_>, allowed: &str) -> ConfigError {
        let whole = &self.text[value.span()];
        let mut found: String =
            whole.lines().next().unwrap_or_default().chars().take(MAX_SHOWN_CHARS).collect();
        if found.len() < whole.len() {
            found.push_str("...");
        }
        let (place, option, allowed) = (self.place(&value.span()), option.to_owned(), allowed.to_owned());
        ConfigError::InFile { place, option, found, allowed }
    }

    fn syntax(&self, error: &toml::de::Error) -> ConfigError {
        let problem = error.message().to_owned();
        let place = match error.span() {
            Some(span) => {
                let before = &self.text[..span.start];
                let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
                format!("{}, column {column}", self.place(&span))
            }
            None => self.path.to_owned(),
        };
        ConfigError::Syntax { place, problem }
    }
}
