//! Leaves of a compact index are made anew, so that they tell more of their keys apart.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use super::PartitionIndex;
use super::arena::IndexArena;
use super::compact::{self, Compact, MAX_KEYS, Part, common_padded};
use super::leaf::{self, Node, node};
use super::packed::common_prefix;
use super::resolve::{KeyOf, Keys, Need};
use super::tree::{Changed, Split};
use crate::Location;
use crate::limits::MAX_KEY_BYTES;

/// Whole keys in order, and where their records lie.
type Entries = Vec<(Vec<u8>, Location)>;

impl PartitionIndex {
    /// Makes a full leaf of whole keys a compact one; reads more of the keys in the leaf of `key`, where too many are tied, and
    /// makes of it as many leaves as will tell them apart.
    pub fn refine(&mut self, arena: &mut IndexArena, key: &[u8], keys: &dyn Keys) -> Result<(), Need> {
        let Some(way) = self.way(arena, Some(key)) else { return Ok(()) };
        let leaf = match node(arena, way.block) {
            Node::Whole(leaf) => {
                let least_depth = self.least_depth(arena, &way).filter(|_| !leaf.is_small());
                let part = Part::Whole(leaf, 0..leaf.len());
                if let Some(bytes) =
                    least_depth.and_then(|least| compact::of_keys(&part, &part.agreements(), least))
                {
                    self.change(arena, key, false, |arena, block, _| {
                        leaf::replace(arena, block, &bytes);
                        Changed { block, added: 0, split: None }
                    });
                }
                return Ok(());
            }
            Node::Compact(leaf) => leaf,
        };
        if !leaf.is_crowded() && leaf.len() <= MAX_KEYS {
            return Ok(());
        }
        let Some(entries) = whole_keys(leaf, keys)? else { return Ok(()) };
        let mut pieces = Vec::new();
        let agreements = Part::Keys(&entries).agreements();
        pack(&entries, &agreements, leaf.depth(), &mut pieces);
        self.replace_leaf(arena, key, &entries, pieces);
        Ok(())
    }

    /// Puts the pieces in the place of the leaf of `key`, one by one.
    fn replace_leaf(
        &mut self,
        arena: &mut IndexArena,
        key: &[u8],
        entries: &[(Vec<u8>, Location)],
        pieces: Vec<(Vec<u8>, usize)>,
    ) {
        let mut from = 0;
        for (bytes, len) in pieces {
            if from == 0 {
                self.change(arena, key, false, |arena, block, _| {
                    let gone = node(arena, block).len() as i64;
                    leaf::replace(arena, block, &bytes);
                    Changed { block, added: len as i64 - gone, split: None }
                });
            } else {
                let (last, first) = (&entries[from - 1].0, &entries[from].0);
                let shared = common_padded(last, first).unwrap_or_else(|| common_prefix(last, first));
                let separator = first[..=shared].to_vec();
                self.change(arena, &separator, false, |arena, block, _| {
                    let right = arena.store(&bytes);
                    let split = Split { separator: separator.clone(), right, records: len as u32 };
                    Changed { block, added: len as i64, split: Some(split) }
                });
            }
            from += len;
        }
        assert_eq!(from, entries.len(), "a refined leaf keeps its keys");
    }
}

/// All keys of a leaf in their order, each once; `None` where one cannot be had, and the leaf may stay as it is.
fn whole_keys(leaf: Compact<'_>, keys: &dyn Keys) -> Result<Option<Entries>, Need> {
    let mut unknown = SmallVec::new();
    let (mut entries, mut used) = (Vec::with_capacity(leaf.len()), BTreeSet::new());
    let mut unreadable = Vec::new();
    for i in 0..leaf.len() {
        let location = leaf.location(i);
        match keys.key_of(location) {
            // What does not belong here, or is an older record of a key, is as good as not there.
            KeyOf::Key(key) if leaf.candidates(key).contains(&i) && used.insert(key.to_vec()) => {
                entries.push((key.to_vec(), location));
            }
            KeyOf::Key(_) | KeyOf::Unreadable => unreadable.push(i),
            KeyOf::Unknown => unknown.push(location),
        }
    }
    if !unreadable.is_empty() && leaf.len() <= 2 * MAX_KEYS {
        return Ok(None);
    }
    if !unknown.is_empty() {
        return Err(Need(unknown));
    }
    for i in unreadable {
        let Some(key) = stand_in(leaf, i, &used) else { return Ok(None) };
        used.insert(key.clone());
        entries.push((key, leaf.location(i)));
    }
    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
    let is_strict = entries.windows(2).all(|pair| pair[0].0 < pair[1].0);
    assert!(is_strict, "each key is there once");
    Ok(Some(entries))
}

/// A key of its own that nobody asks for, of a record that cannot be read, for leaves that cannot stay as they are. It agrees with
/// what is known, and so lies within the leaf's borders.
fn stand_in(leaf: Compact<'_>, i: usize, used: &BTreeSet<Vec<u8>>) -> Option<Vec<u8>> {
    let mut known = Vec::new();
    leaf.known_into(i, &mut known);
    let room = MAX_KEY_BYTES.saturating_sub(known.len()).min(4);
    let last = if room == 0 { 0 } else { u32::MAX >> (8 * (4 - room)) };
    let numbered = (i as u32..last).map(|n| [&known, &n.to_be_bytes()[4 - room..]].concat());
    // Where there is no room behind what is known: with more or fewer of the zeros that it ends in.
    let least = known.iter().rposition(|byte| *byte != 0).map_or(1, |at| at + 1);
    let shorter = (least..=known.len().min(MAX_KEY_BYTES)).map(|len| known[..len].to_vec());
    numbered.chain(shorter).find(|key| !used.contains(key))
}

/// Leaves of these keys, known at least to `depth`, each with its number of keys: as few compact ones as will do, and
/// ordinary ones of keys that defeat them. Between two keys lies a border that tells them apart, and a compact leaf knows its borders.
fn pack(
    entries: &[(Vec<u8>, Location)],
    agreements: &[usize],
    depth: usize,
    out: &mut Vec<(Vec<u8>, usize)>,
) {
    pack_between(entries, agreements, (depth, depth), out);
}

/// The same, known at least to both depths: of the lower border, and of the upper one. `agreements` are those of neighbours.
fn pack_between(
    entries: &[(Vec<u8>, Location)],
    agreements: &[usize],
    (lower, upper): (usize, usize),
    out: &mut Vec<(Vec<u8>, usize)>,
) {
    let (len, depth) = (entries.len(), lower.max(upper));
    let is_known = len <= MAX_KEYS && depth < usize::MAX;
    let compact = if is_known { compact::of_keys(&Part::Keys(entries), agreements, depth) } else { None };
    if let Some(bytes) = compact.or_else(|| leaf::of_keys(entries)) {
        return out.push((bytes, len));
    }
    // About in the middle, where keys agree the least.
    let places = (len / 4).max(1)..=len - (len / 4).max(1);
    let place = places.min_by_key(|at| (agreements[at - 1], at.abs_diff(len / 2)));
    let at = place.expect("a leaf holds one key at least");
    let border = agreements[at - 1].saturating_add(1);
    pack_between(&entries[..at], &agreements[..at - 1], (lower, border), out);
    pack_between(&entries[at..], &agreements[at..], (border, upper), out);
}
