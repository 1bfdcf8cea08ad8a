//! Reads that nobody wants any more: those that have not begun are given up, so that a client that asked for
//! much and went away does not keep the drive from others.

use crate::ids::RequestId;
use crate::io::Io;
use crate::reads::ReadFor;
use crate::reply::{ReadError, ReplyBody};
use crate::shard::Shard;

impl Shard {
    /// Gives up what waits in the queue of reads for these requests. Writes take place all the same: their
    /// conditions are read.
    pub(crate) fn give_up_reads(&mut self, unwanted: &mut Vec<RequestId>, io: &mut Io<'_>) {
        if unwanted.is_empty() {
            return;
        }
        unwanted.sort_unstable_by_key(|id| id.0);
        let is_unwanted = |id: RequestId| unwanted.binary_search_by_key(&id.0, |id| id.0).is_ok();
        self.give_up_waiting(is_unwanted, io);
        let scans = self.scans_give_up(is_unwanted);
        let taken = self.reads.take_unwanted(|why| match why {
            ReadFor::Get { id, .. } => is_unwanted(*id),
            ReadFor::Scan { scan, .. } => scans.contains(scan),
            ReadFor::Condition(_) | ReadFor::Key { .. } => false,
        });
        self.stats.reads_given_up += taken.len() as u64;
        for (why, location) in taken {
            self.space.unpin(self.space.of(location).0);
            match why {
                ReadFor::Get { id, .. } => io.reply(id, ReplyBody::Get(Err(ReadError::Busy))),
                ReadFor::Scan { scan, .. } => self.scan_read_given_up(scan),
                ReadFor::Condition(_) | ReadFor::Key { .. } => {
                    unreachable!("the reads that writes wait for were kept")
                }
            }
        }
        for slot in scans {
            self.scan_go_on(slot, io);
        }
        unwanted.clear();
    }
}
