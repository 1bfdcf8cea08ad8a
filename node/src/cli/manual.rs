//! `lode completions` and `lode man`: made from the grammar of the command line, so that they cannot differ from it.

use std::fs;

use clap::CommandFactory;

use super::args::{Cli, CompletionsArgs, ManArgs};
use super::exit::{Exit, Failure};
use super::output::Output;

/// Prints a shell's script.
pub fn completions(args: &CompletionsArgs, out: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "lode", &mut script);
    out.bytes(&script)
}

/// Writes a page for the command and one for each of its commands.
pub fn pages(args: &ManArgs, out: &mut Output) -> Result<(), Failure> {
    let directory = args.directory.display();
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Input, format_args!("cannot write the manual to {directory}: {error}"))
    };
    fs::create_dir_all(&args.directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), &args.directory).map_err(failed)?;
    let count = fs::read_dir(&args.directory).map_err(failed)?.count();
    out.line(&format!("{count} pages in {directory}; read one with: man {directory}/lode.1"))
}
