//! Where each option's value comes from: the command line, the environment, a file, or nobody. The first of them that
//! says something counts.

use std::ffi::OsString;
use std::path::Path;

use clap::Parser;
use lode_node::serve::ServeConfig;
use serde_json::{Value, json};

use super::file::FromFile;
use super::{ALLOWED, ConfigError, ConfigErrors, DEFAULT_DATA, ServeOptions, allowed};
use crate::cli::size::{Size, Span};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody has said anything.
    Default,
    /// The configuration file.
    File {
        /// Its path.
        path: String,
        /// The line.
        line: usize,
    },
    /// A variable of the environment.
    Environment(String),
    /// The command line.
    Flag,
}

impl Origin {
    /// In one word.
    pub fn word(&self) -> &'static str {
        match self {
            Origin::Default => "default",
            Origin::File { .. } => "file",
            Origin::Environment(_) => "environment",
            Origin::Flag => "flag",
        }
    }

    /// With its place.
    pub fn place(&self) -> String {
        match self {
            Origin::Default => "default".to_owned(),
            Origin::File { path, line } => format!("file {path}, line {line}"),
            Origin::Environment(variable) => format!("environment, {variable}"),
            Origin::Flag => "flag".to_owned(),
        }
    }
}

/// What a variable of the environment holds, if it is there.
type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// What other commands read from the environment.
const OTHERS: [&str; 8] = [
    "LODE_ADMIN",
    "LODE_CONFIG",
    "LODE_MEASURE_OPTIONS",
    "LODE_NODE",
    "LODE_TLS",
    "LODE_TLS_CA",
    "LODE_TOKEN",
    "LODE_TOKEN_FILE",
];

/// Everything that a node was told, by who told it.
#[derive(Debug, Default)]
pub struct Layers {
    flags: ServeOptions,
    environment: ServeOptions,
    file: FromFile,
    path: String,
}

/// One option as the command line would have it, by itself.
#[derive(Debug, Parser)]
#[command(no_binary_name = true)]
struct Alone {
    #[command(flatten)]
    options: ServeOptions,
}

/// The variable that says what this option does.
pub fn variable(option: &str) -> String {
    format!("LODE_{}", option.to_ascii_uppercase().replace('-', "_"))
}

/// Those of all options.
pub fn variables() -> impl Iterator<Item = String> {
    ALLOWED.into_iter().map(|(name, _)| variable(name))
}

impl Layers {
    /// Takes them together; or tells all that is wrong with any of them.
    pub fn gather(flags: &ServeOptions, file: Option<&Path>) -> Result<Layers, ConfigErrors> {
        let names: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
        Layers::of(flags, (&names, &|variable| std::env::var_os(variable)), file.map(FromFile::read), file)
    }

