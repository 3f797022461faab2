use super::*;

fn with(property: &str, value: &str) -> Connection {
    let properties = BTreeMap::from([(property.to_owned(), value.to_owned())]);
    Connection { brokers: "localhost:9092".into(), properties }
}

#[test]
fn properties_that_guarantees_rest_on_are_refused_by_name() {
    for (property, why) in REFUSED {
        let refused = with(property, "true").check().unwrap_err();
        assert_eq!(refused, Error::Refused { property: (*property).to_owned(), why });
        assert!(refused.to_string().contains(property) && refused.to_string().contains(why));
    }
}

#[test]
fn other_properties_pass_and_override_defaults_but_not_guarantees() {
    let all = with("check.crcs", "false").consumer("g", &Limits::default()).unwrap().0;
    assert_eq!(all["check.crcs"], "false");
    assert_eq!(all["auto.offset.reset"], "error");
    assert_eq!(all["isolation.level"], "read_committed");
    assert_eq!(all["enable.auto.commit"], "false");
}

#[test]
fn debug_hides_secrets() {
    let shown = format!("{:?}", with("sasl.password", "hunter2"));
    assert!(shown.contains("sasl.password") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn limits_that_cannot_work_are_refused() {
    let limits = Limits { partition_fetch_bytes: 2, ..Limits::default() };
    assert!(limits.check().is_err());
    let limits = Limits { fetch_bytes: 1024, partition_fetch_bytes: 2048, queued_bytes: 4096 };
    assert!(limits.check().is_err());
}
