//! Options that every command has: which node, and what it is shown.

use std::path::PathBuf;

use clap::Args;

use super::size::Span;

/// Where a node listens unless told otherwise.
const DEFAULT_NODE: &str = "127.0.0.1:7411";

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Print JSON: one object, or one object a line where there are many records
    #[arg(long, global = true)]
    pub json: bool,
    /// Address of the node to talk to
    #[arg(long, global = true, env = "LODE_NODE", value_name = "HOST:PORT", default_value = DEFAULT_NODE)]
    pub node: String,
    /// How long to wait for one answer
    #[arg(long, global = true, value_name = "TIME", default_value = "10s")]
    pub timeout: Span,
    /// File with the secret of the token to show the node; LODE_TOKEN may hold the secret itself
    #[arg(long, global = true, env = "LODE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Speak TLS with the node, and trust whom this system trusts
    #[arg(long, global = true, env = "LODE_TLS")]
    pub tls: bool,
    /// Speak TLS with the node, and trust the certificates of this file (PEM)
    #[arg(long, global = true, env = "LODE_TLS_CA", value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// KEY, START, END and VALUE have backslash escapes (\n, \x00, \\)
    #[arg(long, short = 'e', global = true)]
    pub escaped: bool,
}
