//! Tokens that are good, and every way in which one can be bad.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::{Value, json};

use super::*;
use crate::access::jwt::Token;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const NOW: i64 = 1_800_000_000;

fn policy(more: &str) -> Policy {
    let text = format!(
        "roles:\n  reviewer: [approve_kernel_proposal]\n  reader: [api.sql]\n\
         issuers:\n  - id: login\n    issuer: https://login\n    audience: aion\n    roles: {{kernel-reviewers: [reviewer]}}\n    \
         everyone: [reader]\n    tenants_claim: tenants\n    {more}\n"
    );
    Policy::parse(&text, &Commands::builtin()).unwrap_or_else(|wrong| panic!("{wrong:?}"))
}

fn shared() -> Policy {
    policy(&format!("algorithms: [HS256]\n    secret: {SECRET}"))
}

fn claims() -> Value {
    json!({"iss": "https://login", "aud": "aion", "sub": "ann", "exp": NOW + 60, "nbf": NOW - 60,
           "roles": ["kernel-reviewers", "others"], "tenants": ["acme"]})
}

fn encoded(header: &str, claims: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
}

fn signed_with(secret: &[u8], header: &str, claims: &str) -> String {
    let signed = encoded(header, claims);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn token(header: &Value, claims: &Value) -> String {
    signed_with(SECRET.as_bytes(), &header.to_string(), &claims.to_string())
}

fn hs256() -> Value {
    json!({"alg": "HS256", "typ": "JWT"})
}

async fn bearer_of(policy: &Policy, token: &str) -> Option<Arc<Principal>> {
    policy.bearer_of_token(token, NOW).await
}

#[tokio::test]
async fn a_good_token_is_of_its_subject_with_the_roles_that_it_names() {
    let who = bearer_of(&shared(), &token(&hs256(), &claims())).await.unwrap();
    assert_eq!(&*who.id, "login:ann");
    assert!(who.may("approve_kernel_proposal") && who.may("api.sql") && !who.may("install_module"));
    assert!(who.may_act_for(Some("acme")) && !who.may_act_for(Some("other")));
    let mut other = claims();
    other["aud"] = json!(["x", "aion"]);
    other["roles"] = json!("others  kernel-reviewers");
    assert!(
        bearer_of(&shared(), &token(&hs256(), &other))
            .await
            .unwrap()
            .may("approve_kernel_proposal")
    );
}

#[tokio::test]
async fn claims_that_arent_right_are_refused() {
    let huge: Value = serde_json::from_str("18446744073709551615").unwrap();
    for (name, value) in [
        ("exp", Value::Null),
        ("exp", json!((NOW + 60).to_string())),
        ("exp", json!(NOW as f64 + 60.5)),
        ("exp", json!(1e300)),
        ("exp", huge),
        ("exp", json!(NOW - 30)),
        ("nbf", Value::Null),
        ("nbf", json!((NOW - 60).to_string())),
        ("nbf", json!(NOW + 31)),
        ("aud", json!("other")),
        ("aud", json!(["other"])),
        ("aud", json!({"aion": 1})),
        ("aud", json!("aion ")),
        ("iss", json!("https://login/")),
        ("iss", json!(["https://login"])),
        ("sub", json!("")),
        ("sub", json!(7)),
        ("sub", json!("ann\n")),
        ("sub", json!("x".repeat(201))),
        ("roles", json!({"a": 1})),
        ("tenants", json!(7)),
    ] {
        let mut bad = claims();
        bad[name] = value.clone();
        let policy = shared();
        assert_eq!(bearer_of(&policy, &token(&hs256(), &bad)).await, None, "{name} {value}");
        bad.as_object_mut().unwrap().remove(name);
        let is_needed = name != "roles";
        let missing = bearer_of(&policy, &token(&hs256(), &bad)).await;
        assert_eq!(missing.is_none(), is_needed, "{name} missing");
    }
    let mut edge = claims();
    edge["exp"] = json!(NOW - 29);
    edge["nbf"] = json!(NOW + 30);
    assert!(bearer_of(&shared(), &token(&hs256(), &edge)).await.is_some(), "within the leeway");
}

#[tokio::test]
async fn headers_that_arent_right_are_refused() {
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "None"}),
        json!({"alg": "NONE"}),
        json!({"alg": "hs256"}),
        json!({"alg": "HS512"}),
        json!({"alg": "RS256"}),
        json!({"alg": ["HS256"]}),
        json!({}),
        json!({"alg": "HS256", "crit": ["exp"]}),
        json!({"alg": "HS256", "crit": []}),
        json!({"alg": "HS256", "jku": "https://evil/jwks"}),
        json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "AAAA"}}),
        json!({"alg": "HS256", "x5u": "https://evil"}),
        json!({"alg": "HS256", "x5c": []}),
        json!({"alg": "HS256", "typ": "JWE"}),
        json!({"alg": "HS256", "kid": 7}),
        json!({"alg": "HS256", "kid": "k".repeat(201)}),
    ] {
        let policy = shared();
        assert_eq!(bearer_of(&policy, &token(&header, &claims())).await, None, "{header}");
    }
}

