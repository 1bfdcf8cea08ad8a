//! A drive of memory in virtual time: a fixed latency, and one bandwidth that all operations share.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use lode_engine::{Buffers, Completion, Op, Token};

use crate::support::drive::PoolBuffers;

/// How fast the drive is.
#[derive(Clone, Copy)]
pub struct Speed {
    pub latency_ns: u64,
    pub bytes_per_us: u64,
}

pub struct MemoryDrive {
    bytes: Vec<u8>,
    speed: Speed,
    /// When all that was started has been transferred.
    busy_until_ns: u64,
    started: u64,
    /// By when they end, then by when they were started; the operations themselves under the second.
    pending: BinaryHeap<Reverse<(u64, u64)>>,
    ops: std::collections::HashMap<u64, Op>,
    pub written_bytes: u64,
}

impl MemoryDrive {
    pub fn new(len: usize, speed: Speed) -> MemoryDrive {
        MemoryDrive {
            bytes: vec![0; len],
            speed,
            busy_until_ns: 0,
            started: 0,
            pending: BinaryHeap::new(),
            ops: std::collections::HashMap::new(),
            written_bytes: 0,
        }
    }

    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub fn start(&mut self, op: Op, now_ns: u64) {
        let len = match op {
            Op::Read { len, .. } => u64::from(len),
            Op::Write { len, .. } => {
                self.written_bytes += u64::from(len);
                u64::from(len)
            }
            Op::Flush { .. } | Op::Discard { .. } => 0,
        };
        self.busy_until_ns = self.busy_until_ns.max(now_ns) + len * 1000 / self.speed.bytes_per_us;
        self.started += 1;
        self.pending.push(Reverse((self.busy_until_ns + self.speed.latency_ns, self.started)));
        self.ops.insert(self.started, op);
    }

    /// When the next operation ends.
    pub fn next_end_ns(&self) -> Option<u64> {
        self.pending.peek().map(|Reverse((end_ns, _))| *end_ns)
    }

    /// Ends all operations whose time has come.
    pub fn complete(&mut self, now_ns: u64, buffers: &mut PoolBuffers) -> Vec<Completion> {
        let mut completions = Vec::new();
        while self.next_end_ns().is_some_and(|end_ns| end_ns <= now_ns) {
            let Some(Reverse((_, number))) = self.pending.pop() else { break };
            let op = self.ops.remove(&number).expect("what is pending was started");
            let token: Token = match op {
                Op::Read { token, buffer, at, len } => {
                    let range = at.0 as usize..at.0 as usize + len as usize;
                    buffers.bytes_mut(buffer)[..len as usize].copy_from_slice(&self.bytes[range]);
                    token
                }
                Op::Write { token, buffer, at, len, .. } => {
                    let range = at.0 as usize..at.0 as usize + len as usize;
                    self.bytes[range].copy_from_slice(&buffers.bytes(buffer)[..len as usize]);
                    token
                }
                Op::Flush { token } | Op::Discard { token, .. } => token,
            };
            completions.push(Completion { token, result: Ok(()) });
        }
        completions
    }
}
