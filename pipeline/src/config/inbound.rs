//! `[inbound]`: who carries out commands from outside, and how the gateway reaches Kafka.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use aion_schemas::catalog::Catalog;
use serde::Deserialize;
use url::Url;

use super::{properties, secret};
use crate::{
    inbound::{InboundConfig, To},
    webhooks::{address::Net, secret::Secret},
};

/// The most secrets of the control plane: one, and the next.
const MOST_SECRETS: usize = 2;
/// Bounds of one exchange with it, in seconds.
const TIMEOUT_S: std::ops::RangeInclusive<u64> = 1..=120;

/// `[inbound]` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InboundFile {
    url: Option<String>,
    #[serde(default)]
    secrets: Vec<String>,
    #[serde(default = "default_timeout_s")]
    timeout_s: u64,
    #[serde(default)]
    allow_http: bool,
    #[serde(default)]
    allow_private: Vec<String>,
    pub(super) ca: Option<PathBuf>,
    topic: Option<String>,
    #[serde(default)]
    trusted_proxies: Vec<String>,
    #[serde(default)]
    pub(super) properties: BTreeMap<String, toml::Value>,
}

const fn default_timeout_s() -> u64 {
    15
}

/// Checks it; what it says of Kafka holds over `[kafka.properties]`.
pub(super) fn check(
    file: InboundFile,
    kafka: &aion_kafka::Connection,
    catalog: &Catalog,
) -> Result<InboundConfig, String> {
    let mut connection = kafka.clone();
    let own = properties(file.properties)
        .map_err(|cause| cause.replace("kafka.properties", "inbound.properties"))?;
    connection.properties.extend(own);
    connection.check().map_err(|cause| format!("inbound: {cause}"))?;
    let nets = |key: &str, texts: &[String]| -> Result<Vec<Net>, String> {
        let net =
            |text: &String| Net::parse(text).map_err(|cause| format!("inbound.{key}: {cause}"));
        texts.iter().map(net).collect()
    };
    let trusted_proxies = nets("trusted_proxies", &file.trusted_proxies)?;
    let to = match (&file.url, &file.topic) {
        (Some(text), None) => {
            if file.secrets.is_empty() || file.secrets.len() > MOST_SECRETS {
                let what =
                    "one that the control plane verifies requests by, or two while it changes";
                return Err(format!("inbound.secrets: {what}"));
            }
            if !TIMEOUT_S.contains(&file.timeout_s) {
                return Err("inbound.timeout_s: between 1 and 120 is wanted".to_owned());
            }
            let read = |text: &String| {
                let read = secret::required(text).and_then(|secret| Secret::new(&secret));
                read.map_err(|cause| format!("inbound.secrets: {cause}"))
            };
            To::Http {
                url: url(text, file.allow_http)?,
                secrets: file.secrets.iter().map(read).collect::<Result<_, _>>()?,
                timeout: Duration::from_secs(file.timeout_s),
                allow_private: nets("allow_private", &file.allow_private)?,
                ca: file.ca,
            }
        }
        (None, Some(topic)) => {
            if catalog.topic(topic).is_some_and(|topic| topic.internal) {
                return Err(format!(
                    "inbound.topic: {topic} is written by AION Event Streams itself"
                ));
            }
            To::Topic(topic.clone())
        }
        _ => {
            return Err("inbound: url or topic says who carries commands out; give one of the two"
                .to_owned());
        }
    };
    Ok(InboundConfig { connection, to, trusted_proxies })
}

fn url(text: &str, allow_http: bool) -> Result<Url, String> {
    let wrong = |what: &str| format!("inbound.url {text:?}: {what}");
    let url = Url::parse(text).map_err(|cause| wrong(&cause.to_string()))?;
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => return Err(wrong("use https, or write allow_http = true where that is meant")),
        _ => return Err(wrong("https is wanted")),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(wrong("it names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("inbound.url: an account doesn't belong there".to_owned());
    }
    Ok(url)
}
