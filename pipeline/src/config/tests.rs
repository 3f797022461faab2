#![expect(clippy::unwrap_used, reason = "a test may panic")]

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
fn series_are_switched_on_by_their_table_and_made_of_topics_that_have_some() {
    let of = |text: &str| parse(&format!("{MINIMAL}\n{text}"));
    let config = of("[metrics]").unwrap();
    let series = config.jobs.iter().filter(|job| job.sinks == [SinkKind::Prometheus]);
    let names: Vec<&str> = series.map(|job| &*job.name).collect();
    assert_eq!(names, ["decisions-prometheus", "tasks-prometheus", "metrics-prometheus"]);
    let job = |topic: &str| format!("[[job]]\ntopic = \"{topic}\"\nsinks = [\"prometheus\"]");
    let error = of(&job("aion.metrics.runtime")).unwrap_err();
    assert!(error.contains("add a [metrics]"), "{error}");
    let error = of(&format!("[metrics]\n{}", job("aion.audit.activity"))).unwrap_err();
    assert!(error.contains("no series are made of aion.audit.activity"), "{error}");
    for (text, what) in [
        ("buckets.wait = [1, 1]", "rising"),
        ("buckets.wait = []", "rising"),
        ("stale_s = 0", "above 0"),
        ("preset = [{ component = \"c\", metric = \"m\", kind = \"gauge\" }]", "gauge"),
        ("flush_age = 3", "flush_age_s"),
    ] {
        let error = of(&format!("[metrics]\n{text}")).unwrap_err();
        assert!(error.contains(what), "{text}: {error}");
    }
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

#[test]
fn keys_are_references_and_long() {
    let keys =
        |text: &str| parse(&format!("{MINIMAL}\n[http]\nkeys = {text}")).map(|c| c.access.keys);
    assert!(keys("[]").unwrap().is_empty());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, "0123456789abcdef\n").unwrap();
    let text = format!("[\"file:{}\"]", path.display());
    assert_eq!(keys(&text).unwrap().len(), 1);
    std::fs::write(&path, "short").unwrap();
    let error = keys(&text).unwrap_err();
    assert!(error.contains("http.keys[0]") && error.contains("16"), "{error}");
    let error = keys("[\"0123456789abcdef\"]").unwrap_err();
    assert!(error.contains("env:NAME") && !error.contains("0123456789abcdef"), "{error}");
}

const HOUSE: &str = r#"
    [clickhouse]
    url = "http://localhost:8123"
"#;

#[test]
fn with_clickhouse_every_topic_lands_in_both_places_by_jobs_of_their_own() {
    let config = parse(&format!("{MINIMAL}{HOUSE}")).unwrap();
    assert_eq!(config.jobs.len(), 2 * config.catalog.topics.len());
    assert!(config.jobs.iter().all(|job| job.sinks.len() == 1));
    let named = |name: &str| config.jobs.iter().any(|job| job.name == name);
    assert!(named("decisions-lake") && named("decisions-clickhouse"));
    let house = config.clickhouse.unwrap();
    assert_eq!((house.server.database.as_str(), house.flush_age.as_secs()), ("aion", 5));
}

#[test]
fn a_partition_goes_with_no_more_than_one_insert_has() {
    let flush_bytes = |mib: usize| {
        let config = parse(&format!("{MINIMAL}{HOUSE}flush_mib = {mib}"))?;
        Ok::<_, String>(config.clickhouse.unwrap().flush_bytes)
    };
    assert_eq!(flush_bytes(200), Ok(200 << 20));
    let error = flush_bytes(201).unwrap_err();
    let wanted = "clickhouse.flush_mib: 201 MiB are more than one INSERT has, which is 200 MiB";
    assert!(error.contains(wanted), "{error}");
    assert!(flush_bytes(0).unwrap_err().contains("clickhouse.flush_mib: a whole number above 0"));
}

#[test]
fn less_than_exactly_once_is_asked_for_by_name() {
    use aion_sinks::clickhouse::guarantee::Guarantee;
    let asked = |text: &str| {
        let config = parse(&format!("{MINIMAL}{HOUSE}{text}"))?;
        Ok::<_, String>(config.clickhouse.unwrap().server.guarantee)
    };
    assert_eq!(asked(""), Ok(Guarantee::ExactlyOnce));
    assert_eq!(asked("guarantee = \"at_least_once\""), Ok(Guarantee::AtLeastOnce));
    let error = asked("guarantee = \"at_most_once\"").unwrap_err();
    assert!(error.contains("at_least_once"), "{error}");
}

