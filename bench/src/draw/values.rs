//! Values that tell which record they belong to.

use std::str::FromStr;

use super::dice::{Dice, mix};

/// Random bytes from which values are cut, beyond the longest value.
const POOL_EXTRA_BYTES: usize = 64 << 10;
/// Longest value, in bytes.
const MOST_BYTES: u32 = 1 << 20;

/// How long values are: each length with its share. A record keeps its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueSizes {
    /// Length in bytes, and the sum of the weights up to and with it.
    steps: Vec<(u32, u64)>,
}

impl ValueSizes {
    /// All alike.
    pub fn fixed(bytes: u32) -> ValueSizes {
        ValueSizes { steps: vec![(bytes, 1)] }
    }

    /// Bytes of the value of record `index`.
    pub fn of(&self, index: u64) -> usize {
        let whole = self.steps.last().map_or(1, |step| step.1);
        // Not the key's own bits: lengths shall not follow the order of keys.
        let drawn = ((u128::from(mix(index ^ 0x5851_f42d_4c95_7f2d)) * u128::from(whole)) >> 64) as u64;
        let place = self.steps.partition_point(|step| step.1 <= drawn);
        self.steps[place].0 as usize
    }

    /// The longest, in bytes.
    pub fn longest(&self) -> usize {
        self.steps.iter().map(|step| step.0).max().unwrap_or(0) as usize
    }

    /// Bytes of a value, on average.
    pub fn mean(&self) -> f64 {
        let mut before = 0;
        let mut sum = 0.0;
        for &(bytes, until) in &self.steps {
            sum += f64::from(bytes) * (until - before) as f64;
            before = until;
        }
        sum / before.max(1) as f64
    }
}

impl FromStr for ValueSizes {
    type Err = String;

    /// `1024`, or lengths with weights: `100:50,1024:40,65536:10`.
    fn from_str(text: &str) -> Result<ValueSizes, String> {
        let mut steps: Vec<(u32, u64)> = Vec::new();
        for part in text.split(',') {
            let (bytes, weight) = part.split_once(':').unwrap_or((part, "1"));
            let wrong = || format!("`{part}` is no length with a weight, such as 1024:40");
            let bytes: u32 = bytes.trim().parse().map_err(|_| wrong())?;
            let weight: u32 = weight.trim().parse().map_err(|_| wrong())?;
            if bytes > MOST_BYTES {
                return Err(format!("a value of {bytes} bytes is longer than {MOST_BYTES}"));
            }
            if weight == 0 {
                return Err(format!("`{part}` has no weight"));
            }
            let before = steps.last().map_or(0, |step| step.1);
            steps.push((bytes, before + u64::from(weight)));
        }
        Ok(ValueSizes { steps })
    }
}

impl std::fmt::Display for ValueSizes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let [(bytes, _)] = self.steps[..] {
            return write!(f, "{bytes}");
        }
        let mut before = 0;
        for (place, &(bytes, until)) in self.steps.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            write!(f, "{comma}{bytes}:{}", until - before)?;
            before = until;
        }
        Ok(())
    }
}

/// Values that tell which record they belong to, and do not compress.
#[derive(Debug)]
pub struct Values {
    sizes: ValueSizes,
    pool: Vec<u8>,
    value: Vec<u8>,
}

impl Values {
    /// Values of these lengths.
    pub fn new(sizes: ValueSizes, seed: u64) -> Values {
        let mut dice = Dice::new(seed);
        let numbers = (sizes.longest() + POOL_EXTRA_BYTES).div_ceil(8);
        let pool = (0..numbers).flat_map(|_| dice.roll().to_le_bytes()).collect();
        Values { sizes, pool, value: Vec::new() }
    }

    /// A value of record `index`.
    pub fn next(&mut self, index: u64, dice: &mut Dice) -> &[u8] {
        let from = dice.below(POOL_EXTRA_BYTES as u64) as usize;
        let bytes = self.sizes.of(index);
        self.value.clear();
        self.value.extend_from_slice(&self.pool[from..from + bytes]);
        let tag = index.to_le_bytes();
        let tagged = bytes.min(tag.len());
        self.value[..tagged].copy_from_slice(&tag[..tagged]);
        &self.value
    }
}

/// Whether `value` is one that [`Values`] of `sizes` would give for record `index`.
pub fn belongs(value: &[u8], index: u64, sizes: &ValueSizes) -> bool {
    let bytes = sizes.of(index);
    let tag = index.to_le_bytes();
    let tagged = bytes.min(tag.len());
    value.len() == bytes && value[..tagged] == tag[..tagged]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_belongs_to_its_record_and_to_no_other() {
        let mut dice = Dice::new(1);
        for bytes in [0, 3, 8, 1024] {
            let sizes = ValueSizes::fixed(bytes);
            let mut values = Values::new(sizes.clone(), 1);
            let value = values.next(77, &mut dice).to_vec();
            assert!(belongs(&value, 77, &sizes));
            assert!(bytes == 0 || !belongs(&value, 78, &sizes), "{bytes}");
            assert!(!belongs(&value, 77, &ValueSizes::fixed(bytes + 1)));
        }
    }

    #[test]
    fn lengths_come_by_their_weights() {
        let sizes: ValueSizes = "100:50,1024:40,65536:10".parse().unwrap();
        assert_eq!(sizes.to_string(), "100:50,1024:40,65536:10");
        assert_eq!(sizes.longest(), 65536);
        let mut counts = [0; 3];
        for index in 0..10_000 {
            match sizes.of(index) {
                100 => counts[0] += 1,
                1024 => counts[1] += 1,
                65536 => counts[2] += 1,
                other => panic!("{other}"),
            }
        }
        assert!((4800..5200).contains(&counts[0]) && (900..1100).contains(&counts[2]), "{counts:?}");
        assert!((sizes.mean() - 7013.2).abs() < 0.1, "{}", sizes.mean());
        assert_eq!("1024".parse(), Ok(ValueSizes::fixed(1024)));
        for wrong in ["", "x", "10:", "10:0", "1048577", "10:1,", "-1"] {
            assert!(wrong.parse::<ValueSizes>().is_err(), "{wrong}");
        }
    }
}
