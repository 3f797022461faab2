//! How to reach a registry.

use std::{fmt, path::PathBuf, time::Duration};

use url::Url;

use super::Error;

/// How to reach a registry; secrets are resolved.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it answers, at least one; several are tried in turn.
    pub urls: Vec<Url>,
    /// The account, where the registry wants one.
    pub login: Option<Login>,
    /// PEM file of the authorities whose certificates are trusted, instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM files of a client certificate and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// How long one URL may take to answer, from connecting to the last byte.
    pub timeout: Duration,
}

/// A name and its password, sent as HTTP basic authentication.
#[derive(Clone, Debug)]
pub struct Login {
    /// The account's name.
    pub username: String,
    /// Its password.
    pub password: Password,
}

/// A password that no log shows.
#[derive(Clone)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Settings {
    /// How long one URL may take where nothing is said.
    pub const TIMEOUT: Duration = Duration::from_secs(10);

    /// The registry at these URLs, without an account.
    pub fn new(urls: Vec<Url>) -> Settings {
        Settings { urls, login: None, ca: None, certificate: None, timeout: Settings::TIMEOUT }
    }

    /// Reads a URL; a password has no place in it, since URLs stand in logs.
    pub fn url(text: &str) -> Result<Url, Error> {
        let refuse = |why: &str| Err(Error::Configuration(format!("URL {text:?}: {why}")));
        let Ok(url) = Url::parse(text) else { return refuse("http://HOST:PORT is wanted") };
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return refuse("http://HOST:PORT or https://HOST:PORT is wanted");
        }
        if !url.username().is_empty() || url.password().is_some() {
            let why = "give the account apart from the URL, which stands in logs";
            // Not the text: it has the password.
            return Err(Error::Configuration(format!(
                "URL of {}: {why}",
                url.host_str().unwrap_or_default()
            )));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return refuse("it ends in ?... or #..., which no registry's URL does");
        }
        Ok(url)
    }

    /// Refuses what contradicts itself.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let refuse = |why: &str| Err(Error::Configuration(why.to_owned()));
        if self.urls.is_empty() {
            return refuse("no URL is given");
        }
        let is_plain = self.urls.iter().all(|url| url.scheme() == "http");
        if is_plain && (self.ca.is_some() || self.certificate.is_some()) {
            return refuse("certificates are given, and every URL is http://; write https://");
        }
        Ok(())
    }
}
