//! A unified kernel image: systemd's stub with the kernel, its first file system and its command line as further sections.
//!
//! Source of the layout: *PE Format* (Microsoft), and the *Unified Kernel Image* page of the UAPI group.

use thiserror::Error;

/// What goes into an image beside the stub.
#[derive(Debug)]
pub struct Parts<'a> {
    /// `/etc/os-release`.
    pub os_release: &'a [u8],
    /// The kernel's parameters.
    pub command_line: &'a str,
    /// The kernel's release.
    pub release: &'a str,
    /// The first file system.
    pub initrd: &'a [u8],
    /// The kernel.
    pub kernel: &'a [u8],
}

/// Why there is no image.
#[derive(Debug, PartialEq, Eq, Error)]
pub enum UkiError {
    /// The stub is something else.
    #[error("systemd's stub is not a PE32+ image of 64 bits ({0}); install another systemd-boot-efi")]
    NotAnImage(&'static str),
    /// Its header is full.
    #[error(
        "systemd's stub has room for {room} more sections, and {wanted} are needed; install another systemd-boot-efi"
    )]
    NoRoom {
        /// How many more fit.
        room: usize,
        /// How many are to go in.
        wanted: usize,
    },
    /// More than a header can say.
    #[error("the kernel and its first file system are more than 2 GiB together; that is no kernel")]
    TooLarge,
}

const SECTION_HEADER_BYTES: usize = 40;
/// A section of initialised data that is only read.
const READ_ONLY_DATA: u32 = 0x4000_0040;
/// Beyond the file header.
const OPTIONAL_HEADER: usize = 24;
const PE32_PLUS: u16 = 0x20b;
const MOST_BYTES: usize = 2 << 30;

/// Puts the image together.
pub fn build(stub: &[u8], parts: &Parts) -> Result<Vec<u8>, UkiError> {
    let sections: [(&str, &[u8]); 5] = [
        (".osrel", parts.os_release),
        (".cmdline", parts.command_line.as_bytes()),
        (".uname", parts.release.as_bytes()),
        (".initrd", parts.initrd),
        (".linux", parts.kernel),
    ];
    if sections.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > MOST_BYTES {
        return Err(UkiError::TooLarge);
    }
    let mut image = Image::parse(stub)?;
    let room = image.room();
    if room < sections.len() {
        return Err(UkiError::NoRoom { room, wanted: sections.len() });
    }
    for (name, bytes) in sections {
        image.append(name, bytes);
    }
    Ok(image.bytes)
}

/// The content of a section of an image.
pub fn section<'a>(image: &'a [u8], name: &str) -> Result<&'a [u8], UkiError> {
    let parsed = Image::parse(image)?;
    for number in 0..parsed.sections() {
        let header = parsed.table + number * SECTION_HEADER_BYTES;
        let (length, at) = (parsed.get(header + 8) as usize, parsed.get(header + 20) as usize);
        if image[header..header + 8]
            .strip_prefix(name.as_bytes())
            .is_some_and(|rest| rest.iter().all(|b| *b == 0))
        {
            return image.get(at..at + length).ok_or(UkiError::NotAnImage("a section is cut short"));
        }
    }
    Err(UkiError::NotAnImage("it has no kernel"))
}

/// A PE image that grows at its end.
struct Image {
    bytes: Vec<u8>,
    /// Where the file header begins.
    header: usize,
    /// Where the table of sections begins.
    table: usize,
    section_alignment: usize,
    file_alignment: usize,
}

impl Image {
    fn parse(stub: &[u8]) -> Result<Image, UkiError> {
        let wrong = UkiError::NotAnImage;
        let u16_at = |at: usize| Some(u16::from_le_bytes(stub.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(stub.get(at..at + 4)?.try_into().ok()?));
        if stub.get(..2) != Some(b"MZ") {
            return Err(wrong("it does not begin with MZ"));
        }
        let header = u32_at(0x3c).ok_or(wrong("it is cut short"))? as usize;
        if stub.get(header..header + 4) != Some(b"PE\0\0") {
            return Err(wrong("it has no PE header"));
        }
        let cut = || wrong("it is cut short");
        let optional = header + OPTIONAL_HEADER;
        if u16_at(optional).ok_or_else(cut)? != PE32_PLUS {
            return Err(wrong("its header is another's"));
        }
        // The fields up to the sizes and the checksum are read and set below.
        if stub.len() < optional + 68 {
            return Err(cut());
        }
        let table = optional + u16_at(header + 20).ok_or_else(cut)? as usize;
        let image = Image {
            section_alignment: u32_at(optional + 32).ok_or_else(cut)? as usize,
            file_alignment: u32_at(optional + 36).ok_or_else(cut)? as usize,
            bytes: stub.to_vec(),
            header,
            table,
        };
        if !image.section_alignment.is_power_of_two() || !image.file_alignment.is_power_of_two() {
            return Err(wrong("its alignment is not a power of two"));
        }
        let end = image.table + image.sections() * SECTION_HEADER_BYTES;
        if image.headers_end() > stub.len() || end > image.headers_end() {
            return Err(wrong("its table of sections has no end"));
        }
        Ok(image)
    }

    fn get(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().expect("four bytes"))
    }

