//! The memory of a chunk: one huge page, where the system gives such.
//!
//! A lookup in an index of many keys misses the processor's table of pages at nearly every node it comes to, and on a virtual
//! machine each such miss is a walk through the tables of two systems. Most systems give huge pages to those alone who ask.

use std::alloc::{Layout, handle_alloc_error};

use memmap2::{Advice, MmapMut};

/// A huge page of the machines that lode is for: x86-64, and ARM with pages of 4 KiB.
pub(super) const HUGE_PAGE_BYTES: usize = 2 << 20;

/// Zeros at first; they take memory when they are touched.
pub(super) struct Pages {
    map: MmapMut,
    /// Where in it a huge page may begin.
    skip: usize,
}

impl Pages {
    /// `HUGE_PAGE_BYTES` of memory. Only what is asked for as `huge` takes all of it at the first touch.
    pub fn new(huge: bool) -> Pages {
        let pages = Pages::aligned();
        if huge {
            // Without huge pages all is the same, and slower.
            let _ = pages.map.advise_range(Advice::HugePage, pages.skip, HUGE_PAGE_BYTES);
        }
        pages
    }

    fn aligned() -> Pages {
        let pages = Pages::mapped(HUGE_PAGE_BYTES);
        let beyond = pages.map.as_ptr().addr() % HUGE_PAGE_BYTES;
        if beyond == 0 {
            return pages;
        }
        drop(pages);
        // Linux places a mapping right below the one before it. So one that is longer by so much begins in the right place, and so
        // will those that follow: side by side they count as one of the mappings that a process may have.
        let pages = Pages::mapped(HUGE_PAGE_BYTES + beyond);
        if pages.skip + HUGE_PAGE_BYTES <= pages.map.len() {
            return pages;
        }
        drop(pages);
        Pages::mapped(2 * HUGE_PAGE_BYTES)
    }

    fn mapped(bytes: usize) -> Pages {
        let map = MmapMut::map_anon(bytes).unwrap_or_else(|_| {
            handle_alloc_error(Layout::array::<u8>(bytes).expect("a few huge pages are a layout"))
        });
        let skip = map.as_ptr().addr().wrapping_neg() % HUGE_PAGE_BYTES;
        Pages { map, skip }
    }

    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.map[self.skip..self.skip + HUGE_PAGE_BYTES]
    }

    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.map[self.skip..self.skip + HUGE_PAGE_BYTES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_begins_where_a_huge_page_may() {
        // Others of the process may come between any two of them.
        let many: Vec<_> = (0..20)
            .map(|n| {
                let between = MmapMut::map_anon(4096 * (1 + n % 3)).expect("a few pages");
                (Pages::new(n % 2 == 0), between)
            })
            .collect();
        for (pages, _) in &many {
            assert_eq!(pages.bytes().as_ptr().addr() % HUGE_PAGE_BYTES, 0);
            assert_eq!(pages.bytes().len(), HUGE_PAGE_BYTES);
            assert!(pages.bytes().iter().all(|byte| *byte == 0));
        }
    }

    #[test]
    fn what_is_written_stays_and_is_nobody_elses() {
        let mut many: Vec<_> = (0..8).map(|_| Pages::new(true)).collect();
        for (n, pages) in many.iter_mut().enumerate() {
            pages.bytes_mut().fill(n as u8);
        }
        many.swap_remove(3);
        many.push(Pages::new(true));
        assert!(many[7].bytes().iter().all(|byte| *byte == 0), "what comes anew is empty");
        assert!(many[5].bytes().iter().all(|byte| *byte == 5));
    }
}
