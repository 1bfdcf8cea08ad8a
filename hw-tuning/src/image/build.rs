//! `image build`.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::args::Build;
use super::disk::{Disk, LEAST_BYTES};
use super::overlay::{self, ENABLED, MASKED, Wanted};
use super::tools::{self, FAKEROOT, MCOPY, MKE2FS, MKFS_FAT, MMDEBSTRAP, SFDISK, TAR};
use super::uki::{self, Parts};
use super::{BuildError, MIB, Work, export};
use crate::checks::human_bytes;
use crate::profile::BUILT_IN;

/// The release of Debian.
const SUITE: &str = "trixie";
/// The list of packages, inside the image.
const LIST: &str = "usr/share/lode/packages";
const STUB: &str = "usr/lib/systemd/boot/efi/linuxx64.efi.stub";
/// Packages that are told where two lists differ.
const TOLD: usize = 5;

/// What was made.
#[derive(Debug, Serialize)]
pub struct Built {
    /// The disk.
    pub image: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// What it takes on the file system that it lies on.
    pub allocated_bytes: u64,
    /// The list of packages.
    pub packages: PathBuf,
    /// How many.
    pub package_count: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The kernel's parameters.
    pub command_line: String,
    /// How long it took.
    pub took_s: f64,
}

/// Makes the disk.
pub fn build(options: &Build) -> Result<Built, BuildError> {
    let began = Instant::now();
    let keys = check(options)?;
    export::may_be_replaced(&options.output, None)?;
    let node = node_of(options)?;
    let epoch_s = epoch()?;
    let is_root = rustix::process::geteuid().is_root();
    let all = [MMDEBSTRAP, TAR, SFDISK, MKE2FS, MKFS_FAT, MCOPY, FAKEROOT];
    tools::require(if is_root { &all[..6] } else { &all })?;

    let work = Work::beside(&options.output)?;
    let listen = options.listen.to_string();
    let wanted = Wanted {
        profile: &options.profile,
        ssh_keys: &keys,
        listen: &listen,
        empty_drive: options.empty_drive,
    };
    let overlay = write_overlay(&work.0, &wanted, &node, epoch_s)?;
    eprintln!(
        "installing {} packages and what they need (about two minutes)",
        overlay::packages(&wanted).len()
    );
    let archive = install(&work.0, &wanted, &overlay, options.mirror.as_deref(), epoch_s)?;
    let boot = Boot::unpack(&work.0, &archive)?;
    let list_path = with_ending(&options.output, "packages");
    if let Some(path) = &options.packages {
        let before = fs::read_to_string(path).map_err(BuildError::of(path))?;
        same_packages(path, &before, &boot.packages)?;
    }

    let command_line = overlay::command_line(&options.cmdline);
    let image = boot.image(&command_line)?;
    let image_path = work.0.join("uki.efi");
    fs::write(&image_path, image).map_err(BuildError::of(&image_path))?;
    let fresh = work.0.join("disk");
    let disk = Disk { path: &fresh, bytes: options.size, epoch_s, work: &work.0 };
    disk.partition()?;
    disk.write_esp(&image_path)?;
    disk.write_root(&archive)?;
    fs::rename(&fresh, &options.output).map_err(BuildError::of(&options.output))?;
    fs::write(&list_path, &boot.packages).map_err(BuildError::of(&list_path))?;
    let metadata = fs::metadata(&options.output).map_err(BuildError::of(&options.output))?;
    Ok(Built {
        image: options.output.clone(),
        bytes: metadata.len(),
        allocated_bytes: std::os::unix::fs::MetadataExt::blocks(&metadata) * 512,
        packages: list_path,
        package_count: boot.packages.lines().count(),
        kernel: boot.release,
        command_line,
        took_s: began.elapsed().as_secs_f64(),
    })
}

/// What is wrong with the command line is said before anything is made; the keys.
fn check(options: &Build) -> Result<Vec<String>, BuildError> {
    let names = BUILT_IN.map(|(name, _)| name);
    if !names.contains(&options.profile.as_str()) {
        return Err(BuildError::Profile(options.profile.clone(), names.join(", ")));
    }
    if options.size < LEAST_BYTES || !options.size.is_multiple_of(MIB) {
        return Err(BuildError::Size { bytes: options.size });
    }
    let mut keys = Vec::new();
    for path in &options.ssh_key {
        let text = fs::read_to_string(path).map_err(BuildError::of(path))?;
        let of_file = overlay::keys_of(&text).map_err(|line| BuildError::Key { path: path.clone(), line })?;
        if of_file.is_empty() {
            return Err(BuildError::NoKey(path.clone()));
        }
        keys.extend(of_file);
    }
    Ok(keys)
}

