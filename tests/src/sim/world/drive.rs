//! What the drive is asked, and when and how that ends.

use super::super::drive::DriveOp;
use super::super::node::SimNode;
use super::super::plan::MS;
use super::super::trace::checksum;
use super::{Happening, IO_ERROR, UnderWay, World};

/// Linux: the way to the device took too long.
const TIMED_OUT: i32 = 110;
/// What an operation takes, about.
pub(super) const DRIVE_NS: u64 = 80_000;
/// A flush is rare, and fails so many times more often than a write.
const FLUSH_ERRORS: u64 = 30;
/// How long it takes at most until somebody sees that a shard takes no writes, and starts the node again.
const OPERATOR_NS: u64 = 200 * MS;

impl World<'_> {
    pub(super) fn start_drive(&mut self, shard: u16, token: u64, op: DriveOp) {
        let faults = &self.plan.faults;
        let (read_ppm, write_ppm, slow_ppm) =
            (faults.read_errors_ppm, faults.write_errors_ppm, faults.slow_operations_ppm);
        let is_serving = self.node.as_ref().is_some_and(SimNode::is_serving);
        let error = match op {
            // What cannot be read at a start is taken for damage: see the runs with damage.
            DriveOp::Read { .. } => (is_serving && self.happens(read_ppm)).then_some(TIMED_OUT),
            DriveOp::Write { .. } => self.happens(write_ppm).then_some(IO_ERROR),
            DriveOp::Flush => self.happens(FLUSH_ERRORS * write_ppm).then_some(IO_ERROR),
            DriveOp::Discard { .. } => None,
        };
        let slowness = if self.happens(slow_ppm) { self.plan.faults.slowness } else { 1 };
        let pause_ns = DRIVE_NS / 4 + self.dice.below(slowness * DRIVE_NS);
        let id = self.next_under_way;
        self.next_under_way += 1;
        self.under_way.insert(id, UnderWay { shard, token, op, error });
        self.at(self.now_ns + pause_ns, Happening::Drive(id));
        self.drive_event();
    }

    pub(super) fn end_drive(&mut self, id: u64) {
        // Of an earlier life: what becomes of it was decided when that ended.
        let Some(UnderWay { shard, token, op, error }) = self.under_way.remove(&id) else { return };
        let misread = match (&op, error) {
            (DriveOp::Read { at, len }, None) => self.misread(shard, *at, *len),
            _ => None,
        };
        let result = match error {
            None => misread.unwrap_or_else(|| {
                self.is_kept(shard, &op);
                let read = match self.miswrite(shard, &op) {
                    true => Vec::new(),
                    false => {
                        self.is_written(&op);
                        self.drive.perform(&op)
                    }
                };
                if let Some(record) = &mut self.record {
                    record.push((op.clone(), read.clone()));
                }
                Ok(read)
            }),
            Some(error) => {
                self.drive.fail(&op);
                if !matches!(op, DriveOp::Read { .. }) {
                    let pause_ns = self.dice.below(OPERATOR_NS);
                    self.at(self.now_ns + pause_ns, Happening::Restart);
                }
                Err(error)
            }
        };
        let (what, at, bytes) = match (&op, &result) {
            (DriveOp::Read { at, .. }, Ok(read)) => ("a read ends", *at, read.as_slice()),
            (DriveOp::Read { at, .. }, Err(_)) => ("a read fails", *at, &[][..]),
            (DriveOp::Write { at, bytes, .. }, Ok(_)) => ("a write ends", *at, bytes.as_slice()),
            (DriveOp::Write { at, bytes, .. }, Err(_)) => ("a write fails", *at, bytes.as_slice()),
            (DriveOp::Flush, Ok(_)) => ("a flush ends", 0, &[][..]),
            (DriveOp::Flush, Err(_)) => ("a flush fails", 0, &[][..]),
            (DriveOp::Discard { at, .. }, _) => ("a discard ends", *at, &[][..]),
        };
        let facts =
            [("shard", u64::from(shard)), ("at", at as u64), ("bytes", bytes.len() as u64), checksum(bytes)];
        self.trace.note(self.now_ns, what, &facts);
        let delay_ns = self.dice.roll();
        let node = self.node.as_mut().expect("operations end with their node");
        node.io(shard).drive_done(token, result);
        node.wake(shard, self.now_ns, delay_ns);
        self.drive_event();
    }
}
