//! The codec of every index node: a sorted run of keys in one block, to be read. `edit.rs` changes it.
//!
//! ```text
//! header | prefix | heads, 2 bytes each | lengths, 1 or 2 bytes each | values | tails
//! ```
//!
//! The prefix that all keys share is stored once. What follows it, a key's suffix, is cut into a
//! head (its first two bytes, padded with zeros) and a tail. Header, prefix, heads and lengths are the
//! first few cache lines: a search counts the smaller heads in a few vector instructions, and then knows
//! where the value is and, by a sum over the lengths of the suffixes before, the tail. So it waits for
//! memory twice: for those lines, and for value and tail together.

use std::cmp::Ordering;
use std::ops::Range;

use super::values::{TopSpan, Values};

/// Bytes of a suffix that its head holds.
pub(super) const HEAD_BYTES: usize = 2;
/// len u16 | prefix_len u16 | used u16 | flags u8 | short u8: some suffix may be shorter than a head | base u16
pub(super) const HEADER_BYTES: usize = 10;
/// In the flags: lengths take two bytes each.
pub(super) const WIDE: u8 = 1;
/// In the flags: values take a byte less, and are stored less their base.
pub(super) const BASED: u8 = 2;
/// Lengths that are summed up at once: those of a vector.
const SUMMED: usize = 16;
/// So many keys of the same head are looked at one by one.
const FEW_EQUAL_HEADS: usize = 8;
/// Longest suffix of a run whose lengths take one byte.
pub(super) const NARROW_SUFFIX_BYTES: usize = u8::MAX as usize;

/// Sizes of a run: they say where everything is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape<const VALUE: usize> {
    /// Number of keys.
    pub len: usize,
    /// Bytes that all keys begin with.
    pub prefix_len: usize,
    /// Lengths take two bytes each.
    pub wide: bool,
    /// How values are stored.
    pub values: Values<VALUE>,
}

/// What keys and values take: what a [`Shape`] follows from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    /// Bytes of all tails.
    pub tails: usize,
    longest: usize,
    values: TopSpan,
}

impl Sizes {
    /// Of no keys.
    pub const NONE: Sizes = Sizes { tails: 0, longest: 0, values: TopSpan::NONE };

    /// With one more key, whose suffix has so many bytes.
    pub fn with<const VALUE: usize>(self, suffix_len: usize, value: [u8; VALUE]) -> Sizes {
        let (tails, values) = (suffix_len.saturating_sub(HEAD_BYTES), TopSpan::NONE.with(value));
        self.and(Sizes { tails, longest: suffix_len, values })
    }

    /// Of both.
    pub fn and(self, other: Sizes) -> Sizes {
        Sizes {
            tails: self.tails + other.tails,
            longest: self.longest.max(other.longest),
            values: self.values.and(other.values),
        }
    }

    /// Of a run of so many such keys.
    pub fn shape<const VALUE: usize>(self, len: usize, prefix_len: usize) -> Shape<VALUE> {
        let (wide, values) = (self.longest > NARROW_SUFFIX_BYTES, Values { base: self.values.base() });
        Shape { len, prefix_len, wide, values }
    }
}

impl<const VALUE: usize> Shape<VALUE> {
    pub fn value_bytes(self) -> usize {
        self.values.bytes()
    }

    pub fn length_bytes(self) -> usize {
        1 + usize::from(self.wide)
    }

    /// What a key takes beside its tail.
    pub fn entry_bytes(self) -> usize {
        HEAD_BYTES + self.length_bytes() + self.value_bytes()
    }

    pub fn heads_at(self) -> usize {
        HEADER_BYTES + self.prefix_len
    }

    pub fn lengths_at(self) -> usize {
        self.heads_at() + self.len * HEAD_BYTES
    }

    pub fn values_at(self) -> usize {
        self.lengths_at() + self.len * self.length_bytes()
    }

    pub fn tails_at(self) -> usize {
        self.values_at() + self.len * self.value_bytes()
    }
}

/// A suffix as it is stored; ordered as suffixes are, because a shorter head is padded with zeros.
#[derive(Clone, Copy)]
pub(super) struct Chopped<'a> {
    /// The first two bytes as a number.
    pub head: u16,
    /// Bytes of the whole suffix.
    pub len: usize,
    /// What follows the head.
    pub tail: &'a [u8],
}

