//! A machine of QEMU's with an image, two NVMe drives, and a port that it tells its steps through.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::image::tools::{self, QEMU};

/// The drive of the node, and one with blocks of 512 bytes.
pub const DRIVES: [(&str, u64, u32); 2] = [("LODE-4KN", 1 << 30, 4096), ("LODE-512", 256 << 20, 512)];
/// Without the wide registers, which are slow to emulate.
const EMULATED_CPU: &str = "Nehalem";
/// What QEMU says where /dev/kvm is there and does not do.
const NO_KVM: [&str; 2] = ["KVM internal error", "failed to initialize kvm"];
/// How often the port is looked at.
const PAUSE: Duration = Duration::from_millis(20);

/// Firmware of UEFI machines: the code, and the variables that a machine has a copy of.
const FIRMWARE: [(&str, &str); 2] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
];

/// The firmware that is here.
pub fn firmware() -> Option<(&'static str, &'static str)> {
    FIRMWARE.into_iter().find(|(code, variables)| Path::new(code).exists() && Path::new(variables).exists())
}

/// How a machine comes to its kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start<'a> {
    /// QEMU puts the kernel there, which has drivers for NVMe and the root's file system in it, and needs no other first.
    Direct {
        /// The kernel.
        kernel: &'a Path,
        /// The kernel's parameters, as the image has them.
        command_line: &'a str,
    },
    /// The firmware reads them from the image.
    Uefi {
        /// The firmware's code.
        code: &'a str,
        /// Its variables.
        variables: &'a str,
    },
}

/// All that a machine is made of.
#[derive(Debug)]
pub struct Parts<'a> {
    /// Where its files lie: `disk.img`, `drive0.img`, `drive1.img`, `script.tar`.
    pub directory: &'a Path,
    /// Its consoles are named after this.
    pub name: &'a str,
    pub start: Start<'a>,
    /// Further parameters of the kernel.
    pub more: &'a str,
    /// A sector of the first drive that cannot be read, of 512 bytes.
    pub bad_sector: Option<u64>,
    /// Whether the processor's own virtualisation is used.
    pub kvm: bool,
}

/// A machine that runs; it ends with this.
#[derive(Debug)]
pub struct Machine {
    qemu: Child,
    told: PathBuf,
    port: PathBuf,
    /// Where in the port's file the next line begins.
    read_bytes: u64,
    /// The beginning of a line whose end has not come.
    rest: String,
}

