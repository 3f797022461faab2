//! The policy file as people write it, and its checks.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use aion_schemas::catalog::Catalog;
use axum::http::{HeaderName, HeaderValue};
use ring::digest;
use serde::Deserialize;
use serde_saphyr::Spanned;
use url::Url;

use super::{Endpoint, Pattern, Policy, Problem, Retry, Secret, Tls};
use crate::{config::secret, webhooks::address::Net};

/// What holds where an entry says nothing.
const TIMEOUT: Duration = Duration::from_secs(15);
const MAX_IN_FLIGHT: usize = 32;
/// Bounds of what an entry may say.
const TIMEOUTS: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_mins(2);
const IN_FLIGHT: std::ops::RangeInclusive<usize> = 1..=512;
const MOST_ATTEMPTS: u32 = 1_000;
const MOST_SECRETS: usize = 2;
const MOST_ENDPOINTS: usize = 10_000;
/// Headers that the engine sets itself, or the connection.
const RESERVED: [&str; 12] = [
    "host",
    "content-length",
    "content-type",
    "transfer-encoding",
    "connection",
    "expect",
    "upgrade",
    "te",
    "trailer",
    "user-agent",
    "idempotency-key",
    "x-aion-signature",
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    webhooks: Vec<Spanned<Entry>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    id: Option<Spanned<String>>,
    url: Spanned<String>,
    secret: Option<Spanned<String>>,
    secrets: Option<Vec<Spanned<String>>>,
    topics: Spanned<Vec<Spanned<String>>>,
    retry: Spanned<RetryFile>,
    timeout: Option<Spanned<String>>,
    rate: Option<Spanned<f64>>,
    max_in_flight: Option<Spanned<usize>>,
    ordering: Option<Spanned<OrderingFile>>,
    #[serde(default)]
    headers: BTreeMap<String, Spanned<String>>,
    tls: Option<Spanned<TlsFile>>,
    #[serde(default)]
    allow_private: Vec<Spanned<String>>,
    #[serde(default)]
    allow_http: bool,
    max_age: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RetryFile {
    initial_interval: Spanned<String>,
    max_interval: Spanned<String>,
    max_attempts: Spanned<u32>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OrderingFile {
    None,
    Key,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TlsFile {
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// Problems found so far.
#[derive(Default)]
struct Found {
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Found {
    fn add(&mut self, line: u64, reason: impl Into<String>) {
        self.problems.push(Problem { line, reason: reason.into() });
    }

    /// The value, or its problem noted.
    fn take<T>(&mut self, line: u64, result: Result<T, String>) -> Option<T> {
        result.map_err(|reason| self.add(line, reason)).ok()
    }
}

fn line<T>(of: &Spanned<T>) -> u64 {
    of.referenced.line()
}

pub(super) fn read(text: &str, catalog: &Catalog) -> Result<Policy, Vec<Problem>> {
    let options = serde_saphyr::options! { with_snippet: false };
    let file: File = serde_saphyr::from_str_with_options(text, options).map_err(|cause| {
        let line = cause.location().map_or(0, |at| at.line());
        vec![Problem { line, reason: cause.to_string() }]
    })?;
    let mut found = Found::default();
    if file.webhooks.len() > MOST_ENDPOINTS {
        found.add(1, format!("more than {MOST_ENDPOINTS} webhooks"));
    }
    let mut lines: BTreeMap<Arc<str>, u64> = BTreeMap::new();
    let mut endpoints = Vec::with_capacity(file.webhooks.len());
    for entry in file.webhooks {
        let at = entry.value.id.as_ref().map_or(line(&entry), line);
        let Some(endpoint) = endpoint(entry, catalog, &mut found) else { continue };
        if let Some(other) = lines.insert(Arc::clone(&endpoint.id), at) {
            let id = &endpoint.id;
            found.add(
                at,
                format!("id {id}: the entry of line {other} has it too; give each its own"),
            );
        }
        endpoints.push(Arc::new(endpoint));
    }
    if found.problems.is_empty() {
        return Ok(Policy { endpoints, warnings: found.warnings });
    }
    found.problems.sort_by_key(|problem| problem.line);
    Err(found.problems)
}

fn endpoint(entry: Spanned<Entry>, catalog: &Catalog, found: &mut Found) -> Option<Endpoint> {
    let (begin, entry) = (line(&entry), entry.value);
    let before = found.problems.len();
    let url = found.take(line(&entry.url), url(&entry.url.value, entry.allow_http));
    let secrets = secrets(begin, entry.secret, entry.secrets, found);
    let patterns = patterns(&entry.topics, catalog, found);
    let retry = retry(&entry.retry.value, found);
    let timeout = match entry.timeout {
        None => Some(TIMEOUT),
        Some(text) => found.take(line(&text), within("timeout", &text.value, TIMEOUTS)),
    };
    let max_age =
        entry.max_age.map(|text| found.take(line(&text), duration("max_age", &text.value)));
    let rate = entry.rate.map(|rate| found.take(line(&rate), positive(rate.value)));
    let max_in_flight = entry
        .max_in_flight
        .map_or(Some(MAX_IN_FLIGHT), |count| found.take(line(&count), in_flight(count.value)));
    let mut headers = Vec::with_capacity(entry.headers.len());
    for (name, value) in entry.headers {
        headers.extend(found.take(line(&value), header(&name, &value.value)));
    }
    let tls =
        entry.tls.map_or(Some(Tls::default()), |file| found.take(line(&file), tls(file.value)));
    let mut allow_private = Vec::with_capacity(entry.allow_private.len());
    for text in entry.allow_private {
        allow_private.extend(found.take(line(&text), Net::parse(&text.value)));
    }
    let id = match (&entry.id, &url) {
        (Some(id), _) => found.take(line(id), own_id(&id.value)),
        (None, Some(url)) => {
            let texts: Vec<_> = patterns.iter().map(|one| one.text().to_owned()).collect();
            Some(id_of(url, &texts).into())
        }
        (None, None) => None,
    };
    if found.problems.len() > before {
        return None;
    }
    let retry = retry?;
    Some(Endpoint {
        id: id?,
        line: begin,
        url: url?,
        secrets,
        patterns,
        retry,
        max_age: max_age.flatten().unwrap_or_else(|| retry.span()),
        timeout: timeout?,
        rate: rate.flatten(),
        max_in_flight: max_in_flight?,
        ordered: entry.ordering.is_some_and(|one| matches!(one.value, OrderingFile::Key)),
        headers,
        tls: tls?,
        allow_private,
    })
}

fn url(text: &str, allow_http: bool) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|cause| format!("url {text:?}: {cause}"))?;
    match url.scheme() {
        "https" => {}
        "http" if allow_http => {}
        "http" => {
            return Err(format!(
                "url {text:?} isn't encrypted: use https, or write allow_http: true where that is meant"
            ));
        }
        other => return Err(format!("url {text:?}: https is wanted, not {other}")),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("url {text:?}: it names no host"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("url: an account doesn't belong there: use headers with env:NAME".to_owned());
    }
    // What listens below is no receiver: mail, shells, databases of names.
    if let Some(port) = url.port().filter(|port| *port < 1024 && ![80, 443].contains(port)) {
        return Err(format!(
            "url {text:?}: port {port} is for other services; 80, 443 or one above 1023"
        ));
    }
    if url.fragment().is_some() {
        return Err(format!("url {text:?}: what follows # is never sent; leave it out"));
    }
    Ok(url)
}

/// A literal secret is taken, and frowned upon.
fn secrets(
    begin: u64,
    one: Option<Spanned<String>>,
    more: Option<Vec<Spanned<String>>>,
    found: &mut Found,
) -> Vec<Secret> {
    let given: Vec<_> = match (one, more) {
        (Some(one), None) => vec![one],
        (None, Some(more)) => more,
        (Some(one), Some(_)) => {
            found.add(line(&one), "secret and secrets: give one of the two");
            return Vec::new();
        }
        (None, None) => Vec::new(),
    };
    if given.is_empty() || given.len() > MOST_SECRETS {
        found.add(
            begin,
            format!("a secret is wanted, or {MOST_SECRETS} while receivers change to a new one"),
        );
        return Vec::new();
    }
    let mut secrets = Vec::with_capacity(given.len());
    for text in given {
        let at = line(&text);
        if !text.value.starts_with("env:") && !text.value.starts_with("file:") {
            let reason =
                "a secret stands in the file: env:NAME or file:PATH keeps it out of it".to_owned();
            found.warnings.push(Problem { line: at, reason });
        }
        let read = secret::resolve(&text.value).and_then(|secret| Secret::new(&secret));
        secrets.extend(found.take(at, read.map_err(|cause| format!("secret: {cause}"))));
    }
    secrets
}

fn patterns(
    topics: &Spanned<Vec<Spanned<String>>>,
    catalog: &Catalog,
    found: &mut Found,
) -> Vec<Pattern> {
    if topics.value.is_empty() {
        found
            .add(line(topics), "topics: at least one pattern is wanted, such as kernel.proposal.*");
    }
    let pattern =
        |text: &Spanned<String>| found.take(line(text), Pattern::new(&text.value, catalog));
    topics.value.iter().filter_map(pattern).collect()
}

fn retry(file: &RetryFile, found: &mut Found) -> Option<Retry> {
    let initial = &file.initial_interval;
    let initial_interval =
        found.take(line(initial), duration("initial_interval", &initial.value))?;
    let max = &file.max_interval;
    let max_interval = found.take(line(max), duration("max_interval", &max.value))?;
    let attempts = &file.max_attempts;
    if initial_interval.is_zero() {
        found.add(line(initial), "initial_interval: more than nothing is wanted");
    }
    if max_interval < initial_interval {
        found.add(line(max), "max_interval: less than initial_interval");
    }
    if !(1..=MOST_ATTEMPTS).contains(&attempts.value) {
        found.add(line(attempts), format!("max_attempts: 1 to {MOST_ATTEMPTS} are wanted"));
    }
    Some(Retry { initial_interval, max_interval, max_attempts: attempts.value })
}

/// Reads `500ms`, `30s`, `5m`, `2h`, `7d`.
fn duration(key: &str, text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => {
            return Err(format!(
                "{key} {text:?}: a number with ms, s, m, h or d is wanted, such as 30s"
            ));
        }
    };
    let number: u64 = number.parse().map_err(|_| format!("{key} {text:?}: no number that fits"))?;
    match number.checked_mul(millis) {
        Some(millis) if millis <= 366 * 86_400_000 => Ok(Duration::from_millis(millis)),
        _ => Err(format!("{key} {text:?}: a year is the most")),
    }
}

fn within(
    key: &str,
    text: &str,
    bounds: std::ops::RangeInclusive<Duration>,
) -> Result<Duration, String> {
    let value = duration(key, text)?;
    if bounds.contains(&value) {
        return Ok(value);
    }
    Err(format!("{key} {text:?}: between {:?} and {:?} is wanted", bounds.start(), bounds.end()))
}

fn positive(rate: f64) -> Result<f64, String> {
    if rate.is_finite() && rate > 0.0 {
        return Ok(rate);
    }
    Err("rate: deliveries a second, more than 0".to_owned())
}

fn in_flight(count: usize) -> Result<usize, String> {
    if IN_FLIGHT.contains(&count) {
        return Ok(count);
    }
    Err(format!("max_in_flight: {} to {} are wanted", IN_FLIGHT.start(), IN_FLIGHT.end()))
}

fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), String> {
    let bad = |cause: &str| format!("header {name:?}: {cause}");
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("no name of a header"))?;
    if RESERVED.contains(&parsed.as_str()) || parsed.as_str().starts_with("webhook-") {
        return Err(bad("it is set by the delivery itself"));
    }
    let value = secret::resolve(value).map_err(|cause| bad(&cause))?;
    let mut value = HeaderValue::from_str(&value)
        .map_err(|_| bad("its value has bytes that no header takes"))?;
    // It may be a token: no log shows it.
    value.set_sensitive(true);
    Ok((parsed, value))
}

fn tls(file: TlsFile) -> Result<Tls, String> {
    let identity = match (file.certificate, file.key) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        _ => return Err("tls: certificate and key go together; give both".to_owned()),
    };
    Ok(Tls { ca: file.ca, identity })
}

fn own_id(text: &str) -> Result<Arc<str>, String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
    if (1..=64).contains(&text.len()) && text.chars().all(is_part) {
        return Ok(text.into());
    }
    Err(format!("id {text:?}: up to 64 small letters, digits, '-' and '_' are wanted"))
}

/// The id of an entry that has none: of its URL and its patterns, in any order.
pub(super) fn id_of(url: &Url, patterns: &[String]) -> String {
    let mut patterns: Vec<_> = patterns.iter().map(String::as_str).collect();
    patterns.sort_unstable();
    patterns.dedup();
    let text = format!("{url}\n{}", patterns.join("\n"));
    let hash = digest::digest(&digest::SHA256, text.as_bytes());
    let mut short = [0; 8];
    short[2..].copy_from_slice(&hash.as_ref()[..6]);
    format!("ep-{:012x}", u64::from_be_bytes(short))
}