impl<'a> Chopped<'a> {
    /// Cuts a suffix.
    pub fn new(suffix: &'a [u8]) -> Chopped<'a> {
        match suffix {
            [] => Chopped { head: 0, len: 0, tail: &[] },
            [a] => Chopped { head: u16::from_be_bytes([*a, 0]), len: 1, tail: &[] },
            [a, b, tail @ ..] => Chopped { head: u16::from_be_bytes([*a, *b]), len: suffix.len(), tail },
        }
    }

    /// Compared with another suffix.
    pub fn cmp(&self, other: &Chopped<'_>) -> Ordering {
        self.head.cmp(&other.head).then_with(|| self.cmp_rest(other))
    }

    /// Compared with a suffix of the same head.
    fn cmp_rest(&self, other: &Chopped<'_>) -> Ordering {
        let real = |chopped: &Chopped<'_>| chopped.len.min(HEAD_BYTES);
        real(self).cmp(&real(other)).then_with(|| self.tail.cmp(other.tail))
    }
}

/// A sorted run of distinct keys, each with `VALUE` bytes of its own.
#[derive(Clone, Copy)]
pub(super) struct Packed<'a, const VALUE: usize> {
    bytes: &'a [u8],
    shape: Shape<VALUE>,
}

/// A key of a run that may be the one that is looked for.
#[derive(Clone, Copy)]
pub(super) struct Candidate {
    /// Which key.
    pub place: u32,
    /// Where its tail begins, counted from the first tail.
    tail_start: u32,
    /// Bytes that must be read to know: where its value lies, and the ends of its tail.
    pub needs: [u32; 3],
}

impl Candidate {
    /// One of which only the value, which lies here, must be read.
    pub fn with_value_at(place: usize, value_at: usize) -> Candidate {
        Candidate { place: place as u32, tail_start: 0, needs: [value_at as u32; 3] }
    }
}

fn u16_at(bytes: &[u8], at: usize) -> usize {
    usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

/// What follows the prefix in a key that has it.
#[inline]
fn suffix_of<'k>(key: &'k [u8], prefix: &[u8]) -> Option<&'k [u8]> {
    let (begin, suffix) = key.split_at_checked(prefix.len())?;
    // Random keys share hardly anything: a call to compare that takes longer than comparing.
    let is_same = match prefix.len() {
        0..4 => begin.iter().zip(prefix).all(|(a, b)| a == b),
        _ => begin == prefix,
    };
    is_same.then_some(suffix)
}

