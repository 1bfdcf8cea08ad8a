//! The body of a Batch: writes of one partition, in order.
//!
//! `count u32`, then for each write `kind u8, zero u8, key_len u16, value_len u32, key, value`; a put with a time to live of its own
//! has `ttl u64` before its key.

use crate::wire::header::{u16_at, u32_at};
use crate::wire::request::{DecodeError, Ttl};

/// Bytes before the first write.
pub const BATCH_PREFIX_BYTES: usize = 4;
/// Bytes of a write before its key.
pub const BATCH_WRITE_HEADER_BYTES: usize = 8;
/// Kind of a write: put.
pub const KIND_PUT: u8 = 1;
/// Kind of a write: delete.
pub const KIND_DELETE: u8 = 2;
/// Kind of a write: put, with a time to live of its own.
pub const KIND_PUT_FOR: u8 = 3;
/// Kind of a write: put, for ever.
pub const KIND_PUT_FOR_EVER: u8 = 4;
/// Bytes of a time to live, in milliseconds.
pub const BATCH_TTL_BYTES: usize = 8;

/// One write of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchWrite<'a> {
    /// Write a record.
    Put {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
    },
    /// Write a record that lives as long as is said here, and not as its table says.
    PutFor {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
        /// How long it is to live.
        ttl: Ttl,
    },
    /// Delete a record, there or not.
    Delete {
        /// The key.
        key: &'a [u8],
    },
}

impl<'a> BatchWrite<'a> {
    /// A put that lives so long.
    pub fn put(key: &'a [u8], value: &'a [u8], ttl: Ttl) -> BatchWrite<'a> {
        if ttl == Ttl::Table {
            BatchWrite::Put { key, value }
        } else {
            BatchWrite::PutFor { key, value, ttl }
        }
    }

    /// Its key, and its value where it is a put.
    pub fn parts(self) -> (&'a [u8], Option<&'a [u8]>) {
        match self {
            BatchWrite::Put { key, value } | BatchWrite::PutFor { key, value, .. } => (key, Some(value)),
            BatchWrite::Delete { key } => (key, None),
        }
    }
}

/// A batch's body whose structure has been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchView<'a> {
    count: u32,
    body: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// Checks the structure of a body: kinds, lengths, count.
    pub fn decode(body: &'a [u8]) -> Result<BatchView<'a>, DecodeError> {
        if body.len() < BATCH_PREFIX_BYTES {
            return Err(DecodeError::Malformed("a batch begins with its count"));
        }
        let view = BatchView { count: u32_at(body, 0), body };
        let mut rest = &body[BATCH_PREFIX_BYTES..];
        for _ in 0..view.count {
            rest = split_write(rest)?.1;
        }
        match rest.is_empty() {
            true => Ok(view),
            false => Err(DecodeError::Malformed("bytes after the last write of a batch")),
        }
    }

    /// How many writes it has.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// The whole body, as it travels.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.body
    }

    /// The writes, in order.
    pub fn writes(&self) -> impl Iterator<Item = BatchWrite<'a>> + use<'a> {
        let mut rest = &self.body[BATCH_PREFIX_BYTES..];
        (0..self.count).map(move |_| {
            let (write, after) = split_write(rest).expect("decode checked the structure");
            rest = after;
            write
        })
    }
}

fn split_write(bytes: &[u8]) -> Result<(BatchWrite<'_>, &[u8]), DecodeError> {
    const SHORT: DecodeError = DecodeError::Malformed("a write of a batch is cut short");
    let (head, rest) = bytes.split_at_checked(BATCH_WRITE_HEADER_BYTES).ok_or(SHORT)?;
    let (ttl, rest) = match head[0] {
        KIND_PUT_FOR => {
            let (ttl_ms, rest) = rest.split_first_chunk::<BATCH_TTL_BYTES>().ok_or(SHORT)?;
            (Ttl::After { ttl_ms: u64::from_le_bytes(*ttl_ms) }, rest)
        }
        KIND_PUT_FOR_EVER => (Ttl::Never, rest),
        _ => (Ttl::Table, rest),
    };
    let (key, rest) = rest.split_at_checked(usize::from(u16_at(head, 2))).ok_or(SHORT)?;
    let (value, rest) = rest.split_at_checked(u32_at(head, 4) as usize).ok_or(SHORT)?;
    match (head[0], head[1]) {
        (KIND_PUT | KIND_PUT_FOR | KIND_PUT_FOR_EVER, 0) => Ok((BatchWrite::put(key, value, ttl), rest)),
        (KIND_DELETE, 0) if value.is_empty() => Ok((BatchWrite::Delete { key }, rest)),
        _ => Err(DecodeError::Malformed("a write of a batch is neither put nor delete")),
    }
}

