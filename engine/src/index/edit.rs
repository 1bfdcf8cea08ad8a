//! Changes of a packed run: in place within its block where that will do, else by building it anew.

use std::ops::Range;

use super::arena::{Handle, IndexArena};
use super::packed::{
    BASED, Chopped, HEAD_BYTES, HEADER_BYTES, NARROW_SUFFIX_BYTES, Packed, Shape, Sizes, WIDE, common_prefix,
};

/// A run in an arena, to be changed. Its block may move.
pub(super) struct Run<'a, const VALUE: usize> {
    arena: &'a mut IndexArena,
    /// Where it is.
    pub block: Handle,
}

impl<'a, const VALUE: usize> Run<'a, VALUE> {
    /// The run in this block.
    pub fn at(arena: &'a mut IndexArena, block: Handle) -> Self {
        Run { arena, block }
    }

    /// To be read.
    pub fn read(&self) -> Packed<'_, VALUE> {
        Packed::new(self.arena.bytes(self.block))
    }

    /// Replaces the value of key `i`.
    pub fn set_value(&mut self, i: usize, value: [u8; VALUE]) {
        let mut shape = self.read().shape();
        assert!(i < shape.len, "value {i} of {}", shape.len);
        if !shape.values.takes(value) {
            let run = self.read();
            let sizes = run.under_prefix(0..run.len(), shape.prefix_len).and(Sizes::NONE.with(0, value));
            let mut builder = Builder::new(run.prefix(), run.len(), sizes);
            builder.extend(run, 0..run.len());
            self.replace(builder);
            shape = self.read().shape();
        }
        let (at, stored) = (shape.values_at() + i * shape.value_bytes(), shape.values.stored(value));
        let bytes = self.arena.bytes_mut(self.block);
        bytes[at..at + shape.value_bytes()].copy_from_slice(&stored[..shape.value_bytes()]);
    }

    /// Puts `key` in place `at`, which must be where [`Packed::search`] said it would go.
    pub fn insert_at(&mut self, at: usize, key: &[u8], value: [u8; VALUE]) {
        let run = self.read();
        assert!(at <= run.len(), "insert at {at} of {}", run.len());
        let (shape, used) = (run.shape(), run.used_bytes());
        let shared = common_prefix(run.prefix(), key);
        let suffix = &key[shared..];
        let is_too_long = suffix.len() > NARROW_SUFFIX_BYTES && !shape.wide;
        if shared < shape.prefix_len || is_too_long || !shape.values.takes(value) {
            let mut builder = Builder::for_keys(&run, shared, suffix.len(), value);
            builder.extend(run, 0..at);
            builder.push(Chopped::new(suffix), value);
            builder.extend(run, at..run.len());
            return self.replace(builder);
        }
        let chopped = Chopped::new(suffix);
        let start = run.tail_start(at);
        let grown = used + shape.entry_bytes() + chopped.tail.len();
        let gaps = Gaps::new(shape, (at, start), chopped.tail.len());
        let has_moved = self.arena.copied(self.block, (used, grown), |old, new| gaps.copy(old, new));
        let bytes = &mut self.arena.bytes_mut(self.block)[..grown];
        if !has_moved {
            gaps.open(bytes, used);
        }
        fill_gaps(bytes, shape, (at, start), &chopped, value);
    }

    /// Takes key `at` out; there must be another.
    pub fn remove_at(&mut self, at: usize) {
        let run = self.read();
        assert!(at < run.len() && run.len() > 1, "remove {at} of {}", run.len());
        let (shape, used, start) = (run.shape(), run.used_bytes(), run.tail_start(at));
        let tail = run.chopped(at).tail.len();
        remove_suffix(&mut self.arena.bytes_mut(self.block)[..used], shape, at, start..start + tail);
        self.arena.resize(self.block, used, used - shape.entry_bytes() - tail);
    }

    /// Replaces key `at` with another that leaves the order as it is.
    pub fn set_key(&mut self, at: usize, key: &[u8]) {
        let value = self.read().value(at);
        if self.read().len() == 1 {
            return self.replace(Builder::one(key, value));
        }
        self.remove_at(at);
        self.insert_at(at, key, value);
    }

    /// Keeps the keys before `middle`, and gives the others as a new block.
    pub fn split_off(&mut self, middle: usize) -> Handle {
        let run = self.read();
        let (left, right) = (Builder::slice(run, 0..middle), Builder::slice(run, middle..run.len()));
        self.replace(left);
        right.store(self.arena)
    }

    /// Takes the place of this run.
    pub fn replace(&mut self, builder: Builder<VALUE>) {
        let used = self.read().used_bytes();
        self.arena.replace(self.block, used, &builder.into_bytes());
    }

    /// Puts another run into a block of its own.
    pub fn store_beside(&mut self, builder: Builder<VALUE>) -> Handle {
        builder.store(self.arena)
    }

    /// Gives the block back.
    pub fn free(self) {
        let used = self.read().used_bytes();
        self.arena.free(self.block, used);
    }
}

