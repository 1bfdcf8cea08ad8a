//! The command line: one file per command, and what they share.

mod admin_port;
pub mod args;
mod config;
mod data;
pub mod drive;
pub mod exit;
mod figures;
mod global;
pub mod load;
mod manual;
pub mod output;
pub mod progress;
mod quota;
mod scrub;
pub mod serve;
pub mod session;
mod shell;
pub mod size;
mod slow;
mod table;
mod token;
mod top;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use serde_json::json;

use self::args::{Cli, Command};
use self::data::Words;
use self::exit::{Exit, Failure};
use self::output::{Output, Style, say};
use self::session::{Load, Session};

/// Does what the command line says.
pub fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    let cli = match Cli::try_parse_from(&words) {
        Ok(cli) => cli,
        Err(error) => return misread(&error, &words),
    };
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&failure, cli.global.json);
            failure.exit.into()
        }
    }
}

/// The command line makes no sense, or asks for help. In JSON where `--json` was among its words.
fn misread(error: &clap::Error, words: &[OsString]) -> ExitCode {
    let mut options = words.iter().take_while(|word| *word != "--");
    if error.use_stderr() && options.any(|word| word == "--json") {
        let text = error.render().to_string();
        let text = text.trim().strip_prefix("error: ").unwrap_or(text.trim()).to_owned();
        tell(&Failure::new(Exit::Usage, text), true);
        return Exit::Usage.into();
    }
    error.exit()
}

fn run(cli: &Cli) -> Result<(), Failure> {
    let global = &cli.global;
    let mut out = Output::new(if global.json { Style::Json } else { Style::Plain });
    let done = match &cli.command {
        Command::Serve(args) => serve::run(args, global),
        Command::Quickstart(args) => crate::quickstart::run(args, &mut out),
        Command::Check(args) => drive::check(args, &mut out),
        Command::Format(args) => drive::format(args, &mut out),
        Command::Config(args) => config::run(args, &mut out),
        Command::Token(command) => token::run(command, &mut out),
        Command::Completions(args) => manual::completions(args, &mut out),
        Command::Man(args) => manual::pages(args, &mut out),
        Command::Top(args) => top::run(args, global, &mut out),
        Command::Slow(args) => slow::run(args, global, &mut out),
        Command::Load(args) => {
            let session = Session::connect(global, Load::Heavy)?;
            load::run(args, global, &session, &mut out)
        }
        Command::Shell(args) => {
            let session = Session::connect(global, Load::Light)?;
            shell::run(args, global, &session)
        }
        Command::Data(command) => {
            let session = Session::connect(global, Load::Light)?;
            let words = Words { escaped: global.escaped, stdin: true };
            data::run(command, &session, words, &mut out)
        }
    };
    // What was printed before a failure is still good.
    out.flush().and(done)
}

/// People read it on standard error; programs also find it on standard output: as an object of its own, behind what
/// was printed record by record, or in the one object that the command has printed.
fn tell(failure: &Failure, as_json: bool) {
    say(format_args!("lode: {failure}"));
    if as_json && failure.exit != Exit::NotFound && !failure.in_answer {
        let mut out = Output::new(Style::Json);
        // Standard error has it, too.
        let _ = out.json(&json!({ "error": failure.to_json() })).and_then(|()| out.flush());
    }
}
