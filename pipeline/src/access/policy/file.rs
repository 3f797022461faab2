//! The policy file as people write it, and its checks.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use aion_schemas::{commands::Commands, suggest::nearest};
use ring::hmac;
use serde::Deserialize;
use serde_saphyr::Spanned;

use super::{Allowed, Issuer, IssuerKeys, Kept, PERMISSIONS, Policy, Principal, Problem};
use crate::{
    access::{
        jwks::{Jwks, Place},
        jwt::Algorithm,
        key::{self, Digest},
    },
    config::secret,
    webhooks::secret::Secret,
};

/// Requests a second of a principal of whom nothing else is said.
const RATE: f64 = 100.0;
/// What stands for several permissions.
const GROUPS: [&str; 3] = ["*", "api.*", "commands.*"];
const MOST_SECRETS: usize = 4;
const MOST_KEYS: usize = 8;
const MOST_LEEWAY_S: i64 = 300;
/// The shortest secret of HS256: as long as what it makes, by RFC 7518.
const MIN_SECRET_BYTES: usize = 32;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    signing: Vec<Spanned<String>>,
    rate: Option<Spanned<f64>>,
    #[serde(default)]
    roles: BTreeMap<String, Vec<Spanned<String>>>,
    #[serde(default)]
    principals: Vec<PrincipalFile>,
    #[serde(default)]
    issuers: Vec<IssuerFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrincipalFile {
    id: Spanned<String>,
    #[serde(default)]
    roles: Vec<Spanned<String>>,
    tenants: Option<BTreeSet<String>>,
    rate: Option<Spanned<f64>>,
    #[serde(default)]
    keys: Vec<KeyFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    prefix: Spanned<String>,
    sha256: Spanned<String>,
    expires: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct IssuerFile {
    id: Spanned<String>,
    issuer: Spanned<String>,
    audience: String,
    algorithms: Spanned<Vec<Algorithm>>,
    jwks: Option<Spanned<String>>,
    secret: Option<Spanned<String>>,
    #[serde(default)]
    leeway_s: Option<Spanned<i64>>,
    #[serde(default = "roles_claim")]
    roles_claim: String,
    #[serde(default)]
    roles: BTreeMap<String, Vec<Spanned<String>>>,
    #[serde(default)]
    everyone: Vec<Spanned<String>>,
    tenants_claim: Option<String>,
    rate: Option<Spanned<f64>>,
}

fn roles_claim() -> String {
    "roles".to_owned()
}

/// Problems found so far, and what is looked up on the way.
struct Found<'a> {
    commands: &'a Commands,
    roles: BTreeMap<String, Allowed>,
    rate: f64,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Found<'_> {
    fn add(&mut self, line: u64, reason: impl Into<String>) {
        self.problems.push(Problem { line, reason: reason.into() });
    }

    /// The value, or its problem noted.
    fn take<T>(&mut self, line: u64, result: Result<T, String>) -> Option<T> {
        result.map_err(|reason| self.add(line, reason)).ok()
    }

    /// What these roles allow together.
    fn allowed(&mut self, roles: &[Spanned<String>]) -> Allowed {
        let mut allowed = Allowed::default();
        for role in roles {
            if let Some(more) = self.roles.get(&role.value) {
                allowed.add(more);
            } else {
                let known = self.roles.keys().map(String::as_str);
                let near = nearest(&role.value, known).map(|near| format!("; is it {near}?"));
                let reason =
                    format!("role {:?} isn't in roles{}", role.value, near.unwrap_or_default());
                self.problems.push(Problem { line: line(role), reason });
            }
        }
        allowed
    }

    fn rate(&mut self, rate: Option<&Spanned<f64>>) -> f64 {
        let Some(rate) = rate else { return self.rate };
        if !(rate.value.is_finite() && rate.value > 0.0) {
            self.add(line(rate), "rate: requests a second, more than 0");
        }
        rate.value
    }
}

fn line<T>(of: &Spanned<T>) -> u64 {
    of.referenced.line()
}

