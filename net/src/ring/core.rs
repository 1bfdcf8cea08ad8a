//! The ring itself: set-up, one submit per loop, completions to events, orderly end.

use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use thiserror::Error;

use super::chunks::{Chunk, Chunks};
use super::features::{Allowed, Features, probe_multishot_receive, set_up};
use super::inflight::{InFlight, SlotId, Work};
use super::outgoing::Outgoing;
use super::slab::{BLOCK_BYTES, Slab};
use super::sockets::{SocketId, Sockets};
use super::wake::Waker;

/// How long an ending ring waits for the kernel before it leaks its memory instead of unmapping it.
const DRAIN_PATIENCE: Duration = Duration::from_secs(10);
/// How often what locks memory is tried at each size: unlocking after an exit takes a moment.
const LOCK_ATTEMPTS: u32 = 4;
const LOCK_PAUSE: Duration = Duration::from_millis(25);
/// The smallest ring that is tried where no more memory may be locked.
const MIN_ENTRIES: u32 = 64;

/// What a ring is made of.
#[derive(Clone, Copy, Debug)]
pub struct RingConfig {
    /// Entries of the submission queue.
    pub entries: u32,
    /// Bytes of the slab.
    pub slab_bytes: usize,
    /// The most bytes of the slab that are registered, and so count against memlock.
    pub registered_bytes: usize,
    /// Receive chunks, a power of two.
    pub chunks: u16,
    /// Bytes of a receive chunk.
    pub chunk_bytes: u32,
    /// What may be used.
    pub allowed: Allowed,
}

impl Default for RingConfig {
    fn default() -> RingConfig {
        RingConfig {
            entries: 1024,
            slab_bytes: 32 << 20,
            registered_bytes: 2 << 20,
            chunks: 128,
            chunk_bytes: 16 * 1024,
            allowed: Allowed::default(),
        }
    }
}

/// Why a ring could not be made.
#[derive(Debug, Error)]
pub enum RingError {
    /// The kernel refused the ring.
    #[error(
        "io_uring cannot be set up ({0}); it needs kernel 5.19, kernel.io_uring_disabled = 0, some memory to lock \
         (ulimit -l) and, in a container, a seccomp profile that allows it"
    )]
    SetUp(io::Error),
    /// The kernel refused the receive chunks.
    #[error(
        "io_uring refused a provided-buffer ring ({0}); it needs kernel 5.19 and some memory to lock (ulimit -l)"
    )]
    Chunks(io::Error),
    /// Memory could not be mapped.
    #[error("{bytes} bytes of buffers could not be mapped ({error}); lower --memory")]
    Memory {
        /// How many bytes.
        bytes: usize,
        /// The system's answer.
        error: io::Error,
    },
    /// The eventfd could not be made or read.
    #[error("the ring's eventfd failed: {0}")]
    Wake(io::Error),
}

/// Something that happened.
#[derive(Debug)]
pub enum Event {
    /// A drive operation ended: all of it was done, or the OS error number says why not.
    Drive {
        /// The caller's name for it.
        token: u64,
        /// The outcome.
        result: Result<(), i32>,
    },
    /// A listener has a new connection.
    Accepted {
        /// The listener.
        listener: SocketId,
        /// The connection.
        socket: SocketId,
    },
    /// A listener failed to accept, and stopped. `listen_again` starts it.
    AcceptFailed {
        /// The listener.
        listener: SocketId,
        /// The system's error number.
        os_error: i32,
    },
    /// Bytes arrived.
    Received {
        /// Where.
        socket: SocketId,
        /// The bytes; to be recycled.
        chunk: Chunk,
    },
    /// No more bytes will arrive: the peer closed its side, or the OS error number says why.
    ReceiveEnded {
        /// Where.
        socket: SocketId,
        /// The error, if it is one.
        os_error: Option<i32>,
    },
    /// The peer took some bytes of a send that goes on.
    SentPart {
        /// Where.
        socket: SocketId,
        /// How many.
        bytes: usize,
    },
    /// A send ended; its buffers are back in the slab.
    Sent {
        /// Where.
        socket: SocketId,
        /// Bytes that the peer took since the last event of this send.
        bytes: usize,
        /// What was sent, emptied, for the next send.
        outgoing: Outgoing,
        /// The outcome.
        result: Result<(), i32>,
    },
    /// A socket that was told to close is closed, and its id is free.
    Closed {
        /// Which.
        socket: SocketId,
    },
}

/// How busy the ring was. Counts since start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingCounters {
    /// Calls into the kernel.
    pub enters: u64,
    /// Calls that could sleep.
    pub sleeps: u64,
    /// Requests submitted.
    pub submitted: u64,
    /// Completions taken.
    pub completed: u64,
    /// Sends that the kernel did only in part, and that were continued.
    pub short_sends: u64,
    /// Drive operations that the kernel did only in part, and that were continued.
    pub short_transfers: u64,
    /// Receives that found no chunk.
    pub starved_receives: u64,
}

