//! What happened in a run: a digest of all of it, and the text for who wants to read it.

use std::hash::{DefaultHasher, Hasher};

/// Whether the trace is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verbosity {
    /// Only the digest is made.
    #[default]
    Digest,
    /// Every note is printed as it is made.
    Print,
}

/// The notes of a run, in order.
#[derive(Debug)]
pub struct Trace {
    hasher: DefaultHasher,
    verbosity: Verbosity,
    notes: u64,
}

impl Trace {
    /// An empty one.
    pub fn new(verbosity: Verbosity) -> Trace {
        Trace { hasher: DefaultHasher::new(), verbosity, notes: 0 }
    }

    /// Something happened at this time: a word, and the numbers that say which.
    pub fn note(&mut self, now_ns: u64, what: &str, numbers: &[u64]) {
        self.notes += 1;
        self.hasher.write_u64(now_ns);
        self.hasher.write(what.as_bytes());
        for number in numbers {
            self.hasher.write_u64(*number);
        }
        if self.verbosity == Verbosity::Print {
            println!("{:>14} ns  {what} {numbers:?}", now_ns);
        }
    }

    /// A number that all notes so far make up. Two runs of one seed have the same.
    pub fn digest(&self) -> u64 {
        self.hasher.finish()
    }

    /// How many notes there are.
    pub fn len(&self) -> u64 {
        self.notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_order_time_word_and_numbers_apart() {
        let digest = |notes: &[(u64, &str, &[u64])]| {
            let mut trace = Trace::new(Verbosity::Digest);
            notes.iter().for_each(|(now_ns, what, numbers)| trace.note(*now_ns, what, numbers));
            trace.digest()
        };
        let same = digest(&[(1, "a", &[1]), (2, "b", &[2])]);
        assert_eq!(same, digest(&[(1, "a", &[1]), (2, "b", &[2])]));
        for other in [
            digest(&[(2, "b", &[2]), (1, "a", &[1])]),
            digest(&[(1, "a", &[1]), (3, "b", &[2])]),
            digest(&[(1, "a", &[1]), (2, "c", &[2])]),
            digest(&[(1, "a", &[1]), (2, "b", &[3])]),
        ] {
            assert_ne!(same, other);
        }
    }
}
