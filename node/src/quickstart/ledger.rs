//! What a writer knows about its own writes: for each key the version that was acknowledged last, and the one that
//! was sent last. After a crash a key must hold one of the two, whole.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use lode_net::client::{Batch, BatchError, Client, WriteError};

/// Bytes of a value in front of its filling: the version.
const VERSION_BYTES: usize = 8;

/// One key.
struct Slot {
    key: Vec<u8>,
    /// 0: never sent.
    sent: AtomicU64,
    /// 0: never acknowledged.
    acknowledged: AtomicU64,
    /// One write of a key at a time, so that its versions have one order.
    busy: AtomicBool,
}

/// The keys of one table, and what is known of them.
pub struct Ledger {
    table: String,
    slots: Vec<Slot>,
    /// Fills values; keeps runs apart.
    salt: u64,
    longest_value_bytes: usize,
    acknowledged: AtomicU64,
}

/// What reading everything back has shown.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct LedgerReport {
    /// Keys read.
    pub keys: u64,
    /// Keys without their last acknowledged version: an older one, or none.
    pub lost: Vec<String>,
    /// Keys that hold what was never written: torn, mixed up or from the future.
    pub wrong: Vec<String>,
    /// Batches of which only a part is there.
    pub torn_batches: Vec<String>,
}

/// What is on the drive for a key, held against the ledger.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Good(u64),
    Lost,
    Wrong,
}

impl Ledger {
    /// `groups` groups of `slots_per_group` keys each; the keys of a group share a prefix, and so a partition
    /// where the table is split by [`Ledger::splits`].
    pub fn new(
        table: &str,
        groups: u32,
        slots_per_group: u32,
        longest_value_bytes: usize,
        salt: u64,
    ) -> Ledger {
        let slot = |group: u32, slot: u32| Slot {
            key: format!("{}/{slot:06}", group_name(group)).into_bytes(),
            sent: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            busy: AtomicBool::new(false),
        };
        let slots = (0..groups).flat_map(|group| (0..slots_per_group).map(move |number| slot(group, number)));
        let (table, slots) = (table.to_owned(), slots.collect());
        Ledger { table, slots, salt, longest_value_bytes, acknowledged: AtomicU64::new(0) }
    }

    /// First keys of the second and later groups.
    pub fn splits(groups: u32) -> Vec<Vec<u8>> {
        (1..groups).map(|group| group_name(group).into_bytes()).collect()
    }

    /// Writes acknowledged, batches counted by their records.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Writes the next version of a key, or of the next key that nobody is writing.
    pub async fn put(&self, client: &Client, from: usize) -> Result<(), WriteError> {
        let slot = (0..self.slots.len())
            .map(|step| &self.slots[(from + step) % self.slots.len()])
            .find(|slot| !slot.busy.swap(true, Ordering::AcqRel));
        // More writes in flight than keys: the open loop has fallen far behind, and one write less is no loss.
        let Some(slot) = slot else { return Ok(()) };
        let version = slot.sent.fetch_add(1, Ordering::AcqRel) + 1;
        let value = self.value(&slot.key, version);
        client.put(&self.table, &slot.key, &value).await?;
        // A slot whose write has failed stays busy: its next version would have two possible predecessors.
        self.note(&[slot], version);
        Ok(())
    }

    /// Writes the same next version of `count` keys from `from` on, all or none. Only one writer may batch a slot.
    pub async fn batch(&self, client: &Client, from: usize, count: usize) -> Result<(), BatchError> {
        let slots: Vec<&Slot> = self.slots[from..from + count].iter().collect();
        let version = slots[0].sent.load(Ordering::Acquire) + 1;
        let mut batch = Batch::new();
        for slot in &slots {
            slot.busy.store(true, Ordering::Release);
            slot.sent.store(version, Ordering::Release);
            batch = batch.put(&slot.key, &self.value(&slot.key, version));
        }
        client.batch(&self.table, batch).await?;
        self.note(&slots, version);
        Ok(())
    }

    fn note(&self, slots: &[&Slot], version: u64) {
        for slot in slots {
            let before = slot.acknowledged.swap(version, Ordering::AcqRel);
            assert!(before < version, "versions of a key are acknowledged in order");
            slot.busy.store(false, Ordering::Release);
        }
        self.acknowledged.fetch_add(slots.len() as u64, Ordering::Relaxed);
    }

