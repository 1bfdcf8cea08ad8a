//! What a machine is told to do: a disk with `guest.sh` on it, and a unit that runs it, by the kernel's parameters. The image itself has
//! nothing of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::{BootTestError, failed};
use crate::image::tools::{self, TAR};

const GUEST: &str = include_str!("guest.sh");
/// What the guest's machine is held to: that of an image, with the poll queue that the machine is started with. Emulated drives and
/// processors have no more to set, and such drives always say that their cache is volatile.
const PROFILE: &str = "version = 1\nname = \"boot-test\"\nabout = \"QEMU\"\nextends = \"generic-nvme\"\n\
                       [drives]\nids = [\"LODE-4KN\"]\n[knobs]\npoll_queues = 1\nwrite_cache = \"keep\"\n";
const UNIT: &str = "lode-boot-test.service";
/// What an emulated processor takes longest for: looking at every device that there could be. The kernel knows what this machine
/// has by itself, and lode-drive.service has udev look at the drives.
const SPARED: &str = "systemd.mask=systemd-udev-trigger.service systemd.mask=systemd-udev-settle.service \
                      systemd.mask=systemd-networkd-wait-online.service";
/// What lode-measure.service is told: each point counts for as little as may be.
const MEASURED: &str = "systemd.setenv=LODE_MEASURE_OPTIONS=--point=0.01";
/// Looks for the disk, and runs what is on it. The kernel takes 2,048 bytes of parameters, so it is short.
const RUN: &str = "[Unit]\nAfter=lode.service systemd-user-sessions.service\n[Service]\nType=exec\nExecStart=/bin/sh -c '\
                   f=$$(grep -l LODE-SCRIPT /sys/block/nvme*/device/serial);f=$${f#/sys/block/};mkdir /run/lode-test;\
                   tar -C /run/lode-test -xf /dev/$${f%%%%/*};. /run/lode-test/run'\n";

/// Writes the disk.
pub fn write(directory: &Path, variables: &[(&str, String)]) -> Result<(), BootTestError> {
    let set: String = variables.iter().map(|(name, value)| format!("{name}='{value}'\n")).collect();
    let root = directory.join("script");
    let put = |name: &str, text: &str| {
        fs::write(root.join(name), text).map_err(failed("the script cannot be written"))
    };
    fs::create_dir_all(&root).map_err(failed("the script cannot be written"))?;
    put("run", &format!("{set}{GUEST}"))?;
    put("profile.toml", PROFILE)?;
    let mut command = tools::command(TAR, directory);
    command.arg("-C").arg(&root).args(["--owner=0", "--group=0", "-cf"]).arg(directory.join("script.tar"));
    // Read by a drive of whole blocks.
    command.args(["--blocking-factor=128", "."]);
    tools::run(&mut command, b"")?;
    Ok(())
}

/// The kernel's parameters that run it, with one queue of each drive polled, a measurement of seconds rather than minutes, and without
/// these units of lode's; nor what costs an emulated processor most, and protects nobody here.
pub fn parameters(masked: &[&str]) -> String {
    let masked: String = masked.iter().map(|unit| format!(" systemd.mask=lode-{unit}.service")).collect();
    let unit = base64(RUN.as_bytes());
    format!(
        "rootwait mitigations=off 8250.nr_uarts=1 {SPARED} nvme.poll_queues=1{masked} {MEASURED} systemd.set_credential_binary=systemd.extra-unit.{UNIT}:{unit} systemd.wants={UNIT}"
    )
}

/// As RFC 4648 has it.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    out
}

/// Where in a file some bytes lie for the last time, if they do.
pub fn find_last(path: &Path, needle: &[u8]) -> io::Result<Option<u64>> {
    assert!(!needle.is_empty(), "something is looked for");
    let mut file = File::open(path)?;
    let (mut window, mut begins, mut found) = (Vec::new(), 0u64, None);
    let mut chunk = vec![0; 1 << 20];
    loop {
        let read = file.read(&mut chunk)?;
        if read == 0 {
            return Ok(found);
        }
        // Most of a drive is zeros, and a needle has none.
        if window.iter().chain(&chunk[..read]).any(|byte| *byte != 0) {
            window.extend_from_slice(&chunk[..read]);
            let last = window.windows(needle.len()).rposition(|bytes| bytes == needle);
            found = last.map(|at| begins + at as u64).or(found);
        } else {
            window.resize(window.len() + read, 0);
        }
        let kept = window.len().min(needle.len() - 1);
        begins += (window.len() - kept) as u64;
        window.drain(..window.len() - kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn parameters_fit_what_the_kernel_takes() {
        let parameters = parameters(&["measure", "tune"]);
        assert!(
            parameters.len() < 1024 && !parameters.contains(['"', '\n']),
            "{}: {parameters}",
            parameters.len()
        );
    }

    #[test]
    fn the_last_of_several_is_found_across_chunks() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("drive");
        let mut bytes = vec![0u8; (3 << 20) + 100];
        assert_eq!((fs::write(&path, &bytes).unwrap(), find_last(&path, b"needle").unwrap()), ((), None));
        for at in [5usize, (1 << 20) - 3, (2 << 20) - 1] {
            bytes[at..at + 6].copy_from_slice(b"needle");
            fs::write(&path, &bytes).unwrap();
            assert_eq!(find_last(&path, b"needle").unwrap(), Some(at as u64));
        }
    }

    #[test]
    fn the_script_is_one_that_a_shell_understands() {
        let mut command = tools::command(tools::Tool { program: "sh", package: "dash" }, Path::new("/tmp"));
        tools::run(command.arg("-n"), GUEST.as_bytes()).unwrap();
    }
}
