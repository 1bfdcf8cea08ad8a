//! The node's log: one line an event on standard error, for people or as JSON.
//!
//! Lines go through a bounded queue to a thread of their own: whoever reads them slowly, or not at all, holds nobody up, and
//! is told how many lines he missed.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use lode_node::escape::harmless;

/// Lines that wait to be written; more are left out, and counted.
const MAX_WAITING_LINES: usize = 1024;
/// How long the last lines have when the node ends.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Time, level and message.
    #[default]
    Text,
    /// An object a line: `timestamp`, `level`, `event`, `message`, and what else belongs to the event.
    Json,
}

/// What is logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogLevel {
    /// What needs somebody now.
    Error,
    /// And what will.
    Warn,
    /// And what happens in the life of a node.
    #[default]
    Info,
    /// And what helps to find a fault.
    Debug,
}

/// A word that is none of them; what is, the option's own words say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord;

impl FromStr for LogFormat {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<LogFormat, UnknownWord> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(UnknownWord),
        }
    }
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }
}

impl FromStr for LogLevel {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<LogLevel, UnknownWord> {
        match text {
            "error" => Ok(LogLevel::Error),
            "warn" => Ok(LogLevel::Warn),
            "info" => Ok(LogLevel::Info),
            "debug" => Ok(LogLevel::Debug),
            _ => Err(UnknownWord),
        }
    }
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
        })
    }
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Level {
        match level {
            LogLevel::Error => Level::ERROR,
            LogLevel::Warn => Level::WARN,
            LogLevel::Info => Level::INFO,
            LogLevel::Debug => Level::DEBUG,
        }
    }
}

/// Holds the log open; its last lines are written when this is dropped.
pub struct Log {
    queue: Queue,
    ended: Receiver<()>,
}

/// Begins to log for this process.
pub fn begin(format: LogFormat, level: LogLevel) -> Log {
    let (queue, lines) = Queue::new();
    let (end, ended) = sync_channel(1);
    let missed = Arc::clone(&queue.missed);
    let write = move || {
        write_lines(&lines, &missed, &mut io::stderr());
        // Whoever waits may have given up.
        let _ = end.send(());
    };
    // Without the thread nothing is written, which keeps no node from serving.
    let _ = std::thread::Builder::new().name("lode-log".into()).spawn(write);
    let made = tracing_subscriber::fmt()
        .with_max_level(Level::from(level))
        .with_writer(queue.clone())
        .log_internal_errors(false)
        .with_ansi(false);
    // Set before, by a test of the same process: then that one counts.
    let _ = match format {
        LogFormat::Text => tracing::subscriber::set_global_default(made.event_format(Text).finish()),
        LogFormat::Json => {
            let json = made.json().flatten_event(true).with_current_span(false).with_span_list(false);
            tracing::subscriber::set_global_default(json.with_target(false).finish())
        }
    };
    Log { queue, ended }
}

impl Drop for Log {
    fn drop(&mut self) {
        // Where the queue is full nobody reads.
        if self.queue.lines.try_send(Line::Last).is_ok() {
            let _ = self.ended.recv_timeout(LAST_WORDS);
        }
    }
}

/// A line, or the end of them.
enum Line {
    Said(Vec<u8>),
    Last,
}

/// The way to the thread that writes.
#[derive(Clone)]
struct Queue {
    lines: SyncSender<Line>,
    missed: Arc<AtomicU64>,
}

impl Queue {
    fn new() -> (Queue, Receiver<Line>) {
        let (lines, written) = sync_channel(MAX_WAITING_LINES);
        (Queue { lines, missed: Arc::default() }, written)
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Queue;

    fn make_writer(&'a self) -> Queue {
        self.clone()
    }
}

/// One call a line, as the subscriber has it.
impl Write for Queue {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Line::Said(bytes.to_vec())).is_err() {
            self.missed.fetch_add(1, Ordering::Relaxed);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes what comes, until the last. That nobody reads it is no reason to end.
fn write_lines(lines: &Receiver<Line>, missed: &AtomicU64, out: &mut impl Write) {
    loop {
        match lines.recv_timeout(Duration::from_secs(3600)) {
            Ok(Line::Said(bytes)) => {
                let _ = out.write_all(&bytes);
                let count = missed.swap(0, Ordering::Relaxed);
                if count > 0 {
                    let _ = writeln!(out, "{count} lines of the log were left out: nobody took them in time");
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Line::Last) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Time, level, message: what else belongs to the event stands in the message, too.
struct Text;

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        SystemTime.format_time(&mut writer)?;
        write!(writer, " {:<5} ", event.metadata().level().as_str())?;
        let mut message = Message::default();
        event.record(&mut message);
        writeln!(writer, "{}", message.0)
    }
}

/// The message of an event. A line break in it would make two lines of one event, and a name in it may be anything.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            // Writing to a text cannot fail.
            let _ = write!(self.0, "{value:?}");
            self.0 = harmless(&self.0.replace('\n', "; "), "\t").into_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(lines: &Receiver<Line>) -> Vec<String> {
        let text = |line| match line {
            Line::Said(bytes) => String::from_utf8(bytes).unwrap(),
            Line::Last => String::new(),
        };
        lines.try_iter().map(text).collect()
    }

    #[test]
    fn text_has_the_message_and_one_line() {
        let (queue, lines) = Queue::new();
        let subscriber = tracing_subscriber::fmt().with_writer(queue).event_format(Text).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(event = "damage", records = 3, "3 records\nare \x1b[2Jdamaged");
        });
        let said = said(&lines);
        assert_eq!(said.len(), 1);
        assert!(said[0].ends_with(" WARN  3 records; are \\u{1b}[2Jdamaged\n"), "{said:?}");
        assert!(said[0].starts_with("20") && said[0].contains("T"), "{said:?}");
    }

    #[test]
    fn a_log_that_nobody_reads_holds_nobody_up_and_says_what_was_left_out() {
        let (mut queue, lines) = Queue::new();
        for _ in 0..MAX_WAITING_LINES + 5 {
            queue.write_all(b"a line\n").unwrap();
        }
        assert_eq!(queue.missed.load(Ordering::Relaxed), 5);
        let missed = Arc::clone(&queue.missed);
        drop(queue);
        let mut out = Vec::new();
        write_lines(&lines, &missed, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.matches("a line\n").count(), MAX_WAITING_LINES);
        assert_eq!(text.matches("5 lines of the log were left out").count(), 1);
    }
}