pub(super) fn read(text: &str, commands: &Commands) -> Result<Policy, Vec<Problem>> {
    let options = serde_saphyr::options! { with_snippet: false };
    let file: File = serde_saphyr::from_str_with_options(text, options).map_err(|cause| {
        let line = cause.location().map_or(0, |at| at.line());
        vec![Problem { line, reason: cause.to_string() }]
    })?;
    let (problems, warnings) = (Vec::new(), Vec::new());
    let mut found = Found { commands, roles: BTreeMap::new(), rate: RATE, problems, warnings };
    found.rate = found.rate(file.rate.as_ref());
    for (role, permissions) in &file.roles {
        let allowed = permissions_of(permissions, &mut found);
        found.roles.insert(role.clone(), allowed);
    }
    let signing = signing(&file.signing, &mut found);
    let keys = keys(file.principals, &mut found);
    let mut issuers: Vec<Arc<Issuer>> = Vec::with_capacity(file.issuers.len());
    for one in file.issuers {
        let at = line(&one.issuer);
        if issuers.iter().any(|other| other.issuer == one.issuer.value) {
            found.add(at, format!("issuer {:?} is there twice", one.issuer.value));
        }
        // Actors are told apart by it.
        if issuers.iter().any(|other| *other.id == *one.id.value) {
            found.add(line(&one.id), format!("id {:?} is there twice", one.id.value));
        }
        issuers.extend(issuer(one, &mut found).map(Arc::new));
    }
    if found.problems.is_empty() {
        return Ok(Policy { signing, issuers, warnings: found.warnings, keys });
    }
    found.problems.sort_by_key(|problem| problem.line);
    Err(found.problems)
}

/// The permissions of a role, each of which there is.
fn permissions_of(permissions: &[Spanned<String>], found: &mut Found<'_>) -> Allowed {
    for permission in permissions {
        let name = &*permission.value;
        let known = || PERMISSIONS.into_iter().chain(GROUPS).chain(found.commands.actions());
        if !known().any(|one| one == name) {
            let near = nearest(name, known()).map(|near| format!("; is it {near}?"));
            let reason = format!(
                "nothing is called {name:?}{}: a permission is an action, one of {}, or a group: {}",
                near.unwrap_or_default(),
                PERMISSIONS.join(", "),
                GROUPS.join(", ")
            );
            found.add(line(permission), reason);
        }
    }
    Allowed::of(permissions.iter().map(|one| &*one.value))
}

/// A literal secret is taken, and frowned upon.
fn signing(texts: &[Spanned<String>], found: &mut Found<'_>) -> Vec<Secret> {
    if let Some(more) = texts.get(MOST_SECRETS) {
        found.add(line(more), format!("signing: {MOST_SECRETS} secrets at most"));
    }
    let mut secrets = Vec::with_capacity(texts.len());
    for text in texts {
        let read = resolved(text, found).and_then(|secret| Secret::new(&secret));
        secrets.extend(found.take(line(text), read.map_err(|cause| format!("signing: {cause}"))));
    }
    secrets
}

fn resolved(text: &Spanned<String>, found: &mut Found<'_>) -> Result<String, String> {
    if !text.value.starts_with("env:") && !text.value.starts_with("file:") {
        let reason =
            "a secret stands in the file: env:NAME or file:PATH keeps it out of it".to_owned();
        found.warnings.push(Problem { line: line(text), reason });
    }
    secret::resolve(&text.value)
}

