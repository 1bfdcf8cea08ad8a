//! What a client shows to say who it is. It is never printed.

use std::fmt;

use super::DecodeError;
use crate::wire::limits::MAX_SECRET_BYTES;

/// The secret of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Secret<'a>(pub &'a [u8]);

impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<'a> Secret<'a> {
    /// The secret that is all of a body.
    pub(super) fn decode(body: &'a [u8]) -> Result<Secret<'a>, DecodeError> {
        match (1..=MAX_SECRET_BYTES).contains(&body.len()) {
            true => Ok(Secret(body)),
            false => Err(DecodeError::Malformed("a secret has 1 to 256 bytes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_has_its_length_and_is_not_printed() {
        for (len, good) in [(0, false), (1, true), (MAX_SECRET_BYTES, true), (MAX_SECRET_BYTES + 1, false)] {
            assert_eq!(Secret::decode(&vec![b's'; len]).is_ok(), good, "{len}");
        }
        assert!(!format!("{:?}", Secret(b"hidden")).contains("hidden"));
    }
}
