//! The codec of every index node: a sorted run of keys in one allocation.
//!
//! ```text
//! prefix | heads, 2 bytes each | marks | values | tails
//! ```
//!
//! The prefix that all keys share is stored once. What follows it, a key's suffix, is cut into a
//! head (its first two bytes, padded with zeros) and a tail. Heads lie side by side, so a search
//! counts the smaller ones in a few vector instructions and two or three cache lines, and looks at
//! tails only where heads are equal. A mark holds where the key's tail ends, and in its top two
//! bits how many bytes of the head are real.

use std::cmp::Ordering;
use std::ops::Range;

use super::memory::allocated_bytes;

/// Bytes of a suffix that its head holds.
const HEAD_BYTES: usize = 2;

/// A sorted run of distinct keys, each with `VALUE` bytes of its own.
///
/// `MARK` is the size of a mark: 2 allows tails of 16 KiB in all, 4 allows 1 GiB.
pub(super) struct Packed<const MARK: usize, const VALUE: usize> {
    bytes: Vec<u8>,
    len: u16,
    prefix_len: u16,
}

/// A suffix as it is stored; ordered as suffixes are, because a shorter head is padded with zeros.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Chopped<'a> {
    head: u16,
    head_len: usize,
    tail: &'a [u8],
}

impl<'a> Chopped<'a> {
    fn new(suffix: &'a [u8]) -> Chopped<'a> {
        match suffix {
            [] => Chopped { head: 0, head_len: 0, tail: &[] },
            [a] => Chopped { head: u16::from_be_bytes([*a, 0]), head_len: 1, tail: &[] },
            [a, b, tail @ ..] => Chopped { head: u16::from_be_bytes([*a, *b]), head_len: 2, tail },
        }
    }
}

impl<const MARK: usize, const VALUE: usize> Packed<MARK, VALUE> {
    /// What a key costs beyond its tail.
    pub const ENTRY_BYTES: usize = HEAD_BYTES + MARK + VALUE;
    const END_BITS: u32 = MARK as u32 * 8 - 2;
    /// Most bytes that the tails may take together.
    pub const MAX_TAIL_BYTES: usize = (1 << Self::END_BITS) - 1;

