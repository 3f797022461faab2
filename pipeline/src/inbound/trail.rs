//! Audit events of commands, for `aion.audit.activity`.
//!
//! | stage | action | result | `event_id` is of |
//! |---|---|---|---|
//! | a command was accepted | its action | `accepted` | the command's id and the stage |
//! | it has ended | its action | `succeeded`, `failed` | the command's id and the stage |
//! | an authenticated request was refused | its action, or `unknown_action` | `denied`, `refused` | chance |
//! | a principal's requests beyond its rate, beside the first one of a minute | `inbound.too_many` | `refused` | chance |
//! | requests that weren't authenticated, once a minute | `inbound.unauthenticated` | `denied` | chance |
//!
//! **Invariant:** an event that is written twice, by whichever processes, is the same bytes with the same id.

use std::{collections::BTreeMap, net::IpAddr};

use aion_schemas::log::Timestamp;
use ring::digest;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    command::{Command, Id, Outcome},
    log::Known,
};
use crate::{job::times::rfc3339, webhooks::wire::hex};

/// Who counts what isn't authenticated.
pub const GATEWAY: &str = "service:gateway";
/// The action of a refused request whose own isn't one.
const UNKNOWN: &str = "unknown_action";

/// An authenticated request that was refused.
#[derive(Clone, Debug)]
pub struct Refusal<'a> {
    /// Who sent it.
    pub actor: &'a str,
    /// For which tenant.
    pub tenant: Option<&'a str>,
    /// What was asked for, where that is an action.
    pub action: Option<&'a str>,
    /// The command that it would have been.
    pub id: Id,
    /// Whether the sender may not, or it isn't right.
    pub is_denied: bool,
    /// Why, for people.
    pub reason: String,
    /// Where it came from.
    pub peer: IpAddr,
    /// When.
    pub at: Timestamp,
}

/// The event of a command that the log has.
pub fn accepted(id: Id, known: &Known) -> Vec<u8> {
    let mut event = json!({
        "event_id": event_id(id, "accepted"),
        "actor_id": &*known.actor,
        "action": &*known.action,
        "resource": resource(id),
        "result": "accepted",
        "timestamp": rfc3339(known.received_at),
        "context": { "command_id": id.to_string(), "content_hash": hex(&known.content) },
    });
    add_tenant(&mut event, known.tenant.as_deref());
    event.to_string().into_bytes()
}

/// The event of how a command ended.
pub fn ended(command: &Command, outcome: &Outcome) -> Vec<u8> {
    let mut event = json!({
        "event_id": event_id(command.id, "outcome"),
        "actor_id": &*command.actor,
        "action": command.action,
        "resource": resource(command.id),
        "result": outcome.word(),
        "timestamp": rfc3339(outcome.at),
        "context": { "command_id": command.id.to_string(), "detail": outcome.detail },
    });
    add_tenant(&mut event, command.tenant.as_deref());
    event.to_string().into_bytes()
}

/// The event of a refused request.
pub fn refused(refusal: &Refusal<'_>) -> Vec<u8> {
    let mut event = json!({
        "event_id": Uuid::new_v4().to_string(),
        "actor_id": refusal.actor,
        "action": refusal.action.unwrap_or(UNKNOWN),
        "resource": resource(refusal.id),
        "result": if refusal.is_denied { "denied" } else { "refused" },
        "timestamp": rfc3339(refusal.at),
        "context": { "reason": refusal.reason, "peer": refusal.peer.to_string() },
    });
    add_tenant(&mut event, refusal.tenant);
    event.to_string().into_bytes()
}

/// The event of the requests of a minute or so that weren't authenticated, by what was wrong with them.
pub fn noise(counts: &BTreeMap<&'static str, u64>, at: Timestamp, span_s: u64) -> Vec<u8> {
    sum((GATEWAY, "inbound.unauthenticated", "denied"), &json!(counts), at, span_s)
}

/// The event of a principal's requests of a minute or so that were too many, beside the first.
pub fn too_many(actor: &str, requests: u64, at: Timestamp, span_s: u64) -> Vec<u8> {
    sum((actor, "inbound.too_many", "refused"), &json!(requests), at, span_s)
}

/// The event of many requests.
fn sum(
    (actor, action, result): (&str, &str, &str),
    requests: &Value,
    at: Timestamp,
    span_s: u64,
) -> Vec<u8> {
    let event = json!({
        "event_id": Uuid::new_v4().to_string(),
        "actor_id": actor,
        "action": action,
        "result": result,
        "timestamp": rfc3339(at),
        "context": { "requests": requests, "of_the_last_s": span_s },
    });
    event.to_string().into_bytes()
}

fn add_tenant(event: &mut Value, tenant: Option<&str>) {
    // The contract has no empty ones.
    if let Some(tenant) = tenant.filter(|tenant| !tenant.is_empty()) {
        event["tenant_id"] = json!(tenant);
    }
}

fn resource(id: Id) -> String {
    format!("command/{id}")
}

fn event_id(id: Id, stage: &str) -> String {
    let hash = digest::digest(&digest::SHA256, format!("{id}/{stage}").as_bytes());
    hex(&hash.as_ref()[..16])
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use aion_schemas::{catalog::Catalog, validate::Validator};

    use super::*;
    use crate::inbound::AUDIT;

    #[test]
    fn every_event_keeps_to_the_contract() {
        let catalog = Catalog::builtin();
        let validator = Validator::new(catalog.topic(AUDIT).unwrap()).unwrap();
        let now = Timestamp(1_795_000_000_000_000);
        let who = ("login:ann".into(), Some("acme".to_owned()));
        let what = ("install_module".to_owned(), &serde_json::Map::new());
        let command = Command::new(who, what, "k".into(), now);
        let known = Known {
            actor: command.actor.clone(),
            tenant: Some("acme".into()),
            action: "install_module".into(),
            content: command.content,
            received_at: now,
            outcome: None,
            is_audited: false,
        };
        let outcome = Outcome { succeeded: true, detail: "HTTP 200".into(), at: now };
        let refusal = Refusal {
            actor: "login:ann",
            tenant: Some(""),
            action: None,
            id: command.id,
            is_denied: true,
            reason: "no".into(),
            peer: [127, 0, 0, 1].into(),
            at: now,
        };
        let events = [
            accepted(command.id, &known),
            ended(&command, &outcome),
            refused(&refusal),
            noise(&BTreeMap::from([("signature", 3)]), now, 60),
            too_many("login:ann", 3, now, 75),
        ];
        for event in &events {
            validator.admit(event, now).unwrap();
        }
        assert_eq!(accepted(command.id, &known), events[0], "the same bytes by whichever process");
        assert_ne!(event_id(command.id, "accepted"), event_id(command.id, "outcome"));
    }
}
