#![allow(clippy::unwrap_used, reason = "tests")]

use super::*;

const MINIMAL: &str = r#"
    kafka.brokers = "localhost:9092"
    lake.url = "/tmp/lake"
"#;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, std::iter::empty())
}

#[test]
fn a_minimal_file_lands_every_topic_in_the_lake() {
    let config = parse(MINIMAL).unwrap();
    assert_eq!(config.jobs.len(), config.catalog.topics.len());
    assert_eq!(config.lake.url.as_str(), "file:///tmp/lake/");
    assert_eq!(config.memory_bytes, 512 << 20);
}

#[test]
fn an_unknown_key_is_refused_by_name() {
    let error = parse(&format!("{MINIMAL}\nlake.flush_mb = 3")).unwrap_err();
    assert!(error.contains("flush_mb") && error.contains("flush_mib"), "{error}");
}

#[test]
fn the_environment_overrides_the_file() {
    let variables =
        [("AION__LAKE__FLUSH_AGE_S", "5"), ("AION__KAFKA__BROKERS", "b:1"), ("HOME", "/")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let config = Config::parse(MINIMAL, variables.into_iter()).unwrap();
    assert_eq!(config.lake.flush_age, Duration::from_secs(5));
    assert_eq!(config.kafka.brokers, "b:1");
}

#[test]
fn an_unknown_override_is_refused_like_an_unknown_key() {
    let variables = [("AION__LAKE__FLUSH".to_owned(), "5".to_owned())];
    let error = Config::parse(MINIMAL, variables.into_iter()).unwrap_err();
    assert!(error.contains("flush"), "{error}");
}

#[test]
fn properties_that_would_break_the_guarantees_are_refused() {
    let error =
        parse(&format!("{MINIMAL}\nkafka.properties.\"enable.auto.commit\" = true")).unwrap_err();
    assert!(error.contains("enable.auto.commit"), "{error}");
}

#[test]
fn a_secret_that_is_missing_is_named_and_never_shown() {
    let text = format!("{MINIMAL}\nkafka.properties.\"sasl.password\" = \"env:AION_TEST_UNSET\"");
    let error = parse(&text).unwrap_err();
    assert!(error.contains("sasl.password") && error.contains("AION_TEST_UNSET"), "{error}");
}

#[test]
fn a_mistyped_topic_gets_the_nearest_name() {
    let text = format!("{MINIMAL}\n[[job]]\ntopic = \"aion.router.decision\"\nsinks = [\"lake\"]");
    let error = parse(&text).unwrap_err();
    assert!(error.contains("did you mean \"aion.router.decisions\""), "{error}");
}

#[test]
fn two_writers_of_one_table_are_refused() {
    let job = "[[job]]\ntopic = \"aion.router.decisions\"\nsinks = [\"lake\"]\n";
    let error = parse(&format!("{MINIMAL}\n{job}name = \"a\"\n{job}name = \"b\"")).unwrap_err();
    assert!(error.contains("one job writes a table"), "{error}");
}

#[test]
fn a_lake_may_be_a_folder_or_an_object_store() {
    let lake = |url: &str| parse(&format!("kafka.brokers = \"b:1\"\nlake.url = \"{url}\""));
    assert_eq!(lake("s3://bucket/lake").unwrap().lake.url.as_str(), "s3://bucket/lake");
    assert_eq!(lake("./lake").unwrap().lake.url.scheme(), "file");
    let error = lake("ftp://host/lake").unwrap_err();
    assert!(error.contains("s3://") && error.contains("ftp://"), "{error}");
}

#[test]
fn days_to_keep_are_of_tables_that_there_are() {
    let keep = |text: &str| {
        parse(&format!("{MINIMAL}\n[lake.keep_days]\n{text}")).map(|c| c.lake.upkeep.keep_days)
    };
    assert_eq!(keep("metrics = 30").unwrap()["metrics"], 30);
    assert!(keep("metric = 30").unwrap_err().contains("no table metric"));
    assert!(keep("metrics = 0").unwrap_err().contains("a day is the least"));
}

#[test]
fn audits_are_off_unless_they_leave_nothing_out() {
    assert_eq!(parse(MINIMAL).unwrap().audit, None);
    let audit = |text: &str| parse(&format!("{MINIMAL}\n[audit]\n{text}")).map(|c| c.audit);
    let (every, since) = (Duration::from_hours(1), Some(Duration::from_hours(2)));
    assert_eq!(audit("every_s = 3600").unwrap(), Some(AuditConfig { every, since: None }));
    let both = audit("every_s = 3600\nsince_s = 7200").unwrap();
    assert_eq!(both, Some(AuditConfig { every, since }));
    for bad in ["every_s = 0", "since_s = 5", "every_s = 3600\nsince_s = 1800", "every_h = 1"] {
        assert!(audit(bad).is_err(), "{bad}");
    }
}

#[test]
fn a_registry_is_told_apart_by_what_contradicts_itself() {
    let registry = |text: &str| parse(&format!("{MINIMAL}\n[registry]\n{text}"));
    assert!(parse(MINIMAL).unwrap().registry.is_none());
    let plain = registry("urls = [\"http://a:8081\", \"http://b:8081/\"]").unwrap();
    let plain = plain.registry.unwrap();
    assert_eq!(plain.settings.urls.len(), 2);
    assert_eq!(plain.grace, Duration::from_mins(5));
    let at = "urls = [\"http://a:8081\"]\n";
    for (text, wanted) in [
        ("urls = []", "no URL is given"),
        ("urls = [\"a:8081\"]", "http://HOST:PORT"),
        ("urls = [\"http://u:hunter2@a:8081\"]", "give the account apart"),
        (&format!("{at}username = \"u\""), "username and password go together"),
        (&format!("{at}username = \"u\"\npassword = \"hunter2\""), "env:NAME"),
        (&format!("{at}username = \"u\"\npassword = \"env:AION_UNSET\""), "AION_UNSET"),
        (&format!("{at}key = \"k.pem\""), "certificate and key go together"),
        (&format!("{at}ca = \"ca.pem\""), "write https://"),
        (&format!("{at}grace_m = 3"), "grace_m"),
    ] {
        let error = registry(text).unwrap_err();
        assert!(error.contains(wanted) && !error.contains("hunter2"), "{text}: {error}");
    }
}
