//! RocksDB, set up for records of about 1 KiB on a fast drive with data well over memory, after its tuning guide:
//! <https://github.com/facebook/rocksdb/wiki/RocksDB-Tuning-Guide>, "Direct-IO", "Setup-Options-and-Basic-Tuning".

use std::path::Path;

use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, Options, ReadOptions, WaitForCompactOptions, WriteBatch,
    WriteOptions,
};

use super::{Engine, Failure};

/// Share of the memory for blocks, indexes and filters; memory tables have up to another quarter of it.
const CACHE_PERCENT: u64 = 40;
/// Most memory tables at a time, which share a quarter of the memory.
const WRITE_BUFFERS: u64 = 3;
/// Longest one of them.
const MOST_WRITE_BUFFER_BYTES: u64 = 64 << 20;
/// Threads of flushes and compactions: the machine's cores, two at least.
const LEAST_JOBS: usize = 2;

/// An open RocksDB.
pub struct RocksDb {
    db: DB,
    durable: WriteOptions,
}

impl RocksDb {
    /// In this directory, with so many bytes of memory.
    pub fn open(directory: &Path, memory: u64) -> Result<RocksDb, Failure> {
        let mut table = BlockBasedOptions::default();
        // Filters and indexes in the cache: all its memory is under one limit.
        table.set_block_cache(&Cache::new_hyper_clock_cache((memory * CACHE_PERCENT / 100) as usize, 0));
        table.set_cache_index_and_filter_blocks(true);
        table.set_cache_index_and_filter_blocks_with_high_priority(true);
        table.set_pin_l0_filter_and_index_blocks_in_cache(true);
        table.set_bloom_filter(10.0, false);
        table.set_optimize_filters_for_memory(true);
        table.set_format_version(6);

        let cores = std::thread::available_parallelism().map_or(LEAST_JOBS, usize::from).max(LEAST_JOBS);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_block_based_table_factory(&table);
        options.set_compression_type(DBCompressionType::None);
        // Neither reads nor compactions go through the page cache.
        options.set_use_direct_reads(true);
        options.set_use_direct_io_for_flush_and_compaction(true);
        options.set_compaction_readahead_size(2 << 20);
        options.set_level_compaction_dynamic_level_bytes(true);
        let buffer = (memory / 4 / WRITE_BUFFERS).min(MOST_WRITE_BUFFER_BYTES);
        options.set_write_buffer_size(buffer as usize);
        options.set_max_write_buffer_number(WRITE_BUFFERS as i32);
        options.set_target_file_size_base(buffer);
        options.set_max_background_jobs(cores as i32);
        options.set_bytes_per_sync(1 << 20);
        // The log's blocks are written before: a sync then changes no metadata.
        options.set_recycle_log_file_num(WRITE_BUFFERS as usize);
        options.set_enable_pipelined_write(true);
        let db = DB::open(&options, directory)?;
        let mut durable = WriteOptions::default();
        durable.set_sync(true);
        Ok(RocksDb { db, durable })
    }
}

impl Engine for RocksDb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
        Ok(self.db.put_opt(key, value, &self.durable)?)
    }

    fn get(&self, key: &[u8], out: &mut Vec<u8>) -> Result<bool, Failure> {
        let Some(value) = self.db.get_pinned(key)? else {
            return Ok(false);
        };
        out.extend_from_slice(&value);
        Ok(true)
    }

    fn scan(&self, from: &[u8], limit: u32, out: &mut Vec<u8>) -> Result<u32, Failure> {
        let mut options = ReadOptions::default();
        // Read on in the background rather than block by block.
        options.set_async_io(true);
        let mut iterator = self.db.raw_iterator_opt(options);
        iterator.seek(from);
        let mut count = 0;
        while count < limit
            && let Some(value) = iterator.value()
        {
            out.extend_from_slice(value);
            count += 1;
            iterator.next();
        }
        iterator.status()?;
        Ok(count)
    }

    fn load(&self, records: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
        let mut batch = WriteBatch::default();
        records.iter().for_each(|(key, value)| batch.put(key, value));
        Ok(self.db.write(batch)?)
    }

    fn settle(&self) -> Result<(), Failure> {
        let mut options = WaitForCompactOptions::default();
        options.set_flush(true);
        Ok(self.db.wait_for_compact(&options)?)
    }
}
