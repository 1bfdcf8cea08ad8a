//! What engine tests run a shard on: a drive, buffers and a clock of memory, and one seed for all chance.
#![allow(dead_code, missing_docs, clippy::expect_used)]

pub mod ask;
pub mod drive;
pub mod random;

use lode_engine::{
    BufferId, Buffers, DriveIdentity, Geometry, Inbox, NodeId, Now, Outbox, Phase, Reply, ReplyBody, Request,
    RequestBody, RequestId, Shard, ShardConfig, ShardId, format_drive,
};

use drive::{PoolBuffers, SimDrive};
use random::Random;

pub const UUID: [u8; 16] = [0x4c; 16];
const POOL_BYTES: usize = 64 << 20;
/// Whatever waits in a shard, but for records that expire, waits no longer than this.
const SOON_NS: u64 = 10_000_000;

/// A shard over a simulated drive. One thread, virtual time.
pub struct Sim {
    pub shard: Shard,
    pub drive: SimDrive,
    pub buffers: PoolBuffers,
    pub random: Random,
    pub config: ShardConfig,
    pub now_ns: u64,
    pub wall_ns: u64,
    /// The latest that the wall clock ever showed.
    pub highest_wall_ns: u64,
    pub pool_bytes: usize,
    next_id: u64,
    pub replies: Vec<Reply>,
    /// Told to the shard at its next step.
    pub unwanted: Vec<RequestId>,
    /// Something happened outside that a reactor would step for.
    poked: bool,
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
        let mut sim = Sim::over(seed, drive, config);
        sim.run_until_serving();
        sim
    }

    /// A process that has not yet looked at its drive.
    pub fn over(seed: u64, drive: SimDrive, config: ShardConfig) -> Sim {
        let shard = Shard::new(config.clone());
        Sim {
            shard,
            drive,
            buffers: PoolBuffers::new(POOL_BYTES),
            random: Random::new(seed),
            config,
            now_ns: 1,
            wall_ns: 1_000_000,
            highest_wall_ns: 0,
            pool_bytes: POOL_BYTES,
            next_id: 1,
            replies: Vec::new(),
            unwanted: Vec::new(),
            poked: true,
        }
    }

    /// Power is lost at this instant; a new process starts from what the drive kept.
    pub fn crash(&mut self) {
        self.drive.crash(&mut self.random);
        self.restart();
    }

    /// The process dies at this instant, the drive does not; a new process starts.
    pub fn kill(&mut self) {
        self.drive.kill(&mut self.random);
        self.restart();
    }

    pub fn restart(&mut self) {
        self.buffers = PoolBuffers::new(self.pool_bytes);
        self.replies.clear();
        self.unwanted.clear();
        if self.random.percent(30) {
            // The clock is set back.
            self.wall_ns = self.wall_ns.saturating_sub(self.random.below(3_000_000));
        }
        self.shard = Shard::new(self.config.clone());
        self.poked = true;
    }

    /// Starts anew and recovers.
    pub fn reopen(&mut self) {
        self.drive.settle();
        self.restart();
        self.run_until_serving();
    }

    pub fn run_until_serving(&mut self) {
        match self.run_recovery() {
            Phase::Serving => {}
            other => panic!("the shard failed to open: {other:?}"),
        }
    }

    /// Steps until recovery has ended, one way or the other.
    pub fn run_recovery(&mut self) -> Phase {
        for _ in 0..1_000_000 {
            if *self.shard.phase() != Phase::Recovering {
                return self.shard.phase().clone();
            }
            assert!(!self.is_stuck(), "recovery waits for nothing");
            self.step(&mut Vec::new());
        }
        panic!("recovery does not end");
    }

    /// Whether nothing would step the shard again, unless it were time for a record to expire.
    pub fn is_stuck(&self) -> bool {
        let is_soon = |wake_ns: u64| wake_ns < self.now_ns + SOON_NS;
        let waits = self.shard.has_work() || self.shard.next_wake_ns().is_some_and(is_soon) || self.poked;
        self.drive.is_idle() && !waits
    }

    /// Something happens outside for which a reactor steps the shard.
    pub fn poke(&mut self) {
        self.poked = true;
    }

    /// Time passes, some operations end; the shard is stepped if it has something to be stepped for, as
    /// a reactor would. Replies are kept.
    pub fn step(&mut self, requests: &mut Vec<Request<'_>>) {
        self.now_ns += self.random.below(40_000) + 1;
        self.wall_ns += 1_000;
        self.highest_wall_ns = self.highest_wall_ns.max(self.wall_ns);
        let completions = self.drive.complete_some(&mut self.buffers, &mut self.random);
        let is_due = self.shard.next_wake_ns().is_some_and(|wake_ns| wake_ns <= self.now_ns);
        let has_news =
            !requests.is_empty() || !completions.is_empty() || !self.unwanted.is_empty() || self.poked;
        if !has_news && !is_due && !self.shard.has_work() {
            return;
        }
        self.poked = false;
        let unwanted = std::mem::take(&mut self.unwanted);
        let mut inbox = Inbox { requests: std::mem::take(requests), completions, unwanted };
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
        self.reply_to(id)
    }

    /// Steps until a request is answered.
    pub fn reply_to(&mut self, id: RequestId) -> ReplyBody {
        for _ in 0..1_000_000 {
            if let Some(at) = self.replies.iter().position(|reply| reply.id == id) {
                return self.replies.remove(at).body;
            }
            assert!(!self.is_stuck(), "request {id} waits for nothing: {:?}", self.shard.stats());
            self.step(&mut Vec::new());
        }
        panic!("request {id} is never answered: {:?}", self.shard.stats());
    }

    /// The bytes of a value that was replied with; the buffer goes back to the pool.
    pub fn value(&mut self, payload: lode_engine::Payload) -> Vec<u8> {
        match payload {
            lode_engine::Payload::Shared(bytes) => bytes.to_vec(),
            lode_engine::Payload::Buffer { buffer, start, len } => {
                let bytes = self.buffers.bytes(buffer)[start as usize..(start + len) as usize].to_vec();
                self.buffers.release(buffer);
                self.poked = true;
                bytes
            }
        }
    }

    /// Somebody else gives buffers back.
    pub fn give_back(&mut self, held: Vec<BufferId>) {
        held.into_iter().for_each(|buffer| self.buffers.release(buffer));
        self.poked = true;
    }

    /// Steps until nothing is under way.
    pub fn settle(&mut self) {
        for _ in 0..1_000_000 {
            if self.is_stuck() {
                return;
            }
            self.step(&mut Vec::new());
        }
        panic!("the shard never comes to rest");
    }
}
