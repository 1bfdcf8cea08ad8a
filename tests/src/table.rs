//! Tables as tests make them.

use lode_net::client::{Placement, Quota, Store, TableOptions};

/// A table of this store, its keys placed by hash in so many partitions.
pub fn of_store(name: &str, store: Store, partitions: u32) -> TableOptions {
    TableOptions {
        name: name.to_owned(),
        store,
        placement: Placement::Hash { partitions },
        ttl: None,
        quota: Quota::default(),
    }
}

/// A table on the drive.
pub fn durable(name: &str, partitions: u32) -> TableOptions {
    of_store(name, Store::Durable, partitions)
}
