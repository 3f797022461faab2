//! What a request asks for: its body, taken apart strictly.
//!
//! ```json
//! {"action": "approve_kernel_proposal", "parameters": {"proposal_id": "7f0c"}, "tenant_id": "acme",
//!  "timestamp": "2026-11-28T08:15:30Z", "idempotency_key": "0198a5e2-9b3c"}
//! ```
//!
//! `timestamp` and `idempotency_key` are signed with the body, or are the signed headers of Standard Webhooks; where
//! both are given they have to agree. The header `Idempotency-Key` alone is worth nothing, since nobody signed it.

use aion_analytics::exports::time;
use axum::http::HeaderMap;
use serde_json::{Map, Value};

use super::signature::Signed;
use crate::strict_json;

/// How far the time of a request may be from ours, in seconds.
pub const WINDOW_S: i64 = 300;
const MAX_KEY_BYTES: usize = 200;
const MAX_TENANT_BYTES: usize = 200;
const MAX_ACTION_BYTES: usize = 200;
const FIELDS: [&str; 5] = ["action", "parameters", "tenant_id", "timestamp", "idempotency_key"];

/// What is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The action, which may be none that there is.
    pub action: String,
    /// Its parameters, which may not be right.
    pub parameters: Map<String, Value>,
    /// For which tenant.
    pub tenant: Option<String>,
    /// The sender's own key for it.
    pub key: String,
    /// When it was made, in seconds.
    pub timestamp: i64,
}

/// Why a body can't be taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// It isn't JSON.
    Json(String),
    /// A field isn't right.
    Field(&'static str, String),
    /// The time isn't right: it counts as a signature that isn't.
    Time,
}

impl Asked {
    /// Takes the body of a request apart whose signature is right.
    pub fn read(headers: &HeaderMap, body: &[u8], signed: &Signed) -> Result<Asked, Wrong> {
        let body = strict_json::parse(body).map_err(|cause| Wrong::Json(cause.to_string()))?;
        let Value::Object(mut body) = body else {
            return Err(Wrong::Json("an object is wanted".to_owned()));
        };
        let timestamp = timestamp(body.remove("timestamp"), signed)?;
        let key = key(headers, text(&mut body, "idempotency_key", MAX_KEY_BYTES)?, signed)?;
        let action = text(&mut body, "action", MAX_ACTION_BYTES)?;
        let action = action.ok_or_else(|| missing("action"))?;
        let tenant = text(&mut body, "tenant_id", MAX_TENANT_BYTES)?;
        let parameters = match body.remove("parameters") {
            Some(Value::Object(parameters)) => parameters,
            Some(_) => return Err(Wrong::Field("parameters", "an object is wanted".to_owned())),
            None => return Err(missing("parameters")),
        };
        if !body.is_empty() {
            let fields = FIELDS.join(", ");
            let reason = format!("the body has a field that isn't one of {fields}");
            return Err(Wrong::Field("body", reason));
        }
        Ok(Asked { action, parameters, tenant, key, timestamp })
    }
}

fn missing(name: &'static str) -> Wrong {
    Wrong::Field(name, "it is missing".to_owned())
}

/// A field that is text, if it is there.
fn text(
    body: &mut Map<String, Value>,
    name: &'static str,
    most: usize,
) -> Result<Option<String>, Wrong> {
    match body.remove(name) {
        None => Ok(None),
        Some(Value::String(text)) if is_plain(&text, most) => Ok(Some(text)),
        Some(_) => {
            let reason = format!("text of 1 to {most} bytes without control characters is wanted");
            Err(Wrong::Field(name, reason))
        }
    }
}

