//! lode's storage engine: a shard is a function of its requests and completions.
//!
//! Pure: no files, no sockets, no clock, no threads, no randomness. See `FORMAT.md` for what is on
//! the drive.

pub mod ids;
pub mod index;
pub mod limits;
mod location;
mod reply;
mod request;
mod seam;
mod shard;
mod stats;

pub use ids::{
    BufferId, DriveOffset, Epoch, FrameNumber, Generation, NodeId, PartitionId, RequestId, SegmentId, Seq,
    ShardId, TableId, Token,
};
pub use location::Location;
pub use reply::*;
pub use request::*;
pub use seam::*;
pub use stats::ShardStats;