fn keys(principals: Vec<PrincipalFile>, found: &mut Found<'_>) -> HashMap<String, Vec<Kept>> {
    let mut keys: HashMap<String, Vec<Kept>> = HashMap::new();
    let mut ids = BTreeSet::new();
    for file in principals {
        let (at, id) = (line(&file.id), &file.id.value);
        if !is_id(id) {
            found.add(
                at,
                format!("id {id:?}: up to 64 small letters, digits, '.', '-' and '_' are wanted"),
            );
        }
        if !ids.insert(id.clone()) {
            found.add(at, format!("id {id:?}: another principal has it too"));
        }
        if file.keys.len() > MOST_KEYS {
            found.add(at, format!("keys: {MOST_KEYS} of one principal at most"));
        }
        let principal = Arc::new(Principal {
            id: id.as_str().into(),
            allowed: found.allowed(&file.roles),
            tenants: file.tenants,
            rate: Some(found.rate(file.rate.as_ref())),
        });
        for one in file.keys {
            if !key::is_prefix(&one.prefix.value) {
                let reason =
                    "prefix: the first 17 characters of a key, as `aion keys new` prints them";
                found.add(line(&one.prefix), reason);
            }
            let digest =
                Digest::from_hex(&one.sha256.value).map_err(|cause| format!("sha256: {cause}"));
            let Some(digest) = found.take(line(&one.sha256), digest) else { continue };
            let expires = one.expires.map(|text| {
                let read = aion_analytics::exports::time::parse(&text.value);
                let read = read.map_err(|cause| format!("expires: {cause}"));
                found.take(line(&text), read).map_or(0, |time| time.0.div_euclid(1_000_000))
            });
            let kept = Kept { digest, expires, principal: Arc::clone(&principal) };
            keys.entry(one.prefix.value).or_default().push(kept);
        }
    }
    keys
}

/// No colon: that is what tells the actors of tokens from these.
fn is_id(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(fits)
}

fn issuer(file: IssuerFile, found: &mut Found<'_>) -> Option<Issuer> {
    let (at, before) = (line(&file.id), found.problems.len());
    if !is_id(&file.id.value) {
        found.add(at, "id: up to 64 small letters, digits, '.', '-' and '_' are wanted");
    }
    if file.id.value == "service" {
        found.add(at, "id: `service` is what the gateway's own audit events are under");
    }
    let keys = issuer_keys(&file, found);
    let leeway_s = file.leeway_s.as_ref().map_or(30, |leeway| leeway.value);
    if !(0..=MOST_LEEWAY_S).contains(&leeway_s) {
        found.add(at, format!("leeway_s: 0 to {MOST_LEEWAY_S} are wanted"));
    }
    let mut roles = BTreeMap::new();
    for (theirs, ours) in &file.roles {
        roles.insert(theirs.clone(), found.allowed(ours));
    }
    let everyone = found.allowed(&file.everyone);
    let rate = Some(found.rate(file.rate.as_ref()));
    if found.problems.len() > before {
        return None;
    }
    Some(Issuer {
        id: file.id.value.as_str().into(),
        issuer: file.issuer.value,
        audience: file.audience,
        algorithms: file.algorithms.value,
        keys: keys?,
        leeway_s,
        roles_claim: file.roles_claim,
        roles,
        everyone,
        tenants_claim: file.tenants_claim,
        rate,
    })
}

/// A secret for HS256 and nothing else, or public keys for everything else.
fn issuer_keys(file: &IssuerFile, found: &mut Found<'_>) -> Option<IssuerKeys> {
    let at = line(&file.algorithms);
    let is_shared = file.algorithms.value == [Algorithm::HS256];
    match (&file.secret, &file.jwks) {
        (Some(secret), None) if is_shared => {
            let text = resolved(secret, found).and_then(|text| {
                let is_long = text.len() >= MIN_SECRET_BYTES;
                is_long.then_some(text).ok_or_else(|| {
                    format!("secret: {MIN_SECRET_BYTES} bytes or more; `openssl rand -hex 32` makes some")
                })
            });
            let text = found.take(line(secret), text)?;
            Some(IssuerKeys::Secret(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())))
        }
        (None, Some(jwks))
            if !file.algorithms.value.is_empty()
                && !file.algorithms.value.contains(&Algorithm::HS256) =>
        {
            let place = found.take(line(jwks), Place::parse(&jwks.value))?;
            Some(IssuerKeys::Public(Arc::new(Jwks::at(place))))
        }
        _ => {
            let reason =
                "algorithms [HS256] go with secret; RS256, ES256, EdDSA with jwks; one of the two";
            found.add(at, reason);
            None
        }
    }
}
