//! Scans of compact indexes: which records are meant is known for certain when they have been read.
//!
//! The index says what is in a range, and at its ends what may be. All of it is read, of one instant as ever, and
//! what turns out to lie beyond, or to have expired, is left out.

use bytes::Bytes;

use crate::asking::{Asking, OwnedScan};
use crate::expiry::ExpiryClock;
use crate::facts::KnownKeys;
use crate::format::record::{RECORD_HEADER_BYTES, Record};
use crate::ids::{RequestId, Seq, TransactionId, WallMs};
use crate::index::{IndexArena, KeyOf, Keys, Need, PartitionIndex};
use crate::io::Io;
use crate::location::Location;
use crate::partition::{bounds, is_void};
use crate::reply::{ReadError, ReplyBody, ScanPage, ScanRecord};
use crate::request::{KeyRange, ScanWish, Target};
use crate::scans::Chosen;
use crate::shard::Shard;
use crate::transactions::View;
use crate::transactions::history::{Before, Step};

/// What a scan of a compact index needs when its records are read.
#[derive(Debug)]
pub struct LooseScan {
    target: Target,
    scan: OwnedScan,
    within: Option<TransactionId>,
    /// The time by which records have expired.
    now: WallMs,
    /// The last key in the order of the scan that was read, meant or not.
    last_key: Option<Bytes>,
}

impl LooseScan {
    /// Of this wish.
    pub fn new(
        target: &Target,
        wish: &ScanWish<'_>,
        within: Option<TransactionId>,
        now: WallMs,
    ) -> LooseScan {
        LooseScan { target: *target, scan: OwnedScan::of(wish), within, now, last_key: None }
    }

    /// Its range, and whether it goes downwards.
    pub fn page(&self) -> (KeyRange<'_>, bool) {
        let wish = self.scan.lend();
        (wish.range, wish.reverse)
    }

    /// Takes what was read for an entry, if it is meant.
    pub fn take(&mut self, record: &Record<'_>, value: Bytes, clock: &ExpiryClock) -> Option<ScanRecord> {
        let wish = self.scan.lend();
        let is_beyond = |last: &Bytes| if wish.reverse { record.key < &**last } else { record.key > &**last };
        let key = Bytes::copy_from_slice(record.key);
        if self.last_key.as_ref().is_none_or(is_beyond) {
            self.last_key = Some(key.clone());
        }
        let has_expired = record.expires.is_some_and(|at| at <= self.now);
        if has_expired || !contains(&wish.range, &key) {
            return None;
        }
        let (seq, value) = if wish.keys_only { (Seq::default(), Bytes::new()) } else { (record.seq, value) };
        Some(ScanRecord { key, seq, value, left: clock.time_left(record.expires) })
    }
}

fn contains(range: &KeyRange<'_>, key: &[u8]) -> bool {
    range.start <= key && range.end.is_none_or(|end| key < end)
}

/// The entries of a page that may be meant, from the index and from what was overwritten since; or whose keys must be
/// known to tell.
pub fn choose_loosely(
    arena: &IndexArena,
    index: &PartitionIndex,
    wish: &ScanWish<'_>,
    view: &View<'_>,
    keys: &KnownKeys<'_>,
) -> Result<Chosen, Need> {
    let mut choice = Choice { chosen: Chosen::default(), wish, meant: 0, need: Need::default() };
    if is_void(&wish.range) {
        return Ok(choice.chosen);
    }
    let mut overlay = view.overlay(&wish.range, wish.reverse);
    let has_past = !overlay.is_empty();
    let (start, end) = bounds(&wish.range);
    let mut each = |choice: &mut Choice<'_, '_>, known: &[u8], is_whole: bool, location: Location| {
        if is_whole && !contains(&wish.range, known) {
            return true;
        }
        // At the end where the scan begins, what may lie before is not counted.
        let border = if wish.reverse { wish.range.end } else { Some(wish.range.start) };
        let may_lie_before = !is_whole && border.is_some_and(|border| agrees(border, known));
        let mut key = known;
        if has_past && !is_whole && view.has_changed_key(known) {
            match keys.key_of(location) {
                KeyOf::Key(whole) => key = whole,
                KeyOf::Unreadable => {}
                KeyOf::Unknown => {
                    choice.need.0.push(location);
                    return choice.need.0.len() < wish.limit as usize;
                }
            }
        }
        let past = &mut |_: &[u8], before: &Before| {
            let location = before.location().filter(|_| before.is_there(view.now));
            location.is_none_or(|location| choice.take(location, true))
        };
        match overlay.up_to(Some(key), past) {
            Step::Stop => false,
            Step::Skip => true,
            Step::Show => choice.take(location, !may_lie_before),
        }
    };
    let mut goes_on = true;
    if wish.reverse {
        let mut entries = index.iter_rev(arena, start, end);
        while goes_on && let Some((known, is_whole, location)) = entries.next_known() {
            goes_on = each(&mut choice, known, is_whole, location);
        }
    } else {
        let mut entries = index.iter(arena, start, end);
        while goes_on && let Some((known, is_whole, location)) = entries.next_known() {
            goes_on = each(&mut choice, known, is_whole, location);
        }
    }
    if !choice.need.0.is_empty() {
        return Err(choice.need);
    }
    if goes_on {
        overlay.up_to(None, &mut |_, before| {
            let location = before.location().filter(|_| before.is_there(view.now));
            location.is_none_or(|location| choice.take(location, true))
        });
    }
    Ok(choice.chosen)
}

