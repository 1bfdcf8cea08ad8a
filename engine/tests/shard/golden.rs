//! A drive that was written once and is kept: what is read of it, and what of it with damage of each kind.
//!
//! The image is `golden/version_3.img`; how it came about is told in `golden/story.rs`. If a test here fails because the
//! format was changed: raise `FORMAT_VERSION` and keep the image of the old version to see it refused, or, where
//! no build with the version was given out, write the image anew (`cargo run -p lode-engine --example golden_image`).

#[path = "../golden/story.rs"]
mod story;
use crate::support::{Sim, UUID};
use lode_engine::format::frame::{FrameHeader, Stream};
use lode_engine::format::superblock::Superblock;
use lode_engine::format::{ChecksumSeed, FORMAT_VERSION};
use lode_engine::{Geometry, Phase, ReadError, ShardConfig, ShardId, read_drive_header};

const BLOCK: usize = 4096;
const HINT: &str = "the golden image is read differently than when it was written: if the format was changed, raise \
                    FORMAT_VERSION; or, if no build with this version was given out, write the image anew with \
                    `cargo run -p lode-engine --example golden_image`";

fn golden() -> Vec<u8> {
    story::unpack(&std::fs::read(story::PATH).expect("the golden image is in the repository"))
}

/// What a drive with these bytes says of itself, in words.
fn outcome(image: &[u8]) -> String {
    let geometry = match read_drive_header(image) {
        Ok((geometry, identity)) => {
            assert_eq!(identity.uuid, UUID);
            geometry
        }
        Err(error) => return format!("refused: {error}"),
    };
    let mut sim = Sim::format(1, geometry, |config: &mut ShardConfig| config.cache_bytes = 0);
    sim.settle();
    sim.drive.put(0, image);
    sim.restart();
    match sim.run_recovery() {
        Phase::Failed(error) => return format!("refused: {error}"),
        phase => assert_eq!(phase, Phase::Serving),
    }
    let tables: Vec<u32> = sim.tables().into_iter().map(|(table, _)| table).collect();
    let mut lines = vec![format!("tables {tables:?}")];
    for partition in [1, 2, 4, 5] {
        let (mut right, mut others) = (0, Vec::new());
        for (_, key, value) in story::holds().into_iter().filter(|(of, ..)| *of == partition) {
            let said = match sim.get(partition, &key) {
                Ok(found) if found == value => {
                    right += 1;
                    continue;
                }
                Ok(None) => "absent",
                Ok(Some(_)) => "another value",
                Err(ReadError::Corrupt { .. }) => "corrupt",
                Err(ReadError::Quarantined { .. }) => "quarantined",
                Err(error) => panic!("{error}"),
            };
            others.push((said, String::from_utf8(key).expect("keys are words")));
        }
        let mut line = format!("{partition}: {right} right");
        for what in ["absent", "another value", "corrupt", "quarantined"] {
            let keys: Vec<_> =
                others.iter().filter(|(said, _)| *said == what).map(|(_, key)| key.as_str()).collect();
            match keys[..] {
                [] => {}
                [first, .., last] if keys.len() > 4 => {
                    line += &format!(", {} {what} from {first} to {last}", keys.len());
                }
                _ => line += &format!(", {what} {keys:?}"),
            }
        }
        lines.push(line);
    }
    lines.join("; ")
}

/// Where the structures are that damage is done to.
struct Places {
    geometry: Geometry,
    frames: Vec<(usize, FrameHeader)>,
    image: Vec<u8>,
}

impl Places {
    fn of(image: &[u8]) -> Places {
        let (geometry, _) = read_drive_header(image).expect(HINT);
        let (seed, area) = (ChecksumSeed::new(&UUID, ShardId(0)), geometry.area_at(ShardId(0)).0 as usize);
        let decode = |at: usize| {
            Some((at, FrameHeader::decode_any(seed, (at - area) as u64, &image[at..at + BLOCK])?))
        };
        let end = area + geometry.area_bytes() as usize;
        let mut frames: Vec<_> = (area..end).step_by(BLOCK).filter_map(decode).collect();
        let slots = geometry.superblock_slots(ShardId(0)).map(|slot| slot.0);
        let read = |slot: u64| Superblock::decode(seed, slot, &image[slot as usize..slot as usize + BLOCK]);
        let newest = Superblock::newest(slots.map(read)).expect(HINT);
        frames.retain(|(_, header)| match header.stream {
            Stream::Image => header.durable.0 == newest.checkpoint,
            Stream::Journal => header.number >= newest.journal_from,
            Stream::User | Stream::Cleaning => true,
        });
        frames.sort_by_key(|(_, header)| header.number);
        Places { geometry, frames, image: image.to_vec() }
    }