    /// A value that tells its version, and whose every byte follows from key and version.
    fn value(&self, key: &[u8], version: u64) -> Vec<u8> {
        let mut random =
            u64::from(crc32c::crc32c(key)) ^ version.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.salt;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let len = VERSION_BYTES + next() as usize % (self.longest_value_bytes - VERSION_BYTES + 1);
        let mut value = version.to_le_bytes().to_vec();
        while value.len() < len {
            value.extend_from_slice(&next().to_le_bytes());
        }
        value.truncate(len);
        value
    }

    fn judge(&self, slot: &Slot, found: Option<&[u8]>) -> Verdict {
        let (acknowledged, sent) =
            (slot.acknowledged.load(Ordering::Acquire), slot.sent.load(Ordering::Acquire));
        let Some(value) = found else {
            return if acknowledged == 0 { Verdict::Good(0) } else { Verdict::Lost };
        };
        let Some(version) = value.first_chunk::<VERSION_BYTES>().copied().map(u64::from_le_bytes) else {
            return Verdict::Wrong;
        };
        match version {
            0 => Verdict::Wrong,
            _ if version > sent || value != self.value(&slot.key, version) => Verdict::Wrong,
            _ if version < acknowledged => Verdict::Lost,
            _ => Verdict::Good(version),
        }
    }

    /// Reads every key back. `batches` are runs of keys that were only written together.
    pub async fn verify(
        &self,
        client: &Client,
        batches: impl Iterator<Item = (usize, usize)>,
    ) -> Result<LedgerReport, lode_net::client::GetError> {
        let mut report = LedgerReport { keys: self.slots.len() as u64, ..LedgerReport::default() };
        let mut versions = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            let found = client.get(&self.table, &slot.key).await?;
            let name = String::from_utf8_lossy(&slot.key).into_owned();
            match self.judge(slot, found.as_ref().map(|record| &record.value[..])) {
                Verdict::Good(version) => versions.push(Some(version)),
                Verdict::Lost => {
                    versions.push(None);
                    report.lost.push(name);
                }
                Verdict::Wrong => {
                    versions.push(None);
                    report.wrong.push(name);
                }
            }
        }
        for (from, count) in batches {
            let run = &versions[from..from + count];
            if run.iter().any(|version| *version != run[0]) {
                report.torn_batches.push(String::from_utf8_lossy(&self.slots[from].key).into_owned());
            }
        }
        Ok(report)
    }
}

fn group_name(group: u32) -> String {
    format!("writer-{group:04}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_way_to_lose_is_seen() {
        let ledger = Ledger::new("t", 2, 4, 100, 7);
        let slot = &ledger.slots[5];
        assert_eq!(slot.key, b"writer-0001/000001");
        assert_eq!(ledger.judge(slot, None), Verdict::Good(0));
        slot.sent.store(3, Ordering::Relaxed);
        ledger.note(&[slot], 2);
        assert_eq!(ledger.acknowledged(), 1);
        let value = |version| ledger.value(&slot.key, version);
        assert_eq!(ledger.judge(slot, None), Verdict::Lost);
        assert_eq!(ledger.judge(slot, Some(&value(1))), Verdict::Lost);
        assert_eq!(ledger.judge(slot, Some(&value(2))), Verdict::Good(2));
        assert_eq!(ledger.judge(slot, Some(&value(3))), Verdict::Good(3));
        assert_eq!(ledger.judge(slot, Some(&value(4))), Verdict::Wrong);
        assert_eq!(ledger.judge(slot, Some(b"short")), Verdict::Wrong);
        let mut torn = value(3);
        *torn.last_mut().unwrap() ^= 1;
        assert_eq!(ledger.judge(slot, Some(&torn)), Verdict::Wrong);
        assert_eq!(ledger.judge(slot, Some(&ledger.value(&ledger.slots[6].key, 2))), Verdict::Wrong);
    }

    #[test]
    fn values_follow_from_key_and_version() {
        let ledger = Ledger::new("t", 1, 2, 64, 7);
        for version in 1..200 {
            let value = ledger.value(b"k", version);
            assert!((VERSION_BYTES..=64).contains(&value.len()));
            assert_eq!(value, ledger.value(b"k", version));
            assert_ne!(value, ledger.value(b"k", version + 1));
        }
        assert_eq!(Ledger::splits(3), [b"writer-0001".to_vec(), b"writer-0002".to_vec()]);
    }
}
