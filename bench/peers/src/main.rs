//! `lode-peers`: lode beside what a user would pick instead, on one machine, with the same data, memory and durability.

mod closed_loop;
#[cfg(feature = "glommio")]
mod echo_on_glommio;
mod engine_process;
mod engines;
mod figures;
mod floors;
mod harness;
mod limit;
mod options;
mod page_cache;
mod peers;
mod points;
mod subject;
mod table;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use options::{Arguments, Command};

/// Nothing could be measured.
const EXIT_FAILED: u8 = 3;

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run(options) => harness::run(&options),
        Command::Table(options) => harness::table(&options),
        Command::List => Ok(peers::list()),
        Command::Engine(options) => engine_process::serve(&options).map(|()| String::new()),
    };
    match result {
        Ok(text) => {
            // A reader that has seen enough (`| head`) is no reason to fail.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("lode-peers: {error}");
            ExitCode::from(EXIT_FAILED)
        }
    }
}

/// Whatever ends the program.
type Ended = Box<dyn Error + Send + Sync>;