    fn set(&mut self, at: usize, value: usize) {
        let value = u32::try_from(value).expect("no more than 2 GiB go in");
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn sections(&self) -> usize {
        u16::from_le_bytes([self.bytes[self.header + 6], self.bytes[self.header + 7]]) as usize
    }

    fn headers_end(&self) -> usize {
        self.get(self.header + OPTIONAL_HEADER + 60) as usize
    }

    /// How many more sections the header has room for.
    fn room(&self) -> usize {
        let end = self.table + self.sections() * SECTION_HEADER_BYTES;
        (self.headers_end() - end) / SECTION_HEADER_BYTES
    }

    fn append(&mut self, name: &str, content: &[u8]) {
        assert!(name.len() <= 8 && self.room() > 0, "a section's name is short, and there is room for it");
        let optional = self.header + OPTIONAL_HEADER;
        let address = (self.get(optional + 56) as usize).next_multiple_of(self.section_alignment);
        let at = self.bytes.len().next_multiple_of(self.file_alignment);
        let length = content.len().next_multiple_of(self.file_alignment);
        self.bytes.resize(at, 0);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(at + length, 0);
        let header = self.table + self.sections() * SECTION_HEADER_BYTES;
        self.bytes[header..header + SECTION_HEADER_BYTES].fill(0);
        self.bytes[header..header + name.len()].copy_from_slice(name.as_bytes());
        for (field, value) in
            [(8, content.len()), (12, address), (16, length), (20, at), (36, READ_ONLY_DATA as usize)]
        {
            self.set(header + field, value);
        }
        let sections = u16::try_from(self.sections() + 1).expect("as many as there was room for");
        self.bytes[self.header + 6..self.header + 8].copy_from_slice(&sections.to_le_bytes());
        let initialised = self.get(optional + 8) as usize + length;
        self.set(optional + 8, initialised);
        self.set(optional + 56, (address + content.len()).next_multiple_of(self.section_alignment));
        // The checksum is for drivers; firmware does not look at it.
        self.set(optional + 64, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTS: Parts = Parts {
        os_release: b"ID=debian\n",
        command_line: "root=x quiet",
        release: "6.12",
        initrd: &[7; 5000],
        kernel: &[9; 9000],
    };

    /// A stub with one section and room for so many headers.
    fn stub(headers: usize) -> Vec<u8> {
        let mut bytes = vec![0u8; 0x800];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x40;
        bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
        bytes[0x46] = 1;
        bytes[0x54] = 112;
        bytes[0x58..0x5a].copy_from_slice(&PE32_PLUS.to_le_bytes());
        let mut put = |at: usize, value: u32| bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(0x58 + 32, 4096);
        put(0x58 + 36, 512);
        put(0x58 + 56, 0x2000);
        put(0x58 + 60, (0x58 + 112 + SECTION_HEADER_BYTES * headers) as u32);
        bytes
    }

    #[test]
    fn sections_follow_each_other_in_the_file_and_in_memory() {
        let built = build(&stub(6), &PARTS).unwrap();
        assert_eq!(section(&built, ".initrd"), Ok(PARTS.initrd));
        assert_eq!(section(&built, ".init"), Err(UkiError::NotAnImage("it has no kernel")));
        let image = Image::parse(&built).unwrap();
        assert_eq!(image.sections(), 6);
        let (mut file_end, mut memory_end) = (0x800, 0x2000);
        for (number, (name, length)) in
            [(".osrel", 10), (".cmdline", 12), (".uname", 4), (".initrd", 5000), (".linux", 9000)]
                .into_iter()
                .enumerate()
        {
            let header = image.table + (number + 1) * SECTION_HEADER_BYTES;
            assert!(image.bytes[header..].starts_with(name.as_bytes()), "{name}");
            let field = |at: usize| image.get(header + at) as usize;
            assert_eq!((field(8), field(20), field(12)), (length, file_end, memory_end), "{name}");
            assert!(field(20).is_multiple_of(512) && field(12).is_multiple_of(4096));
            file_end += field(16);
            memory_end = (memory_end + length).next_multiple_of(4096);
        }
        assert_eq!(image.bytes.len(), file_end);
        assert_eq!(image.get(0x58 + 56) as usize, memory_end);
        let kernel = image.get(image.table + 5 * SECTION_HEADER_BYTES + 20) as usize;
        assert_eq!(&image.bytes[kernel..kernel + 9000], PARTS.kernel);
    }

    #[test]
    fn what_is_no_stub_or_has_no_room_is_refused() {
        assert_eq!(build(&stub(4), &PARTS), Err(UkiError::NoRoom { room: 3, wanted: 5 }));
        let whole = stub(6);
        for cut in 0..0x58 + 112 + SECTION_HEADER_BYTES * 6 {
            assert!(matches!(build(&whole[..cut], &PARTS), Err(UkiError::NotAnImage(_))), "cut at {cut}");
        }
        let mut other = stub(6);
        other[0x58] = 0x0a;
        assert_eq!(build(&other, &PARTS), Err(UkiError::NotAnImage("its header is another's")));
        other[..2].copy_from_slice(b"\x7fE");
        assert_eq!(build(&other, &PARTS), Err(UkiError::NotAnImage("it does not begin with MZ")));
    }
}
