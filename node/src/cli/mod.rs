//! x
pub mod escape;
pub mod exit;
pub mod size;
