#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::{source::BUILTIN, *};
use crate::schema::Kind;

/// A folder with the files of the built-in catalog.
fn copy() -> TempDir {
    let dir = TempDir::new().unwrap();
    for (path, text) in BUILTIN {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    dir
}

/// Replaces `from`, which must be there, everywhere in a file.
fn edit(dir: &TempDir, path: &str, from: &str, to: &str) {
    let path = dir.path().join(path);
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{} has no {from}", path.display());
    fs::write(&path, text.replace(from, to)).unwrap();
}

fn append(dir: &TempDir, path: &str, text: &str) {
    let path = dir.path().join(path);
    let before = fs::read_to_string(&path).unwrap_or_default();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, before + text).unwrap();
}

fn shown(catalog: &Catalog) -> Vec<String> {
    let key = |topic: &Topic| topic.key_fields().collect::<Vec<_>>().join("+");
    catalog
        .topics
        .iter()
        .map(|t| format!("{} {} {} {} {}", t.name, key(t), t.schema.name, t.table, t.internal))
        .collect()
}

#[test]
fn the_builtin_catalog_has_the_topics_of_the_platform() {
    let catalog = Catalog::builtin();
    assert_eq!(
        shown(&catalog),
        [
            "aion.router.decisions task_id router_decision decisions false",
            "aion.tasks.lifecycle task_id tasks_lifecycle tasks false",
            "aion.metrics.runtime component metrics_runtime metrics false",
            "aion.audit.activity actor_id audit_activity audit false",
            "aion.dead-letters job+topic_id+partition+offset dead_letter dead_letters true",
            "aion.gaps job+topic_id+partition+first+reason gap gaps true",
            "aion.commands actor_id command commands true",
            "aion.operator-decisions job+topic_id+partition operator_decision operator_decisions true",
            "aion.webhooks.attempts endpoint+event_id webhook_attempt deliveries true",
            "aion.webhooks.dead-letters endpoint+topic_id+partition+offset webhook_dead_letter \
             webhook_dead_letters true",
        ]
    );
    let decisions = catalog.topic("aion.router.decisions").unwrap();
    assert_eq!(decisions.subject(), "aion.router.decisions-value");
    assert_eq!(decisions.unit("latency_budget_ms"), Some("ms"));
    assert_eq!(decisions.unit("tier"), None);
    assert_eq!(&*catalog.table("tasks").unwrap().name, "aion.tasks.lifecycle");
    assert!(catalog.topic("decisions").is_none() && catalog.table("aion.gaps").is_none());
}

#[test]
fn webhooks_have_two_topics_without_rows() {
    let all = Catalog::builtin().of_cluster();
    let of = |name: &str| all.iter().find(|topic| &*topic.name == name).unwrap();
    let (cursors, control) = (of(WEBHOOK_CURSORS), of(WEBHOOK_CONTROL));
    for topic in [cursors, control] {
        assert!(topic.internal && topic.retention.prod.is_none(), "{}", topic.name);
        assert!(topic.writers.iter().any(|account| &**account == "operator"));
    }
    assert!(cursors.compacted && !control.compacted);
    assert_eq!(control.partitions, 1, "it is in one order for everybody");
}

#[test]
fn each_topic_of_producers_has_one_for_its_retries() {
    let catalog = Catalog::builtin();
    let all = catalog.of_cluster();
    let retries: Vec<&Topic> = all.iter().filter(|topic| topic.is_retries()).collect();
    let names: Vec<&str> = retries.iter().map(|topic| &*topic.name).collect();
    let wanted =
        ["decisions", "tasks", "metrics", "audit"].map(|table| format!("{RETRIES}{table}"));
    assert_eq!(names, wanted);
    // Two more hold the state of webhooks.
    assert_eq!(all.len(), catalog.topics.len() + 4 + 2);
    for topic in retries {
        let of = catalog.table(&topic.table).unwrap();
        assert_eq!((&topic.schema, topic.retention), (&of.schema, of.retention));
        assert!(topic.internal && topic.partitions == 1 && !topic.compacted);
        assert!(topic.max_message_bytes > of.max_message_bytes);
        assert_eq!(topic.writers, [Arc::from("operator")]);
        assert!(topic.readers.contains(&"pipeline".into()) && !of.is_retries());
        assert!(catalog.retries_of(topic).is_none(), "of retries there are none");
    }
}

