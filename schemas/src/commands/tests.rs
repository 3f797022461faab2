#![expect(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::json;

use super::*;

fn fields(action: &str, parameters: &Value) -> Vec<String> {
    let checked = Commands::builtin().check(action, parameters).unwrap();
    let violations = checked.err().unwrap_or_default();
    violations.into_iter().map(|one| format!("{}: {}", one.field, one.rule)).collect()
}

#[test]
fn the_five_commands_are_there_and_no_other() {
    let commands = Commands::builtin();
    let actions: Vec<_> = commands.actions().collect();
    assert_eq!(
        actions,
        [
            "approve_kernel_proposal",
            "ingest_dataset",
            "install_module",
            "reject_kernel_proposal",
            "update_memory_profile"
        ]
    );
    assert!(commands.check("drop_everything", &json!({})).is_none());
    // A Cyrillic `о`: another name, however it looks.
    assert!(!commands.contains("appr\u{43e}ve_kernel_proposal"));
    assert_eq!(commands.nearest("install_modul"), Some("install_module"));
}

#[test]
fn parameters_that_are_wrong_are_named() {
    let approve = "approve_kernel_proposal";
    assert!(fields(approve, &json!({"proposal_id": "p1"})).is_empty());
    assert_eq!(fields(approve, &json!({})), ["parameters.proposal_id: required"]);
    assert_eq!(fields(approve, &json!({"proposal_id": 7})), ["parameters.proposal_id: type"]);
    assert_eq!(
        fields(approve, &json!({"proposal_id": "p1", "commnet": "x"})),
        ["parameters.commnet: additionalProperties"]
    );
    assert_eq!(fields(approve, &json!([])), ["parameters: type"]);
    let module = json!({"module": "../../etc", "version": "1"});
    assert_eq!(fields("install_module", &module), ["parameters.module: pattern"]);
    assert_eq!(fields("update_memory_profile", &json!({"profile_id": "p"})).len(), 1);
}

#[test]
fn a_folder_may_have_commands_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(Commands::load(dir.path()).unwrap().actions().count(), 5, "those compiled in");
    let folder = dir.path().join("commands");
    fs::create_dir(&folder).unwrap();
    let text = r#"{"type": "object", "additionalProperties": false, "properties": {"n": {"type": "integer"}}}"#;
    fs::write(folder.join("count.schema.json"), text).unwrap();
    let commands = Commands::load(dir.path()).unwrap();
    assert!(commands.contains("count") && !commands.contains("install_module"));
    fs::write(folder.join("open.schema.json"), r#"{"type": "object"}"#).unwrap();
    let refused = Commands::load(dir.path()).unwrap_err().to_string();
    assert!(refused.contains("open.schema.json") && refused.contains("additionalProperties"));
}

#[test]
fn the_document_has_every_action_and_resolves_its_references() {
    let document = Commands::builtin().openapi();
    let text = document.to_string();
    for (reference, _) in text.match_indices("\"#/components/schemas/") {
        let name = text[reference + 22..].split('"').next().unwrap();
        assert!(document["components"]["schemas"].get(name).is_some(), "{name}");
    }
    assert_eq!(document["components"]["schemas"]["Command"]["oneOf"].as_array().unwrap().len(), 5);
}
