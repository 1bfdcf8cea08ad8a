//! Bytes on their way to a peer that takes them at its own pace.

use super::limits::LEAST_HELD_BYTES;

/// What was answered and not taken.
#[derive(Default)]
pub struct Output {
    bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    /// What is next to be sent.
    pub fn next(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Whether everything was taken.
    pub fn is_empty(&self) -> bool {
        self.next().is_empty()
    }

    /// Where more is appended.
    pub fn end(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// So many bytes were taken. What a peer has that is always a little behind is let go, too.
    pub fn took(&mut self, bytes: usize) {
        self.sent += bytes;
        let left = self.next().len();
        if left == 0 || self.sent >= left.max(LEAST_HELD_BYTES) {
            self.bytes.drain(..self.sent);
            self.sent = 0;
            self.bytes.shrink_to((2 * left).max(LEAST_HELD_BYTES));
        }
    }

    /// What it takes in memory, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_is_always_behind_costs_what_it_is_behind() {
        let mut output = Output::default();
        let (mut put, mut taken) = (0usize, 0usize);
        for _ in 0..300 {
            output.end().extend((put..put + 10_000).map(|n| n as u8));
            put += 10_000;
            let bytes = if taken == 0 { 1 } else { 10_000 };
            assert!(output.next()[..bytes].iter().enumerate().all(|(n, byte)| *byte == (taken + n) as u8));
            output.took(bytes);
            taken += bytes;
            assert_eq!(output.next().len(), put - taken);
            assert!(output.held_bytes() <= 4 * LEAST_HELD_BYTES, "{}", output.held_bytes());
        }
        output.took(put - taken);
        assert!(output.is_empty() && output.held_bytes() <= LEAST_HELD_BYTES);
    }
}
