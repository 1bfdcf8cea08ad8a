//! `image boot-test`: an image in a machine of QEMU's, held to what is promised of it.
//!
//! What a cut of power means here: QEMU is killed. Its drives' files are opened past the host's page cache, so that what a drive had
//! answered is there afterwards, and what was on its way may not be. A volatile cache that forgets what it has answered is not
//! emulated; the simulator tries that.

mod machine;
mod script;

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use thiserror::Error;

use super::args::BootTest;
use super::tools::{self, MCOPY, QEMU, TAR, ToolError};
use super::{BuildError, Work, disk, export, uki};
use machine::{DRIVES, Ended, Machine, Parts, Start};

/// Batches that each writer must have had answered before the power is cut: enough that several frames are in flight.
const BATCHES_BEFORE_CUT: u64 = 12;
/// Writers of the ledger, as `guest.sh` has them.
const WRITERS: usize = 3;
/// Lines of a console that are shown where a machine said nothing.
const CONSOLE_LINES: usize = 20;

const EMULATED: &str = "the processor emulated";

/// Why an image was not tried.
#[derive(Debug, Error)]
pub enum BootTestError {
    /// QEMU is not here, which is no fault.
    #[error("left out: {0}")]
    LeftOut(ToolError),
    /// Something of the image, or of a program.
    #[error(transparent)]
    Image(#[from] BuildError),
    /// A program.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// A file or process of ours.
    #[error("{what}: {error}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> BootTestError {
    move |error| BootTestError::System { what, error }
}

/// One thing that was tried.
#[derive(Debug, Serialize)]
pub struct Step {
    /// In which boot.
    pub boot: String,
    /// What.
    pub name: String,
    /// Whether it was as promised.
    pub ok: bool,
    /// Since the test began.
    pub at_s: f64,
    /// What it said of itself, or why it failed.
    pub told: Vec<String>,
}

/// What was found.
#[derive(Debug, Serialize)]
pub struct Tried {
    /// The processor was QEMU's own, or the machine's.
    pub accelerator: &'static str,
    /// From power on to the first step of each boot.
    pub boots_s: Vec<f64>,
    /// All of it.
    pub took_s: f64,
    /// In order.
    pub steps: Vec<Step>,
    /// What could not be tried.
    pub left_out: Vec<String>,
    /// Batches that were answered before the power was cut.
    pub acknowledged_batches: u64,
}

impl Tried {
    /// Whether all was as promised.
    pub fn is_well(&self) -> bool {
        self.steps.iter().all(|step| step.ok)
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        for step in &self.steps {
            let word = if step.ok { "ok    " } else { "FAILED" };
            out += &format!("{word} {:>6.1} s  {}: {}\n", step.at_s, step.boot, step.name);
            out += &step.told.iter().map(|line| format!("                 {line}\n")).collect::<String>();
        }
        out += &self.left_out.iter().map(|what| format!("left out: {what}\n")).collect::<String>();
        let failed = self.steps.iter().filter(|step| !step.ok).count();
        let boots: Vec<String> = self.boots_s.iter().map(|s| format!("{s:.1} s")).collect();
        out + &format!(
            "{} of {} as promised in {:.0} s, {}; boots took {}\n",
            self.steps.len() - failed,
            self.steps.len(),
            self.took_s,
            self.accelerator,
            boots.join(", ")
        )
    }
}

/// Tries an image.
pub fn boot_test(options: &BootTest) -> Result<Tried, BootTestError> {
    tools::require(&[QEMU]).map_err(BootTestError::LeftOut)?;
    tools::require(&[MCOPY, TAR])?;
    let work = Work::beside(options.keep.as_deref().unwrap_or(&options.image))?;
    let tried = Test::prepare(options, &work.0)?.run(options.quick);
    if let Some(keep) = &options.keep {
        let _ = fs::remove_dir_all(keep);
        fs::rename(&work.0, keep).map_err(failed("the machine's files cannot be kept"))?;
    }
    tried
}

/// A test that is under way.
struct Test<'a> {
    directory: &'a Path,
    kvm: bool,
    command_line: String,
    began: Instant,
    until: Instant,
    tried: Tried,
    /// What tells this test's records from any other's.
    needle: String,
    /// The last batch of each writer that was answered.
    acknowledged: [Option<u64>; WRITERS],
    /// Fingerprint of the files in the node.
    files: String,
}