/// A completion, copied out of the queue.
#[derive(Clone, Copy)]
pub(super) struct Completed {
    user_data: u64,
    pub(super) result: i32,
    pub(super) flags: u32,
}

/// One io_uring with its memory, its sockets and its drive. Belongs to the thread that made it.
pub struct Ring {
    /// First, so that it is closed before any memory below is unmapped.
    pub(super) uring: ManuallyDrop<IoUring>,
    pub(super) in_flight: InFlight,
    pub(super) slab: ManuallyDrop<Slab>,
    pub(super) chunks: ManuallyDrop<Chunks>,
    pub(super) sockets: Sockets,
    pub(super) drive: Option<OwnedFd>,
    pub(super) drive_operations: usize,
    pub(super) features: Features,
    pub(super) counters: RingCounters,
    pub(super) events: VecDeque<Event>,
    pub(super) allowed: Allowed,
    most_registered_bytes: usize,
    waker: Arc<Waker>,
    /// The kernel writes the eventfd's counter here; boxed so that it does not move.
    wake_word: ManuallyDrop<Box<u64>>,
    /// Taken out of the queue, not yet turned into events: always in the kernel's order.
    taken: VecDeque<Completed>,
    ending: bool,
}

impl Ring {
    /// Sets a ring up for this thread.
    pub fn new(config: RingConfig) -> Result<Ring, RingError> {
        let mut ring = Ring::with_waker(config, Arc::new(Waker::new().map_err(RingError::Wake)?))?;
        ring.register_buffers();
        Ok(ring)
    }

    /// Whether this process may have rings at all: sets the smallest up, and gives it up again.
    pub fn try_one() -> Result<(), RingError> {
        let config = RingConfig { entries: MIN_ENTRIES, ..RingConfig::default() };
        set_up_within_limits(config).map(drop).map_err(RingError::SetUp)
    }

    /// Sets a ring up for this thread, with a waker that others have already. Its buffers are not registered yet: a
    /// process with several rings sets all of them up first, for none can do without what a ring itself locks.
    pub fn with_waker(config: RingConfig, waker: Arc<Waker>) -> Result<Ring, RingError> {
        let (mut uring, mut features) = set_up_within_limits(config).map_err(RingError::SetUp)?;
        if config.allowed.registered {
            features.registered_ring = uring.submitter().register_ring_fd().is_ok();
        }
        let slab = Slab::new(config.slab_bytes, config.registered_bytes)
            .map_err(|error| RingError::Memory { bytes: config.slab_bytes, error })?;
        let mut chunks = chunks_within_limits(&uring, config).map_err(RingError::Chunks)?;
        features.batched_wait = uring.params().is_feature_min_timeout();
        features.multishot_accept = config.allowed.multishot;
        if config.allowed.multishot {
            features.multishot_receive =
                probe_multishot_receive(&mut uring, &mut chunks).map_err(RingError::SetUp)?;
        }
        let mut ring = Ring {
            uring: ManuallyDrop::new(uring),
            in_flight: InFlight::default(),
            slab: ManuallyDrop::new(slab),
            chunks: ManuallyDrop::new(chunks),
            sockets: Sockets::default(),
            drive: None,
            drive_operations: 0,
            features,
            counters: RingCounters::default(),
            events: VecDeque::new(),
            allowed: config.allowed,
            most_registered_bytes: config.registered_bytes,
            waker,
            wake_word: ManuallyDrop::new(Box::new(0)),
            taken: VecDeque::new(),
            ending: false,
        };
        ring.arm_wake();
        Ok(ring)
    }

    /// Registers as much of the slab as was asked for and the memlock limit allows; before its first buffer is
    /// taken.
    pub fn register_buffers(&mut self) {
        if self.allowed.registered {
            let bytes = register_buffers(&self.uring, &self.slab, self.most_registered_bytes);
            self.slab.set_registered(bytes);
            self.features.registered_buffer_bytes = bytes;
        }
    }

    /// What was found and is used.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// How busy the ring was.
    pub fn counters(&self) -> RingCounters {
        self.counters
    }

    /// Drive operations in flight.
    pub fn drive_operations(&self) -> usize {
        self.drive_operations
    }

    /// What other threads wake this ring with.
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// The slab.
    pub fn slab(&self) -> &Slab {
        &self.slab
    }

    /// The slab, to take buffers from and to give them back to.
    pub fn slab_mut(&mut self) -> &mut Slab {
        &mut self.slab
    }

    /// The receive chunks.
    pub fn chunks(&self) -> &Chunks {
        &self.chunks
    }

