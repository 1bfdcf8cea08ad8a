//! The queue of a disk, as the kernel runs it.

use super::drive::NodeDrive;
use super::judge::{OneFile, Rule};
use super::{Context, human_bytes};
use crate::change::{Place, Write};
use crate::knob::{Knob, Severity};
use crate::machine::drives::Drive;

/// A node's unit of reading and writing.
const BLOCK_BYTES: u64 = 4096;
const NAMES: [&str; 17] = [
    "block_size",
    "rotational",
    "scheduler",
    "nr_requests",
    "nomerges",
    "rq_affinity",
    "read_ahead",
    "wbt",
    "iostats",
    "add_random",
    "write_cache",
    "power_loss_protection",
    "poll_queues",
    "lba_format",
    "discard",
    "atomic_write_unit",
    "nvme_interrupts",
];

/// What findings call the disk.
pub fn target(disk: &Drive) -> &str {
    disk.id.known().map_or(disk.name.as_str(), |id| id.0.as_str())
}

pub fn knobs(cx: &Context, drive: &NodeDrive) -> Vec<Knob> {
    let Some(disk) = &drive.disk else {
        let on = drive.mount.as_ref().map_or("an unknown mount".to_owned(), |m| m.filesystem.clone());
        let why = format!("no single disk lies under the drive ({on})");
        return NAMES.map(|name| Knob::not_applicable(name, why.clone()).of(&drive.named)).into();
    };
    let queue = Queue { cx, disk };
    let knobs = vec![
        queue.block_size(),
        queue.rotational(),
        queue.scheduler(),
        queue.nr_requests(),
        queue.nomerges(),
        queue.rq_affinity(),
        queue.read_ahead(drive.direct.unwrap_or(true)),
        queue.wbt(),
        queue.iostats(),
        queue.add_random(),
        queue.write_cache(),
        Knob::not_applicable("power_loss_protection", POWER),
        queue.poll_queues(),
        queue.lba_format(),
        queue.discard(),
        queue.atomic_write_unit(),
        queue.interrupts(),
    ];
    knobs.into_iter().map(|knob| knob.of(target(disk))).collect()
}

const POWER: &str = "no file tells whether a drive's cache survives a loss of power, so that the write cache is never \
                     set to write-through here; the vendor's data sheet tells";

struct Queue<'a> {
    cx: &'a Context<'a>,
    disk: &'a Drive,
}