#[test]
fn fields_keep_the_order_of_the_file_and_the_required_ones_are_those_of_the_platform() {
    let required = |name: &str| {
        let catalog = Catalog::builtin();
        let schema = &catalog.topic(name).unwrap().schema;
        assert_eq!(schema.fields[schema.event_time].kind, Kind::Time);
        assert_eq!(&*schema.fields[0].name, "event_id");
        let required = schema.fields.iter().filter(|field| field.required);
        required.map(|field| field.name.to_string()).collect::<Vec<_>>().join(" ")
    };
    let decision = "task_id intent route reason tier timestamp";
    assert_eq!(required("aion.router.decisions"), decision);
    assert_eq!(required("aion.tasks.lifecycle"), "task_id status timestamp");
    assert_eq!(required("aion.metrics.runtime"), "component metric value timestamp");
    assert_eq!(required("aion.audit.activity"), "actor_id action timestamp");
}

#[test]
fn topic_settings_follow_the_environment() {
    let catalog = Catalog::builtin();
    let config = |name: &str, environment| {
        let config = catalog.topic(name).unwrap().config(environment);
        config.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    };
    assert_eq!(
        config("aion.audit.activity", Environment::Dev),
        [
            "cleanup.policy=delete",
            "max.message.bytes=1048576",
            "message.timestamp.type=LogAppendTime",
            "retention.bytes=-1",
            "retention.ms=604800000",
        ]
    );
    let prod = config("aion.audit.activity", Environment::Prod);
    assert!(prod.contains(&"retention.ms=2592000000".to_owned()), "{prod:?}");
    for environment in [Environment::Dev, Environment::Prod] {
        for name in [DEAD_LETTERS, GAPS] {
            assert!(config(name, environment).contains(&"retention.ms=-1".to_owned()));
        }
    }
}

#[test]
fn all_files_of_the_folder_are_compiled_in() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec!["catalog.toml".to_owned()];
    for folder in ["events", "internal", "samples"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            found.push(format!("{folder}/{}", entry.unwrap().file_name().to_str().unwrap()));
        }
    }
    found.sort();
    let compiled: Vec<&str> = BUILTIN.iter().map(|(path, _)| *path).collect();
    assert_eq!(compiled, found);
}

#[test]
fn a_folder_loads_as_what_is_compiled_in() {
    let dir = copy();
    let loaded = Catalog::load(dir.path()).unwrap();
    assert_eq!(shown(&loaded), shown(&Catalog::builtin()));
    for (loaded, builtin) in loaded.topics.iter().zip(&Catalog::builtin().topics) {
        assert_eq!(loaded.schema, builtin.schema);
        assert_eq!(loaded.json_schema, builtin.json_schema);
    }
}