fn is_plain(text: &str, most: usize) -> bool {
    (1..=most).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// The signed time.
fn timestamp(given: Option<Value>, signed: &Signed) -> Result<i64, Wrong> {
    let in_body = match given {
        None => None,
        Some(Value::Number(number)) => Some(number.as_i64().ok_or(Wrong::Time)?),
        Some(Value::String(text)) => {
            let time = time::parse(&text).map_err(|_| Wrong::Time)?;
            Some(time.0.div_euclid(1_000_000))
        }
        Some(_) => return Err(Wrong::Time),
    };
    match (signed.timestamp, in_body) {
        (Some(header), Some(body)) if (header.saturating_sub(body)).abs() > WINDOW_S => {
            Err(Wrong::Time)
        }
        (Some(timestamp), _) | (None, Some(timestamp)) => Ok(timestamp),
        (None, None) => Err(missing("timestamp")),
    }
}

/// The signed key. The unsigned header may repeat it, as some libraries do by themselves.
fn key(headers: &HeaderMap, in_body: Option<String>, signed: &Signed) -> Result<String, Wrong> {
    let name = "idempotency_key";
    let key = match (&signed.key, in_body) {
        (Some(header), Some(body)) if *header != body => {
            return Err(Wrong::Field(name, "it isn't webhook-id, which is signed too".to_owned()));
        }
        (Some(key), _) => key.clone(),
        (None, Some(key)) => key,
        (None, None) => return Err(missing(name)),
    };
    if !is_plain(&key, MAX_KEY_BYTES) {
        return Err(Wrong::Field(name, "control characters don't belong in it".to_owned()));
    }
    for given in headers.get_all("idempotency-key") {
        let given = given.to_str().unwrap_or_default();
        let bare = given.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
        if bare.unwrap_or(given) != key {
            let reason = "the header Idempotency-Key says another one, and isn't signed".to_owned();
            return Err(Wrong::Field(name, reason));
        }
    }
    Ok(key)
}

/// Whether a request of that time may be taken in now.
pub fn is_timely(timestamp: i64, now: i64) -> bool {
    now.saturating_sub(timestamp).unsigned_abs() <= WINDOW_S as u64
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use serde_json::json;

    use super::*;

    fn body() -> Value {
        json!({"action": "install_module", "parameters": {"module": "m"}, "timestamp": 1_800_000_000,
               "idempotency_key": "k"})
    }

    fn read(body: &Value) -> Result<Asked, Wrong> {
        Asked::read(&HeaderMap::new(), body.to_string().as_bytes(), &Signed::default())
    }

    fn field(body: &Value) -> &'static str {
        match read(body).unwrap_err() {
            Wrong::Json(_) => "json",
            Wrong::Field(field, _) => field,
            Wrong::Time => "time",
        }
    }

    #[test]
    fn a_body_is_taken_apart() {
        let asked = read(&body()).unwrap();
        assert_eq!(
            (&*asked.action, &*asked.key, asked.timestamp),
            ("install_module", "k", 1_800_000_000)
        );
        let mut other = body();
        other["timestamp"] = json!("2027-01-15T09:00:00+01:00");
        assert_eq!(read(&other).unwrap().timestamp, 1_800_000_000);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (name, value, wanted) in [
            ("action", Value::Null, "action"),
            ("action", json!(""), "action"),
            ("action", json!("a\u{0}b"), "action"),
            ("action", json!("x".repeat(201)), "action"),
            ("parameters", json!([]), "parameters"),
            ("parameters", json!("{}"), "parameters"),
            ("tenant_id", json!(7), "tenant_id"),
            ("idempotency_key", json!(7), "idempotency_key"),
            ("idempotency_key", json!("\n"), "idempotency_key"),
            ("idempotency_key", json!("x".repeat(201)), "idempotency_key"),
            ("timestamp", json!(1e9), "time"),
            ("timestamp", json!(1_800_000_000.5), "time"),
            ("timestamp", json!(u64::MAX), "time"),
            ("timestamp", json!("1800000000"), "time"),
            ("timestamp", json!("2027-01-15"), "time"),
            ("timestamp", json!([1_800_000_000]), "time"),
            ("actor_id", json!("root"), "body"),
        ] {
            let mut bad = body();
            bad[name] = value.clone();
            assert_eq!(field(&bad), wanted, "{name} {value}");
        }
        for name in ["action", "parameters", "timestamp", "idempotency_key"] {
            let mut bad = body();
            bad.as_object_mut().unwrap().remove(name);
            assert_eq!(field(&bad), name);
        }
    }

    #[test]
    fn json_that_two_readers_would_read_differently_is_refused() {
        let text = body().to_string();
        let twice = text.replacen('{', r#"{"action":"approve_kernel_proposal","#, 1);
        let deep = format!(
            r#"{{"action":"a","parameters":{{"x":{}{}}}}}"#,
            "[".repeat(10_000),
            "]".repeat(10_000)
        );
        let bom = format!("\u{feff}{text}");
        let two = format!("{text}{text}");
        for bad in [&*twice, &deep, &bom, &two, "", "[]", "null", "\"x\"", "{", "\u{0}"] {
            let read = Asked::read(&HeaderMap::new(), bad.as_bytes(), &Signed::default());
            assert!(matches!(read, Err(Wrong::Json(_))), "{bad:.80}: {read:?}");
        }
    }

    #[test]
    fn an_unsigned_header_decides_nothing() {
        let with = |value: &str, body: &Value, signed: &Signed| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", value.parse().unwrap());
            Asked::read(&headers, body.to_string().as_bytes(), signed)
        };
        let unsigned = Signed::default();
        let mut without = body();
        without.as_object_mut().unwrap().remove("idempotency_key");
        assert_eq!(with("k", &without, &unsigned).unwrap_err(), missing("idempotency_key"));
        assert!(with("k", &body(), &unsigned).is_ok() && with("\"k\"", &body(), &unsigned).is_ok());
        assert!(with("other", &body(), &unsigned).is_err());
        let signed = Signed { key: Some("k2".into()), timestamp: Some(1_800_000_000) };
        assert_eq!(with("k2", &without, &signed).unwrap().key, "k2");
        assert!(with("k2", &body(), &signed).is_err(), "two signed keys that differ");
    }

    #[test]
    fn a_request_is_of_now() {
        let now = 1_800_000_000;
        for (timestamp, wanted) in [
            (now, true),
            (now - 300, true),
            (now + 300, true),
            (now - 301, false),
            (now + 301, false),
            (0, false),
            (i64::MIN, false),
            (i64::MAX, false),
        ] {
            assert_eq!(is_timely(timestamp, now), wanted, "{timestamp}");
        }
    }
}
