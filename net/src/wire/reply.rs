//! Replies: a header encoded over body parts that stay where they lie, and frames decoded in place.

use crate::wire::header::{REPLY_HEADER_BYTES, ReplyHeader, array_at, seal};
use crate::wire::ids::{MapVersion, RequestId, Seq};
use crate::wire::limits;
use crate::wire::opcode::reply_flags;
use crate::wire::request::DecodeError;
use crate::wire::scan::{RecordView, split_record};
use crate::wire::status::Status;

/// Everything of a reply but its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyHead {
    /// The request's id.
    pub request_id: RequestId,
    /// How it ended.
    pub status: Status,
    /// The request's opcode byte, known or not.
    pub opcode: u8,
    /// See [`reply_flags`].
    pub flags: u8,
    /// The version of the node's map.
    pub map_version: MapVersion,
    /// The record's version, where the answer has one.
    pub seq: Seq,
    /// A number, by operation and status.
    pub aux: u64,
}

impl ReplyHead {
    /// A head with neither version nor number.
    pub fn new(request_id: RequestId, opcode: u8, status: Status, map_version: MapVersion) -> ReplyHead {
        ReplyHead { request_id, status, opcode, flags: 0, map_version, seq: Seq::default(), aux: 0 }
    }
}

/// The header of a reply whose body is `body_parts`, in order, each sent from where it lies.
///
/// # Panics
/// Where the parts are longer than [`limits::MAX_REPLY_BODY_BYTES`] together.
pub fn encode_reply_header(head: &ReplyHead, body_parts: &[&[u8]]) -> [u8; REPLY_HEADER_BYTES] {
    let body_len: usize = body_parts.iter().map(|p| p.len()).sum();
    assert!(body_len <= limits::MAX_REPLY_BODY_BYTES, "a reply's body of {body_len} bytes");
    let mut header = ReplyHeader {
        body_len: body_len as u32,
        crc: 0,
        request_id: head.request_id,
        status: head.status as u16,
        opcode: head.opcode,
        flags: head.flags,
        map_version: head.map_version,
        seq: head.seq,
        aux: head.aux,
    }
    .to_bytes();
    seal(&mut header, body_parts);
    header
}

/// Appends a whole reply to `out`. For small bodies; values go out from their own buffers.
pub fn encode_reply(head: &ReplyHead, body: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&encode_reply_header(head, &[body]));
    out.extend_from_slice(body);
}

/// One reply, borrowing the bytes it came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyView<'a> {
    /// Its header.
    pub header: ReplyHeader,
    /// Its body.
    pub body: &'a [u8],
}

impl<'a> ReplyView<'a> {
    /// The reply of a whole frame whose checksum holds.
    ///
    /// # Panics
    /// Where the frame is shorter than a header.
    pub fn of_frame(frame: &'a [u8]) -> ReplyView<'a> {
        let header = ReplyHeader::from_bytes(&array_at(frame, 0));
        ReplyView { header, body: &frame[REPLY_HEADER_BYTES..] }
    }

    /// The status; `None` where this build does not know it.
    pub fn status(&self) -> Option<Status> {
        Status::from_u16(self.header.status)
    }

    /// The body of a `StaleMap` or of a Map's answer, where it is a partition map.
    pub fn map_body(&self) -> Option<&'a [u8]> {
        (self.header.flags & reply_flags::MAP != 0).then_some(self.body)
    }

    /// Whether a scan's range holds more than this page.
    pub fn has_more(&self) -> bool {
        self.header.flags & reply_flags::MORE != 0
    }

    /// What the node says about a failure, in words; empty where it says no more than the status.
    pub fn message(&self) -> &'a str {
        match self.map_body() {
            Some(_) => "",
            None => std::str::from_utf8(self.body).unwrap_or_default(),
        }
    }

    /// The records of a page, in order; ends after the first error.
    pub fn records(&self) -> impl Iterator<Item = Result<RecordView<'a>, DecodeError>> + use<'a> {
        let mut rest = self.body;
        std::iter::from_fn(move || match split_record(rest) {
            Ok(None) => None,
            Ok(Some((record, after))) => {
                rest = after;
                Some(Ok(record))
            }
            Err(error) => {
                rest = &[];
                Some(Err(error))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::header::checksum_holds;

    #[test]
    fn a_reply_in_parts_is_the_reply_in_one() {
        let head = ReplyHead {
            flags: reply_flags::MORE,
            seq: Seq { wall_ns: 1, counter: 2, node: 3 },
            aux: 4,
            ..ReplyHead::new(RequestId(5), 6, Status::Busy, MapVersion(7))
        };
        let mut whole = Vec::new();
        encode_reply(&head, b"hello", &mut whole);
        let mut parts = encode_reply_header(&head, &[b"he", b"", b"llo"]).to_vec();
        parts.extend_from_slice(b"hello");
        assert_eq!(whole, parts);
        assert!(checksum_holds(&whole));
        let view = ReplyView::of_frame(&whole);
        assert_eq!(view.status(), Some(Status::Busy));
        assert_eq!((view.body, view.message(), view.has_more()), (&b"hello"[..], "hello", true));
        assert_eq!((view.header.seq, view.header.aux), (head.seq, 4));
    }

    #[test]
    fn a_page_that_is_cut_ends_with_one_error() {
        let view = ReplyView { header: ReplyHeader::default(), body: &[1, 2, 3] };
        let records: Vec<_> = view.records().collect();
        assert_eq!(records.len(), 1);
        assert!(records[0].is_err());
    }
}