    /// Frames of a stream that a start needs, or users': in the order of their numbers.
    fn frames(&self, stream: Stream) -> Vec<usize> {
        self.frames.iter().filter(|(_, header)| header.stream == stream).map(|(at, _)| *at).collect()
    }

    /// Frames of the image whose payload is of this kind: 1 catalog, 2 index, 3 root, 4 directory.
    fn image_frames(&self, kind: u8) -> Vec<usize> {
        self.frames(Stream::Image).into_iter().filter(|at| self.image[at + 64] == kind).collect()
    }

    fn segment_of(&self, at: usize) -> usize {
        let area = self.geometry.area_at(ShardId(0)).0 as usize;
        (at - area) / self.geometry.segment_bytes as usize * self.geometry.segment_bytes as usize + area
    }

    /// The last place where these bytes are.
    fn find(&self, bytes: &[u8]) -> usize {
        self.image.windows(bytes.len()).rposition(|found| found == bytes).expect("they were written")
    }
}

/// The outcome with one bit changed in each of these bytes.
fn with_flipped(bytes: &[usize]) -> String {
    let mut image = golden();
    bytes.iter().for_each(|at| image[*at] ^= 4);
    outcome(&image)
}

const WHOLE: &str = "tables [1, 3, 5]; 1: 154 right; 2: 3 right; 4: 1 right; 5: 30 right";

#[test]
fn the_golden_drive_is_read_as_it_was_written() {
    let image = golden();
    assert_eq!(u32::from_le_bytes(image[8..12].try_into().expect("four bytes")), FORMAT_VERSION, "{HINT}");
    assert_eq!(outcome(&image), WHOLE, "{HINT}");
    let places = Places::of(&image);
    for stream in [Stream::User, Stream::Journal, Stream::Image] {
        assert!(!places.frames(stream).is_empty(), "it has frames of {stream:?}");
    }
}

#[test]
fn older_versions_are_refused_with_what_to_do() {
    for version in [1u32, 2, FORMAT_VERSION + 1] {
        let mut image = golden();
        image[8..12].copy_from_slice(&version.to_le_bytes());
        let expected = format!(
            "refused: the drive has format version {version}, and this program reads version {FORMAT_VERSION} alone: copy \
             its tables with the program that wrote it to a drive that this one has formatted"
        );
        assert_eq!(outcome(&image), expected);
    }
}

#[test]
fn the_story_ends_alike_each_time_and_its_file_keeps_it() {
    let image = story::tell().drive.now;
    assert!(image == story::tell().drive.now, "it is the same each time");
    assert!(story::unpack(&story::pack(&image)) == image, "the file keeps it");
    assert_eq!(outcome(&image), WHOLE);
}

/// What is damaged, where a bit is changed for that, and what the drive says then.
type Case = (&'static str, Vec<usize>, &'static str);

/// A byte of the payload of each of these frames.
fn payload(frames: &[usize]) -> Vec<usize> {
    frames.iter().map(|at| at + 70).collect()
}