fn node_of(options: &Build) -> Result<PathBuf, BuildError> {
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("lode"));
    let node = options.node.clone().or_else(beside).unwrap_or_else(|| "lode".into());
    if node.is_file() { Ok(node) } else { Err(BuildError::NoNode(node)) }
}

/// When everything in the image is said to be made.
fn epoch() -> Result<u64, BuildError> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().map_err(|_| BuildError::Epoch(text)),
        Err(_) => Ok(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()),
    }
}

/// An archive of lode's own files, which belong to root.
fn write_overlay(work: &Path, wanted: &Wanted, node: &Path, epoch_s: u64) -> Result<PathBuf, BuildError> {
    let root = work.join("overlay");
    let put = |path: &str, bytes: &[u8], mode: u32| {
        let path = root.join(path);
        let written = fs::create_dir_all(path.parent().unwrap_or(&root))
            .and_then(|()| fs::write(&path, bytes))
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(mode)));
        written.map_err(BuildError::of(path))
    };
    for (path, text) in overlay::files(wanted) {
        put(&path, text.as_bytes(), if path.starts_with("root/") { 0o600 } else { 0o644 })?;
    }
    let own = std::env::current_exe().map_err(BuildError::of("lode-tune"))?;
    for (name, from) in [("lode", node), ("lode-tune", &own)] {
        let bytes = fs::read(from).map_err(BuildError::of(from))?;
        put(&format!("usr/bin/{name}"), &bytes, 0o755)?;
    }
    if !wanted.ssh_keys.is_empty() {
        let home = root.join("root/.ssh");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).map_err(BuildError::of(&home))?;
        let home = root.join("root");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).map_err(BuildError::of(&home))?;
    }
    let archive = work.join("overlay.tar");
    let mut command = tools::command(TAR, work);
    command.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--format=gnu"]);
    command.arg(format!("--mtime=@{epoch_s}")).arg("-C").arg(&root).arg("-cf").arg(&archive).arg(".");
    tools::run(&mut command, b"")?;
    Ok(archive)
}

/// What is done inside, once everything is installed: lode's files, its user, its units; nobody's password, nobody's keys.
fn steps(overlay: &Path) -> Vec<String> {
    let inside = |what: &str| format!("chroot \"$1\" {what}");
    vec![
        format!("tar-in '{}' /", overlay.display()),
        inside("systemd-sysusers"),
        inside(&format!("systemctl enable {}", ENABLED.join(" "))),
        inside(&format!("systemctl mask {}", MASKED.join(" "))),
        // They start here, or they would not there: another C library than they were linked with is found now.
        inside("/usr/bin/lode --version"),
        inside("/usr/bin/lode-tune --version"),
        inside("sh -c 'test -z \"$(cut -d: -f2 /etc/shadow | grep -v \"^[*!]\")\"'"),
        inside("apt-mark hold linux-image-cloud-amd64"),
        format!("mkdir -p \"$1/{}\"", LIST.trim_end_matches("/packages")),
        inside(&format!(
            "sh -c 'dpkg-query -W -f=\"\\${{Package}} \\${{Version}}\\n\" | LC_ALL=C sort > /{LIST}'"
        )),
        // Made anew by the first boot, so that no two machines share them.
        "rm -f \"$1\"/etc/ssh/ssh_host_* \"$1/var/lib/dbus/machine-id\"".to_owned(),
        "printf 'uninitialized\\n' > \"$1/etc/machine-id\"".to_owned(),
    ]
}

