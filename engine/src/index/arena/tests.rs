use super::*;

fn xorshift(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 20) as usize
}

/// Blocks, their lengths in bytes, and what they are filled with.
type Blocks = Vec<(Handle, usize, u8)>;

/// No two blocks overlap, each knows whose it is, and the counts agree.
fn verify(arena: &IndexArena, blocks: &Blocks) {
    let mut taken = std::collections::BTreeMap::new();
    for (block, bytes, fill) in blocks {
        let (place, granules) = (arena.place(*block), Class::of(*bytes).granules());
        assert!(taken.insert(place.0, granules as u32).is_none(), "two blocks at one place");
        assert_eq!(arena.owner(place, granules), *block);
        assert!(arena.bytes(*block)[..*bytes].iter().all(|byte| byte == fill), "contents are as they were");
    }
    let mut end = 0;
    for (place, granules) in taken {
        assert!(place >= end, "blocks overlap");
        end = place + granules;
    }
    let used: usize = blocks.iter().map(|(_, bytes, _)| block_bytes(*bytes)).sum();
    assert_eq!(arena.used_bytes(), used);
    for (class, stack) in arena.stacks.iter().enumerate() {
        let class = Class(class as u8);
        let most = class.blocks_per_slab();
        let is_empty = stack.slabs.is_empty() && stack.last == 0;
        assert!(is_empty || (!stack.slabs.is_empty() && (1..=most).contains(&stack.last)), "{class:?}");
        verify_holes(arena, blocks, class);
    }
}

/// Each place of a length is a block's or a hole, and holes are few.
fn verify_holes(arena: &IndexArena, blocks: &Blocks, class: Class) {
    let stack = &arena.stacks[usize::from(class.0)];
    let owned = blocks.iter().filter(|(_, bytes, _)| Class::of(*bytes) == class).count();
    let places = stack.slabs.len().saturating_sub(1) * class.blocks_per_slab() + stack.last;
    assert_eq!(owned + stack.holes.len(), places, "blocks and holes, {class:?}");
    assert!(stack.holes.len() <= MOST_HOLES.min(places / BLOCKS_PER_HOLE), "holes, {class:?}");
    let distinct: std::collections::BTreeSet<_> = stack.holes.iter().map(|hole| hole.0).collect();
    assert_eq!(distinct.len(), stack.holes.len(), "a hole is one once, {class:?}");
    for hole in &stack.holes {
        assert_eq!(arena.owner(*hole, class.granules()), Handle::NONE, "a hole knows that it is one");
        assert!(stack.slabs.contains(&(hole.0 / SLAB_GRANULES as u32)), "a hole lies among its blocks");
    }
}

/// What may be held beyond the blocks: a slab for each length in use, what is left over in slabs, spare ones.
fn most_held(arena: &IndexArena) -> usize {
    let slab_bytes = SLAB_GRANULES * GRANULE_BYTES;
    let slabs = |stack: &Stack| stack.slabs.len() * slab_bytes;
    let in_slabs: usize = arena.stacks.iter().map(slabs).sum();
    in_slabs + (32 + 16) * slab_bytes + arena.numbers as usize * 4
}

fn change(arena: &mut IndexArena, blocks: &mut Blocks, state: &mut u64, (most, removals): (usize, usize)) {
    let (bytes, fill) = (1 + xorshift(state) % most, xorshift(state) as u8);
    let at = xorshift(state) % blocks.len().max(1);
    if !blocks.is_empty() && xorshift(state) % 100 < removals {
        let (block, bytes, _) = blocks.swap_remove(at);
        arena.free(block, bytes);
    } else if !blocks.is_empty() && xorshift(state).is_multiple_of(2) {
        let (block, old, was) = blocks[at];
        if xorshift(state).is_multiple_of(2) {
            arena.resize(block, old, bytes);
            assert!(arena.bytes(block)[..bytes.min(old)].iter().all(|byte| *byte == was));
            arena.bytes_mut(block)[..bytes].fill(fill);
        } else {
            arena.replace(block, old, &vec![fill; bytes]);
        }
        blocks[at] = (block, bytes, fill);
    } else {
        blocks.push((arena.store(&vec![fill; bytes]), bytes, fill));
    }
}

#[test]
fn blocks_keep_their_contents_and_never_overlap() {
    for seed in 1..=4u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let (mut arena, mut blocks) = (IndexArena::new(), Blocks::new());
        let phases = [(9_000, 20), (3_000, 50), (MAX_BLOCK_BYTES, 60), (3_000, 20), (3_000, 95)];
        for phase in phases {
            for step in 0..3_000 {
                change(&mut arena, &mut blocks, &mut state, phase);
                if step % 500 == 0 {
                    verify(&arena, &blocks);
                }
            }
            verify(&arena, &blocks);
            assert!(arena.held_bytes() <= most_held(&arena), "{} bytes held", arena.held_bytes());
        }
        while let Some((block, bytes, _)) = blocks.pop() {
            arena.free(block, bytes);
        }
        assert_eq!((arena.used_bytes(), arena.held_bytes()), (0, 0));
    }
}

