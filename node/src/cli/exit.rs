//! How the command ends: exit codes that scripts can use, and the message that goes with one.

use std::fmt;
use std::process::ExitCode;

use serde_json::{Value, json};

/// Printed under `lode --help`.
pub const EXIT_CODES_HELP: &str = "\
Exit codes:
  0  done
  1  no such key, or the condition does not hold
  2  usage: the command line or the configuration file is wrong
  3  cannot connect to the node
  4  refused by the node (no such table, full, over a limit, ...)
  5  verification failed: data is damaged, missing or not what was written
  6  the input or a local file cannot be used (bad row, no such file, no disk space)
  7  timed out or connection lost; a write may or may not have happened
  8  the node could not start or keep running";

/// What the process answers its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// No such key, or a condition that does not hold.
    NotFound = 1,
    /// The command line or the configuration file is wrong.
    Usage = 2,
    /// Nobody answers at the node's address, or not in lode's protocol.
    CannotConnect = 3,
    /// The node said no.
    Refused = 4,
    /// Data is damaged, missing or not what was written.
    VerificationFailed = 5,
    /// An input or another local file cannot be used.
    Input = 6,
    /// Timed out or connection lost.
    Unknown = 7,
    /// The node could not start or keep running.
    Node = 8,
}

impl Exit {
    /// The name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Exit::NotFound => "not_found",
            Exit::Usage => "usage",
            Exit::CannotConnect => "cannot_connect",
            Exit::Refused => "refused",
            Exit::VerificationFailed => "verification_failed",
            Exit::Input => "input",
            Exit::Unknown => "unknown_outcome",
            Exit::Node => "node",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// A command that did not do what it was asked for.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What happened, to what, and what to do.
    pub message: String,
    /// It is in the object that the command has printed: a second one on standard output would be one too many.
    pub in_answer: bool,
}

impl Failure {
    /// A failure that says `error`.
    pub fn new(exit: Exit, error: impl fmt::Display) -> Failure {
        Failure { exit, message: error.to_string(), in_answer: false }
    }

    /// The same failure, with what was being done in front.
    pub fn context(self, doing: impl fmt::Display) -> Failure {
        Failure { message: format!("{doing}: {}", self.message), ..self }
    }

    /// What stands under `error` in JSON.
    pub fn to_json(&self) -> Value {
        json!({ "kind": self.exit.name(), "exit_code": self.exit as u8, "message": self.message })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
