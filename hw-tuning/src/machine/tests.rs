//! What is told of a machine, and what is not.

use super::Machine;
use super::drives::{self, DriveId};
use crate::profile::choose;
use crate::tests::fixture::Fixture;

fn told(machine: &Fixture) -> serde_json::Value {
    serde_json::to_value(Machine::read(&machine.probe())).unwrap()
}

#[test]
fn a_machine_without_files_is_told_as_not_known_with_reasons() {
    let json = told(&Fixture::bare());
    for place in ["/platform/vendor", "/kernel/release", "/cpus/online", "/memory/total_bytes"] {
        let why = json.pointer(place).unwrap()["unknown"].as_str().unwrap();
        assert!(why.len() > 10, "{place}: {why}");
    }
    assert_eq!(json["drives"], serde_json::json!([]));
}

#[test]
fn a_drive_is_told_with_what_its_files_say() {
    let json = told(&Fixture::untuned());
    let drive = &json["drives"][1];
    assert_eq!(drive["id"], "SERIAL-B");
    assert_eq!(drive["serial"], "SERIAL-B");
    assert_eq!(drive["by_id"], serde_json::json!(["nvme-A_Drive_SERIAL-B"]));
    assert_eq!(drive["model"], "A Drive");
    assert_eq!(drive["bytes"], 3_750_748_848_u64 * 512);
    assert_eq!((&drive["volatile_write_cache"], &drive["fua"]), (&true.into(), &true.into()));
    assert_eq!((&drive["hardware_queues"], &drive["poll_queues"]), (&1.into(), &0.into()));
    assert_eq!(
        (&drive["logical_block_bytes"], &drive["atomic_write_unit_bytes"]),
        (&512.into(), &4096.into())
    );
    assert!(drive["lba_formats"]["unknown"].as_str().unwrap().contains("admin command"));
    assert!(drive["power_loss_protection"]["unknown"].as_str().unwrap().contains("data sheet"));
    assert_eq!(json["drives"][0]["in_use"], serde_json::json!(["partition nvme0n1p1"]));
    assert_eq!(drive["in_use"], serde_json::json!([]));
}

#[test]
fn the_second_namespace_of_a_drive_is_another_drive() {
    let machine = Fixture::untuned()
        .with("sys/block/nvme1n1/nsid", "2")
        .with("sys/devices/pci/nvme1/serial", "SERIAL-A");
    let ids: Vec<_> = drives::all(&machine.probe()).iter().map(|d| d.id.known().cloned()).collect();
    assert_eq!(ids, [Some(DriveId("SERIAL-A".to_owned())), Some(DriveId("SERIAL-A#2".to_owned()))]);
}

#[test]
fn a_drive_without_a_serial_number_is_known_by_id_or_not_at_all() {
    let machine =
        Fixture::untuned().without("sys/devices/pci/nvme1/serial").without("sys/devices/pci/nvme0/serial");
    let drives = drives::all(&machine.probe());
    assert_eq!(drives[0].id.known(), None);
    assert_eq!(drives[1].id.known().unwrap().0, "nvme-A_Drive_SERIAL-B");
}

#[test]
fn an_interface_is_told_with_its_queues_and_interrupts() {
    let json = told(&Fixture::good());
    let nic = &json["nics"][0];
    assert_eq!((&nic["name"], &nic["driver"]), (&"ens5".into(), &"ena".into()));
    assert_eq!((&nic["rx_queues"], &nic["tx_queues"]), (&4.into(), &4.into()));
    assert_eq!(nic["interrupts"], serde_json::json!([40, 41, 42, 43, 44]));
    assert!(nic["speed_mbit"]["unknown"].is_string());
}

#[test]
fn clouds_are_told_apart() {
    let azure = Fixture::azure();
    assert_eq!(told(&azure)["platform"]["cloud"], "azure");
    assert_eq!(told(&azure)["platform"]["vm_size"], "Standard_L8s_v3");
    let aws = Fixture::good()
        .with("sys/class/dmi/id/sys_vendor", "Amazon EC2")
        .with("sys/class/dmi/id/product_name", "i4i.2xlarge");
    assert_eq!(told(&aws)["platform"]["cloud"], "aws");
    assert_eq!(told(&aws)["platform"]["vm_size"], "i4i.2xlarge");
    let gcp = Fixture::good().with("sys/class/dmi/id/product_name", "Google Compute Engine");
    assert_eq!(told(&gcp)["platform"]["cloud"], "gcp");
    let none = told(&Fixture::good());
    assert_eq!(none["platform"]["cloud"], "none");
    assert!(none["platform"]["vm_size"]["unknown"].is_string());
    let garbage = Fixture::azure().with("run/cloud-init/instance-data.json", "{");
    assert!(told(&garbage)["platform"]["vm_size"]["unknown"].is_string());
}

#[test]
fn the_profile_suits_the_machine() {
    let chosen = |machine: &Fixture| choose(&Machine::read(&machine.probe())).0;
    assert_eq!(chosen(&Fixture::azure()), "azure-lsv3");
    assert_eq!(chosen(&Fixture::good()), "generic-nvme");
    assert_eq!(chosen(&Fixture::bare()), "dev");
    let unnamed = Fixture::azure().without("run/cloud-init/instance-data.json");
    assert_eq!(chosen(&unnamed), "azure-lsv3");
    let newer = unnamed.with("sys/block/nvme1n1/device/model", "Microsoft NVMe Direct Disk v2");
    assert_eq!(chosen(&newer), "azure-lsv4");
    let named = r#"{"ds": {"meta_data": {"imds": {"compute": {"vmSize": "Standard_L32aos_v4"}}}}}"#;
    assert_eq!(chosen(&newer.with("run/cloud-init/instance-data.json", named)), "azure-laosv4");
}

#[test]
fn io_uring_is_told_by_the_kernels_version() {
    let json = told(&Fixture::good().with("proc/sys/kernel/osrelease", "6.0.2"));
    let features = json["kernel"]["io_uring"]["features"].as_array().unwrap();
    let has = |name: &str| features.iter().find(|f| f["name"] == name).unwrap()["present"].as_bool().unwrap();
    assert!(has("multishot_receive") && !has("deferred_task_run"));
}
