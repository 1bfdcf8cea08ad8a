//! How far a partition's index is on its way from the image into memory.

use super::kept::Changes;
use crate::format::image::DirectoryEntry;
use crate::ids::PartitionId;

/// What is known of a partition that is not loaded.
#[derive(Debug)]
pub struct PartitionImage {
    state: LoadState,
    /// What the directory says.
    pub entry: DirectoryEntry,
    /// What the log's tail has changed.
    pub kept: Changes,
}

/// A partition's index is in the image, on its way, or in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadState {
    /// In the image alone.
    Unloaded,
    /// Being read.
    Loading,
    /// In memory, but for changes that were kept.
    Settling,
    /// In memory.
    Loaded,
}

/// Every way there is. A partition that is dropped leaves from anywhere.
const TRANSITIONS: [(LoadState, LoadState); 3] = [
    (LoadState::Unloaded, LoadState::Loading),
    (LoadState::Loading, LoadState::Settling),
    (LoadState::Settling, LoadState::Loaded),
];

impl PartitionImage {
    /// In the image alone.
    pub fn new(entry: DirectoryEntry) -> PartitionImage {
        PartitionImage { state: LoadState::Unloaded, entry, kept: Changes::default() }
    }

    /// Of a partition that is in no image: what is changed in it is kept all the same.
    pub fn of_nothing(partition: PartitionId) -> PartitionImage {
        PartitionImage::new(DirectoryEntry { partition, ..DirectoryEntry::default() })
    }

    /// Whether it is of such a one.
    pub fn is_of_nothing(&self) -> bool {
        self.entry == DirectoryEntry { partition: self.entry.partition, ..DirectoryEntry::default() }
    }

    /// How far it is.
    pub fn state(&self) -> LoadState {
        self.state
    }

    /// Whether the index is not in memory.
    pub fn is_outside(&self) -> bool {
        matches!(self.state, LoadState::Unloaded | LoadState::Loading)
    }

    /// The next state.
    pub fn advance(&mut self, next: LoadState) {
        let way = (self.state, next);
        assert!(TRANSITIONS.contains(&way), "a partition cannot go from {:?} to {:?}", way.0, way.1);
        self.state = next;
    }
}
