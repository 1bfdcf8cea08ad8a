//! What the running kernel's io_uring can do, found by trying.

use std::fmt;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{IoUring, cqueue, opcode, types};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::chunks::{Chunks, GROUP};

/// How completions that need the ring's own thread are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskRun {
    /// Only when this thread asks (kernel 6.1).
    Deferred,
    /// On this thread's next entry to the kernel (kernel 5.19).
    Cooperative,
    /// By interrupting this thread.
    Interrupting,
}

/// What was found, and is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Features {
    /// The kernel's release.
    pub kernel: String,
    /// How task work is run.
    pub task_run: TaskRun,
    /// The kernel knows that one thread submits (kernel 6.0).
    pub single_issuer: bool,
    /// One receive yields many completions (kernel 6.0).
    pub multishot_receive: bool,
    /// One accept yields many connections (kernel 5.19).
    pub multishot_accept: bool,
    /// A wait can ask for several completions within a time (kernel 6.12).
    pub batched_wait: bool,
    /// The ring's own descriptor is registered (kernel 5.18).
    pub registered_ring: bool,
    /// The drive's descriptor is registered.
    pub registered_drive: bool,
    /// Bytes of buffers that are registered, and so pinned.
    pub registered_buffer_bytes: usize,
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let task_run = match self.task_run {
            TaskRun::Deferred => "deferred",
            TaskRun::Cooperative => "cooperative",
            TaskRun::Interrupting => "interrupting",
        };
        let yes = |on: bool| if on { "yes" } else { "no" };
        write!(
            f,
            "io_uring on kernel {}: task run {task_run}, single issuer {}, multishot receive {}, multishot \
             accept {}, batched wait {}, registered ring {}, registered drive {}, registered buffers {} KiB",
            self.kernel,
            yes(self.single_issuer),
            yes(self.multishot_receive),
            yes(self.multishot_accept),
            yes(self.batched_wait),
            yes(self.registered_ring),
            yes(self.registered_drive),
            self.registered_buffer_bytes / 1024,
        )
    }
}

/// The most that a ring may use; everything by default. Tests take features away to run the ways of
/// older kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// The best way to run task work.
    pub task_run: TaskRun,
    /// Multishot receive and accept.
    pub multishot: bool,
    /// Registered buffers, drive and ring.
    pub registered: bool,
}

impl Default for Allowed {
    fn default() -> Allowed {
        Allowed { task_run: TaskRun::Deferred, multishot: true, registered: true }
    }
}

/// Sets up a ring with the best flags that the kernel takes.
pub(super) fn set_up(entries: u32, allowed: Allowed) -> io::Result<(IoUring, Features)> {
    let ways = [
        (TaskRun::Deferred, true),
        (TaskRun::Cooperative, true),
        (TaskRun::Cooperative, false),
        (TaskRun::Interrupting, false),
    ];
    let mut refusal = None;
    for (task_run, single_issuer) in ways {
        if allowed.task_run != TaskRun::Deferred && task_run != allowed.task_run {
            continue;
        }
        match build(entries, task_run, single_issuer) {
            Ok(uring) => return Ok((uring, features(task_run, single_issuer))),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => refusal = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(refusal.unwrap_or_else(|| io::Error::other("no way to set up a ring is allowed")))
}

fn build(entries: u32, task_run: TaskRun, single_issuer: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.dontfork().setup_cqsize(entries * 4).setup_submit_all().setup_clamp();
    if single_issuer {
        builder.setup_single_issuer();
    }
    match task_run {
        TaskRun::Deferred => builder.setup_defer_taskrun().setup_taskrun_flag(),
        TaskRun::Cooperative => builder.setup_coop_taskrun().setup_taskrun_flag(),
        TaskRun::Interrupting => &mut builder,
    };
    builder.build(entries)
}

fn features(task_run: TaskRun, single_issuer: bool) -> Features {
    Features {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        task_run,
        single_issuer,
        multishot_receive: false,
        multishot_accept: true,
        batched_wait: false,
        registered_ring: false,
        registered_drive: false,
        registered_buffer_bytes: 0,
    }
}

/// Whether one receive yields many completions: asks for it on a socket pair that holds one byte.
pub(super) fn probe_multishot_receive(uring: &mut IoUring, chunks: &mut Chunks) -> io::Result<bool> {
    let (near, far) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::io::write(&far, b"?")?;
    let entry = opcode::RecvMulti::new(types::Fd(near.as_raw_fd()), GROUP).build();
    // SAFETY: the entry points to no memory of ours; bytes arrive in the registered chunks.
    unsafe { uring.submission().push(&entry) }.map_err(|_| io::Error::other("a fresh queue is full"))?;
    let mut supported = None;
    let mut peer = Some(far);
    loop {
        uring.submit_and_wait(1)?;
        while let Some(entry) = uring.completion().next() {
            if let Some(id) = cqueue::buffer_select(entry.flags()) {
                let chunk = chunks.arrived(id, entry.result().max(0) as u32);
                chunks.recycle(chunk);
            }
            let more = cqueue::more(entry.flags());
            supported.get_or_insert(entry.result() == 1 && more);
            if !more {
                return Ok(supported == Some(true));
            }
            // The request stays armed: the peer's end is what ends it.
            drop(peer.take());
        }
    }
}
