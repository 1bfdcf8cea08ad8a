//! Machines for tests: trees of files in a temporary directory, and a kernel that answers to writes as Linux does.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::checks::{self, Context};
use crate::knob::{Knob, Severity};
use crate::probe::Probe;
use crate::profile::Profile;
use crate::tune::store::{Files, Store};

/// A machine's files.
pub struct Fixture {
    pub root: tempfile::TempDir,
    pub profile: Profile,
    pub drives: Vec<String>,
}

const CPU: &str = "sys/devices/system/cpu";
const DRIVE: &str = "/var/lib/lode/drive.lode";

/// The machine's own files where nothing is to be improved, for the profile `generic-nvme`.
const GOOD: [(&str, &str); 41] = [
    ("proc/sys/kernel/osrelease", "6.8.0-31-generic"),
    ("proc/sys/kernel/io_uring_disabled", "0"),
    ("proc/sys/kernel/random/boot_id", "boot-one"),
    ("proc/cmdline", "root=/dev/nvme0n1p1 quiet"),
    ("proc/self/status", "Name:\tx\nCapEff:\t0000000000000000"),
    (
        "proc/self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \n\
         Max open files            20000                20000                files     \n\
         Max locked memory         16777216             16777216             bytes     ",
    ),
    ("proc/1/comm", "systemd"),
    ("proc/sys/net/core/somaxconn", "4096"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "4096"),
    ("proc/sys/net/core/netdev_max_backlog", "16384"),
    ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "0"),
    ("proc/sys/net/ipv4/tcp_notsent_lowat", "131072"),
    ("proc/sys/net/core/busy_poll", "0"),
    ("proc/sys/net/core/busy_read", "0"),
    ("proc/sys/net/core/rps_sock_flow_entries", "32768"),
    ("proc/meminfo", "MemTotal:       16384000 kB\nMemFree: 1 kB"),
    ("proc/swaps", "Filename\tType\n/swapfile file"),
    ("proc/sys/vm/swappiness", "1"),
    ("proc/sys/vm/min_free_kbytes", "90000"),
    ("proc/sys/vm/nr_hugepages", "0"),
    ("proc/sys/vm/zone_reclaim_mode", "0"),
    ("proc/sys/vm/stat_interval", "10"),
    ("proc/sys/kernel/numa_balancing", "0"),
    ("proc/sys/kernel/timer_migration", "0"),
    ("proc/sys/fs/aio-max-nr", "65536"),
    ("proc/self/mountinfo", "22 1 259:1 / / rw shared:1 - ext4 /dev/nvme0n1p1 rw"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never"),
    ("sys/kernel/mm/transparent_hugepage/defrag", "always defer [defer+madvise] madvise never"),
    ("sys/devices/system/cpu/online", "0-3"),
    ("sys/devices/system/cpu/smt/active", "0"),
    ("sys/devices/system/cpu/cpufreq/boost", "1"),
    ("sys/devices/system/node/node0/cpulist", "0-1"),
    ("sys/devices/system/node/node0/meminfo", "Node 0 MemTotal:       8192000 kB"),
    ("sys/devices/system/node/node1/cpulist", "2-3"),
    ("sys/devices/system/node/node1/meminfo", "Node 1 MemTotal:       8192000 kB"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc"),
    ("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm"),
    ("sys/fs/cgroup/cpu.max", "max 100000"),
    ("sys/devices/virtual/workqueue/cpumask", "f"),
    ("sys/module/nvme/parameters/poll_queues", "0"),
    ("proc/cpuinfo", "processor\t: 0\nmodel name\t: A Processor of 2 GHz"),
];

/// The files of a tuned NVMe drive, below its directory.
const GOOD_DISK: [(&str, &str); 21] = [
    ("size", "3750748848"),
    ("nsid", "1"),
    ("device/model", "A Drive   "),
    ("device/firmware_rev", "1.0"),
    ("queue/logical_block_size", "4096"),
    ("queue/physical_block_size", "4096"),
    ("queue/rotational", "0"),
    ("queue/scheduler", "[none] mq-deadline"),
    ("queue/write_cache", "write through"),
    ("queue/fua", "0"),
    ("queue/nr_requests", "1023"),
    ("queue/read_ahead_kb", "128"),
    ("queue/nomerges", "2"),
    ("queue/rq_affinity", "2"),
    ("queue/wbt_lat_usec", "0"),
    ("queue/iostats", "0"),
    ("queue/add_random", "0"),
    ("queue/discard_max_bytes", "2199023255040"),
    ("queue/discard_max_hw_bytes", "2199023255040"),
    ("queue/atomic_write_unit_max_bytes", "4096"),
    ("mq/0/cpu_list", "0, 1, 2, 3"),
];

impl Fixture {
    /// A machine without files.
    pub fn bare() -> Fixture {
        // Hundreds of small files each: in memory where there is a place for it.
        let memory = Path::new("/dev/shm");
        let root = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let profile = Profile::load("generic-nvme").unwrap();
        Fixture { root, profile, drives: vec![DRIVE.to_owned()] }
    }

    /// A machine with nothing to improve: four CPUs at two nodes, a drive with a file system, an interface.
    pub fn good() -> Fixture {
        let machine = Fixture::bare();
        GOOD.iter().for_each(|(path, text)| machine.set(path, text));
        for cpu in 0..4 {
            machine.set(&format!("{CPU}/cpu{cpu}/cpufreq/scaling_governor"), "performance");
            machine.set(&format!("{CPU}/cpu{cpu}/topology/thread_siblings_list"), &cpu.to_string());
            for (state, name, latency_us, disabled) in [(0, "POLL", 0, 0), (1, "C1", 2, 0), (2, "C6", 133, 1)]
            {
                let state = format!("{CPU}/cpu{cpu}/cpuidle/state{state}");
                machine.set(&format!("{state}/name"), name);
                machine.set(&format!("{state}/latency"), &latency_us.to_string());
                machine.set(&format!("{state}/disable"), &disabled.to_string());
            }
        }
        machine.add_disk("nvme0n1", "SERIAL-A");
        machine.set("sys/devices/pci/nvme0/nvme0n1/nvme0n1p1/partition", "1");
        machine.link("sys/dev/block/259:1", "../../devices/pci/nvme0/nvme0n1/nvme0n1p1");
        machine.add_nic("ens5", "0a:00:00:00:00:01", "ena", 4);
        machine
    }

    /// A machine that nobody has tuned: nearly everything is short.
    pub fn untuned() -> Fixture {
        let machine = Fixture::good();
        for (path, text) in UNTUNED {
            machine.set(path, text);
        }
        for cpu in 0..4 {
            machine.set(&format!("{CPU}/cpu{cpu}/cpufreq/scaling_governor"), "powersave");
            machine.set(&format!("{CPU}/cpu{cpu}/cpuidle/state2/disable"), "0");
        }
        machine.untune_disk("nvme0n1");
        machine.add_disk("nvme1n1", "SERIAL-B");
        machine.untune_disk("nvme1n1");
        machine.link("dev/disk/by-id/nvme-A_Drive_SERIAL-B", "../../nvme1n1");
        fs::remove_dir_all(machine.path("sys/devices/pci/ens5")).unwrap();
        fs::remove_file(machine.path("sys/class/net/ens5")).unwrap();
        machine.add_nic("ens5", "0a:00:00:00:00:01", "ena", 2);
        for queue in 0..2 {
            machine.set(&format!("sys/class/net/ens5/queues/tx-{queue}/xps_cpus"), "0");
        }
        (0..3).for_each(|index| machine.set(&format!("proc/irq/{}/smp_affinity_list", 40 + index), "0-3"));
        machine
    }

    /// A Standard_L8s_v3 of Azure as it boots: a local drive, a remote one with the system, a synthetic interface.
    pub fn azure() -> Fixture {
        let mut machine = Fixture::untuned();
        for directory in ["sys/devices/system/node/node1", "sys/devices/system/cpu/cpufreq"] {
            fs::remove_dir_all(machine.path(directory)).unwrap();
        }
        for cpu in 0..4 {
            fs::remove_dir_all(machine.path(&format!("{CPU}/cpu{cpu}/cpufreq"))).unwrap();
            fs::remove_dir_all(machine.path(&format!("{CPU}/cpu{cpu}/cpuidle"))).unwrap();
        }
        machine.set("sys/class/dmi/id/sys_vendor", "Microsoft Corporation");
        machine.set("sys/class/dmi/id/product_name", "Virtual Machine");
        machine.set("sys/class/dmi/id/chassis_asset_tag", "7783-7084-3265-9085-8269-3286-77");
        let data = r#"{"ds": {"meta_data": {"imds": {"compute": {"vmSize": "Standard_L8s_v3"}}}}}"#;
        machine.set("run/cloud-init/instance-data.json", data);
        machine.set("sys/block/nvme0n1/device/model", "MSFT NVMe Accelerator v1.0");
        machine.set("sys/block/nvme1n1/device/model", "Microsoft NVMe Direct Disk");
        machine.set(&format!("{CLOCK}/current_clocksource"), "hyperv_clocksource_tsc_page");
        machine.set(&format!("{CLOCK}/available_clocksource"), "hyperv_clocksource_tsc_page acpi_pm");
        machine.profile = Profile::load("azure-lsv3").unwrap();
        machine.drives = Vec::new();
        machine
    }

    fn add_disk(&self, name: &str, serial: &str) {
        let controller = name.trim_end_matches("n1");
        let directory = format!("sys/devices/pci/{controller}/{name}");
        // Serial and model are the controller's, to which a namespace has a link.
        for (file, text) in GOOD_DISK {
            let at = match file.strip_prefix("device/") {
                Some(file) => format!("sys/devices/pci/{controller}/{file}"),
                None => format!("{directory}/{file}"),
            };
            self.set(&at, text);
        }
        self.set(&format!("sys/devices/pci/{controller}/serial"), &format!("{serial}      "));
        self.link(&format!("{directory}/device"), "..");
        self.link(&format!("sys/block/{name}"), &format!("../devices/pci/{controller}/{name}"));
    }

    fn untune_disk(&self, name: &str) {
        for (file, text) in UNTUNED_DISK {
            self.set(&format!("sys/block/{name}/queue/{file}"), text);
        }
    }

    fn add_nic(&self, name: &str, address: &str, driver: &str, queues: u32) {
        self.add_nic_at(name, &format!("pci/{name}"), (address, driver), queues, 40);
    }

    /// An interface with this address and driver, with as many queues each way, and an interrupt more, from this one on; its device is so far
    /// below `/sys/devices`.
    pub fn add_nic_at(&self, name: &str, below: &str, known_by: (&str, &str), queues: u32, first: u32) {
        let (address, driver) = known_by;
        let device = format!("sys/devices/{below}");
        let directory = format!("{device}/net/{name}");
        self.set(&format!("{directory}/address"), address);
        self.set(&format!("{directory}/operstate"), "up");
        self.set(&format!("{directory}/mtu"), "9001");
        for queue in 0..queues {
            self.set(&format!("{directory}/queues/rx-{queue}/rps_cpus"), "0");
            self.set(&format!("{directory}/queues/rx-{queue}/rps_flow_cnt"), "0");
            self.set(&format!("{directory}/queues/tx-{queue}/xps_cpus"), &format!("{:x}", 1 << queue));
        }
        for index in 0..=queues {
            self.set(&format!("{device}/msi_irqs/{}", first + index), "msix");
            self.set(&format!("proc/irq/{}/smp_affinity_list", first + index), &(index % 4).to_string());
        }
        self.set(&format!("sys/bus/drivers/{driver}/bind"), "");
        self.link(&format!("{device}/driver"), &format!("../../../bus/drivers/{driver}"));
        self.link(&format!("{directory}/device"), "../..");
        self.link(&format!("sys/class/net/{name}"), &format!("../../devices/{below}/net/{name}"));
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub fn set(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text}\n")).unwrap();
    }

    pub fn get(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap().trim().to_owned()
    }

    pub fn link(&self, path: &str, target: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(target, path).unwrap();
    }

    pub fn with(self, path: &str, text: &str) -> Fixture {
        self.set(path, text);
        self
    }

    pub fn without(self, path: &str) -> Fixture {
        fs::remove_file(self.path(path)).unwrap();
        self
    }

    pub fn wanting(mut self, text: &str) -> Fixture {
        let head = "version = 1\nname = \"test\"\nabout = \"a test\"\nextends = \"generic-nvme\"\n[knobs]\n";
        self.profile = Profile::parse("test", &format!("{head}{text}")).unwrap();
        self
    }

    /// Wanting this, and nothing else.
    pub fn wanting_only(mut self, text: &str) -> Fixture {
        let head = "version = 1\nname = \"test\"\nabout = \"a test\"\n[knobs]\n";
        self.profile = Profile::parse("test", &format!("{head}{text}")).unwrap();
        self
    }

    pub fn probe(&self) -> Probe {
        Probe::new(self.root.path())
    }

    pub fn look<T>(&self, at: impl FnOnce(&Context) -> T) -> T {
        let probe = self.probe();
        let name = &self.profile.name;
        at(&Context { probe: &probe, profile: &self.profile, profile_name: name, drives: &self.drives })
    }

    pub fn knobs(&self) -> Vec<Knob> {
        self.look(checks::all)
    }

    pub fn knob(&self, name: &str) -> Knob {
        self.knobs().into_iter().find(|knob| knob.name == name).unwrap_or_else(|| panic!("no knob {name}"))
    }

    pub fn severity(&self, name: &str) -> Severity {
        self.knob(name).severity
    }

    /// Every file but the journal, with its bytes.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut due = vec![self.root.path().to_path_buf()];
        while let Some(directory) = due.pop() {
            for entry in fs::read_dir(directory).unwrap().flatten() {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() && !entry.path().ends_with("var/lib/lode-tune") {
                    due.push(entry.path());
                } else if kind.is_file() {
                    files.insert(entry.path(), fs::read(entry.path()).unwrap());
                }
            }
        }
        files
    }
}

