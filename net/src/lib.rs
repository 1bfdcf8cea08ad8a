//! lode on the wire: format, sans-IO connection, client and io_uring ring; and the file of what the ring measured of a drive.

pub mod client;
pub mod io_properties;
pub mod resp;
pub mod ring;
pub mod wire;

#[cfg(test)]
mod testing;
