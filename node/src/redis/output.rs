//! Bytes on their way to a peer that takes them at its own pace.

use lode_net::resp::{Protocol, Reply};

use super::limits::LEAST_HELD_BYTES;

/// Room for short replies behind long ones, in bytes: they come one by one, and each would move all of it.
const SHORT_ROOM_BYTES: usize = LEAST_HELD_BYTES / 4;

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

    /// Appends a reply. Room for twice as much as there is would be the usual thing, and would be counted as if it were
    /// used: what is long grows by what it needs.
    pub fn push(&mut self, reply: &Reply, protocol: Protocol) {
        let bytes = reply.size_bytes();
        let is_long = self.bytes.len() + bytes > LEAST_HELD_BYTES;
        if is_long && self.bytes.capacity() - self.bytes.len() < bytes {
            self.bytes.reserve_exact(bytes.max(SHORT_ROOM_BYTES));
        }
        let before = self.bytes.capacity();
        reply.encode(protocol, &mut self.bytes);
        // It took more than it is said to: numbers do.
        if is_long && self.bytes.capacity() > before {
            self.bytes.shrink_to(self.bytes.len() + SHORT_ROOM_BYTES);
        }
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

    fn long(bytes: usize) -> Reply {
        Reply::Bulk((0..bytes).map(|n| n as u8).collect::<Vec<u8>>().into())
    }

    #[test]
    fn a_peer_that_is_always_behind_costs_what_it_is_behind() {
        let mut output = Output::default();
        let (mut all, mut taken) = (Vec::new(), 0);
        for round in 0..300 {
            let reply = long(10_000 + round);
            reply.encode(Protocol::Resp2, &mut all);
            output.push(&reply, Protocol::Resp2);
            let bytes = if taken == 0 { 1 } else { 10_000 };
            output.took(bytes);
            taken += bytes;
            assert!(output.next() == &all[taken..], "round {round}");
            assert!(output.held_bytes() <= 4 * LEAST_HELD_BYTES, "{}", output.held_bytes());
        }
        output.took(all.len() - taken);
        assert!(output.is_empty() && output.held_bytes() <= LEAST_HELD_BYTES);
    }

    /// Short ones behind long ones once made room for as much again.
    #[test]
    fn what_is_appended_takes_what_it_needs_and_a_little() {
        let numbers = Reply::Array(vec![Reply::Double(f64::MIN_POSITIVE); 1000]);
        let error = Reply::error("memory is short");
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            let (mut output, mut all) = (Output::default(), Vec::new());
            for reply in [&long(1 << 20), &error, &numbers, &error, &long(3 << 20), &error, &error, &numbers]
            {
                output.push(reply, protocol);
                reply.encode(protocol, &mut all);
                assert!(output.next() == all, "{} bytes", all.len());
                let most = all.len() + SHORT_ROOM_BYTES;
                assert!(output.held_bytes() <= most, "{} bytes are held of {most}", output.held_bytes());
            }
        }
    }
}