/// Of what a start reads first: headers, superblocks, the image's root, catalog and directory.
fn cases_of_the_whole(places: &Places) -> Vec<Case> {
    let [head, other_head, tail, other_tail] =
        places.geometry.superblock_slots(ShardId(0)).map(|slot| slot.0 as usize + 40);
    let (user, journal) = (places.frames(Stream::User), places.frames(Stream::Journal));
    let [catalog, root, directory] = [1, 3, 4].map(|kind| places.image_frames(kind));
    let segment_header = |at: usize| places.segment_of(at) + 20;
    vec![
        ("the drive's header", vec![40], "refused: the drive's header is damaged"),
        ("a superblock in the head", vec![head], WHOLE),
        ("its mirror", vec![tail], WHOLE),
        (
            "all superblocks",
            vec![head, other_head, tail, other_tail],
            "refused: no superblock of the shard is whole: restore the drive from a copy",
        ),
        ("the header of the log's segment", vec![segment_header(user[0])], WHOLE),
        ("the header of the image's segment", vec![segment_header(root[0])], WHOLE),
        ("the header of the journal's segment", vec![segment_header(journal[0])], WHOLE),
        ("the image's root", payload(&root[..1]), WHOLE),
        ("the copy of the root", payload(&root[1..]), WHOLE),
        (
            "both",
            payload(&root),
            "refused: the root of the shard's checkpoint is damaged: restore the drive from a copy",
        ),
        ("one copy of the catalog", payload(&catalog[1..]), WHOLE),
        (
            "both copies of the catalog",
            payload(&catalog),
            "refused: both copies of the shard's catalog are damaged: restore the drive from a copy",
        ),
        ("one copy of the directory", payload(&directory[..1]), WHOLE),
        (
            "both copies of the directory",
            payload(&directory),
            "refused: both copies of the directory of the shard's checkpoint are damaged: restore the drive from a copy",
        ),
    ]
}

/// Of indexes, journal and users' frames.
fn cases_of_records(places: &Places) -> Vec<Case> {
    let (user, journal) = (places.frames(Stream::User), places.frames(Stream::Journal));
    let (n, index) = (user.len(), places.image_frames(2));
    vec![
        (
            "the index",
            payload(&index),
            "tables [1, 3, 5]; 1: 62 right, 92 quarantined from key060 to expires; 2: 1 right, quarantined [\"a\", \"b\"]; 4: 1 right; 5: 10 right, 20 quarantined from key010 to key029",
        ),
        (
            "the first frame of the journal",
            payload(&journal[..1]),
            "tables [1, 3, 5]; 1: 46 right, 13 corrupt from key000 to key012, 95 quarantined from key013 to expires; 2: 3 right; 4: 1 right; 5: 30 right",
        ),
        ("the last frame of the journal", payload(&journal[journal.len() - 1..]), WHOLE),
        ("a user frame that the journal covers, its header", vec![user[0] + 20], WHOLE),
        (
            "the last but one user frame, its header",
            vec![user[n - 2] + 20],
            "tables [1, 3, 5]; 1: 1 right, 153 quarantined from key000 to last; 2: 0 right, quarantined [\"counter\", \"a\", \"b\"]; 4: 0 right, quarantined [\"new\"]; 5: 0 right, 30 quarantined from key000 to key029",
        ),
        (
            "the last user frame, its header",
            vec![user[n - 1] + 20],
            "tables [1, 3, 5]; 1: 153 right, absent [\"very last\"]; 2: 3 right; 4: 1 right; 5: 30 right",
        ),
        (
            "the last user frame, its record",
            vec![user[n - 1] + 100],
            "tables [1, 3, 5]; 1: 153 right, absent [\"very last\"]; 2: 3 right; 4: 1 right; 5: 30 right",
        ),
        (
            "a value of the table with a compact index",
            vec![places.find(b"<7 of round 2>")],
            "tables [1, 3, 5]; 1: 154 right; 2: 3 right; 4: 1 right; 5: 29 right, corrupt [\"key007\"]",
        ),
        (
            "a long value",
            vec![places.find(&[0x6c; 9000]) + 4000],
            "tables [1, 3, 5]; 1: 153 right, corrupt [\"long\"]; 2: 3 right; 4: 1 right; 5: 30 right",
        ),
    ]
}

#[test]
fn damage_to_each_kind_of_structure_is_told_or_made_up_for() {
    let places = Places::of(&golden());
    let mut wrong = Vec::new();
    for (what, bytes, expected) in cases_of_the_whole(&places).into_iter().chain(cases_of_records(&places)) {
        let outcome = with_flipped(&bytes);
        if outcome != expected {
            wrong.push(format!("{what}: {outcome}\n    in place of: {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{HINT}\n{}", wrong.join("\n"));
}
