//! Whether a request is signed, over the bytes as they came.
//!
//! | headers | what is signed |
//! |---|---|
//! | `X-Aion-Signature: sha256=<hex>`, or the hexadecimal digits alone | the body, which has the time and the idempotency key |
//! | `webhook-id`, `webhook-timestamp`, `webhook-signature` ([Standard Webhooks](https://www.standardwebhooks.com)) | `id.timestamp.body`; the id is the idempotency key |
//!
//! A request with both has to be right in both. Each active secret is tried, whether one before it was right or
//! not, and signatures are compared by `ring`, which takes as long for any of them.
//!
//! **Invariant:** a header that isn't signed decides nothing.

use axum::http::HeaderMap;
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;

use crate::webhooks::secret::Secret;

const SIGNATURE: &str = "x-aion-signature";
const WEBHOOK_ID: &str = "webhook-id";
const WEBHOOK_TIMESTAMP: &str = "webhook-timestamp";
const WEBHOOK_SIGNATURE: &str = "webhook-signature";
/// The most signatures of one request.
const MOST: usize = 8;
/// The longest `webhook-id`.
const MAX_ID_BYTES: usize = 200;

/// What is known of a signed request by its headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Signed {
    /// The idempotency key, where it is a signed header.
    pub key: Option<String>,
    /// The time in seconds, where it is a signed header.
    pub timestamp: Option<i64>,
}

/// Whether nothing was given that could be right: the same answer, another count.
pub type Flaw = &'static str;

/// Verifies the signatures of a request.
pub fn verify(headers: &HeaderMap, body: &[u8], secrets: &[Secret]) -> Result<Signed, Flaw> {
    let plain = one(headers, SIGNATURE)?;
    let standard = standard(headers)?;
    if plain.is_none() && standard.is_none() {
        return Err("no signature");
    }
    if let Some(given) = plain {
        let given = digits(given.strip_prefix("sha256=").unwrap_or(given)).ok_or("signature")?;
        let is_right = secrets.iter().fold(false, |is_right, secret| {
            is_right | hmac::verify(&secret.text, body, &given).is_ok()
        });
        if !is_right {
            return Err("signature");
        }
    }
    let Some(Standard { id, timestamp, signatures }) = standard else {
        return Ok(Signed::default());
    };
    let signed = [id.as_bytes(), b".", timestamp.as_bytes(), b".", body].concat();
    let is_right = secrets.iter().fold(false, |is_right, secret| {
        let fits = |given: &Vec<u8>| hmac::verify(&secret.standard, &signed, given).is_ok();
        is_right | signatures.iter().fold(false, |any, given| any | fits(given))
    });
    if !is_right {
        return Err("signature");
    }
    // Read after it was verified, and strictly: digits, no sign, no exponent.
    let is_number =
        (1..=12).contains(&timestamp.len()) && timestamp.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = timestamp.parse().ok().filter(|_| is_number).ok_or("timestamp")?;
    Ok(Signed { key: Some(id.to_owned()), timestamp: Some(seconds) })
}

struct Standard<'a> {
    id: &'a str,
    timestamp: &'a str,
    signatures: Vec<Vec<u8>>,
}

/// The headers of Standard Webhooks: all three, or none.
fn standard(headers: &HeaderMap) -> Result<Option<Standard<'_>>, Flaw> {
    let id = one(headers, WEBHOOK_ID)?;
    let timestamp = one(headers, WEBHOOK_TIMESTAMP)?;
    let signatures = one(headers, WEBHOOK_SIGNATURE)?;
    let (id, timestamp, signatures) = match (id, timestamp, signatures) {
        (None, None, None) => return Ok(None),
        (Some(id), Some(timestamp), Some(signatures)) => (id, timestamp, signatures),
        _ => return Err("one of three headers"),
    };
    // With a dot in it, another id and time would be signed by the same signature.
    if id.is_empty() || id.len() > MAX_ID_BYTES || id.contains('.') {
        return Err("webhook-id");
    }
    let given: Vec<_> = signatures.split(' ').take(MOST + 1).collect();
    if given.len() > MOST {
        return Err("too many signatures");
    }
    // Those of other versions are for others.
    let read = |one: &str| STANDARD.decode(one.strip_prefix("v1,")?).ok();
    let signatures = given.into_iter().filter_map(read).collect();
    Ok(Some(Standard { id, timestamp, signatures }))
}

/// A header that stands once, in ASCII.
fn one<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Flaw> {
    let mut all = headers.get_all(name).iter();
    match (all.next(), all.next()) {
        (None, _) => Ok(None),
        (Some(one), None) => one.to_str().map(Some).map_err(|_| "a header that isn't ASCII"),
        (Some(_), Some(_)) => Err("a header that stands twice"),
    }
}

/// 64 hexadecimal digits as bytes.
fn digits(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests;