#[tokio::test]
async fn tokens_that_were_tampered_with_are_refused() {
    let good = token(&hs256(), &claims());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let mut more = claims();
    more["roles"] = json!(["kernel-reviewers", "root"]);
    let forged = encoded(&hs256().to_string(), &more.to_string());
    let twice = claims().to_string().replacen('{', r#"{"sub":"root","#, 1);
    let twice_alg = r#"{"alg":"none","alg":"HS256"}"#;
    let claims = claims().to_string();
    let wrong_key =
        signed_with(b"another secret of thirty-two byte", &hs256().to_string(), &claims);
    for bad in [
        String::new(),
        "..".to_owned(),
        format!("{signed}."),
        format!("{signed}.{}", &signature[..signature.len() - 4]),
        format!("{signed}.{signature}AA"),
        format!("{signed}.{signature}="),
        format!("{signed}.{signature}.{signature}"),
        format!("{forged}.{signature}"),
        wrong_key,
        signed_with(SECRET.as_bytes(), &hs256().to_string(), &twice),
        signed_with(SECRET.as_bytes(), twice_alg, &claims),
        signed_with(
            SECRET.as_bytes(),
            &hs256().to_string(),
            &claims.replace(&(NOW + 60).to_string(), "1e400"),
        ),
        signed_with(SECRET.as_bytes(), &hs256().to_string(), "[]"),
    ] {
        assert_eq!(bearer_of(&shared(), &bad).await, None, "{bad}");
    }
}

#[tokio::test]
async fn public_keys_verify_and_are_never_taken_for_a_secret() {
    let folder = tempfile::tempdir().unwrap();
    let random = SystemRandom::new();
    let ed = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref())
        .unwrap();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let ec = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let point = ec.public_key().as_ref();
    let set = json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": b64(ed.public_key().as_ref()), "use": "sig"},
        {"kty": "EC", "crv": "P-256", "kid": "ec", "x": b64(&point[1..33]), "y": b64(&point[33..])},
        {"kty": "OKP", "crv": "Ed25519", "kid": "enc", "x": b64(ed.public_key().as_ref()), "use": "enc"},
        {"kty": "oct", "kid": "oct", "k": b64(SECRET.as_bytes())},
    ]});
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, set.to_string()).unwrap();
    let policy =
        policy(&format!("algorithms: [ES256, EdDSA]\n    jwks: 'file:{}'", path.display()));
    policy.key_sets().next().unwrap().refresh().await;
    let sign = |header: Value, with: &dyn Fn(&[u8]) -> Vec<u8>| {
        let signed = encoded(&header.to_string(), &claims().to_string());
        format!("{signed}.{}", b64(&with(signed.as_bytes())))
    };
    let edwards = |text: &[u8]| ed.sign(text).as_ref().to_vec();
    let curve = |text: &[u8]| ec.sign(&random, text).unwrap().as_ref().to_vec();
    let shared_point =
        |text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, point), text).as_ref().to_vec();
    for (name, good, token) in [
        ("ed", true, sign(json!({"alg": "EdDSA", "kid": "ed"}), &edwards)),
        ("ec", true, sign(json!({"alg": "ES256", "kid": "ec"}), &curve)),
        ("no kid, one key of the kind", true, sign(json!({"alg": "ES256"}), &curve)),
        ("another's signature", false, sign(json!({"alg": "EdDSA", "kid": "ed"}), &curve)),
        ("a kid of the other kind", false, sign(json!({"alg": "ES256", "kid": "ed"}), &curve)),
        ("a key for something else", false, sign(json!({"alg": "EdDSA", "kid": "enc"}), &edwards)),
        ("an unknown kid", false, sign(json!({"alg": "EdDSA", "kid": "x"}), &edwards)),
        ("a path", false, sign(json!({"alg": "EdDSA", "kid": "../../dev/null"}), &edwards)),
        ("SQL", false, sign(json!({"alg": "EdDSA", "kid": "ed' or '1'='1"}), &edwards)),
        (
            "the public key as a secret",
            false,
            sign(json!({"alg": "HS256", "kid": "ec"}), &shared_point),
        ),
        ("a secret of the set", false, sign(json!({"alg": "HS256", "kid": "oct"}), &shared_point)),
        ("nothing", false, sign(json!({"alg": "none"}), &|_| Vec::new())),
    ] {
        assert_eq!(bearer_of(&policy, &token).await.is_some(), good, "{name}");
    }
}

