//! LMDB by `heed`: a B+tree in a memory map, without read-ahead, which would read 16 pages for one where data is well
//! over memory. One writer at a time; the writes of all threads that wait are one transaction, durable when it is
//! committed.

use std::path::Path;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, WithoutTls};

use super::group::Group;
use super::{Engine, Failure};

/// The map is so many times as long as the records: pages are about two thirds full, and writes copy them.
const MAP_OVER_DATA: u64 = 4;
/// The shortest map; longer ones are multiples of it.
const LEAST_MAP_BYTES: u64 = 1 << 30;
/// Readers at a time.
const READERS: u32 = 1024;

/// An open LMDB.
pub struct Lmdb {
    env: Env<WithoutTls>,
    records: Database<'static, Bytes, Bytes>,
    group: Group,
}

impl Lmdb {
    /// In this directory, for so many bytes of records. Its memory is the page cache's.
    pub fn open(directory: &Path, data: u64) -> Result<Lmdb, Failure> {
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        let map = (data * MAP_OVER_DATA).max(LEAST_MAP_BYTES).next_multiple_of(LEAST_MAP_BYTES);
        options.map_size(map as usize).max_readers(READERS);
        // SAFETY: the flag changes only what the kernel is told of the map's reads; none of those that give up
        // durability or locks is set.
        unsafe { options.flags(EnvFlags::NO_READ_AHEAD) };
        // SAFETY: the directory is the harness's own: no other process changes the file behind the map, and this
        // one opens it once.
        let env = unsafe { options.open(directory)? };
        let opened = env.create_databases_and_commit(env.write_txn()?, |opener, transaction| {
            opener.create_database(transaction, None).map(CommitOrAbort::<_, ()>::Commit)
        });
        let records = opened?.unwrap_commit();
        Ok(Lmdb { env, records, group: Group::default() })
    }
}

impl Engine for Lmdb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        self.group.put(key, value, |together| self.load(together))
    }

    fn get(&self, key: &[u8], out: &mut Vec<u8>) -> Result<bool, Failure> {
        let transaction = self.env.read_txn()?;
        let Some(value) = self.records.get(&transaction, key)? else {
            return Ok(false);
        };
        out.extend_from_slice(value);
        Ok(true)
    }

    fn scan(&self, from: &[u8], limit: u32, out: &mut Vec<u8>) -> Result<u32, Failure> {
        let transaction = self.env.read_txn()?;
        let mut count = 0;
        let range = (std::ops::Bound::Included(from), std::ops::Bound::Unbounded);
        for record in self.records.range(&transaction, &range)?.take(limit as usize) {
            out.extend_from_slice(record?.1);
            count += 1;
        }
        Ok(count)
    }

    fn load(&self, records: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        let mut transaction = self.env.write_txn()?;
        for (key, value) in records {
            self.records.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn settle(&self) -> Result<(), Failure> {
        // Every commit is durable, and leaves no work behind.
        Ok(())
    }
}