    fn of(
        flags: &ServeOptions,
        (names, environment): (&[OsString], Lookup<'_>),
        file: Option<Result<FromFile, ConfigErrors>>,
        path: Option<&Path>,
    ) -> Result<Layers, ConfigErrors> {
        let mut wrong: Vec<ConfigError> = names.iter().filter_map(|name| misspelt(name.to_str()?)).collect();
        let mut layers = Layers {
            flags: flags.clone(),
            path: path.map(|path| path.display().to_string()).unwrap_or_default(),
            ..Layers::default()
        };
        match file.transpose() {
            Ok(file) => layers.file = file.unwrap_or_default(),
            Err(errors) => wrong.extend(errors.0),
        }
        for (name, _) in ALLOWED {
            let Some(given) = environment(&variable(name)) else { continue };
            match of_environment(name, &given) {
                Ok(options) => layers.environment = options.or(std::mem::take(&mut layers.environment)),
                Err(error) => wrong.push(error),
            }
        }
        wrong.extend(layers.merged().check());
        ConfigErrors::none_of(wrong)?;
        Ok(layers)
    }

    /// What counts.
    pub fn merged(&self) -> ServeOptions {
        self.flags.clone().or(self.environment.clone()).or(self.file.options.clone())
    }

    /// What the node is told.
    pub fn to_config(&self) -> Result<ServeConfig, ConfigErrors> {
        self.merged().to_config()
    }

    fn origin(&self, name: &'static str) -> Origin {
        match () {
            () if self.flags.told(name).is_some() => Origin::Flag,
            () if self.environment.told(name).is_some() => Origin::Environment(variable(name)),
            () if self.file.options.told(name).is_some() => {
                let line = self.file.lines.get(name).copied().unwrap_or(1);
                Origin::File { path: self.path.clone(), line }
            }
            () => Origin::Default,
        }
    }

    /// Every option, its value (null where the node chooses by itself), and who says so.
    pub fn effective(&self) -> Vec<(&'static str, Value, Origin)> {
        let (merged, defaults) = (self.merged(), defaults());
        let row = |(name, _): (&'static str, &str)| {
            let value = merged.told(name).or_else(|| defaults.told(name)).unwrap_or(Value::Null);
            (name, value, self.origin(name))
        };
        ALLOWED.into_iter().map(row).collect()
    }
}

/// A variable that is nearly one of a node's: somebody meant it to say something. Any other may be there for other reasons: in
/// Kubernetes a service called lode makes some.
fn misspelt(name: &str) -> Option<ConfigError> {
    let given = name.strip_prefix("LODE_").filter(|_| !OTHERS.contains(&name))?;
    let distance = |variable: &String| strsim::osa_distance(given, &variable["LODE_".len()..]);
    let meant = variables().min_by_key(distance)?;
    // One letter in three may be wrong, or in another's place.
    let is_near = (1..=(meant.len() - "LODE_".len()) / 3).contains(&distance(&meant));
    is_near.then(|| ConfigError::Misspelt { variable: name.to_owned(), meant })
}

/// What a variable says, as the command line would.
fn of_environment(name: &'static str, given: &OsString) -> Result<ServeOptions, ConfigError> {
    let wrong = || ConfigError::InEnvironment {
        variable: variable(name),
        given: format!("{:?}", given.to_string_lossy()),
        allowed: allowed(name),
    };
    let mut word = OsString::from(format!("--{name}="));
    word.push(given);
    let options = Alone::try_parse_from([word]).map_err(|_| wrong())?.options;
    if options.out_of_range().is_empty() { Ok(options) } else { Err(wrong()) }
}

/// What a node does that was told nothing, where that is one value.
fn defaults() -> ServeOptions {
    let node = ServeConfig::default();
    ServeOptions {
        data: Some(DEFAULT_DATA.into()),
        size: Some(Size(node.size)),
        listen: Some(node.listen),
        memory: Some(Size(node.memory_bytes)),
        table_defaults: Some(super::TableDefaults::default()),
        scrub_rate: Some(Size(node.scrub_bytes_per_s)),
        name: Some(node.name),
        max_connections: Some(node.max_connections),
        max_value: Some(Size(u64::from(node.max_value_bytes))),
        no_format: Some(!node.may_format),
        no_pin: Some(!node.pin),
        slow_request: Some(Span(node.slow_request)),
        log: Some(Default::default()),
        log_level: Some(Default::default()),
        ..ServeOptions::default()
    }
}

impl ServeOptions {
    /// The value of an option as a file would have it; nothing where it is left out.
    pub fn told(&self, name: &str) -> Option<Value> {
        let size = |size: Option<Size>| size.map(|size| json!(size.0));
        let span = |span: Option<Span>| span.map(|span| json!(span.to_string()));
        let path =
            |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| json!(path.display().to_string()));
        match name {
            "data" => path(&self.data),
            "size" => size(self.size),
            "shards" => self.shards.map(Value::from),
            "listen" => self.listen.map(|addr| json!(addr.to_string())),
            "redis" => self.redis.map(|addr| json!(addr.to_string())),
            "admin" => self.admin.map(|addr| json!(addr.to_string())),
            "admin-hosts" => self.admin_hosts.as_ref().map(|hosts| json!(hosts.to_string())),
            "memory" => size(self.memory),
            "cache" => size(self.cache),
            "table-defaults" => self.table_defaults.as_ref().map(|defaults| json!(defaults.to_string())),
            "io-properties" => path(&self.io_properties),
            "commit-window" => span(self.commit_window),
            "slow-request" => span(self.slow_request),
            "scrub-rate" => size(self.scrub_rate),
            "name" => self.name.as_ref().map(|name| json!(name)),
            "max-connections" => self.max_connections.map(Value::from),
            "segment" => size(self.segment),
            "max-value" => size(self.max_value),
            "no-format" => self.no_format.map(Value::from),
            "no-pin" => self.no_pin.map(Value::from),
            "tokens" => path(&self.tokens),
            "tls-cert" => path(&self.tls_cert),
            "tls-key" => path(&self.tls_key),
            "client-connections" => self.client_connections.map(Value::from),
            "client-requests-per-s" => self.client_requests_per_s.map(Value::from),
            "log" => self.log.map(|log| json!(log.to_string())),
            "log-level" => self.log_level.map(|level| json!(level.to_string())),
            _ => unreachable!("{name} has words, but is no option"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(flags: &[&str], environment: &[(&str, &str)], file: &str) -> Result<Layers, ConfigErrors> {
        let flags = Alone::try_parse_from(flags).expect("good flags").options;
        let found = |name: &str| {
            environment.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        };
        let names: Vec<OsString> = environment.iter().map(|(name, _)| OsString::from(name)).collect();
        let file = FromFile::from_toml("n.toml", file);
        Layers::of(&flags, (&names, &found), Some(file), Some(Path::new("n.toml")))
    }

    #[test]
    fn the_nearest_to_the_command_line_counts_and_its_place_is_told() {
        let file = "\nname = 'file'\nmemory = '2GiB'\nmax-connections = 7";
        let environment = [("LODE_NAME", "environment"), ("LODE_MEMORY", "3GiB"), ("LODE_NO_PIN", "true")];
        let layers = layers(&["--name=flag"], &environment, file).unwrap();
        let merged = layers.merged();
        assert_eq!((merged.name.as_deref(), merged.memory), (Some("flag"), Some(Size(3 << 30))));
        assert_eq!((merged.max_connections, merged.no_pin), (Some(7), Some(true)));
        let of = |name: &'static str| layers.origin(name).place();
        assert_eq!((of("name"), of("memory").as_str()), ("flag".into(), "environment, LODE_MEMORY"));
        assert_eq!((of("max-connections"), of("size").as_str()), ("file n.toml, line 4".into(), "default"));
        assert_eq!(layers.effective().len(), ALLOWED.len());
    }

    #[test]
    fn a_variable_that_is_nearly_an_option_is_named() {
        for (name, meant) in [
            ("LODE_MEMROY", "LODE_MEMORY"),
            ("LODE_SHARD", "LODE_SHARDS"),
            ("LODE_COMMITWINDOW", "LODE_COMMIT_WINDOW"),
        ] {
            let told = layers(&[], &[(name, "7")], "").unwrap_err().to_string();
            assert!(told.contains(name) && told.contains(&format!("if {meant} is meant")), "{told}");
        }
        let others =
            ["LODE_SERVICE_HOST", "LODE_PORT", "LODE_PORT_7411_TCP_ADDR", "LODE_SEEDS", "LOAD_MEMORY"];
        for name in others.into_iter().chain(OTHERS) {
            assert!(layers(&[], &[(name, "7")], "").is_ok(), "{name}");
        }
    }

    #[test]
    fn what_any_command_reads_is_known() {
        fn all(command: &clap::Command) -> Vec<String> {
            let own = command
                .get_arguments()
                .filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned));
            own.chain(command.get_subcommands().flat_map(all)).collect()
        }
        let read = all(&<crate::cli::args::Cli as clap::CommandFactory>::command());
        assert!(read.contains(&"LODE_CONFIG".to_owned()));
        for variable in read {
            assert!(
                OTHERS.contains(&variable.as_str()) || variables().any(|known| known == variable),
                "{variable}"
            );
        }
    }

