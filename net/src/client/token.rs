//! What a client shows to a node that wants to know who asks. It is never printed.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use thiserror::Error;

use crate::wire::Secret;
use crate::wire::limits::MAX_SECRET_BYTES;

/// A token's secret, as `lode token make` has printed it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Arc<[u8]>);

/// Why something is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// Too short or too long.
    #[error("a token's secret has 1 to {MAX_SECRET_BYTES} bytes, this one has {len}")]
    Length {
        /// Its length.
        len: usize,
    },
    /// The file cannot be read.
    #[error("cannot read the token file {path}: {error}")]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        error: io::Error,
    },
}

impl Token {
    /// With this secret; blanks and line breaks around it do not count.
    pub fn new(secret: &str) -> Result<Token, TokenError> {
        let secret = secret.trim();
        match (1..=MAX_SECRET_BYTES).contains(&secret.len()) {
            true => Ok(Token(secret.as_bytes().into())),
            false => Err(TokenError::Length { len: secret.len() }),
        }
    }

    /// With the secret that is all of a file.
    pub fn read(path: &Path) -> Result<Token, TokenError> {
        let text = fs::read_to_string(path);
        let text = text.map_err(|error| TokenError::Io { path: path.display().to_string(), error })?;
        Token::new(&text)
    }

    /// As HTTP shows it: what stands behind `Authorization:`; nothing of a secret that no header can hold.
    pub fn bearer(&self) -> Option<String> {
        let secret = std::str::from_utf8(&self.0).ok()?;
        let is_good = secret.bytes().all(|byte| byte.is_ascii_graphic());
        is_good.then(|| format!("Bearer {secret}"))
    }

    /// As it travels.
    pub(crate) fn secret(&self) -> Secret<'_> {
        Secret(&self.0)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_a_length_and_are_not_printed() {
        for (len, good) in [(0, false), (1, true), (MAX_SECRET_BYTES, true), (MAX_SECRET_BYTES + 1, false)] {
            assert_eq!(Token::new(&"s".repeat(len)).is_ok(), good, "{len}");
        }
        let token = Token::new(" hidden\n").unwrap();
        assert_eq!(token, Token::new("hidden").unwrap());
        assert!(!format!("{token:?}").contains("hidden"));
        assert_eq!(token.bearer().as_deref(), Some("Bearer hidden"));
        assert_eq!(Token::new("a\r\nHost: b").unwrap().bearer(), None);
    }
}
