//! What the kernel knows of a device's request queue, in `/sys`.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Where `/sys` has the device that this file is, or lies on.
pub fn device_of(metadata: &Metadata) -> PathBuf {
    let device = if metadata.file_type().is_block_device() { metadata.rdev() } else { metadata.dev() };
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    PathBuf::from(format!("/sys/dev/block/{major}:{minor}"))
}

/// A knob of the device's queue; a partition's is its disk's.
pub fn knob(device: &Path, name: &str) -> Option<String> {
    let device = device.canonicalize().ok()?;
    let read = |place: &Path| std::fs::read_to_string(place.join("queue").join(name)).ok();
    device.ancestors().take(3).find_map(read).map(|text| text.trim().to_owned())
}
