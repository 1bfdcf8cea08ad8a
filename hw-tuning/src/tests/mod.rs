//! What tests of several parts stand on.

pub mod fixture;
mod golden;
