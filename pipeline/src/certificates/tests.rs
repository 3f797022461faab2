#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;

/// Until 2027-03-14 09:26:53 UTC, in two digits of the year.
const SOON: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBHTCBxKADAgECAhRQa1WozHMRHYpahqZpiwp+X52AxzAKBggqhkjOPQQDAjAP\n\
MQ0wCwYDVQQDDARhaW9uMB4XDTI2MDEwMTAwMDAwMFoXDTI3MDMxNDA5MjY1M1ow\n\
DzENMAsGA1UEAwwEYWlvbjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABCoIJ2kb\n\
1bSCd8uP3obVPqPiCNsj8HikMeMdnCTsidST1Q1SFDHBZA8P7JvEfVg1LHg20eWe\n\
jXtVHU/kqBgi3FgwCgYIKoZIzj0EAwIDSAAwRQIhAOhYPZayPFQ682FMsCs1ETRf\n\
P9ozyv3eB+yltPbhK3ndAiBEfbjs0sEF3xzHVOUgsxAh5A0yhmr4p1ADeqJluZa6\n\
ew==\n\
-----END CERTIFICATE-----\n";
const SOON_S: i64 = 1_805_016_413;
/// Until the end of 9999, as one says that a certificate has no end.
const NEVER: &str = "\
-----BEGIN CERTIFICATE-----\n\
MIIBIDCBxqADAgECAhQEQEFcLCVGub+FadMTknwy4sF37DAKBggqhkjOPQQDAjAP\n\
MQ0wCwYDVQQDDARhaW9uMCAXDTI2MDEwMTAwMDAwMFoYDzk5OTkxMjMxMjM1OTU5\n\
WjAPMQ0wCwYDVQQDDARhaW9uMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEYjin\n\
eFNP6nr0UqT4hS1HkRTWEGq71S2W3T6BE6zrdMuoNAO4BK4PJw1vjRjfO+kmBuWB\n\
uL+MXxKLpuD8V4xaGDAKBggqhkjOPQQDAgNJADBGAiEAoQMiACRcV/iUrkMtHB2/\n\
/vhVJTgrBcuCebACv7dw028CIQCu0F9levD4jpJeiIocZrw05JvZjcYzCmBjvuEf\n\
6KCTYQ==\n\
-----END CERTIFICATE-----\n";
const NEVER_S: i64 = 253_402_300_799;

fn found(texts: &[&str]) -> Certificates {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("some.pem");
    std::fs::write(&file, texts.concat()).unwrap();
    let mut found = Certificates::default();
    found.shown("http", Some(&file));
    found.trusted("kafka", Some(&file));
    found
}

fn told(texts: &[&str]) -> Vec<(String, i64)> {
    found(texts).iter().map(|one| (one.used_for.to_string(), one.ends_s)).collect()
}

#[test]
fn both_forms_of_time_are_read() {
    assert_eq!(told(&[SOON])[0], ("http".to_owned(), SOON_S));
    assert_eq!(told(&[NEVER])[0], ("http".to_owned(), NEVER_S));
}

#[test]
fn a_chain_ends_with_its_first_and_authorities_with_their_last() {
    let wanted = [("http".to_owned(), SOON_S), ("kafka ca".to_owned(), NEVER_S)];
    assert_eq!(told(&[NEVER, SOON]), wanted);
    assert_eq!(told(&[SOON, NEVER]), wanted);
}

#[test]
fn what_is_no_certificate_is_left_out() {
    assert_eq!(told(&["-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"]), []);
    assert_eq!(told(&[]), []);
    let mut none = Certificates::default();
    none.shown("http", None);
    none.shown("http", Some(Path::new("/nowhere.pem")));
    assert_eq!(none.iter().count(), 0);
}

#[test]
fn bytes_that_are_cut_or_changed_are_no_fault_of_the_program() {
    let der = CertificateDer::from_pem_slice(SOON.as_bytes()).unwrap();
    assert_eq!(not_after(&der), Some(SOON_S));
    for end in 0..der.len() {
        assert_eq!(not_after(&der[..end]), None, "cut at {end}");
        for byte in [0, 0x7f, 0x84, 0xff] {
            let mut changed = der.to_vec();
            changed[end] = byte;
            not_after(&changed);
        }
    }
}
