//! The command `lode`: a node, and what people do with one.

mod cli;
mod config;
mod log;
mod quickstart;

fn main() -> std::process::ExitCode {
    cli::main()
}
