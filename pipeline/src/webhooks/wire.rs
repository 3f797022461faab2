//! What is sent: the envelope, its id, and how it is signed.
//!
//! ```json
//! {"id":"evt_9f2c…","type":"kernel.proposal.created","timestamp":"2026-11-24T08:15:30.123456Z",
//!  "key":"proposal-7","data":{…},"source":{"topic_id":"…","partition":0,"offset":42}}
//! ```
//!
//! | header | value |
//! |---|---|
//! | `X-Aion-Signature` | `sha256=` and HMAC-SHA256 of the exact body in hexadecimal, by the first secret |
//! | `Idempotency-Key`, `webhook-id` | the event's id |
//! | `webhook-timestamp` | when this attempt is made, in seconds |
//! | `webhook-signature` | `v1,` and HMAC-SHA256 of `id.timestamp.body` in base64, for each secret |
//!
//! **Invariant:** the body is a function of the record and of nothing else, so it has the same bytes at each
//! attempt; and so has its id, which another topic of the same name doesn't share.

use std::fmt::Write as _;

use aion_schemas::log::Timestamp;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use ring::{digest, hmac};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::secret::Secret;
use crate::job::times::rfc3339;

/// The type of the body.
pub const CONTENT_TYPE: &str = "application/json";
const SIGNATURE: HeaderName = HeaderName::from_static("x-aion-signature");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const WEBHOOK_SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
const USER_AGENT: &str = concat!("aion-event-streams/", env!("CARGO_PKG_VERSION"));

/// Where a record stands: what its event's id is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The topic's id.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl Place {
    /// The event's id: the same for each attempt, each process and each endpoint. It has no dot, which
    /// Standard Webhooks reserves.
    pub fn event_id(&self) -> String {
        let Place { topic_id, partition, offset } = self;
        let hash =
            digest::digest(&digest::SHA256, format!("{topic_id}/{partition}/{offset}").as_bytes());
        format!("evt_{}", hex(&hash.as_ref()[..16]))
    }
}

