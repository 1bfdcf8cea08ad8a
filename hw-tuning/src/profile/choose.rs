//! Which built-in profile suits the machine.

use crate::machine::Machine;

/// The name of the profile, and why it is this one.
pub fn choose(machine: &Machine) -> (&'static str, String) {
    let platform = &machine.platform;
    if platform.cloud == "azure" {
        if let Some((name, size)) = platform.vm_size.known().and_then(|size| Some((by_size(size)?, size))) {
            return (name, format!("the machine is a {size} of Azure"));
        }
        let has = |model: &str| machine.drives.iter().any(|drive| drive.model == model);
        // Both generations of Azure say so in the model; which of the fourth, they do not.
        if has("Microsoft NVMe Direct Disk v2") {
            return ("azure-lsv4", "its drives are of the model Microsoft NVMe Direct Disk v2".to_owned());
        }
        if has("Microsoft NVMe Direct Disk") {
            return ("azure-lsv3", "its drives are of the model Microsoft NVMe Direct Disk".to_owned());
        }
    }
    if let Some(drive) = machine.drives.iter().find(|drive| drive.name.starts_with("nvme")) {
        return ("generic-nvme", format!("it has an NVMe drive ({})", drive.name));
    }
    ("dev", "it is no known kind of machine and has no NVMe drive".to_owned())
}

/// `Standard_L8s_v3`: an L, the number of CPUs, letters, and the version of the series.
fn by_size(size: &str) -> Option<&'static str> {
    let rest = size.strip_prefix("Standard_L")?.trim_start_matches(|c: char| c.is_ascii_digit());
    match rest {
        "s_v3" | "as_v3" => Some("azure-lsv3"),
        "s_v4" | "as_v4" => Some("azure-lsv4"),
        "aos_v4" => Some("azure-laosv4"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::by_size;

    #[test]
    fn the_size_names_the_series() {
        assert_eq!(by_size("Standard_L8s_v3"), Some("azure-lsv3"));
        assert_eq!(by_size("Standard_L80as_v3"), Some("azure-lsv3"));
        assert_eq!(by_size("Standard_L96s_v4"), Some("azure-lsv4"));
        assert_eq!(by_size("Standard_L32aos_v4"), Some("azure-laosv4"));
        assert_eq!(by_size("Standard_L8s_v2"), None);
        assert_eq!(by_size("Standard_D8s_v3"), None);
    }
}