    #[test]
    fn what_is_told_reads_back_as_the_same() {
        let text = "data = 'd'\nsize = 123456789\ncommit-window = '1500us'\nlog = 'json'\nlog-level = 'warn'\n\
                    table-defaults = 'store=compact,partitions=3,weight=7,burst=5m,read-bytes-per-s=10'\nno-pin = true";
        let said = layers(&[], &[], text).unwrap();
        let lines = said.effective().into_iter().filter(|(_, value, _)| !value.is_null());
        let file: String = lines.map(|(name, value, _)| format!("{name} = {value}\n")).collect();
        let again = layers(&[], &[], &file).unwrap();
        let values =
            |layers: &Layers| layers.effective().into_iter().map(|(_, value, _)| value).collect::<Vec<_>>();
        assert_eq!(values(&said), values(&again));
        assert_eq!(said.merged().table_defaults, again.merged().table_defaults);
    }

    #[test]
    fn all_that_is_wrong_is_named_at_once() {
        let file = "shrads = 2\nname = 5\nsegment = 3\n[table-defaults]\nstor = 1\npartitions = 0";
        let environment = [("LODE_SIZE", "0"), ("LODE_LISTEN", "nowhere")];
        let told = layers(&[], &environment, file).unwrap_err();
        assert_eq!(told.0.len(), 7, "{told}");
        let told = told.to_string();
        for word in [
            "line 1: there is no option shrads",
            "name cannot be 5",
            "segment cannot be 3",
            "table-defaults.stor",
            "table-defaults.partitions cannot be 0",
            "LODE_SIZE cannot be \"0\"",
            "LODE_LISTEN cannot be \"nowhere\"",
        ] {
            assert!(told.contains(word), "{word} is missing in {told}");
        }
        assert!(told.starts_with("7 things are wrong with what this node is told:\n  "), "{told}");
    }

    #[test]
    fn contradictions_are_named_all_of_them() {
        let flags = [
            "--shards=4",
            "--memory=64MiB",
            "--segment=1GiB",
            "--size=1GiB",
            "--listen=127.0.0.1:9",
            "--redis=127.0.0.1:9",
            "--tls-cert=c.pem",
        ];
        let told = layers(&flags, &[], "").unwrap_err();
        assert_eq!(told.0.len(), 4, "{told}");
        let good = [
            "--shards=4",
            "--memory=256MiB",
            "--segment=1MiB",
            "--size=1GiB",
            "--listen=127.0.0.1:0",
            "--redis=127.0.0.1:0",
        ];
        assert!(layers(&good, &[], "").is_ok());
    }
}