/// What a record's value is, in the envelope.
#[derive(Clone, Copy, Debug)]
pub enum Data<'a> {
    /// JSON, which stands there as it is.
    Json(&'a str),
    /// Anything else: in base64.
    Bytes(&'a [u8]),
    /// No value: a tombstone.
    None,
}

impl<'a> Data<'a> {
    /// What a value is that no schema describes.
    pub fn of(value: Option<&'a [u8]>) -> Data<'a> {
        let Some(value) = value else { return Data::None };
        let json = std::str::from_utf8(value)
            .ok()
            .filter(|text| serde_json::from_str::<&RawValue>(text).is_ok());
        json.map_or(Data::Bytes(value), |text| Data::Json(text.trim()))
    }
}

/// The body of a record's deliveries.
pub fn envelope(
    topic: &str,
    place: &Place,
    time: Timestamp,
    key: Option<&[u8]>,
    data: Data<'_>,
) -> Bytes {
    let room = match data {
        Data::Json(text) => text.len(),
        Data::Bytes(bytes) => bytes.len() * 4 / 3,
        Data::None => 0,
    };
    let mut body = String::with_capacity(room + 320);
    // Writing to a String can't fail.
    let _ok = write!(
        body,
        r#"{{"id":"{}","type":"{topic}","timestamp":"{}""#,
        place.event_id(),
        rfc3339(time)
    );
    match key.map(|key| (key, std::str::from_utf8(key))) {
        None => {}
        Some((_, Ok(text))) => {
            let _ok = write!(body, r#","key":{}"#, serde_json::Value::from(text));
        }
        Some((key, Err(_))) => {
            let _ok = write!(body, r#","key_base64":"{}""#, STANDARD.encode(key));
        }
    }
    let _ok = match data {
        Data::Json(text) => write!(body, r#","data":{text}"#),
        Data::Bytes(bytes) => write!(body, r#","data_base64":"{}""#, STANDARD.encode(bytes)),
        Data::None => write!(body, r#","data":null"#),
    };
    let Place { topic_id, partition, offset } = place;
    let _ok = write!(
        body,
        r#","source":{{"topic_id":"{topic_id}","partition":{partition},"offset":{offset}}}}}"#
    );
    body.into()
}

/// The headers of an attempt at `now`, in seconds.
pub fn headers(event_id: &str, body: &[u8], secrets: &[Secret], now: i64) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(10);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    let mut set = |name: HeaderName, value: &str| {
        // All of it is hexadecimal, base64 and numbers.
        headers.extend(HeaderValue::from_str(value).ok().map(|value| (name, value)));
    };
    set(IDEMPOTENCY_KEY, event_id);
    set(WEBHOOK_ID, event_id);
    set(WEBHOOK_TIMESTAMP, &now.to_string());
    if let Some(first) = secrets.first() {
        set(SIGNATURE, &signature(first, body));
    }
    let signed: Vec<_> = secrets.iter().map(|one| standard(one, event_id, now, body)).collect();
    set(WEBHOOK_SIGNATURE, &signed.join(" "));
    headers
}

/// `sha256=<hex>` over the exact body.
pub fn signature(secret: &Secret, body: &[u8]) -> String {
    format!("sha256={}", hex(hmac::sign(&secret.text, body).as_ref()))
}

/// `v1,<base64>` over `id.timestamp.body`, by Standard Webhooks.
fn standard(secret: &Secret, id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&secret.standard);
    context.update(format!("{id}.{timestamp}.").as_bytes());
    context.update(body);
    format!("v1,{}", STANDARD.encode(context.sign()))
}

/// The hexadecimal form of bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        let digit = |four: u8| char::from_digit(u32::from(four), 16).unwrap_or('0');
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn place(offset: i64) -> Place {
        Place { topic_id: Uuid::from_u128(7), partition: 3, offset }
    }

    #[test]
    fn an_id_is_of_one_record_of_one_incarnation() {
        let id = place(1).event_id();
        assert_eq!(id, place(1).event_id());
        assert!(id.starts_with("evt_") && id.len() == 36 && !id.contains('.'), "{id}");
        let others = [
            place(2),
            Place { partition: 4, ..place(1) },
            Place { topic_id: Uuid::from_u128(8), ..place(1) },
        ];
        assert!(others.iter().all(|other| other.event_id() != id));
    }

    #[test]
    fn an_envelope_is_json_whatever_the_record_is() {
        let body = |key: Option<&[u8]>, value: Option<&[u8]>| -> serde_json::Value {
            let body = envelope("a.b", &place(1), Timestamp(0), key, Data::of(value));
            serde_json::from_slice(&body).unwrap()
        };
        let json = body(Some(b"k\"1"), Some(b" {\"b\": 1.50, \"a\": [null]}\n"));
        assert_eq!(json["data"]["a"][0], serde_json::Value::Null);
        assert_eq!((&json["key"], &json["type"]), (&"k\"1".into(), &"a.b".into()));
        assert_eq!(json["timestamp"], "1970-01-01T00:00:00.000000Z");
        assert_eq!(json["source"]["offset"], 1);
        let other = body(Some(b"\xff"), Some(b"\x00\x01"));
        assert_eq!((&other["key_base64"], &other["data_base64"]), (&"/w==".into(), &"AAE=".into()));
        assert!(other.get("data").is_none() && other.get("key").is_none());
        assert_eq!(body(None, None)["data"], serde_json::Value::Null);
        assert_eq!(body(None, Some(b"plain text"))["data_base64"], "cGxhaW4gdGV4dA==");
    }

    #[test]
    fn json_stands_in_the_envelope_as_it_was_written() {
        let text = r#"{"b":1.50,"a":1e2,"u":"ü"}"#;
        let body = envelope("t", &place(1), Timestamp(0), None, Data::of(Some(text.as_bytes())));
        assert!(std::str::from_utf8(&body).unwrap().contains(text));
    }

    #[test]
    fn signatures_are_those_that_others_compute() {
        // RFC 4231 has no key this long; these values are by Python's hmac and the package standardwebhooks.
        let secret = Secret::new("a secret of enough characters").unwrap();
        assert_eq!(
            signature(&secret, b"{}"),
            "sha256=5edcff037b082895852feccc656f0c401f513a592c8af28096e157cbb7d8e971"
        );
        let secret = Secret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        assert_eq!(
            standard(
                &secret,
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        let both = headers("evt_1", b"{}", &[secret.clone(), secret], 5);
        assert_eq!(both["webhook-signature"].to_str().unwrap().matches("v1,").count(), 2);
        assert_eq!(both["x-aion-signature"].to_str().unwrap().matches("sha256=").count(), 1);
    }
}