pub const CLOCK: &str = "sys/devices/system/clocksource/clocksource0";

const UNTUNED: [(&str, &str); 21] = [
    ("proc/sys/kernel/io_uring_disabled", "2"),
    ("proc/sys/net/core/somaxconn", "128"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "512"),
    ("proc/sys/net/core/netdev_max_backlog", "1000"),
    ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1"),
    ("proc/sys/net/ipv4/tcp_notsent_lowat", "4294967295"),
    ("proc/sys/net/core/busy_poll", "50"),
    ("proc/sys/net/core/busy_read", "50"),
    ("proc/sys/net/core/rps_sock_flow_entries", "0"),
    ("proc/sys/vm/swappiness", "60"),
    ("proc/sys/vm/min_free_kbytes", "45056"),
    ("proc/sys/vm/nr_hugepages", "512"),
    ("proc/sys/vm/zone_reclaim_mode", "1"),
    ("proc/sys/vm/stat_interval", "1"),
    ("proc/sys/kernel/numa_balancing", "1"),
    ("proc/sys/kernel/timer_migration", "1"),
    ("proc/sys/fs/aio-max-nr", "1024"),
    ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never"),
    ("sys/kernel/mm/transparent_hugepage/defrag", "[always] defer defer+madvise madvise never"),
    ("sys/devices/system/cpu/cpufreq/boost", "0"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet"),
];

const UNTUNED_DISK: [(&str, &str); 11] = [
    ("scheduler", "none [mq-deadline] kyber"),
    ("nr_requests", "64"),
    ("nomerges", "0"),
    ("rq_affinity", "1"),
    ("wbt_lat_usec", "2000"),
    ("iostats", "1"),
    ("add_random", "1"),
    ("write_cache", "write back"),
    ("fua", "1"),
    ("logical_block_size", "512"),
    ("discard_max_bytes", "0"),
];

/// A kernel: files that list choices keep them, one setting moves others, some interrupts are its own. Given a number of
/// steps, it stops in the middle of the next one, as a machine does that loses its power.
#[derive(Default)]
pub struct FakeKernel {
    pub steps_left: Option<usize>,
    pub has_stopped: bool,
    pub managed_interrupts: bool,
    pub refused: Option<(&'static str, i32)>,
    /// A file, and what it makes of whatever is written.
    pub clamped: Option<(&'static str, &'static str)>,
    pub log: Vec<String>,
}

impl FakeKernel {
    pub fn stops_after(steps: usize) -> FakeKernel {
        FakeKernel { steps_left: Some(steps), ..FakeKernel::default() }
    }

    /// Whether there is power for one more step.
    fn step(&mut self) -> io::Result<bool> {
        if self.has_stopped {
            return Err(io::Error::other("no power"));
        }
        if self.steps_left == Some(0) {
            self.has_stopped = true;
            return Ok(false);
        }
        self.steps_left = self.steps_left.map(|steps| steps - 1);
        Ok(true)
    }

    fn chosen(path: &Path, value: &str) -> io::Result<String> {
        let text = fs::read_to_string(path)?;
        if !text.contains('[') {
            return Ok(value.to_owned());
        }
        let words: Vec<&str> = text.split_whitespace().map(|word| word.trim_matches(['[', ']'])).collect();
        if !words.contains(&value) {
            return Err(io::Error::from_raw_os_error(22));
        }
        let listed =
            words.iter().map(|word| if *word == value { format!("[{word}]") } else { (*word).to_owned() });
        Ok(listed.collect::<Vec<_>>().join(" "))
    }
}

impl Store for FakeKernel {
    fn read(&self, path: &Path) -> io::Result<String> {
        Files::default().read(path)
    }

    fn set(&mut self, path: &Path, value: &str) -> io::Result<()> {
        if !self.step()? {
            return Err(io::Error::other("no power"));
        }
        let name = path.to_string_lossy().into_owned();
        if self.managed_interrupts && name.contains("/proc/irq/") {
            return Err(io::Error::from_raw_os_error(1));
        }
        if let Some((file, error)) = self.refused
            && name.ends_with(file)
        {
            return Err(io::Error::from_raw_os_error(error));
        }
        let clamped = self.clamped.filter(|(file, _)| name.ends_with(file)).map(|(_, value)| value);
        let text = FakeKernel::chosen(path, clamped.unwrap_or(value))?;
        fs::write(path, format!("{text}\n"))?;
        self.log.push(name.clone());
        // Another scheduler comes with its own number of requests and throttling; other pages, another reserve.
        if name.ends_with("queue/scheduler") {
            let requests = if value == "none" { "1023\n" } else { "256\n" };
            fs::write(path.with_file_name("nr_requests"), requests)?;
            fs::write(path.with_file_name("wbt_lat_usec"), "75000\n")?;
        }
        if name.ends_with("transparent_hugepage/enabled") {
            let root = path.ancestors().nth(5).unwrap();
            fs::write(root.join("proc/sys/vm/min_free_kbytes"), "67584\n")?;
        }
        Ok(())
    }

    fn append(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let has_power = self.step()?;
        let written = if has_power { text } else { &text[..text.len() / 2] };
        fs::create_dir_all(path.parent().unwrap())?;
        fs::OpenOptions::new().append(true).create(true).open(path)?.write_all(written.as_bytes())?;
        if has_power { Ok(()) } else { Err(io::Error::other("no power")) }
    }

    fn write(&mut self, path: &Path, text: &str) -> io::Result<()> {
        let has_power = self.step()?;
        fs::write(path, if has_power { text } else { &text[..text.len() / 2] })?;
        if has_power { Ok(()) } else { Err(io::Error::other("no power")) }
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if self.step()? { fs::rename(from, to) } else { Err(io::Error::other("no power")) }
    }

    fn cut(&mut self, path: &Path, bytes: u64) -> io::Result<()> {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        if self.step()? { file.set_len(bytes) } else { Err(io::Error::other("no power")) }
    }

    fn remove(&mut self, path: &Path) -> io::Result<()> {
        if self.step()? { fs::remove_file(path) } else { Err(io::Error::other("no power")) }
    }
}
