//! What `lode-bench` is made of: other loads (`bench/peers`) draw the same keys, values and requests, and count them alike.

pub mod act;
pub mod compare;
pub mod draw;
pub mod floor;
pub mod hostile;
pub mod node_stats;
pub mod objective;
pub mod options;
pub mod overload;
pub mod partitions;
pub mod process;
pub mod report;
pub mod restart;
pub mod run;
pub mod search;
pub mod spread;
pub mod tenants;
pub mod versus;
pub mod workload;
