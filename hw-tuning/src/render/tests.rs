//! What is written down for the next boot.

use std::collections::BTreeMap;
use std::process::Command;

use super::all;
use crate::checks::Context;
use crate::tests::fixture::Fixture;
use crate::tune::apply::apply;
use crate::tune::journal::{Journal, PATH};
use crate::tune::store::Files;

const UNIT: &str = "etc/systemd/system/lode.service";
const RULES: &str = "etc/udev/rules.d/90-lode.rules";
const SCRIPT: &str = "usr/local/sbin/lode-tune-now";

fn rendered(machine: &Fixture) -> BTreeMap<String, String> {
    machine.look(all)
}

#[test]
fn what_is_rendered_is_the_same_before_and_after_it_was_applied() {
    // The number of requests comes with the scheduler, so that it is known only afterwards.
    let machine = Fixture::untuned().wanting("nr_requests = \"keep\"");
    let before = rendered(&machine);
    let mut journal = Journal::open(&mut Files::default(), &machine.probe().path(PATH)).unwrap();
    machine.look(|cx| apply(cx, &mut Files::default(), &mut journal)).unwrap();
    assert_eq!(rendered(&machine), before);
}

#[test]
fn everything_that_apply_writes_is_in_the_script() {
    for machine in [Fixture::untuned(), Fixture::azure()] {
        let script = &rendered(&machine)[SCRIPT];
        for write in machine.knobs().iter().flat_map(|knob| &knob.change.writes) {
            let file = match &write.place {
                crate::change::Place::Machine { file } => file.clone(),
                crate::change::Place::Interrupt { index, .. } => format!(" {index})\" {}", write.value),
                crate::change::Place::Drive { file, .. }
                | crate::change::Place::Disk { file, .. }
                | crate::change::Place::Nic { file, .. } => format!("\"/{file} {}", write.value),
            };
            assert!(script.lines().any(|line| line.contains(&file)), "{write:?}");
        }
    }
}

#[test]
fn the_script_is_one_that_a_shell_understands() {
    let machine = Fixture::azure();
    let path = machine.path("script");
    std::fs::write(&path, &rendered(&machine)[SCRIPT]).unwrap();
    assert!(Command::new("sh").arg("-n").arg(&path).status().unwrap().success());
}

#[test]
fn rules_name_drives_by_what_stays() {
    let mut machine = Fixture::untuned();
    machine.drives = vec!["id:SERIAL-B".to_owned()];
    let rules = &rendered(&machine)[RULES];
    assert!(rules.contains("ATTRS{serial}==\"SERIAL-B\", ATTR{queue/scheduler}=\"none\""), "{rules}");
    assert!(rules.contains("ATTRS{serial}==\"SERIAL-B\", OWNER=\"lode\""), "{rules}");
    assert!(!rules.contains("nvme1"), "{rules}");
    machine.set("sys/block/nvme1n1/nsid", "2");
    machine.drives = vec!["id:SERIAL-B#2".to_owned()];
    assert!(
        rendered(&machine)[RULES]
            .contains("ATTRS{serial}==\"SERIAL-B\", ATTR{nsid}==\"2\", ATTR{queue/scheduler}")
    );
    let machine = machine.without("sys/devices/pci/nvme1/serial");
    let by_id = ["id:nvme-A_Drive_SERIAL-B".to_owned()];
    let machine = Fixture { drives: by_id.into(), ..machine };
    assert!(
        rendered(&machine)[RULES]
            .contains("SYMLINK==\"*disk/by-id/nvme-A_Drive_SERIAL-B*\", ATTR{queue/scheduler}")
    );
}

#[test]
fn a_serial_number_that_is_more_than_a_name_is_in_no_rule() {
    for serial in ["*", "A\", RUN+=\"/bin/reboot", "A|B", "[A-Z]?"] {
        let mut machine = Fixture::untuned().with("sys/devices/pci/nvme1/serial", serial);
        machine.drives = vec![format!("id:{serial}")];
        let files = rendered(&machine);
        assert!(!files[RULES].contains("queue/scheduler}"), "{}", files[RULES]);
        assert!(files[RULES].contains("no rule can name this drive"), "{}", files[RULES]);
        assert!(
            !files[RULES].lines().any(|line| !line.starts_with('#') && line.contains("RUN")),
            "{}",
            files[RULES]
        );
    }
}

#[test]
fn a_disk_in_use_is_given_to_nobody() {
    // The drive is a file on a partition, or the disk with the partition itself.
    for drive in ["/var/lib/lode/drive.lode", "id:SERIAL-A"] {
        let mut machine = Fixture::untuned();
        machine.drives = vec![drive.to_owned()];
        let files = rendered(&machine);
        assert!(!files[RULES].contains("OWNER"), "{}", files[RULES]);
        assert!(
            !files[UNIT].contains("DeviceAllow") && files[UNIT].contains("PrivateDevices=yes"),
            "{}",
            files[UNIT]
        );
    }
    let mut machine = Fixture::untuned();
    machine.drives = vec!["id:SERIAL-B".to_owned()];
    let unit = &rendered(&machine)[UNIT];
    assert!(unit.contains("DeviceAllow=/dev/disk/by-id/nvme-A_Drive_SERIAL-B rw"), "{unit}");
    assert!(unit.contains("--data /dev/disk/by-id/nvme-A_Drive_SERIAL-B --no-format"), "{unit}");
}