impl Queue<'_> {
    fn place(&self, file: &str) -> Place {
        let file = format!("queue/{file}");
        match self.disk.id.known() {
            Some(id) => Place::Drive { drive: id.clone(), file },
            None => {
                let at = self.disk.attached_at.known().cloned();
                Place::Disk { disk: self.disk.name.clone(), at, file }
            }
        }
    }

    fn one_file(&self, name: &'static str, file: &str, why: &'static str, absent: &'static str) -> OneFile {
        OneFile { name, place: self.place(file), target: target(self.disk).to_owned(), why, absent }
    }

    fn number(&self, file: &str) -> Option<u64> {
        self.cx.probe.number(&format!("/sys/block/{}/queue/{file}", self.disk.name))
    }

    fn is_nvme(&self) -> bool {
        self.disk.name.starts_with("nvme")
    }

    fn block_size(&self) -> Knob {
        let Some(bytes) = self.disk.logical_block_bytes.known().copied() else {
            return Knob::not_applicable("block_size", "the disk does not tell its block size");
        };
        let why = "a node reads and writes blocks of 4 KiB; a disk with larger ones refuses them";
        let remedy = "format the namespace with blocks of 512 B or 4 KiB";
        Knob::ok("block_size", human_bytes(bytes), "4 KiB or less", why).unless(
            bytes <= BLOCK_BYTES,
            Severity::Fatal,
            remedy,
        )
    }

    fn rotational(&self) -> Knob {
        let Some(spins) = self.disk.rotational.known().copied() else {
            return Knob::not_applicable("rotational", "the disk does not tell its kind");
        };
        let current = if spins { "yes" } else { "no" };
        let why = "a GET that misses memory is one random read: 100 us on flash, 10 ms on a spinning disk \
                   (a virtual disk may claim to spin)";
        Knob::ok("rotational", current, "no", why).unless(!spins, Severity::Warn, "put the drive on flash")
    }

    /// Another scheduler brings its own number of requests and its own idea of throttling.
    fn scheduler(&self) -> Knob {
        let why = "a node orders and bounds its own requests; a scheduler adds a lock and a queue to each";
        let mut knob =
            self.one_file("scheduler", "scheduler", why, "the disk has no scheduler").word(self.cx, &[]);
        for write in &mut knob.change.writes {
            write.also_moves.extend([self.place("nr_requests"), self.place("wbt_lat_usec")]);
        }
        knob
    }

    fn nr_requests(&self) -> Knob {
        // Each scheduler brings its own number, and without one it is mostly more than enough.
        if let (Some(wanted), Some(scheduler)) =
            (self.cx.profile.word("scheduler"), self.disk.scheduler.known())
            && wanted != scheduler
        {
            let why = "it comes with the scheduler, which is not as wanted: looked at once that is";
            return Knob::not_applicable("nr_requests", why);
        }
        let why = "a shard's thread must not sleep in the kernel for a free slot of the queue";
        self.one_file("nr_requests", "nr_requests", why, "the disk has no queue of requests").number(
            self.cx,
            Rule::AtLeast,
            None,
        )
    }

    fn nomerges(&self) -> Knob {
        let why = "a node's reads are at random and its writes are whole already: each looks for a neighbour in vain";
        self.one_file("nomerges", "nomerges", why, "the disk has no such switch").number(
            self.cx,
            Rule::AtLeast,
            None,
        )
    }

    fn rq_affinity(&self) -> Knob {
        let why = "with fewer queues than CPUs a request ends on another CPU than it began on, unless it is sent back";
        self.one_file("rq_affinity", "rq_affinity", why, "the disk has no such switch").number(
            self.cx,
            Rule::Exactly,
            None,
        )
    }

    fn read_ahead(&self, direct: bool) -> Knob {
        if direct {
            return Knob::not_applicable("read_ahead", "reads with O_DIRECT do not read ahead");
        }
        let why = "through the page cache, a random read of 4 KiB may pull in this many KiB";
        self.one_file("read_ahead", "read_ahead_kb", why, "the disk does not tell").number(
            self.cx,
            Rule::AtMost,
            None,
        )
    }

    fn wbt(&self) -> Knob {
        let why = "the kernel times every request and holds writes and discards back by what it sees, on top of the node";
        let absent = "this kernel does not throttle writes of the disk";
        self.one_file("wbt", "wbt_lat_usec", why, absent).number(self.cx, Rule::Exactly, None)
    }

    fn iostats(&self) -> Knob {
        let why = "two clock readings and a few counters for each request; the node counts its own, \
                   but iostat and its like then show nothing";
        self.one_file("iostats", "iostats", why, "the disk counts nothing").number(
            self.cx,
            Rule::Exactly,
            None,
        )
    }

    fn add_random(&self) -> Knob {
        let why = "every request that ends stirs the kernel's random pool";
        self.one_file("add_random", "add_random", why, "the disk has no such switch").number(
            self.cx,
            Rule::Exactly,
            None,
        )
    }

    /// Never changed by this program, in either direction: a revert would have to undo it. An NVMe drive that the kernel
    /// knows FUA of has a volatile cache: Linux's driver sets both from one bit of the drive's identity.
    fn write_cache(&self) -> Knob {
        let file = self.one_file(
            "write_cache",
            "write_cache",
            "",
            "the disk does not tell; a node takes it as volatile",
        );
        let path = format!("/sys/block/{}/queue/write_cache", self.disk.name);
        let current = match self.cx.probe.read(&path) {
            Ok(current) => current,
            Err(unread) => return file.unread(unread),
        };
        if self.is_nvme() && current == "write through" && self.disk.fua.known() == Some(&true) {
            let why = "the drive has a volatile cache, and somebody told the kernel that it has none: durable writes \
                       no longer reach the medium, and a loss of power loses what was acknowledged";
            return Knob::ok("write_cache", "write through, by override", "write back", why)
                .short(Severity::Fatal, format!("echo write back > {path}"));
        }
        if self.cx.profile.word("write_cache").is_none() {
            return file.kept(self.cx, &current);
        }
        let why = "with a volatile cache every durable write waits for the medium; a drive with power-loss \
                   protection reports `write through`, and does not";
        let fine = current == "write through";
        let remedy =
            "use a drive with power-loss protection; never override the kernel's answer on one without";
        Knob::ok("write_cache", current, "write through", why).unless(fine, Severity::Warn, remedy)
    }

    /// A parameter of the driver: of every NVMe drive, and for the next boot.
    fn poll_queues(&self) -> Knob {
        if !self.is_nvme() {
            return Knob::not_applicable("poll_queues", "not an NVMe drive");
        }
        let why =
            "queues that nobody polls are taken from those with interrupts, and a node's ring does not poll";
        let file = "/sys/module/nvme/parameters/poll_queues";
        let knob = OneFile::machine("poll_queues", file, why, "the module nvme does not tell its parameters");
        let mut found = knob.number(self.cx, Rule::Exactly, None);
        // The file takes a value, and the driver reads it when it next probes a drive: a boot does both.
        let wanted = self.cx.profile.number("poll_queues");
        found.change.writes.clear();
        if let Some(wanted) = wanted.filter(|wanted| *wanted > 0 || found.is_short()) {
            found = found.booted([format!("nvme.poll_queues={wanted}")]);
            if found.is_short() {
                found.remedy = format!("boot with nvme.poll_queues={wanted}");
            }
        }
        found
    }

    /// Formatting loses everything on the drive, so `apply` never does it.
    fn lba_format(&self) -> Knob {
        let disk = self.disk;
        let (Some(logical), true) = (disk.logical_block_bytes.known().copied(), self.is_nvme()) else {
            return Knob::not_applicable(
                "lba_format",
                "not an NVMe drive, or one that does not tell its block size",
            );
        };
        let knob = self.one_file("lba_format", "logical_block_size", "", "");
        let Some(wanted) = self.cx.profile.number("lba_format") else {
            return knob.kept(self.cx, &logical.to_string());
        };
        if logical < wanted && disk.physical_block_bytes.known().is_none_or(|physical| *physical < wanted) {
            let why = format!(
                "the drive claims physical blocks of less than {wanted} B; whether it has a format of {wanted} B, \
                 only `nvme id-ns -H` tells, before a node runs"
            );
            return Knob { current: logical.to_string(), ..Knob::not_applicable("lba_format", why) };
        }
        let why = "the drive works in larger blocks than it is formatted with, and maps more of them than it needs to";
        let remedy = match disk.id.known() {
            Some(id) => format!(
                "this LOSES ALL DATA of the drive, so only on an empty one: lode-tune format-lba --drive id:{id} --block {wanted}"
            ),
            None => "the drive has no name that stays, so lode-tune does not format it; nvme format does"
                .to_owned(),
        };
        Knob::ok("lba_format", logical.to_string(), &format!("{wanted} or more"), why).unless(
            logical >= wanted,
            Severity::Warn,
            remedy,
        )
    }

    fn discard(&self) -> Knob {
        let file = self.one_file("discard", "discard_max_bytes", "", "the disk does not tell");
        let Some(most) = self.number("discard_max_bytes") else {
            return Knob::not_applicable("discard", "the disk does not tell whether it takes discards");
        };
        let hardware = self.number("discard_max_hw_bytes").unwrap_or(0);
        if most == 0 && hardware == 0 {
            return Knob::not_applicable("discard", "the disk takes no discards");
        }
        let current = if most == 0 { "off".to_owned() } else { format!("on, up to {}", human_bytes(most)) };
        if self.cx.profile.word("discard").is_none() {
            return file.kept(self.cx, &current);
        }
        let why = "a node on a block device tells it which segments it has freed; unheard, the drive copies dead data";
        let value = if most == 0 { hardware } else { most };
        let remedy = format!("echo {value} > /sys/block/{}/queue/discard_max_bytes", self.disk.name);
        Knob::ok("discard", current, "on", why)
            .unless(most > 0, Severity::Warn, remedy)
            .written([Write::at(self.place("discard_max_bytes"), value.to_string())])
    }

    fn atomic_write_unit(&self) -> Knob {
        let mut knob = Knob::not_applicable(
            "atomic_write_unit",
            "a node checks every frame by checksum and does not rely on it; for information",
        );
        knob.current = match self.disk.atomic_write_unit_bytes.known() {
            Some(0) => "no promise".to_owned(),
            Some(bytes) => human_bytes(*bytes),
            None => "not told".to_owned(),
        };
        knob
    }

    fn interrupts(&self) -> Knob {
        let why = if self.is_nvme() {
            "the kernel spreads the interrupts of NVMe queues over the CPUs itself and answers EPERM to anybody \
             who would move them, so nobody tries"
        } else {
            "not an NVMe drive"
        };
        let mut knob = Knob::not_applicable("nvme_interrupts", why);
        if let Some(queues) = self.disk.hardware_queues.known().filter(|_| self.is_nvme()) {
            knob.current = format!("{queues} queues");
        }
        knob
    }
}
