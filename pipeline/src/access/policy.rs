//! `policies/access.yaml`: who there is, and what they may do.
//!
//! **Invariant:** a policy is whole or refused; what is wrong is said with its line.
//! **Invariant:** an unknown key, role or permission is an error; nothing is ignored.

mod file;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::Arc,
};

use aion_schemas::commands::Commands;
use ring::hmac;

use super::{
    jwks::Jwks,
    jwt::{Algorithm, Flaw, Token},
    key::{self, Digest},
};
pub use crate::webhooks::policy::{PolicyError, Problem};
use crate::webhooks::secret::Secret;

/// What may be done besides commands, each whose name is its action.
pub const PERMISSIONS: [&str; 5] = [PUBLISH, SQL, EXPORTS, METRICS, READ_COMMANDS];
/// `/v1/validate` and `/v1/publish`.
pub const PUBLISH: &str = "api.publish";
/// `/v1/sql` and `/v1/tables`.
pub const SQL: &str = "api.sql";
/// `/v1/exports`.
pub const EXPORTS: &str = "api.exports";
/// `/metrics`, where it is guarded.
pub const METRICS: &str = "api.metrics";
/// How commands of others stand.
pub const READ_COMMANDS: &str = "commands.read";

/// A policy.
#[derive(Debug, Default)]
pub struct Policy {
    /// What commands are signed with: any of these.
    pub signing: Vec<Secret>,
    /// Whose tokens are taken.
    pub issuers: Vec<Arc<Issuer>>,
    /// What is allowed and not wise, with its line.
    pub warnings: Vec<Problem>,
    /// Keys by their prefix.
    keys: HashMap<String, Vec<Kept>>,
}

/// What is kept of a key.
#[derive(Debug)]
struct Kept {
    digest: Digest,
    expires: Option<i64>,
    principal: Arc<Principal>,
}

/// Somebody who was let in.
#[derive(Clone, Debug, PartialEq)]
pub struct Principal {
    /// Who it is: `actor_id` of what they do.
    pub id: Arc<str>,
    /// What they may do.
    pub allowed: Allowed,
    /// The tenants for which they may act; any, without it.
    pub tenants: Option<BTreeSet<String>>,
    /// Requests a second, at most.
    pub rate: Option<f64>,
}

/// What somebody may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Names of permissions, of actions, and of whole groups: `*`, `api.*`, `commands.*`.
    names: BTreeSet<String>,
}

/// An issuer of tokens.
#[derive(Debug)]
pub struct Issuer {
    /// Its name here: the actor of a token is `<id>:<subject>`.
    pub id: Arc<str>,
    /// Its name in `iss`.
    pub issuer: String,
    /// Ours in `aud`.
    pub audience: String,
    /// How it signs.
    pub algorithms: Vec<Algorithm>,
    /// With what.
    pub keys: IssuerKeys,
    /// How far clocks may be apart, in seconds.
    pub leeway_s: i64,
    /// The claim that has its names of roles.
    pub roles_claim: String,
    /// What these come to here.
    pub roles: BTreeMap<String, Allowed>,
    /// What each of its tokens may.
    pub everyone: Allowed,
    /// The claim that names the tenants.
    pub tenants_claim: Option<String>,
    /// Requests a second of each subject, at most.
    pub rate: Option<f64>,
}

/// What an issuer signs with.
#[derive(Debug)]
pub enum IssuerKeys {
    /// A secret that it shares with us.
    Secret(hmac::Key),
    /// Keys that it publishes.
    Public(Arc<Jwks>),
}

impl Allowed {
    /// All of these.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Allowed {
        Allowed { names: names.into_iter().map(str::to_owned).collect() }
    }

    /// Whether it is among them.
    pub fn may(&self, what: &str) -> bool {
        let has = |name: &str| self.names.contains(name);
        let group = if what.starts_with("api.") { "api.*" } else { "commands.*" };
        has(what) || has(group) || has("*")
    }

    fn add(&mut self, other: &Allowed) {
        self.names.extend(other.names.iter().cloned());
    }
}

impl Principal {
    /// Somebody who may do everything.
    pub fn of_everything(id: &str) -> Principal {
        Principal { id: id.into(), allowed: Allowed::of(["*"]), tenants: None, rate: None }
    }

