//! Requests as they are written: the header's fields, the parts of a body, the frame.

use super::{Condition, EncodeError, TTL_BYTES, Target, Ttl};
use crate::wire::header::{REQUEST_HEADER_BYTES, RequestHeader, seal};
use crate::wire::ids::{MapVersion, RequestId, Seq};
use crate::wire::limits;
use crate::wire::opcode::{Opcode, flags};
use crate::wire::scan::{RangeView, ScanView};

/// The fields of a header that are a request's own.
#[derive(Default)]
pub(super) struct Fields {
    pub(super) target: Target,
    pub(super) flags: u8,
    pub(super) key_len: u16,
}

impl Fields {
    pub(super) fn keyed(target: Target, key: &[u8]) -> Result<Fields, EncodeError> {
        let key_len = u16::try_from(key.len()).map_err(|_| EncodeError::KeyLength { len: key.len() })?;
        Ok(Fields { target, flags: 0, key_len })
    }

    pub(super) fn ranged(target: Target, range: &RangeView<'_>) -> Result<Fields, EncodeError> {
        let mut fields = Fields::keyed(target, range.start)?;
        fields.flags |= if range.end.is_some() { flags::HAS_END } else { 0 };
        Ok(fields)
    }

    pub(super) fn scanned(target: Target, scan: &ScanView<'_>) -> Result<Fields, EncodeError> {
        let mut fields = Fields::ranged(target, &scan.range)?;
        fields.flags |= if scan.reverse { flags::REVERSE } else { 0 };
        fields.flags |= if scan.keys_only { flags::KEYS_ONLY } else { 0 };
        fields.flags |= if scan.ttls { flags::TTL } else { 0 };
        Ok(fields)
    }
}

pub(super) fn append_frame(
    opcode: Opcode,
    fields: Fields,
    request_id: RequestId,
    map_version: MapVersion,
    parts: [&[u8]; 3],
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let len: usize = parts.iter().map(|p| p.len()).sum();
    if len > limits::MAX_REQUEST_BODY_BYTES {
        return Err(EncodeError::BodyLength { len });
    }
    let mut header = RequestHeader {
        body_len: len as u32,
        crc: 0,
        request_id,
        opcode: opcode as u8,
        flags: fields.flags,
        key_len: fields.key_len,
        partition: fields.target.partition,
        epoch: fields.target.epoch,
        map_version,
    }
    .to_bytes();
    seal(&mut header, &parts);
    out.reserve(REQUEST_HEADER_BYTES + len);
    out.extend_from_slice(&header);
    parts.iter().for_each(|part| out.extend_from_slice(part));
    Ok(())
}

/// What lies between the key and the value: a few bytes, without an allocation.
#[derive(Default)]
pub(super) struct Small {
    bytes: [u8; Seq::BYTES + TTL_BYTES],
    len: usize,
}

impl Small {
    pub(super) fn of(condition: Condition, ttl: Ttl, flag_bits: &mut u8) -> Small {
        let mut small = Small::default();
        match condition {
            Condition::Always => {}
            Condition::IfAbsent => *flag_bits |= flags::IF_ABSENT,
            Condition::IfSeq(seq) => {
                *flag_bits |= flags::IF_SEQ;
                small = small.with(&seq.to_bytes());
            }
        }
        match ttl {
            Ttl::Table => {}
            Ttl::Never => *flag_bits |= flags::NO_TTL,
            Ttl::After { ttl_ms } => {
                *flag_bits |= flags::TTL;
                small = small.with(&ttl_ms.to_le_bytes());
            }
        }
        small
    }

    pub(super) fn with(mut self, bytes: &[u8]) -> Small {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
        self
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}
