//! Who may do what over HTTP: principals with API keys, or with tokens of issuers that are trusted.
//!
//! One policy guards every surface of the process: `/v1`, the commands from outside, and `/metrics` where that
//! is wanted. `policies/access.yaml` says it ([`policy`]); it is taken up when it changes and at SIGHUP, as a
//! whole or not at all (`watching`). The keys of `[http] keys` belong to one principal that may use all of `/v1`.
//!
//! | a request that | gets |
//! |---|---|
//! | has no credential, or one that isn't accepted, whatever the reason | 401, always the same |
//! | is of somebody who may not do that | 403 |
//! | is one too many of its sender | 429 |
//!
//! **Invariant:** no key, secret or token is shown by a log, an error or `Debug`.
//! **Invariant:** what isn't granted is refused; an unknown name of a permission keeps the policy from loading.

pub mod jwks;
pub mod jwt;
pub mod key;
pub mod policy;
pub mod rates;
mod watching;

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use aion_schemas::commands::Commands;
use axum::http::{HeaderMap, HeaderValue, header};
use futures::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::{
    jwks::Jwks,
    key::Digest,
    policy::{Policy, Principal},
    rates::Rates,
};
use crate::{
    exit::{Exit, Failure},
    policy_file::Changes,
};

/// The principal that the keys of `[http] keys` stand for.
const HTTP_KEYS: &str = "http-keys";
/// The principal of whoever asks where everybody may.
const ANYBODY: &str = "anybody";
/// The longest credential.
const MAX_BYTES: usize = 8 << 10;

/// `[access]` and the keys of `[http]`, checked.
#[derive(Clone, Debug, Default)]
pub struct AccessConfig {
    /// Whether `/v1` is open to whoever reaches it: on addresses of this machine, where `aion dev` listens.
    pub everybody: bool,
    /// Keys of `[http]`.
    pub keys: Vec<Digest>,
    /// The policy file.
    pub policy: Option<PathBuf>,
    /// Whether `/metrics` is guarded too.
    pub guard_metrics: bool,
}

/// Who may do what, now.
#[derive(Debug)]
pub struct Access {
    config: AccessConfig,
    policy: watch::Receiver<Arc<Policy>>,
    rates: Mutex<Rates<Arc<str>>>,
}

/// Why a request isn't let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Nobody is known by that.
    Unknown,
    /// Nothing is configured by which anybody could be let in.
    Closed,
    /// A web page asks where everybody may.
    Page,
    /// The principal may not do that.
    Forbidden,
    /// There were too many of this principal; seconds until there may be more.
    TooMany(u64),
}

impl Access {
    /// Reads the policy, and reads it again when it changes, until `shutdown`.
    pub async fn start(
        config: AccessConfig,
        commands: &Commands,
        shutdown: CancellationToken,
    ) -> Result<Arc<Access>, Failure> {
        // Before it is read, so that no change is missed.
        let changes = config.policy.clone().map(Changes::of).transpose()?;
        let policy = match &config.policy {
            None => Policy::default(),
            Some(path) => Policy::load(path, commands)
                .map_err(|cause| Failure::new(Exit::Usage, cause.to_string()))?,
        };
        for warning in &policy.warnings {
            tracing::warn!("the access policy, line {}: {}", warning.line, warning.reason);
        }
        join_all(policy.key_sets().map(Jwks::refresh)).await;
        let (policies, policy) = watch::channel(Arc::new(policy));
        if let Some(changes) = changes {
            tokio::spawn(watching::keep_keys(policy.clone(), shutdown.clone()));
            tokio::spawn(watching::watch((changes, commands.clone()), policies, shutdown));
        }
        Ok(Arc::new(Access { config, policy, rates: Mutex::default() }))
    }

    /// The policy that holds now.
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.policy.borrow())
    }

    /// Whether `/metrics` is guarded.
    pub fn guards_metrics(&self) -> bool {
        self.config.guard_metrics
    }

    /// Lets a request in that needs a permission.
    pub async fn enter(&self, headers: &HeaderMap, to: &str) -> Result<Arc<Principal>, Refused> {
        if self.config.everybody {
            // A page in a browser on this machine must not act for whoever it came from.
            if headers.contains_key(header::ORIGIN) {
                return Err(Refused::Page);
            }
            return Ok(Arc::new(Principal::of_everything(ANYBODY)));
        }
        if self.config.keys.is_empty() && self.policy().is_empty() {
            return Err(Refused::Closed);
        }
        let principal = self.identify(headers).await?;
        self.count(&principal)?;
        if principal.may(to) { Ok(principal) } else { Err(Refused::Forbidden) }
    }

    /// Who sends a request: whose key or token its `Authorization` has.
    pub async fn identify(&self, headers: &HeaderMap) -> Result<Arc<Principal>, Refused> {
        let credential = bearer(headers).ok_or(Refused::Unknown)?;
        let (policy, now) = (self.policy(), now());
        if jwt::looks_like(credential) {
            return policy.bearer_of_token(credential, now).await.ok_or(Refused::Unknown);
        }
        let digest = Digest::of(credential.as_bytes());
        // Each is looked at, so that the time says nothing about which is nearly right.
        let is_http_key = self.config.keys.iter().fold(false, |fits, key| fits | key.is(&digest));
        if is_http_key {
            return Ok(Arc::new(Principal::of_api(HTTP_KEYS)));
        }
        policy.holder_of_key(credential, &digest, now).ok_or(Refused::Unknown)
    }

    /// Counts a request against the principal's rate.
    pub fn count(&self, principal: &Principal) -> Result<(), Refused> {
        let Some(rate) = principal.rate else { return Ok(()) };
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.take(&principal.id, rate, now_ms()).map_err(Refused::TooMany)
    }
}

/// The credential of `Authorization: Bearer`, sent once.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(one), None) = (given.next(), given.next()) else { return None };
    let (scheme, credential) = one.to_str().ok()?.split_once(' ')?;
    let is_bearer = scheme.eq_ignore_ascii_case("bearer");
    (is_bearer && !credential.is_empty() && credential.len() <= MAX_BYTES).then_some(credential)
}

/// The challenge that goes with a 401.
pub const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer");

/// The clock's time in seconds.
fn now() -> i64 {
    now_ms().div_euclid(1_000)
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as i64
}

#[cfg(test)]
mod tests;