    /// Somebody who may use all of `/v1`, and ask nothing of the control plane.
    pub fn of_api(id: &str) -> Principal {
        Principal { allowed: Allowed::of(["api.*"]), ..Principal::of_everything(id) }
    }

    /// Whether they may do that.
    pub fn may(&self, what: &str) -> bool {
        self.allowed.may(what)
    }

    /// Whether they may act for a tenant, or for none.
    pub fn may_act_for(&self, tenant: Option<&str>) -> bool {
        match (&self.tenants, tenant) {
            (None, _) => true,
            (Some(tenants), Some(tenant)) => tenants.contains(tenant),
            (Some(_), None) => false,
        }
    }
}

impl Policy {
    /// Reads and checks a file; secrets are resolved.
    pub fn load(path: &Path, commands: &Commands) -> Result<Policy, PolicyError> {
        let refused = |problems| PolicyError { file: path.to_owned(), problems };
        let text = std::fs::read_to_string(path).map_err(|cause| {
            refused(vec![Problem { line: 0, reason: format!("can't be read: {cause}") }])
        })?;
        Policy::parse(&text, commands).map_err(refused)
    }

    /// Checks the text of a file.
    pub fn parse(text: &str, commands: &Commands) -> Result<Policy, Vec<Problem>> {
        file::read(text, commands)
    }

    /// Whether nobody can be let in by it.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.issuers.is_empty()
    }

    /// The sets of keys of its issuers.
    pub fn key_sets(&self) -> impl Iterator<Item = &Arc<Jwks>> {
        self.issuers.iter().filter_map(|issuer| match &issuer.keys {
            IssuerKeys::Public(keys) => Some(keys),
            IssuerKeys::Secret(_) => None,
        })
    }

    /// Until its sets of keys are fetched, those hold that an earlier policy had fetched.
    pub fn take_keys_over(&self, before: &Policy) {
        for keys in self.key_sets() {
            let same = before.key_sets().filter(|other| other.place == keys.place);
            same.for_each(|other| keys.take_over(other));
        }
    }

    /// Who holds a key that isn't past its time.
    pub fn holder_of_key(&self, text: &str, digest: &Digest, now: i64) -> Option<Arc<Principal>> {
        let kept = self.keys.get(key::prefix(text)?)?;
        let found = kept.iter().find(|kept| kept.digest.is(digest))?;
        let holds = found.expires.is_none_or(|expires| now < expires);
        holds.then(|| Arc::clone(&found.principal))
    }

    /// Whom a token is about.
    pub async fn bearer_of_token(&self, text: &str, now: i64) -> Option<Arc<Principal>> {
        match self.verify(text, now).await {
            Ok(principal) => Some(Arc::new(principal)),
            Err(flaw) => {
                tracing::debug!(flaw, "access: a token isn't taken");
                None
            }
        }
    }

    async fn verify(&self, text: &str, now: i64) -> Result<Principal, Flaw> {
        let token = Token::parse(text)?;
        let said = token.issuer().ok_or("iss")?;
        let issuer = self.issuers.iter().find(|one| one.issuer == said).ok_or("iss")?;
        issuer.verify(&token, now).await
    }
}

impl Issuer {
    /// Verifies a token, and says whom it is about.
    pub async fn verify(&self, token: &Token<'_>, now: i64) -> Result<Principal, Flaw> {
        let (algorithm, kid) = (token.algorithm(&self.algorithms)?, token.kid()?);
        // What is past its time isn't worth a fetch of keys.
        let claims = token.claims(self, now)?;
        match &self.keys {
            IssuerKeys::Secret(key) => {
                hmac::verify(key, token.signed, &token.signature).map_err(|_| "signature")?;
            }
            IssuerKeys::Public(keys) => {
                if !keys.has(kid, algorithm) {
                    keys.refresh().await;
                }
                keys.verify((kid, algorithm), token.signed, &token.signature)?;
            }
        }
        let mut allowed = self.everyone.clone();
        for role in &claims.roles {
            if let Some(more) = self.roles.get(role) {
                allowed.add(more);
            }
        }
        Ok(Principal {
            id: format!("{}:{}", self.id, claims.subject).into(),
            allowed,
            tenants: claims.tenants.map(|tenants| tenants.into_iter().collect()),
            rate: self.rate,
        })
    }
}
