//! Borders between leaves of a compact index, and how far an image of it is.
//!
//! A compact leaf *knows* its borders: they are no longer than the depth to which it knows its keys, and do not end
//! in a zero, which might be padding. So no key beyond a border is tied with one within, and what is known of a key that is in no leaf, or
//! of those that it is tied with, stays known when a neighbour's range grows: records that a frame needs are read before it is applied.

use super::PartitionIndex;
use super::arena::{Handle, IndexArena};
use super::leaf::node;
use super::tree::{self, inner};

/// From where on an image that is being written lacks leaves: always from a border between two on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Imaging {
    /// From the first on.
    Begin,
    /// From the one that this separator is the lower border of.
    From(Vec<u8>),
}

/// Where the leaf of a key lies.
pub(super) struct Way {
    pub block: Handle,
    /// Its lower border, if it is not the first.
    pub lower: Option<Vec<u8>>,
    /// Its upper border, if it is not the last.
    pub upper: Option<Vec<u8>>,
}

/// What is to become the border between two leaves, when the one between them goes.
pub(super) struct Border {
    pub between: Vec<u8>,
    /// The upper border of the leaf that goes.
    pub above: Vec<u8>,
}

/// To which depth keys must be known for this border to tell them apart; `None` where padding makes others alike to it.
pub(super) fn depth_of(border: &[u8]) -> Option<usize> {
    (border.last() != Some(&0)).then_some(border.len())
}

impl PartitionIndex {
    /// The way to the leaf of `key`; to the first one without.
    pub(super) fn way(&self, arena: &IndexArena, key: Option<&[u8]>) -> Option<Way> {
        if self.is_empty() {
            return None;
        }
        let mut way = Way { block: self.root, lower: None, upper: None };
        for _ in 0..self.levels {
            let node = inner(arena, way.block);
            let i = key.map_or(0, |key| node.child_of(key));
            if i > 0 {
                way.lower = Some(node.key(i));
            }
            if i + 1 < node.len() {
                way.upper = Some(node.key(i + 1));
            }
            way.block = node.child(i).block;
        }
        Some(way)
    }

    /// The border that the image begins at which is being written, if it lies in the range of this leaf.
    fn image_border_in(&self, arena: &IndexArena, block: Handle) -> Option<&[u8]> {
        let Some(Imaging::From(border)) = self.imaging.as_deref() else { return None };
        (self.leaf_of(arena, border) == Some(block)).then_some(border)
    }

    /// How many bytes of its keys a compact leaf must know in this place: so many that no key beyond its borders is tied with one
    /// of its own. `None` where no number will do.
    pub(super) fn least_depth(&self, arena: &IndexArena, way: &Way) -> Option<usize> {
        let image = self.image_border_in(arena, way.block);
        let borders = [way.lower.as_deref(), way.upper.as_deref(), image];
        borders.into_iter().flatten().try_fold(1, |depth, border| Some(depth_of(border)?.max(depth)))
    }

    /// The leaf of this key, which is its last, is about to go. If it is the next that an image lacks, the image goes on behind it.
    /// Gives what is to be the border between its neighbours, if it has two, and the border that is above it.
    ///
    /// Of its two borders one will do: what is left of it knows the lower one, what is right of it the upper one, and
    /// where the right one does not know the lower one, that is longer, and so the left one knows the upper one.
    /// The same holds for an image, which has what was left of it, and is to have what is right of it.
    pub(super) fn leaf_goes(&mut self, arena: &IndexArena, key: &[u8]) -> Option<Border> {
        let way = self.way(arena, Some(key))?;
        let image = self.image_border_in(arena, way.block).map(<[u8]>::to_vec);
        let Some(upper) = way.upper else {
            if image.is_some() {
                self.imaging = None;
            }
            return None;
        };
        let right = node(arena, self.leaf_of(arena, &upper)?);
        if image.as_ref().is_some_and(|border| !right.knows(border)) {
            self.imaging = behind(Some(upper.clone()));
        }
        let lower = way.lower?;
        let known = [Some(lower), image].into_iter().flatten().find(|border| right.knows(border));
        Some(Border { between: known.unwrap_or_else(|| upper.clone()), above: upper })
    }

    /// A leaf has gone, and one of its neighbours has its range.
    pub(super) fn settle_border(&mut self, arena: &mut IndexArena, border: &Border) {
        let way = self.way(arena, Some(&border.above));
        let Some(now) = way.and_then(|way| way.lower) else { return };
        if now != border.between {
            let changed = tree::move_border(arena, (self.root, self.levels), &now, &border.between);
            self.take_changed(arena, changed);
        }
    }

    /// Where `key` belongs to what an image has, and its leaf to what it lacks: the border between the two. The leaf
    /// before has gone, and what comes in its place begins a leaf of its own.
    pub(super) fn border_above(&self, arena: &IndexArena, block: Handle, key: &[u8]) -> Option<Vec<u8>> {
        let Some(Imaging::From(border)) = self.imaging.as_deref() else { return None };
        let lacks = key < border.as_slice() && self.leaf_of(arena, border) == Some(block);
        lacks.then(|| border.clone())
    }
}

impl PartitionIndex {
    /// An image of a compact index begins: it is written leaf by leaf, while the index changes.
    pub fn begin_image(&mut self) {
        self.imaging = self.is_compact.then(|| Box::new(Imaging::Begin));
    }

    /// How far an image is that is being written.
    #[cfg(test)]
    pub(super) fn begun_image(&self) -> Option<&Imaging> {
        self.imaging.as_deref()
    }

    /// The way to the next leaf that the image lacks, and its lower border.
    pub(super) fn way_of_image(&self, arena: &IndexArena) -> Option<(Way, &[u8])> {
        match self.imaging.as_deref()? {
            Imaging::Begin => Some((self.way(arena, None)?, &[])),
            Imaging::From(border) => Some((self.way(arena, Some(border))?, border)),
        }
    }

    /// The image has that leaf.
    pub fn leaf_imaged(&mut self, arena: &IndexArena) {
        let Some((way, _)) = self.way_of_image(arena) else { return };
        self.imaging = behind(way.upper);
    }
}

/// Without a border, nothing is left.
fn behind(border: Option<Vec<u8>>) -> Option<Box<Imaging>> {
    border.map(|border| Box::new(Imaging::From(border)))
}