    /// The slab and the receive chunks, side by side.
    pub fn memory(&mut self) -> (&mut Slab, &Chunks) {
        (&mut self.slab, &self.chunks)
    }

    /// Gives a receive chunk back.
    pub fn recycle(&mut self, chunk: Chunk) {
        self.chunks.recycle(chunk);
    }

    /// Whether anything is ready, without a call into the kernel: completions in the queue, or task
    /// work that will make some.
    pub fn is_ready(&mut self) -> bool {
        if self.has_completions() {
            return true;
        }
        self.uring.submission().taskrun()
    }

    fn has_completions(&mut self) -> bool {
        !self.events.is_empty() || !self.taken.is_empty() || !self.uring.completion().is_empty()
    }

    /// Submits everything that was prepared, and runs task work that is due.
    pub fn submit(&mut self) {
        self.rearm_starved();
        let (queued, taskrun) = {
            let queue = self.uring.submission();
            (queue.len(), queue.taskrun() || queue.cq_overflow())
        };
        if queued > 0 || taskrun {
            self.enter(0, None);
        }
    }

    /// Submits, and sleeps until a completion or `timeout`.
    pub fn submit_and_wait(&mut self, timeout: Duration) {
        self.submit_and_wait_for(1, Duration::ZERO, timeout);
    }

    /// Submits, and sleeps until `want` completions, or any after `patience`, or `timeout`. Kernels
    /// before 6.12 wake at the first completion.
    pub fn submit_and_wait_for(&mut self, want: usize, patience: Duration, timeout: Duration) {
        self.rearm_starved();
        if self.has_completions() {
            return self.submit();
        }
        self.counters.sleeps += 1;
        let batch = want > 1 && self.features.batched_wait;
        let patience_us = if batch { patience.as_micros() as u32 } else { 0 };
        self.enter(if batch { want } else { 1 }, Some((timeout, patience_us)));
    }

    /// Moves what happened since the last call to `into`.
    pub fn take_events(&mut self, into: &mut Vec<Event>) {
        self.reap();
        into.extend(self.events.drain(..));
    }

    /// Prepares a request. `work` keeps alive all that `entry` points to.
    ///
    /// # Safety
    /// Every address in `entry` must stay valid, and untouched where the kernel writes, until the
    /// request's last completion: it lies in memory that this ring owns (slab, chunks, wake word, or
    /// the slot's own boxed work).
    pub(super) unsafe fn push(&mut self, entry: squeue::Entry) {
        self.counters.submitted += 1;
        // SAFETY: the caller's promise.
        while unsafe { self.uring.submission().push(&entry) }.is_err() {
            // Not more than taken: whoever is turning completions into events must see them in order.
            self.enter(0, None);
            self.take_completions();
        }
    }