#[test]
fn a_new_topic_needs_three_files_and_no_rust() {
    let dir = copy();
    append(
        &dir,
        "catalog.toml",
        "\n[[topic]]\nname = \"aion.billing.usage\"\nkey = \"account\"\nschema = \"billing_usage\"\n\
         table = \"usage\"\nevent_time = \"at\"\npartitions = 12\n\
         retention = { dev = \"12h\", prod = \"unlimited\" }\ncompacted = true\n",
    );
    append(
        &dir,
        "events/billing_usage.schema.json",
        r#"{"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object",
            "description": "Usage was charged.", "additionalProperties": false,
            "required": ["at", "account"],
            "properties": {
              "paid": {"type": "boolean", "description": "Whether it is paid."},
              "account": {"type": "string", "description": "Who pays."},
              "at": {"type": "string", "format": "date-time", "description": "When."}}}"#,
    );
    append(
        &dir,
        "samples/billing_usage.jsonl",
        "{\"at\":\"2026-03-14T09:26:53Z\",\"account\":\"acme\"}\n",
    );
    let catalog = Catalog::load(dir.path()).unwrap();
    let topic = catalog.table("usage").unwrap();
    let names: Vec<&str> = topic.schema.fields.iter().map(|field| &*field.name).collect();
    assert_eq!(names, ["paid", "account", "at"]);
    assert_eq!(topic.schema.event_time, 2);
    assert_eq!((topic.partitions, topic.max_message_bytes), (12, 1_048_576));
    assert_eq!(topic.config(Environment::Dev)["retention.ms"], "43200000");
    assert_eq!(topic.config(Environment::Prod)["retention.ms"], "-1");
    assert_eq!(topic.config(Environment::Prod)["cleanup.policy"], "compact");
    assert_eq!(topic.samples.lines().count(), 1);
}

#[test]
fn all_problems_are_told_at_once() {
    let dir = copy();
    edit(&dir, "catalog.toml", "key = \"component\"", "key = \"komponent\"");
    edit(
        &dir,
        "events/audit_activity.schema.json",
        "\"format\": \"date-time\"",
        "\"format\": \"date\"",
    );
    fs::remove_file(dir.path().join("samples/tasks_lifecycle.jsonl")).unwrap();
    let error = Catalog::load(dir.path()).unwrap_err();
    assert!(error.problems.len() >= 3, "{error}");
    assert_eq!(error.to_string().lines().count(), error.problems.len());
}

#[test]
fn a_folder_without_a_catalog_is_refused_by_name() {
    let dir = TempDir::new().unwrap();
    let error = Catalog::load(dir.path()).unwrap_err().to_string();
    assert!(
        error.contains("catalog.toml: can't be read") && error.contains("laid out like"),
        "{error}"
    );
}

const CATALOG: &str = "catalog.toml";
const DECISION: &str = "events/router_decision.schema.json";
const METRICS: &str = "events/metrics_runtime.schema.json";
const LETTER: &str = "internal/dead_letter.schema.json";

