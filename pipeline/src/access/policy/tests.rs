#![expect(clippy::unwrap_used, reason = "a test may panic")]

use super::*;
use crate::access::key::NewKey;

fn parse(text: &str) -> Result<Policy, Vec<Problem>> {
    Policy::parse(text, &Commands::builtin())
}

fn policy(key: &NewKey, more: &str) -> Policy {
    let text = format!(
        "roles:\n  reviewer: [approve_kernel_proposal, api.sql]\n  all: ['*']\n\
         principals:\n  - id: console\n    roles: [reviewer]\n    tenants: [acme]\n    rate: 5\n    keys:\n      \
         - {{prefix: {}, sha256: {}{more}}}\n",
        key.prefix,
        key.digest.hex()
    );
    parse(&text).unwrap()
}

#[test]
fn the_holder_of_a_key_may_what_its_roles_say() {
    let key = NewKey::make();
    let policy = policy(&key, "");
    let digest = Digest::of(key.text.as_bytes());
    let holder = policy.holder_of_key(&key.text, &digest, 0).unwrap();
    assert_eq!((&*holder.id, holder.rate), ("console", Some(5.0)));
    assert!(holder.may("approve_kernel_proposal") && holder.may(SQL));
    assert!(!holder.may("install_module") && !holder.may(PUBLISH) && !holder.may(READ_COMMANDS));
    assert!(holder.may_act_for(Some("acme")));
    assert!(!holder.may_act_for(Some("other")) && !holder.may_act_for(None));
}

#[test]
fn a_key_that_isnt_quite_one_is_nobodys() {
    let (key, other) = (NewKey::make(), NewKey::make());
    let policy = policy(&key, "");
    let holder = |text: &str| policy.holder_of_key(text, &Digest::of(text.as_bytes()), 0);
    assert!(holder(&key.text).is_some());
    let prefix_only = &*key.prefix;
    let longer = format!("{}x", key.text);
    let foreign_rest = format!("{}{}", key.prefix, &other.text[17..]);
    for text in ["", prefix_only, &longer, &foreign_rest, &other.text, &key.digest.hex()] {
        assert!(holder(text).is_none(), "{text}");
    }
}

#[test]
fn a_key_past_its_time_is_nobodys() {
    let key = NewKey::make();
    let policy = policy(&key, ", expires: 2026-11-28T00:00:00Z");
    let at = |now| policy.holder_of_key(&key.text, &key.digest, now).is_some();
    let expires = 1_795_824_000;
    assert!(at(expires - 1) && !at(expires));
}

#[test]
fn groups_stand_for_what_is_in_them() {
    let may = |name: &str, what: &str| Allowed::of([name]).may(what);
    for what in ["api.sql", "install_module", READ_COMMANDS] {
        assert!(may("*", what), "{what}");
    }
    assert!(may("api.*", SQL) && !may("api.*", "install_module") && !may("api.*", READ_COMMANDS));
    assert!(may("commands.*", "install_module") && !may("commands.*", SQL));
    assert!(!may("api.sql", "api.sq"));
    assert!(!Principal::of_api("x").may("install_module"));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let secret = "a-secret-of-enough-characters";
    for (text, line, wanted) in [
        ("rolls: {}", 1, "rolls"),
        ("roles:\n  a: [aprove_kernel_proposal]", 2, "is it approve_kernel_proposal?"),
        ("roles:\n  a: [api.sqll]", 2, "is it api.sql?"),
        ("roles:\n  a: ['*']\nprincipals:\n  - id: x\n    roles: [aa]", 5, "is it a?"),
        ("principals:\n  - id: x:y", 2, "small letters"),
        ("principals:\n  - id: x\n  - id: x", 3, "another principal"),
        (
            "principals:\n  - id: x\n    keys: [{prefix: aion_short, sha256: aa}]",
            3,
            "64 hexadecimal",
        ),
        ("signing: ['short']", 1, "16 characters"),
        ("signing: ['env:AION_NOT_SET_ANYWHERE']", 1, "AION_NOT_SET_ANYWHERE"),
        ("rate: 0", 1, "more than 0"),
    ] {
        let problems = parse(text).unwrap_err();
        let fits = problems.iter().any(|one| one.line == line && one.reason.contains(wanted));
        assert!(fits, "{text}: {problems:?}");
    }
    let policy = parse(&format!("signing: ['{secret}']")).unwrap();
    assert_eq!((policy.signing.len(), policy.warnings.len()), (1, 1), "taken, and frowned upon");
    assert!(!format!("{policy:?}").contains(secret));
}

#[test]
fn an_issuer_has_a_secret_or_public_keys_and_algorithms_to_match() {
    let issuer = |more: &str| {
        parse(&format!("issuers:\n  - {{id: login, issuer: 'https://i', audience: aion, {more}}}"))
    };
    let secret = "0123456789abcdef0123456789abcdef";
    assert!(issuer(&format!("algorithms: [HS256], secret: {secret}")).is_ok());
    assert!(issuer("algorithms: [RS256, EdDSA], jwks: 'file:/x'").is_ok());
    assert!(issuer("algorithms: [RS256], jwks: 'http://127.0.0.1:1/x'").is_ok());
    for (more, wanted) in [
        (format!("algorithms: [HS256, RS256], secret: {secret}"), "go with"),
        (format!("algorithms: [RS256], secret: {secret}"), "go with"),
        (format!("algorithms: [RS256], jwks: 'file:/x', secret: {secret}"), "go with"),
        ("algorithms: [HS256], jwks: 'file:/x'".to_owned(), "go with"),
        ("algorithms: [], jwks: 'file:/x'".to_owned(), "go with"),
        ("algorithms: [none], jwks: 'file:/x'".to_owned(), "none"),
        ("algorithms: [HS256], secret: short".to_owned(), "32 bytes"),
        ("algorithms: [RS256], jwks: 'http://example.com/x'".to_owned(), "https://"),
        ("algorithms: [RS256], jwks: 'https://me:secret@i.example/x'".to_owned(), "in logs"),
    ] {
        let problems = issuer(&more).unwrap_err();
        assert!(problems.iter().any(|one| one.reason.contains(wanted)), "{more}: {problems:?}");
    }
}

#[test]
fn issuers_are_told_apart_by_their_ids() {
    let issuer = |id: &str, issuer: &str| {
        format!(
            "  - {{id: {id}, issuer: '{issuer}', audience: a, algorithms: [RS256], jwks: 'file:/x'}}\n"
        )
    };
    let both = |first: &str, second: &str| {
        parse(&format!("issuers:\n{}{}", issuer(first, "https://a"), issuer(second, "https://b")))
    };
    assert!(both("one", "two").is_ok());
    for (second, wanted) in [("one", "there twice"), ("service", "own audit events")] {
        let problems = both("one", second).unwrap_err();
        assert!(problems.iter().any(|one| one.reason.contains(wanted)), "{problems:?}");
    }
}
