//! A command: its id, its content, its records in the log.

use std::sync::Arc;

use aion_schemas::log::Timestamp;
use ring::digest::{self, Context};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    job::times::{parse_rfc3339, rfc3339},
    webhooks::wire::hex,
};

/// How ids begin.
const MARK: &str = "cmd_";

/// The id of a command: a hash of who sent it and of the sender's own key for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id([u8; 16]);

impl Id {
    /// The id of an actor's command with that idempotency key.
    pub fn of(actor: &str, key: &str) -> Id {
        let hash = hash("aion command", &[actor, key]);
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        Id(id)
    }

    /// A number that spreads ids evenly.
    pub fn spread(&self) -> usize {
        (usize::from(self.0[0]) << 8) | usize::from(self.0[1])
    }

    /// Reads what [`Id`] shows.
    pub fn parse(text: &str) -> Option<Id> {
        let digits = text.strip_prefix(MARK)?;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if digits.len() != 32 || !digits.bytes().all(is_hex) {
            return None;
        }
        let mut id = [0; 16];
        for (at, byte) in id.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).ok()?;
        }
        Some(Id(id))
    }
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{MARK}{}", hex(&self.0))
    }
}

/// A hash over parts that can't run into each other.
fn hash(domain: &str, parts: &[&str]) -> [u8; 32] {
    let mut context = Context::new(&digest::SHA256);
    for part in std::iter::once(&domain).chain(parts) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

/// What makes two commands of one idempotency key the same: action, tenant and parameters in canonical form,
/// and nothing of when, how and by what they were signed.
pub type Content = [u8; 32];

/// A command.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Its id.
    pub id: Id,
    /// Who sent it.
    pub actor: Arc<str>,
    /// For which tenant.
    pub tenant: Option<String>,
    /// What is to be done.
    pub action: String,
    /// With what: canonical JSON.
    pub parameters: String,
    /// The sender's own key for it.
    pub key: String,
    /// What it comes to.
    pub content: Content,
    /// When it was taken in.
    pub received_at: Timestamp,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it was carried out.
    pub succeeded: bool,
    /// What the control plane answered.
    pub detail: String,
    /// When.
    pub at: Timestamp,
}

impl Outcome {
    /// As the log and people have it.
    pub fn word(&self) -> &'static str {
        if self.succeeded { SUCCEEDED } else { FAILED }
    }
}

/// The stage of a command that was taken in.
pub const ACCEPTED: &str = "accepted";
/// The stage of one that was carried out.
pub const SUCCEEDED: &str = "succeeded";
/// The stage of one that was refused for good.
pub const FAILED: &str = "failed";

/// A record of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum Entry {
    /// A command.
    Accepted(Command),
    /// What became of one.
    Ended(Id, Outcome),
}

/// A record as it is written: the schema `command`.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    command_id: String,
    actor_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tenant_id: Option<String>,
    action: String,
    parameters: Map<String, Value>,
    idempotency_key: String,
    content_hash: String,
    received_at: String,
    #[serde(default = "accepted")]
    stage: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

fn accepted() -> String {
    ACCEPTED.to_owned()
}

impl Command {
    /// A command that is taken in now.
    pub fn new(
        (actor, tenant): (Arc<str>, Option<String>),
        (action, parameters): (String, &Map<String, Value>),
        key: String,
        received_at: Timestamp,
    ) -> Command {
        // The names of an object are sorted, and stand once.
        let parameters = Value::Object(parameters.clone()).to_string();
        let content = content(&action, tenant.as_deref(), &parameters);
        let id = Id::of(&actor, &key);
        Command { id, actor, tenant, action, parameters, key, content, received_at }
    }

    fn written(&self) -> Written {
        Written {
            command_id: self.id.to_string(),
            actor_id: self.actor.to_string(),
            tenant_id: self.tenant.clone(),
            action: self.action.clone(),
            parameters: serde_json::from_str(&self.parameters).unwrap_or_default(),
            idempotency_key: self.key.clone(),
            content_hash: hex(&self.content),
            received_at: rfc3339(self.received_at),
            stage: ACCEPTED.to_owned(),
            detail: None,
        }
    }

    /// Its record.
    pub fn record(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&self.written())
    }

    /// The record of how it ended.
    pub fn outcome_record(&self, outcome: &Outcome) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Written {
            parameters: Map::new(),
            received_at: rfc3339(outcome.at),
            stage: outcome.word().to_owned(),
            detail: Some(outcome.detail.clone()),
            ..self.written()
        })
    }

    /// What the control plane gets: the same bytes at each attempt.
    pub fn body(&self) -> Vec<u8> {
        let mut body = json!({
            "id": self.id.to_string(),
            "type": self.action,
            "actor_id": &*self.actor,
            "parameters": serde_json::from_str::<Value>(&self.parameters).unwrap_or_default(),
            "received_at": rfc3339(self.received_at),
        });
        if let Some(tenant) = &self.tenant {
            body["tenant_id"] = json!(tenant);
        }
        body.to_string().into_bytes()
    }

    /// About how many bytes it takes in memory.
    pub fn bytes(&self) -> usize {
        512 + self.parameters.len() + self.key.len() + self.action.len()
    }
}

