//! redb: a copy-on-write B+tree in one file, with a cache of its own. One writer at a time; the writes of all
//! threads that wait are one transaction, durable when it is committed.

use std::path::Path;

use redb::{Database, ReadableDatabase, TableDefinition};

use super::group::Group;
use super::{Engine, Failure};

const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
/// Share of the memory for its cache; what lies below it is read through the page cache.
const CACHE_PERCENT: u64 = 50;

/// An open redb.
pub struct Redb {
    db: Database,
    group: Group,
}

impl Redb {
    /// In this directory, with so many bytes of memory.
    pub fn open(directory: &Path, memory: u64) -> Result<Redb, Failure> {
        let cache = (memory * CACHE_PERCENT / 100) as usize;
        let db = Database::builder().set_cache_size(cache).create(directory.join("records.redb"))?;
        Ok(Redb { db, group: Group::default() })
    }
}

impl Engine for Redb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.group.put(key, value, |together| self.load(together))
    }

    fn get(&self, key: &[u8], out: &mut Vec<u8>) -> Result<bool, Failure> {
        let table = self.db.begin_read()?.open_table(RECORDS)?;
        let Some(value) = table.get(key)? else {
            return Ok(false);
        };
        out.extend_from_slice(value.value());
        Ok(true)
    }

    fn scan(&self, from: &[u8], limit: u32, out: &mut Vec<u8>) -> Result<u32, Failure> {
        let table = self.db.begin_read()?.open_table(RECORDS)?;
        let mut count = 0;
        for record in table.range(from..)?.take(limit as usize) {
            out.extend_from_slice(record?.1.value());
            count += 1;
        }
        Ok(count)
    }

    fn load(&self, records: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        let transaction = self.db.begin_write()?;
        {
            let mut table = transaction.open_table(RECORDS)?;
            for (key, value) in records {
                table.insert(key.as_slice(), value.as_slice())?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn settle(&self) -> Result<(), Failure> {
        // Every commit is durable, and leaves no work behind.
        Ok(())
    }
}
