//! A plain script, for machines without udev or systemd.

use std::fmt::Write as _;

use super::reason;
use crate::change::{Place, Write};
use crate::knob::Knob;

const HEAD: &str = r#"set -u
failed=0

# Give a setting to a file: put FILE VALUE
put() {
    if [ ! -e "$1" ]; then
        echo "left: $1 is not here" >&2
    elif ! printf '%s\n' "$2" > "$1"; then
        echo "not taken: $2 by $1" >&2
        failed=1
    fi
}

# The directory of the disk with a serial number and namespace, or a name under by-id: disk SERIAL NAMESPACE
disk() {
    if [ -e "/dev/disk/by-id/$1" ]; then
        echo "/sys/block/$(basename "$(readlink -f "/dev/disk/by-id/$1")")"
        return
    fi
    for candidate in /sys/block/*; do
        for file in serial device/serial wwid device/wwid; do
            [ -r "$candidate/$file" ] || continue
            [ "$(sed 's/^ *//; s/ *$//' "$candidate/$file")" = "$1" ] || continue
            if [ -z "$2" ] || [ "$(cat "$candidate/nsid" 2>/dev/null)" = "$2" ]; then
                echo "$candidate"
                return
            fi
        done
    done
    echo /nowhere
}

# The directory of the interface with an address of its own and a driver; without an address, of the only one at a place:
# nic ADDRESS DRIVER PLACE
nic() {
    found=
    for candidate in /sys/class/net/*; do
        [ -e "$candidate/device" ] || continue
        if [ -n "$1" ]; then
            address=$(cat "$candidate/bonding_slave/perm_hwaddr" 2>/dev/null || cat "$candidate/address" 2>/dev/null)
            [ "$address" = "$1" ] || continue
        else
            case "$(readlink -f "$candidate/device")/" in */"$3"/*) ;; *) continue ;; esac
        fi
        if [ -z "$2" ] || [ "$(basename "$(readlink -f "$candidate/device/driver")")" = "$2" ]; then
            found="$found $candidate"
        fi
    done
    case $found in
        "" | " "*" "*) echo /nowhere ;;
        *) echo "${found# }" ;;
    esac
}

# The file of an interface's interrupt, counted from 0: interrupt ADDRESS DRIVER PLACE INDEX
interrupt() {
    device=$(readlink -f "$(nic "$1" "$2" "$3")/device")
    directory=$device/msi_irqs
    [ -d "$directory" ] || directory=$(dirname "$device")/msi_irqs
    number=$(ls "$directory" 2>/dev/null | sort -n | sed -n "$(($4 + 1))p")
    echo "/proc/irq/${number:-none}/smp_affinity_list"
}

# As put, of what the kernel may keep to itself.
try() {
    [ -e "$1" ] && printf '%s\n' "$2" 2>/dev/null > "$1" || echo "left to the kernel: $1" >&2
}

"#;

/// The script. It does not note old values: `lode-tune tune apply` does.
pub fn render(knobs: &[Knob], head: &str) -> String {
    let mut out = format!(
        "#!/bin/sh\n# {head}\n# It notes no old values; `lode-tune tune apply` does, and can go back.\n{HEAD}"
    );
    for knob in knobs.iter().filter(|knob| !knob.change.writes.is_empty()) {
        out += &reason(knob);
        for write in &knob.change.writes {
            line(&mut out, write);
        }
    }
    out + "exit $failed\n"
}

fn line(out: &mut String, write: &Write) {
    let value = quoted(&write.value);
    // Writing to a string cannot fail.
    let _ = match &write.place {
        Place::Machine { file } => writeln!(out, "put {} {value}", quoted(file)),
        Place::Drive { drive, file } => {
            let (serial, namespace) = match drive.0.rsplit_once('#') {
                Some((serial, namespace)) => (serial, namespace),
                None => (drive.0.as_str(), ""),
            };
            writeln!(out, "put \"$(disk {} {})\"/{} {value}", quoted(serial), quoted(namespace), quoted(file))
        }
        // Under its name another disk may be found by then.
        Place::Disk { disk, file, .. } => {
            writeln!(
                out,
                "# {file} of {disk}: it has neither serial number nor id; lode-tune tune apply sets it"
            )
        }
        Place::Nic { address, driver, at, file } => {
            writeln!(out, "put \"$({})\"/{} {value}", nic("nic", address, driver, at), quoted(file))
        }
        Place::Interrupt { address, driver, at, index } => {
            writeln!(out, "try \"$({} {index})\" {value}", nic("interrupt", address, driver, at))
        }
    };
}

/// A call of a function with an interface's address, driver and place.
fn nic(function: &str, address: &str, driver: &str, at: &Option<String>) -> String {
    // A port of a function has no directory of its own.
    let function_of = at.as_deref().and_then(|at| at.split(' ').next()).filter(|_| address.is_empty());
    format!("{function} {} {} {}", quoted(address), quoted(driver), quoted(function_of.unwrap_or_default()))
}

/// A word of the shell that means itself.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-:+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn what_a_drive_calls_itself_is_not_run() {
        assert_eq!(quoted("S5X-1"), "S5X-1");
        assert_eq!(quoted("a$(reboot)'b"), "'a$(reboot)'\\''b'");
        assert_eq!(quoted(""), "''");
    }
}