/// Whether a key agrees with what is known of another.
fn agrees(key: &[u8], known: &[u8]) -> bool {
    known.iter().enumerate().all(|(i, byte)| key.get(i).copied().unwrap_or(0) == *byte)
}

struct Choice<'w, 'k> {
    chosen: Chosen,
    wish: &'w ScanWish<'k>,
    /// Entries that are meant, but for those that have expired or lie beyond the far end.
    meant: usize,
    need: Need,
}

impl Choice<'_, '_> {
    /// Takes an entry, unless the page is full. Says whether to go on.
    fn take(&mut self, location: Location, is_meant: bool) -> bool {
        let bytes = location.room() as usize - RECORD_HEADER_BYTES;
        let is_full = self.meant >= self.wish.limit as usize
            || self.chosen.bytes + bytes > self.wish.byte_budget as usize;
        if is_full && self.meant > 0 {
            self.chosen.more = true;
            return false;
        }
        self.meant += usize::from(is_meant);
        self.chosen.bytes += bytes;
        self.chosen.entries.push((Bytes::new(), location));
        true
    }
}

impl Shard {
    /// Reads what a scan may mean, or first what it takes to know that.
    pub(crate) fn scan_loosely(
        &mut self,
        id: RequestId,
        loose: LooseScan,
        chosen: Result<Chosen, Need>,
        io: &mut Io<'_>,
    ) -> Result<Option<ScanPage>, ReadError> {
        let partition = loose.target.partition;
        match chosen {
            Ok(chosen) => self.scan_begin(id, partition, chosen, Some(Box::new(loose)), io)?,
            Err(need) => {
                let asking = Asking::scan(id, loose.target, loose.scan, loose.within);
                self.wait_for_keys(asking, partition, &need, io);
            }
        }
        Ok(None)
    }

    /// All was read that a scan may mean.
    pub(crate) fn finish_loosely(
        &mut self,
        id: RequestId,
        loose: LooseScan,
        mut records: Vec<ScanRecord>,
        mut more: bool,
        io: &mut Io<'_>,
    ) {
        let LooseScan { target, scan, within, last_key, .. } = loose;
        let wish = scan.lend();
        // They are in order, but for those next to what could not be read when they were written.
        records.sort_by(|a, b| if wish.reverse { b.key.cmp(&a.key) } else { a.key.cmp(&b.key) });
        more |= records.len() > wish.limit as usize;
        records.truncate(wish.limit as usize);
        if let (true, true, Some(last_key)) = (records.is_empty(), more, &last_key) {
            // A page with nothing would pass for the last. The next one is of another step: there may be many such.
            let asking = Asking::scan(id, target, scan.behind(last_key), within);
            return self.ask_again(asking, io);
        }
        let last = records.last().map(|record| record.key.clone());
        let seen = match self.transactions.view(within, target.partition, self.clock.now()) {
            Ok(_) => self.saw_page(within, &wish, last.filter(|_| more)),
            Err(error) => Err(error),
        };
        self.note_read_error(seen.as_ref().err());
        self.stats.scans += u64::from(seen.is_ok());
        io.reply(id, ReplyBody::Scan(seen.map(|()| ScanPage { records, more })));
    }
}