impl Parts<'_> {
    fn file(&self, name: &str) -> String {
        self.directory.join(name).display().to_string()
    }

    /// The first drive with what is between it and its file; the file is written past the page cache of the host, so that a write that
    /// was answered lies on the host's disk.
    fn block_devices(&self) -> Vec<String> {
        let mut devices = Vec::new();
        for number in 0..DRIVES.len() {
            let file = serde_json::json!({
                "driver": "file", "filename": self.file(&format!("drive{number}.img")), "node-name": format!("file{number}"),
                "cache": { "direct": true, "no-flush": false },
            });
            devices.push(file.to_string());
            let below = match self.bad_sector.filter(|_| number == 0) {
                Some(sector) => {
                    let rule = serde_json::json!({
                        "driver": "blkdebug", "image": "file0", "node-name": "faults",
                        "inject-error": [{ "event": "none", "iotype": "read", "errno": 5, "sector": sector, "once": false, "immediately": false }],
                    });
                    devices.push(rule.to_string());
                    "faults".to_owned()
                }
                None => format!("file{number}"),
            };
            let raw =
                serde_json::json!({ "driver": "raw", "file": below, "node-name": format!("drive{number}") });
            devices.push(raw.to_string());
        }
        devices
    }

    fn arguments(&self) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut put = |option: &str, value: String| words.extend([option.to_owned(), value]);
        put("-machine", format!("q35,accel={}", if self.kvm { "kvm" } else { "tcg" }));
        put("-cpu", if self.kvm { "host" } else { EMULATED_CPU }.to_owned());
        put("-smp", "2".to_owned());
        put("-m", "2048".to_owned());
        put("-display", "none".to_owned());
        put("-nic", "none".to_owned());
        put("-serial", format!("file:{}", self.file(&format!("{}.console", self.name))));
        put("-drive", format!("file={},format=raw,if=none,id=disk,cache=unsafe", self.file("disk.img")));
        put("-device", "nvme,id=nvme9,serial=BOOT,drive=disk,bootindex=1".to_owned());
        put("-drive", format!("file={},format=raw,if=none,id=script", self.file("script.tar")));
        put("-device", "nvme,id=nvme8,serial=LODE-SCRIPT,drive=script".to_owned());
        put("-chardev", format!("file,id=port,path={}", self.file(&format!("{}.port", self.name))));
        put("-device", "virtio-serial-pci".to_owned());
        put("-device", "virtserialport,chardev=port,name=lode.test".to_owned());
        for device in self.block_devices() {
            put("-blockdev", device);
        }
        for (number, (serial, _, block)) in DRIVES.iter().enumerate() {
            put("-device", format!("nvme,id=nvme{number},serial={serial}"));
            put(
                "-device",
                format!(
                    "nvme-ns,drive=drive{number},bus=nvme{number},logical_block_size={block},physical_block_size={block}"
                ),
            );
        }
        match self.start {
            Start::Direct { kernel, command_line } => {
                put("-kernel", kernel.display().to_string());
                put("-append", format!("{command_line} {}", self.more));
            }
            Start::Uefi { code, .. } => {
                put("-drive", format!("if=pflash,format=raw,unit=0,readonly=on,file={code}"));
                put("-drive", format!("if=pflash,format=raw,unit=1,file={}", self.file("variables.fd")));
                // systemd's stub takes parameters from here, unless the firmware boots nothing but what is signed.
                let more = self.more.replace(',', ",,");
                put("-smbios", format!("type=11,value=io.systemd.stub.kernel-cmdline-extra={more}"));
            }
        }
        words
    }

    /// Starts it.
    pub fn run(&self) -> io::Result<Machine> {
        if let Start::Uefi { variables, .. } = self.start {
            fs::copy(variables, self.directory.join("variables.fd"))?;
        }
        let port = self.directory.join(format!("{}.port", self.name));
        fs::write(&port, "")?;
        let told_path = self.directory.join(format!("{}.qemu", self.name));
        let told = fs::File::create(&told_path)?;
        let mut command = tools::command(QEMU, self.directory);
        command.args(self.arguments()).stdin(Stdio::null()).stdout(told.try_clone()?).stderr(told);
        Ok(Machine { qemu: command.spawn()?, told: told_path, port, read_bytes: 0, rest: String::new() })
    }
}

impl Machine {
    /// Whether the processor's own virtualisation was tried, and does not do, as in some virtual machines.
    fn has_no_kvm(&self) -> bool {
        let told = fs::read_to_string(&self.told).unwrap_or_default();
        NO_KVM.iter().any(|words| told.contains(words))
    }

    /// The lines that came since.
    fn lines(&mut self) -> io::Result<Vec<String>> {
        let mut file = fs::File::open(&self.port)?;
        file.seek(SeekFrom::Start(self.read_bytes))?;
        let mut bytes = Vec::new();
        self.read_bytes += file.read_to_end(&mut bytes)? as u64;
        self.rest += &String::from_utf8_lossy(&bytes);
        let Some(end) = self.rest.rfind('\n') else { return Ok(Vec::new()) };
        let rest = self.rest.split_off(end + 1);
        let lines = std::mem::replace(&mut self.rest, rest);
        Ok(lines.lines().map(|line| line.trim_end().to_owned()).collect())
    }

    /// Hands every line to `on_line` until that returns false, the machine ends by itself, or the time is over; says whether it was the
    /// machine.
    pub fn watch(&mut self, until: Instant, mut on_line: impl FnMut(&str) -> bool) -> io::Result<Ended> {
        loop {
            // Asked before the lines are read, so that none that came before its end is missed.
            let ended = self.qemu.try_wait()?.is_some();
            for line in self.lines()? {
                if !on_line(&line) {
                    return Ok(Ended::Enough);
                }
            }
            if self.has_no_kvm() {
                return Ok(Ended::NoKvm);
            }
            if ended {
                return Ok(Ended::Off);
            }
            if Instant::now() >= until {
                return Ok(Ended::Late);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Takes its power: QEMU gets SIGKILL, and what it had not handed to the host is lost.
    pub fn cut_power(&mut self) -> io::Result<()> {
        self.qemu.kill()?;
        self.qemu.wait().map(|_| ())
    }
}

/// Why a machine is watched no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to be enough.
    Enough,
    /// The machine is off.
    Off,
    /// It took too long.
    Late,
    /// It never ran: /dev/kvm is there, and does not do.
    NoKvm,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.cut_power();
    }
}