impl<'a> Test<'a> {
    /// Copies of the image and its kernel, and empty drives.
    fn prepare(options: &BootTest, directory: &'a Path) -> Result<Test<'a>, BootTestError> {
        let kvm = !options.no_kvm && fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
        export::copy(&options.image, &directory.join("disk.img"))?;
        let unpacked = disk::read_uki(&options.image, directory)?;
        let section = |name| uki::section(&unpacked, name).map_err(BuildError::from);
        fs::write(directory.join("kernel"), section(".linux")?)
            .map_err(failed("the kernel cannot be copied"))?;
        let command_line = String::from_utf8_lossy(section(".cmdline")?).trim_end_matches('\0').to_owned();
        for (number, (_, bytes, _)) in DRIVES.iter().enumerate() {
            let file = fs::File::create(directory.join(format!("drive{number}.img")));
            file.and_then(|file| file.set_len(*bytes)).map_err(failed("a drive cannot be made"))?;
        }
        let began = Instant::now();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let tried = Tried {
            accelerator: if kvm { "with /dev/kvm" } else { EMULATED },
            boots_s: Vec::new(),
            took_s: 0.0,
            steps: Vec::new(),
            left_out: Vec::new(),
            acknowledged_batches: 0,
        };
        Ok(Test {
            directory,
            kvm,
            command_line,
            began,
            until: began + options.timeout,
            tried,
            needle: format!("{:x}", unix.as_nanos()),
            acknowledged: [None; WRITERS],
            files: String::new(),
        })
    }

    fn run(mut self, quick: bool) -> Result<Tried, BootTestError> {
        let firmware = machine::firmware();
        if firmware.is_none() {
            self.tried.left_out.push("a boot by UEFI: there is no firmware; apt-get install ovmf".to_owned());
        }
        let well = if quick {
            self.boot("quick", firmware, None)?
        } else {
            self.boot("first", None, None)? && {
                let bad_sector = self.find_needle()?;
                self.boot("second", firmware, bad_sector)?
            }
        };
        assert_eq!(well, self.tried.is_well(), "a boot that failed has a step that failed");
        self.tried.took_s = self.began.elapsed().as_secs_f64();
        self.tried.acknowledged_batches = self.acknowledged.iter().flatten().map(|last| last + 1).sum();
        Ok(self.tried)
    }

    /// One boot, until it is done, or its power is cut; whether all of it was as promised.
    fn boot(
        &mut self,
        phase: &str,
        firmware: Option<(&str, &str)>,
        bad_sector: Option<u64>,
    ) -> Result<bool, BootTestError> {
        script::write(self.directory, &self.variables(phase))?;
        let kernel = self.directory.join("kernel");
        let command_line = self.command_line.clone();
        let start = match firmware {
            Some((code, variables)) => Start::Uefi { code, variables },
            None => Start::Direct { kernel: &kernel, command_line: &command_line },
        };
        // At first, the machine is to be seen as it comes.
        let masked: &[&str] = if phase == "first" { &["tune"] } else { &[] };
        let more = script::parameters(masked);
        let directory = self.directory;
        let parts = Parts { directory, name: phase, start, more: &more, bad_sector, kvm: self.kvm };
        let powered = Instant::now();
        let mut machine = parts.run().map_err(failed("QEMU cannot be started"))?;
        let boot = format!("{phase} boot, by {}", if firmware.is_some() { "UEFI" } else { "direct start" });
        let ended = self.watch(&mut machine, &boot, powered)?;
        let is_over = match ended {
            Ended::Enough if phase == "first" && self.tried.is_well() => {
                machine.cut_power().map_err(failed("QEMU cannot be killed"))?;
                self.pass(&boot, "the power is cut while three clients write");
                true
            }
            Ended::Enough => machine.watch(self.until, |_| true).map_err(failed("QEMU"))? == Ended::Off,
            Ended::NoKvm if self.kvm => {
                self.kvm = false;
                self.tried.accelerator = EMULATED;
                self.tried.left_out.push("/dev/kvm, which is here and does not run a kernel".to_owned());
                // It has the drives' files, and a lock on them.
                drop(machine);
                return self.boot(phase, firmware, bad_sector);
            }
            Ended::Off | Ended::Late | Ended::NoKvm => false,
        };
        if !is_over && self.tried.is_well() {
            let name = if ended == Ended::Off { "the machine ended by itself" } else { "the time is over" };
            let told = self.console(phase);
            self.push(&boot, name, false, told);
        }
        Ok(self.tried.is_well())
    }

    /// Reads what the machine says, until it is done or its power may be cut.
    fn watch(&mut self, machine: &mut Machine, boot: &str, powered: Instant) -> Result<Ended, BootTestError> {
        let mut told = Vec::new();
        let mut is_first = true;
        let until = self.until;
        let ended = machine.watch(until, |line| {
            if std::mem::take(&mut is_first) {
                self.tried.boots_s.push(powered.elapsed().as_secs_f64());
            }
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            match word {
                "told" => told.push(rest.to_owned()),
                "ok" => self.push(boot, rest, true, std::mem::take(&mut told)),
                "failed" => self.push(boot, rest, false, std::mem::take(&mut told)),
                "files" => self.files = rest.to_owned(),
                "acked" => return !self.acknowledge(rest),
                "end" => return false,
                // `up`, `writing`, `done`.
                _ => {}
            }
            true
        });
        ended.map_err(failed("the machine cannot be watched"))
    }

    /// Notes a batch that was answered; whether every writer had enough.
    fn acknowledge(&mut self, rest: &str) -> bool {
        let mut numbers = rest.split(' ').filter_map(|number| number.parse::<u64>().ok());
        if let (Some(writer), Some(batch)) = (numbers.next(), numbers.next())
            && let Some(last) = self.acknowledged.get_mut(writer as usize)
        {
            *last = Some(batch);
        }
        self.acknowledged.iter().all(|last| last.is_some_and(|last| last >= BATCHES_BEFORE_CUT))
    }

    fn variables(&self, phase: &str) -> Vec<(&'static str, String)> {
        let acknowledged: Vec<String> =
            self.acknowledged.iter().map(|last| last.unwrap_or(0).to_string()).collect();
        vec![
            ("PHASE", phase.to_owned()),
            ("NEEDLE", self.needle.clone()),
            ("FILES", self.files.clone()),
            ("ACKED", acknowledged.join(" ")),
        ]
    }

    fn push(&mut self, boot: &str, name: &str, ok: bool, told: Vec<String>) {
        let at_s = self.began.elapsed().as_secs_f64();
        eprintln!("{} {at_s:>6.1} s  {boot}: {name}", if ok { "ok    " } else { "FAILED" });
        self.tried.steps.push(Step { boot: boot.to_owned(), name: name.to_owned(), ok, at_s, told });
    }

    fn pass(&mut self, boot: &str, name: &str) {
        self.push(boot, name, true, Vec::new());
    }

    /// The end of a machine's console, and of what QEMU said.
    fn console(&self, phase: &str) -> Vec<String> {
        let mut lines = Vec::new();
        for ending in ["console", "qemu"] {
            let bytes = fs::read(self.directory.join(format!("{phase}.{ending}"))).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let of_file: Vec<&str> = text.lines().collect();
            let last = &of_file[of_file.len().saturating_sub(CONSOLE_LINES)..];
            lines.extend(last.iter().map(|line| line.trim_end().to_owned()));
        }
        lines
    }

    /// The sector of the first drive in whose middle the fourth record lies; there may be an older copy of it, so the last counts.
    fn find_needle(&mut self) -> Result<Option<u64>, BootTestError> {
        let needle = format!("needle-4-{}.needle-4-{}.", self.needle, self.needle);
        let at = script::find_last(&self.directory.join("drive0.img"), needle.as_bytes())
            .map_err(failed("the drive cannot be read"))?;
        if at.is_none() {
            self.push("first boot", "the record is found on the drive", false, Vec::new());
        }
        Ok(at.map(|at| at / 512))
    }
}
