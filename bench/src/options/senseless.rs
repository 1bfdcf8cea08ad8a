//! Options that a verb shares with others and has no use for: refused, not passed over.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{CommandFactory, FromArgMatches};

use super::Arguments;

const OWN_NODE: &str = "it starts nodes of its own";

/// Verb, option, and why the verb has no use for it.
const SENSELESS: [(&str, &str, &str); 16] = [
    ("hostile", "addr", OWN_NODE),
    ("hostile", "protocol", OWN_NODE),
    ("hostile", "token_file", OWN_NODE),
    ("hostile", "tls_ca", OWN_NODE),
    ("restart", "addr", OWN_NODE),
    ("restart", "protocol", OWN_NODE),
    ("restart", "tables", "it fills one table"),
    ("restart", "token_file", OWN_NODE),
    ("restart", "tls_ca", OWN_NODE),
    ("partitions", "addr", OWN_NODE),
    ("partitions", "protocol", OWN_NODE),
    ("partitions", "partitions", "--counts says how many"),
    ("partitions", "token_file", OWN_NODE),
    ("partitions", "tls_ca", OWN_NODE),
    ("tenants", "protocol", "only lode has partitions, of which one is flooded"),
    ("versus-floor", "protocol", "its ratios take what only lode counts"),
];

impl Arguments {
    /// What a command line asks for. An error prints itself, and ends the process, by [`clap::Error::exit`].
    pub fn of(line: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Arguments, clap::Error> {
        let hide = |command: clap::Command, (verb, option, _): &(&'static str, &'static str, _)| {
            let (verb, option) = (*verb, *option);
            command.mut_subcommand(verb, |verb| verb.mut_arg(option, |option| option.hide(true)))
        };
        let mut command = SENSELESS.iter().fold(Arguments::command(), hide);
        let matches = command.try_get_matches_from_mut(line)?;
        if let Some((verb, of_verb)) = matches.subcommand() {
            for (_, option, why) in SENSELESS.iter().filter(|senseless| senseless.0 == verb) {
                if of_verb.value_source(option) == Some(ValueSource::CommandLine) {
                    let option = option.replace('_', "-");
                    let message = format!("`{verb}` has no use for --{option}: {why}");
                    return Err(command.error(ErrorKind::ArgumentConflict, message));
                }
            }
        }
        Arguments::from_arg_matches(&matches).map_err(|error| error.format(&mut command))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(line: &str) -> Result<Arguments, String> {
        Arguments::of(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_verb_has_no_use_for_is_refused_and_not_shown() {
        for (verb, option, why) in SENSELESS {
            let option = option.replace('_', "-");
            let value = if option == "protocol" { "lode" } else { "7" };
            let needed = match verb {
                "restart" | "versus-floor" => " --drive d",
                "hostile" | "partitions" => " --dir d",
                _ => "",
            };
            assert!(of(&format!("lode-bench {verb}{needed}")).is_ok(), "{verb}");
            let refused = of(&format!("lode-bench {verb}{needed} --{option} {value}")).unwrap_err();
            assert!(refused.contains(why) && refused.contains(&option), "{refused}");
            let help = of(&format!("lode-bench {verb} --help")).unwrap_err();
            assert!(!help.contains(&format!("--{option} ")), "{help}");
        }
        assert!(of("lode-bench run --addr 127.0.0.1:1 --protocol resp --tables 2").is_ok());
    }
}