    /// Asks the kernel to end a request early. It still completes.
    pub(super) fn cancel(&mut self, target: SlotId) {
        let slot = self.in_flight.insert(Work::Cancel);
        let entry = opcode::AsyncCancel::new(target.to_user_data()).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.push(entry.user_data(slot.to_user_data())) };
    }

    pub(super) fn is_ending(&self) -> bool {
        self.ending
    }

    fn arm_wake(&mut self) {
        let slot = self.in_flight.insert(Work::Wake);
        let word = std::ptr::from_mut::<u64>(&mut self.wake_word).cast::<u8>();
        let entry = opcode::Read::new(types::Fd(self.waker.raw_fd()), word, 8).build();
        // SAFETY: the word is boxed, owned by the ring, and read by nobody.
        unsafe { self.push(entry.user_data(slot.to_user_data())) };
    }

    fn enter(&mut self, want: usize, timeout: Option<(Duration, u32)>) {
        self.counters.enters += 1;
        let result = match timeout {
            None => self.uring.submitter().submit_and_wait(want),
            Some((timeout, patience_us)) => {
                let time = types::Timespec::from(timeout);
                let args = types::SubmitArgs::new().timespec(&time).min_wait_usec(patience_us);
                self.uring.submitter().submit_with_args(want, &args)
            }
        };
        let Err(error) = result else { return };
        match error.raw_os_error() {
            // Out of time, interrupted, or out of memory for a moment: the loop comes again.
            Some(libc::ETIME | libc::EINTR | libc::EAGAIN) => {}
            // Completions must be taken first.
            Some(libc::EBUSY) => self.take_completions(),
            _ => panic!("io_uring_enter failed, which no argument of ours explains: {error}"),
        }
    }

    /// Takes completions out of the queue and turns them into events.
    fn reap(&mut self) {
        self.take_completions();
        while let Some(completed) = self.taken.pop_front() {
            self.complete(completed);
        }
    }

    fn take_completions(&mut self) {
        let before = self.taken.len();
        self.taken.extend(self.uring.completion().map(|entry| Completed {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
        self.counters.completed += (self.taken.len() - before) as u64;
    }

    fn complete(&mut self, completed: Completed) {
        let id = SlotId::from_user_data(completed.user_data);
        match self.in_flight.get_mut(id) {
            Work::Accept(listener) => {
                let listener = *listener;
                self.complete_accept(id, listener, completed);
            }
            Work::Receive(socket) => {
                let socket = *socket;
                self.complete_receive(id, socket, completed);
            }
            Work::Drive(_) => self.complete_drive(id, completed),
            Work::Send(_) => self.complete_send(id, completed),
            Work::Wake => {
                self.in_flight.remove(id);
                if !self.ending {
                    self.arm_wake();
                }
            }
            Work::Cancel => {
                self.in_flight.remove(id);
            }
        }
    }

    /// Ends every request and waits for the kernel to be done with them. False if it is not in time.
    fn drain(&mut self) -> bool {
        self.ending = true;
        let begun = Instant::now();
        self.sockets.shut_down_all();
        let slot = self.in_flight.insert(Work::Cancel);
        let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any()).build();
        // SAFETY: the entry points to no memory.
        unsafe { self.push(entry.user_data(slot.to_user_data())) };
        while self.in_flight.len() > 0 && begun.elapsed() < DRAIN_PATIENCE {
            self.enter(1, Some((Duration::from_millis(100), 0)));
            self.reap();
            self.events.clear();
        }
        self.in_flight.len() == 0
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let drained = self.drain();
        // SAFETY: the fields are taken out once, here, and the ring is not used again.
        let (uring, slab, chunks, word) = unsafe {
            (
                ManuallyDrop::take(&mut self.uring),
                ManuallyDrop::take(&mut self.slab),
                ManuallyDrop::take(&mut self.chunks),
                ManuallyDrop::take(&mut self.wake_word),
            )
        };
        drop(uring);
        if drained {
            return;
        }
        // The kernel may still write: leaked memory is better than another owner's memory overwritten.
        slab.into_mapping().leak();
        chunks.into_mappings().into_iter().for_each(super::memory::Mapping::leak);
        std::mem::forget(word);
        std::mem::forget(std::mem::take(&mut self.in_flight));
    }
}

/// Sets a ring up; a smaller one where memlock forbids it.
fn set_up_within_limits(config: RingConfig) -> io::Result<(IoUring, Features)> {
    let mut entries = config.entries;
    loop {
        for attempt in 1..=LOCK_ATTEMPTS {
            match set_up(entries, config.allowed) {
                Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                    if entries <= MIN_ENTRIES && attempt == LOCK_ATTEMPTS {
                        return Err(error);
                    }
                    std::thread::sleep(LOCK_PAUSE);
                }
                outcome => return outcome,
            }
        }
        entries = (entries / 2).max(MIN_ENTRIES);
    }
}

/// Registers the first bytes of the slab as fixed buffer 0; fewer, or none, where memlock forbids it.
fn chunks_within_limits(uring: &IoUring, config: RingConfig) -> io::Result<Chunks> {
    let mut attempt = 1;
    loop {
        match Chunks::register(uring, config.chunks, config.chunk_bytes) {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) && attempt < LOCK_ATTEMPTS => {
                std::thread::sleep(LOCK_PAUSE);
                attempt += 1;
            }
            outcome => return outcome,
        }
    }
}

fn register_buffers(uring: &IoUring, slab: &Slab, most_bytes: usize) -> usize {
    let mut bytes = most_bytes.min(slab.total_bytes()) / BLOCK_BYTES * BLOCK_BYTES;
    while bytes >= 64 * BLOCK_BYTES {
        for attempt in 0..LOCK_ATTEMPTS {
            let vector = libc::iovec { iov_base: slab.mapping().start().cast(), iov_len: bytes };
            // SAFETY: the range lies in the slab's mapping, which outlives the ring (`Drop` above).
            match unsafe { uring.submitter().register_buffers(&[vector]) } {
                Ok(()) => return bytes,
                Err(error) if error.raw_os_error() != Some(libc::ENOMEM) => return 0,
                Err(_) if attempt + 1 < LOCK_ATTEMPTS => std::thread::sleep(LOCK_PAUSE),
                Err(_) => {}
            }
        }
        bytes = bytes / 2 / BLOCK_BYTES * BLOCK_BYTES;
    }
    0
}

/// The chunk that a completion names, if it names one.
pub(super) fn chunk_of(chunks: &mut Chunks, completed: Completed) -> Option<Chunk> {
    let id = cqueue::buffer_select(completed.flags)?;
    Some(chunks.arrived(id, completed.result.max(0) as u32))
}
