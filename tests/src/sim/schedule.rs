//! Which of the things that go wrong in a run do: each has a number, and a failure hardly ever needs all of them.

use std::fmt;
use std::str::FromStr;

/// So many runs are tried at most to find out which are needed.
const MOST_TRIES: usize = 150;
/// No run has so many things that go wrong.
const MOST_FAULTS: u64 = 1 << 24;

/// Some of what goes wrong, by number: ranges without gaps between them, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultSet(Vec<(u64, u64)>);

impl FaultSet {
    /// These.
    fn of(numbers: impl IntoIterator<Item = u64>) -> FaultSet {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for number in numbers {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == number => *last = number,
                _ => ranges.push((number, number)),
            }
        }
        FaultSet(ranges)
    }

    /// Whether this one is among them.
    pub fn contains(&self, number: u64) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }

    fn numbers(&self) -> Vec<u64> {
        self.0.iter().flat_map(|(first, last)| *first..=*last).collect()
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        let text = |(first, last): &(u64, u64)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        };
        f.write_str(&self.0.iter().map(text).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for FaultSet {
    type Err = String;

    fn from_str(text: &str) -> Result<FaultSet, String> {
        if text == "none" {
            return Ok(FaultSet::default());
        }
        let wrong = |part: &str| format!("\"{part}\" is neither a number nor a range like 3-7; or say none");
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let ends = first.parse().ok().zip(last.parse().ok());
            ends.filter(|(first, last)| first <= last).ok_or_else(|| wrong(part))
        };
        let mut ranges = text.split(',').map(range).collect::<Result<Vec<(u64, u64)>, _>>()?;
        ranges.sort_unstable();
        Ok(FaultSet(ranges))
    }
}

/// Of what goes wrong, a part with which a run still fails, and without any one of which, as far as it was tried, it does
/// not; nothing where it fails without any. Halves are taken out first, then ever smaller parts (Zeller's ddmin).
pub fn shrink(mut fails: impl FnMut(&FaultSet) -> bool) -> FaultSet {
    let mut tries = 0;
    let mut fails = |set: &FaultSet| {
        tries += 1;
        (tries <= MOST_TRIES).then(|| fails(set))
    };
    if fails(&FaultSet::default()) == Some(true) {
        return FaultSet::default();
    }
    // How many there are nobody says: a run that dies does not count them.
    let counts = (0..).map(|doublings| 1 << doublings).take_while(|count| *count < MOST_FAULTS);
    let first = |count| FaultSet(vec![(1, count)]);
    let Some(mut needed) = counts.map(first).find(|set| fails(set) == Some(true)) else {
        return first(MOST_FAULTS);
    };
    let mut parts = 2;
    loop {
        let numbers = needed.numbers();
        if numbers.len() < 2 {
            return needed;
        }
        let part_len = numbers.len().div_ceil(parts);
        let mut smaller = None;
        for begin in (0..numbers.len()).step_by(part_len) {
            let end = (begin + part_len).min(numbers.len());
            let rest = FaultSet::of(numbers[..begin].iter().chain(&numbers[end..]).copied());
            match fails(&rest) {
                Some(true) => {
                    smaller = Some(rest);
                    break;
                }
                Some(false) => {}
                None => return needed,
            }
        }
        match smaller {
            Some(rest) => {
                needed = rest;
                parts = (parts - 1).max(2);
            }
            None if part_len == 1 => return needed,
            None => parts = (2 * parts).min(numbers.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_written_as_it_is_read() {
        for text in ["none", "3", "3-7", "1,3-7,90"] {
            assert_eq!(text.parse::<FaultSet>().map(|set| set.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "x", "7-3", "3-", "1,,2"] {
            assert!(text.parse::<FaultSet>().is_err(), "{text:?}");
        }
        let set: FaultSet = "1,3-7".parse().expect("a set");
        assert_eq!((0..9).filter(|number| set.contains(*number)).collect::<Vec<_>>(), [1, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn what_a_failure_needs_is_found() {
        for needed in [&[][..], &[1], &[700], &[5, 300], &[2, 3, 513]] {
            let found = shrink(|set| needed.iter().all(|number| set.contains(*number)));
            assert_eq!(found.numbers(), needed);
        }
    }

    #[test]
    fn it_comes_to_an_end_where_nothing_fails_or_chance_decides() {
        let mut tries = 0;
        shrink(|_| {
            tries += 1;
            tries % 3 == 0
        });
        assert!(tries <= MOST_TRIES, "{tries}");
        assert!(shrink(|_| false).contains(MOST_FAULTS));
    }
}
