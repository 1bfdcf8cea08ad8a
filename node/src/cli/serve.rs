//! `lode serve`: a node in this process, until it is told to stop.

use std::path::Path;
use std::time::Instant;

use lode_node::serve::{ServeError, StartEvent, run as run_node};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use serde_json::json;

use super::args::{Global, ServeArgs};
use super::exit::{Exit, Failure};
use super::output::say;
use super::progress::Progress;
use crate::config::ServeOptions;
use crate::quickstart::place;

/// In front of the address, in the node's line that says that it is up.
pub const LISTENING: &str = "listening at ";

/// Serves until SIGTERM or SIGINT.
pub fn run(args: &ServeArgs, global: &Global) -> Result<(), Failure> {
    let wrong = |error| Failure::new(Exit::Usage, error);
    let from_file = match &args.config {
        Some(path) => ServeOptions::read(path).map_err(wrong)?,
        None => ServeOptions::default(),
    };
    let config = args.options.clone().or(from_file).to_config().map_err(wrong)?;
    if args.end_with_parent {
        end_with_parent()?;
    }
    if !args.keep_marker {
        place::adopt(&config.data);
    }
    let mut watcher = Watcher { json: global.json, progress: None, done_bytes: 0, recovering: None };
    let data = config.data.clone();
    let size = config.size;
    let done = run_node(config, &mut |event| watcher.tell(event, &data, size));
    done.map_err(|error| {
        let exit = match &error {
            ServeError::Memory { .. } | ServeError::MemoryBeyondMachine { .. } => Exit::Usage,
            ServeError::Format(_) | ServeError::Drive(_) => Exit::Input,
            _ => Exit::Node,
        };
        Failure::new(exit, error)
    })
}

/// Whoever started this process ends in any way: this one gets SIGTERM, and stops in order.
fn end_with_parent() -> Result<(), Failure> {
    let refused = |error| Failure::new(Exit::Node, format_args!("cannot watch the parent process: {error}"));
    let parent = getppid();
    set_parent_process_death_signal(Some(Signal::TERM)).map_err(refused)?;
    // It may have ended just before.
    if getppid() != parent {
        return Err(Failure::new(Exit::Node, "the process that started this node has ended"));
    }
    Ok(())
}

/// Says on standard error what happens while the node starts.
struct Watcher {
    json: bool,
    progress: Option<Progress>,
    done_bytes: u64,
    recovering: Option<Instant>,
}

impl Watcher {
    fn tell(&mut self, event: StartEvent, data: &Path, size: u64) {
        if let StartEvent::Formatting(now) = &event {
            if self.progress.is_none() {
                say(format_args!("making the drive {}", data.display()));
            }
            let progress = self.progress.get_or_insert_with(|| Progress::new("format", size, 0));
            progress.add(now.done_bytes - self.done_bytes, 0);
            self.done_bytes = now.done_bytes;
            return;
        }
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
        match event {
            StartEvent::Formatting(_) => {}
            StartEvent::Warning(text) => self.line("warning", &text),
            StartEvent::Io(text) => self.line("io", &text),
            StartEvent::Recovering => {
                self.recovering = Some(Instant::now());
                self.line("drive", &data.display().to_string());
            }
            StartEvent::Rings(lines) => {
                if let Some(started) = self.recovering {
                    self.line("recovered", &format!("in {} ms", started.elapsed().as_millis()));
                }
                for (shard, line) in lines.iter().enumerate() {
                    self.line("ring", &format!("shard {shard}: {line}"));
                }
            }
        }
    }

    fn line(&self, what: &str, text: &str) {
        if self.json {
            say(format_args!("{}", json!({ what: text })));
        } else {
            say(format_args!("{what}: {text}"));
        }
    }
}
