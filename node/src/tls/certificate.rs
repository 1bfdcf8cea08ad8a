//! How long a certificate is good for: what an operator has to act upon in time.

use std::time::SystemTime;

use der::asn1::{GeneralizedTime, UtcTime};
use der::{Reader, SliceReader, Tag};

/// When a certificate (DER) begins and ends to be good; nothing where that cannot be read.
pub fn validity(der: &[u8]) -> Option<(SystemTime, SystemTime)> {
    read(der).ok()
}

/// The way to it, of RFC 5280, section 4.1: whatever stands before the two times, and behind them, is passed by.
fn read(der: &[u8]) -> der::Result<(SystemTime, SystemTime)> {
    SliceReader::new(der)?.sequence(|certificate| {
        let times = certificate.sequence(|signed| {
            // A version, where it says one; serial number, algorithm, and who has signed it.
            let has_version = matches!(Tag::peek(signed)?, Tag::ContextSpecific { .. });
            for _ in 0..3 + usize::from(has_version) {
                signed.tlv_bytes()?;
            }
            let times = signed.sequence(|times| Ok::<_, der::Error>((time(times)?, time(times)?)))?;
            pass_by(signed)?;
            Ok::<_, der::Error>(times)
        })?;
        pass_by(certificate)?;
        Ok(times)
    })
}

/// Years have two digits up to 2049, and four from then on.
fn time<'r>(reader: &mut impl Reader<'r>) -> der::Result<SystemTime> {
    match Tag::peek(reader)? {
        Tag::UtcTime => reader.decode::<UtcTime>().map(|time| time.to_system_time()),
        _ => reader.decode::<GeneralizedTime>().map(|time| time.to_system_time()),
    }
}

fn pass_by<'r>(reader: &mut impl Reader<'r>) -> der::Result<()> {
    while !reader.is_finished() {
        reader.tlv_bytes()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use rcgen::{CertificateParams, KeyPair, SerialNumber, date_time_ymd};

    use super::*;

    /// Good from a leap day on, and until a year whose time is written in the other form.
    fn certificate() -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["node.example".to_owned()]).expect("a name");
        (params.not_before, params.not_after) = (date_time_ymd(2024, 2, 29), date_time_ymd(2050, 3, 1));
        // Longer than RFC 5280 allows, as some authorities make them.
        params.serial_number = Some(SerialNumber::from(vec![7; 24]));
        let key = KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("signed").der().to_vec()
    }

    #[test]
    fn both_forms_of_times_are_read() {
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let (begins, ends) = validity(&certificate()).expect("a certificate");
        assert_eq!((seconds(begins), seconds(ends)), (1_709_164_800, 2_529_705_600));
    }

    #[test]
    fn what_is_cut_or_is_no_certificate_has_no_times_and_panics_nowhere() {
        let made = certificate();
        for end in 0..made.len() {
            assert!(validity(&made[..end]).is_none(), "{end}");
        }
        let mut changed = made.clone();
        for at in 0..changed.len() {
            for byte in [0, 0x7f, 0x80, 0xff, made[at] ^ 1] {
                changed[at] = byte;
                let _ = validity(&changed);
            }
            changed[at] = made[at];
        }
    }
}
