//! What engine tests run a shard on: a drive, buffers and a clock of memory, and one seed for all chance.
#![allow(dead_code, missing_docs, clippy::expect_used)]

pub mod drive;
pub mod random;

use lode_engine::{
    Buffers, Geometry, Inbox, Now, NodeId, Outbox, Phase, Reply, ReplyBody, Request, RequestBody, RequestId,
    Shard, ShardConfig, ShardId, format_drive, DriveIdentity,
};

use drive::{PoolBuffers, SimDrive};
use random::Random;

pub const UUID: [u8; 16] = [0x4c; 16];

/// A shard over a simulated drive. One thread, virtual time.
pub struct Sim {
    pub shard: Shard,
    pub drive: SimDrive,
    pub buffers: PoolBuffers,
    pub random: Random,
    pub config: ShardConfig,
    pub now_ns: u64,
    pub wall_ns: u64,
    next_id: u64,
    pub replies: Vec<Reply>,
}

impl Sim {
    /// A freshly formatted drive of `geometry`, shard 0.
    pub fn format(seed: u64, geometry: Geometry, tune: impl Fn(&mut ShardConfig)) -> Sim {
        let mut drive = SimDrive::new(geometry.drive_bytes as usize);
        for (at, block) in format_drive(&geometry, DriveIdentity { uuid: UUID, created_wall_ns: 1 }) {
            drive.put(at.0 as usize, &block);
        }
        let mut config = ShardConfig::new(geometry, UUID, ShardId(0), NodeId(1));
        tune(&mut config);
        let shard = Shard::new(config.clone());
        let mut sim = Sim {
            shard,
            drive,
            buffers: PoolBuffers::new(64 << 20),
            random: Random::new(seed),
            config,
            now_ns: 1,
            wall_ns: 1_000_000,
            next_id: 1,
            replies: Vec::new(),
        };
        sim.run_until_serving();
        sim
    }

    /// Ends the process at this instant and starts anew from what the drive kept.
    pub fn crash(&mut self) {
        self.drive.crash(&mut self.random);
        self.restart();
    }

    fn restart(&mut self) {
        self.buffers = PoolBuffers::new(64 << 20);
        self.replies.clear();
        self.shard = Shard::new(self.config.clone());
    }

    /// Starts anew and recovers.
    pub fn reopen(&mut self) {
        self.drive.settle();
        self.restart();
        self.run_until_serving();
    }

    pub fn run_until_serving(&mut self) {
        for _ in 0..1_000_000 {
            match self.shard.phase() {
                Phase::Serving => return,
                Phase::Failed(error) => panic!("the shard failed to open: {error}"),
                Phase::Recovering => self.step(&mut Vec::new()),
            }
        }
        panic!("recovery does not end");
    }

    /// One step: some operations end, time passes, `requests` go in, replies are kept.
    pub fn step(&mut self, requests: &mut Vec<Request<'_>>) {
        self.now_ns += self.random.below(40_000) + 1;
        self.wall_ns += 1_000;
        let completions = self.drive.complete_some(&mut self.buffers, &mut self.random);
        let mut inbox = Inbox { requests: std::mem::take(requests), completions };
        let mut outbox = Outbox::default();
        let now = Now { monotonic_ns: self.now_ns, wall_ns: self.wall_ns };
        self.shard.step(now, &mut inbox, &mut outbox, &mut self.buffers);
        for op in outbox.ops {
            self.drive.start(op, &self.buffers);
        }
        self.replies.append(&mut outbox.replies);
    }

    pub fn next_id(&mut self) -> RequestId {
        self.next_id += 1;
        RequestId(self.next_id)
    }

    /// Sends one request and gives its reply; other replies are kept.
    pub fn ask(&mut self, body: RequestBody<'_>) -> ReplyBody {
        let id = self.next_id();
        self.step(&mut vec![Request { id, body }]);
        for _ in 0..1_000_000 {
            if let Some(at) = self.replies.iter().position(|reply| reply.id == id) {
                return self.replies.remove(at).body;
            }
            self.step(&mut Vec::new());
        }
        panic!("request {id} is never answered");
    }

    /// The bytes of a value that was replied with; the buffer goes back to the pool.
    pub fn value(&mut self, payload: lode_engine::Payload) -> Vec<u8> {
        match payload {
            lode_engine::Payload::Shared(bytes) => bytes.to_vec(),
            lode_engine::Payload::Buffer { buffer, start, len } => {
                let bytes = self.buffers.bytes(buffer)[start as usize..(start + len) as usize].to_vec();
                self.buffers.release(buffer);
                bytes
            }
        }
    }

    /// Steps until nothing is under way.
    pub fn settle(&mut self) {
        for _ in 0..1_000_000 {
            if self.drive.is_idle() && !self.shard.has_work() && self.shard.next_wake_ns().is_none() {
                return;
            }
            self.step(&mut Vec::new());
        }
        panic!("the shard never comes to rest");
    }
}
