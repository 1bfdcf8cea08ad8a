//! A leaf that holds of each key only what tells it apart from nearly all others.
//!
//! ```text
//! header | prefix | known, width bytes each | locations
//! ```
//!
//! The header is that of a leaf of whole keys (`packed.rs`); locations are stored as its values are (`values.rs`).
//!
//! All keys of the leaf begin with the prefix, and are known by `width` bytes that follow it: to a depth of
//! prefix and width together. Keys count as padded with zeros without end, so none is too short, and the order
//! of keys is the order of their known bytes. Keys that agree to that depth are *tied*: they lie side by side,
//! and only their records tell them apart.

use std::cmp::Ordering;
use std::ops::Range;

use super::arena::{Handle, IndexArena};
use super::borders::depth_of;
use super::leaf::{LOCATION_BYTES, Leaf};
use super::packed::{Candidate, HEADER_BYTES, common_prefix};
use super::values::{TopSpan, Values};
use crate::Location;

/// Most known bytes of a key behind the prefix.
pub(super) const MAX_WIDTH: usize = 8;
/// Keys of a leaf at which it splits.
pub(super) const MAX_KEYS: usize = 256;
/// No leaf has more, though it cannot split between tied keys.
pub(super) const MAX_KEYS_EVER: usize = 4 * MAX_KEYS;
/// A leaf with fewer keys looks for a neighbour to merge with.
const SMALL_KEYS: usize = MAX_KEYS / 4;
/// A merger must leave room to grow.
const MERGED_KEYS: usize = MAX_KEYS * 3 / 4;
/// A new leaf has at most one tie in so many keys.
const KEYS_PER_TIE_OF_NEW: usize = 64;
/// A leaf with more ties than one in so many keys, and a few, should be known to a greater depth.
const KEYS_PER_TIE: usize = 16;
const FEW_TIES: usize = 2;
/// In the header, where the flags of other leaves are: the width, this bit, and the next.
pub(super) const COMPACT: u8 = 0x80;
/// Locations take a byte less, and are stored less their base.
pub(super) const BASED: u8 = 0x40;

const _: () = assert!(
    HEADER_BYTES
        + crate::limits::MAX_KEY_BYTES
        + MAX_WIDTH
        + (MAX_KEYS_EVER + 1) * (MAX_WIDTH + LOCATION_BYTES)
        <= super::arena::MAX_BLOCK_BYTES
);

/// Whether the leaf that these bytes begin with is a compact one.
#[inline]
pub(super) fn is_compact(bytes: &[u8]) -> bool {
    bytes[6] & COMPACT != 0
}

/// Byte `i` of a key that is padded with zeros.
fn padded(key: &[u8], i: usize) -> u8 {
    key.get(i).copied().unwrap_or(0)
}

/// How many bytes two keys have in common, padded with zeros; `None` where only zeros tell them apart.
pub(super) fn common_padded(a: &[u8], b: &[u8]) -> Option<usize> {
    let shared = common_prefix(a, b);
    let rest = if a.len() > b.len() { &a[shared..] } else { &b[shared..] };
    if shared < a.len().min(b.len()) {
        return Some(shared);
    }
    rest.iter().position(|byte| *byte != 0).map(|zeros| shared + zeros)
}

/// The known bytes of one key: the first `width` are meant.
pub(super) type Known = [u8; MAX_WIDTH];

/// Sizes of a compact leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    pub len: usize,
    pub prefix_len: usize,
    pub width: usize,
    /// How locations are stored.
    pub values: Values<LOCATION_BYTES>,
}

impl Sizes {
    pub fn known_at(self) -> usize {
        HEADER_BYTES + self.prefix_len
    }

    pub fn locations_at(self) -> usize {
        self.known_at() + self.len * self.width
    }

    pub fn used_bytes(self) -> usize {
        self.location_at(self.len)
    }

    fn location_at(self, i: usize) -> usize {
        self.locations_at() + i * self.values.bytes()
    }

    fn write_location(self, bytes: &mut [u8], i: usize, location: Location) {
        let (at, len) = (self.location_at(i), self.values.bytes());
        bytes[at..at + len].copy_from_slice(&self.values.stored(location.to_bytes())[..len]);
    }

    fn write_header(self, bytes: &mut [u8]) {
        let sizes = [self.len, self.prefix_len, self.used_bytes()];
        for (at, size) in [0, 2, 4].into_iter().zip(sizes) {
            let size = u16::try_from(size).expect("a node takes less than 64 KiB");
            bytes[at..at + 2].copy_from_slice(&size.to_le_bytes());
        }
        let based = if self.values.base.is_some() { BASED } else { 0 };
        bytes[6] = COMPACT | based | self.width as u8;
        bytes[7] = 0;
        bytes[8..HEADER_BYTES].copy_from_slice(&self.values.base.unwrap_or(0).to_le_bytes());
    }
}

