//! Why a call failed, told apart by who can act.

use super::resolve::{DEPTH, SCHEMAS};

/// Each message names the call and says what the registry, or the way to it, answered.
///
/// | variant | what it means | then |
/// |---|---|---|
/// | [`NotFound`](Error::NotFound) | a registry has no such subject, version or schema | wait for the grace time, then reject |
/// | [`Refused`](Error::Refused) | it knows this account not, or doesn't let it | a person has to act |
/// | [`Unavailable`](Error::Unavailable) | no answer, or none of a registry's | try again |
/// | [`Rejected`](Error::Rejected) | it says no, and will say so again | reject |
/// | [`References`](Error::References) | what a schema refers to can't be had within bounds | reject |
/// | [`Configuration`](Error::Configuration) | a certificate or URL that can't be used | stop |
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The registry doesn't have what was asked for.
    #[error("{call}: {message} (code {code})")]
    NotFound {
        /// What was asked.
        call: String,
        /// The registry's code: 40401 subject, 40402 version, 40403 schema, 40408 level, ...
        code: u32,
        /// Its message.
        message: String,
    },
    /// The registry refuses the account: HTTP 401 or 403.
    #[error("{call}: the registry refuses this account (HTTP {status}): {message}")]
    Refused {
        /// What was asked.
        call: String,
        /// The HTTP status.
        status: u16,
        /// The registry's message.
        message: String,
    },
    /// No URL gave a registry's answer: no connection, a time-out, HTTP 5xx, HTML, too many bytes.
    #[error("{call}: no answer from the schema registry: {tries}")]
    Unavailable {
        /// What was asked.
        call: String,
        /// What became of it, URL by URL.
        tries: String,
    },
    /// The registry doesn't do it: an incompatible or invalid schema, a bad level.
    #[error("{call}: {message} (HTTP {status}, code {code})")]
    Rejected {
        /// What was asked.
        call: String,
        /// The HTTP status.
        status: u16,
        /// The registry's code.
        code: u32,
        /// Its message.
        message: String,
    },
    /// A schema's references are nested too deep, or too many.
    #[error(
        "schema {subject} version {version} is referred to by way of more than {DEPTH} schemas, or \
         as one of more than {SCHEMAS}"
    )]
    References {
        /// The subject of the schema at which it was given up.
        subject: String,
        /// Its version.
        version: u32,
    },
    /// The settings can't be used.
    #[error("schema registry: {0}")]
    Configuration(String),
}

impl Error {
    /// Whether the same call may be answered later without anybody changing anything.
    pub fn is_transient(&self) -> bool {
        matches!(self, Error::Unavailable { .. })
    }
}
