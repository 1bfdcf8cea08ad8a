//! Knobs that are one file with one value: most of them.

use super::Context;
use crate::change::{Place, Write};
use crate::knob::{Knob, Severity};
use crate::machine::drives::chosen;
use crate::probe::Unread;
use crate::profile::Want;

/// How a value is held against what is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Not less.
    AtLeast,
    /// Not more.
    AtMost,
    /// The same.
    Exactly,
}

/// A knob that is one file with one value.
#[derive(Debug, Clone)]
pub struct OneFile {
    /// Its name, here and in profiles.
    pub name: &'static str,
    /// The file.
    pub place: Place,
    /// The drive or interface; empty for the machine.
    pub target: String,
    /// What the difference costs.
    pub why: &'static str,
    /// What it means that the file is not there.
    pub absent: &'static str,
}

impl OneFile {
    /// A `sysctl`.
    pub fn sysctl(name: &'static str, key: &str, why: &'static str) -> OneFile {
        OneFile::machine(
            name,
            &format!("/proc/sys/{}", key.replace('.', "/")),
            why,
            "this kernel has no such setting",
        )
    }

    /// A file of the machine.
    pub fn machine(name: &'static str, file: &str, why: &'static str, absent: &'static str) -> OneFile {
        let place = Place::Machine { file: file.to_owned() };
        OneFile { name, place, target: String::new(), why, absent }
    }

    /// Where it cannot be read: why.
    pub fn unread(&self, unread: Unread) -> Knob {
        let why = match unread {
            Unread::Absent => self.absent.to_owned(),
            Unread::Refused(why) => why,
        };
        Knob::not_applicable(self.name, why).of(&self.target)
    }

    /// The profile has no opinion.
    pub fn kept(&self, cx: &Context, current: &str) -> Knob {
        let why = format!("the profile {} leaves it as it is", cx.profile.name);
        let mut knob = Knob::not_applicable(self.name, why).of(&self.target);
        knob.current = current.to_owned();
        knob
    }

    /// The number in the file against the profile's; `auto` is what the profile's `auto` stands for.
    pub fn number(&self, cx: &Context, rule: Rule, auto: Option<u64>) -> Knob {
        let path = self.located(cx);
        let current = match cx.probe.read_number(&path) {
            Ok(number) => number,
            Err(unread) => return self.unread(unread),
        };
        let wanted = match cx.profile.want(self.name) {
            Want::Number(number) => Some(*number),
            Want::Auto => auto,
            _ => None,
        };
        let Some(wanted) = wanted else {
            return self.kept(cx, &current.to_string());
        };
        let (fine, more) = match rule {
            Rule::AtLeast => (current >= wanted, " or more"),
            Rule::AtMost => (current <= wanted, " or less"),
            Rule::Exactly => (current == wanted, ""),
        };
        // What is already fine, and better than asked for, stays as it is at the next boot, too.
        let value = if fine { current } else { wanted }.to_string();
        let remedy = self.remedy(&path, &wanted.to_string());
        Knob::ok(self.name, current.to_string(), &format!("{wanted}{more}"), self.why)
            .of(&self.target)
            .unless(fine, Severity::Warn, remedy)
            .written([Write::at(self.place.clone(), value)])
    }

    /// The word in the file, the one in brackets where it lists several, against the profile's, or `others` that
    /// will do as well.
    pub fn word(&self, cx: &Context, others: &[&str]) -> Knob {
        let path = self.located(cx);
        let text = match cx.probe.read(&path) {
            Ok(text) => text,
            Err(unread) => return self.unread(unread),
        };
        let current = chosen(&text);
        let Some(wanted) = cx.profile.word(self.name) else {
            return self.kept(cx, current);
        };
        let fine = current == wanted || others.contains(&current);
        let all: Vec<&str> =
            std::iter::once(wanted).chain(others.iter().copied().filter(|o| *o != wanted)).collect();
        let knob = Knob::ok(self.name, current, &all.join(" or "), self.why).of(&self.target);
        let offered =
            |word: &str| text.split_whitespace().any(|offer| offer.trim_matches(['[', ']']) == word);
        if !fine && text.contains('[') && !offered(wanted) {
            return knob
                .short(Severity::Warn, format!("boot a kernel that offers {wanted}; this one has {text}"));
        }
        let value = if fine { current } else { wanted };
        knob.unless(fine, Severity::Warn, self.remedy(&path, wanted))
            .written([Write::at(self.place.clone(), value)])
    }

    fn located(&self, cx: &Context) -> String {
        // A disk or an interface that is gone since it was listed reads as a file that is not there.
        self.place.locate(cx.probe).unwrap_or_else(|| self.place.to_string())
    }

    fn remedy(&self, path: &str, value: &str) -> String {
        match self.place.sysctl() {
            Some(key) => format!("sysctl {key}={value}"),
            None => format!("echo {value} > {path}"),
        }
    }
}
