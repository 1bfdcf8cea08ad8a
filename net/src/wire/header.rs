//! The two fixed headers, byte for byte, and the checksum over header and body.

use std::mem::{offset_of, size_of};

use crate::wire::ids::{Epoch, MapVersion, PartitionId, RequestId, Seq};

/// Size of a request's header.
pub const REQUEST_HEADER_BYTES: usize = 32;
/// Size of a reply's header.
pub const REPLY_HEADER_BYTES: usize = 48;
/// Where both headers hold the body's length, a `u32`.
pub const BODY_LEN_AT: usize = 0;
/// Where both headers hold the checksum, a `u32`.
pub const CRC_AT: usize = 4;

/// Header of a request. Little-endian on the wire, in this order, without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct RequestHeader {
    /// Bytes of body after the header.
    pub body_len: u32,
    /// CRC32C of the header with this field zero, then the body.
    pub crc: u32,
    /// Comes back in the reply.
    pub request_id: RequestId,
    /// The operation; see [`Opcode`](crate::wire::Opcode).
    pub opcode: u8,
    /// Options of the operation; see [`flags`](crate::wire::opcode::flags).
    pub flags: u8,
    /// Bytes of the body's key, where the operation has one.
    pub key_len: u16,
    /// The partition, where the operation is for one.
    pub partition: PartitionId,
    /// The partition's epoch as the client knows it.
    pub epoch: Epoch,
    /// The version of the client's map; 0 where it has none.
    pub map_version: MapVersion,
}

const _: () = {
    assert!(size_of::<RequestHeader>() == REQUEST_HEADER_BYTES);
    assert!(offset_of!(RequestHeader, body_len) == BODY_LEN_AT);
    assert!(offset_of!(RequestHeader, crc) == CRC_AT);
    assert!(offset_of!(RequestHeader, request_id) == 8);
    assert!(offset_of!(RequestHeader, opcode) == 16);
    assert!(offset_of!(RequestHeader, flags) == 17);
    assert!(offset_of!(RequestHeader, key_len) == 18);
    assert!(offset_of!(RequestHeader, partition) == 20);
    assert!(offset_of!(RequestHeader, epoch) == 24);
    assert!(offset_of!(RequestHeader, map_version) == 28);
};

impl RequestHeader {
    /// The header's bytes, `crc` as it stands.
    pub fn to_bytes(&self) -> [u8; REQUEST_HEADER_BYTES] {
        let mut out = [0u8; REQUEST_HEADER_BYTES];
        put(&mut out, offset_of!(Self, body_len), &self.body_len.to_le_bytes());
        put(&mut out, offset_of!(Self, crc), &self.crc.to_le_bytes());
        put(&mut out, offset_of!(Self, request_id), &self.request_id.0.to_le_bytes());
        out[offset_of!(Self, opcode)] = self.opcode;
        out[offset_of!(Self, flags)] = self.flags;
        put(&mut out, offset_of!(Self, key_len), &self.key_len.to_le_bytes());
        put(&mut out, offset_of!(Self, partition), &self.partition.0.to_le_bytes());
        put(&mut out, offset_of!(Self, epoch), &self.epoch.0.to_le_bytes());
        put(&mut out, offset_of!(Self, map_version), &self.map_version.0.to_le_bytes());
        out
    }

    /// The reverse of [`to_bytes`](RequestHeader::to_bytes). Any 32 bytes make a header.
    pub fn from_bytes(bytes: &[u8; REQUEST_HEADER_BYTES]) -> RequestHeader {
        RequestHeader {
            body_len: u32_at(bytes, offset_of!(Self, body_len)),
            crc: u32_at(bytes, offset_of!(Self, crc)),
            request_id: RequestId(u64_at(bytes, offset_of!(Self, request_id))),
            opcode: bytes[offset_of!(Self, opcode)],
            flags: bytes[offset_of!(Self, flags)],
            key_len: u16_at(bytes, offset_of!(Self, key_len)),
            partition: PartitionId(u32_at(bytes, offset_of!(Self, partition))),
            epoch: Epoch(u32_at(bytes, offset_of!(Self, epoch))),
            map_version: MapVersion(u32_at(bytes, offset_of!(Self, map_version))),
        }
    }
}

/// Header of a reply. Little-endian on the wire, in this order, without gaps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ReplyHeader {
    /// Bytes of body after the header.
    pub body_len: u32,
    /// CRC32C of the header with this field zero, then the body.
    pub crc: u32,
    /// The request's id; 0 where the node speaks unasked, just before it closes the connection.
    pub request_id: RequestId,
    /// How it ended; see [`Status`](crate::wire::Status).
    pub status: u16,
    /// The request's opcode.
    pub opcode: u8,
    /// See [`reply_flags`](crate::wire::opcode::reply_flags).
    pub flags: u8,
    /// The version of the node's map.
    pub map_version: MapVersion,
    /// The record's version, where the answer has one.
    pub seq: Seq,
    /// A number, by operation and status.
    pub aux: u64,
}

