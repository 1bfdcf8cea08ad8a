//! A fixed VHD: the raw disk, and behind it a footer that says how long it is.
//!
//! Source: *Virtual Hard Disk Image Format Specification* (Microsoft, 2006). Azure takes fixed ones of a whole number of
//! MiB.

/// Azure takes disks of a multiple of this.
pub const ALIGNMENT_BYTES: u64 = 1 << 20;
/// Bytes of the footer.
pub const FOOTER_BYTES: usize = 512;
/// Seconds from 1970 to 2000, from which the format counts.
const EPOCH_2000_S: u64 = 946_684_800;
const SECTOR_BYTES: u64 = 512;

/// The footer of a fixed disk of so many bytes, made at a time and called by an id.
pub fn footer(bytes: u64, unix_s: u64, id: [u8; 16]) -> [u8; FOOTER_BYTES] {
    assert!(bytes > 0 && bytes.is_multiple_of(ALIGNMENT_BYTES), "whole MiB, as Azure wants them");
    let (cylinders, heads, sectors) = geometry(bytes / SECTOR_BYTES);
    let created = u32::try_from(unix_s.saturating_sub(EPOCH_2000_S)).unwrap_or(u32::MAX);
    let mut footer = [0; FOOTER_BYTES];
    let mut put = |at: usize, field: &[u8]| footer[at..at + field.len()].copy_from_slice(field);
    put(0, b"conectix");
    // Reserved, always set; version 1.0; no next header, as of a fixed disk.
    put(8, &2u32.to_be_bytes());
    put(12, &0x0001_0000u32.to_be_bytes());
    put(16, &u64::MAX.to_be_bytes());
    put(24, &created.to_be_bytes());
    put(28, b"lode");
    put(32, &0x0001_0000u32.to_be_bytes());
    // The host that made it: the format knows Windows and the Macintosh only.
    put(36, b"Wi2k");
    put(40, &bytes.to_be_bytes());
    put(48, &bytes.to_be_bytes());
    put(56, &cylinders.to_be_bytes());
    put(58, &[heads, sectors]);
    // A fixed disk.
    put(60, &2u32.to_be_bytes());
    put(68, &id);
    let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
    footer[64..68].copy_from_slice(&(!sum).to_be_bytes());
    footer
}

/// Cylinders, heads and sectors of a track, as the specification's appendix reckons them.
fn geometry(sectors: u64) -> (u16, u8, u8) {
    let sectors = sectors.min(65_535 * 16 * 255);
    if sectors >= 65_535 * 16 * 63 {
        return ((sectors / 255 / 16) as u16, 16, 255);
    }
    let mut per_track = 17;
    let mut tracks = sectors / per_track;
    let mut heads = tracks.div_ceil(1024).max(4);
    if tracks >= heads * 1024 || heads > 16 {
        (per_track, heads) = (31, 16);
        tracks = sectors / per_track;
    }
    if tracks >= heads * 1024 {
        (per_track, heads) = (63, 16);
        tracks = sectors / per_track;
    }
    ((tracks / heads) as u16, heads as u8, per_track as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_footer_is_as_the_specification_has_it() {
        let bytes = 2u64 << 30;
        let footer = footer(bytes, EPOCH_2000_S + 5, [3; 16]);
        assert_eq!(&footer[..8], b"conectix");
        assert_eq!(u64::from_be_bytes(footer[16..24].try_into().unwrap()), u64::MAX);
        assert_eq!(footer[24..28], [0, 0, 0, 5]);
        assert_eq!(u64::from_be_bytes(footer[40..48].try_into().unwrap()), bytes);
        assert_eq!(footer[40..48], footer[48..56]);
        assert_eq!(footer[60..64], [0, 0, 0, 2]);
        assert_eq!(footer[68..84], [3; 16]);
        assert!(footer[84..].iter().all(|byte| *byte == 0));
        let written = u32::from_be_bytes(footer[64..68].try_into().unwrap());
        let sum: u32 = footer.iter().map(|byte| u32::from(*byte)).sum();
        let of_itself: u32 = footer[64..68].iter().map(|byte| u32::from(*byte)).sum();
        assert_eq!(written, !(sum - of_itself));
    }

    #[test]
    fn the_geometry_is_that_of_the_appendix() {
        for (mib, expected) in
            [(1, (30, 4, 17)), (512, (1040, 16, 63)), (2048, (4161, 16, 63)), (131_072, (65_535, 16, 255))]
        {
            let (cylinders, heads, per_track) = geometry(mib * 2048);
            let held = u64::from(cylinders) * u64::from(heads) * u64::from(per_track);
            assert!(held <= mib * 2048, "{mib} MiB: {held} sectors");
            assert_eq!((cylinders, heads, per_track), expected, "{mib} MiB");
        }
    }
}
