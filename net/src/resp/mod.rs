//! RESP, the protocol of Redis and its clients, versions 2 and 3: requests parsed, replies encoded. Sans-IO.
//!
//! What a request may be is bounded twice: by what the protocol allows ([`limits`], as Redis has it), which ends the
//! connection; and by what the reader wants to hold, beyond which a request is read to its end, forgotten, and told
//! as [`Request::TooLarge`], so that the connection goes on.

mod inline;
pub mod limits;
mod parser;
mod reply;
#[cfg(test)]
mod tests;

pub use self::parser::{Parser, ProtocolError, Request};
pub use self::reply::{Protocol, Reply};
