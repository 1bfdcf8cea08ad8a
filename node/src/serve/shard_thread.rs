//! One shard's thread: pinned, with a ring that it made itself, as the kernel asks.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use lode_engine::{NodeId, Shard, ShardConfig, ShardId};
use lode_net::ring::{Ring, RingConfig};
use lode_net::wire::server::ConnectionLimits;
use rustix::thread::CpuSet;

use super::ServeConfig;
use super::memory::{CHUNK_BYTES, CHUNKS, MemoryPlan, registered_bytes};
use crate::access::Addresses;
use crate::control::ControlSender;
use crate::drive::Drive;
use crate::io_limits::IoLimits;
use crate::mailbox::{Mailbox, NodeMap};
use crate::reactor::{Reactor, ReactorConfig};
use crate::slow::SlowLog;

/// What a shard's thread is made of.
pub struct ShardStart<'a> {
    pub shard: u16,
    pub core: Option<usize>,
    pub drive: &'a Drive,
    pub memory: MemoryPlan,
    pub mailboxes: Arc<[Mailbox]>,
    pub control: ControlSender,
    pub connections: Arc<AtomicUsize>,
    pub addresses: Arc<Addresses>,
    pub slow: Arc<SlowLog>,
    pub io: IoLimits,
    pub config: &'a ServeConfig,
}

/// The cores that this process may use.
pub fn cores() -> u16 {
    let allowed = allowed_cores().len().max(1);
    u16::try_from(allowed).unwrap_or(lode_engine::MAX_SHARDS).min(lode_engine::MAX_SHARDS)
}

/// A core for each shard, where there are enough.
pub fn cores_for(shards: u16, pin: bool) -> Option<Vec<usize>> {
    let allowed = allowed_cores();
    (pin && allowed.len() >= usize::from(shards)).then(|| allowed[..usize::from(shards)].to_vec())
}

fn allowed_cores() -> Vec<usize> {
    match rustix::thread::sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect(),
        Err(_) => Vec::new(),
    }
}

/// A shard's thread with its ring set up. It begins when it is told to, and ends when this is dropped before.
pub struct ReadyShard {
    thread: JoinHandle<()>,
    begin: Sender<()>,
}

impl ReadyShard {
    /// Begins: all rings are set up, and what is left of the memlock limit is there to be shared.
    pub fn begin(self) -> JoinHandle<()> {
        // A thread that has ended already has aborted the process.
        let _ = self.begin.send(());
        self.thread
    }

    /// Ends the thread before it has begun.
    pub fn give_up(self) {
        drop(self.begin);
        // It has no state to lose, whatever it ended with.
        let _ = self.thread.join();
    }
}

/// Starts the thread; returns when its ring is set up, or says why it could not be.
pub fn start_shard(start: ShardStart<'_>) -> Result<ReadyShard, String> {
    let ShardStart { shard, core, drive, memory, mailboxes, control, connections, io, config, .. } = start;
    let registered_bytes = registered_bytes(drive.geometry.shards);
    let descriptor = drive.descriptor().map_err(|error| format!("the drive's descriptor: {error}"))?;
    let engine = Shard::new(shard_config(shard, drive, memory, io, config));
    let reactor_config = ReactorConfig {
        shard: ShardId(shard),
        mailboxes: Arc::clone(&mailboxes),
        control,
        limits: ConnectionLimits::default(),
        max_connections: config.max_connections,
        connections,
        max_partial_bytes: memory.partial_bytes as usize,
        max_reply_bytes: memory.reply_bytes as usize,
        writes_need_flush: drive.writes_need_flush(),
        flushes: drive.flushes(),
        io,
        map: Arc::new(NodeMap::empty()),
        addresses: start.addresses,
        slow: start.slow,
    };
    let (ready_in, ready) = channel();
    let (begin, begun) = channel();
    let body = move || {
        let _guard = AbortOnPanic { shard };
        if let Some(core) = core {
            pin_to(core);
        }
        let mailbox = &mailboxes[usize::from(shard)];
        let Some(mut ring) = make_ring(mailbox, memory, registered_bytes, &ready_in) else { return };
        if begun.recv().is_err() {
            return;
        }
        ring.register_buffers();
        ring.attach_drive(descriptor);
        Reactor::new(reactor_config, ring, engine).run();
    };
    let thread = std::thread::Builder::new().name(format!("lode-shard-{shard}")).spawn(body);
    let thread = thread.map_err(|error| format!("the thread: {error}"))?;
    match ready.recv() {
        Ok(Ok(())) => Ok(ReadyShard { thread, begin }),
        Ok(Err(reason)) => Err(reason),
        Err(_) => Err("its thread ended".into()),
    }
}

fn shard_config(
    shard: u16,
    drive: &Drive,
    memory: MemoryPlan,
    io: IoLimits,
    config: &ServeConfig,
) -> ShardConfig {
    let [a, b, c, d, ..] = drive.identity.uuid;
    let node = NodeId(u32::from_le_bytes([a, b, c, d]));
    let mut shard = ShardConfig::new(drive.geometry, drive.identity.uuid, ShardId(shard), node);
    shard.commit_window_ns = io.commit_window.as_nanos() as u64;
    shard.frames_in_flight = io.frames_in_flight;
    shard.discard = drive.discard;
    shard.scrub_bytes_per_s = config.scrub_bytes_per_s;
    memory.apply(&mut shard);
    shard
}

fn make_ring(
    mailbox: &Mailbox,
    memory: MemoryPlan,
    registered_bytes: usize,
    ready: &Sender<Result<(), String>>,
) -> Option<Ring> {
    let config = RingConfig {
        slab_bytes: memory.buffer_bytes as usize,
        registered_bytes,
        chunks: CHUNKS,
        chunk_bytes: CHUNK_BYTES,
        ..RingConfig::default()
    };
    match Ring::with_waker(config, Arc::clone(mailbox.waker())) {
        Ok(ring) => {
            // Whoever starts the shard waits for this; if it is gone, the process is ending.
            let _ = ready.send(Ok(()));
            Some(ring)
        }
        Err(error) => {
            let _ = ready.send(Err(error.to_string()));
            None
        }
    }
}

fn pin_to(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    // Refused, the shard runs wherever it may.
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// A node without one of its shards answers nothing for part of its data and never says so: better it
/// ends, and is started again.
struct AbortOnPanic {
    shard: u16,
}

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("shard {} panicked; the node ends", self.shard);
            std::process::abort();
        }
    }
}