    /// No keys, no allocation.
    pub const fn new() -> Self {
        Packed { bytes: Vec::new(), len: 0, prefix_len: 0 }
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Bytes of everything but the shared prefix.
    pub fn body_bytes(&self) -> usize {
        self.bytes.len() - self.prefix().len()
    }

    /// What the allocation takes, slack included.
    pub fn memory_bytes(&self) -> usize {
        allocated_bytes(self.bytes.capacity())
    }

    /// What all keys begin with; not always the longest such prefix.
    pub fn prefix(&self) -> &[u8] {
        &self.bytes[..usize::from(self.prefix_len)]
    }

    /// The place of `key`, or the place where it would go.
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let prefix = self.prefix();
        let Some(suffix) = key.strip_prefix(prefix) else {
            return Err(if key < prefix { 0 } else { self.len() });
        };
        let wanted = Chopped::new(suffix);
        let Range { start: mut low, end: mut high } = self.equal_heads(wanted.head);
        while low < high {
            let middle = low.midpoint(high);
            let (head_len, tail) = self.rest(middle);
            match head_len.cmp(&wanted.head_len).then_with(|| tail.cmp(wanted.tail)) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Whether all keys are smaller than `key`, which has the shared prefix. Looks at the last one only.
    pub fn ends_before(&self, key: &[u8]) -> bool {
        let Some(last) = self.len().checked_sub(1) else {
            return true;
        };
        let (head_len, tail) = self.rest(last);
        Chopped { head: self.head(last), head_len, tail } < Chopped::new(&key[self.prefix().len()..])
    }

    /// The keys whose head is `head`; no branches, so that it compiles to vector instructions.
    fn equal_heads(&self, head: u16) -> Range<usize> {
        let (heads, _) = self.bytes[self.heads_at()..self.marks_at()].as_chunks::<HEAD_BYTES>();
        let (mut below, mut through) = (0u16, 0u16);
        for bytes in heads {
            let other = u16::from_le_bytes(*bytes);
            below += u16::from(other < head);
            through += u16::from(other <= head);
        }
        usize::from(below)..usize::from(through)
    }

    /// The value of key `i`.
    pub fn value(&self, i: usize) -> [u8; VALUE] {
        assert!(i < self.len(), "value {i} of {}", self.len);
        let at = self.values_at() + i * VALUE;
        let mut value = [0; VALUE];
        value.copy_from_slice(&self.bytes[at..at + VALUE]);
        value
    }

    /// Replaces the value of key `i`.
    pub fn set_value(&mut self, i: usize, value: [u8; VALUE]) {
        assert!(i < self.len(), "value {i} of {}", self.len);
        let at = self.values_at() + i * VALUE;
        self.bytes[at..at + VALUE].copy_from_slice(&value);
    }

    /// Appends what follows the prefix in key `i` to `out`.
    pub fn suffix_into(&self, i: usize, out: &mut Vec<u8>) {
        let (head_len, tail) = self.rest(i);
        out.extend_from_slice(&self.head(i).to_be_bytes()[..head_len]);
        out.extend_from_slice(tail);
    }

    /// Key `i`.
    pub fn key(&self, i: usize) -> Vec<u8> {
        let mut key = self.prefix().to_vec();
        self.suffix_into(i, &mut key);
        key
    }

    /// Bytes that key `i` takes in the body.
    pub fn entry_bytes(&self, i: usize) -> usize {
        Self::ENTRY_BYTES + self.rest(i).1.len()
    }

    /// Puts `key` in place `at`, which must be where [`search`](Self::search) said it would go.
    pub fn insert_at(&mut self, at: usize, key: &[u8], value: [u8; VALUE]) {
        assert!(at <= self.len(), "insert at {at} of {}", self.len);
        if self.len == 0 {
            let mut one = Builder::new(key, 1, 0);
            one.push(&[], value);
            *self = one.finish();
            return;
        }
        let shared = common_prefix(self.prefix(), key);
        if shared < self.prefix().len() {
            *self = self.recoded(0..self.len(), shared);
        }
        self.insert_suffix(at, &key[shared..], value);
    }

    fn insert_suffix(&mut self, at: usize, suffix: &[u8], value: [u8; VALUE]) {
        let Chopped { head, head_len, tail } = Chopped::new(suffix);
        let old_len = self.bytes.len();
        let (heads, marks, values, tails) =
            (self.heads_at(), self.marks_at(), self.values_at(), self.tails_at());
        let start = self.tail_start(at);
        assert!(self.tail_start(self.len()) + tail.len() <= Self::MAX_TAIL_BYTES, "tails of a node overflow");
        self.grow(Self::ENTRY_BYTES + tail.len());

        // From the back, so that nothing is overwritten before it has moved.
        let bytes = &mut self.bytes;
        bytes.copy_within(tails + start..old_len, tails + start + Self::ENTRY_BYTES + tail.len());
        bytes.copy_within(values + at * VALUE..tails + start, values + at * VALUE + Self::ENTRY_BYTES);
        bytes.copy_within(marks + at * MARK..values + at * VALUE, marks + at * MARK + HEAD_BYTES + MARK);
        bytes.copy_within(heads + at * HEAD_BYTES..marks + at * MARK, heads + (at + 1) * HEAD_BYTES);
        self.len += 1;

        let tail_at = self.tails_at() + start;
        self.bytes[tail_at..tail_at + tail.len()].copy_from_slice(tail);
        self.set_head(at, head);
        self.set_mark(at, head_len, start + tail.len());
        self.set_value(at, value);
        self.shift_ends(at + 1, tail.len() as u32);
    }

    /// Takes key `at` out.
    pub fn remove_at(&mut self, at: usize) {
        assert!(at < self.len(), "remove {at} of {}", self.len);
        if self.len == 1 {
            *self = Self::new();
            return;
        }
        let tail_len = self.rest(at).1.len();
        let start = self.tail_start(at);
        let (heads, marks, values, tails) =
            (self.heads_at(), self.marks_at(), self.values_at(), self.tails_at());
        self.shift_ends(at + 1, (tail_len as u32).wrapping_neg());

        let bytes = &mut self.bytes;
        bytes.copy_within(heads + (at + 1) * HEAD_BYTES..marks + at * MARK, heads + at * HEAD_BYTES);
        bytes.copy_within(marks + (at + 1) * MARK..values + at * VALUE, marks + at * MARK - HEAD_BYTES);
        bytes.copy_within(values + (at + 1) * VALUE..tails + start, values + at * VALUE - HEAD_BYTES - MARK);
        bytes.copy_within(tails + start + tail_len.., tails + start - Self::ENTRY_BYTES);
        bytes.truncate(bytes.len() - Self::ENTRY_BYTES - tail_len);
        self.len -= 1;
        // Shrinks rarely enough to be cheap, and often enough to give memory back.
        if self.bytes.capacity() - self.bytes.len() > self.bytes.len() / 8 + 64 {
            self.bytes.shrink_to(self.bytes.len() + slack(self.bytes.len()));
        }
    }

    /// The keys of `range` in a run of their own, with the longest prefix that they share.
    pub fn slice(&self, range: Range<usize>) -> Self {
        if range.is_empty() {
            return Self::new();
        }
        let shared = common_prefix(&self.key(range.start), &self.key(range.end - 1));
        self.recoded(range, shared)
    }

    fn recoded(&self, range: Range<usize>, prefix_len: usize) -> Self {
        let mut prefix = self.key(range.start);
        prefix.truncate(prefix_len);
        let mut builder = Builder::new(&prefix, range.len(), self.tail_bytes(range.clone(), prefix_len));
        builder.extend(self, range);
        builder.finish()
    }

    /// Bytes of the body once `key` were in, if it shortened the prefix as it must.
    pub fn body_bytes_with(&self, key: &[u8]) -> usize {
        let shared = common_prefix(self.prefix(), key);
        let entries = (self.len() + 1) * Self::ENTRY_BYTES;
        entries + self.tail_bytes(0..self.len(), shared) + (key.len() - shared).saturating_sub(HEAD_BYTES)
    }

    /// Bytes of the body of [`merged`](Self::merged).
    pub fn merged_body_bytes(&self, between: Option<&[u8]>, right: &Self) -> usize {
        let shared = self.shared_with(between, right);
        let middle =
            between.map_or(0, |key| Self::ENTRY_BYTES + (key.len() - shared).saturating_sub(HEAD_BYTES));
        let tails = self.tail_bytes(0..self.len(), shared) + right.tail_bytes(0..right.len(), shared);
        (self.len() + right.len()) * Self::ENTRY_BYTES + tails + middle
    }

    /// This run, `between` with a value of zeros, and `right`, all in one; the caller knows that they
    /// are in order.
    pub fn merged(&self, between: Option<&[u8]>, right: &Self) -> Self {
        let count = self.len() + right.len() + usize::from(between.is_some());
        let shared = self.shared_with(between, right);
        let mut prefix = [self, right]
            .into_iter()
            .find(|run| run.len > 0)
            .map(|run| run.key(0))
            .or_else(|| between.map(<[u8]>::to_vec))
            .unwrap_or_default();
        prefix.truncate(shared);
        let body = self.merged_body_bytes(between, right);
        let mut builder = Builder::new(&prefix, count, body - count * Self::ENTRY_BYTES);
        builder.extend(self, 0..self.len());
        if let Some(key) = between {
            builder.push(&key[shared..], [0; VALUE]);
        }
        builder.extend(right, 0..right.len());
        builder.finish()
    }

    /// Length of the prefix that the first and the last key of a merger share.
    fn shared_with(&self, between: Option<&[u8]>, right: &Self) -> usize {
        let first = (self.len > 0).then(|| self.key(0)).or_else(|| between.map(<[u8]>::to_vec));
        let last = right.len().checked_sub(1).map(|i| right.key(i)).or_else(|| between.map(<[u8]>::to_vec));
        match (first, last) {
            (Some(first), Some(last)) => common_prefix(&first, &last),
            (Some(first), None) => common_prefix(&first, &self.key(self.len() - 1)),
            (None, Some(last)) => common_prefix(&right.key(0), &last),
            (None, None) => 0,
        }
    }

    /// Gives slack back; for a run that is not expected to grow.
    pub fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// Bytes of the tails of `range` under a prefix of `prefix_len` bytes.
    fn tail_bytes(&self, range: Range<usize>, prefix_len: usize) -> usize {
        range
            .map(|i| {
                let (head_len, tail) = self.rest(i);
                (self.prefix().len() + head_len + tail.len() - prefix_len).saturating_sub(HEAD_BYTES)
            })
            .sum()
    }

    fn grow(&mut self, extra: usize) {
        let needed = self.bytes.len() + extra;
        if needed > self.bytes.capacity() {
            self.bytes.reserve_exact(extra + slack(needed));
        }
        self.bytes.resize(needed, 0);
    }

    fn heads_at(&self) -> usize {
        usize::from(self.prefix_len)
    }

    fn marks_at(&self) -> usize {
        self.heads_at() + self.len() * HEAD_BYTES
    }

    fn values_at(&self) -> usize {
        self.marks_at() + self.len() * MARK
    }

    fn tails_at(&self) -> usize {
        self.values_at() + self.len() * VALUE
    }

    fn head(&self, i: usize) -> u16 {
        let at = self.heads_at() + i * HEAD_BYTES;
        u16::from_le_bytes([self.bytes[at], self.bytes[at + 1]])
    }

    fn set_head(&mut self, i: usize, head: u16) {
        let at = self.heads_at() + i * HEAD_BYTES;
        self.bytes[at..at + HEAD_BYTES].copy_from_slice(&head.to_le_bytes());
    }

    fn mark(&self, i: usize) -> u32 {
        let at = self.marks_at() + i * MARK;
        get_mark::<MARK>(&self.bytes[at..at + MARK])
    }

    fn set_mark(&mut self, i: usize, head_len: usize, end: usize) {
        assert!(end <= Self::MAX_TAIL_BYTES, "tails of {end} bytes in a node");
        let at = self.marks_at() + i * MARK;
        let raw = (head_len as u32) << Self::END_BITS | end as u32;
        self.bytes[at..at + MARK].copy_from_slice(&raw.to_le_bytes()[..MARK]);
    }

    /// Moves the ends of the tails from `from` on by `by` bytes, which may be a negative number in
    /// two's complement: the bits above the ends come out as they were.
    fn shift_ends(&mut self, from: usize, by: u32) {
        let range = self.marks_at() + from * MARK..self.values_at();
        let (marks, _) = self.bytes[range].as_chunks_mut::<MARK>();
        for mark in marks {
            let raw = get_mark::<MARK>(mark).wrapping_add(by);
            mark.copy_from_slice(&raw.to_le_bytes()[..MARK]);
        }
    }

    /// Where the tail of key `i` begins, counted from the first tail.
    fn tail_start(&self, i: usize) -> usize {
        if i == 0 { 0 } else { self.mark(i - 1) as usize & Self::MAX_TAIL_BYTES }
    }

    /// Bytes of the head of key `i` that are real, and the tail.
    fn rest(&self, i: usize) -> (usize, &[u8]) {
        let mark = self.mark(i);
        let tails = self.tails_at();
        let end = mark as usize & Self::MAX_TAIL_BYTES;
        ((mark >> Self::END_BITS) as usize, &self.bytes[tails + self.tail_start(i)..tails + end])
    }
}

fn get_mark<const MARK: usize>(bytes: &[u8]) -> u32 {
    let mut raw = [0; 4];
    raw[..MARK].copy_from_slice(bytes);
    u32::from_le_bytes(raw)
}

/// Room left for growth: more would waste memory, less would reallocate too often.
fn slack(bytes: usize) -> usize {
    bytes / 16 + 16
}

/// How many bytes `a` and `b` have in common from the beginning.
pub(super) fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Fills a run whose number of keys and bytes are known, key by key.
struct Builder<const MARK: usize, const VALUE: usize> {
    run: Packed<MARK, VALUE>,
    next: usize,
    end: usize,
    key: Vec<u8>,
}

impl<const MARK: usize, const VALUE: usize> Builder<MARK, VALUE> {
    fn new(prefix: &[u8], count: usize, tail_bytes: usize) -> Self {
        let total = prefix.len() + count * Packed::<MARK, VALUE>::ENTRY_BYTES + tail_bytes;
        let mut bytes = Vec::new();
        bytes.reserve_exact(total + slack(total));
        bytes.extend_from_slice(prefix);
        bytes.resize(total, 0);
        let len = u16::try_from(count).expect("a node has few keys");
        let prefix_len = u16::try_from(prefix.len()).expect("keys are at most 4 KiB");
        Builder { run: Packed { bytes, len, prefix_len }, next: 0, end: 0, key: Vec::new() }
    }

    fn push(&mut self, suffix: &[u8], value: [u8; VALUE]) {
        let Chopped { head, head_len, tail } = Chopped::new(suffix);
        let at = self.run.tails_at() + self.end;
        self.run.bytes[at..at + tail.len()].copy_from_slice(tail);
        self.end += tail.len();
        self.run.set_head(self.next, head);
        self.run.set_mark(self.next, head_len, self.end);
        self.run.set_value(self.next, value);
        self.next += 1;
    }

    fn extend(&mut self, from: &Packed<MARK, VALUE>, range: Range<usize>) {
        let mut key = std::mem::take(&mut self.key);
        for i in range {
            key.clear();
            key.extend_from_slice(from.prefix());
            from.suffix_into(i, &mut key);
            self.push(&key[usize::from(self.run.prefix_len)..], from.value(i));
        }
        self.key = key;
    }

    fn finish(self) -> Packed<MARK, VALUE> {
        assert_eq!(self.next, self.run.len(), "keys of a built node");
        assert_eq!(self.run.tails_at() + self.end, self.run.bytes.len(), "bytes of a built node");
        self.run
    }
}
