//! What a service promises: a share of requests of one kind that are answered within a time.

use std::str::FromStr;
use std::time::Duration;

use serde::Serialize;

use crate::options::duration;
use crate::workload::Operation;

/// Most of these requests are answered well within this time. Requests that fail count as too late.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Objective {
    /// Which requests.
    pub operation: Operation,
    /// How many of a hundred, such as 99.9.
    pub percent: f64,
    /// Within so many microseconds.
    pub within_us: f64,
}

impl Objective {
    /// Those of a report that was not told any.
    pub fn usual() -> Vec<Objective> {
        vec![
            Objective { operation: Operation::Get, percent: 99.9, within_us: 1_000.0 },
            Objective { operation: Operation::Put, percent: 99.0, within_us: 10_000.0 },
        ]
    }

    /// The share of requests that may be late.
    pub fn budget(&self) -> f64 {
        (100.0 - self.percent) / 100.0
    }
}

impl std::fmt::Display for Objective {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Objective { operation, percent, within_us } = self;
        let (time, unit) = match *within_us {
            us if us >= 1e6 => (us / 1e6, "s"),
            us if us >= 1e3 => (us / 1e3, "ms"),
            us => (us, "us"),
        };
        write!(f, "{}:p{percent}<{time}{unit}", operation.name())
    }
}

impl FromStr for Objective {
    type Err = String;

    /// `get:p99.9<1ms`.
    fn from_str(text: &str) -> Result<Objective, String> {
        let wrong = || format!("`{text}` is no objective, such as get:p99.9<1ms");
        let (operation, rest) = text.split_once(":p").ok_or_else(wrong)?;
        let (percent, within) = rest.split_once('<').ok_or_else(wrong)?;
        let percent: f64 = percent.parse().map_err(|_| wrong())?;
        if !(percent > 0.0 && percent < 100.0) {
            return Err(format!("`{text}`: a percentile lies between 0 and 100"));
        }
        let within = match within.strip_suffix("us") {
            Some(us) => Duration::from_micros(us.parse().map_err(|_| wrong())?),
            None => duration(within)?,
        };
        if within.is_zero() {
            return Err(format!("`{text}`: nothing is answered in no time"));
        }
        Ok(Objective { operation: operation.parse()?, percent, within_us: within.as_secs_f64() * 1e6 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_and_written_alike() {
        for text in ["get:p99.9<1ms", "put:p50<250us", "scan:p99.99<1.5s", "rmw:p99<2.5ms"] {
            let objective: Objective = text.parse().unwrap();
            assert_eq!(objective.to_string(), text);
        }
        let objective: Objective = "get:p99.9<1ms".parse().unwrap();
        assert_eq!(objective.within_us, 1000.0);
        assert!((objective.budget() - 0.001).abs() < 1e-12);
    }

    #[test]
    fn what_is_no_objective_is_refused_in_words() {
        for wrong in
            ["", "get", "get:p99", "get:p0<1ms", "get:p100<1ms", "fly:p99<1ms", "get:p99<0ms", "get:p9<x"]
        {
            assert!(wrong.parse::<Objective>().is_err(), "{wrong}");
        }
    }
}
