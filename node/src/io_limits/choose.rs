//! Which values count: those of a file that is of this drive, kernel and settings, or lode's own; and what was given by hand.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lode_net::io_properties::{Identity, IoProperties, IoPropertiesError, default_path};
use serde_json::{Value, json};

use super::IoLimits;

const OWN: &str = "lode's own values";
/// Of why a file is refused.
const LONGEST_REASON_BYTES: usize = 1000;

/// Where a value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// lode's own.
    Default,
    /// The drive's measurement.
    Measured,
    /// The command line, or the configuration.
    Given,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Origin::Default => "default",
            Origin::Measured => "measured",
            Origin::Given => "given",
        })
    }
}

/// What a node was told of it.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The file with the measurement.
    pub file: Option<PathBuf>,
    /// The commit window.
    pub commit_window: Option<Duration>,
}

/// The values, and where they come from.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// In effect.
    pub limits: IoLimits,
    /// Of all but the commit window.
    pub origin: Origin,
    /// Of the commit window.
    pub window_origin: Origin,
    /// In words: which file, or why none.
    pub source: String,
    /// The source is not as somebody wanted it: a warning.
    pub refused: bool,
}

/// Chooses for a drive with so many shards; `now` is what the drive is, or why that is not known.
pub fn choose(wanted: &Wanted, shards: u16, now: Result<Identity, String>) -> Chosen {
    let (measured, source, refused) = match measured(wanted.file.as_deref(), now) {
        Ok((properties, path)) => {
            let source = format!("as measured ({})", path.display());
            (Some(IoLimits::measured(&properties, shards)), source, false)
        }
        Err((reason, refused)) => (None, one_line(&reason), refused),
    };
    let origin = if measured.is_some() { Origin::Measured } else { Origin::Default };
    let mut limits = measured.unwrap_or_default();
    if let Some(window) = wanted.commit_window {
        limits.commit_window = window;
    }
    let window_origin = if wanted.commit_window.is_some() { Origin::Given } else { origin };
    Chosen { limits, origin, window_origin, source, refused }
}

/// What a file says may be anybody's words: in a log they take one line, and not all of it.
fn one_line(text: &str) -> String {
    let mut line = String::new();
    for each in text.chars() {
        if line.len() > LONGEST_REASON_BYTES {
            return line + "...";
        }
        match each.is_control() {
            true => line.extend(each.escape_default()),
            false => line.push(each),
        }
    }
    line
}

/// The measurement of this drive, and where it is; or why there is none, and whether somebody should look at that.
fn measured(
    file: Option<&Path>,
    now: Result<Identity, String>,
) -> Result<(IoProperties, PathBuf), (String, bool)> {
    let own = OWN;
    let now = now.map_err(|error| (format!("{own}, for nothing is known of the drive: {error}"), true))?;
    let path = match file {
        Some(path) => path.to_path_buf(),
        None => default_path(now.kind, Path::new(&now.path)),
    };
    let properties = match IoProperties::load(&path) {
        Ok(properties) => properties,
        Err(IoPropertiesError::Missing(_)) if file.is_none() => {
            let reason = format!("{own}, for there is no {}; lode-tune measure writes one", path.display());
            return Err((reason, false));
        }
        Err(error) => return Err((format!("{own}, for {error}"), true)),
    };
    let differences = properties.drive.differences(&now);
    if differences.is_empty() {
        return Ok((properties, path));
    }
    let reason = format!(
        "{own}, for {} is of another drive, kernel or setting: {}; measure anew (lode-tune measure --drive {})",
        path.display(),
        differences.join(", "),
        now.path
    );
    Err((reason, true))
}

impl Chosen {
    /// Each value by its name, in words, and where it comes from.
    fn values(&self) -> [(&'static str, Value, String, Origin); 8] {
        let IoLimits {
            most_running,
            free_running,
            free_among_many,
            read_bytes_per_cost,
            write_bytes_per_cost,
            frames_in_flight,
            commit_window,
            longest_spin,
        } = self.limits;
        let (window_us, spin_us) = (commit_window.as_micros() as u64, longest_spin.as_micros() as u64);
        let origin = self.origin;
        [
            ("requests_of_one", json!(most_running), most_running.to_string(), origin),
            ("requests_of_any", json!(free_running), free_running.to_string(), origin),
            ("requests_of_any_among_many", json!(free_among_many), free_among_many.to_string(), origin),
            ("read_cost_bytes", json!(read_bytes_per_cost), read_bytes_per_cost.to_string(), origin),
            ("write_cost_bytes", json!(write_bytes_per_cost), write_bytes_per_cost.to_string(), origin),
            ("frames_in_flight", json!(frames_in_flight), frames_in_flight.to_string(), origin),
            ("commit_window_us", json!(window_us), window_us.to_string(), self.window_origin),
            ("spin_us", json!(spin_us), spin_us.to_string(), origin),
        ]
    }

    /// For the log: the source, and every value with its origin.
    pub fn to_text(&self) -> String {
        let values = self.values();
        let words: Vec<String> =
            values.iter().map(|(name, _, text, origin)| format!("{name} {text} ({origin})")).collect();
        // Why a file was refused has been said in a warning by then.
        let source = if self.refused { OWN } else { &self.source };
        format!("{source}: {}", words.join(", "))
    }

    /// For statistics.
    pub fn to_json(&self) -> Value {
        let value = |(name, value, _, origin): (&str, Value, String, Origin)| {
            (name.to_owned(), json!({ "value": value, "origin": origin.to_string() }))
        };
        let values: serde_json::Map<String, Value> = self.values().into_iter().map(value).collect();
        json!({ "source": self.source, "values": values })
    }
}
