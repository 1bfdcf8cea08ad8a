//! Values of a run of keys: numbers of so many bytes, little-endian. Where the highest two bytes of all of them are
//! within 256 of each other, each is stored less what the run has as their base, and takes a byte less: locations of records
//! of about one length, counts of keys.

/// Largest base: what is stored never carries beyond a value's bytes.
pub(super) const MAX_BASE: u16 = u16::MAX - SPAN;
/// The highest two bytes of values are so much above the base at most.
const SPAN: u16 = u8::MAX as u16;

/// The highest two bytes of a value.
fn top<const VALUE: usize>(value: [u8; VALUE]) -> u16 {
    u16::from_le_bytes([value[VALUE - 2], value[VALUE - 1]])
}

/// Between which the highest two bytes of values lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct TopSpan {
    lowest: u16,
    highest: u16,
}

impl TopSpan {
    /// Of no values.
    pub const NONE: TopSpan = TopSpan { lowest: u16::MAX, highest: 0 };

    /// With one more value.
    pub fn with<const VALUE: usize>(self, value: [u8; VALUE]) -> TopSpan {
        self.and(TopSpan { lowest: top(value), highest: top(value) })
    }

    /// Of both.
    pub fn and(self, other: TopSpan) -> TopSpan {
        TopSpan { lowest: self.lowest.min(other.lowest), highest: self.highest.max(other.highest) }
    }

    /// What they are stored less, if that makes them shorter.
    pub fn base(self) -> Option<u16> {
        let span = self.highest.saturating_sub(self.lowest);
        // Others may come on either side.
        let base = self.lowest.saturating_sub(SPAN.saturating_sub(span) / 2).min(MAX_BASE);
        (span <= SPAN).then_some(base)
    }
}

/// How a run's values are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Values<const VALUE: usize> {
    /// What they are stored less, of their highest two bytes, if they take a byte less.
    pub base: Option<u16>,
}

impl<const VALUE: usize> Values<VALUE> {
    /// Bytes of each.
    pub fn bytes(self) -> usize {
        VALUE - usize::from(self.base.is_some())
    }

    /// Whether a value can be stored.
    pub fn takes(self, value: [u8; VALUE]) -> bool {
        self.base.is_none_or(|base| top(value).checked_sub(base).is_some_and(|above| above <= SPAN))
    }

    /// A value as it is stored, in the first [`bytes`](Self::bytes).
    pub fn stored(self, mut value: [u8; VALUE]) -> [u8; VALUE] {
        assert!(self.takes(value), "a value that is too far from the others");
        if let Some(base) = self.base {
            let above = top(value) - base;
            value[VALUE - 2..].copy_from_slice(&above.to_le_bytes());
        }
        value
    }

    /// A value that is stored in these bytes.
    #[inline]
    pub fn restored(self, stored: &[u8]) -> [u8; VALUE] {
        let mut value = [0; VALUE];
        let Some(base) = self.base else {
            value.copy_from_slice(stored);
            return value;
        };
        value[..VALUE - 1].copy_from_slice(stored);
        let top = u16::from(value[VALUE - 2]) + base;
        value[VALUE - 2..].copy_from_slice(&top.to_le_bytes());
        value
    }
}
