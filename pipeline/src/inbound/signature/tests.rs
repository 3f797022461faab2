#![expect(clippy::unwrap_used, reason = "a test may panic")]

use axum::http::{HeaderName, HeaderValue};

use super::*;
use crate::webhooks::wire::{self, hex};

const BODY: &[u8] = br#"{"action":"install_module"}"#;
const NEW: &str = "the new secret of enough characters";
const OLD: &str = "the old secret of enough characters";

fn secrets(texts: &[&str]) -> Vec<Secret> {
    texts.iter().map(|text| Secret::new(text).unwrap()).collect()
}

fn plain(secret: &str, body: &[u8]) -> String {
    wire::signature(&secrets(&[secret])[0], body)
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name: HeaderName = name.parse().unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    headers
}

fn standard_headers(id: &str, timestamp: &str, body: &[u8]) -> HeaderMap {
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let mac = hmac::sign(&secrets(&[NEW])[0].standard, &signed);
    let signature = format!("v1,{}", STANDARD.encode(mac));
    headers(&[(WEBHOOK_ID, id), (WEBHOOK_TIMESTAMP, timestamp), (WEBHOOK_SIGNATURE, &signature)])
}

fn of_plain(value: &str, body: &[u8]) -> Result<Signed, Flaw> {
    verify(&headers(&[(SIGNATURE, value)]), body, &secrets(&[NEW, OLD]))
}

#[test]
fn both_forms_both_cases_and_each_active_secret_are_right() {
    let good = plain(NEW, BODY);
    let digits = good.strip_prefix("sha256=").unwrap();
    for value in [&good, digits, &digits.to_uppercase(), &plain(OLD, BODY)] {
        assert_eq!(of_plain(value, BODY), Ok(Signed::default()), "{value}");
    }
    let old = headers(&[(SIGNATURE, &plain(OLD, BODY))]);
    assert!(verify(&old, BODY, &secrets(&[NEW])).is_err(), "after the change");
    assert!(verify(&old, BODY, &[]).is_err(), "nothing is signed by no secret");
}

#[test]
fn a_signature_that_isnt_quite_one_is_refused() {
    let good = plain(NEW, BODY);
    let digits = good.strip_prefix("sha256=").unwrap();
    let mut flipped = digits.to_owned();
    flipped.replace_range(63.., if digits.ends_with('0') { "1" } else { "0" });
    for (what, value) in [
        ("empty", String::new()),
        ("a prefix alone", "sha256=".to_owned()),
        ("truncated", digits[..62].to_owned()),
        ("63 digits", digits[..63].to_owned()),
        ("65 digits", format!("{digits}0")),
        ("the right beginning", format!("{}{}", &digits[..32], "0".repeat(32))),
        ("the last digit", flipped),
        ("another prefix", format!("SHA256={digits}")),
        ("sha1", format!("sha1={digits}")),
        ("a blank", format!("sha256= {digits}")),
        ("signs", format!("+1{}", "0".repeat(62))),
        ("not ASCII", format!("é{}", &digits[2..])),
        ("the form of the others", format!("v1,{}", STANDARD.encode(&digits[..32]))),
        ("of the key's own hash", hex(&[0; 32])),
    ] {
        assert!(of_plain(&value, BODY).is_err(), "{what}: {value}");
    }
    let twice = headers(&[(SIGNATURE, &good), (SIGNATURE, &good)]);
    assert!(verify(&twice, BODY, &secrets(&[NEW])).is_err(), "it stands twice");
    assert!(verify(&HeaderMap::new(), BODY, &secrets(&[NEW])).is_err(), "none");
}

#[test]
fn the_bytes_as_they_came_are_what_is_signed() {
    let good = plain(NEW, BODY);
    for (what, body) in [
        ("written again", &br#"{"action": "install_module"}"#[..]),
        ("a trailing newline", b"{\"action\":\"install_module\"}\n"),
        ("a BOM", b"\xef\xbb\xbf{\"action\":\"install_module\"}"),
        ("nothing", b""),
    ] {
        assert!(of_plain(&good, body).is_err(), "{what}");
    }
}

#[test]
fn standard_webhooks_sign_id_and_time_too() {
    let secrets = secrets(&[OLD, NEW]);
    let good = standard_headers("k1", "1800000000", BODY);
    let signed = Signed { key: Some("k1".into()), timestamp: Some(1_800_000_000) };
    assert_eq!(verify(&good, BODY, &secrets), Ok(signed.clone()));
    let changed = |name: &'static str, value: &str| {
        let mut headers = good.clone();
        headers.insert(name, value.parse().unwrap());
        verify(&headers, BODY, &secrets)
    };
    assert!(changed(WEBHOOK_ID, "k2").is_err());
    assert!(changed(WEBHOOK_TIMESTAMP, "1800000001").is_err());
    assert!(changed(SIGNATURE, &plain(NEW, BODY)).is_ok(), "both are right");
    assert!(changed(SIGNATURE, &plain(NEW, b"x")).is_err(), "one of two is wrong");
    let value = good[WEBHOOK_SIGNATURE].to_str().unwrap();
    let among = format!("v1a,AAAA v1,AAAA {value}");
    assert_eq!(changed(WEBHOOK_SIGNATURE, &among), Ok(signed));
    for bad in
        ["", "v1,", "v1,AAAA", &value[..value.len() - 4], &value[3..], &value.replace("v1", "v2")]
    {
        assert!(changed(WEBHOOK_SIGNATURE, bad).is_err(), "{bad}");
    }
    let hundred = vec![value; 100].join(" ");
    assert!(changed(WEBHOOK_SIGNATURE, &hundred).is_err(), "a hundred signatures");
    for name in [WEBHOOK_ID, WEBHOOK_TIMESTAMP, WEBHOOK_SIGNATURE] {
        let mut headers = good.clone();
        headers.remove(name);
        headers.insert(SIGNATURE, plain(NEW, BODY).parse().unwrap());
        assert!(verify(&headers, BODY, &secrets).is_err(), "{name} is missing");
    }
}

#[test]
fn ids_and_times_that_could_be_read_in_two_ways_are_refused_though_they_are_signed() {
    let secrets = secrets(&[NEW]);
    for id in ["", "a.b", &"x".repeat(201)] {
        assert!(verify(&standard_headers(id, "1800000000", BODY), BODY, &secrets).is_err(), "{id}");
    }
    for time in [
        "1e9",
        "-1800000000",
        "+1800000000",
        "1800000000.0",
        "0x6b49d200",
        "",
        " 1",
        "99999999999999999999",
    ] {
        assert!(verify(&standard_headers("k", time, BODY), BODY, &secrets).is_err(), "{time}");
    }
}
