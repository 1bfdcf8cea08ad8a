//! The findings, for people and for scripts.

use std::fmt::Write;

use serde::Serialize;

use crate::knob::{Knob, Severity};

/// Widest column of names.
const MOST_WIDTH: usize = 60;

/// All findings of one look at the machine.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Name of the profile that says what is wanted.
    pub profile: String,
    /// In the order they were looked at.
    pub knobs: Vec<Knob>,
    /// Findings that are as wanted.
    pub ok: usize,
    /// Findings that cost something.
    pub warn: usize,
    /// Findings that keep a node from running.
    pub fatal: usize,
}

impl Report {
    /// Count the findings.
    pub fn new(profile: &str, knobs: Vec<Knob>) -> Report {
        let count = |severity| knobs.iter().filter(|knob| knob.severity == severity).count();
        let (ok, warn, fatal) = (count(Severity::Ok), count(Severity::Warn), count(Severity::Fatal));
        Report { profile: profile.to_owned(), knobs, ok, warn, fatal }
    }

    /// 0: all is well; 1: something costs; 2: a node would not run.
    pub fn exit_code(&self) -> u8 {
        match (self.fatal, self.warn) {
            (0, 0) => 0,
            (0, _) => 1,
            _ => 2,
        }
    }

    /// A table, worst first, with the reason and the remedy under what is short.
    pub fn to_text(&self) -> String {
        let mut sorted: Vec<&Knob> = self.knobs.iter().collect();
        sorted.sort_by_key(|knob| std::cmp::Reverse(knob.severity));
        let width = sorted.iter().map(|knob| knob.label().len()).max().unwrap_or(0);
        // A name may have any length, and a column may not.
        let width = width.min(MOST_WIDTH);
        let mut out = String::new();
        for knob in sorted {
            // Writing to a string cannot fail.
            let _ = match knob.severity {
                Severity::NotApplicable => writeln!(out, "n/a    {:width$}  {}", knob.label(), knob.why),
                Severity::Ok => writeln!(out, "ok     {:width$}  {}", knob.label(), knob.current),
                short => {
                    let label = if short == Severity::Fatal { "FATAL" } else { "warn " };
                    let (name, current, wanted) = (knob.label(), &knob.current, &knob.wanted);
                    let (why, remedy) = (&knob.why, &knob.remedy);
                    writeln!(out, "{label}  {name:width$}  {current}; wanted: {wanted}")
                        .and_then(|()| writeln!(out, "       {:width$}  why: {why}", ""))
                        .and_then(|()| writeln!(out, "       {:width$}  do: {remedy}", ""))
                }
            };
        }
        let _ = writeln!(out, "{} ok, {} to improve, {} fatal", self.ok, self.warn, self.fatal);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn knob(severity: Severity) -> Knob {
        Knob::ok("thing", "this", "that", "it matters").short(severity, "turn it")
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_finding() {
        assert_eq!(Report::new("dev", vec![]).exit_code(), 0);
        assert_eq!(
            Report::new("dev", vec![knob(Severity::Ok), knob(Severity::NotApplicable)]).exit_code(),
            0
        );
        assert_eq!(Report::new("dev", vec![knob(Severity::Ok), knob(Severity::Warn)]).exit_code(), 1);
        assert_eq!(Report::new("dev", vec![knob(Severity::Fatal), knob(Severity::Warn)]).exit_code(), 2);
    }

    #[test]
    fn the_worst_comes_first_and_says_what_to_do() {
        let text = Report::new("dev", vec![knob(Severity::Ok), knob(Severity::Fatal)]).to_text();
        let first = text.lines().next().unwrap();
        assert!(first.starts_with("FATAL"), "{text}");
        assert!(text.contains("do: turn it") && text.contains("why: it matters"), "{text}");
        assert!(text.ends_with("1 ok, 0 to improve, 1 fatal\n"), "{text}");
    }

    #[test]
    fn names_of_any_length_are_told() {
        let long = knob(Severity::Warn).of(&"d".repeat(70_000));
        assert!(Report::new("dev", vec![long, knob(Severity::Ok)]).to_text().len() > 70_000);
    }

    #[test]
    fn the_json_has_the_knobs_with_their_severity_in_words() {
        let json = serde_json::to_value(Report::new("dev", vec![knob(Severity::NotApplicable)])).unwrap();
        assert_eq!(json["knobs"][0]["severity"], "not_applicable");
        assert_eq!(json["knobs"][0]["name"], "thing");
    }
}
