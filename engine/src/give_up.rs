//! Reads that nobody wants any more: those that have not begun are given up, so that a client that asked for
//! much and went away does not keep the drive from others.

use crate::ids::RequestId;
use crate::io::Io;
use crate::reads::ReadFor;
use crate::reply::{ReadError, ReplyBody};
use crate::shard::Shard;

impl Shard {
    /// Gives up what waits in the queue of reads for these requests, and what waits for keys. Writes take place all the same:
    /// their conditions are read.
    pub(crate) fn give_up_reads(&mut self, unwanted: &mut Vec<RequestId>, io: &mut Io<'_>) {
        if unwanted.is_empty() {
            return;
        }
        unwanted.sort_unstable_by_key(|id| id.0);
        let is_unwanted = |id: RequestId| unwanted.binary_search_by_key(&id.0, |id| id.0).is_ok();
        self.give_up_waiting(is_unwanted, io);
        let was_asked = self.give_up_asking(is_unwanted, io);
        let scans = self.scans_give_up(is_unwanted);
        let Shard { reads, facts, space, .. } = self;
        let taken = reads.take_unwanted(|why, location| match why {
            ReadFor::Get { id, .. } => is_unwanted(*id),
            ReadFor::Scan { scan, .. } => scans.contains(scan),
            // Who else needs the key asks again.
            ReadFor::Key { .. } => {
                was_asked && facts.may_be_given_up((location, space.of(location).1.generation))
            }
            ReadFor::Condition(_) => false,
        });
        if was_asked {
            self.facts.make_news();
            self.has_more = true;
        }
        for (why, location) in taken {
            self.space.unpin(self.space.of(location).0);
            self.stats.reads_given_up += u64::from(!matches!(why, ReadFor::Key { .. }));
            match why {
                ReadFor::Get { id, .. } => io.reply(id, ReplyBody::Get(Err(ReadError::Busy))),
                ReadFor::Scan { scan, run, .. } => self.scan_read_given_up(scan, run),
                ReadFor::Key { .. } => self.facts.give_up(self.place_of(location)),
                ReadFor::Condition(_) => unreachable!("the reads that writes wait for were kept"),
            }
        }
        for slot in scans {
            self.scan_go_on(slot, io);
        }
        unwanted.clear();
    }
}