/// A compact leaf, to be read.
#[derive(Clone, Copy)]
pub(super) struct Compact<'a> {
    bytes: &'a [u8],
    sizes: Sizes,
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// Keys below and not above what is wanted, among known bytes of a fixed width.
#[inline]
fn equal_range<const WIDTH: usize>(known: &[u8], wanted: &Known) -> Range<usize> {
    let (known, _) = known.as_chunks::<WIDTH>();
    let wanted: &[u8; WIDTH] = wanted.first_chunk().expect("no leaf is wider than known bytes are");
    let low = known.partition_point(|one| one < wanted);
    let equal = known[low..].iter().take_while(|one| *one == wanted).count();
    low..low + equal
}

impl<'a> Compact<'a> {
    /// The leaf that `bytes` begin with.
    pub fn new(bytes: &'a [u8]) -> Self {
        let base = (bytes[6] & BASED != 0).then(|| u16_at(bytes, 8) as u16);
        let width = usize::from(bytes[6] & !(COMPACT | BASED));
        let (len, prefix_len) = (u16_at(bytes, 0), u16_at(bytes, 2));
        Compact { bytes, sizes: Sizes { len, prefix_len, width, values: Values { base } } }
    }

    /// Number of keys.
    pub fn len(self) -> usize {
        self.sizes.len
    }

    /// Where everything is.
    pub fn sizes(self) -> Sizes {
        self.sizes
    }

    /// Bytes of the whole leaf.
    pub fn used_bytes(self) -> usize {
        self.sizes.used_bytes()
    }

    /// The whole leaf as it lies.
    pub fn bytes(self) -> &'a [u8] {
        &self.bytes[..self.used_bytes()]
    }

    /// What all keys begin with, padded.
    pub fn prefix(self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..self.sizes.known_at()]
    }

    /// How many bytes of each key are known.
    pub fn depth(self) -> usize {
        self.sizes.prefix_len + self.sizes.width
    }

    /// Whether no key beyond this border may be tied with one of the leaf.
    pub fn knows(self, border: &[u8]) -> bool {
        depth_of(border).is_some_and(|least| least <= self.depth())
    }

    /// What is known of key `i` behind the prefix.
    pub fn known(self, i: usize) -> &'a [u8] {
        assert!(i < self.len(), "key {i} of {}", self.len());
        let at = self.sizes.known_at() + i * self.sizes.width;
        &self.bytes[at..at + self.sizes.width]
    }

    /// What is known of key `i`, in place of what `out` holds.
    pub fn known_into(self, i: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.prefix());
        out.extend_from_slice(self.known(i));
    }

    /// The location of key `i`.
    #[inline]
    pub fn location(self, i: usize) -> Location {
        assert!(i < self.len(), "location {i} of {}", self.len());
        self.checked_location(i).expect("a leaf holds nothing but encoded locations")
    }

    /// The location of key `i`, if it is one.
    pub fn checked_location(self, i: usize) -> Option<Location> {
        let at = self.sizes.location_at(i);
        Location::from_bytes(self.sizes.values.restored(&self.bytes[at..at + self.sizes.values.bytes()]))
    }

    /// How a padded key compares with the prefix.
    fn compare_prefix(self, key: &[u8]) -> Ordering {
        let prefix = self.prefix();
        let both = key.len().min(prefix.len());
        key[..both].cmp(&prefix[..both]).then_with(|| {
            if prefix[both..].iter().any(|byte| *byte != 0) { Ordering::Less } else { Ordering::Equal }
        })
    }

    /// What of a key that has the prefix is to be looked for behind it.
    fn wanted(self, key: &[u8]) -> Known {
        let mut wanted = Known::default();
        let rest = key.get(self.sizes.prefix_len..).unwrap_or_default();
        let len = rest.len().min(self.sizes.width);
        wanted[..len].copy_from_slice(&rest[..len]);
        wanted
    }

    /// The places of all keys that agree with `key` as far as they are known; empty at the place where it would go.
    #[inline]
    pub fn candidates(self, key: &[u8]) -> Range<usize> {
        match self.compare_prefix(key) {
            Ordering::Less => 0..0,
            Ordering::Greater => self.len()..self.len(),
            Ordering::Equal => self.equal(&self.wanted(key)),
        }
    }

    fn equal(self, wanted: &Known) -> Range<usize> {
        let known = &self.bytes[self.sizes.known_at()..self.sizes.locations_at()];
        match self.sizes.width {
            1 => equal_range::<1>(known, wanted),
            2 => equal_range::<2>(known, wanted),
            3 => equal_range::<3>(known, wanted),
            4 => equal_range::<4>(known, wanted),
            5 => equal_range::<5>(known, wanted),
            6 => equal_range::<6>(known, wanted),
            7 => equal_range::<7>(known, wanted),
            _ => equal_range::<8>(known, wanted),
        }
    }

    /// The first candidate for `key`, if there is any.
    pub fn first_candidate(self, key: &[u8]) -> Option<Candidate> {
        let range = self.candidates(key);
        (!range.is_empty())
            .then(|| Candidate::with_value_at(range.start, self.sizes.location_at(range.start)))
    }

    /// Between which the locations of these keys lie.
    fn tops(self, range: Range<usize>) -> TopSpan {
        range.fold(TopSpan::NONE, |tops, i| tops.with(self.location(i).to_bytes()))
    }

    /// The same leaf with its locations stored otherwise.
    fn stored_as(self, values: Values<LOCATION_BYTES>) -> Vec<u8> {
        let sizes = Sizes { values, ..self.sizes };
        let mut bytes = self.bytes[..self.sizes.locations_at()].to_vec();
        bytes.resize(sizes.used_bytes(), 0);
        sizes.write_header(&mut bytes);
        (0..sizes.len).for_each(|i| sizes.write_location(&mut bytes, i, self.location(i)));
        bytes
    }

    /// The place of a location among the candidates for `key`.
    pub fn place_of(self, key: &[u8], location: Location) -> Option<usize> {
        self.candidates(key).find(|i| self.location(*i) == location)
    }

    /// Whether keys `i - 1` and `i` are tied.
    fn is_tied(self, i: usize) -> bool {
        self.known(i - 1) == self.known(i)
    }

    /// Whether so many keys are tied with the one before that more of each should be known.
    pub fn is_crowded(self) -> bool {
        let ties = (1..self.len()).filter(|i| self.is_tied(*i)).count();
        ties > FEW_TIES + self.len() / KEYS_PER_TIE
    }

    /// Whether the leaf should look for a neighbour to merge with.
    pub fn is_small(self) -> bool {
        self.len() < SMALL_KEYS
    }

    /// The place nearest to the middle that is not between tied keys, if there is one.
    pub fn split_place(self) -> Option<usize> {
        let places = (1..self.len()).filter(|i| !self.is_tied(*i));
        places.min_by_key(|i| i.abs_diff(self.len() / 2))
    }
}

