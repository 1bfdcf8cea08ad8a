//! `image export`.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::args::{Export, Format};
use super::build::with_ending;
use super::tools::{self, QEMU_IMG, ZSTD};
use super::{BuildError, vhd};
use crate::checks::human_bytes;

/// Bytes that are looked at and copied at a time.
const CHUNK_BYTES: usize = 1 << 20;
/// The id of every VHD of ours: `lode`, and the version.
const VHD_ID: [u8; 16] = *b"lode-image-vhd-1";
/// As a protective partition table has it, and the GPT behind it.
const SIGNS: [(u64, &[u8]); 2] = [(510, b"\x55\xaa"), (512, b"EFI PART")];

/// What was written.
#[derive(Debug, Serialize)]
pub struct Exported {
    /// Where.
    pub output: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// What it takes on the file system that it lies on.
    pub allocated_bytes: u64,
}

/// Writes a disk in another format.
pub fn export(options: &Export) -> Result<Exported, BuildError> {
    check(&options.image)?;
    let ending = match options.format {
        Format::Raw => "raw",
        Format::RawZst => "zst",
        Format::Qcow2 => "qcow2",
        Format::Vhd => "vhd",
    };
    let output = options.output.clone().unwrap_or_else(|| with_ending(&options.image, ending));
    may_be_replaced(&output, Some(&options.image))?;
    // Whoever waits for the file under its name, finds it whole.
    let fresh = with_ending(&output, &format!("{}.unfinished", std::process::id()));
    let written =
        write(options, &fresh).and_then(|()| fs::rename(&fresh, &output).map_err(BuildError::of(&output)));
    if let Err(error) = written {
        // It may not be there at all.
        let _ = fs::remove_file(&fresh);
        return Err(error);
    }
    let metadata = fs::metadata(&output).map_err(BuildError::of(&output))?;
    Ok(Exported { output, bytes: metadata.len(), allocated_bytes: metadata.blocks() * 512 })
}

fn write(options: &Export, fresh: &Path) -> Result<(), BuildError> {
    let work = std::env::temp_dir();
    match options.format {
        Format::Raw => copy(&options.image, fresh).map(|_| ()),
        Format::Vhd => {
            let bytes = copy(&options.image, fresh)?;
            let padded = bytes.next_multiple_of(vhd::ALIGNMENT_BYTES);
            let made = fs::metadata(&options.image).map_err(BuildError::of(&options.image))?.mtime();
            let footer = vhd::footer(padded, u64::try_from(made).unwrap_or(0), VHD_ID);
            let append = || {
                let mut file = File::options().write(true).open(fresh)?;
                file.seek(SeekFrom::Start(padded))?;
                file.write_all(&footer)?;
                file.sync_all()
            };
            append().map_err(BuildError::of(fresh))
        }
        Format::Qcow2 => {
            tools::require(&[QEMU_IMG])?;
            let mut command = tools::command(QEMU_IMG, &work);
            command.args(["convert", "-q", "-c", "-f", "raw", "-O", "qcow2"]).arg(&options.image).arg(fresh);
            Ok(tools::run(&mut command, b"").map(|_| ())?)
        }
        Format::RawZst => {
            tools::require(&[ZSTD])?;
            let mut command = tools::command(ZSTD, &work);
            command.args(["-q", "-10", "-T0", "-o"]).arg(fresh).arg(&options.image);
            Ok(tools::run(&mut command, b"").map(|_| ())?)
        }
    }
}

/// It looks like a disk that `build` made.
fn check(path: &Path) -> Result<(), BuildError> {
    let mut head = [0; 1024];
    let mut file = File::open(path).map_err(BuildError::of(path))?;
    let wrong = |why| BuildError::NotADisk { path: path.to_path_buf(), why };
    match file.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(wrong("it is too short")),
        Err(error) => return Err(BuildError::File { path: path.to_path_buf(), error }),
    }
    let has = |(at, sign): &(u64, &[u8])| head[*at as usize..].starts_with(sign);
    if SIGNS.iter().all(has) { Ok(()) } else { Err(wrong("it has no GPT")) }
}

/// Whether an output may take this name: nothing has it, or a file that is not what is read. A rename would put a file in the place
/// of a device's node or a link as well.
pub(super) fn may_be_replaced(output: &Path, source: Option<&Path>) -> Result<(), BuildError> {
    let Ok(there) = fs::symlink_metadata(output) else { return Ok(()) };
    let refused = |why| Err(BuildError::NotReplaced { path: output.to_path_buf(), why });
    if !there.is_file() {
        return refused("it is there, and no file");
    }
    let of_source = source.and_then(|source| fs::metadata(source).ok());
    if of_source.is_some_and(|source| (source.dev(), source.ino()) == (there.dev(), there.ino())) {
        return refused("it is what is read");
    }
    Ok(())
}