impl<'a, const VALUE: usize> Packed<'a, VALUE> {
    /// The run that `bytes` begin with.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().expect("a node has a header");
        let (len, prefix_len, flags) = (u16_at(header, 0), u16_at(header, 2), header[6]);
        let base = (flags & BASED != 0).then(|| u16_at(header, 8) as u16);
        Packed { bytes, shape: Shape { len, prefix_len, wide: flags & WIDE != 0, values: Values { base } } }
    }

    /// Number of keys.
    pub fn len(self) -> usize {
        self.shape.len
    }

    /// Where everything is.
    pub fn shape(self) -> Shape<VALUE> {
        self.shape
    }

    /// Bytes of the whole run.
    pub fn used_bytes(self) -> usize {
        u16_at(self.bytes, 4)
    }

    /// Bytes of everything but the shared prefix and the header.
    pub fn body_bytes(self) -> usize {
        self.used_bytes() - self.shape.heads_at()
    }

    /// The whole run as it lies.
    pub fn bytes(self) -> &'a [u8] {
        &self.bytes[..self.used_bytes()]
    }

    /// What all keys begin with; not always the longest such prefix.
    pub fn prefix(self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..self.shape.heads_at()]
    }

    /// The place of `key`, or the place where it would go.
    #[inline]
    pub fn search(self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let Some(suffix) = suffix_of(key, prefix) else {
            return Err(if key < prefix { 0 } else { self.len() });
        };
        let wanted = Chopped::new(suffix);
        let Range { start: mut low, end: mut high } = self.equal_heads(wanted.head);
        while low < high {
            let middle = low.midpoint(high);
            match self.chopped(middle).cmp_rest(&wanted) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// How many keys are not larger than `key`.
    #[inline]
    pub fn rank(self, key: &[u8]) -> usize {
        match self.search(key) {
            Ok(at) => at + 1,
            Err(at) => at,
        }
    }

    /// The first key that has the head of `key`; `None` where there is none.
    #[inline]
    pub fn candidate(self, key: &[u8]) -> Option<Candidate> {
        let head = Chopped::new(suffix_of(key, self.prefix())?).head;
        let i = self.heads_below(head);
        let is_there = i < self.len() && self.head(i) == head;
        is_there.then(|| {
            let start = self.tail_start(i);
            let tail = self.shape.tails_at() + start;
            let needs = [self.value_at(i), tail, tail + self.tail_len(i)].map(|at| at as u32);
            Candidate { place: i as u32, tail_start: start as u32, needs }
        })
    }

    /// Where the value of key `i` lies.
    pub fn value_at(self, i: usize) -> usize {
        self.shape.values_at() + i * self.shape.value_bytes()
    }

    /// The place of `key`, given the first key that has its head.
    #[inline]
    pub fn search_from(self, first: Candidate, key: &[u8]) -> Option<usize> {
        let (first, mut tail_start) = (first.place, first.tail_start);
        let wanted = Chopped::new(&key[self.shape.prefix_len..]);
        for i in (first as usize..self.len()).take(FEW_EQUAL_HEADS) {
            let suffix = self.chopped_at(i, tail_start as usize);
            if suffix.head != wanted.head {
                return None;
            }
            if suffix.len == wanted.len && suffix.tail == wanted.tail {
                return Some(i);
            }
            tail_start += suffix.tail.len() as u32;
        }
        self.search(key).ok()
    }

    fn heads(self) -> &'a [[u8; HEAD_BYTES]] {
        self.bytes[self.shape.heads_at()..self.shape.lengths_at()].as_chunks().0
    }

    /// How many heads are smaller: a search without branches.
    #[inline]
    fn heads_below(self, head: u16) -> usize {
        self.heads().partition_point(|bytes| u16::from_le_bytes(*bytes) < head)
    }

    /// The keys whose head is `head`.
    #[inline]
    fn equal_heads(self, head: u16) -> Range<usize> {
        let below = self.heads_below(head);
        let equal = self.heads()[below..].iter().take_while(|bytes| u16::from_le_bytes(**bytes) == head);
        below..below + equal.count()
    }

    /// The value of key `i`.
    #[inline]
    pub fn value(self, i: usize) -> [u8; VALUE] {
        assert!(i < self.len(), "value {i} of {}", self.len());
        let at = self.value_at(i);
        self.shape.values.restored(&self.bytes[at..at + self.shape.value_bytes()])
    }

    /// Bytes of the suffix of key `i`.
    pub fn suffix_len(self, i: usize) -> usize {
        let at = self.shape.lengths_at();
        if self.shape.wide { u16_at(self.bytes, at + 2 * i) } else { usize::from(self.bytes[at + i]) }
    }

    fn head(self, i: usize) -> u16 {
        u16::from_le_bytes(self.heads()[i])
    }

    /// Where the tail of key `i` begins, counted from the first tail.
    #[inline]
    pub fn tail_start(self, i: usize) -> usize {
        self.tail_bytes(0..i)
    }

    /// Bytes of the tails of these keys.
    #[inline]
    fn tail_bytes(self, range: Range<usize>) -> usize {
        if self.shape.wide || self.has_short() {
            return range.map(|i| self.tail_len(i)).sum();
        }
        let at = self.shape.lengths_at();
        let lengths = &self.bytes[at + range.start..at + range.end];
        let (chunks, rest) = lengths.as_chunks::<SUMMED>();
        let rest = self.first_lengths(at + range.end - rest.len(), rest.len());
        let sum = |lengths: &[u8; SUMMED]| lengths.iter().map(|len| u32::from(*len)).sum::<u32>();
        let suffixes = chunks.iter().fold(sum(&rest), |all, lengths| all + sum(lengths));
        suffixes as usize - range.len() * HEAD_BYTES
    }

    /// The first lengths, fewer than [`SUMMED`], and zeros: what lies behind them is read along, where there is as much.
    #[inline]
    fn first_lengths(self, at: usize, count: usize) -> [u8; SUMMED] {
        let mut lengths = [0; SUMMED];
        match self.bytes.get(at..at + SUMMED) {
            Some(bytes) => lengths.copy_from_slice(bytes),
            None => lengths[..count].copy_from_slice(&self.bytes[at..at + count]),
        }
        let kept = (1_u128 << (8 * count)) - 1;
        (u128::from_le_bytes(lengths) & kept).to_le_bytes()
    }

    /// Whether there may be suffixes shorter than a head.
    pub fn has_short(self) -> bool {
        self.bytes[7] != 0
    }

    /// The suffix of key `i`.
    pub fn chopped(self, i: usize) -> Chopped<'a> {
        self.chopped_at(i, self.tail_start(i))
    }

    /// Bytes of the tail of key `i`.
    pub fn tail_len(self, i: usize) -> usize {
        self.suffix_len(i).saturating_sub(HEAD_BYTES)
    }

    /// The suffix of key `i`, whose tail begins at `start`.
    #[inline]
    pub fn chopped_at(self, i: usize, start: usize) -> Chopped<'a> {
        let len = self.suffix_len(i);
        let at = self.shape.tails_at() + start;
        Chopped { head: self.head(i), len, tail: &self.bytes[at..at + len.saturating_sub(HEAD_BYTES)] }
    }

    /// The suffixes of these keys, in order.
    pub fn suffixes(self, range: Range<usize>) -> impl Iterator<Item = Chopped<'a>> {
        let mut start = self.tail_start(range.start);
        range.map(move |i| {
            let chopped = self.chopped_at(i, start);
            start += chopped.tail.len();
            chopped
        })
    }

    /// Lengths of all suffixes, as they lie; `None` where the bytes end before.
    pub fn lengths(self) -> Option<&'a [u8]> {
        self.bytes.get(self.shape.lengths_at()..self.shape.values_at())
    }

    /// The suffixes of all keys with their values, in order.
    pub fn entries(self) -> impl Iterator<Item = (Chopped<'a>, [u8; VALUE])> {
        let shape = self.shape;
        let (values, mut tails) = self.bytes[shape.values_at()..].split_at(shape.len * shape.value_bytes());
        self.heads().iter().zip(values.chunks_exact(shape.value_bytes())).enumerate().map(
            move |(i, (head, value))| {
                let len = self.suffix_len(i);
                let (tail, behind) = tails.split_at(len.saturating_sub(HEAD_BYTES));
                tails = behind;
                (Chopped { head: u16::from_le_bytes(*head), len, tail }, shape.values.restored(value))
            },
        )
    }

    /// The tails of these keys, as they lie.
    pub fn tails(self, range: Range<usize>) -> &'a [u8] {
        let start = self.shape.tails_at() + self.tail_start(range.start);
        &self.bytes[start..start + self.tail_bytes(range)]
    }

    /// Heads, or lengths, or values of these keys, as they lie.
    pub fn column(self, at: usize, width: usize, range: &Range<usize>) -> &'a [u8] {
        &self.bytes[at + range.start * width..at + range.end * width]
    }

    /// Key `i`.
    pub fn key(self, i: usize) -> Vec<u8> {
        let mut key = self.prefix().to_vec();
        self.chopped(i).append_to(&mut key);
        key
    }

    /// Key `i`, in place of what `out` holds.
    pub fn key_into(self, i: usize, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(self.prefix());
        self.chopped(i).append_to(out);
    }

    /// Bytes that key `i` takes in the body.
    pub fn entry_bytes(self, i: usize) -> usize {
        self.shape.entry_bytes() + self.tail_len(i)
    }

    /// What these keys would take under a prefix of `prefix_len` bytes, which is not longer than what they share.
    pub fn under_prefix(self, range: Range<usize>, prefix_len: usize) -> Sizes {
        let own = self.shape.prefix_len;
        range.fold(Sizes::NONE, |sizes, i| sizes.with(own + self.suffix_len(i) - prefix_len, self.value(i)))
    }
}

impl Chopped<'_> {
    /// Appends the suffix to `out`.
    pub fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head.to_be_bytes()[..self.len.min(HEAD_BYTES)]);
        out.extend_from_slice(self.tail);
    }
}

/// How many bytes `a` and `b` have in common from the beginning.
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}