#[test]
fn memory_comes_back_whatever_is_freed() {
    let (mut arena, mut state) = (IndexArena::new(), 77u64);
    let mut blocks = Blocks::new();
    for i in 0..20_000 {
        let bytes = 1_000 + xorshift(&mut state) % 3_000;
        blocks.push((arena.store(&vec![i as u8; bytes]), bytes, i as u8));
    }
    let full = arena.held_bytes();
    assert!(full < arena.used_bytes() * 21 / 20, "{full} bytes for {}", arena.used_bytes());
    // Each chunk keeps some; then all blocks become shorter.
    for keep in [2, 3] {
        let mut n = 0;
        blocks.retain(|(block, bytes, _)| {
            n += 1;
            let kept = n % keep == 0;
            if !kept {
                arena.free(*block, *bytes);
            }
            kept
        });
        verify(&arena, &blocks);
        // One slab of each length is full of holes at most.
        let most = arena.used_bytes() * 21 / 20 + (47 + 48) * SLAB_GRANULES * GRANULE_BYTES;
        assert!(arena.held_bytes() < most, "{} of {} bytes used", arena.used_bytes(), arena.held_bytes());
    }
    for (block, bytes, _) in &mut blocks {
        arena.resize(*block, *bytes, *bytes / 4);
        *bytes /= 4;
    }
    verify(&arena, &blocks);
    assert!(arena.held_bytes() < full / 4, "{} of {} bytes used", arena.used_bytes(), arena.held_bytes());
}

#[test]
fn lengths_of_blocks_rise_without_gaps() {
    let mut last = Class(0);
    for bytes in 1..=MAX_BLOCK_BYTES {
        let class = Class::of(bytes);
        assert!(class == last || class.0 == last.0 + 1, "{bytes} bytes");
        assert!(class.granules() * GRANULE_BYTES >= bytes + HANDLE_BYTES);
        last = class;
    }
    assert_eq!((usize::from(last.0), last.granules()), (CLASSES - 1, MAX_GRANULES));
}

#[test]
fn a_block_begins_on_a_cache_line() {
    let mut arena = IndexArena::new();
    for n in 1..100 {
        let block = arena.store(&vec![1; n * 7]);
        assert_eq!(arena.bytes(block).as_ptr().align_offset(GRANULE_BYTES), 0);
    }
}

#[test]
fn chunks_of_which_every_other_slab_is_free_are_emptied() {
    let (mut arena, mut blocks) = (IndexArena::new(), Blocks::new());
    // Slabs of two lengths take turns, so that each chunk has as many of one as of the other.
    for _ in 0..80 * SLAB_GRANULES / 32 {
        for bytes in [2_000, 1_990 - 64] {
            blocks.push((arena.store(&vec![7; bytes]), bytes, 7));
        }
    }
    let full = arena.held_bytes();
    // Holes move with their slabs.
    for at in (0..16).map(|n| n * 600 + 1) {
        let (block, bytes, _) = blocks.swap_remove(at);
        arena.free(block, bytes);
    }
    blocks.retain(|(block, bytes, _)| {
        if *bytes == 2_000 {
            arena.free(*block, *bytes);
        }
        *bytes != 2_000
    });
    verify(&arena, &blocks);
    let spare = 32 * SLAB_GRANULES * GRANULE_BYTES;
    assert!(full > 2 * arena.used_bytes() && full > arena.used_bytes() + spare + (1 << 20), "{full} bytes");
    assert!(arena.held_bytes() < arena.used_bytes() * 21 / 20 + spare, "{} bytes held", arena.held_bytes());
}

/// Makes a block longer or shorter: where it was, where it is, and which blocks have moved.
fn resized(
    arena: &mut IndexArena,
    blocks: &mut Blocks,
    at: usize,
    bytes: usize,
) -> (Place, Place, Vec<usize>) {
    let before: Vec<_> = blocks.iter().map(|(block, ..)| arena.place(*block)).collect();
    let (block, old, fill) = blocks[at];
    arena.resize(block, old, bytes);
    arena.bytes_mut(block)[..bytes].fill(fill);
    blocks[at].1 = bytes;
    verify(arena, blocks);
    let moved = (0..blocks.len()).filter(|n| arena.place(blocks[*n].0) != before[*n]).collect();
    (before[at], arena.place(block), moved)
}

#[test]
fn a_block_that_grows_among_many_leaves_its_place_to_the_next_and_moves_no_other() {
    let (mut arena, mut blocks) = (IndexArena::new(), Blocks::new());
    for n in 0..2_000 {
        let bytes = if n % 2 == 0 { 1_000 } else { 1_064 };
        blocks.push((arena.store(&vec![3; bytes]), bytes, 3));
    }
    let (left, _, moved) = resized(&mut arena, &mut blocks, 10, 1_064);
    assert_eq!(moved, [10]);
    let (left_too, taken, moved) = resized(&mut arena, &mut blocks, 21, 1_000);
    assert_eq!((taken, moved), (left, vec![21]));
    let (_, taken, moved) = resized(&mut arena, &mut blocks, 30, 1_064);
    assert_eq!((taken, moved), (left_too, vec![30]));
    // More than a few holes are closed.
    let mut others = 0;
    for at in (100..1_000).step_by(2) {
        let (.., moved) = resized(&mut arena, &mut blocks, at, 1_064);
        others += moved.iter().filter(|n| **n != at).count();
    }
    assert!(others > 100, "{others} others have moved");
}
