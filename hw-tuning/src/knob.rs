//! One finding about the machine: what it is, what it should be, and why that matters to a node.

use serde::Serialize;

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

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Knob {
    /// Short name, stable for scripts: lower case, digits and underscores.
    pub name: &'static str,
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
}

impl Knob {
    /// A finding that is as wanted.
    pub fn ok(name: &'static str, current: impl Into<String>, wanted: &str, why: &str) -> Knob {
        Knob {
            name,
            current: current.into(),
            wanted: wanted.to_owned(),
            severity: Severity::Ok,
            why: why.to_owned(),
            remedy: String::new(),
        }
    }

    /// A question that does not arise here.
    pub fn not_applicable(name: &'static str, why: impl Into<String>) -> Knob {
        Knob {
            name,
            current: "-".to_owned(),
            wanted: "-".to_owned(),
            severity: Severity::NotApplicable,
            why: why.into(),
            remedy: String::new(),
        }
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
