//! An engine in a process of its own, so that its memory can be limited: it is asked by lines on stdin, one load each as
//! `lode-bench run` takes it, and answers each with one line: what `lode-bench run --json` would print, or `error: ...`.

use std::fs;
use std::io::{BufRead, Write};
use std::path::Path;

use clap::Parser;
use lode_bench::options::{Arguments, Command, RunOptions};

use crate::Ended;
use crate::closed_loop;
use crate::engines::{self, Engine};
use crate::options::EngineOptions;

/// Beside an engine's files: what was loaded into it.
const MARK: &str = "loaded";
/// What an answer begins with that is no report.
pub const ERROR: &str = "error: ";

/// Opens the engine, and answers until stdin ends.
pub fn serve(options: &EngineOptions) -> Result<(), Ended> {
    let files = options.dir.join("files");
    fs::create_dir_all(&files)?;
    let engine = engines::open(&options.engine, &files, options.memory, options.data)?;
    for line in std::io::stdin().lock().lines() {
        let answer = match answer(&*engine, &options.dir, &line?) {
            Ok(json) => json,
            Err(error) => format!("{ERROR}{}", error.to_string().replace('\n', " ")),
        };
        let mut out = std::io::stdout();
        writeln!(out, "{answer}")?;
        out.flush()?;
    }
    Ok(())
}

fn answer(engine: &dyn Engine, dir: &Path, line: &str) -> Result<String, Ended> {
    let options = run_options(line.split_whitespace())?;
    let data = &options.data;
    let wanted = format!("{} records of {} B, keys of {} B\n", data.records, data.value_size, data.key_size);
    let mark = dir.join(MARK);
    if fs::read_to_string(&mark).ok().as_ref() != Some(&wanted) {
        closed_loop::load(engine, &options)?;
        fs::write(&mark, wanted)?;
    }
    Ok(serde_json::to_string(&closed_loop::measure(engine, &options)?)?)
}

/// The options of a load.
pub fn run_options<'a>(words: impl Iterator<Item = &'a str>) -> Result<RunOptions, clap::Error> {
    let line = ["lode-bench", "run", "--depth", "1"].into_iter().chain(words);
    match Arguments::try_parse_from(line)?.command {
        Command::Run(options) => Ok(options),
        _ => unreachable!("the verb is `run`"),
    }
}
