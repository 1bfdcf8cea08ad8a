//! Whether bytes from a drive are a leaf that this program could have written: looked at once, before they
//! become a node, so that no search in it can go wrong.

use std::cmp::Ordering;

use super::compact::{self, Compact, is_compact};
use super::leaf::{Leaf, MAX_BODY_BYTES_EVER, MAX_KEYS, Node};
use super::packed::{BASED, Chopped, HEAD_BYTES, HEADER_BYTES, WIDE};
use super::values::{MAX_BASE, Values};
use crate::Location;
use crate::limits::MAX_KEY_BYTES;

/// Why bytes are no leaf. For tests and assertions; a start only needs to know that they are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// The leaf of a compact index that these bytes are, all of them, likewise; of a key that is not all known, the length
/// of what is.
pub(super) fn checked_either<'a>(
    bytes: &'a [u8],
    each: &mut dyn FnMut(Location, usize) -> bool,
) -> Result<Node<'a>, Malformed> {
    if bytes.len() < HEADER_BYTES {
        return Err(Malformed);
    }
    if !is_compact(bytes) {
        return checked(bytes, each).map(Node::Whole);
    }
    let leaf = Compact::new(bytes);
    let sizes = leaf.sizes();
    let fits = (1..=compact::MAX_KEYS_EVER).contains(&sizes.len)
        && (1..=compact::MAX_WIDTH).contains(&sizes.width)
        && sizes.prefix_len < MAX_KEY_BYTES
        && bytes[6] & !(compact::COMPACT | compact::BASED) == sizes.width as u8
        && bytes[7] == 0
        && is_base(sizes.values, u16::from_le_bytes([bytes[8], bytes[9]]))
        && usize::from(u16::from_le_bytes([bytes[4], bytes[5]])) == bytes.len()
        && sizes.used_bytes() == bytes.len();
    if !fits {
        return Err(Malformed);
    }
    for i in 0..leaf.len() {
        let location = leaf.checked_location(i).ok_or(Malformed)?;
        // No key is empty, and zeros at the end of what is known may be padding.
        let known = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        let least = match known(leaf.known(i)) {
            0 => known(leaf.prefix()),
            behind => leaf.prefix().len() + behind,
        };
        let is_in_order = i == 0 || leaf.known(i - 1) <= leaf.known(i);
        if !is_in_order || !each(location, least.max(1)) {
            return Err(Malformed);
        }
    }
    Ok(Node::Compact(leaf))
}

/// Whether a header's base is one, where values have one, and nothing where not.
fn is_base<const VALUE: usize>(values: Values<VALUE>, stored: u16) -> bool {
    if values.base.is_some() { stored <= MAX_BASE } else { stored == 0 }
}

/// The leaf that these bytes are, all of them; calls `each` for every location and the length of its key.
pub(super) fn checked<'a>(
    bytes: &'a [u8],
    each: &mut dyn FnMut(Location, usize) -> bool,
) -> Result<Leaf<'a>, Malformed> {
    let header = bytes.get(..HEADER_BYTES).ok_or(Malformed)?;
    let field = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let (len, prefix_len, used) = (field(0), field(2), field(4));
    let leaf = Leaf::new(bytes);
    let shape = leaf.shape();
    let fits = (1..=MAX_KEYS).contains(&len)
        && prefix_len <= MAX_KEY_BYTES
        && header[6] & !(WIDE | BASED) == 0
        && header[7] <= 1
        && is_base(shape.values, field(8) as u16)
        && used == bytes.len()
        && shape.tails_at() <= used
        && used - shape.heads_at() <= MAX_BODY_BYTES_EVER;
    if !fits {
        return Err(Malformed);
    }
    let lengths = lengths_of(leaf).ok_or(Malformed)?;
    let is_short = leaf.has_short();
    let is_long_enough = is_short || lengths.shortest >= HEAD_BYTES;
    let (shortest, longest) = (prefix_len + lengths.shortest, prefix_len + lengths.longest);
    if !is_long_enough || shortest == 0 || longest > MAX_KEY_BYTES || shape.tails_at() + lengths.tails != used
    {
        return Err(Malformed);
    }
    // All tails lie within the leaf, so that nothing below reads beyond it.
    let mut before: Option<Chopped<'_>> = None;
    for (suffix, value) in leaf.entries() {
        let is_padded = !is_short
            || match suffix.len {
                0 => suffix.head == 0,
                1 => suffix.head & 0xff == 0,
                _ => true,
            };
        let is_above = before.is_none_or(|before| before.cmp(&suffix) == Ordering::Less);
        let location = Location::from_bytes(value).ok_or(Malformed)?;
        if !is_padded || !is_above || !each(location, prefix_len + suffix.len) {
            return Err(Malformed);
        }
        before = Some(suffix);
    }
    Ok(leaf)
}

/// What the lengths of all suffixes of a leaf come to.
struct Lengths {
    shortest: usize,
    longest: usize,
    /// Bytes of all tails.
    tails: usize,
}

/// `None` where the leaf is too short to hold them.
fn lengths_of(leaf: Leaf<'_>) -> Option<Lengths> {
    let lengths = leaf.lengths()?;
    Some(match leaf.shape().wide {
        false => lengths_in(lengths.iter().map(|len| usize::from(*len))),
        true => lengths_in(lengths.as_chunks().0.iter().map(|len| usize::from(u16::from_le_bytes(*len)))),
    })
}

fn lengths_in(lengths: impl Iterator<Item = usize>) -> Lengths {
    lengths.fold(Lengths { shortest: usize::MAX, longest: 0, tails: 0 }, |all, len| Lengths {
        shortest: all.shortest.min(len),
        longest: all.longest.max(len),
        tails: all.tails + len.saturating_sub(HEAD_BYTES),
    })
}
