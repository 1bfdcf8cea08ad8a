//! fjall, set up like RocksDB as far as it goes: blocks and filters in a cache of its own, no compression. It reads
//! through the page cache, which the memory limit counts in.

use std::path::Path;
use std::time::Duration;

use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::group::Group;
use super::{Engine, Failure};

/// Share of the memory for its cache; its guide asks for 20 to 25, the rest is the page cache's.
const CACHE_PERCENT: u64 = 30;
/// Share of the memory for one memory table; one or two more are being written out.
const MEMORY_TABLE_PERCENT: u64 = 7;
/// How often a wait looks again.
const LOOK: Duration = Duration::from_millis(50);

/// An open fjall.
pub struct Fjall {
    db: Database,
    records: Keyspace,
    group: Group,
}

impl Fjall {
    /// In this directory, with so many bytes of memory.
    pub fn open(directory: &Path, memory: u64) -> Result<Fjall, Failure> {
        let db = Database::builder(directory)
            .cache_size(memory * CACHE_PERCENT / 100)
            .journal_compression(CompressionType::None)
            .open()?;
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(memory * MEMORY_TABLE_PERCENT / 100)
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
                .expect_point_read_hits(true)
        };
        let records = db.keyspace("records", options)?;
        Ok(Fjall { db, records, group: Group::default() })
    }
}

impl Engine for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.group.put(key, value, |together| {
            self.load(together)?;
            Ok(self.db.persist(PersistMode::SyncData)?)
        })
    }

    fn get(&self, key: &[u8], out: &mut Vec<u8>) -> Result<bool, Failure> {
        let Some(value) = self.records.get(key)? else {
            return Ok(false);
        };
        out.extend_from_slice(&value);
        Ok(true)
    }

    fn scan(&self, from: &[u8], limit: u32, out: &mut Vec<u8>) -> Result<u32, Failure> {
        let mut count = 0;
        for record in self.records.range(from..).take(limit as usize) {
            out.extend_from_slice(&record.value()?);
            count += 1;
        }
        Ok(count)
    }

    fn load(&self, records: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        let mut batch = self.db.batch();
        for (key, value) in records {
            batch.insert(&self.records, key.as_slice(), value.as_slice());
        }
        Ok(batch.commit()?)
    }

    fn settle(&self) -> Result<(), Failure> {
        self.db.persist(PersistMode::SyncAll)?;
        self.records.rotate_memtable_and_wait()?;
        while self.db.outstanding_flushes() > 0 || self.db.active_compactions() > 0 {
            std::thread::sleep(LOOK);
        }
        Ok(())
    }
}
