#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use aion_schemas::catalog::Catalog;

use super::{Policy, Problem};

const GOOD: &str = "\
webhooks:
  - url: https://example.com/hooks
    secret: 0123456789abcdef0123456789abcdef
    topics: [\"kernel.proposal.*\", \"aion.*\"]
    retry:
      initial_interval: 1s
      max_interval: 5m
      max_attempts: 12
";

fn parse(text: &str) -> Result<Policy, Vec<Problem>> {
    Policy::parse(text, &Catalog::builtin())
}

/// The problems of the good policy with one text in place of another.
fn with(from: &str, to: &str) -> Vec<(u64, String)> {
    assert!(GOOD.contains(from), "{from}");
    let problems = parse(&GOOD.replace(from, to)).map(|_| ()).unwrap_err();
    problems.into_iter().map(|problem| (problem.line, problem.reason)).collect()
}

#[test]
fn the_four_keys_are_enough() {
    let policy = parse(GOOD).unwrap();
    let endpoint = &policy.endpoints[0];
    assert!(endpoint.id.starts_with("ep-") && endpoint.id.len() == 15, "{}", endpoint.id);
    assert_eq!((endpoint.timeout, endpoint.max_in_flight), (Duration::from_secs(15), 32));
    assert_eq!(endpoint.max_age, endpoint.retry.span());
    assert!(!endpoint.ordered && endpoint.allow_private.is_empty() && endpoint.rate.is_none());
    assert_eq!(policy.warnings[0].line, 3, "a secret in the file is frowned upon");
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    for (from, to, line, word) in [
        ("https://example.com/hooks", "http://example.com/hooks", 2, "allow_http"),
        ("https://example.com/hooks", "https://u:p@example.com", 2, "account"),
        ("https://example.com/hooks", "ftp://example.com", 2, "https"),
        ("https://example.com/hooks", "https://example.com:22/", 2, "port 22"),
        ("https://example.com/hooks", "nowhere", 2, "url"),
        ("https://example.com/hooks", "https://[example.com]/", 2, "url"),
        ("https://example.com/hooks", "https://[::1/", 2, "url"),
        ("https://example.com/hooks", "https://exa mple.com/", 2, "url"),
        ("0123456789abcdef0123456789abcdef", "short", 3, "16 characters"),
        (
            "0123456789abcdef0123456789abcdef",
            "env:AION_NO_SUCH_VARIABLE",
            3,
            "AION_NO_SUCH_VARIABLE",
        ),
        ("\"aion.*\"", "\"aion.dead-letters\"", 4, "internal"),
        ("\"aion.*\"", "\"aion.webhooks.attempts\"", 4, "internal"),
        ("\"aion.*\"", "\"a b\"", 4, "topic pattern"),
        ("[\"kernel.proposal.*\", \"aion.*\"]", "[]", 4, "at least one"),
        ("1s", "soon", 6, "initial_interval"),
        ("1s", "10m", 7, "max_interval"),
        ("12", "0", 8, "max_attempts"),
        ("    retry:", "    retries: 3\n    retry:", 5, "retries"),
        ("      max_attempts: 12", "      attempts: 12", 8, "attempts"),
    ] {
        let problems = with(from, to);
        let found = problems.iter().any(|(at, reason)| *at == line && reason.contains(word));
        assert!(found, "{from} -> {to}: {problems:?}");
    }
}

#[test]
fn all_problems_are_told_at_once_and_no_secret_among_them() {
    let text = GOOD
        .replace("0123456789abcdef0123456789abcdef", "hunter2")
        .replace("1s", "x")
        .replace("12", "0");
    let problems = parse(&text).unwrap_err();
    assert_eq!(problems.iter().map(|one| one.line).collect::<Vec<_>>(), [3, 6]);
    assert!(problems.iter().all(|one| !one.reason.contains("hunter2")), "{problems:?}");
    let shown = format!("{:?}", parse(GOOD).unwrap());
    assert!(!shown.contains("0123456789abcdef"), "{shown}");
}

#[test]
fn two_entries_have_two_ids() {
    let twice = format!("{GOOD}{}", GOOD.trim_start_matches("webhooks:\n"));
    let problems = parse(&twice).unwrap_err();
    assert_eq!(problems[0].line, 9);
    assert!(problems[0].reason.contains("line 2"), "{problems:?}");
    let named = |id: &str| format!("  - id: {id}\n    url:");
    let other = GOOD.trim_start_matches("webhooks:\n").replace("  - url:", &named("other"));
    assert_eq!(parse(&format!("{GOOD}{other}")).unwrap().endpoints.len(), 2);
}

#[test]
fn an_id_of_its_own_making_follows_url_and_patterns_only() {
    let id = |text: &str| parse(text).unwrap().endpoints[0].id.clone();
    let reordered =
        GOOD.replace("\"kernel.proposal.*\", \"aion.*\"", "\"aion.*\", \"kernel.proposal.*\"");
    assert_eq!(id(GOOD), id(&reordered));
    assert_eq!(id(GOOD), id(&GOOD.replace("12", "3")));
    assert_ne!(id(GOOD), id(&GOOD.replace("/hooks", "/others")));
    assert_ne!(id(GOOD), id(&GOOD.replace("aion.*", "aion.router.*")));
}

#[test]
fn the_extras_are_read() {
    let extras = r"    id: mine
    secrets: [0123456789abcdef, whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw]
    timeout: 5s
    rate: 12.5
    max_in_flight: 4
    ordering: key
    headers: {x-tenant: blue}
    allow_private: [127.0.0.1, 10.0.0.0/8]
    allow_http: true
    max_age: 2h
";
    let text = GOOD.replace("    secret: 0123456789abcdef0123456789abcdef\n", extras);
    let policy = parse(&text.replace("https:", "http:")).unwrap();
    let endpoint = &policy.endpoints[0];
    assert_eq!((&*endpoint.id, endpoint.secrets.len(), endpoint.rate), ("mine", 2, Some(12.5)));
    assert!(endpoint.ordered && endpoint.max_in_flight == 4);
    assert_eq!(
        (endpoint.timeout, endpoint.max_age),
        (Duration::from_secs(5), Duration::from_hours(2))
    );
    assert_eq!(endpoint.headers[0].1, "blue");
    for (from, to) in [
        ("x-tenant", "webhook-id"),
        ("x-tenant", "Host"),
        ("rate: 12.5", "rate: 0"),
        ("max_in_flight: 4", "max_in_flight: 0"),
        ("ordering: key", "ordering: topic"),
        ("timeout: 5s", "timeout: 1ms"),
        ("127.0.0.1", "localhost"),
        ("id: mine", "id: Not Mine"),
    ] {
        assert!(parse(&text.replace(from, to)).is_err(), "{to}");
    }
}

#[test]
fn aliases_dont_grow_without_bound() {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (before, name) in
        ["a", "b", "c", "d", "e", "f", "g", "h", "i"].windows(2).map(|w| (w[0], w[1]))
    {
        let many = vec![format!("*{before}"); 9].join(", ");
        text += &[name, ": &", name, " [", &many, "]\n"].concat();
    }
    text.push_str("webhooks: *i\n");
    let start = std::time::Instant::now();
    assert!(parse(&text).is_err());
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_sample_is_a_good_policy() {
    let text = include_str!("../../../../policies/webhooks.yaml");
    let policy = parse(text).map_err(|problems| format!("{problems:?}"));
    assert_eq!(policy.unwrap().endpoints.len(), 2);
}
