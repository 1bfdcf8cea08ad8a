//! What of an image is lode's own: units, settings, and who may come in.

use std::collections::BTreeMap;

use super::disk::ROOT_ID;
use crate::profile::Profile;
use crate::render::of_image;

/// What is asked of an image's own files.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// A built-in profile.
    pub profile: &'a str,
    /// Lines of `authorized_keys`; without any, there is no SSH.
    pub ssh_keys: &'a [String],
    /// Where the node listens.
    pub listen: &'a str,
    /// What becomes of a drive that was a node's, and came back empty.
    pub empty_drive: EmptyDrive,
}

/// What becomes of a drive that was a node's, and came back empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum EmptyDrive {
    /// The node does not start, and a person decides.
    Refuse,
    /// It is formatted, and the node starts without what was there.
    Format,
}

impl EmptyDrive {
    /// As the command line has it.
    pub fn word(self) -> &'static str {
        match self {
            EmptyDrive::Refuse => "refuse",
            EmptyDrive::Format => "format",
        }
    }
}

/// Packages of every image: a system that boots, a network, and what asks a drive about itself.
const PACKAGES: [&str; 16] = [
    "ca-certificates",
    "dbus",
    "initramfs-tools",
    "iproute2",
    "kmod",
    "linux-image-cloud-amd64",
    "netbase",
    "nvme-cli",
    "procps",
    "systemd-boot-efi",
    "systemd-resolved",
    "systemd-sysv",
    "systemd-timesyncd",
    "tzdata",
    "udev",
    "zstd",
];

/// Packages of an image, in order.
pub fn packages(wanted: &Wanted) -> Vec<&'static str> {
    let mut packages = PACKAGES.to_vec();
    if !wanted.ssh_keys.is_empty() {
        packages.push("openssh-server");
    }
    packages.sort_unstable();
    packages
}

/// Units that start with the machine.
pub const ENABLED: [&str; 6] = [
    "systemd-networkd.service",
    "lode-drive.service",
    "lode-tune.service",
    "lode-measure.service",
    "lode-format.service",
    "lode.service",
];

/// Questions for a login where nobody has a password, and work that begins by itself while a node serves: packages come with
/// another image.
pub const MASKED: [&str; 6] = [
    "getty.target",
    "serial-getty@ttyS0.service",
    "getty@tty1.service",
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
];

/// The kernel's parameters: where the root is, a console on the first serial port, and no endless stop at a panic.
pub fn command_line(more: &str) -> String {
    let line = format!("root=PARTUUID={ROOT_ID} rw console=tty0 console=ttyS0 panic=10 quiet {more}");
    line.trim_end().to_owned()
}

/// Every file, by its path below the root.
pub fn files(wanted: &Wanted) -> BTreeMap<String, String> {
    let Wanted { profile, ssh_keys, listen, empty_drive } = wanted;
    let head = "written by lode-tune image build";
    let mut files: BTreeMap<String, String> =
        of_image::units(profile, empty_drive.word(), head).into_iter().collect();
    let mut put = |path: &str, text: String| files.insert(path.to_owned(), text);
    put("etc/hostname", "lode\n".to_owned());
    put("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 lode\n".to_owned());
    put("etc/fstab", format!("# {head}\nPARTUUID={ROOT_ID} / ext4 noatime 0 1\n"));
    put(
        "etc/lode/environment",
        format!(
            "# {head}: what lode.service is told; LODE_CONFIG names a file of `lode serve --config`.\nLODE_LISTEN={listen}\n"
        ),
    );
    put(
        "etc/systemd/network/80-lode.network",
        format!("# {head}\n[Match]\nType=ether\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nUseDomains=yes\n"),
    );
    // The one setting that the kernel takes from CAP_SYS_ADMIN alone, which the tuning at boot has not.
    if let Some(Ok(profile)) = Profile::built_in(profile)
        && let Some(value) = profile.number("numa_balancing")
    {
        put("etc/sysctl.d/91-lode.conf", format!("# {head}\n-kernel.numa_balancing = {value}\n"));
    }
    // On Azure a fast virtual function carries the traffic of the interface that it stands behind, and has no address of its own.
    put(
        "etc/systemd/network/20-lode-virtual-function.network",
        format!("# {head}\n[Match]\nDriver=mlx4_core mlx5_core mana\n\n[Link]\nUnmanaged=yes\n"),
    );
    // A node waits for a network that it can listen in, but no longer: it may be one for this machine only.
    put(
        "etc/systemd/system/systemd-networkd-wait-online.service.d/10-lode.conf",
        format!(
            "# {head}\n[Service]\nExecStart=\nExecStart=/usr/lib/systemd/systemd-networkd-wait-online --any --timeout=30\n"
        ),
    );
    put("etc/systemd/journald.conf.d/lode.conf", format!("# {head}\n[Journal]\nSystemMaxUse=128M\n"));
    if !ssh_keys.is_empty() {
        put("root/.ssh/authorized_keys", ssh_keys.iter().map(|key| format!("{key}\n")).collect());
        put(
            "etc/ssh/sshd_config.d/10-lode.conf",
            format!(
                "# {head}\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
            ),
        );
    }
    files
}