#[test]
fn a_job_may_ask_something_else_of_its_table() {
    use aion_sinks::clickhouse::guarantee::Guarantee::{self, AtLeastOnce, ExactlyOnce};
    let job = |topic: &str, sink: &str, more: &str| {
        format!("[[job]]\n topic = \"{topic}\"\n sinks = [\"{sink}\"]\n {more}\n")
    };
    let of = |asked: &str| {
        let text = job("aion.audit.activity", "clickhouse", asked)
            + &job("aion.tasks.lifecycle", "clickhouse", "")
            + &job("aion.router.decisions", "lake", "");
        let config = parse(&format!("{MINIMAL}{HOUSE}{text}")).unwrap();
        let each = |job: &JobConfig| job.guarantee_in(job.sinks[0]);
        let asked: Vec<Guarantee> = config.jobs.iter().map(each).collect();
        (asked, config.clickhouse.unwrap().server.guarantee)
    };
    assert_eq!(of(""), (vec![ExactlyOnce; 3], ExactlyOnce));
    let less = "guarantee = \"at_least_once\"";
    let mixed = vec![AtLeastOnce, ExactlyOnce, ExactlyOnce];
    assert_eq!(of(less), (mixed, AtLeastOnce), "who reads both reckons with the least");
    let more = job("aion.audit.activity", "clickhouse", "guarantee = \"exactly_once\"");
    let config = parse(&format!("{MINIMAL}{HOUSE}{less}\n{more}")).unwrap();
    assert_eq!(config.jobs[0].guarantee_in(SinkKind::ClickHouse), ExactlyOnce);
    let in_lake = job("aion.router.decisions", "lake", less);
    let error = parse(&format!("{MINIMAL}{HOUSE}{in_lake}")).unwrap_err();
    assert!(error.contains("it writes to none"), "{error}");
    let two = "[clickhouse]\nurl = [\"http://a:8123\", \"http://b:8123\"]\n";
    let error = parse(&format!("{MINIMAL}{two}{less}\n{more}")).unwrap_err();
    assert!(error.contains("can't give exactly once"), "{error}");
}

#[test]
fn several_servers_are_replicas_and_ask_for_at_least_once() {
    let house = |url: &str, more: &str| {
        let text = format!("{MINIMAL}[clickhouse]\nurl = {url}\n{more}");
        let urls = parse(&text)?.clickhouse.unwrap().server.urls;
        Ok::<_, String>(urls.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let (one, two) = ("\"http://a:8123\"", "[\"http://a:8123\", \"https://b:8443\"]");
    let less = "guarantee = \"at_least_once\"";
    assert_eq!(house(one, "").unwrap(), ["http://a:8123/"]);
    assert_eq!(house(&format!("[{one}]"), "").unwrap(), ["http://a:8123/"]);
    assert_eq!(house(two, less).unwrap(), ["http://a:8123/", "https://b:8443/"], "in their order");
    for (url, more, says) in [
        (two, "", "can't give exactly once: name one, or write guarantee"),
        ("[]", less, "the list has none"),
        ("[\"http://a:8123\", \"http://a:8123/\"]", less, "http://a:8123/ is named twice"),
        ("[\"http://a:8123\", \"tcp://b\"]", less, "clickhouse.url: \"tcp://b\""),
        ("3", "", "an address is wanted, or a list of addresses"),
    ] {
        let error = house(url, more).unwrap_err();
        assert!(error.contains(says), "{url}: {error}");
    }
}

#[test]
fn rows_are_kept_as_said_else_as_long_as_messages() {
    let text = format!("{MINIMAL}{HOUSE} environment = \"dev\"\n keep_days.decisions = 90");
    let config = parse(&text).unwrap();
    let house = config.clickhouse.unwrap();
    let days = |table| house.table(config.catalog.table(table).unwrap()).keep_days;
    assert_eq!([days("decisions"), days("audit"), days("gaps")], [Some(90), Some(7), None]);
}

#[test]
fn what_is_wrong_about_clickhouse_is_said() {
    let job = "[[job]]\n topic = \"aion.audit.activity\"\n sinks = [\"clickhouse\"]";
    for (text, says) in [
        (job.to_owned(), "add a [clickhouse] with its url"),
        (
            HOUSE.replace("http://", "tcp://"),
            "clickhouse.url: \"tcp://localhost:8123\": http://HOST",
        ),
        (HOUSE.replace("//localhost", "//a:b@localhost"), "write user and password"),
        (format!("{HOUSE} password = \"hunter2\""), "clickhouse.password: a secret doesn't belong"),
        (format!("{HOUSE} database = \"a-b\""), "clickhouse.database: letters"),
        (format!("{HOUSE} flush_age_s = 0"), "clickhouse.flush_age_s: a second is the least"),
        (format!("{HOUSE} keep_days.nothing = 3"), "there is no table nothing"),
        (format!("{HOUSE} flush_ags_s = 3"), "flush_age_s"),
    ] {
        let error = parse(&format!("{MINIMAL}{text}")).unwrap_err();
        assert!(error.contains(says), "{text}: {error}");
    }
}
