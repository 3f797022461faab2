//! The endpoint of commands as `OpenAPI` 3.1 describes it.

use serde_json::{Map, Value, json};

/// The document, with these actions and the schemas of their parameters.
pub(super) fn document<'a>(actions: impl Iterator<Item = (&'a str, &'a Value)>) -> Value {
    let (mut schemas, mut kinds) = (Map::new(), Vec::new());
    for (action, params) in actions {
        let mut params = params.clone();
        if let Some(members) = params.as_object_mut() {
            members.remove("$schema");
        }
        schemas.insert(format!("{action}_parameters"), params);
        schemas.insert(action.to_owned(), command(action));
        kinds.push(json!({ "$ref": format!("#/components/schemas/{action}") }));
    }
    schemas.insert("Command".to_owned(), json!({ "oneOf": kinds }));
    schemas.insert("State".to_owned(), state());
    schemas.insert("Problem".to_owned(), problem());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "AION inbound commands",
            "version": "1",
            "description": "Commands to the control plane: signed, authorised, recorded, then carried out. See docs/inbound.md.",
        },
        "paths": {
            "/webhooks/inbound": { "post": post() },
            "/webhooks/inbound/{id}": { "get": get() },
        },
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key of policies/access.yaml, or a JWT of one of its issuers.",
                },
            },
        },
        "security": [{ "bearer": [] }],
    })
}

/// The body that asks for one action.
fn command(action: &str) -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["action", "parameters"],
        "properties": {
            "action": { "const": action },
            "parameters": { "$ref": format!("#/components/schemas/{action}_parameters") },
            "tenant_id": {
                "description": "The tenant for which it is done.",
                "type": "string", "minLength": 1, "maxLength": 200,
            },
            "timestamp": {
                "description": "When the request was made: RFC 3339, or seconds since 1970; within 300 s of now. Needed unless the headers of Standard Webhooks are sent.",
                "oneOf": [{ "type": "string", "format": "date-time" }, { "type": "integer" }],
            },
            "idempotency_key": {
                "description": "The sender's own name of this command. Needed unless the headers of Standard Webhooks are sent, whose webhook-id is it.",
                "type": "string", "minLength": 1, "maxLength": 200,
            },
        },
    })
}

fn state() -> Value {
    json!({
        "type": "object",
        "required": ["id", "action", "state"],
        "properties": {
            "id": { "type": "string", "pattern": "^cmd_[0-9a-f]{32}$" },
            "action": { "type": "string" },
            "state": {
                "description": "`accepted` until the control plane has answered.",
                "type": "string", "enum": ["accepted", "succeeded", "failed"],
            },
            "detail": { "description": "What the control plane answered.", "type": "string" },
            "received_at": { "type": "string", "format": "date-time" },
            "ended_at": { "type": "string", "format": "date-time" },
        },
    })
}

fn problem() -> Value {
    json!({
        "description": "RFC 9457.",
        "type": "object",
        "required": ["title", "status", "detail"],
        "properties": {
            "type": { "type": "string" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "errors": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["field", "message"],
                    "properties": {
                        "field": { "type": "string" },
                        "message": { "type": "string" },
                    },
                },
            },
        },
    })
}

fn post() -> Value {
    let mut responses = problems(&[
        ("400", "No JSON object, or no idempotency key or timestamp in what is signed."),
        (
            "401",
            "The signature, its time or the credential isn't accepted; which of them isn't said.",
        ),
        ("403", "The principal may not do this."),
        ("408", "The body took longer than 10 s to come."),
        ("409", "The first request of this idempotency key is being worked on: ask again."),
        ("413", "The body is longer than 256 KiB."),
        ("415", "The body is said to be something else than JSON."),
        (
            "422",
            "An unknown action, parameters that aren't right, or the idempotency key of another command.",
        ),
        ("429", "Too many requests; Retry-After says when."),
        (
            "503",
            "Whether the command is recorded isn't known: repeat it with the same idempotency key.",
        ),
    ]);
    responses.insert(
        "202".to_owned(),
        answer(
            "The command is recorded and will be carried out. Sent again, it is the same command.",
        ),
    );
    let header = |name: &str, text: &str| json!({ "name": name, "in": "header", "required": false, "description": text, "schema": { "type": "string" } });
    json!({
        "operationId": "command",
        "summary": "Ask the control plane to do something.",
        "parameters": [
            header("X-Aion-Signature", "`sha256=` and the HMAC-SHA256 of the exact body in hexadecimal. This one, or the three below."),
            header("webhook-id", "Standard Webhooks: the idempotency key."),
            header("webhook-timestamp", "Standard Webhooks: seconds since 1970."),
            header("webhook-signature", "Standard Webhooks: `v1,` and the HMAC-SHA256 of `id.timestamp.body` in base64."),
        ],
        "requestBody": {
            "required": true,
            "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Command" } } },
        },
        "responses": responses,
    })
}

fn get() -> Value {
    let mut responses = problems(&[
        ("401", "The credential isn't accepted."),
        ("403", "The principal may not ask."),
        ("404", "There is no such command of this principal."),
        ("429", "Too many requests; Retry-After says when."),
        ("503", "The log of commands hasn't been read yet: ask again."),
    ]);
    responses.insert("200".to_owned(), answer("How the command stands."));
    json!({
        "operationId": "state",
        "summary": "How a command stands.",
        "parameters": [{
            "name": "id", "in": "path", "required": true, "schema": { "type": "string" },
        }],
        "responses": responses,
    })
}

fn answer(description: &str) -> Value {
    let schema = json!({ "$ref": "#/components/schemas/State" });
    json!({ "description": description, "content": { "application/json": { "schema": schema } } })
}

fn problems(all: &[(&str, &str)]) -> Map<String, Value> {
    let problem = |(status, description): &(&str, &str)| {
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        let content = json!({ "application/problem+json": { "schema": schema } });
        ((*status).to_owned(), json!({ "description": description, "content": content }))
    };
    all.iter().map(problem).collect()
}
