//! The ordered index of a partition.
