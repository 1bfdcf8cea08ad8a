//! `lode shell`: the commands at a prompt, with history and completion, in redis-cli's manner.

mod complete;
pub mod parse;
mod transaction;

use std::ffi::OsString;
use std::fs;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use clap::{Parser, Subcommand};
use lode_net::client::Transaction;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};
use serde_json::json;

use self::complete::{Completions, takes_table};
use super::args::{DataCommand, Global, ShellArgs};
use super::data::{self, Words};
use super::exit::{Exit, Failure};
use super::output::{Output, Style};
use super::session::Session;

const HELP: &str = "  get KEY                 put KEY VALUE           del KEY
  incr KEY [BY]           min    max              count [START [END]]
  ttl KEY                 expire KEY TIME         persist KEY
  scan [START [END]]
  use TABLE               table create|drop|list|set|show  batch FILE
  begin KEY [--read-only] commit                  rollback
  stats [PATH]            ping                    checkpoint
  help COMMAND            exit
Between begin and commit, get, put, del, scan and count are the transaction's, within the partition of KEY.
Without `use`, the table comes first: get TABLE KEY. Words with blanks go in quotes; double quotes take \\n, \\x00, \\\".";

/// A line of the shell.
#[derive(Debug, Parser)]
#[command(multicall = true, disable_help_subcommand = true)]
struct ShellLine {
    #[command(subcommand)]
    command: ShellCommand,
}

#[derive(Debug, Subcommand)]
enum ShellCommand {
    /// Take a table for the commands that follow; none where left out
    Use {
        /// The table
        table: Option<String>,
    },
    /// Say what there is, or how a command is used
    Help {
        /// The command
        command: Option<String>,
    },
    /// Begin a transaction on the partition that holds a key
    Begin {
        /// The table
        table: String,
        /// The key
        #[arg(allow_hyphen_values = true)]
        key: OsString,
        /// See one instant, write nothing, conflict with nobody
        #[arg(long)]
        read_only: bool,
    },
    /// Write what was put and deleted since begin, if nothing that was read has changed
    Commit,
    /// End the transaction and forget its writes
    Rollback,
    /// Leave
    #[command(alias = "quit")]
    Exit,
    #[command(flatten)]
    Data(DataCommand),
}

type Lines = Editor<Completions, FileHistory>;

/// Reads and does lines until there are no more.
pub fn run(args: &ShellArgs, global: &Global, session: &Session) -> Result<(), Failure> {
    let style = if global.json { Style::Json } else { Style::Shell };
    let mut shell = Shell { session, out: Output::new(style), table: args.table.clone(), open: None };
    let interactive = std::io::stdin().is_terminal();
    let mut lines = editor()?;
    let history = history_path();
    if let Some(path) = &history {
        // No history yet is no error.
        let _ = lines.load_history(path);
    }
    if interactive {
        let greeting = format!("lode at {}; `help` says what there is, Ctrl-D leaves.", global.node);
        shell.out.done(&greeting, &json!({ "node": global.node }))?;
        shell.out.flush()?;
    }
    let mut worst = Ok(());
    loop {
        if let Some(helper) = lines.helper_mut() {
            helper.tables = session.table_names();
            helper.table_in_use = shell.table.is_some();
        }
        let prompt = shell.prompt(&global.node);
        match lines.readline(&prompt) {
            Ok(line) => {
                if interactive && !line.trim().is_empty() {
                    // The history is a comfort; a line that it does not take is still done.
                    let _ = lines.add_history_entry(&line);
                }
                match shell.line(&line) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(mut failure) => {
                        shell.tell(&mut failure)?;
                        // A script goes on, and the shell's exit code tells that something failed.
                        if !interactive {
                            worst = Err(failure);
                        }
                    }
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(Failure::new(Exit::Input, error)),
        }
    }
    if let (Some(path), true) = (&history, interactive) {
        // Losing the history is no reason to fail.
        let _ = lines.save_history(path);
    }
    worst
}

fn editor() -> Result<Lines, Failure> {
    let config = Config::builder().completion_type(CompletionType::List).auto_add_history(false).build();
    let mut lines = Lines::with_config(config).map_err(|error| Failure::new(Exit::Input, error))?;
    lines.set_helper(Some(Completions { tables: Vec::new(), table_in_use: false }));
    Ok(lines)
}

/// `$XDG_STATE_HOME/lode/history`, in `~/.local/state` where that is not set.
fn history_path() -> Option<PathBuf> {
    let state = match std::env::var_os("XDG_STATE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME")?).join(".local/state"),
    };
    let dir = state.join("lode");
    fs::create_dir_all(&dir).ok()?;
    Some(dir.join("history"))
}

struct Shell<'a> {
    session: &'a Session,
    out: Output,
    table: Option<String>,
    /// The transaction, and its table.
    open: Option<(Transaction, String)>,
}