/// Builds a batch's body.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    count: u32,
    body: Vec<u8>,
}

impl Default for BatchBuilder {
    fn default() -> BatchBuilder {
        BatchBuilder::new()
    }
}

impl BatchBuilder {
    /// An empty batch.
    pub fn new() -> BatchBuilder {
        BatchBuilder { count: 0, body: vec![0; BATCH_PREFIX_BYTES] }
    }

    /// Adds a write.
    ///
    /// # Panics
    /// Where the key is longer than 65,535 bytes or the value longer than `u32::MAX`: callers check limits first.
    pub fn push(&mut self, write: BatchWrite<'_>) {
        let (key, value) = write.parts();
        let (kind, ttl_ms) = match write {
            BatchWrite::Put { .. } | BatchWrite::PutFor { ttl: Ttl::Table, .. } => (KIND_PUT, None),
            BatchWrite::PutFor { ttl: Ttl::Never, .. } => (KIND_PUT_FOR_EVER, None),
            BatchWrite::PutFor { ttl: Ttl::After { ttl_ms }, .. } => (KIND_PUT_FOR, Some(ttl_ms)),
            BatchWrite::Delete { .. } => (KIND_DELETE, None),
        };
        let value = value.unwrap_or_default();
        let key_len = u16::try_from(key.len()).expect("callers check the key's length");
        let value_len = u32::try_from(value.len()).expect("callers check the value's length");
        self.body.extend_from_slice(&[kind, 0]);
        self.body.extend_from_slice(&key_len.to_le_bytes());
        self.body.extend_from_slice(&value_len.to_le_bytes());
        if let Some(ttl_ms) = ttl_ms {
            self.body.extend_from_slice(&u64::to_le_bytes(ttl_ms));
        }
        self.body.extend_from_slice(key);
        self.body.extend_from_slice(value);
        self.count += 1;
        self.body[..BATCH_PREFIX_BYTES].copy_from_slice(&self.count.to_le_bytes());
    }

    /// How many writes it has.
    pub fn count(&self) -> usize {
        self.count as usize
    }

    /// The batch so far, as it travels.
    pub fn view(&self) -> BatchView<'_> {
        BatchView { count: self.count, body: &self.body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_comes_back_whole_and_no_prefix_of_it_does() {
        let writes = [
            BatchWrite::Put { key: b"a", value: b"one" },
            BatchWrite::Delete { key: b"bb" },
            BatchWrite::Put { key: b"c", value: b"" },
            BatchWrite::PutFor { key: b"d", value: b"two", ttl: Ttl::Never },
            BatchWrite::PutFor { key: b"e", value: b"", ttl: Ttl::After { ttl_ms: 1 } },
            BatchWrite::PutFor { key: b"f", value: b"", ttl: Ttl::After { ttl_ms: 0 } },
        ];
        let mut builder = BatchBuilder::new();
        writes.iter().for_each(|w| builder.push(*w));
        let body = builder.view().as_bytes().to_vec();
        let view = BatchView::decode(&body).expect("a builder makes whole batches");
        assert_eq!(view.writes().collect::<Vec<_>>(), writes);
        for len in 0..body.len() {
            assert!(BatchView::decode(&body[..len]).is_err(), "{len}");
        }
        let mut longer = body.clone();
        longer.push(0);
        assert!(BatchView::decode(&longer).is_err());
    }

    #[test]
    fn a_hostile_count_costs_nothing() {
        assert!(BatchView::decode(&u32::MAX.to_le_bytes()).is_err());
        assert_eq!(BatchView::decode(&0u32.to_le_bytes()).map(|b| b.count()), Ok(0));
    }
}