const _: () = {
    assert!(size_of::<ReplyHeader>() == REPLY_HEADER_BYTES);
    assert!(offset_of!(ReplyHeader, body_len) == BODY_LEN_AT);
    assert!(offset_of!(ReplyHeader, crc) == CRC_AT);
    assert!(offset_of!(ReplyHeader, request_id) == 8);
    assert!(offset_of!(ReplyHeader, status) == 16);
    assert!(offset_of!(ReplyHeader, opcode) == 18);
    assert!(offset_of!(ReplyHeader, flags) == 19);
    assert!(offset_of!(ReplyHeader, map_version) == 20);
    assert!(offset_of!(ReplyHeader, seq) == 24);
    assert!(offset_of!(ReplyHeader, aux) == 40);
};

impl ReplyHeader {
    /// The header's bytes, `crc` as it stands.
    pub fn to_bytes(&self) -> [u8; REPLY_HEADER_BYTES] {
        let mut out = [0u8; REPLY_HEADER_BYTES];
        put(&mut out, offset_of!(Self, body_len), &self.body_len.to_le_bytes());
        put(&mut out, offset_of!(Self, crc), &self.crc.to_le_bytes());
        put(&mut out, offset_of!(Self, request_id), &self.request_id.0.to_le_bytes());
        put(&mut out, offset_of!(Self, status), &self.status.to_le_bytes());
        out[offset_of!(Self, opcode)] = self.opcode;
        out[offset_of!(Self, flags)] = self.flags;
        put(&mut out, offset_of!(Self, map_version), &self.map_version.0.to_le_bytes());
        put(&mut out, offset_of!(Self, seq), &self.seq.to_bytes());
        put(&mut out, offset_of!(Self, aux), &self.aux.to_le_bytes());
        out
    }

    /// The reverse of [`to_bytes`](ReplyHeader::to_bytes). Any 48 bytes make a header.
    pub fn from_bytes(bytes: &[u8; REPLY_HEADER_BYTES]) -> ReplyHeader {
        ReplyHeader {
            body_len: u32_at(bytes, offset_of!(Self, body_len)),
            crc: u32_at(bytes, offset_of!(Self, crc)),
            request_id: RequestId(u64_at(bytes, offset_of!(Self, request_id))),
            status: u16_at(bytes, offset_of!(Self, status)),
            opcode: bytes[offset_of!(Self, opcode)],
            flags: bytes[offset_of!(Self, flags)],
            map_version: MapVersion(u32_at(bytes, offset_of!(Self, map_version))),
            seq: Seq::from_bytes(array_at(bytes, offset_of!(Self, seq))),
            aux: u64_at(bytes, offset_of!(Self, aux)),
        }
    }
}

/// Sets the checksum of an encoded header, over the header and the parts of its body.
///
/// # Panics
/// Where `header` is shorter than a header.
pub fn seal(header: &mut [u8], body_parts: &[&[u8]]) {
    put(header, CRC_AT, &[0; 4]);
    let crc = body_parts.iter().fold(crc32c::crc32c(header), |crc, part| crc32c::crc32c_append(crc, part));
    put(header, CRC_AT, &crc.to_le_bytes());
}

/// Whether the checksum of a whole frame holds.
///
/// # Panics
/// Where `frame` is shorter than `CRC_AT + 4`.
pub fn checksum_holds(frame: &[u8]) -> bool {
    let (before, rest) = frame.split_at(CRC_AT);
    let (stored, after) = rest.split_at(4);
    let crc = crc32c::crc32c_append(crc32c::crc32c(before), &[0; 4]);
    crc32c::crc32c_append(crc, after).to_le_bytes() == stored
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

pub(crate) fn array_at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the slice has N bytes")
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array_at(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array_at(bytes, at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_from_their_bytes() {
        let request: [u8; REQUEST_HEADER_BYTES] = std::array::from_fn(|i| i as u8 + 1);
        assert_eq!(RequestHeader::from_bytes(&request).to_bytes(), request);
        let reply: [u8; REPLY_HEADER_BYTES] = std::array::from_fn(|i| i as u8 + 1);
        assert_eq!(ReplyHeader::from_bytes(&reply).to_bytes(), reply);
    }

    #[test]
    fn the_checksum_sees_every_bit_of_header_and_body() {
        let mut header = RequestHeader { body_len: 5, opcode: 2, ..RequestHeader::default() }.to_bytes();
        seal(&mut header, &[b"he", b"llo"]);
        let mut frame = header.to_vec();
        frame.extend_from_slice(b"hello");
        assert!(checksum_holds(&frame));
        for bit in 0..frame.len() * 8 {
            frame[bit / 8] ^= 1 << (bit % 8);
            assert!(!checksum_holds(&frame), "bit {bit}");
            frame[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