fn set_u16(bytes: &mut [u8], at: usize, value: usize) {
    let value = u16::try_from(value).expect("a node takes less than 64 KiB");
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

fn set_entry<const VALUE: usize>(
    bytes: &mut [u8],
    shape: Shape<VALUE>,
    i: usize,
    (head, len): (u16, usize),
    value: [u8; VALUE],
) {
    let at = shape.heads_at() + i * HEAD_BYTES;
    bytes[at..at + HEAD_BYTES].copy_from_slice(&head.to_le_bytes());
    bytes[7] |= u8::from(len < HEAD_BYTES);
    if shape.wide {
        set_u16(bytes, shape.lengths_at() + 2 * i, len);
    } else {
        bytes[shape.lengths_at() + i] = u8::try_from(len).expect("a narrow run has short suffixes");
    }
    let (width, at) = (shape.value_bytes(), shape.values_at() + i * shape.value_bytes());
    bytes[at..at + width].copy_from_slice(&shape.values.stored(value)[..width]);
}

/// Where a key's head, length, value and tail go: the bytes before which room is made, and how many.
struct Gaps([(usize, usize); 4]);

impl Gaps {
    /// For key `at`, whose tail begins at `start` and has `tail_len` bytes.
    fn new<const VALUE: usize>(shape: Shape<VALUE>, (at, start): (usize, usize), tail_len: usize) -> Gaps {
        let lengths = shape.length_bytes();
        Gaps([
            (shape.heads_at() + at * HEAD_BYTES, HEAD_BYTES),
            (shape.lengths_at() + at * lengths, lengths),
            (shape.values_at() + at * shape.value_bytes(), shape.value_bytes()),
            (shape.tails_at() + start, tail_len),
        ])
    }

    /// Opens them in a run of `used` bytes.
    fn open(&self, bytes: &mut [u8], used: usize) {
        let (mut end, mut moved) = (used, self.0.iter().map(|(_, len)| len).sum::<usize>());
        // From the back, so that nothing is overwritten before it has moved.
        for (at, len) in self.0.into_iter().rev() {
            bytes.copy_within(at..end, at + moved);
            (end, moved) = (at, moved - len);
        }
    }

    /// Copies a run so that they are open in the copy.
    fn copy(&self, old: &[u8], new: &mut [u8]) {
        let (mut begin, mut moved) = (0, 0);
        for (at, len) in self.0 {
            new[begin + moved..at + moved].copy_from_slice(&old[begin..at]);
            (begin, moved) = (at, moved + len);
        }
        new[begin + moved..].copy_from_slice(&old[begin..]);
    }
}

/// Puts a key into gaps that are open for it.
fn fill_gaps<const VALUE: usize>(
    bytes: &mut [u8],
    shape: Shape<VALUE>,
    (at, start): (usize, usize),
    chopped: &Chopped<'_>,
    value: [u8; VALUE],
) {
    let shape = Shape { len: shape.len + 1, ..shape };
    set_u16(bytes, 0, shape.len);
    set_u16(bytes, 4, bytes.len());
    set_entry(bytes, shape, at, (chopped.head, chopped.len), value);
    let tail_at = shape.tails_at() + start;
    bytes[tail_at..tail_at + chopped.tail.len()].copy_from_slice(chopped.tail);
}

/// Closes the gaps of key `at`, whose tail is at `tail` among the tails.
fn remove_suffix<const VALUE: usize>(bytes: &mut [u8], shape: Shape<VALUE>, at: usize, tail: Range<usize>) {
    let (entry, lengths) = (shape.entry_bytes(), shape.length_bytes());
    let head_gap = shape.heads_at() + at * HEAD_BYTES;
    let length_gap = shape.lengths_at() + at * lengths;
    let value_gap = shape.values_at() + at * shape.value_bytes();
    let tail_gap = shape.tails_at() + tail.start;
    bytes.copy_within(head_gap + HEAD_BYTES..length_gap, head_gap);
    bytes.copy_within(length_gap + lengths..value_gap, length_gap - HEAD_BYTES);
    bytes.copy_within(value_gap + shape.value_bytes()..tail_gap, value_gap - HEAD_BYTES - lengths);
    bytes.copy_within(tail_gap + tail.len().., tail_gap - entry);
    set_u16(bytes, 0, shape.len - 1);
    set_u16(bytes, 4, bytes.len() - entry - tail.len());
}

/// A run in the making, whose number of keys and bytes are known, key by key.
pub(super) struct Builder<const VALUE: usize> {
    bytes: Vec<u8>,
    shape: Shape<VALUE>,
    next: usize,
    end: usize,
    key: Vec<u8>,
}

impl<const VALUE: usize> Builder<VALUE> {
    fn new(prefix: &[u8], len: usize, sizes: Sizes) -> Self {
        let shape: Shape<VALUE> = sizes.shape(len, prefix.len());
        let mut bytes = vec![0; shape.tails_at() + sizes.tails];
        let used = bytes.len();
        set_u16(&mut bytes, 0, len);
        set_u16(&mut bytes, 2, prefix.len());
        set_u16(&mut bytes, 4, used);
        bytes[6] = (u8::from(shape.wide) * WIDE) | (u8::from(shape.values.base.is_some()) * BASED);
        set_u16(&mut bytes, 8, usize::from(shape.values.base.unwrap_or(0)));
        bytes[HEADER_BYTES..HEADER_BYTES + prefix.len()].copy_from_slice(prefix);
        Builder { bytes, shape, next: 0, end: shape.tails_at(), key: Vec::new() }
    }

    /// A run of one key.
    pub fn one(key: &[u8], value: [u8; VALUE]) -> Self {
        let mut builder = Builder::new(key, 1, Sizes::NONE.with(0, value));
        builder.push(Chopped::new(&[]), value);
        builder
    }

    /// Of these keys, in ascending order, of which there is at least one.
    pub fn of_all(entries: &[(Vec<u8>, [u8; VALUE])]) -> Self {
        let (first, last) = (&entries[0].0, &entries[entries.len() - 1].0);
        let prefix = &first[..common_prefix(first, last)];
        let sizes = entries
            .iter()
            .fold(Sizes::NONE, |sizes, (key, value)| sizes.with(key.len() - prefix.len(), *value));
        let mut builder = Builder::new(prefix, entries.len(), sizes);
        for (key, value) in entries {
            builder.push(Chopped::new(&key[prefix.len()..]), *value);
        }
        builder
    }

    /// For the keys of `run` and one more, whose suffix has `suffix_len` bytes, under a prefix that is no longer.
    fn for_keys(run: &Packed<'_, VALUE>, prefix_len: usize, suffix_len: usize, value: [u8; VALUE]) -> Self {
        let sizes = run.under_prefix(0..run.len(), prefix_len).with(suffix_len, value);
        Builder::new(&run.prefix()[..prefix_len], run.len() + 1, sizes)
    }

    /// The keys of `range`, of which there is at least one, with the longest prefix that they share.
    pub fn slice(run: Packed<'_, VALUE>, range: Range<usize>) -> Self {
        let mut prefix = run.key(range.start);
        prefix.truncate(common_prefix(&prefix, &run.key(range.end - 1)));
        let sizes = run.under_prefix(range.clone(), prefix.len());
        let mut builder = Builder::new(&prefix, range.len(), sizes);
        builder.extend(run, range);
        builder
    }

    /// Both runs in one. The caller knows that they are in order.
    pub fn merged(left: Packed<'_, VALUE>, right: Packed<'_, VALUE>) -> Self {
        let mut prefix = left.key(0);
        prefix.truncate(shared_by(left, right));
        let sizes = merged_sizes(left, right, prefix.len());
        let mut builder = Builder::new(&prefix, left.len() + right.len(), sizes);
        builder.extend(left, 0..left.len());
        builder.extend(right, 0..right.len());
        builder
    }

    /// The next key's suffix.
    fn push(&mut self, suffix: Chopped<'_>, value: [u8; VALUE]) {
        set_entry(&mut self.bytes, self.shape, self.next, (suffix.head, suffix.len), value);
        self.bytes[self.end..self.end + suffix.tail.len()].copy_from_slice(suffix.tail);
        self.end += suffix.tail.len();
        self.next += 1;
    }

    fn extend(&mut self, from: Packed<'_, VALUE>, range: Range<usize>) {
        let (own, other) = (self.shape, from.shape());
        if (other.prefix_len, other.wide, other.values) == (own.prefix_len, own.wide, own.values) {
            return self.extend_alike(from, range);
        }
        let mut key = std::mem::take(&mut self.key);
        for (suffix, i) in from.suffixes(range.clone()).zip(range) {
            key.clear();
            key.extend_from_slice(from.prefix());
            suffix.append_to(&mut key);
            self.push(Chopped::new(&key[self.shape.prefix_len..]), from.value(i));
        }
        self.key = key;
    }

    /// Where suffixes stay as they are, they are copied in one go.
    fn extend_alike(&mut self, from: Packed<'_, VALUE>, range: Range<usize>) {
        let (own, other) = (self.shape, from.shape());
        self.bytes[7] |= u8::from(from.has_short());
        let columns = [
            (own.heads_at(), other.heads_at(), HEAD_BYTES),
            (own.lengths_at(), other.lengths_at(), own.length_bytes()),
            (own.values_at(), other.values_at(), own.value_bytes()),
        ];
        for (to, at, width) in columns {
            let (to, column) = (to + self.next * width, from.column(at, width, &range));
            self.bytes[to..to + column.len()].copy_from_slice(column);
        }
        let tails = from.tails(range.clone());
        self.bytes[self.end..self.end + tails.len()].copy_from_slice(tails);
        self.end += tails.len();
        self.next += range.len();
    }

    /// The run.
    pub fn into_bytes(self) -> Vec<u8> {
        assert_eq!(self.next, self.shape.len, "keys of a built node");
        assert_eq!(self.end, self.bytes.len(), "bytes of a built node");
        self.bytes
    }

    /// Puts the run into a block of its own.
    pub fn store(self, arena: &mut IndexArena) -> Handle {
        arena.store(&self.into_bytes())
    }
}

/// Length of the prefix that the keys of two neighbouring runs share.
pub(super) fn shared_by<const VALUE: usize>(left: Packed<'_, VALUE>, right: Packed<'_, VALUE>) -> usize {
    common_prefix(&left.key(0), &right.key(right.len() - 1))
}

fn merged_sizes<const VALUE: usize>(
    left: Packed<'_, VALUE>,
    right: Packed<'_, VALUE>,
    prefix_len: usize,
) -> Sizes {
    left.under_prefix(0..left.len(), prefix_len).and(right.under_prefix(0..right.len(), prefix_len))
}

/// Bytes of the body of [`Builder::merged`].
pub(super) fn merged_body_bytes<const VALUE: usize>(
    left: Packed<'_, VALUE>,
    right: Packed<'_, VALUE>,
) -> usize {
    let shared = shared_by(left, right);
    let (len, sizes) = (left.len() + right.len(), merged_sizes(left, right, shared));
    len * sizes.shape::<VALUE>(len, shared).entry_bytes() + sizes.tails
}
