//! Requests that wait until the keys of some records are known: a compact index does not say without.

use crate::ids::{PartitionId, RequestId, TransactionId};
use crate::index::Need;
use crate::io::Io;
use crate::reads::check_key;
use crate::reply::{ReadError, ReplyBody, TimeLeft};
use crate::request::{KeyRange, ScanWish, Target};
use crate::shard::Shard;

/// A request that waits.
#[derive(Debug)]
pub struct Asking {
    id: RequestId,
    target: Target,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Count(OwnedRange, Option<TransactionId>),
    TimeToLive(Box<[u8]>),
    Scan(OwnedScan, Option<TransactionId>),
}

/// A range with bytes of its own.
#[derive(Debug, Clone)]
pub struct OwnedRange {
    start: Box<[u8]>,
    end: Option<Box<[u8]>>,
}

impl OwnedRange {
    /// A copy.
    pub fn of(range: &KeyRange<'_>) -> OwnedRange {
        OwnedRange { start: range.start.into(), end: range.end.map(Box::from) }
    }

    /// As it came.
    pub fn lend(&self) -> KeyRange<'_> {
        KeyRange { start: &self.start, end: self.end.as_deref() }
    }

    /// Its bytes.
    pub fn bytes(&self) -> usize {
        self.start.len() + self.end.as_ref().map_or(0, |end| end.len())
    }
}

/// What a scan asks for, with bytes of its own.
#[derive(Debug, Clone)]
pub struct OwnedScan {
    range: OwnedRange,
    reverse: bool,
    limit: u32,
    byte_budget: u32,
    keys_only: bool,
}

impl OwnedScan {
    /// A copy.
    pub fn of(wish: &ScanWish<'_>) -> OwnedScan {
        let ScanWish { range, reverse, limit, byte_budget, keys_only } = *wish;
        OwnedScan { range: OwnedRange::of(&range), reverse, limit, byte_budget, keys_only }
    }

    /// As it came.
    pub fn lend(&self) -> ScanWish<'_> {
        let OwnedScan { reverse, limit, byte_budget, keys_only, .. } = *self;
        ScanWish { range: self.range.lend(), reverse, limit, byte_budget, keys_only }
    }

    /// The rest of it, behind a key.
    pub fn behind(mut self, key: &[u8]) -> OwnedScan {
        if self.reverse {
            self.range.end = Some(key.into());
        } else {
            self.range.start = [key, &[0]].concat().into();
        }
        self
    }
}

impl Asking {
    /// A count.
    pub fn count(
        id: RequestId,
        target: Target,
        range: &KeyRange<'_>,
        within: Option<TransactionId>,
    ) -> Asking {
        Asking { id, target, body: Body::Count(OwnedRange::of(range), within) }
    }

    /// A time to live.
    pub fn time_to_live(id: RequestId, target: Target, key: &[u8]) -> Asking {
        Asking { id, target, body: Body::TimeToLive(key.into()) }
    }

    /// A scan.
    pub fn scan(id: RequestId, target: Target, scan: OwnedScan, within: Option<TransactionId>) -> Asking {
        Asking { id, target, body: Body::Scan(scan, within) }
    }

    /// How it is answered where there is no room for it to wait.
    fn refusal(&self) -> crate::reply::ReplyBody {
        use crate::reply::ReplyBody;
        match &self.body {
            Body::Count(..) => ReplyBody::Count(Err(ReadError::Busy)),
            Body::TimeToLive(_) => ReplyBody::TimeToLive(Err(ReadError::Busy)),
            Body::Scan(..) => ReplyBody::Scan(Err(ReadError::Busy)),
        }
    }
}

impl Shard {
    /// Lets a request wait until these records are read, and asks again then.
    pub(crate) fn wait_for_keys(
        &mut self,
        asking: Asking,
        partition: PartitionId,
        need: &Need,
        io: &mut Io<'_>,
    ) {
        if let Some(asking) = self.admit_asking(asking, io) {
            self.ask(partition, need, io);
            self.has_more |= !self.facts.is_reading();
            self.asking.push(asking);
        }
    }

    /// Serves a request again in the next step.
    pub(crate) fn ask_again(&mut self, asking: Asking, io: &mut Io<'_>) {
        if let Some(asking) = self.admit_asking(asking, io) {
            self.facts.make_news();
            self.has_more = true;
            self.asking.push(asking);
        }
    }

    /// The request, if there is room for it to wait; else it is answered.
    fn admit_asking(&mut self, asking: Asking, io: &mut Io<'_>) -> Option<Asking> {
        if self.asking.len() < self.config.max_queued_requests {
            return Some(asking);
        }
        self.stats.busy += 1;
        io.reply(asking.id, asking.refusal());
        None
    }

    /// Answers those whose answers nobody wants. Says whether there were any.
    pub(crate) fn give_up_asking(
        &mut self,
        is_unwanted: impl Fn(RequestId) -> bool,
        io: &mut Io<'_>,
    ) -> bool {
        let (gone, asking): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.asking).into_iter().partition(|asking| is_unwanted(asking.id));
        self.asking = asking;
        self.stats.reads_given_up += gone.len() as u64;
        gone.iter().for_each(|asking| io.reply(asking.id, asking.refusal()));
        !gone.is_empty()
    }

    /// Serves the requests that wait for keys again, where some became known.
    pub(crate) fn serve_asking(&mut self, io: &mut Io<'_>) {
        if self.asking.is_empty() || !self.facts.take_news() {
            return;
        }
        for asking in std::mem::take(&mut self.asking) {
            let Asking { id, target, body } = asking;
            match body {
                Body::Count(range, within) => self.count(id, &target, &range.lend(), within, io),
                Body::TimeToLive(key) => self.time_to_live(id, &target, &key, io),
                Body::Scan(scan, within) => self.scan(id, &target, &scan.lend(), within, io),
            }
        }
    }

    /// How long a record has still to live, if it is there: known without a read, but for a compact index.
    pub(crate) fn time_to_live(&mut self, id: RequestId, target: &Target, key: &[u8], io: &mut Io<'_>) {
        let result = match self.time_to_live_now(target, key) {
            Ok(Err(need)) => {
                let asking = Asking::time_to_live(id, *target, key);
                return self.wait_for_keys(asking, target.partition, &need, io);
            }
            Ok(Ok(left)) => Ok(left),
            Err(error) => Err(error),
        };
        self.note_read_error(result.as_ref().err());
        io.reply(id, ReplyBody::TimeToLive(result));
    }

    fn time_to_live_now(
        &mut self,
        target: &Target,
        key: &[u8],
    ) -> Result<Result<Option<TimeLeft>, Need>, ReadError> {
        let partition = self.target(target)?;
        check_key(key)?;
        if !partition.covers(key) {
            return Err(ReadError::OutOfRange);
        }
        if let Some(upto) = partition.quarantine {
            // Whether the record may be trusted is not known without reading it.
            return Err(ReadError::Quarantined { upto });
        }
        let is_there = self.has_now(partition, key, self.clock.now());
        let left = is_there.map(|is_there| is_there.then(|| self.clock.time_left(partition.expiry_of(key))));
        // What is damaged may be the key's: that is told, and not that there is none.
        if matches!(left, Ok(None))
            && !partition.is_expired(key, self.clock.now())
            && let Some(location) = self.damaged_perhaps(target.partition, key)
        {
            return Err(ReadError::Corrupt { at: self.place.area_at.0 + location.offset() });
        }
        Ok(left)
    }
}
