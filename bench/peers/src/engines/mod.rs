//! Engines that run in this process, all behind one door.

#[cfg(feature = "fjall")]
mod fjall;
#[cfg(any(feature = "fjall", feature = "redb", feature = "lmdb"))]
mod group;
#[cfg(feature = "lmdb")]
mod lmdb;
#[cfg(feature = "redb")]
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;

use std::error::Error;
use std::path::Path;

/// What an engine says went wrong, in its own words.
pub type Failure = Box<dyn Error + Send + Sync>;

/// An engine with its records. Values are copied out, as an application would take them.
pub trait Engine: Send + Sync {
    /// Writes one record; it is durable when this returns.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure>;
    /// Appends the value to `out`; `false` where there is none.
    fn get(&self, key: &[u8], out: &mut Vec<u8>) -> Result<bool, Failure>;
    /// Appends the values of up to `limit` records from this key on to `out`, and tells how many they are.
    fn scan(&self, from: &[u8], limit: u32, out: &mut Vec<u8>) -> Result<u32, Failure>;
    /// Writes many records, which need not be durable before [`Engine::settle`].
    fn load(&self, records: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure>;
    /// Makes durable what was loaded, and waits for the work in the background that it has left.
    fn settle(&self) -> Result<(), Failure>;
}

/// The engines that this program was built with.
pub const BUILT: &[&str] = &[
    #[cfg(feature = "rocksdb")]
    "rocksdb",
    #[cfg(feature = "fjall")]
    "fjall",
    #[cfg(feature = "redb")]
    "redb",
    #[cfg(feature = "lmdb")]
    "lmdb",
];

/// Opens the engine of this name in `directory`, to use up to `memory` bytes, for up to `data` bytes of records.
pub fn open(name: &str, directory: &Path, memory: u64, data: u64) -> Result<Box<dyn Engine>, Failure> {
    // What each takes of the two.
    let _ = (directory, memory, data);
    match name {
        #[cfg(feature = "rocksdb")]
        "rocksdb" => Ok(Box::new(rocksdb::RocksDb::open(directory, memory)?)),
        #[cfg(feature = "fjall")]
        "fjall" => Ok(Box::new(fjall::Fjall::open(directory, memory)?)),
        #[cfg(feature = "redb")]
        "redb" => Ok(Box::new(redb::Redb::open(directory, memory)?)),
        #[cfg(feature = "lmdb")]
        "lmdb" => Ok(Box::new(lmdb::Lmdb::open(directory, data)?)),
        other => {
            Err(format!("this program was not built with {other}: cargo build --features {other}").into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Keys that sort as their numbers do.
    fn record(number: u32) -> (Vec<u8>, Vec<u8>) {
        (format!("{number:016}").into_bytes(), number.to_le_bytes().repeat(256))
    }

    fn holds_what_was_written(name: &str) {
        let home = tempfile::tempdir().unwrap();
        let engine = open(name, home.path(), 64 << 20, 16 << 20).unwrap();
        let records: Vec<_> = (0..1000).map(record).collect();
        engine.load(&records).unwrap();
        engine.settle().unwrap();
        let (key, _) = record(500);
        engine.put(&key, b"new").unwrap();
        drop(engine);

        let engine = open(name, home.path(), 64 << 20, 16 << 20).unwrap();
        let mut value = Vec::new();
        assert!(engine.get(&record(7).0, &mut value).unwrap(), "{name}");
        assert_eq!(value, record(7).1, "{name}");
        value.clear();
        assert!(engine.get(&key, &mut value).unwrap());
        assert_eq!(value, b"new", "{name}");
        assert!(!engine.get(b"nobody", &mut value).unwrap(), "{name}");
        value.clear();
        assert_eq!(engine.scan(&record(990).0, 100, &mut value).unwrap(), 10, "{name}");
        assert_eq!(value, (990..1000).flat_map(|number| record(number).1).collect::<Vec<u8>>(), "{name}");
        value.clear();
        assert_eq!(engine.scan(&record(10).0, 100, &mut value).unwrap(), 100, "{name}");
    }

    #[test]
    fn every_engine_holds_what_was_written() {
        BUILT.iter().for_each(|name| holds_what_was_written(name));
    }

    #[test]
    fn what_was_not_built_is_named() {
        let error = open("nothing", Path::new("/nowhere"), 1, 1).err().unwrap();
        assert!(error.to_string().contains("--features nothing"), "{error}");
    }
}