#[test]
fn a_unit_names_nothing_by_the_directory_that_it_was_rendered_in() {
    let mut machine = Fixture::untuned();
    machine.drives =
        vec!["lode-data/drive.lode".to_owned(), "id:SERIAL-B".to_owned(), "/data/d.lode".to_owned()];
    let probe = machine.probe();
    let profile_name = "profiles/mine.toml";
    let files =
        all(&Context { probe: &probe, profile: &machine.profile, profile_name, drives: &machine.drives });
    let unit = &files["etc/systemd/system/lode-tune.service"];
    let here = std::env::current_dir().unwrap();
    assert!(unit.contains(&format!("--profile {}/profiles/mine.toml", here.display())), "{unit}");
    assert!(
        unit.contains(" --drive /var/lib/lode/drive.lode --drive id:SERIAL-B --drive /data/d.lode\n"),
        "{unit}"
    );
}

#[test]
fn the_drive_is_measured_at_the_first_boot_where_the_node_looks_for_it() {
    let unit_for = |drive: &str| {
        let mut machine = Fixture::untuned();
        machine.drives = vec![drive.to_owned()];
        let files = rendered(&machine);
        assert!(files[UNIT].contains(" lode-measure.service\nWants="), "{}", files[UNIT]);
        files["etc/systemd/system/lode-measure.service"].clone()
    };
    let raw = unit_for("id:SERIAL-B");
    for line in [
        "ConditionPathExists=!/var/lib/lode/io-properties.toml\n",
        "After=local-fs.target lode-tune.service\n",
        "Before=lode.service\n",
        "ExecStart=/usr/bin/lode-tune measure --drive /dev/disk/by-id/nvme-A_Drive_SERIAL-B --output \
         /var/lib/lode/io-properties.toml $LODE_MEASURE_OPTIONS\n",
        "DeviceAllow=/dev/disk/by-id/nvme-A_Drive_SERIAL-B rw\n",
        "User=lode\n",
    ] {
        assert!(raw.contains(line), "no {line} in {raw}");
    }
    assert!(!raw.contains("destroy-data"), "{raw}");
    let file = unit_for("/data/d.lode");
    assert!(file.contains("ConditionPathExists=!/data/io-properties.toml\n"), "{file}");
    assert!(file.contains("ReadWritePaths=/data\n") && file.contains("PrivateDevices=yes\n"), "{file}");
}

#[test]
fn cpus_are_set_apart_in_slices_or_on_the_command_line() {
    let groups = rendered(&Fixture::untuned().wanting("isolation = \"cpusets\""));
    assert!(groups["etc/systemd/system/system.slice.d/90-lode.conf"].contains("[Slice]\nAllowedCPUs=0\n"));
    assert!(groups["etc/systemd/system/init.scope.d/90-lode.conf"].contains("[Scope]\nAllowedCPUs=0\n"));
    assert!(groups["etc/systemd/system/lode.slice"].contains("[Slice]\nAllowedCPUs=1-3\n"));
    assert!(groups[UNIT].contains("Slice=lode.slice\n"));
    assert!(!groups["etc/lode/kernel-cmdline"].contains("isolcpus"));
    let boot = rendered(&Fixture::untuned().wanting("isolation = \"boot\""));
    assert!(
        boot["etc/lode/kernel-cmdline"]
            .contains("isolcpus=managed_irq,domain,1-3 nohz_full=1-3 rcu_nocbs=1-3")
    );
    assert!(!boot.contains_key("etc/systemd/system/lode.slice"));
}

#[test]
fn nothing_that_is_rendered_forces_a_write_cache() {
    for machine in [Fixture::untuned(), Fixture::azure(), Fixture::good()] {
        for (path, text) in rendered(&machine) {
            assert!(!text.contains("write_cache") && !text.contains("write through"), "{path}: {text}");
        }
    }
}

/// One that may not open /dev/null, its standard input, is not started at all. The boot test of an image found it.
#[test]
fn every_unit_may_open_dev_null() {
    let of_image = super::of_image::units("generic-nvme", "refuse", "a test").into_iter().collect();
    for files in [rendered(&Fixture::untuned()), of_image] {
        for (path, text) in files {
            let policies = text.lines().filter(|line| line.starts_with("DevicePolicy="));
            assert!(policies.clone().all(|policy| policy == "DevicePolicy=closed"), "{path}: {text}");
            assert!(!path.ends_with("lode-tune.service") || policies.count() == 1, "{path}: {text}");
        }
    }
}

/// Where systemd is here, it judges its own units: 2.0 or better.
#[test]
fn units_are_as_tight_as_systemd_asks() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        println!("no systemd-analyze here: the units were not judged");
        return;
    };
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    let number: u32 = version.split_whitespace().nth(1).and_then(|number| number.parse().ok()).unwrap_or(0);
    if number < 250 {
        println!("systemd {number} cannot judge a file: the units were not judged");
        return;
    }
    let mut machine = Fixture::untuned();
    machine.drives = vec!["id:SERIAL-B".to_owned()];
    let of_image: BTreeMap<String, String> =
        super::of_image::units("generic-nvme", "refuse", "a test").into_iter().collect();
    for files in [rendered(&machine), of_image] {
        let units = files.iter().filter_map(|(path, text)| {
            Some((path.strip_prefix("etc/systemd/system/")?.strip_suffix(".service")?, text))
        });
        for (unit, text) in units {
            let path = machine.path(&format!("{unit}.service"));
            std::fs::write(&path, text).unwrap();
            let judged = Command::new("systemd-analyze")
                .args(["security", "--no-pager", "--offline=true", "--threshold=20"])
                .arg(&path)
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&judged.stdout);
            assert!(judged.status.success(), "{unit}: {told}{}", String::from_utf8_lossy(&judged.stderr));
        }
    }
}
