//! lode's data node: the reactor that joins the engine to the ring and the wire, and what surrounds it.

pub mod access;
pub mod admin;
pub mod buffers;
pub mod control;
pub mod dispatch;
pub mod drive;
pub mod escape;
pub mod input;
pub mod io_limits;
pub mod mailbox;
mod patient;
pub mod reactor;
pub mod redis;
pub mod serve;
pub mod slow;
pub mod tls;
