//! The page `docs/webhook-events.md`: what receivers get of each topic of the contract.
//!
//! **Invariant:** a sample is made by what makes the bodies that are sent, of a sample of the contract.

use std::fmt::Write as _;

use aion_schemas::{
    catalog::{Catalog, Topic},
    generate::GeneratedFile,
};
use serde_json::Value;
use uuid::Uuid;

use super::wire::{Data, Place, envelope};
use crate::job::times::parse_rfc3339;

const HEAD: &str = "\
# Events of webhooks

<!-- Generated from schemas/ by `aion schemas generate`: edit there, not here. -->

What a receiver gets of each topic of the contract, in the envelope that [webhooks.md](webhooks.md) tells of and
[`schemas/webhook.schema.json`](../schemas/webhook.schema.json) describes. `data` is the event as its producer sent it; one that
was sent in Avro comes as the same JSON. Bodies are sent without the line breaks that are here.

Fields may be added to an event, never taken away or changed: ignore those that you don't know. Topics that are in no contract are
delivered too, where a policy matches them: their `data` is what their producers say.

| `type` | `key` | happens when |
|---|---|---|
";

/// What is generated for receivers.
pub fn files(catalog: &Catalog) -> Vec<GeneratedFile> {
    vec![GeneratedFile { path: "docs/webhook-events.md".to_owned(), text: text(catalog) }]
}

fn text(catalog: &Catalog) -> String {
    let mut page = HEAD.to_owned();
    let topics = || catalog.topics.iter().filter(|topic| !topic.internal);
    for topic in topics() {
        // Writing to a String can't fail.
        let _ok = writeln!(page, "| `{}` | `{}` | {} |", topic.name, topic.key, topic.schema.doc);
    }
    for (number, topic) in (1..).zip(topics()) {
        section(&mut page, topic, number);
    }
    page
}

fn section(page: &mut String, topic: &Topic, number: u128) {
    let _ok = write!(page, "\n## `{}`\n\n{}\n\n", topic.name, topic.schema.doc);
    let required = topic.schema.fields.iter().filter(|field| field.required);
    let required: Vec<_> = required.map(|field| format!("`{}`", field.name)).collect();
    let _ok = write!(
        page,
        "`data` is a `{schema}` ([its JSON Schema](../schemas/events/{schema}.schema.json), [its fields](topics.md)); \
         {} are always there.\n\n",
        required.join(", "),
        schema = topic.schema.name,
    );
    // The sample with the most in it shows the most.
    if let Some(sample) = topic.samples.lines().max_by_key(|line| line.len()) {
        let _ok = write!(page, "```json\n{}\n```\n", body(topic, sample, number));
    }
}

/// The body of a delivery of a sample, in lines.
fn body(topic: &Topic, sample: &str, number: u128) -> String {
    let event: Value = serde_json::from_str(sample).unwrap_or_default();
    let key = event[&*topic.key].as_str().unwrap_or_default();
    // Any topic's id, and a place in its log.
    let topic_id = Uuid::from_u128(0x6b84_9121_19ed_4ac4_af3b_e038_d249_a500 + number);
    let place = Place { topic_id, partition: 2, offset: 40 + number as i64 };
    let time = parse_rfc3339("2026-03-14T09:30:00.412093Z").unwrap_or_default();
    let body = envelope(&topic.name, &place, time, Some(key.as_bytes()), Data::Json(sample));
    let body = String::from_utf8_lossy(&body);
    [",\"key\":", ",\"data\":", ",\"source\":"].iter().fold(body.into_owned(), |body, member| {
        body.replacen(member, &member.replacen(',', ",\n ", 1), 1)
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::path::Path;

    use aion_schemas::generate;

    use super::*;

    #[test]
    fn the_committed_page_is_current() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        generate::check(root, files).unwrap();
    }

    #[test]
    fn line_breaks_are_all_that_a_sample_has_beside_its_body() {
        let catalog = Catalog::builtin();
        for topic in catalog.topics.iter().filter(|topic| !topic.internal) {
            for sample in topic.samples.lines() {
                let event: Value = serde_json::from_str(&body(topic, sample, 1)).unwrap();
                assert_eq!(event["data"], serde_json::from_str::<Value>(sample).unwrap());
                assert_eq!(event["type"], *topic.name);
                assert_eq!(event["key"], event["data"][&*topic.key]);
            }
        }
    }
}
