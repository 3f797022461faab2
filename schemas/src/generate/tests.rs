#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{fs, path::PathBuf};

use tempfile::TempDir;

use super::*;

/// What this crate makes by itself.
fn write(root: &Path) -> Result<Vec<Changed>, GenerateError> {
    super::write(root, |_| Vec::new())
}

fn check(root: &Path) -> Result<(), GenerateError> {
    super::check(root, |_| Vec::new())
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// An empty repository with the contract of this one.
fn copy() -> TempDir {
    let dir = TempDir::new().unwrap();
    for folder in ["", "events", "internal", "samples"] {
        let from = repository().join("schemas").join(folder);
        let to = dir.path().join("schemas").join(folder);
        fs::create_dir_all(&to).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
    dir
}

#[test]
fn the_committed_files_are_current() {
    if let Err(error) = check(&repository()) {
        panic!("{error}");
    }
}

#[test]
fn writing_brings_up_to_date_and_says_what_it_did() {
    let dir = copy();
    let written = write(dir.path()).unwrap();
    // Beside the files of one list, the endpoint's description and the first form of each of the four schemas.
    assert_eq!(written.len(), files(&Catalog::builtin()).len() + 5);
    assert!(written.iter().all(|change| change.reason == Reason::Missing));
    check(dir.path()).unwrap();
    assert_eq!(write(dir.path()).unwrap(), []);
}

#[test]
fn drift_names_each_file_and_the_command() {
    let dir = copy();
    write(dir.path()).unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("docs/topics.md"), "mine").unwrap();
    fs::remove_file(path("bigdata/schemas/audit_activity.avsc")).unwrap();
    fs::write(path("bigdata/schemas/gone.avsc"), "{}").unwrap();
    fs::write(path("bigdata/schemas/README.md"), "not generated, not ours").unwrap();
    assert_eq!(
        check(dir.path()).unwrap_err().to_string(),
        "bigdata/schemas/audit_activity.avsc is missing\n\
         docs/topics.md differs from the contract\n\
         bigdata/schemas/gone.avsc has nothing in the contract behind it\n\
         run `aion schemas generate` and commit what it writes"
    );
    let done: Vec<String> = write(dir.path()).unwrap().iter().map(Changed::to_string).collect();
    assert_eq!(
        done,
        [
            "wrote bigdata/schemas/audit_activity.avsc",
            "wrote docs/topics.md",
            "removed bigdata/schemas/gone.avsc"
        ]
    );
    check(dir.path()).unwrap();
    assert!(
        path("bigdata/schemas/README.md").exists() && !path("bigdata/schemas/gone.avsc").exists()
    );
}

#[test]
fn a_change_of_the_contract_is_drift() {
    let dir = copy();
    write(dir.path()).unwrap();
    let schema = dir.path().join("schemas/events/tasks_lifecycle.schema.json");
    let text = fs::read_to_string(&schema).unwrap();
    fs::write(&schema, text.replace("The state that the task entered.", "The new state.")).unwrap();
    let GenerateError::Drift(changes) = check(dir.path()).unwrap_err() else { panic!() };
    let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    let next = "schemas/history/tasks_lifecycle/2.avsc";
    let expected = [
        "bigdata/schemas/tasks_lifecycle.avsc",
        "bigdata/clickhouse/tasks.sql",
        "bigdata/clickhouse/replicated.sql",
        "docs/topics.md",
        next,
    ];
    assert_eq!(paths, expected);
}

/// Edits the schema of tasks, whose history has the form that is committed.
fn edited(edit: impl Fn(&mut serde_json::Value)) -> (TempDir, Result<Vec<Changed>, GenerateError>) {
    let dir = copy();
    write(dir.path()).unwrap();
    let path = dir.path().join("schemas/events/tasks_lifecycle.schema.json");
    let mut schema: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    edit(&mut schema);
    fs::write(&path, serde_json::to_vec(&schema).unwrap()).unwrap();
    // The samples are events of the schema before: one of the new one, with what it requires.
    let value = |name: &str| if name == "timestamp" { "2026-01-01T00:00:00Z" } else { "x" };
    let names = schema["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    let event: serde_json::Map<_, _> =
        names.map(|name| (name.to_owned(), value(name).into())).collect();
    let samples = dir.path().join("schemas/samples/tasks_lifecycle.jsonl");
    fs::write(samples, serde_json::to_string(&event).unwrap()).unwrap();
    let done = write(dir.path());
    (dir, done)
}

fn optional(kind: &str) -> serde_json::Value {
    serde_json::json!({ "type": kind, "description": "A new one." })
}

#[test]
fn a_change_that_old_events_survive_is_added_to_the_history() {
    let (dir, done) = edited(|schema| {
        schema["properties"]["region"] = optional("string");
        schema["properties"].as_object_mut().unwrap().remove("retries").unwrap();
    });
    let done: Vec<String> = done.unwrap().iter().map(Changed::to_string).collect();
    assert!(done.contains(&"wrote schemas/history/tasks_lifecycle/2.avsc".to_owned()), "{done:?}");
    check(dir.path()).unwrap();
    assert_eq!(write(dir.path()).unwrap(), []);
}

#[test]
fn a_change_that_old_events_do_not_survive_is_refused_by_field() {
    let refused = |edit: fn(&mut serde_json::Value), wanted: &str| {
        let (dir, done) = edited(edit);
        let error = done.unwrap_err().to_string();
        assert!(error.contains("schemas/events/tasks_lifecycle.schema.json"), "{error}");
        assert!(error.contains(wanted) && error.contains("version 1"), "{error}");
        assert_eq!(check(dir.path()).unwrap_err().to_string(), error);
        assert!(!dir.path().join("schemas/history/tasks_lifecycle/2.avsc").exists());
    };
    refused(
        |schema| schema["required"].as_array_mut().unwrap().push("agent_id".into()),
        "field `agent_id`: null is written, string is read",
    );
    refused(
        |schema| {
            schema["properties"]["region"] = optional("string");
            schema["required"].as_array_mut().unwrap().push("region".into());
        },
        "field `region`: it has no default, and was not written",
    );
    refused(
        |schema| schema["properties"]["retries"] = optional("string"),
        "field `retries`: long is written, and the union doesn't take it",
    );
    // Avro's rules would let these pass.
    refused(
        |schema| schema["properties"]["agent_id"] = optional("object"),
        "field `agent_id` held a plain value, and would hold an object",
    );
    refused(
        |schema| {
            schema["properties"]["retries"] = optional("string");
            schema["properties"]["retries"]["format"] = "date-time".into();
        },
        "field `retries` held a plain value, and would hold a time",
    );
}

#[test]
fn what_was_taken_away_cannot_come_back_as_something_else() {
    let (dir, done) = edited(|schema| {
        schema["properties"].as_object_mut().unwrap().remove("retries").unwrap();
    });
    done.unwrap();
    // The last form doesn't have it; the first one does.
    let path = dir.path().join("schemas/events/tasks_lifecycle.schema.json");
    let mut schema: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    schema["properties"]["retries"] = optional("string");
    fs::write(&path, serde_json::to_vec(&schema).unwrap()).unwrap();
    let error = write(dir.path()).unwrap_err().to_string();
    assert!(error.contains("can't read version 1: field `retries`"), "{error}");
}

#[test]
fn a_form_put_into_the_history_by_hand_is_held_against_the_others() {
    let (dir, done) = edited(|schema| {
        schema["required"].as_array_mut().unwrap().push("agent_id".into());
    });
    let refused = done.unwrap_err().to_string();
    let catalog = Catalog::load(&dir.path().join("schemas")).unwrap();
    let mirrors = files(&catalog);
    let is_of_tasks = |file: &&GeneratedFile| file.path == "bigdata/schemas/tasks_lifecycle.avsc";
    let mirror = &mirrors.iter().find(is_of_tasks).unwrap().text;
    fs::write(dir.path().join("schemas/history/tasks_lifecycle/2.avsc"), mirror).unwrap();
    assert_eq!(check(dir.path()).unwrap_err().to_string(), refused);
    assert_eq!(write(dir.path()).unwrap_err().to_string(), refused);
}

#[test]
fn a_damaged_history_is_named() {
    let dir = copy();
    write(dir.path()).unwrap();
    fs::write(dir.path().join("schemas/history/router_decision/1.avsc"), "{}").unwrap();
    let error = check(dir.path()).unwrap_err().to_string();
    assert!(error.contains("router_decision/1.avsc isn't an Avro schema"), "{error}");
}

#[test]
fn a_refused_contract_generates_nothing() {
    let dir = copy();
    fs::write(dir.path().join("schemas/catalog.toml"), "nonsense").unwrap();
    assert!(matches!(write(dir.path()), Err(GenerateError::Catalog(_))));
    assert!(!dir.path().join("docs").exists());
}

#[test]
fn every_topic_and_column_is_on_the_page() {
    let catalog = Catalog::builtin();
    let files = files(&catalog);
    let page = &files.iter().find(|file| file.path == "docs/topics.md").unwrap().text;
    for topic in &catalog.topics {
        let start = page.find(&format!("## `{}`", topic.name)).unwrap();
        let section = &page[start..];
        for field in &topic.schema.fields {
            assert!(section.contains(&format!("| `{}` |", field.name)), "{}", field.name);
        }
    }
    assert!(page.contains("| `latency_budget_ms` | integer | ms |  | Time that the caller grants"));
    assert!(page.contains("| `tier` | text |  | yes | Privacy tier of the task;"));
    // Every line of a table has as many cells as its head, or renderers drop the rest.
    for table in page.split("\n\n").filter(|block| block.starts_with('|')) {
        let cells = |line: &str| line.replace("\\|", "").matches('|').count();
        let head = cells(table.lines().next().unwrap());
        assert!(table.lines().all(|line| cells(line) == head), "{table}");
    }
}
