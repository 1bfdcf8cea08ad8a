//! A frame in the making: records are encoded once, straight into the buffer that is written.

use crate::append::{FramePlace, Place};
use crate::format::frame::{FRAME_HEADER_BYTES, FrameHeader, PartitionSet, Stream, frame_len};
use crate::format::record::{Record, RecordKind};
use crate::ids::{BufferId, DriveOffset, FrameNumber, Token};
use crate::io::Io;
use crate::location::Location;
use crate::seam::{Buffers, Op};

/// An open or written frame.
#[derive(Debug)]
pub struct FrameBuilder {
    /// Its stream.
    pub stream: Stream,
    /// Its number.
    pub number: FrameNumber,
    /// Where it goes.
    pub place: FramePlace,
    /// Holds it.
    pub buffer: BufferId,
    /// Bytes used of the buffer.
    len: usize,
    /// Bytes of the buffer that may be used.
    capacity: usize,
    records: u32,
    partitions: PartitionSet,
}

impl FrameBuilder {
    /// Empty. `capacity` bytes of the buffer may be used.
    pub fn new(
        stream: Stream,
        number: FrameNumber,
        place: FramePlace,
        buffer: BufferId,
        capacity: usize,
    ) -> FrameBuilder {
        assert!(capacity as u64 <= place.room && capacity > FRAME_HEADER_BYTES);
        let partitions = PartitionSet::default();
        let len = FRAME_HEADER_BYTES;
        FrameBuilder { stream, number, place, buffer, len, capacity, records: 0, partitions }
    }

    /// Whether records that take so many bytes still fit.
    pub fn fits(&self, room: usize) -> bool {
        self.len + room <= self.capacity
    }

    /// Bytes of header and records so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Records so far.
    pub fn records(&self) -> u32 {
        self.records
    }

    /// One more record; it must fit.
    pub fn push(&mut self, place: &Place, buffers: &mut dyn Buffers, record: &Record<'_>) -> Location {
        let room = record.room();
        assert!(self.fits(room), "{room} bytes of record into {}", self.capacity);
        let at = self.place.at + self.len as u64;
        let out = &mut buffers.bytes_mut(self.buffer)[self.len..self.len + room];
        let written = record.encode(place.seed, at, self.place.generation.0, out);
        out[written..].fill(0);
        self.len += room;
        self.records += 1;
        if record.kind == RecordKind::Catalog {
            // A damaged change of the catalog may concern every partition.
            self.partitions = PartitionSet::ALL;
        } else {
            self.partitions.insert(record.partition);
        }
        Location::new(at, written)
    }

    /// The record of the frame that lies there, if one does.
    pub fn record_at<'b>(&self, buffers: &'b dyn Buffers, location: Location) -> Option<Record<'b>> {
        let begin = location.offset().checked_sub(self.place.at)?;
        let end = begin + u64::from(location.room());
        let is_within = begin >= FRAME_HEADER_BYTES as u64 && end <= self.len as u64;
        let bytes = is_within.then(|| &buffers.bytes(self.buffer)[begin as usize..end as usize])?;
        Some(Record::decode_unchecked(bytes).expect("a frame holds the records that were put into it"))
    }

    /// A record of the frame, as it lies in the buffer.
    pub fn record_bytes<'b>(&self, buffers: &'b dyn Buffers, location: Location, len: usize) -> &'b [u8] {
        let begin = (location.offset() - self.place.at) as usize;
        &buffers.bytes(self.buffer)[begin..begin + len]
    }

    /// Raw payload that concerns these partitions, for images and the journal.
    pub fn push_raw(&mut self, buffers: &mut dyn Buffers, payload: &[u8], partitions: PartitionSet) {
        assert!(self.fits(payload.len()));
        buffers.bytes_mut(self.buffer)[self.len..self.len + payload.len()].copy_from_slice(payload);
        self.len += payload.len();
        self.partitions = self.partitions.union(partitions);
    }

    /// Bytes that the frame takes on the drive.
    pub fn frame_len(&self) -> usize {
        frame_len(self.len - FRAME_HEADER_BYTES)
    }

    /// The header as it would be written.
    pub fn header(&self, durable: FrameNumber, detail: u32) -> FrameHeader {
        FrameHeader {
            stream: self.stream,
            segment: self.place.segment,
            generation: self.place.generation,
            payload_bytes: (self.len - FRAME_HEADER_BYTES) as u32,
            number: self.number,
            durable,
            detail,
            partitions: self.partitions,
        }
    }

    /// Closes the frame and starts its write. Gives the bytes written, padding counted.
    pub fn write(
        &self,
        place: &Place,
        io: &mut Io<'_>,
        token: Token,
        durable: bool,
        header: &FrameHeader,
    ) -> usize {
        let total = self.frame_len();
        let bytes = io.buffers.bytes_mut(self.buffer);
        bytes[self.len..total].fill(0);
        header.encode(place.seed, self.place.at, bytes);
        io.start(Op::Write {
            token,
            buffer: self.buffer,
            at: DriveOffset(place.area_at.0 + self.place.at),
            len: total as u32,
            durable,
        });
        total
    }

    /// Calls `each` for every record, in order. The records were encoded by us a moment ago, so their
    /// checksums are not looked at.
    pub fn for_each_record(&self, buffers: &dyn Buffers, mut each: impl FnMut(Record<'_>, Location)) {
        self.records_in(buffers).for_each(|(record, location)| each(record, location));
    }

    /// Its records, in order; their checksums are not looked at.
    pub fn records_in<'b>(
        &self,
        buffers: &'b dyn Buffers,
    ) -> impl Iterator<Item = (Record<'b>, Location)> + use<'b> {
        let (bytes, at) = (&buffers.bytes(self.buffer)[..self.len], self.place.at);
        let mut offset = FRAME_HEADER_BYTES;
        std::iter::from_fn(move || {
            let rest = bytes.get(offset..).filter(|rest| !rest.is_empty())?;
            let record = Record::decode_unchecked(rest);
            let record = record.expect("a frame in memory holds the records that were encoded into it");
            let location = Location::new(at + offset as u64, record.len());
            offset += location.room() as usize;
            Some((record, location))
        })
    }
}
