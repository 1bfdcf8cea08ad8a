//! lode's storage engine: a shard is a function of its requests and completions.
//!
//! Pure: no files, no sockets, no clock, no threads, no randomness. See `FORMAT.md` for what is on
//! the drive.

mod acknowledge;
mod append;
mod apply;
mod asking;
mod audit;
mod cache;
mod catalog;
mod catalog_job;
pub mod check;
mod checkpoint;
mod cleaning;
mod config;
mod expiry;
mod facts;
pub mod format;
mod frame_builder;
mod gather;
mod geometry;
mod give_up;
pub mod ids;
mod image_writer;
pub mod index;
mod io;
mod journal;
mod lanes;
mod length_classes;
mod lifetime;
pub mod limits;
mod loading;
mod location;
mod log;
mod lookups;
mod loose_scans;
mod modify;
mod owned;
mod pace;
mod partition;
mod partition_table;
mod prefetch;
mod quota;
mod reader;
mod reads;
mod recovery;
mod replay;
mod reply;
mod request;
mod scan_runs;
mod scanner;
mod scans;
mod scrub;
mod seam;
mod sequencer;
mod shard;
mod sizes;
mod space;
mod stats;
mod transactions;
mod writes;

pub use audit::{Room, ShardWatermarks, Watermarks};
pub use check::{CheckError, CheckReport, ShardReport, check_drive};
pub use config::ShardConfig;
pub use format::drive_header::{DRIVE_HEADER_BYTES, DriveHeaderError, DriveIdentity, read_drive_header};
pub use geometry::{Geometry, GeometryError, MAX_SHARDS, MIN_SEGMENTS, format_drive};
pub use ids::{
    BufferId, DriveOffset, Epoch, FrameNumber, Generation, NodeId, OwnerId, PartitionId, RequestId,
    SegmentId, Seq, ShardId, TableId, Token, TransactionId, WallMs,
};
pub use location::Location;
pub use quota::{Quota, QuotaOf};
pub use reply::*;
pub use request::*;
pub use scrub::{DamagedRecord, QuarantinedPartition, ScrubStats};
pub use seam::*;
pub use shard::{OpenError, Phase, Shard};
pub use sizes::PartitionSize;
pub use space::Census;
pub use stats::ShardStats;
