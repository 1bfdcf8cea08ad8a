//! What happened in a run: a digest of all of it, its last moments, and the text for who wants to read it.

use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hasher};

/// How much of a run's end is kept to be shown.
const KEPT_NOTES: usize = 12;
/// Most facts of one note.
const MOST_FACTS: usize = 5;

/// Whether the trace is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// Only the digest is made.
    #[default]
    Digest,
    /// Every note is printed as it is made.
    Print,
}

/// What is said of something that happened: a name, and its number.
pub type Fact = (&'static str, u64);

/// Something that happened.
#[derive(Clone, Copy, Debug)]
struct Note {
    now_ns: u64,
    what: &'static str,
    facts: [Fact; MOST_FACTS],
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>14} ns  {}", self.now_ns, self.what)?;
        for (name, number) in self.facts.iter().filter(|(name, _)| !name.is_empty()) {
            match *name {
                "checksum" => write!(f, ", {name} {number:08x}")?,
                _ => write!(f, ", {name} {number}")?,
            }
        }
        Ok(())
    }
}

/// The notes of a run, in order.
#[derive(Debug)]
pub struct Trace {
    hasher: DefaultHasher,
    verbosity: Verbosity,
    notes: u64,
    last: VecDeque<Note>,
}

impl Trace {
    /// An empty one.
    pub fn new(verbosity: Verbosity) -> Trace {
        Trace { hasher: DefaultHasher::new(), verbosity, notes: 0, last: VecDeque::new() }
    }

    /// Something happened at this time: in words, and with the numbers that say which.
    ///
    /// # Panics
    ///
    /// If there are more than five facts.
    pub fn note(&mut self, now_ns: u64, what: &'static str, facts: &[Fact]) {
        self.notes += 1;
        self.hasher.write_u64(now_ns);
        self.hasher.write(what.as_bytes());
        let mut note = Note { now_ns, what, facts: [("", 0); MOST_FACTS] };
        note.facts[..facts.len()].copy_from_slice(facts);
        for (_, number) in facts {
            self.hasher.write_u64(*number);
        }
        if self.verbosity == Verbosity::Print {
            println!("{note}");
        }
        if self.last.len() == KEPT_NOTES {
            self.last.pop_front();
        }
        self.last.push_back(note);
    }

    /// A number that all notes so far make up. Two runs of one seed have the same.
    pub fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    /// How many notes there are.
    pub fn len(&self) -> u64 {
        self.notes
    }

    /// The last of them, in words.
    pub fn end(&self) -> Vec<String> {
        self.last.iter().map(Note::to_string).collect()
    }
}

/// The fact of bytes: they are other bytes where this is another number.
pub fn checksum(bytes: &[u8]) -> Fact {
    ("checksum", u64::from(crc32c::crc32c(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_order_time_word_and_numbers_apart() {
        let digest = |notes: &[(u64, &'static str, u64)]| {
            let mut trace = Trace::new(Verbosity::Digest);
            notes.iter().for_each(|(now_ns, what, number)| trace.note(*now_ns, what, &[("n", *number)]));
            trace.digest()
        };
        let same = digest(&[(1, "a", 1), (2, "b", 2)]);
        assert_eq!(same, digest(&[(1, "a", 1), (2, "b", 2)]));
        for other in [
            digest(&[(2, "b", 2), (1, "a", 1)]),
            digest(&[(1, "a", 1), (3, "b", 2)]),
            digest(&[(1, "a", 1), (2, "c", 2)]),
            digest(&[(1, "a", 1), (2, "b", 3)]),
        ] {
            assert_ne!(same, other);
        }
    }

    #[test]
    fn the_end_of_a_trace_can_be_read() {
        let mut trace = Trace::new(Verbosity::Digest);
        for i in 0..KEPT_NOTES as u64 + 2 {
            trace.note(i, "it ticks", &[("times", i), checksum(b"tick")]);
        }
        let end = trace.end();
        assert_eq!(end.len(), KEPT_NOTES);
        assert_eq!(
            end[0].trim(),
            format!("2 ns  it ticks, times 2, checksum {:08x}", crc32c::crc32c(b"tick"))
        );
    }
}
