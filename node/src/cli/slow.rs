//! `lode slow`: the requests that took long, as the node's admin port has them.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use clap::Args;
use lode_net::wire::map::hash_of;
use serde_json::Value;

use super::admin_port::AdminPort;
use super::args::Global;
use super::data::Words;
use super::exit::Failure;
use super::figures::time_us;
use super::output::{Output, Style};

/// `slow`.
#[derive(Debug, Args)]
pub struct SlowArgs {
    /// The node's admin port; a port alone is one of 127.0.0.1
    #[arg(long, env = "LODE_ADMIN", value_name = "[HOST:]PORT", default_value = "9411")]
    pub admin: String,
    /// At most this many, the latest first
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20)]
    pub limit: u32,
    /// Only those of this partition
    #[arg(long, value_name = "ID")]
    pub partition: Option<u32>,
    /// Only those of this key, which the node tells by its hash alone
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    pub key: Option<std::ffi::OsString>,
}

/// Prints them.
pub fn run(args: &SlowArgs, global: &Global, out: &mut Output) -> Result<(), Failure> {
    let port = AdminPort::new(&args.admin, global)?;
    let mut path = format!("/slow?n={}", args.limit);
    // A string takes whatever is written to it.
    if let Some(partition) = args.partition {
        let _ = write!(path, "&partition={partition}");
    }
    if let Some(key) = &args.key {
        let key = Words { escaped: global.escaped, stdin: false }.bytes(key)?;
        let _ = write!(path, "&key={:08x}", u32::from_be_bytes(hash_of(&key)));
    }
    let told = port.ask(&path)?;
    let requests = told["requests"].as_array().map_or(&[][..], Vec::as_slice);
    if out.style() == Style::Json {
        return requests.iter().try_for_each(|request| out.json(request));
    }
    if requests.is_empty() {
        let noted = told["noted"].as_u64().unwrap_or(0);
        let none = match told["threshold_us"].as_u64() {
            Some(us) => format!("no such request; since the start {noted} took {} or longer", time_us(us)),
            None => "no request is slow for this node: it was given --slow-request 0s".to_owned(),
        };
        return out.line(&none);
    }
    requests.iter().try_for_each(|request| out.line(&line(request)))
}

/// One of them in words.
pub fn line(request: &Value) -> String {
    let text = |name: &str| request[name].as_str().unwrap_or_default().escape_debug().to_string();
    let number = |name: &str| request[name].as_u64().unwrap_or(0);
    let mut told = format!(
        "{} {:>9} {} {} (partition {}, shard {}) {}",
        clock(number("at_ms")),
        time_us(number("total_us")),
        text("verb"),
        text("table"),
        number("partition"),
        number("shard"),
        stages(request),
    );
    // A string takes whatever is written to it.
    let _ = write!(told, "; {} B asked, {} B answered", number("request_bytes"), number("answer_bytes"));
    if request["key_hash"].is_string() {
        let _ = write!(told, "; key {} of {} B", text("key_hash"), number("key_bytes"));
    }
    let _ = write!(told, "; {} by {}", text("status"), request["client"].as_str().unwrap_or("nobody known"));
    told
}

/// The stages that took some time, the longest first.
pub fn stages(request: &Value) -> String {
    let stages = request["stages"].as_object();
    let mut stages: Vec<(&str, u64)> = stages
        .into_iter()
        .flatten()
        .filter_map(|(name, us)| Some((name.strip_suffix("_us")?, us.as_u64().filter(|us| *us > 0)?)))
        .collect();
    stages.sort_by_key(|(_, us)| std::cmp::Reverse(*us));
    let told: Vec<String> = stages.iter().map(|(name, us)| format!("{name} {}", time_us(*us))).collect();
    told.join(", ")
}

/// A moment of today's UTC clock.
pub fn clock(at_ms: u64) -> String {
    let since = (UNIX_EPOCH + Duration::from_millis(at_ms)).duration_since(UNIX_EPOCH).unwrap_or_default();
    let s = since.as_secs() % 86_400;
    format!("{:02}:{:02}:{:02}Z", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_tells_the_longest_stage_first_and_nothing_that_moves_the_terminal() {
        let request = json!({
            "at_ms": 3_661_000, "verb": "get", "table": "a\u{1b}[2Jb", "partition": 3, "shard": 1, "total_us": 125_300,
            "stages": { "queue_us": 300, "drive_us": 125_000, "send_us": 0 }, "request_bytes": 10, "answer_bytes": 1024,
            "key_hash": "00c0ffee", "key_bytes": 7, "status": "Ok", "client": "10.0.0.1:5",
        });
        let told = line(&request);
        assert_eq!(
            told,
            "01:01:01Z    125 ms get a\\u{1b}[2Jb (partition 3, shard 1) drive 125 ms, queue 300 us; 10 B asked, \
             1024 B answered; key 00c0ffee of 7 B; Ok by 10.0.0.1:5"
        );
    }
}
