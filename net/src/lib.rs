//! lode on the wire: format, sans-IO connection, client and io_uring ring.

pub mod client;
pub mod resp;
pub mod ring;
pub mod wire;

#[cfg(test)]
mod testing;
