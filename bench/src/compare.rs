//! Two reports side by side.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use thiserror::Error;

/// What must be the same for figures to be compared.
const CONDITIONS: [&str; 13] = [
    "workload",
    "mix",
    "distribution",
    "protocol",
    "mode",
    "rate",
    "connections",
    "depth",
    "tables",
    "records",
    "value_size",
    "key_size",
    "seconds",
];
/// Figures, and whether more is better.
const FIGURES: [(&str, bool); 5] = [
    ("ops_per_s", true),
    ("errors", false),
    ("server_cpu_us_per_op", false),
    ("client_cpu_us_per_op", false),
    ("scanned_per_s", true),
];
/// Percentiles by kind of requests.
const CLASSES: [&str; 6] = ["get_us", "put_us", "insert_us", "scan_us", "rmw_us", "transaction_us"];
const PERCENTILES: [&str; 5] = ["p50", "p99", "p999", "p9999", "max"];

/// Why two reports could not be compared.
#[derive(Debug, Error)]
pub enum CompareError {
    /// A file could not be read.
    #[error("{path}: {error}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        error: std::io::Error,
    },
    /// A file is no report.
    #[error("{path}: {error}; give what `lode-bench run --json` prints, or a report's report.json")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
}

/// One figure of both.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Its name.
    pub name: String,
    /// Of the first report.
    pub a: f64,
    /// Of the second.
    pub b: f64,
    /// The second over the first; `None` where the first is 0.
    pub ratio: Option<f64>,
    /// Whether more is better.
    pub more_is_better: bool,
}

/// Both reports.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// What was not the same: name, and both values.
    pub differing: Vec<(String, Value, Value)>,
    /// What was measured.
    pub figures: Vec<Figure>,
}

/// Reads two reports.
pub fn compare(a: &Path, b: &Path) -> Result<Comparison, CompareError> {
    Ok(Comparison::new(&read(a)?, &read(b)?))
}

fn read(path: &Path) -> Result<Value, CompareError> {
    let text =
        std::fs::read_to_string(path).map_err(|error| CompareError::Read { path: path.into(), error })?;
    let wrong = |error: String| CompareError::Parse { path: path.into(), error };
    let json: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    let run = if json["run"].is_object() { json["run"].clone() } else { json };
    if run["ops_per_s"].is_number() { Ok(run) } else { Err(wrong("it has no `ops_per_s`".to_owned())) }
}

impl Comparison {
    fn new(a: &Value, b: &Value) -> Comparison {
        let differing = CONDITIONS
            .into_iter()
            .filter(|name| a[name] != b[name])
            .map(|name| (name.to_owned(), a[name].clone(), b[name].clone()))
            .collect();
        let mut figures = Vec::new();
        let mut push = |name: String, a: &Value, b: &Value, more_is_better| {
            let (Some(a), Some(b)) = (a.as_f64(), b.as_f64()) else {
                return;
            };
            let ratio = (a != 0.0).then(|| b / a);
            if a != 0.0 || b != 0.0 {
                figures.push(Figure { name, a, b, ratio, more_is_better });
            }
        };
        for (name, more_is_better) in FIGURES {
            push(name.to_owned(), &a[name], &b[name], more_is_better);
        }
        for class in CLASSES {
            for percentile in PERCENTILES {
                push(format!("{class} {percentile}"), &a[class][percentile], &b[class][percentile], false);
            }
        }
        push(
            "write_amplification".to_owned(),
            &a["node"]["write_amplification"],
            &b["node"]["write_amplification"],
            false,
        );
        Comparison { differing, figures }
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (name, a, b) in &self.differing {
            text += &format!("not the same: {name} is {a} and {b}\n");
        }
        text += &format!("{:<24} {:>14} {:>14} {:>8}\n", "", "A", "B", "B / A");
        for figure in &self.figures {
            let ratio = figure.ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
            let better = match figure.ratio {
                Some(ratio) if (ratio > 1.0) == figure.more_is_better && ratio != 1.0 => "better",
                Some(ratio) if ratio != 1.0 => "worse",
                _ => "",
            };
            text +=
                &format!("{:<24} {:>14.3} {:>14.3} {ratio:>8} {better}\n", figure.name, figure.a, figure.b);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn figures_stand_side_by_side_and_conditions_that_differ_are_told() {
        let a = json!({"ops_per_s": 100.0, "depth": 1, "get_us": {"p99": 50.0}, "errors": 0});
        let b = json!({"ops_per_s": 150.0, "depth": 2, "get_us": {"p99": 75.0}, "errors": 3});
        let comparison = Comparison::new(&a, &b);
        assert_eq!(comparison.differing, [("depth".to_owned(), json!(1), json!(2))]);
        let text = comparison.to_text();
        assert!(text.contains("not the same: depth is 1 and 2"), "{text}");
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(line("ops_per_s").ends_with("1.500 better"), "{text}");
        assert!(line("get_us p99").ends_with("1.500 worse"), "{text}");
        assert!(line("errors").trim_end().ends_with('-'), "{text}");
    }

    #[test]
    fn what_is_no_report_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.json");
        assert!(compare(&path, &path).unwrap_err().to_string().contains("x.json"));
        std::fs::write(&path, "{}").unwrap();
        assert!(compare(&path, &path).unwrap_err().to_string().contains("no `ops_per_s`"));
        std::fs::write(&path, "{\"run\": {\"ops_per_s\": 1.0}}").unwrap();
        assert_eq!(compare(&path, &path).unwrap().figures.len(), 1);
    }
}
