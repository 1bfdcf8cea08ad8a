//! Drive operations: each ends as a whole, or with an error.

use std::os::fd::{AsRawFd, OwnedFd};

use io_uring::{opcode, squeue, types};

use super::core::{Completed, Event, Ring};
use super::inflight::{DriveKind, DriveWork, SlotId, Work};
use super::slab::{BLOCK_BYTES, SlabBuffer};

/// How often an operation that made no progress is tried again before it is given up.
const MAX_RETRIES: u8 = 16;

impl Ring {
    /// Gives the ring its drive: a file or a block device, opened for reading and writing.
    pub fn attach_drive(&mut self, drive: OwnedFd) {
        assert!(self.drive.is_none(), "a ring has one drive");
        if self.allowed.registered {
            let registered = self.uring.submitter().register_files(&[drive.as_raw_fd()]);
            self.features.registered_drive = registered.is_ok();
        }
        self.drive = Some(drive);
    }

    /// Fills `buffer[..len]` from byte `at` of the drive.
    pub fn read(&mut self, token: u64, buffer: SlabBuffer, len: u32, at: u64) {
        self.start_transfer(token, DriveKind::Read, buffer, len, at);
    }

    /// Writes `buffer[..len]` to byte `at` of the drive; if `durable`, ends only when the bytes would
    /// survive power loss (`RWF_DSYNC`).
    pub fn write(&mut self, token: u64, buffer: SlabBuffer, len: u32, at: u64, durable: bool) {
        self.start_transfer(token, DriveKind::Write { durable }, buffer, len, at);
    }

    /// Makes all writes that have ended survive power loss.
    pub fn flush(&mut self, token: u64) {
        let (kind, buffer, registered) = (DriveKind::Flush, None, false);
        self.drive_operations += 1;
        self.submit_drive(DriveWork { token, kind, buffer, registered, at: 0, len: 0, done: 0, retries: 0 });
    }

    /// Tells the device that these bytes are not needed. Only for a block device: in a file it would leave a
    /// hole, which later writes would have to allocate again.
    pub fn discard(&mut self, token: u64, at: u64, len: u32) {
        let (kind, buffer, registered) = (DriveKind::Discard, None, false);
        self.drive_operations += 1;
        self.submit_drive(DriveWork { token, kind, buffer, registered, at, len, done: 0, retries: 0 });
    }

    fn start_transfer(&mut self, token: u64, kind: DriveKind, buffer: SlabBuffer, len: u32, at: u64) {
        assert!(len > 0, "an empty transfer at byte {at}");
        let (_, registered) = self.slab.lend(buffer, 0, len as usize);
        let buffer = Some(buffer);
        self.drive_operations += 1;
        self.submit_drive(DriveWork { token, kind, buffer, registered, at, len, done: 0, retries: 0 });
    }

    fn submit_drive(&mut self, work: DriveWork) {
        let entry = self.drive_entry(&work);
        let slot = self.in_flight.insert(Work::Drive(work));
        // SAFETY: the entry points into a slab buffer that is lent to the kernel until the slot's
        // last completion, or to nothing.
        unsafe { self.push(entry.user_data(slot.to_user_data())) };
    }

    fn drive_entry(&self, work: &DriveWork) -> squeue::Entry {
        let drive = self.drive.as_ref().expect("a drive is attached before it is used");
        // A registered descriptor is named by its place in the table, which is 0.
        let (file, flags) = if self.features.registered_drive {
            (types::Fd(0), squeue::Flags::FIXED_FILE)
        } else {
            (types::Fd(drive.as_raw_fd()), squeue::Flags::empty())
        };
        let (len, at) = (work.len - work.done, work.at + u64::from(work.done));
        let address = match work.buffer {
            Some(buffer) => self.slab.lent_address(buffer, work.done as usize, len as usize),
            None => std::ptr::null_mut(),
        };
        let entry = match (work.kind, work.registered) {
            (DriveKind::Read, true) => opcode::ReadFixed::new(file, address, len, 0).offset(at).build(),
            (DriveKind::Read, false) => opcode::Read::new(file, address, len).offset(at).build(),
            (DriveKind::Write { durable }, true) => opcode::WriteFixed::new(file, address, len, 0)
                .offset(at)
                .rw_flags(write_flags(durable))
                .build(),
            (DriveKind::Write { durable }, false) => {
                opcode::Write::new(file, address, len).offset(at).rw_flags(write_flags(durable)).build()
            }
            (DriveKind::Discard, _) => {
                // On a block device this unmaps, or fails where the device cannot.
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                opcode::Fallocate::new(file, u64::from(len)).offset(at).mode(mode).build()
            }
            (DriveKind::Flush, _) => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
        };
        entry.flags(flags)
    }