#[tokio::test]
async fn an_unknown_kid_fetches_keys_once_a_minute_at_most() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&asked);
    let answer = move || {
        seen.fetch_add(1, Ordering::Relaxed);
        async { r#"{"keys":[]}"# }
    };
    let app = axum::Router::new().route("/jwks", axum::routing::get(answer));
    tokio::spawn(axum::serve(listener, app).into_future());
    let policy = policy(&format!("algorithms: [EdDSA]\n    jwks: '{url}'"));
    for kid in 0..20 {
        let header = json!({"alg": "EdDSA", "kid": kid.to_string()}).to_string();
        let token = format!("{}.AAAA", encoded(&header, &claims().to_string()));
        assert_eq!(bearer_of(&policy, &token).await, None);
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn a_credential_stands_once_in_the_header_and_nowhere_else() {
    let of = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        bearer(&headers).map(str::to_owned)
    };
    assert_eq!(of(&["Bearer x"]).as_deref(), Some("x"));
    assert_eq!(of(&["bearer x"]).as_deref(), Some("x"));
    let long = format!("Bearer {}", "x".repeat(MAX_BYTES + 1));
    for bad in [&[][..], &["x"], &["Bearer "], &["Basic x"], &["Bearer x", "Bearer x"], &[&long]] {
        assert_eq!(of(bad), None, "{bad:?}");
    }
}

#[test]
fn a_token_of_ten_kilobytes_isnt_looked_at() {
    let mut big = claims();
    big["padding"] = json!("x".repeat(10_000));
    let token = token(&hs256(), &big);
    let mut headers = HeaderMap::new();
    headers.insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    assert!(Token::parse(&token).is_ok() && bearer(&headers).is_none());
}

async fn access(config: AccessConfig) -> Arc<Access> {
    Access::start(config, &Commands::builtin(), CancellationToken::new()).await.unwrap()
}

fn with(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
    pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
}

#[tokio::test]
async fn keys_of_http_open_all_of_v1_and_nothing_else() {
    let digest = |text: &str| Digest::of_text(text).unwrap();
    let keys = vec![digest("0123456789abcdef"), digest("fedcba9876543210")];
    let access = access(AccessConfig { keys, ..AccessConfig::default() }).await;
    for (given, to, refused) in [
        ("Bearer 0123456789abcdef", "api.sql", None),
        ("bearer fedcba9876543210", "api.exports", None),
        ("Bearer 0123456789abcdef", "install_module", Some(Refused::Forbidden)),
        ("Bearer 0123456789abcdeF", "api.sql", Some(Refused::Unknown)),
        ("Bearer 0123456789abcde", "api.sql", Some(Refused::Unknown)),
        ("Bearer ", "api.sql", Some(Refused::Unknown)),
        ("Basic 0123456789abcdef", "api.sql", Some(Refused::Unknown)),
        ("0123456789abcdef", "api.sql", Some(Refused::Unknown)),
    ] {
        let entered = access.enter(&with(&[(header::AUTHORIZATION, given)]), to).await;
        assert_eq!(entered.err(), refused, "{given} {to}");
    }
    assert_eq!(access.enter(&with(&[]), "api.sql").await.err(), Some(Refused::Unknown));
}

#[tokio::test]
async fn without_any_key_v1_is_closed_and_where_everybody_may_no_web_page_is_let_in() {
    let closed = access(AccessConfig::default()).await;
    assert_eq!(closed.enter(&with(&[]), "api.sql").await.err(), Some(Refused::Closed));
    let open = access(AccessConfig { everybody: true, ..AccessConfig::default() }).await;
    assert!(open.enter(&with(&[]), "api.sql").await.is_ok());
    let page = with(&[(header::ORIGIN, "https://example.com")]);
    assert_eq!(open.enter(&page, "api.sql").await.err(), Some(Refused::Page));
}