/// An archive of the whole root.
fn install(
    work: &Path,
    wanted: &Wanted,
    overlay: &Path,
    mirror: Option<&str>,
    epoch_s: u64,
) -> Result<PathBuf, BuildError> {
    let archive = work.join("root.tar");
    let mut command = tools::command(MMDEBSTRAP, work);
    command.env("SOURCE_DATE_EPOCH", epoch_s.to_string());
    command.args(["--quiet", "--variant=apt", "--architectures=amd64", "--format=tar"]);
    command.args(["--aptopt=Acquire::Languages \"none\"", "--aptopt=APT::Install-Recommends \"false\""]);
    // Of documents only the licences stay.
    for (rule, path) in [
        ("exclude", "man/*"),
        ("exclude", "info/*"),
        ("exclude", "locale/*"),
        ("exclude", "doc/*"),
        ("include", "doc/*/copyright"),
    ] {
        command.arg(format!("--dpkgopt=path-{rule}=/usr/share/{path}"));
    }
    command.arg(format!("--include={}", overlay::packages(wanted).join(",")));
    for step in steps(overlay) {
        command.arg(format!("--customize-hook={step}"));
    }
    command.arg(SUITE).arg(&archive).args(mirror);
    tools::run(&mut command, b"")?;
    Ok(archive)
}

/// What of the root goes into the unified kernel image.
struct Boot {
    directory: PathBuf,
    release: String,
    packages: String,
}

impl Boot {
    fn unpack(work: &Path, archive: &Path) -> Result<Boot, BuildError> {
        let directory = work.join("boot");
        fs::create_dir(&directory).map_err(BuildError::of(&directory))?;
        let mut command = tools::command(TAR, work);
        command.arg("-C").arg(&directory).arg("--no-same-owner").arg("-xf").arg(archive);
        command.args(["./boot", "./usr/lib/os-release", &format!("./{STUB}"), &format!("./{LIST}")]);
        tools::run(&mut command, b"")?;
        let names = fs::read_dir(directory.join("boot")).map_err(BuildError::of(&directory))?;
        let release = names
            .flatten()
            .find_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned()));
        let release = release.ok_or(BuildError::Lacks("kernel"))?;
        let list = directory.join(LIST);
        let packages = fs::read_to_string(&list).map_err(BuildError::of(list))?;
        Ok(Boot { directory, release, packages })
    }

    fn image(&self, command_line: &str) -> Result<Vec<u8>, BuildError> {
        let read = |path: &str| {
            let path = self.directory.join(path);
            fs::read(&path).map_err(BuildError::of(path))
        };
        let release = &self.release;
        let (stub, os_release) = (read(STUB)?, read("usr/lib/os-release")?);
        let (kernel, initrd) =
            (read(&format!("boot/vmlinuz-{release}"))?, read(&format!("boot/initrd.img-{release}"))?);
        let parts =
            Parts { os_release: &os_release, command_line, release, initrd: &initrd, kernel: &kernel };
        Ok(uki::build(&stub, &parts)?)
    }
}

/// Nothing, where both lists say the same.
fn same_packages(path: &Path, before: &str, now: &str) -> Result<(), BuildError> {
    let of = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    let (before, now) = (of(before), of(now));
    let gone = before.iter().filter(|line| !now.contains(line)).map(|line| format!("no {line}"));
    let more = now.iter().filter(|line| !before.contains(line)).map(|line| format!("{line} instead"));
    let differences: Vec<String> = gone.chain(more).collect();
    if differences.is_empty() {
        return Ok(());
    }
    let mut told = differences[..differences.len().min(TOLD)].join(", ");
    if differences.len() > TOLD {
        let _ = write!(told, " and {} more", differences.len() - TOLD);
    }
    Err(BuildError::Packages { path: path.to_path_buf(), differences: told })
}

/// A file beside another, with a further ending.
pub fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    name.into()
}

impl Built {
    /// For people.
    pub fn to_text(&self) -> String {
        format!(
            "{}: {} long, {} on disk\nkernel {}, started with {}\n{} packages, listed in {}\nmade in {:.0} s; try it: lode-tune image boot-test {}\n",
            self.image.display(),
            human_bytes(self.bytes),
            human_bytes(self.allocated_bytes),
            self.kernel,
            self.command_line,
            self.package_count,
            self.packages.display(),
            self.took_s,
            self.image.display()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_packages_are_held_against_each_other() {
        let path = Path::new("list");
        assert!(same_packages(path, "a 1\nb 2\n", "b 2\na 1\n").is_ok());
        let told = same_packages(path, "a 1\nb 2\n", "a 1\nb 3\n").unwrap_err().to_string();
        assert!(told.contains("no b 2, b 3 instead"), "{told}");
        let many: String = (0..9).map(|number| format!("p{number} 1\n")).collect();
        let told = same_packages(path, &many, "").unwrap_err().to_string();
        assert!(told.contains("no p4 1 and 4 more"), "{told}");
    }
}