/// Puts a key that has the leaf's prefix in place `at`.
pub(super) fn insert_at(arena: &mut IndexArena, block: Handle, at: usize, key: &[u8], location: Location) {
    let leaf = Compact::new(arena.bytes(block));
    assert!(leaf.compare_prefix(key).is_eq() && at <= leaf.len(), "insert at {at} of {}", leaf.len());
    let known = leaf.wanted(key);
    make_room_for(arena, block, location);
    let old = Compact::new(arena.bytes(block)).sizes;
    let new = Sizes { len: old.len + 1, ..old };
    let (used, grown) = (old.used_bytes(), new.used_bytes());
    arena.resize(block, used, grown);
    let bytes = &mut arena.bytes_mut(block)[..grown];
    let (known_gap, location_gap) = (old.known_at() + at * old.width, old.location_at(at));
    // From the back, so that nothing is overwritten before it has moved.
    bytes.copy_within(location_gap..used, location_gap + old.width + old.values.bytes());
    bytes.copy_within(known_gap..location_gap, known_gap + old.width);
    bytes[known_gap..known_gap + old.width].copy_from_slice(&known[..old.width]);
    new.write_location(bytes, at, location);
    new.write_header(bytes);
}

/// Stores locations otherwise where this one is too far from the others.
fn make_room_for(arena: &mut IndexArena, block: Handle, location: Location) {
    let leaf = Compact::new(arena.bytes(block));
    if leaf.sizes.values.takes(location.to_bytes()) {
        return;
    }
    let tops = leaf.tops(0..leaf.len()).with(location.to_bytes());
    let bytes = leaf.stored_as(Values { base: tops.base() });
    let used = leaf.used_bytes();
    arena.replace(block, used, &bytes);
}

/// Replaces the location of key `i`.
pub(super) fn set_location(arena: &mut IndexArena, block: Handle, i: usize, location: Location) {
    make_room_for(arena, block, location);
    let sizes = Compact::new(arena.bytes(block)).sizes;
    assert!(i < sizes.len, "location {i} of {}", sizes.len);
    sizes.write_location(arena.bytes_mut(block), i, location);
}

