//! What the whole-system tests share: the rules of the house, and a real node to drive.

pub mod browser;
pub mod fuzz;
pub mod guarded;
pub mod http;
pub mod mutations;
pub mod node;
pub mod redis;
pub mod resp;
pub mod sim;
pub mod source;
pub mod swarm;
pub mod table;
pub mod tidy;
pub mod value;
pub mod wire;
