//! The peers: what they are, how each is set up, and what that keeps of a write.

use std::path::{Path, PathBuf};

use crate::engines;
use crate::options::RunOptions;
use crate::points::Point;

/// What stands beside lode, and lode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// As the command line and the table call it.
    pub name: String,
    /// What kind it is.
    pub kind: Kind,
    /// When a write that was acknowledged survives the loss of power.
    pub durable: &'static str,
    /// How it is set up.
    pub setup: &'static str,
}

/// How a peer is started and asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The drive alone.
    FloorReads,
    /// A bare loop that reads the drive for clients over TCP.
    FloorEcho,
    /// The same on glommio.
    FloorGlommio,
    /// A node of ours.
    Lode,
    /// In a process of this program.
    Engine,
    /// Redis with this `appendfsync`.
    Redis(&'static str),
    /// memcached with its records in a file.
    Memcached,
    /// A RESP server that runs already.
    Address(String),
}

const ALWAYS: &str = "each write";
const NOT: &str = "no";

fn known() -> Vec<Peer> {
    let peer = |name: &str, kind, durable, setup| Peer { name: name.to_owned(), kind, durable, setup };
    vec![
        peer(
            "lode",
            Kind::Lode,
            ALWAYS,
            "over TCP; a shard a core; 85 % of the memory as --memory, direct I/O",
        ),
        peer("floor-reads", Kind::FloorReads, NOT, "io_uring reads of 4 KiB of lode's drive, one thread"),
        peer(
            "floor-echo",
            Kind::FloorEcho,
            NOT,
            "the same read for each request over TCP, 1 KiB sent back, one thread",
        ),
        peer("floor-glommio", Kind::FloorGlommio, NOT, "the same on glommio, one executor"),
        peer(
            "rocksdb",
            Kind::Engine,
            ALWAYS,
            "in process; direct reads, flushes and compactions; 40 % of the memory for blocks, indexes and filters \
             (10 bits), up to 25 % for memory tables; no compression; sync for each write, which RocksDB groups",
        ),
        peer(
            "fjall",
            Kind::Engine,
            ALWAYS,
            "in process; 30 % of the memory as cache, 7 % for a memory table, the rest is page cache; filters as \
             by default, no compression; all writes that wait are one batch, then persist(SyncData)",
        ),
        peer(
            "redb",
            Kind::Engine,
            ALWAYS,
            "in process; 50 % of the memory as cache; all writes that wait are one transaction, durable at once",
        ),
        peer(
            "lmdb",
            Kind::Engine,
            ALWAYS,
            "in process; a memory map without read-ahead, all the memory is page cache; all writes that wait are one \
             transaction, synced",
        ),
        peer(
            "redis-always",
            Kind::Redis("always"),
            ALWAYS,
            "over TCP; AOF with appendfsync always, no RDB; all records in memory, so without the limit",
        ),
        peer(
            "redis-everysec",
            Kind::Redis("everysec"),
            "within a second",
            "over TCP; AOF with appendfsync everysec, no RDB; all records in memory, so without the limit",
        ),
        peer(
            "memcached-extstore",
            Kind::Memcached,
            NOT,
            "over TCP; two threads, 75 % of the memory for keys and recent values, values in a file by 8 I/O threads; \
             the rest is page cache",
        ),
    ]
}

/// Names of the peers that are known.
pub fn names() -> Vec<String> {
    known().into_iter().map(|peer| peer.name).collect()
}

/// Those that were asked for.
pub fn chosen(options: &RunOptions) -> Vec<Peer> {
    let all = known();
    let mut peers: Vec<Peer> = if options.peers.is_empty() && options.resp.is_empty() {
        all
    } else {
        options.peers.iter().filter_map(|name| all.iter().find(|peer| peer.name == *name).cloned()).collect()
    };
    let given = options.resp.iter().map(|(name, addr)| Peer {
        name: name.clone(),
        kind: Kind::Address(addr.clone()),
        durable: "as it is set up",
        setup: "over TCP; runs already, as it is set up, without the limit",
    });
    peers.extend(given);
    peers
}

impl Peer {
    /// Why it cannot be measured here, and what to do.
    pub fn is_missing(&self) -> Option<String> {
        match &self.kind {
            Kind::Engine if !engines::BUILT.contains(&self.name.as_str()) => {
                Some(format!("not built in; cargo build --release --features {}", self.name))
            }
            Kind::FloorGlommio if !cfg!(feature = "glommio") => {
                Some("not built in; cargo build --release --features glommio".to_owned())
            }
            Kind::Redis(_) => not_installed("redis-server"),
            Kind::Memcached => not_installed("memcached"),
            _ => None,
        }
    }

    /// Whether it stays up from turn to turn: it would have to read or be sent all records again.
    pub fn stays_up(&self) -> bool {
        matches!(self.kind, Kind::Redis(_) | Kind::Memcached | Kind::Address(_))
    }

    /// Whether it can be asked for this.
    pub fn can(&self, point: Point) -> bool {
        match self.kind {
            Kind::Lode | Kind::Engine => true,
            Kind::FloorReads | Kind::FloorEcho | Kind::FloorGlommio => point == Point::Get,
            Kind::Redis(_) | Kind::Memcached | Kind::Address(_) => point != Point::Scan,
        }
    }

    /// Whether its memory is limited.
    pub fn is_limited(&self) -> bool {
        matches!(self.kind, Kind::Lode | Kind::Engine | Kind::Memcached)
    }
}

fn not_installed(program: &str) -> Option<String> {
    in_path(program).is_none().then(|| format!("{program} is not installed; apt-get install {program}"))
}

/// Where a program is.
pub fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let all = std::env::split_paths(&path).chain([Path::new("/usr/sbin").to_path_buf()]);
    all.map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// For people.
pub fn list() -> String {
    let line = |peer: Peer| {
        let there = peer.is_missing().map_or("there".to_owned(), |why| format!("missing: {why}"));
        format!("{} ({there})\n  durable: {}\n  {}\n", peer.name, peer.durable, peer.setup)
    };
    known().into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_engines_are_told_apart_by_what_was_built() {
        let mut all = names();
        assert!(all.len() >= 10);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), names().len());
        for peer in known().iter().filter(|peer| peer.kind == Kind::Engine) {
            assert_eq!(peer.is_missing().is_none(), engines::BUILT.contains(&peer.name.as_str()));
        }
        assert!(not_installed("no-such-program").is_some() && not_installed("sh").is_none());
    }
}
