//! `[registry]`: where schemas are looked up.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use serde::Deserialize;
use url::Url;

use super::secret;
use crate::registry::{Login, Password, Settings};

/// Where schemas are looked up, and how long one that isn't there is waited for.
#[derive(Clone, Debug)]
pub struct RegistryConfig {
    /// How to reach it; secrets are resolved.
    pub settings: Settings,
    /// How long a partition waits for an id that the registry doesn't have: a schema may be
    /// registered a moment after its first event, or come back with a registry that is restored.
    pub grace: Duration,
}

impl RegistryConfig {
    /// A registry on this machine, without an account.
    pub fn at(address: SocketAddr) -> RegistryConfig {
        // A number and a port always make a URL.
        let url = Url::parse(&format!("http://{address}")).into_iter().collect();
        RegistryConfig { settings: Settings::new(url), grace: GRACE }
    }
}

/// How long is waited where nothing is said.
const GRACE: Duration = Duration::from_mins(5);

/// `[registry]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RegistryFile {
    urls: Vec<String>,
    username: Option<String>,
    password: Option<String>,
    pub(super) ca: Option<PathBuf>,
    pub(super) certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    #[serde(default = "default_grace_s")]
    grace_s: u64,
}

const fn default_grace_s() -> u64 {
    GRACE.as_secs()
}

pub(super) fn check(file: RegistryFile) -> Result<RegistryConfig, String> {
    let urls = file.urls.iter().map(|url| Settings::url(url).map_err(|cause| cause.to_string()));
    let mut settings = Settings::new(urls.collect::<Result<_, _>>()?);
    settings.login = match (file.username, file.password) {
        (None, None) => None,
        (Some(username), Some(password)) => {
            let username = secret::resolve(&username).map_err(|cause| at("username", &cause))?;
            let password = secret::required(&password).map_err(|cause| at("password", &cause))?;
            Some(Login { username, password: Password(password) })
        }
        _ => return Err("registry: username and password go together; give both".to_owned()),
    };
    settings.certificate = match (file.certificate, file.key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => return Err("registry: certificate and key go together; give both".to_owned()),
    };
    settings.ca = file.ca;
    settings.check().map_err(|cause| cause.to_string())?;
    Ok(RegistryConfig { settings, grace: Duration::from_secs(file.grace_s) })
}

fn at(key: &str, cause: &str) -> String {
    format!("registry.{key}: {cause}")
}
