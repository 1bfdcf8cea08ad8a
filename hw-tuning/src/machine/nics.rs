//! Network interfaces with a device behind them.

use std::path::PathBuf;

use serde::Serialize;

use super::Known;
use crate::probe::Probe;

const DIRECTORY: &str = "/sys/class/net";

/// One interface.
#[derive(Debug, Clone, Serialize)]
pub struct Nic {
    /// Its name, which may be another after the next boot.
    pub name: String,
    /// Its own hardware address, which stays: not the one that all interfaces of a bond share.
    pub address: Known<String>,
    /// Where it is attached: the PCI function, and which port of it; or what Hyper-V calls it.
    pub attached_at: Known<String>,
    /// Its driver.
    pub driver: Known<String>,
    /// `up`, `down` or as the kernel says.
    pub state: Known<String>,
    /// Its speed in Mbit/s.
    pub speed_mbit: Known<u64>,
    /// Most bytes of a packet.
    pub mtu_bytes: Known<u64>,
    /// Queues for receiving.
    pub rx_queues: usize,
    /// Queues for sending.
    pub tx_queues: usize,
    /// The numbers of its interrupts, in order; they may be others after the next boot.
    pub interrupts: Vec<u32>,
    /// The NUMA node it is attached to.
    pub numa_node: Known<u64>,
}

/// All of them, in the order of their names.
pub fn all(probe: &Probe) -> Vec<Nic> {
    let mut names = probe.names(DIRECTORY);
    names.retain(|name| probe.exists(&format!("{DIRECTORY}/{name}/device")));
    let mut nics: Vec<Nic> = names.iter().map(|name| read(probe, name)).collect();
    let places: Vec<_> = nics.iter().map(|nic| nic.attached_at.known().cloned()).collect();
    for nic in &mut nics {
        if places.iter().flatten().filter(|place| nic.attached_at.known() == Some(place)).count() > 1 {
            nic.attached_at = Known::Not("another interface is attached at the same place");
        }
    }
    nics
}

fn read(probe: &Probe, name: &str) -> Nic {
    let file = |file: &str| format!("{DIRECTORY}/{name}/{file}");
    let queues = probe.names(&file("queues"));
    let count = |prefix| queues.iter().filter(|queue| queue.starts_with(prefix)).count();
    let driver = probe.link(&file("device/driver"));
    let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let own_address = probe.text(&file("bonding_slave/perm_hwaddr")).or_else(|| probe.text(&file("address")));
    let function = probe.link(&file("device")).and_then(|directory| super::attachment(&directory));
    let port = probe.number(&file("dev_port")).filter(|port| *port != 0);
    let attached_at = function.map(|function| match port {
        Some(port) => format!("{function} port {port}"),
        None => function,
    });
    Nic {
        name: name.to_owned(),
        address: Known::or(own_address, "the interface has no address"),
        attached_at: Known::or(attached_at, "it hangs at no PCI function"),
        driver: Known::or(driver, "the device has no driver in /sys"),
        state: Known::or(probe.text(&file("operstate")), "the kernel does not tell"),
        speed_mbit: Known::or(
            probe.number(&file("speed")),
            "the driver does not tell, as with most virtual interfaces or without a carrier",
        ),
        mtu_bytes: Known::or(probe.number(&file("mtu")), "the kernel does not tell"),
        rx_queues: count("rx-"),
        tx_queues: count("tx-"),
        interrupts: interrupts(probe, name),
        numa_node: Known::or(
            probe.number(&file("device/numa_node")),
            "the device is at no node, or there is one",
        ),
    }
}

/// The interrupts of the device, or of the PCI device that it is a part of, as with virtio.
fn interrupts(probe: &Probe, name: &str) -> Vec<u32> {
    let Some(device) = probe.link(&format!("{DIRECTORY}/{name}/device")) else {
        return Vec::new();
    };
    let directories: [Option<PathBuf>; 2] =
        [Some(device.join("msi_irqs")), device.parent().map(|parent| parent.join("msi_irqs"))];
    let listed = directories.into_iter().flatten().find(|directory| probe.inside(directory).is_dir());
    let numbers = listed.map(|directory| probe.names_in(&directory)).unwrap_or_default();
    let mut numbers: Vec<u32> = numbers.iter().filter_map(|name| name.parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

impl Nic {
    /// Whether it is known by its address and driver alone, of these.
    pub fn has_own_address(&self, nics: &[Nic]) -> bool {
        nics.iter().filter(|other| (&other.address, &other.driver) == (&self.address, &self.driver)).count()
            == 1
    }

    pub(super) fn to_text(&self) -> String {
        format!(
            "network {}: address {}; driver {}; {}; Mbit/s {}; mtu {}; queues {} rx, {} tx; interrupts {}; \
             numa node {}\n",
            self.name,
            self.address,
            self.driver,
            self.state,
            self.speed_mbit,
            self.mtu_bytes,
            self.rx_queues,
            self.tx_queues,
            self.interrupts.len(),
            self.numa_node
        )
    }
}