/// Each: the file, what is replaced in it by what, and what the message must say.
const REFUSED: &[(&str, &str, &str, &str)] = &[
    // The catalog's own syntax.
    (CATALOG, "table = \"audit\"", "tabel = \"audit\"", "unknown field `tabel`"),
    (CATALOG, "table = \"audit\"", "", "missing field `table`"),
    (CATALOG, "dev = \"7d\"", "dev = \"7 days\"", "`7 days` isn't a time of retention"),
    (CATALOG, "dev = \"7d\"", "dev = \"0d\"", "`0d` isn't a time of retention"),
    (CATALOG, "dev = \"7d\"", "dev = \"99999999999999999999d\"", "isn't a time of retention"),
    (CATALOG, "[[topic]]", "[[topics]]", "unknown field `topics`"),
    // Names.
    (
        CATALOG,
        "aion.audit.activity",
        "aion/audit",
        "topic aion/audit, name: Kafka takes no such name",
    ),
    (
        CATALOG,
        "aion.audit.activity",
        "aion.tasks_lifecycle",
        "`aion.tasks.lifecycle` is already there",
    ),
    (
        CATALOG,
        "aion.audit.activity",
        "aion.retries.activity",
        "each topic has one for its retries by itself",
    ),
    (
        CATALOG,
        "writers = [\"operator\"]\nreaders",
        "writers = [\"op\"]\nreaders",
        "[retries], writers",
    ),
    (
        CATALOG,
        "table = \"audit\"",
        "table = \"tasks\"",
        "`tasks` is already the table of aion.tasks.lifecycle",
    ),
    (
        CATALOG,
        "table = \"audit\"",
        "table = \"Audit\"",
        "table: `Audit` isn't a name for SQL and Avro; use a-z",
    ),
    (CATALOG, "table = \"audit\"", "table = \"lag\"", "SQL has a table `lag` of its own"),
    (
        CATALOG,
        "schema = \"audit_activity\"",
        "schema = \"audit\"",
        "events/audit.schema.json: can't be read",
    ),
    // Keys and numbers.
    (
        CATALOG,
        "key = \"actor_id\"",
        "key = \"actor\"",
        "topic aion.audit.activity, key: schema `audit_activity` has no field `actor`; did you mean `actor_id`?",
    ),
    (
        CATALOG,
        "key = \"actor_id\"",
        "key = \"who\"",
        "has no field `who`; name a field of the schema",
    ),
    (CATALOG, "key = \"actor_id\"", "key = \"resource\"", "field `resource` may be missing"),
    (CATALOG, "key = \"actor_id\"", "key = \"timestamp\"", "field `timestamp` isn't a string"),
    (CATALOG, "key = \"actor_id\"", "key = \"actor_id:action\"", "has no field `actor_id:action`"),
    (CATALOG, ":offset\"", ":ofset\"", "did you mean `offset`?"),
    (CATALOG, "partitions = 4", "partitions = 0", "partitions: 0 partitions; choose 1 to 1000"),
    (CATALOG, "1_048_576", "512", "max_message_bytes: 512 bytes; choose 1024"),
    (
        CATALOG,
        "1_048_576",
        "4_194_304",
        "raise max_message_bytes of aion.dead-letters to 4325376 or more",
    ),
    (
        CATALOG,
        "event_time = \"timestamp\"",
        "event_time = \"time\"",
        "event time time: there is no such field",
    ),
    (
        CATALOG,
        "event_time = \"timestamp\"",
        "event_time = \"reason\"",
        "event time reason: isn't a time",
    ),
    // Internal topics.
    (CATALOG, "aion.gaps", "aion.holes", "topic aion.gaps: is missing"),
    (
        CATALOG,
        "internal = true",
        "internal = false",
        "topic aion.gaps: isn't marked internal; write `internal = true`",
    ),
    (
        LETTER,
        "\"field\": {",
        "\"fields\": {",
        "topic aion.dead-letters, schema: has other columns than the program writes",
    ),
    (
        LETTER,
        "\"reason\", \"append_time\"",
        "\"append_time\"",
        "topic aion.dead-letters, schema: has other columns than the program writes",
    ),
    (
        CATALOG,
        "table = \"gaps\"",
        "table = \"holes\"",
        "topic aion.gaps, table: must be `gaps`; take the entry",
    ),
    (
        CATALOG,
        ":first:reason\"",
        ":next:reason\"",
        "topic aion.gaps, key: must be `job:topic_id:partition:first:reason`",
    ),
    (
        CATALOG,
        "\"rejected_at\"",
        "\"append_time\"",
        "topic aion.dead-letters, event_time: must be `rejected_at`",
    ),
    // Schemas as a whole.
    (
        DECISION,
        "\"additionalProperties\": false,",
        "",
        "the schema isn't closed; write \"additionalProperties\": false",
    ),
    (DECISION, "2020-12", "2019-09", "the dialect isn't stated"),
    (DECISION, "\"title\"", "\"oneOf\"", "`oneOf` isn't supported at the top of a schema"),
    (DECISION, "\"title\"", "\"titel\"", "did you mean `title`?"),
    (
        DECISION,
        "\"required\": [\"task_id\"",
        "\"required\": [\"taskid\"",
        "`required` names \"taskid\", which isn't a property; did you mean `task_id`?",
    ),
    (DECISION, "\"tier\", \"timestamp\"]", "\"tier\"]", "event time timestamp: may be missing"),
    (DECISION, "\"tier\": {", "\"route\": {", "property `route` stands twice"),
    (DECISION, "{", "", "correct the JSON Schema"),
    // Fields.
    (
        DECISION,
        "\"engine_model\": {",
        "\"engineModel\": {",
        "property engineModel: isn't a name for Avro and SQL",
    ),
    (DECISION, "\"engine_model\": {", "\"_offset\": {", "property _offset: isn't a name"),
    (
        DECISION,
        "Privacy tier of the task; decides where its data may go.",
        "",
        "property tier: there is no description",
    ),
    (DECISION, "\"x-unit\": \"ms\",", "", "property latency_budget_ms: a number without a unit"),
    (
        METRICS,
        "\"type\": \"number\"",
        "\"type\": \"array\"",
        "property value: columns are flat; put the list into an object",
    ),
    (
        METRICS,
        "\"type\": \"number\"",
        "\"type\": [\"number\", \"null\"]",
        "leave it out of `required`",
    ),
    (
        METRICS,
        "\"type\": \"number\"",
        "\"type\": \"float\"",
        "property value: type `float` can't be a column; choose string, integer",
    ),
    (METRICS, "\"type\": \"number\"", "\"title\": \"x\"", "property value: there is no type"),
    (
        METRICS,
        "\"format\": \"date-time\"",
        "\"format\": \"time\"",
        "format `time` isn't supported; use date-time",
    ),
    (
        METRICS,
        "\"enum\"",
        "\"anyOf\"",
        "property kind: `anyOf` isn't supported for a field of this type",
    ),
    (METRICS, "\"minLength\": 1", "\"minLenght\": 1", "did you mean `minLength`?"),
    (METRICS, "\"minLength\": 1", "\"minLength\": \"1\"", "correct the JSON Schema"),
    (
        METRICS,
        "\"minLength\": 1",
        "\"contentEncoding\": \"base64\"",
        "bytes are for internal topics",
    ),
    // A reference can't reach out: nothing here opens a connection.
    (
        METRICS,
        "{ \"type\": [\"string\", \"number\", \"boolean\"] }",
        "{ \"$ref\": \"https://example.com/x\" }",
        "correct the JSON Schema",
    ),
    // Samples.
    (
        "samples/router_decision.jsonl",
        "\"route\":\"cloud\",",
        "",
        "samples/router_decision.jsonl, line 2: field `route` is required",
    ),
    ("samples/router_decision.jsonl", "\"size\":900", "\"size\":-1", "line 3: field `size`"),
    ("samples/audit_activity.jsonl", "}\n", "\n", "line 1: not JSON"),
];

