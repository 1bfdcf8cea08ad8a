//! Anonymous memory that the kernel may read and write, unmapped only when its owner is dropped.

use std::io;
use std::ptr::NonNull;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

/// A private anonymous mapping, page-aligned and zeroed.
#[derive(Debug)]
pub(super) struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Maps `len` bytes. Pages are taken from the system on first use.
    pub(super) fn new(len: usize) -> io::Result<Mapping> {
        assert!(len > 0, "an empty mapping");
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: a fresh mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, flags) }?;
        let start = NonNull::new(start.cast::<u8>())
            .ok_or_else(|| io::Error::other("the kernel mapped memory at address 0"))?;
        Ok(Mapping { start, len })
    }

    /// Asks for small pages in the first `small` bytes and for huge ones after; a refusal does not matter.
    pub(super) fn prefer_pages(&self, small: usize) {
        if cfg!(miri) {
            return; // It has no such call, and no pages.
        }
        let small = small.min(self.len);
        // SAFETY: both ranges lie in this mapping, and the advice changes no contents.
        unsafe {
            let start = self.start.as_ptr();
            let _ = madvise(start.cast(), small, Advice::LinuxNoHugepage);
            let _ = madvise(start.add(small).cast(), self.len - small, Advice::LinuxHugepage);
        }
    }

    /// First byte.
    pub(super) fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Length in bytes.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Address of byte `offset`, with `len` bytes after it inside the mapping.
    pub(super) fn at(&self, offset: usize, len: usize) -> *mut u8 {
        assert!(
            offset <= self.len && len <= self.len - offset,
            "{len} bytes at {offset} leave a mapping of {} bytes",
            self.len
        );
        // SAFETY: the assertion above keeps the address inside the mapping.
        unsafe { self.start.as_ptr().add(offset) }
    }

    /// Gives the memory away for ever: for when the kernel may still write to it.
    pub(super) fn leak(mut self) {
        self.len = 0;
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: the range is exactly this mapping, and its owner is going away.
            let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
        }
    }
}
