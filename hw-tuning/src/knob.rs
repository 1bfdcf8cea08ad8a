//! One finding about the machine: what it is, what it should be, why that matters to a node, and what would change it.

use serde::Serialize;

use crate::change::{Change, Write};

/// How much a finding would hold a node back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The question does not arise on this machine; `why` says what is missing.
    NotApplicable,
    /// As wanted.
    Ok,
    /// The node runs, but slower or less steadily than the machine could.
    Warn,
    /// The node does not run, or not safely.
    Fatal,
}

/// One finding. All that the program knows of a knob is said here, once: `check` prints it, `tune` makes its
/// change, and `tune render` writes the change down for the next boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Knob {
    /// Short name, stable for scripts: lower case, digits and underscores.
    pub name: &'static str,
    /// The drive or the interface that it is about; empty for the whole machine.
    pub target: String,
    /// What the machine has.
    pub current: String,
    /// What a node wants.
    pub wanted: String,
    /// How bad the difference is.
    pub severity: Severity,
    /// What the difference costs, or why the question does not arise.
    pub why: String,
    /// How to change it; empty where nothing is to be done.
    pub remedy: String,
    /// What makes it as wanted, whether or not it is already.
    pub change: Change,
}

impl Knob {
    /// A finding that is as wanted.
    pub fn ok(name: &'static str, current: impl Into<String>, wanted: &str, why: &str) -> Knob {
        Knob {
            name,
            target: String::new(),
            current: current.into(),
            wanted: wanted.to_owned(),
            severity: Severity::Ok,
            why: why.to_owned(),
            remedy: String::new(),
            change: Change::default(),
        }
    }

    /// A question that does not arise here.
    pub fn not_applicable(name: &'static str, why: impl Into<String>) -> Knob {
        Knob { severity: Severity::NotApplicable, why: why.into(), ..Knob::ok(name, "-", "-", "") }
    }

    /// The same finding about one drive or interface.
    pub fn of(mut self, target: &str) -> Knob {
        self.target = target.to_owned();
        self
    }

    /// The same finding, short of what is wanted.
    pub fn short(mut self, severity: Severity, remedy: impl Into<String>) -> Knob {
        self.severity = severity;
        self.remedy = remedy.into();
        self
    }

    /// [`short`](Knob::short) if `fine` is false, else unchanged.
    pub fn unless(self, fine: bool, severity: Severity, remedy: impl Into<String>) -> Knob {
        if fine { self } else { self.short(severity, remedy) }
    }

    /// Changed by these writes.
    pub fn written(mut self, writes: impl IntoIterator<Item = Write>) -> Knob {
        self.change.writes.extend(writes);
        self
    }

    /// Changed by these parameters of the kernel, at the next boot.
    pub fn booted(mut self, parameters: impl IntoIterator<Item = String>) -> Knob {
        self.change.boot.extend(parameters);
        self
    }

    /// Changed by these lines of systemd's units.
    pub fn with_units(mut self, lines: impl IntoIterator<Item = crate::change::UnitLine>) -> Knob {
        self.change.units.extend(lines);
        self
    }

    /// Whether something is to be done.
    pub fn is_short(&self) -> bool {
        self.severity >= Severity::Warn
    }

    /// Name and target, for people.
    pub fn label(&self) -> String {
        if self.target.is_empty() { self.name.to_owned() } else { format!("{} {}", self.name, self.target) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn severities_are_ordered_from_harmless_to_fatal() {
        let mut all = [Severity::Fatal, Severity::Ok, Severity::Warn, Severity::NotApplicable];
        all.sort();
        assert_eq!(all, [Severity::NotApplicable, Severity::Ok, Severity::Warn, Severity::Fatal]);
    }

    #[test]
    fn unless_leaves_a_fine_finding_alone() {
        let knob = Knob::ok("x", "1", "1", "because");
        assert_eq!(knob.clone().unless(true, Severity::Fatal, "do this"), knob);
        let short = knob.unless(false, Severity::Warn, "do this");
        assert_eq!((short.severity, short.remedy.as_str()), (Severity::Warn, "do this"));
    }
}