#[test]
fn refusals_name_the_file_the_place_and_the_remedy() {
    for (file, from, to, wanted) in REFUSED {
        let dir = copy();
        edit(&dir, file, from, to);
        let Err(error) = Catalog::load(dir.path()) else {
            panic!("{file}: {from} -> {to} is accepted; wanted: {wanted}")
        };
        assert!(error.to_string().contains(wanted), "{from} -> {to}:\n{error}\nwanted: {wanted}");
        for problem in &error.problems {
            assert!(problem.file.starts_with(dir.path().to_str().unwrap()), "{problem}");
            assert!(!problem.fix.is_empty() && !problem.problem.is_empty(), "{problem}");
        }
    }
}

/// Files come from people and may be cut off or mixed up: that is a refusal, never a panic.
#[test]
fn damaged_files_never_panic() {
    let dir = copy();
    for path in [CATALOG, DECISION, LETTER, "samples/metrics_runtime.jsonl"] {
        let whole = fs::read(dir.path().join(path)).unwrap();
        let mut refused = 0;
        for part in 0..12 {
            let (start, end) = (whole.len() * part / 12, whole.len() * (part + 1) / 12);
            for damaged in [
                whole[..start].to_vec(),
                [&whole[..start], &whole[end..]].concat(),
                [&whole[..start], b"\xff\xc3", &whole[start..]].concat(),
            ] {
                fs::write(dir.path().join(path), damaged).unwrap();
                refused += usize::from(Catalog::load(dir.path()).is_err());
            }
        }
        assert!(refused >= 12, "{path}: {refused}");
        fs::write(dir.path().join(path), whole).unwrap();
    }
    Catalog::load(dir.path()).unwrap();
}