impl Shell<'_> {
    fn prompt(&self, node: &str) -> String {
        let table = self.table.as_ref().map_or(String::new(), |table| format!(" {table}"));
        let open = if self.open.is_some() { " (transaction)" } else { "" };
        format!("{node}{table}{open}> ")
    }

    /// Says that a line has failed; in JSON that is its answer, and what the shell's end need not say again.
    fn tell(&mut self, failure: &mut Failure) -> Result<(), Failure> {
        match self.out.style() {
            Style::Json => self.out.answer(json!({}), Some(failure))?,
            Style::Plain | Style::Shell => self.out.line(&format!("(error) {failure}"))?,
        }
        self.out.flush()
    }

    /// Does one line; `false` on `exit`.
    fn line(&mut self, line: &str) -> Result<bool, Failure> {
        let words = parse::words(line).map_err(|error| Failure::new(Exit::Usage, error))?;
        if words.is_empty() {
            return Ok(true);
        }
        let words = with_table(words, self.table.as_deref());
        let parsed =
            ShellLine::try_parse_from(words).map_err(|error| Failure::new(Exit::Usage, short(&error)))?;
        match parsed.command {
            ShellCommand::Exit => return Ok(false),
            ShellCommand::Help { command: None } => self.out.done(HELP, &json!({ "help": HELP }))?,
            ShellCommand::Help { command: Some(command) } => self.help(&command)?,
            ShellCommand::Use { table } => {
                if let Some(table) = &table
                    && !self.session.has_table(table)?
                {
                    let known = format!("there is no table {table:?}; make it with: table create {table}");
                    return Err(Failure::new(Exit::Refused, known));
                }
                self.table = table;
            }
            ShellCommand::Begin { table, key, read_only } => self.begin(table, &key, read_only)?,
            ShellCommand::Commit => self.commit()?,
            ShellCommand::Rollback => self.rollback()?,
            ShellCommand::Data(command) => {
                let words = Words { escaped: false, stdin: false };
                let done = match &mut self.open {
                    Some((open, table)) => {
                        transaction::run(&command, open, table, self.session, words, &mut self.out)
                    }
                    None => data::run(&command, self.session, words, &mut self.out),
                };
                self.out.flush()?;
                // The answer `(nil)` has said it.
                return done.map(|()| true).or_else(|failure| match failure.exit {
                    Exit::NotFound => Ok(true),
                    _ => Err(failure),
                });
            }
        }
        self.out.flush()?;
        Ok(true)
    }

    fn help(&mut self, command: &str) -> Result<(), Failure> {
        let text = match ShellLine::try_parse_from([command, "--help"]) {
            Err(error) if error.kind() == clap::error::ErrorKind::DisplayHelp => error.to_string(),
            _ => format!("there is no command {command:?}\n{HELP}"),
        };
        self.out.done(text.trim_end(), &json!({ "help": text.trim_end() }))
    }
}

/// Puts the table in use behind commands that begin with a table.
fn with_table(mut words: Vec<Vec<u8>>, table: Option<&str>) -> Vec<OsString> {
    // Command words go by any case, as in redis-cli.
    words[0].make_ascii_lowercase();
    if let (Some(table), true) = (table, std::str::from_utf8(&words[0]).is_ok_and(takes_table)) {
        words.insert(1, table.as_bytes().to_vec());
    }
    words.into_iter().map(OsString::from_vec).collect()
}

/// A usage error without the paragraphs around it.
fn short(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let paragraphs: Vec<&str> = text.split("\n\n").take(1).collect();
    let usage = text.lines().find(|line| line.starts_with("Usage: "));
    match usage {
        Some(usage) => format!("{}\n{usage}", paragraphs.concat().trim_end()),
        None => paragraphs.concat().trim_end().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str, table: Option<&str>) -> Result<ShellCommand, String> {
        let words = with_table(parse::words(line).unwrap(), table);
        ShellLine::try_parse_from(words).map(|line| line.command).map_err(|error| short(&error))
    }

    #[test]
    fn the_grammar_is_sound_and_all_of_it_completes() {
        ShellLine::command().debug_assert();
        for command in ShellLine::command().get_subcommands() {
            assert!(complete::COMMANDS.contains(&command.get_name()), "{}", command.get_name());
        }
    }

    #[test]
    fn the_table_in_use_comes_behind_the_command() {
        for (line, table) in [("get users k", None), ("get k", Some("users")), ("GET k", Some("users"))] {
            let Ok(ShellCommand::Data(DataCommand::Get(args))) = parsed(line, table) else {
                panic!("{line}")
            };
            assert_eq!((args.table.as_str(), args.key), ("users", "k".into()));
        }
        assert!(matches!(parsed("table list", Some("users")), Ok(ShellCommand::Data(DataCommand::Table(_)))));
        assert!(matches!(parsed("QUIT", None), Ok(ShellCommand::Exit)));
    }

    #[test]
    fn binary_words_arrive_whole() {
        let Ok(ShellCommand::Data(DataCommand::Put(args))) = parsed(r#"put t "\x00\xff" "- x""#, None) else {
            panic!()
        };
        assert_eq!(args.key.into_vec(), [0, 0xff]);
        assert_eq!(args.value, Some("- x".into()));
    }

    #[test]
    fn wrong_lines_are_told_shortly() {
        let unknown = parsed("gte k", None).unwrap_err();
        assert!(unknown.contains("gte") && unknown.lines().count() <= 3, "{unknown}");
        let missing = parsed("get t", None).unwrap_err();
        assert!(missing.contains("KEY") && missing.contains("Usage: get"), "{missing}");
    }
}