/// Copies a file, and leaves out what is only zeros; its length.
pub(super) fn copy(from: &Path, to: &Path) -> Result<u64, BuildError> {
    let mut source = File::open(from).map_err(BuildError::of(from))?;
    let mut target = File::create(to).map_err(BuildError::of(to))?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    loop {
        let mut filled = 0;
        while filled < chunk.len() {
            match source.read(&mut chunk[filled..]).map_err(BuildError::of(from))? {
                0 => break,
                more => filled += more,
            }
        }
        if chunk[..filled].iter().any(|byte| *byte != 0) {
            let put = target.seek(SeekFrom::Start(at)).and_then(|_| target.write_all(&chunk[..filled]));
            put.map_err(BuildError::of(to))?;
        }
        at += filled as u64;
        if filled < chunk.len() {
            break;
        }
    }
    target.set_len(at).and_then(|()| target.sync_all()).map_err(BuildError::of(to))?;
    Ok(at)
}

impl Exported {
    /// For people.
    pub fn to_text(&self) -> String {
        format!(
            "{}: {} long, {} on disk\n",
            self.output.display(),
            human_bytes(self.bytes),
            human_bytes(self.allocated_bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(directory: &Path, bytes: usize) -> PathBuf {
        let mut content = vec![0; bytes];
        content[510..520].copy_from_slice(b"\x55\xaaEFI PART");
        content[bytes - 1] = 7;
        let path = directory.join("disk.img");
        fs::write(&path, content).unwrap();
        path
    }

    fn exported(image: &Path, format: Format) -> Result<Exported, BuildError> {
        export(&Export { image: image.to_path_buf(), format, output: None, json: false })
    }

    #[test]
    fn a_vhd_is_the_disk_in_whole_mib_and_its_footer() {
        let directory = tempfile::tempdir().unwrap();
        let image = disk(directory.path(), (5 << 20) + 4096);
        let vhd = exported(&image, Format::Vhd).unwrap();
        assert_eq!(vhd.output, directory.path().join("disk.img.vhd"));
        assert_eq!(vhd.bytes, (6 << 20) + 512);
        let (raw, made) = (fs::read(&image).unwrap(), fs::read(&vhd.output).unwrap());
        assert!(made.starts_with(&raw) && made[raw.len()..6 << 20].iter().all(|byte| *byte == 0));
        assert!(made[6 << 20..].starts_with(b"conectix"));
        assert!(vhd.allocated_bytes < vhd.bytes, "holes stay holes: {vhd:?}");
        if tools::is_there(QEMU_IMG) {
            let mut command = tools::command(QEMU_IMG, directory.path());
            command.args(["info", "-f", "vpc", "--output=json"]).arg(&vhd.output);
            let told: serde_json::Value =
                serde_json::from_slice(&tools::run(&mut command, b"").unwrap()).unwrap();
            assert_eq!(told["format"], "vpc");
        } else {
            println!("no qemu-img here: it did not read the VHD");
        }
    }

    #[test]
    fn nothing_but_another_file_makes_room_for_an_output() {
        let directory = tempfile::tempdir().unwrap();
        let image = disk(directory.path(), 3 << 20);
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let hard = directory.path().join("the same");
        fs::hard_link(&image, &hard).unwrap();
        for (output, words) in [
            (directory.path(), "no file"),
            (Path::new("/dev/null"), "no file"),
            (&link, "no file"),
            (&image, "what is read"),
            (&hard, "what is read"),
        ] {
            let output = Some(output.to_path_buf());
            let options = Export { image: image.clone(), format: Format::Raw, output, json: false };
            let refused = export(&options).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
        assert_eq!(fs::metadata(&image).unwrap().len(), 3 << 20);
        assert!(link.is_symlink());
        for _ in 0..2 {
            exported(&image, Format::Vhd).expect("an earlier output makes room");
        }
    }

    #[test]
    fn raw_is_the_same_and_what_is_no_disk_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let image = disk(directory.path(), 3 << 20);
        let raw = exported(&image, Format::Raw).unwrap();
        assert_eq!(fs::read(raw.output).unwrap(), fs::read(&image).unwrap());
        for (content, words) in [(vec![0; 100], "too short"), (vec![0; 4096], "no GPT")] {
            fs::write(&image, content).unwrap();
            let refused = exported(&image, Format::Raw).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