fn content(action: &str, tenant: Option<&str>, parameters: &str) -> Content {
    let tenant = tenant.map_or(String::new(), |tenant| format!("={tenant}"));
    hash("aion command content", &[action, &tenant, parameters])
}

/// Reads a record of the log; one that isn't what the gateway writes has a reason.
pub fn read(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<Entry, String> {
    let written: Written = serde_json::from_slice(value.ok_or("it has no value")?)
        .map_err(|cause| cause.to_string())?;
    let id = Id::of(&written.actor_id, &written.idempotency_key);
    if id.to_string() != written.command_id || key != Some(written.actor_id.as_bytes()) {
        return Err("its id or its key isn't that of its actor".to_owned());
    }
    let at = parse_rfc3339(&written.received_at).ok_or("received_at")?;
    let succeeded = match &*written.stage {
        ACCEPTED => {
            let who = (written.actor_id.into(), written.tenant_id);
            let what = (written.action, &written.parameters);
            let command = Command::new(who, what, written.idempotency_key, at);
            if hex(&command.content) != written.content_hash {
                return Err("its content_hash isn't that of its content".to_owned());
            }
            return Ok(Entry::Accepted(command));
        }
        SUCCEEDED => true,
        FAILED => false,
        other => return Err(format!("stage {other:?}")),
    };
    Ok(Entry::Ended(id, Outcome { succeeded, detail: written.detail.unwrap_or_default(), at }))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn command(actor: &str, key: &str, parameters: &str) -> Command {
        let parameters = serde_json::from_str(parameters).unwrap();
        let who = (actor.into(), Some("acme".to_owned()));
        Command::new(who, ("install_module".to_owned(), &parameters), key.to_owned(), Timestamp(5))
    }

    #[test]
    fn an_id_is_of_one_actor_and_one_key() {
        let id = command("a", "bc", "{}").id;
        assert_eq!(id, command("a", "bc", r#"{"x":1}"#).id);
        assert_ne!(id, command("ab", "c", "{}").id, "parts don't run into each other");
        assert_ne!(id, command("A", "bc", "{}").id);
        assert_eq!(Id::parse(&id.to_string()), Some(id));
        for bad in ["", "cmd_", "cmd_0123", &id.to_string().to_uppercase(), &format!("{id}0")] {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn content_is_what_is_asked_for_however_it_is_written() {
        let content = |parameters| command("a", "k", parameters).content;
        assert_eq!(content(r#"{"a": 1, "b": [2]}"#), content(r#"{"b":[2],"a":1}"#));
        assert_ne!(content(r#"{"a":1}"#), content(r#"{"a":"1"}"#));
        let other = Command { received_at: Timestamp(6), ..command("a", "k", "{}") };
        assert_eq!(content("{}"), other.content);
        let nobody = super::content("install_module", None, "{}");
        assert_ne!(nobody, super::content("install_module", Some(""), "{}"));
    }

    #[test]
    fn records_are_read_back_and_forged_ones_refused() {
        let command = command("a", "k", r#"{"module":"m"}"#);
        let record = command.record().unwrap();
        assert_eq!(read(Some(b"a"), Some(&record)).unwrap(), Entry::Accepted(command.clone()));
        let outcome = Outcome { succeeded: false, detail: "no".into(), at: Timestamp(9) };
        let ended = command.outcome_record(&outcome).unwrap();
        assert_eq!(read(Some(b"a"), Some(&ended)).unwrap(), Entry::Ended(command.id, outcome));
        let text = String::from_utf8(record).unwrap();
        for (what, forged) in [
            ("another's id", text.replace("\"k\"", "\"other\"")),
            ("another actor", text.replace("\"actor_id\":\"a\"", "\"actor_id\":\"root\"")),
            ("other parameters", text.replace("\"m\"", "\"evil\"")),
            ("another action", text.replace("install_module", "drop_everything")),
            ("another stage", text.replace("\"accepted\"", "\"undone\"")),
            ("no JSON", "{".to_owned()),
        ] {
            assert!(read(Some(b"a"), Some(forged.as_bytes())).is_err(), "{what}");
        }
        assert!(read(Some(b"b"), Some(text.as_bytes())).is_err(), "another key of the record");
        assert!(read(Some(b"a"), None).is_err());
    }

    #[test]
    fn the_control_plane_gets_the_same_bytes_each_time() {
        let command = command("a", "k", r#"{"module":"m","version":"1"}"#);
        let Entry::Accepted(again) = read(Some(b"a"), Some(&command.record().unwrap())).unwrap()
        else {
            panic!("a command")
        };
        assert_eq!(again.body(), command.body());
    }
}
