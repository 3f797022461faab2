//! `policies/webhooks.yaml`: who gets which topics, and how stubbornly.
//!
//! **Invariant:** a policy is whole or refused; [`PolicyError`] lists everything that is wrong, each with
//! its line.
//! **Invariant:** an unknown key is an error; nothing is ignored.

mod file;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aion_schemas::catalog::Catalog;
use axum::http::{HeaderName, HeaderValue};
use url::Url;

use super::address::Net;
pub use super::{pattern::Pattern, schedule::Retry, secret::Secret};

/// The webhooks of a policy file.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// The endpoints, in the order of the file.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// What is allowed and not wise, with its line.
    pub warnings: Vec<Problem>,
}

/// Where events of some topics are sent.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its name in cursors, commands and metrics.
    pub id: Arc<str>,
    /// Where its entry begins in the file.
    pub line: u64,
    /// Where events are sent.
    pub url: Url,
    /// What deliveries are signed with: one, or two while receivers change from one to the other.
    pub secrets: Vec<Secret>,
    /// Which topics.
    pub patterns: Vec<Pattern>,
    /// How often and how long a delivery is tried.
    pub retry: Retry,
    /// How long an event is tried for, from its first attempt; the policy's whole schedule, if nothing
    /// else is said.
    pub max_age: Duration,
    /// How long one exchange may take, from the connection to the end of the answer.
    pub timeout: Duration,
    /// Deliveries a second, at most.
    pub rate: Option<f64>,
    /// Deliveries that may be under way at once.
    pub max_in_flight: usize,
    /// Whether events of one key are delivered in their order.
    pub ordered: bool,
    /// Headers of every request.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Authorities and a certificate of our own.
    pub tls: Tls,
    /// Addresses that may be dialled though they aren't public.
    pub allow_private: Vec<Net>,
}

/// The `tls` of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Authorities that are trusted in place of the system's.
    pub ca: Option<PathBuf>,
    /// A client certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl Endpoint {
    /// The patterns as they are compared over time: sorted, each once.
    pub fn pattern_texts(&self) -> Vec<String> {
        let mut texts: Vec<_> = self.patterns.iter().map(|one| one.text().to_owned()).collect();
        texts.sort_unstable();
        texts.dedup();
        texts
    }

    /// What makes this entry another one for a receiver that has said 410: where it is and what it gets.
    pub fn fingerprint(&self) -> String {
        file::id_of(&self.url, &self.pattern_texts())
    }
}

/// Something wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, from 1; 0 where it isn't known.
    pub line: u64,
    /// What is wrong, and what would be right.
    pub reason: String,
}

/// Why a policy is refused.
#[derive(Debug)]
pub struct PolicyError {
    /// The file.
    pub file: PathBuf,
    /// Everything that is wrong.
    pub problems: Vec<Problem>,
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let gap = if at == 0 { "" } else { "\n" };
            write!(f, "{gap}{}:{}: {}", self.file.display(), problem.line, problem.reason)?;
        }
        Ok(())
    }
}

impl std::error::Error for PolicyError {}

impl Policy {
    /// Reads and checks a file; secrets are resolved.
    pub fn load(path: &Path, catalog: &Catalog) -> Result<Policy, PolicyError> {
        let refused = |problems| PolicyError { file: path.to_owned(), problems };
        let text = std::fs::read_to_string(path).map_err(|cause| {
            refused(vec![Problem { line: 0, reason: format!("can't be read: {cause}") }])
        })?;
        Policy::parse(&text, catalog).map_err(refused)
    }

    /// Checks the text of a file.
    pub fn parse(text: &str, catalog: &Catalog) -> Result<Policy, Vec<Problem>> {
        file::read(text, catalog)
    }

    /// The endpoint of that id.
    pub fn endpoint(&self, id: &str) -> Option<&Arc<Endpoint>> {
        self.endpoints.iter().find(|endpoint| &*endpoint.id == id)
    }
}
