//! The body of a Hello: a prefix that is the same in every version, and an archive.

use super::{DecodeError, HELLO_PREFIX_BYTES, HelloView, check_length};
use crate::wire::MAGIC;
use crate::wire::control::Hello;
use crate::wire::header::u16_at;

/// The version range of a Hello's body, readable whatever the versions; `None` where it is no Hello.
pub fn hello_versions(body: &[u8]) -> Option<(u16, u16)> {
    let prefix = body.get(..HELLO_PREFIX_BYTES)?;
    (prefix[..4] == MAGIC).then(|| (u16_at(prefix, 4), u16_at(prefix, 6)))
}

pub(super) fn decode_hello(body: &[u8]) -> Result<HelloView, DecodeError> {
    let (oldest_version, newest_version) =
        hello_versions(body).ok_or(DecodeError::Malformed("a hello begins with LODE and its versions"))?;
    let hello = Hello::from_bytes(&body[HELLO_PREFIX_BYTES..])?;
    check_length(&hello.to_bytes(), &body[HELLO_PREFIX_BYTES..])?;
    Ok(HelloView { oldest_version, newest_version, hello })
}

pub(super) fn encode_hello(view: &HelloView) -> Vec<u8> {
    let mut body = MAGIC.to_vec();
    body.extend_from_slice(&view.oldest_version.to_le_bytes());
    body.extend_from_slice(&view.newest_version.to_le_bytes());
    body.extend_from_slice(&view.hello.to_bytes());
    body
}
