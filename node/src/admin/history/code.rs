//! How numbers are kept for an hour: to one part in 256, in about a byte.
//!
//! A number becomes a short code that keeps its order: itself below 256, beyond that its highest bit's place and the seven bits below it,
//! rounded. A column of codes is kept as differences from one to the next, as variable-length integers (zigzag, seven bits a
//! byte), and a stretch of equal ones as its length. A difference never takes more than two bytes.

/// Numbers below are kept as they are.
const EXACT: u64 = 256;
/// Bits kept below the highest.
const BITS: u32 = 7;

/// The code of a number.
pub fn encode(number: u64) -> u16 {
    if number < EXACT {
        return number as u16;
    }
    let mut place = 63 - number.leading_zeros();
    let mut kept = number >> (place - BITS);
    kept += (number >> (place - BITS - 1)) & 1;
    if kept >> (BITS + 1) > 0 {
        (kept, place) = (kept >> 1, place + 1);
    }
    let below = kept & ((1 << BITS) - 1);
    (EXACT as u32 + (place - 8) * (1 << BITS) + below as u32) as u16
}

/// The number of a code, to within one part in 256.
pub fn decode(code: u16) -> u64 {
    if u64::from(code) < EXACT {
        return code.into();
    }
    let beyond = u32::from(code) - EXACT as u32;
    let (place, below) = (beyond / (1 << BITS) + 8, u64::from(beyond % (1 << BITS)));
    let number = u128::from(below | 1 << BITS) << (place - BITS);
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// Appends a column to `bytes`.
pub fn pack(column: impl IntoIterator<Item = u16>, bytes: &mut Vec<u8>) {
    let (mut before, mut same) = (0i32, 0u32);
    for code in column {
        let difference = i32::from(code) - before;
        before = code.into();
        if difference == 0 {
            same += 1;
            continue;
        }
        push_same(&mut same, bytes);
        push(zigzag(difference), bytes);
    }
    push_same(&mut same, bytes);
}

/// Reads a column of `len` codes from the front of `bytes`; gives what is behind it.
pub fn unpack<'a>(mut bytes: &'a [u8], len: usize, column: &mut Vec<u16>) -> &'a [u8] {
    column.clear();
    let mut before = 0i32;
    while column.len() < len {
        let (difference, rest) = pop(bytes);
        bytes = rest;
        if difference == 0 {
            let (same, rest) = pop(bytes);
            bytes = rest;
            column.extend(std::iter::repeat_n(before as u16, same as usize));
            continue;
        }
        before += unzigzag(difference);
        column.push(before as u16);
    }
    assert_eq!(column.len(), len, "a column ends where its block does");
    bytes
}

fn push_same(same: &mut u32, bytes: &mut Vec<u8>) {
    if *same > 0 {
        bytes.push(0);
        push(*same, bytes);
        *same = 0;
    }
}

fn zigzag(difference: i32) -> u32 {
    ((difference << 1) ^ (difference >> 31)) as u32
}

fn unzigzag(number: u32) -> i32 {
    (number >> 1) as i32 ^ -((number & 1) as i32)
}

fn push(mut number: u32, bytes: &mut Vec<u8>) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn pop(bytes: &[u8]) -> (u32, &[u8]) {
    let (mut number, mut shift) = (0, 0);
    for (at, byte) in bytes.iter().enumerate() {
        number |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return (number, &bytes[at + 1..]);
        }
        shift += 7;
    }
    unreachable!("a column is read as it was written")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back_to_one_part_in_256_and_keep_their_order() {
        let mut before = None;
        let mut number = 0u64;
        while number < u64::MAX / 2 {
            let (code, back) = (encode(number), decode(encode(number)));
            assert!(back.abs_diff(number) as f64 <= number as f64 / 256.0, "{number} comes back as {back}");
            assert!(before.is_none_or(|before| before <= code), "{number}");
            before = Some(code);
            number += 1 + number / 1000;
        }
        assert_eq!(decode(encode(u64::MAX)), u64::MAX);
        assert!(zigzag(i32::from(encode(u64::MAX))) < 1 << 14, "a difference takes two bytes at most");
        assert!((0..EXACT).all(|number| decode(encode(number)) == number));
    }

    #[test]
    fn columns_come_back_as_they_went() {
        let wild = (0..30).map(|n: u64| encode(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (n % 60)));
        let columns: [Vec<u16>; 5] = [
            vec![0; 30],
            vec![7; 30],
            (0..30).map(|n| n % 3).collect(),
            wild.collect(),
            (0..30).map(|n| if n == 29 { 7551 } else { 0 }).collect(),
        ];
        let mut bytes = Vec::new();
        columns.iter().for_each(|column| pack(column.iter().copied(), &mut bytes));
        let (mut rest, mut back) = (bytes.as_slice(), Vec::new());
        for column in &columns {
            rest = unpack(rest, 30, &mut back);
            assert_eq!(&back, column);
        }
        assert!(rest.is_empty());
        let mut idle = Vec::new();
        pack([0; 30], &mut idle);
        assert_eq!(idle.len(), 2, "who does nothing takes next to nothing");
    }
}
