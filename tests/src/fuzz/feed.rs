//! Bytes taken as choices, and a stream given in pieces.

/// Takes choices from the front of bytes; when they are used up, every choice is 0.
pub struct Feed<'a>(&'a [u8]);

impl<'a> Feed<'a> {
    /// From all of these.
    pub fn new(bytes: &'a [u8]) -> Feed<'a> {
        Feed(bytes)
    }

    /// Whether all are used up.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// At most so many bytes.
    pub fn take(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        self.take(usize::MAX)
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// A number of so many bytes.
    pub fn number(&mut self, bytes: usize) -> u64 {
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }
}

/// Gives a stream to `take` in pieces whose lengths come from `cuts`, in turn: a stream means the same however it is cut.
/// `take` gives false where it wants no more.
pub fn in_pieces(stream: &[u8], cuts: &[u8], mut take: impl FnMut(&[u8]) -> bool) {
    let mut rest = stream;
    let mut lengths = cuts.iter().map(|cut| usize::from(*cut) + 1).cycle();
    while !rest.is_empty() {
        let most = lengths.next().unwrap_or(usize::MAX);
        let (piece, after) = rest.split_at(most.min(rest.len()));
        rest = after;
        if !take(piece) {
            return;
        }
    }
}