/// Takes key `at` out; there must be another key.
pub(super) fn remove_at(arena: &mut IndexArena, block: Handle, at: usize) {
    let old = Compact::new(arena.bytes(block)).sizes;
    assert!(at < old.len && old.len > 1, "remove {at} of {}", old.len);
    let new = Sizes { len: old.len - 1, ..old };
    let (used, shrunk) = (old.used_bytes(), new.used_bytes());
    let bytes = &mut arena.bytes_mut(block)[..used];
    let (known_gap, location_gap) = (old.known_at() + at * old.width, old.location_at(at));
    bytes.copy_within(known_gap + old.width..location_gap, known_gap);
    bytes.copy_within(location_gap + old.values.bytes().., location_gap - old.width);
    new.write_header(bytes);
    arena.resize(block, used, shrunk);
}

/// Keys in order, of which a leaf is made, with their locations.
#[derive(Clone)]
pub(super) enum Part<'a> {
    /// Of a compact leaf.
    Compact(Compact<'a>, Range<usize>),
    /// Of a leaf that holds whole keys.
    Whole(Leaf<'a>, Range<usize>),
    /// Whole keys.
    Keys(&'a [(Vec<u8>, Location)]),
}

impl Part<'_> {
    /// Number of keys.
    pub fn len(&self) -> usize {
        match self {
            Part::Compact(_, range) | Part::Whole(_, range) => range.len(),
            Part::Keys(keys) => keys.len(),
        }
    }

    /// Key `i`, as far as it is known.
    fn key_into(&self, i: usize, out: &mut Vec<u8>) {
        match self {
            Part::Compact(leaf, range) => leaf.known_into(range.start + i, out),
            Part::Whole(leaf, range) => leaf.key_into(range.start + i, out),
            Part::Keys(keys) => out.clone_from(&keys[i].0),
        }
    }

    /// Bytes of key `i`, as far as it is known.
    fn key_len(&self, i: usize) -> usize {
        match self {
            Part::Compact(leaf, _) => leaf.depth(),
            Part::Whole(leaf, range) => leaf.prefix().len() + leaf.suffix_len(range.start + i),
            Part::Keys(keys) => keys[i].0.len(),
        }
    }

    /// How many bytes neighbouring keys have in common, padded with zeros; the most there are where only zeros tell them apart.
    pub fn agreements(&self) -> Vec<usize> {
        let (mut before, mut key) = (Vec::new(), Vec::new());
        self.key_into(0, &mut before);
        let agreements = (1..self.len()).map(|i| {
            self.key_into(i, &mut key);
            let agreement = common_padded(&before, &key).unwrap_or(usize::MAX);
            std::mem::swap(&mut before, &mut key);
            agreement
        });
        agreements.collect()
    }

    fn location(&self, i: usize) -> Location {
        match self {
            Part::Compact(leaf, range) => leaf.location(range.start + i),
            Part::Whole(leaf, range) => leaf.location(range.start + i),
            Part::Keys(keys) => keys[i].1,
        }
    }

    fn tops(&self) -> TopSpan {
        (0..self.len()).fold(TopSpan::NONE, |tops, i| tops.with(self.location(i).to_bytes()))
    }

    /// To which depth its keys are known.
    fn depth(&self) -> usize {
        match self {
            Part::Compact(leaf, _) => leaf.depth(),
            Part::Whole(..) | Part::Keys(_) => usize::MAX,
        }
    }
}

/// The bytes of a leaf of these keys, known to `depth`; `None` where that takes too wide a leaf.
pub(super) fn assemble(parts: &[Part<'_>], depth: usize) -> Option<Vec<u8>> {
    let len = parts.iter().map(Part::len).sum();
    let (first, last) = (parts.first()?, parts.last()?);
    let (mut key, mut other) = (Vec::new(), Vec::new());
    first.key_into(0, &mut key);
    last.key_into(last.len() - 1, &mut other);
    let shared = common_padded(&key, &other).unwrap_or(usize::MAX).min(depth - 1);
    let tops = parts.iter().fold(TopSpan::NONE, |tops, part| tops.and(part.tops()));
    let values = Values { base: tops.base() };
    let sizes = Sizes { len, prefix_len: shared, width: depth - shared, values };
    if sizes.width > MAX_WIDTH || !(1..=MAX_KEYS_EVER).contains(&len) {
        return None;
    }
    let mut bytes = vec![0; sizes.used_bytes()];
    sizes.write_header(&mut bytes);
    (0..shared).for_each(|i| bytes[HEADER_BYTES + i] = padded(&key, i));
    let (mut known_at, mut place) = (sizes.known_at(), 0);
    for part in parts {
        for i in 0..part.len() {
            part.key_into(i, &mut key);
            let known = &mut bytes[known_at..known_at + sizes.width];
            known.iter_mut().zip(shared..).for_each(|(byte, at)| *byte = padded(&key, at));
            sizes.write_location(&mut bytes, place, part.location(i));
            known_at += sizes.width;
            place += 1;
        }
    }
    Some(bytes)
}

/// A leaf of whole keys in order, known to a depth at which few are tied, and a byte more for those to come, and at
/// least to `least_depth`; `None` where no leaf is wide enough. `agreements` are those of the part.
pub(super) fn of_keys(part: &Part<'_>, agreements: &[usize], least_depth: usize) -> Option<Vec<u8>> {
    let len = part.len();
    assert_eq!(agreements.len() + 1, len, "one between two keys");
    let longest = (0..len).map(|i| part.key_len(i)).max()?;
    let shared = agreements.iter().copied().min().unwrap_or(longest).min(longest - 1);
    let ties = |depth: usize| agreements.iter().filter(|shared| **shared >= depth).count();
    let depth = (shared + 1..shared + MAX_WIDTH).find(|depth| ties(*depth) <= len / KEYS_PER_TIE_OF_NEW)?;
    let margin = usize::from(longest > depth);
    assemble(std::slice::from_ref(part), (depth + margin).max(least_depth))
}

/// One leaf of two neighbours, of which one at least is compact, where nothing is forgotten of what is known: that might
/// be asked for while a frame is applied. Nor where the border between them is not known: keys on its two sides, that
/// it told apart, would be tied.
pub(super) fn merged(left: Part<'_>, right: Part<'_>, border: &[u8]) -> Option<Vec<u8>> {
    if left.len() + right.len() > MERGED_KEYS {
        return None;
    }
    let depth = left.depth();
    if depth != right.depth() || depth_of(border).is_none_or(|least| least > depth) {
        return None;
    }
    let bytes = assemble(&[left, right], depth)?;
    (!Compact::new(&bytes).is_crowded()).then_some(bytes)
}

/// The same keys under a prefix of `prefix_len` bytes, shorter than it is, where that is not too wide.
pub(super) fn widened(leaf: Compact<'_>, prefix_len: usize) -> Option<Vec<u8>> {
    let Sizes { len, prefix_len: old, width, values } = leaf.sizes;
    let sizes = Sizes { len, prefix_len, width: width + old - prefix_len, values };
    if sizes.width > MAX_WIDTH {
        return None;
    }
    let mut bytes = vec![0; sizes.used_bytes()];
    sizes.write_header(&mut bytes);
    bytes[HEADER_BYTES..sizes.known_at()].copy_from_slice(&leaf.prefix()[..prefix_len]);
    for i in 0..len {
        let at = sizes.known_at() + i * sizes.width;
        bytes[at..at + old - prefix_len].copy_from_slice(&leaf.prefix()[prefix_len..]);
        bytes[at + old - prefix_len..at + sizes.width].copy_from_slice(leaf.known(i));
    }
    bytes[sizes.locations_at()..].copy_from_slice(&leaf.bytes()[leaf.sizes.locations_at()..]);
    Some(bytes)
}

/// The keys of a range, of which there is at least one, under the longest prefix that leaves something known.
pub(super) fn sliced(leaf: Compact<'_>, range: Range<usize>) -> Vec<u8> {
    let Sizes { prefix_len, width, .. } = leaf.sizes;
    let more = common_prefix(leaf.known(range.start), leaf.known(range.end - 1)).min(width - 1);
    let values = Values { base: leaf.tops(range.clone()).base() };
    let sizes = Sizes { len: range.len(), prefix_len: prefix_len + more, width: width - more, values };
    let mut bytes = vec![0; sizes.used_bytes()];
    sizes.write_header(&mut bytes);
    bytes[HEADER_BYTES..HEADER_BYTES + prefix_len].copy_from_slice(leaf.prefix());
    bytes[HEADER_BYTES + prefix_len..sizes.known_at()].copy_from_slice(&leaf.known(range.start)[..more]);
    for (i, from) in range.clone().enumerate() {
        let at = sizes.known_at() + i * sizes.width;
        bytes[at..at + sizes.width].copy_from_slice(&leaf.known(from)[more..]);
        sizes.write_location(&mut bytes, i, leaf.location(from));
    }
    bytes
}
