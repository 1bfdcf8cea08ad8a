//! How far a long step is: a bar on a terminal, a plain line now and then elsewhere. Always on standard error, so
//! that standard output stays what a program reads.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::output::say;
use super::size::Size;

/// Between two plain lines.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// One long step, counted in bytes and records.
pub struct Progress {
    name: &'static str,
    total_bytes: u64,
    bytes: u64,
    /// Of those, bytes that were done before this process began; they do not count for the rate.
    bytes_before: u64,
    records: u64,
    started: Instant,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines { last: Instant },
}

impl Progress {
    /// A step of about `total_bytes`, of which `bytes_before` are done.
    pub fn new(name: &'static str, total_bytes: u64, bytes_before: u64) -> Progress {
        let started = Instant::now();
        let shown = if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total_bytes);
            let style = ProgressStyle::with_template(
                "{prefix:>9} {wide_bar:.cyan/blue} {bytes}/{total_bytes} {msg} eta {eta}",
            );
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(name);
            bar.set_position(bytes_before);
            bar.reset_eta();
            Shown::Bar(bar)
        } else {
            Shown::Lines { last: started }
        };
        Progress { name, total_bytes, bytes: bytes_before, bytes_before, records: 0, started, shown }
    }

    /// So much more is done.
    pub fn add(&mut self, bytes: u64, records: u64) {
        self.bytes += bytes;
        self.records += records;
        let rate = self.rate();
        match &mut self.shown {
            Shown::Bar(bar) => {
                bar.set_position(self.bytes);
                bar.set_message(format!("{}{}/s", counted(self.records), Size(rate)));
            }
            Shown::Lines { last } if last.elapsed() >= LINE_INTERVAL => {
                *last = Instant::now();
                say(format_args!("{}", self.line(rate)));
            }
            Shown::Lines { .. } => {}
        }
    }

    /// The step is over: the bar goes away, and one line stays where anything was done.
    pub fn finish(self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
        if self.bytes == self.bytes_before && self.records == 0 {
            return;
        }
        let bytes = Size(self.bytes - self.bytes_before);
        let (records, rate) = (counted(self.records), Size(self.rate()));
        say(format_args!(
            "{}: {records}{bytes} in {:.1} s, {rate}/s",
            self.name,
            self.started.elapsed().as_secs_f64()
        ));
    }

    fn rate(&self) -> u64 {
        rate_per_s(self.bytes - self.bytes_before, self.started.elapsed())
    }

    fn line(&self, rate: u64) -> String {
        let percent = (self.bytes * 100).checked_div(self.total_bytes).unwrap_or(100).min(100);
        let left = self.total_bytes.saturating_sub(self.bytes).checked_div(rate);
        let eta = left.map_or("?".to_owned(), |seconds| seconds.to_string());
        format!(
            "{}: {} of {} ({percent} %), {}{}/s, {eta} s left",
            self.name,
            Size(self.bytes),
            Size(self.total_bytes),
            counted(self.records),
            Size(rate)
        )
    }
}

/// So many records, where there are any.
fn counted(records: u64) -> String {
    if records > 0 { format!("{records} records, ") } else { String::new() }
}

/// How many per second; 0 where no time has gone by.
pub fn rate_per_s(amount: u64, elapsed: Duration) -> u64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { (amount as f64 / seconds) as u64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_and_how_long() {
        let mut progress = Progress::new("load", 100 << 20, 25 << 20);
        progress.bytes = 50 << 20;
        progress.records = 7;
        assert_eq!(progress.line(5 << 20), "load: 50 MiB of 100 MiB (50 %), 7 records, 5 MiB/s, 10 s left");
        assert!(progress.line(0).ends_with("? s left"));
        progress.total_bytes = 0;
        assert!(progress.line(1).contains("(100 %)"));
    }

    #[test]
    fn a_rate_of_no_time_is_nothing() {
        assert_eq!(rate_per_s(5, Duration::ZERO), 0);
        assert_eq!(rate_per_s(500, Duration::from_millis(500)), 1000);
    }
}
