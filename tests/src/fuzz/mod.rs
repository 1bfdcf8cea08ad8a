//! What is done with bytes that anybody may have made: each target takes any bytes, and panics where lode is wrong.
//!
//! `fuzz/` drives them with libFuzzer, which looks for bytes that reach further; `tests/corpus.rs` with what is worth
//! keeping, and with random changes of it.

mod drive;
mod feed;
mod formats;
mod handshake;
mod input;
mod replies;
mod requests;
mod resp;
mod seal;

/// One target: its name, which is also that of its corpus, and what it does.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// What it does with bytes; panics where lode is wrong.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target { name: "requests", run: requests::run },
    Target { name: "replies", run: replies::run },
    Target { name: "resp", run: resp::run },
    Target { name: "handshake", run: handshake::run },
    Target { name: "formats", run: formats::run },
    Target { name: "drive", run: drive::run },
    Target { name: "csv", run: input::run_csv },
    Target { name: "json_lines", run: input::run_json_lines },
];

/// Runs a target by its name.
///
/// # Panics
/// Where there is none of this name, and where lode is wrong.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name).expect("a target of this name");
    (target.run)(bytes);
}