/// The lines of a file of keys, without comments; what is no public key is told with its line's number.
pub fn keys_of(text: &str) -> Result<Vec<String>, usize> {
    let kinds = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-sha2-"];
    let mut keys = Vec::new();
    for (at, line) in text.lines().map(str::trim).enumerate() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // Options in front of a key would be taken by nobody who looks at the file for what it opens.
        let is_key = kinds.iter().any(|kind| line.starts_with(kind)) && line.split_whitespace().count() >= 2;
        if !is_key {
            return Err(at + 1);
        }
        keys.push(line.to_owned());
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(ssh_keys: &[String]) -> Wanted<'_> {
        Wanted {
            profile: "generic-nvme",
            ssh_keys,
            listen: "127.0.0.1:7411",
            empty_drive: EmptyDrive::Refuse,
        }
    }

    #[test]
    fn what_the_tuning_at_boot_may_not_set_is_set_before() {
        let sysctl = files(&wanted(&[])).remove("etc/sysctl.d/91-lode.conf").expect("it is there");
        assert!(sysctl.ends_with("\n-kernel.numa_balancing = 0\n"), "{sysctl}");
    }

    #[test]
    fn without_keys_there_is_no_ssh() {
        assert!(!packages(&wanted(&[])).contains(&"openssh-server"));
        assert!(!files(&wanted(&[])).keys().any(|path| path.contains("ssh")));
        let keys = ["ssh-ed25519 AAAA me".to_owned()];
        assert!(packages(&wanted(&keys)).contains(&"openssh-server"));
        let files = files(&wanted(&keys));
        assert_eq!(files["root/.ssh/authorized_keys"], "ssh-ed25519 AAAA me\n");
        assert!(files["etc/ssh/sshd_config.d/10-lode.conf"].contains("PasswordAuthentication no"));
    }

    #[test]
    fn a_file_of_keys_holds_public_keys_only() {
        assert_eq!(keys_of("# mine\n\nssh-rsa AAAA me\n"), Ok(vec!["ssh-rsa AAAA me".to_owned()]));
        assert_eq!(keys_of(""), Ok(vec![]));
        assert_eq!(keys_of("ssh-rsa AAAA\n-----BEGIN OPENSSH PRIVATE KEY-----\n"), Err(2));
        assert_eq!(keys_of("ssh-rsa\n"), Err(1));
    }

    #[test]
    fn every_unit_that_starts_with_the_machine_is_there_or_is_systemds() {
        let files = files(&wanted(&[]));
        for unit in ENABLED.iter().filter(|unit| !unit.starts_with("systemd-")) {
            let text = &files[&format!("etc/systemd/system/{unit}")];
            assert!(text.contains("[Install]\nWantedBy=multi-user.target"), "{unit}: {text}");
        }
        assert_eq!(packages(&wanted(&[])), PACKAGES, "packages are in order");
    }
}
