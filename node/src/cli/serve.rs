//! `lode serve`: a node in this process, until it is told to stop.

use std::path::Path;
use std::time::Instant;

use lode_node::serve::{ServeError, StartEvent, run as run_node};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tracing::{info, warn};

use super::args::{Global, ServeArgs};
use super::exit::{Exit, Failure};
use super::progress::Progress;
use crate::config::layers::Layers;
use crate::log::{self, LogFormat};
use crate::quickstart::place;

/// In front of the address, in the node's line that says that it is up.
pub const LISTENING: &str = "listening at ";

/// Serves until SIGTERM or SIGINT.
pub fn run(args: &ServeArgs, global: &Global) -> Result<(), Failure> {
    let wrong = |error| Failure::new(Exit::Usage, error);
    let layers = Layers::gather(&args.options, args.config.as_deref()).map_err(wrong)?;
    let (options, config) = (layers.merged(), layers.to_config().map_err(wrong)?);
    // Whoever asks for answers in JSON wants the log so.
    let format = if global.json { LogFormat::Json } else { options.log.unwrap_or_default() };
    let _log = log::begin(format, options.log_level.unwrap_or_default());
    if args.end_with_parent {
        end_with_parent()?;
    }
    if !args.keep_marker {
        place::adopt(&config.data);
    }
    let shows_progress = format == LogFormat::Text;
    let mut watcher =
        Watcher { shows_progress, has_begun: false, progress: None, done_bytes: 0, recovering: None };
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
    /// Beside a log for programs a bar that moves would be in the way.
    shows_progress: bool,
    has_begun: bool,
    progress: Option<Progress>,
    done_bytes: u64,
    recovering: Option<Instant>,
}

impl Watcher {
    fn tell(&mut self, event: StartEvent, data: &Path, size: u64) {
        if let StartEvent::Formatting(now) = &event {
            if !std::mem::replace(&mut self.has_begun, true) {
                let data = data.display();
                info!(event = "format", drive = %data, bytes = size, "making the drive {data}");
            }
            if self.shows_progress {
                let progress = self.progress.get_or_insert_with(|| Progress::new("format", size, 0));
                progress.add(now.done_bytes - self.done_bytes, 0);
                self.done_bytes = now.done_bytes;
            }
            return;
        }
        if let Some(progress) = self.progress.take() {
            progress.finish();
        }
        match event {
            StartEvent::Formatting(_) => {}
            StartEvent::Warning(text) => warn!(event = "warning", "{text}"),
            StartEvent::Io(text) => info!(event = "io", "io: {text}"),
            StartEvent::Recovering => {
                self.recovering = Some(Instant::now());
                let data = data.display();
                info!(event = "recovering", drive = %data, "drive: {data}");
            }
            StartEvent::Rings(lines) => {
                if let Some(started) = self.recovering {
                    let ms = started.elapsed().as_millis() as u64;
                    info!(event = "recovered", ms, "recovered: in {ms} ms");
                }
                for (shard, line) in lines.iter().enumerate() {
                    info!(event = "ring", shard, "ring: shard {shard}: {line}");
                }
            }
        }
    }
}
