//! The payloads of image frames: catalog, index, directory, root.
//!
//! An image is a run of frames numbered from 1: the catalog's frames, the same again (a catalog must
//! survive a bad sector), the partitions' expiries and leaves, the directory that says where each
//! partition's are, the same again, and the root twice.

mod directory;
mod index;
mod place;
mod root;

pub use directory::{DIRECTORY_ENTRY_BYTES, DirectoryEntry, directory_payload};
pub use index::{Group, IndexPayload, Section, for_each_expiry, for_each_group, for_each_leaf};
pub use place::{ImageExtent, ImagePosition};
pub use root::ImageRoot;

use crate::format::{ByteReader, ByteWriter};

/// First byte of a payload.
const CATALOG: u8 = 1;
const INDEX: u8 = 2;
const ROOT: u8 = 3;
const DIRECTORY: u8 = 4;

/// Builds the payload of a catalog frame.
#[derive(Debug)]
pub struct CatalogPayload {
    out: ByteWriter,
}

impl CatalogPayload {
    /// Without changes.
    pub fn begin() -> CatalogPayload {
        let mut out = ByteWriter::new();
        out.u8(CATALOG);
        CatalogPayload { out }
    }

    /// One more encoded change.
    pub fn push(&mut self, change: &[u8]) {
        self.out.short(change);
    }

    /// Bytes so far.
    pub fn bytes(&self) -> usize {
        self.out.bytes()
    }

    /// The payload.
    pub fn finish(self) -> Vec<u8> {
        self.out.into_bytes()
    }
}

/// A payload, decoded.
#[derive(Debug, PartialEq, Eq)]
pub enum ImagePayload<'a> {
    /// Encoded changes.
    Catalog(Vec<&'a [u8]>),
    /// Expiries and leaves, still packed; see [`for_each_group`].
    Index(&'a [u8]),
    /// Where partitions are.
    Directory(Vec<DirectoryEntry>),
    /// The root.
    Root(ImageRoot),
}

/// Decodes a payload; `None` where it is none.
pub fn decode(payload: &[u8]) -> Option<ImagePayload<'_>> {
    let mut reader = ByteReader::new(payload);
    match reader.u8()? {
        CATALOG => {
            let mut changes = Vec::new();
            while reader.remaining() > 0 {
                changes.push(reader.short()?);
            }
            Some(ImagePayload::Catalog(changes))
        }
        INDEX => reader.take(reader.remaining()).map(ImagePayload::Index),
        DIRECTORY => {
            let mut entries = Vec::new();
            while reader.remaining() > 0 {
                entries.push(DirectoryEntry::decode(&mut reader)?);
            }
            Some(ImagePayload::Directory(entries))
        }
        ROOT => ImageRoot::decode(&mut reader).map(ImagePayload::Root),
        _ => None,
    }
}
