//! `lode top`: a node as it is now, in a terminal, from its admin port.

mod picture;
mod screen;
mod terminal;

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::admin_port::{AdminPort, AskError};
use super::args::Global;
use super::exit::{Exit, Failure};
use super::output::{Output, Style};
use super::size::Span;
use picture::Seen;
use screen::Look;
use terminal::{Key, Terminal};

/// Of the requests that took long, so many are shown.
const SLOW_SHOWN: usize = 8;
/// Rates that are kept for the line of the last minute.
const REMEMBERED: usize = 60;
/// Between two looks at the keys and at the terminal's size.
const LOOK: Duration = Duration::from_millis(100);
/// The node makes its picture so often; to ask more often shows nothing new.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);

/// `top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// The node's admin port; a port alone is one of 127.0.0.1
    #[arg(long, env = "LODE_ADMIN", value_name = "[HOST:]PORT", default_value = "9411")]
    pub admin: String,
    /// Between two looks at the node
    #[arg(long, value_name = "TIME", default_value = "1s")]
    pub interval: Span,
    /// Print what is so now, and end
    #[arg(long)]
    pub once: bool,
}

/// Shows the node until it is told to end.
pub fn run(args: &TopArgs, global: &Global, out: &mut Output) -> Result<(), Failure> {
    let port = AdminPort::new(&args.admin, global)?;
    let interval = args.interval.0.max(LEAST_INTERVAL);
    match (out.style(), args.once) {
        (Style::Json, true) => out.json(&sample(&port)?),
        (Style::Json, false) => print_for_ever(&port, interval, out),
        (_, true) => {
            let seen = Seen { addr: port.addr(), told: Some(&sample(&port)?), rates: &[], gone: None };
            let lines = seen.lines();
            // All but what it says of the keys.
            let lines = lines.split_last().map_or(&[][..], |(_, lines)| lines);
            lines.iter().try_for_each(|line| out.line(line.render(usize::MAX, Look::Plain).trim_end()))
        }
        (_, false) if !std::io::stdout().is_terminal() || !std::io::stdin().is_terminal() => {
            Err(Failure::new(
                Exit::Usage,
                "lode top draws on a terminal, and this is none; --once prints what is so now, --json a line for each look",
            ))
        }
        (_, false) => watch(&port, interval),
    }
}

/// What there is to be known now.
fn sample(port: &AdminPort) -> Result<Value, AskError> {
    let mut node = port.ask("/api/node")?;
    let top = node.as_object_mut().and_then(|node| node.remove("top"));
    let slow = port.ask(&format!("/slow?n={SLOW_SHOWN}"))?;
    Ok(json!({ "node": node, "partitions": top, "slow": slow }))
}

/// A line for each look, until whoever reads them goes.
fn print_for_ever(port: &AdminPort, interval: Duration, out: &mut Output) -> Result<(), Failure> {
    loop {
        out.json(&sample(port)?)?;
        out.flush()?;
        std::thread::sleep(interval);
    }
}

/// Draws until somebody wants no more.
fn watch(port: &AdminPort, interval: Duration) -> Result<(), Failure> {
    let failed = |error| Failure::new(Exit::Input, format_args!("cannot use the terminal: {error}"));
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP, signal_hook::consts::SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&ended)).map_err(failed)?;
    }
    let mut terminal = Terminal::take().map_err(failed)?;
    let look = if std::env::var_os("NO_COLOR").is_some() { Look::Bold } else { Look::Colours };
    let (asked, answers) = ask_from_a_thread(port, interval);
    let mut watched = Watched::default();
    let (mut drawn_for, mut is_new) = ((0, 0), true);
    while !ended.load(Ordering::Relaxed) {
        while let Ok(answer) = answers.try_recv() {
            watched.take(answer);
            is_new = true;
        }
        let size = terminal.size();
        if is_new || size != drawn_for {
            let seen = watched.seen(port.addr());
            terminal.draw(&screen::fitted(&seen.lines(), size, look)).map_err(failed)?;
            (drawn_for, is_new) = (size, false);
        }
        match terminal.key(LOOK).map_err(failed)? {
            Some(Key::Quit) => break,
            Some(Key::Other) | None => {}
        }
    }
    drop(asked);
    Ok(())
}

/// The answers, from a thread that asks for them: a node that answers slowly, or not at all, keeps nobody from quitting. It ends
/// when the first of the two is dropped.
fn ask_from_a_thread(
    port: &AdminPort,
    interval: Duration,
) -> (std::sync::mpsc::Sender<()>, std::sync::mpsc::Receiver<Result<Value, AskError>>) {
    let (until, ended) = std::sync::mpsc::channel::<()>();
    let (told, answers) = std::sync::mpsc::channel();
    let port = port.clone();
    std::thread::spawn(move || {
        loop {
            let begun = Instant::now();
            if told.send(sample(&port)).is_err() {
                return;
            }
            let pause = interval.saturating_sub(begun.elapsed());
            if ended.recv_timeout(pause) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                return;
            }
        }
    });
    (until, answers)
}

/// What was seen so far.
#[derive(Default)]
struct Watched {
    told: Option<Value>,
    /// Requests a second, the oldest first.
    rates: VecDeque<f64>,
    /// Since when there has been no answer, and why.
    gone: Option<(std::time::SystemTime, String)>,
}

impl Watched {
    fn take(&mut self, answer: Result<Value, AskError>) {
        match answer {
            Ok(told) => {
                if self.rates.len() == REMEMBERED {
                    self.rates.pop_front();
                }
                self.rates.push_back(picture::requests_per_s(&told["node"]));
                self.told = Some(told);
                self.gone = None;
            }
            Err(error) => {
                let since = self.gone.take().map_or_else(std::time::SystemTime::now, |(since, _)| since);
                self.gone = Some((since, error.to_string()));
            }
        }
    }

    fn seen<'a>(&'a mut self, addr: &'a str) -> Seen<'a> {
        let rates = self.rates.make_contiguous();
        let gone = self.gone.as_ref().map(|(since, why)| (*since, why.as_str()));
        Seen { addr, told: self.told.as_ref(), rates, gone }
    }
}

/// Gives what is left to be written to the terminal.
fn flush(out: &mut impl Write, text: &str) -> std::io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}
