//! What allocations really cost.

/// Bytes that an allocation of `bytes` takes from a 64-bit malloc: an 8-byte header, rounded up to 16 bytes,
/// at least 32. An allocation of nothing is none.
pub(super) const fn allocated_bytes(bytes: usize) -> usize {
    if bytes == 0 {
        return 0;
    }
    let chunk = (bytes + 8).next_multiple_of(16);
    if chunk < 32 { 32 } else { chunk }
}

#[cfg(test)]
mod tests {
    use super::allocated_bytes;

    #[test]
    fn an_allocation_costs_its_header_and_rounding() {
        assert_eq!([0, 1, 24, 25, 40, 41, 4096].map(allocated_bytes), [0, 32, 32, 48, 48, 64, 4112]);
    }
}