    pub(super) fn complete_drive(&mut self, id: SlotId, completed: Completed) {
        let Work::Drive(mut work) = self.in_flight.remove(id) else {
            unreachable!("the caller looked at the slot");
        };
        let outcome = match work.kind {
            // It does all or fails, and says 0 for all.
            DriveKind::Discard if completed.result >= 0 => Progress::Done,
            DriveKind::Discard => Progress::Failed(-completed.result),
            _ => advance(&mut work, completed.result),
        };
        if let Progress::Continue = outcome
            && !self.is_ending()
        {
            self.counters.short_transfers += 1;
            return self.submit_drive(work);
        }
        self.drive_operations -= 1;
        if let Some(buffer) = work.buffer {
            self.slab.reclaim(buffer);
        }
        let result = match outcome {
            Progress::Done => Ok(()),
            Progress::Continue => Err(libc::ECANCELED),
            Progress::Failed(os_error) => Err(os_error),
        };
        self.events.push_back(Event::Drive { token: work.token, result });
    }
}

fn write_flags(durable: bool) -> i32 {
    if durable { libc::RWF_DSYNC } else { 0 }
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    Done,
    Continue,
    Failed(i32),
}

/// What `result` means for `work`. A short transfer goes on from the last whole block.
fn advance(work: &mut DriveWork, result: i32) -> Progress {
    let left = work.len - work.done;
    match result {
        _ if result < 0 => match -result {
            libc::EAGAIN | libc::EINTR if work.retries < MAX_RETRIES => {
                work.retries += 1;
                Progress::Continue
            }
            os_error => Progress::Failed(os_error),
        },
        _ if result as u32 >= left => Progress::Done,
        _ => {
            let whole = result as u32 / BLOCK_BYTES as u32 * BLOCK_BYTES as u32;
            work.done += whole;
            if whole == 0 {
                work.retries += 1;
            }
            // Nothing, again and again: the range lies beyond the end of the drive.
            if work.retries >= MAX_RETRIES { Progress::Failed(libc::EIO) } else { Progress::Continue }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(len: u32) -> DriveWork {
        let (kind, buffer, registered) = (DriveKind::Read, None, false);
        DriveWork { token: 1, kind, buffer, registered, at: 0, len, done: 0, retries: 0 }
    }

    #[test]
    fn short_transfers_go_on_from_the_last_whole_block() {
        let mut read = work(16384);
        assert_eq!(advance(&mut read, 5000), Progress::Continue);
        assert_eq!(read.done, 4096);
        assert_eq!(advance(&mut read, 8192), Progress::Continue);
        assert_eq!(advance(&mut read, 4096), Progress::Done);
    }

    #[test]
    fn errors_end_it_and_no_progress_is_bounded() {
        assert_eq!(advance(&mut work(4096), -libc::EIO), Progress::Failed(libc::EIO));
        let mut read = work(4096);
        let tries = (0..100).take_while(|_| advance(&mut read, -libc::EAGAIN) == Progress::Continue).count();
        assert_eq!(tries, usize::from(MAX_RETRIES));
        let mut beyond = work(4096);
        let tries = (0..100).take_while(|_| advance(&mut beyond, 0) == Progress::Continue).count();
        assert_eq!(tries, usize::from(MAX_RETRIES) - 1);
    }
}
