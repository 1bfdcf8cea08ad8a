//! Values that tell what they are: which key, which version, and whether they are whole.

/// Length, version, checksum of the key, checksum of all before it.
const OVERHEAD_BYTES: usize = 4 + 8 + 4 + 4;

/// A value of `key` at `version`, `len` bytes long or as long as it takes.
pub fn make(key: &[u8], version: u64, len: usize) -> Vec<u8> {
    let len = len.max(OVERHEAD_BYTES);
    let mut value = Vec::with_capacity(len);
    value.extend_from_slice(&(len as u32).to_le_bytes());
    value.extend_from_slice(&version.to_le_bytes());
    value.extend_from_slice(&crc32c::crc32c(key).to_le_bytes());
    let mut dice = Dice::new(version ^ len as u64);
    while value.len() < len - 4 {
        let bytes = dice.roll().to_le_bytes();
        let room = (len - 4 - value.len()).min(8);
        value.extend_from_slice(&bytes[..room]);
    }
    let checksum = crc32c::crc32c(&value);
    value.extend_from_slice(&checksum.to_le_bytes());
    value
}

/// The version of a value of `key`; `None` where the value is another key's, cut short or mixed up.
pub fn version(key: &[u8], value: &[u8]) -> Option<u64> {
    let (all, checksum) = value.split_last_chunk::<4>()?;
    let (len, rest) = all.split_first_chunk::<4>()?;
    let (version, rest) = rest.split_first_chunk::<8>()?;
    let (of_key, _) = rest.split_first_chunk::<4>()?;
    let whole = u32::from_le_bytes(*checksum) == crc32c::crc32c(all)
        && u32::from_le_bytes(*len) as usize == value.len()
        && u32::from_le_bytes(*of_key) == crc32c::crc32c(key);
    whole.then(|| u64::from_le_bytes(*version))
}

/// A stream of numbers from a seed (SplitMix64), for tests that replay.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_by_its_key_and_only_whole() {
        for len in [0, 20, 21, 1000] {
            let value = make(b"k", 7, len);
            assert_eq!(value.len(), len.max(OVERHEAD_BYTES));
            assert_eq!(version(b"k", &value), Some(7));
            assert_eq!(version(b"l", &value), None);
            assert_eq!(version(b"k", &value[..value.len() - 1]), None);
            for at in 0..value.len() {
                let mut bad = value.clone();
                bad[at] ^= 1;
                assert_eq!(version(b"k", &bad), None, "byte {at} of {len}");
            }
        }
        assert_eq!(version(b"k", b""), None);
    }
}
