//! Lengths of live records, counted by power of two and the bits below it: known within an eighth.

/// Bits below the power of two.
const LENGTH_BITS: u32 = 3;
/// How many counts there are.
pub const LENGTHS: usize = 32 << LENGTH_BITS;

/// Which count a record's length comes into.
pub fn length_class(len: u64) -> usize {
    let power = len.max(1 << LENGTH_BITS).ilog2();
    let below = (len >> (power - LENGTH_BITS)) & ((1 << LENGTH_BITS) - 1);
    (((power - LENGTH_BITS) << LENGTH_BITS) as usize) + below as usize
}

/// The longest length of a count.
pub fn longest_of(class: usize) -> u64 {
    let (power, below) = (class >> LENGTH_BITS, class as u64 & ((1 << LENGTH_BITS) - 1));
    (((1 << LENGTH_BITS) + below + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_known_within_an_eighth() {
        let mut last = 0;
        for len in (8..5000u64).chain([1 << 20, (1 << 20) + 4126, (1 << 21) - 1]) {
            let class = length_class(len);
            assert!(class >= last && class < LENGTHS, "length {len}");
            assert!(
                longest_of(class) >= len && longest_of(class) < len + len.div_ceil(8) + 1,
                "length {len}"
            );
            last = class;
        }
    }
}
