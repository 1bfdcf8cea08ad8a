//! A shard: one core's partitions, its part of the drive and its memory.
