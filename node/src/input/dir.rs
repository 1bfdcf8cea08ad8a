//! A directory: the relative path is the key, the file's contents the value.
//!
//! A file of more than 1 MiB becomes several records, `path#000000`, `path#000001`, ... of 1 MiB each but the last;
//! in key order their values put together are the file. Symbolic links and special files are passed over. The
//! order is that of the paths' components as bytes, depth first.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use lode_engine::limits::MAX_VALUE_BYTES;

use super::{BadRecord, InputError, InputRecord, Position, Reader, checked, shown};
use crate::escape::{escape, unescape};

/// Walks a directory in order.
pub struct DirReader {
    root: PathBuf,
    /// What is passed over, absolute.
    skip: Vec<PathBuf>,
    /// For each open directory its entries still to come, the next one last.
    stack: Vec<Vec<PathBuf>>,
    /// The file that is being given out in parts.
    split: Option<SplitFile>,
    /// The last file that was given out in whole, relative.
    last: Option<PathBuf>,
    /// On resuming: files up to and including this one were given out before.
    resume_after: Option<PathBuf>,
}

struct SplitFile {
    file: File,
    relative: PathBuf,
    next_part: u32,
    bytes_left: u64,
}

impl DirReader {
    /// Opens a directory at a position.
    pub fn open(root: &Path, skip: &[PathBuf], from: &Position) -> Result<DirReader, InputError> {
        let resume_after = match from {
            Position::Start => None,
            Position::After { path } => {
                let bytes = unescape(path.as_bytes());
                let bytes = bytes.map_err(|_| InputError::BadPosition { path: shown(root) })?;
                Some(PathBuf::from(OsString::from_vec(bytes)))
            }
            Position::Line { .. } => return Err(InputError::BadPosition { path: shown(root) }),
        };
        let refused = |error| InputError::Io { path: shown(root), error };
        let root = &fs::canonicalize(root).map_err(refused)?;
        let entries = sorted_entries(root, Path::new("")).map_err(refused)?;
        Ok(DirReader {
            root: root.clone(),
            skip: skip.to_vec(),
            stack: vec![entries],
            split: None,
            last: resume_after.clone(),
            resume_after,
        })
    }

    fn next_entry(&mut self) -> Option<PathBuf> {
        while let Some(entries) = self.stack.last_mut() {
            if let Some(entry) = entries.pop() {
                return Some(entry);
            }
            self.stack.pop();
        }
        None
    }

    /// Whether everything at or under this path was given out before the load was killed.
    fn done_before(&self, relative: &Path) -> bool {
        let Some(after) = &self.resume_after else {
            return false;
        };
        relative <= after.as_path() && !(after.starts_with(relative) && after != relative)
    }

    /// Looks at one entry: a file gives its (first) record, a directory goes onto the stack.
    fn visit(&mut self, relative: PathBuf) -> Result<Option<InputRecord>, BadRecord> {
        let path = self.root.join(&relative);
        let meta = fs::symlink_metadata(&path).map_err(BadRecord::Io)?;
        if meta.is_dir() {
            self.stack.push(sorted_entries(&self.root, &relative).map_err(BadRecord::Io)?);
            return Ok(None);
        }
        if !meta.is_file() {
            return Ok(None);
        }
        let mut file = File::open(&path).map_err(BadRecord::Io)?;
        let mut value = Vec::with_capacity(meta.len().min(MAX_VALUE_BYTES as u64) as usize + 1);
        (&mut file).take(MAX_VALUE_BYTES as u64 + 1).read_to_end(&mut value).map_err(BadRecord::Io)?;
        if value.len() <= MAX_VALUE_BYTES {
            let (key, taken) = (relative.as_os_str().as_bytes().to_vec(), value.len() as u64);
            self.last = Some(relative);
            return checked(key, value, taken).map(Some);
        }
        drop(file);
        self.begin_split(&path, relative, meta.len())
    }

    fn begin_split(
        &mut self,
        path: &Path,
        relative: PathBuf,
        len: u64,
    ) -> Result<Option<InputRecord>, BadRecord> {
        let first = part_key(&relative, 0);
        let taken = self.root.join(PathBuf::from(OsString::from_vec(first.clone())));
        if fs::symlink_metadata(taken).is_ok() {
            return Err(BadRecord::PartNameTaken(escape(&first, None)));
        }
        let file = File::open(path).map_err(BadRecord::Io)?;
        self.split = Some(SplitFile { file, relative, next_part: 0, bytes_left: len });
        self.next_part()
    }

    /// The next part of a file over the value limit. Its length was taken once, so that a file that grows
    /// meanwhile has an end.
    fn next_part(&mut self) -> Result<Option<InputRecord>, BadRecord> {
        let Some(mut split) = self.split.take() else {
            return Ok(None);
        };
        let len = split.bytes_left.min(MAX_VALUE_BYTES as u64);
        let mut value = Vec::with_capacity(len as usize);
        (&mut split.file).take(len).read_to_end(&mut value).map_err(BadRecord::Io)?;
        let short = (value.len() as u64) < len;
        let key = part_key(&split.relative, split.next_part);
        split.bytes_left -= len;
        split.next_part += 1;
        if split.bytes_left == 0 || short {
            self.last = Some(split.relative);
        } else {
            self.split = Some(split);
        }
        let taken = value.len() as u64;
        checked(key, value, taken).map(Some)
    }
}

impl Reader for DirReader {
    fn next(&mut self) -> Option<Result<InputRecord, InputError>> {
        loop {
            let (relative, found) = match &self.split {
                Some(split) => (split.relative.clone(), self.next_part()),
                None => {
                    let relative = self.next_entry()?;
                    if self.done_before(&relative) || self.skip.contains(&self.root.join(&relative)) {
                        continue;
                    }
                    (relative.clone(), self.visit(relative))
                }
            };
            match found {
                Ok(None) => {}
                Ok(Some(record)) => return Some(Ok(record)),
                Err(reason) => {
                    let source_name = escape(self.root.join(&relative).as_os_str().as_bytes(), None);
                    self.last = Some(relative);
                    return Some(Err(InputError::Bad { source_name, reason }));
                }
            }
        }
    }

    fn position(&self) -> Position {
        match &self.last {
            None => Position::Start,
            Some(path) => Position::After { path: escape(path.as_os_str().as_bytes(), None) },
        }
    }
}

fn part_key(relative: &Path, part: u32) -> Vec<u8> {
    let mut key = relative.as_os_str().as_bytes().to_vec();
    key.extend_from_slice(format!("#{part:06}").as_bytes());
    key
}

/// The entries of one directory as relative paths, the first in order last.
fn sorted_entries(root: &Path, relative: &Path) -> io::Result<Vec<PathBuf>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(root.join(relative))? {
        entries.push(relative.join(entry?.file_name()));
    }
    entries.sort_unstable_by(|a, b| b.cmp(a));
    Ok(entries)
}

/// Bytes of all regular files under a directory; what cannot be read counts nothing.
pub fn total_bytes(root: &Path, skip: &[PathBuf]) -> u64 {
    let mut bytes = 0;
    let mut open = vec![fs::canonicalize(root).unwrap_or_else(|_| root.to_owned())];
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for entry in entries.flatten().filter(|entry| !skip.contains(&entry.path())) {
            match entry.metadata() {
                Ok(meta) if meta.is_dir() => open.push(entry.path()),
                Ok(meta) if meta.is_file() => bytes += meta.len(),
                _ => {}
            }
        }
    }
    bytes
}
