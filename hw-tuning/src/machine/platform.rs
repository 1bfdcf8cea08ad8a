//! Whose machine it is: the firmware's tables, and what cloud-init left behind.

use serde::Serialize;

use super::Known;
use super::drives::Drive;
use crate::probe::Probe;

/// The asset tag that every virtual machine of Azure has in its chassis.
const AZURE_ASSET_TAG: &str = "7783-7084-3265-9085-8269-3286-77";
/// What cloud-init asked the cloud at boot; readable by all.
const INSTANCE_DATA: &str = "/run/cloud-init/instance-data.json";

const NOT_IN_DMI: &str =
    "the firmware's tables do not name it, and cloud-init left no instance-data.json in /run/cloud-init";

/// Whose machine it is.
#[derive(Debug, Serialize)]
pub struct Platform {
    /// Maker, as the firmware says.
    pub vendor: Known<String>,
    /// Product, as the firmware says.
    pub product: Known<String>,
    /// `azure`, `aws`, `gcp`, `qemu`, or `none` where it is none of these.
    pub cloud: &'static str,
    /// Name of the size of virtual machine, as the cloud calls it.
    pub vm_size: Known<String>,
}

/// Read it; drives of a model that only one series has tell the series where nothing else does.
pub fn read(probe: &Probe, drives: &[Drive]) -> Platform {
    let dmi = |name: &str| probe.text(&format!("/sys/class/dmi/id/{name}")).filter(|text| !text.is_empty());
    let (vendor, product) = (dmi("sys_vendor"), dmi("product_name"));
    let is = |text: &Option<String>, what: &str| text.as_ref().is_some_and(|text| text.contains(what));
    let cloud = if dmi("chassis_asset_tag").as_deref() == Some(AZURE_ASSET_TAG) {
        "azure"
    } else if is(&vendor, "Amazon EC2") || is(&dmi("bios_vendor"), "Amazon EC2") {
        "aws"
    } else if is(&product, "Google Compute Engine") {
        "gcp"
    } else if drives.iter().any(|drive| drive.model.starts_with("Microsoft NVMe Direct Disk")) {
        "azure"
    } else if is(&vendor, "QEMU") {
        "qemu"
    } else {
        "none"
    };
    let from_dmi = if cloud == "aws" { product.clone() } else { None };
    let vm_size = from_dmi.or_else(|| size_from_cloud_init(probe));
    let untold = "this machine has no DMI tables under /sys/class/dmi/id";
    Platform {
        vendor: Known::or(vendor, untold),
        product: Known::or(product, untold),
        cloud,
        vm_size: Known::or(vm_size, NOT_IN_DMI),
    }
}

/// The places where cloud-init keeps it for the clouds that it knows.
fn size_from_cloud_init(probe: &Probe) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(&probe.text(INSTANCE_DATA)?).ok()?;
    let places = ["/ds/meta_data/imds/compute/vmSize", "/ds/meta_data/instance-type"];
    places.iter().find_map(|place| json.pointer(place)?.as_str().map(str::to_owned))
}

impl Platform {
    pub(super) fn to_text(&self) -> String {
        let Platform { vendor, product, cloud, vm_size } = self;
        format!("platform: vendor {vendor}; product {product}; cloud {cloud}; size {vm_size}\n")
    }
}
