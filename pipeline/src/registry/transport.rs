//! One call over HTTP: to each URL in turn, bounded in time and bytes, its answer told apart.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use reqwest::{
    Certificate, Client, ClientBuilder, Identity, Method, StatusCode,
    header::{ACCEPT, CONTENT_TYPE},
    redirect,
};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

use super::{Error, Login, Settings, wire::ErrorAnswer};

/// What is read of an answer at most; schemas have a megabyte, lists of subjects less.
pub const ANSWER_BYTES: usize = 8 << 20;
/// How long a connection may take: a dead host is left for the next URL soon.
const CONNECT: Duration = Duration::from_secs(3);
/// What is shown of a registry's message at most.
const MESSAGE_CHARS: usize = 1_000;
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// One call, before it is known which URL answers it.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    path: Vec<String>,
    query: Vec<(&'static str, bool)>,
    body: Option<Vec<u8>>,
}

impl Call {
    pub(super) fn get(path: &[&str]) -> Call {
        Call::new(Method::GET, path)
    }

    pub(super) fn delete(path: &[&str]) -> Call {
        Call::new(Method::DELETE, path)
    }

    pub(super) fn post(path: &[&str], body: &impl Serialize) -> Call {
        Call { body: json(body), ..Call::new(Method::POST, path) }
    }

    pub(super) fn put(path: &[&str], body: &impl Serialize) -> Call {
        Call { body: json(body), ..Call::new(Method::PUT, path) }
    }

    fn new(method: Method, path: &[&str]) -> Call {
        let path = path.iter().map(|&part| part.to_owned()).collect();
        Call { method, path, query: Vec::new(), body: None }
    }

    /// Adds a parameter; one that is false is what a registry takes anyway.
    pub(super) fn query(mut self, name: &'static str, value: bool) -> Call {
        if value {
            self.query.push((name, value));
        }
        self
    }

    /// The call for people: `GET subjects/orders-value/versions/latest`.
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path.join("/"))
    }

    fn url(&self, base: &Url) -> Url {
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            // Each part is encoded as a whole: a subject may hold slashes.
            segments.pop_if_empty().extend(&self.path);
        }
        if !self.query.is_empty() {
            let mut pairs = url.query_pairs_mut();
            for (name, value) in &self.query {
                pairs.append_pair(name, if *value { "true" } else { "false" });
            }
        }
        url
    }
}

/// Structs of text and numbers always encode.
fn json(body: &impl Serialize) -> Option<Vec<u8>> {
    serde_json::to_vec(body).ok()
}

/// The URLs, and what is sent with each request.
#[derive(Debug)]
pub(super) struct Transport {
    http: Client,
    urls: Vec<Url>,
    login: Option<Login>,
    /// Index of the URL that answered last.
    good: AtomicUsize,
}

/// No answer that a registry gives.
struct Silence {
    why: String,
    /// Whether the request can't have reached anybody.
    is_unsent: bool,
}

impl Transport {
    pub(super) fn open(settings: &Settings) -> Result<Transport, Error> {
        settings.check()?;
        // No proxy and no redirect: either would be given the password.
        let mut http = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT.min(settings.timeout))
            .timeout(settings.timeout);
        if let Some(path) = &settings.ca {
            let authorities = Certificate::from_pem_bundle(&read(path)?);
            let authorities = authorities.map_err(|cause| unusable(path, &cause))?;
            if authorities.is_empty() {
                return Err(unusable(path, &"there is no certificate in it"));
            }
            http = authorities
                .into_iter()
                .fold(http.tls_built_in_root_certs(false), ClientBuilder::add_root_certificate);
        }
        if let Some((certificate, key)) = &settings.certificate {
            let mut pem = read(certificate)?;
            // One file may hold both.
            if key != certificate {
                pem.push(b'\n');
                pem.extend(read(key)?);
            }
            let identity =
                Identity::from_pem(&pem).map_err(|cause| unusable(key, &chain(&cause)))?;
            http = http.identity(identity);
        }
        let http = http.build().map_err(|cause| Error::Configuration(chain(&cause)))?;
        let (urls, login) = (settings.urls.clone(), settings.login.clone());
        Ok(Transport { http, urls, login, good: AtomicUsize::new(0) })
    }

    /// Makes a call, at each URL until one answers.
    pub(super) async fn send<T: DeserializeOwned>(&self, call: Call) -> Result<T, Error> {
        let first = self.good.load(Ordering::Relaxed);
        let mut tries = String::new();
        for turn in 0..self.urls.len() {
            let at = (first + turn) % self.urls.len();
            match self.ask(&self.urls[at], &call).await {
                Ok(answer) => {
                    self.good.store(at, Ordering::Relaxed);
                    return answer;
                }
                Err(silence) => {
                    let gap = if tries.is_empty() { "" } else { "; " };
                    let _ok = write!(tries, "{gap}{} {}", self.urls[at], silence.why);
                    // A deletion that may have been done would find nothing the second time.
                    if call.method == Method::DELETE && !silence.is_unsent {
                        break;
                    }
                }
            }
        }
        Err(Error::Unavailable { call: call.name(), tries })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        base: &Url,
        call: &Call,
    ) -> Result<Result<T, Error>, Silence> {
        let mut request =
            self.http.request(call.method.clone(), call.url(base)).header(ACCEPT, MEDIA_TYPE);
        if let Some(Login { username, password }) = &self.login {
            request = request.basic_auth(username, Some(&password.0));
        }
        if let Some(body) = &call.body {
            request = request.header(CONTENT_TYPE, MEDIA_TYPE).body(body.clone());
        }
        let answer = request.send().await.map_err(|cause| unanswered(&cause))?;
        let status = answer.status();
        let sent = |why| Silence { why, is_unsent: false };
        let body = bounded(answer).await.map_err(sent)?;
        judge(call, status, &body).map_err(sent)
    }
}

/// Reads an answer's body, and no more than [`ANSWER_BYTES`] of it.
async fn bounded(mut answer: reqwest::Response) -> Result<Vec<u8>, String> {
    let too_long = || format!("answers with more than {} MiB", ANSWER_BYTES >> 20);
    if answer.content_length().is_some_and(|length| length > ANSWER_BYTES as u64) {
        return Err(too_long());
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|cause| unanswered(&cause).why)? {
        if body.len() + chunk.len() > ANSWER_BYTES {
            return Err(too_long());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// What an answer means; the outer error says why it isn't a registry's.
fn judge<T: DeserializeOwned>(
    call: &Call,
    status: StatusCode,
    body: &[u8],
) -> Result<Result<T, Error>, String> {
    if status.is_success() {
        let body = if body.is_empty() { b"null" } else { body };
        return serde_json::from_slice(body).map(Ok).map_err(|cause| {
            format!("answers what no schema registry does ({}: {cause})", beginning(body))
        });
    }
    let said: Option<ErrorAnswer> = serde_json::from_slice(body).ok();
    let message = match &said {
        Some(answer) if !answer.message.is_empty() => clean(answer.message.as_bytes()),
        _ => beginning(body),
    };
    let code = said.map(|answer| answer.error_code);
    let (call, status) = (call.name(), status.as_u16());
    match (status, code) {
        (401 | 403, _) => Ok(Err(Error::Refused { call, status, message })),
        (404, Some(code @ 40_400..40_500)) => Ok(Err(Error::NotFound { call, code, message })),
        (400 | 405..=407 | 409..=428 | 430..=499, Some(code)) => {
            Ok(Err(Error::Rejected { call, status, code, message }))
        }
        _ => Err(format!("answers HTTP {status}: {message}")),
    }
}

fn unanswered(cause: &reqwest::Error) -> Silence {
    let why = if cause.is_timeout() { "gives no answer in time".to_owned() } else { chain(cause) };
    let hint = if why.contains("UnknownIssuer") {
        "; name the file of its certificate authority"
    } else {
        ""
    };
    Silence { why: why + hint, is_unsent: cause.is_connect() }
}

/// The innermost cause: the outer ones repeat the URL and say little.
fn chain(cause: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = cause;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

/// The beginning of a body that isn't understood, on one line.
fn beginning(body: &[u8]) -> String {
    const CHARS: usize = 80;
    let text = clean(&body[..body.len().min(4 * CHARS)]);
    match text.char_indices().nth(CHARS) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None if text.is_empty() => "an empty body".to_owned(),
        None => format!("{text:?}"),
    }
}

/// Text from outside, fit for one line of a log.
fn clean(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MESSAGE_CHARS).collect::<String>().trim().to_owned()
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    fs::read(path)
        .map_err(|cause| Error::Configuration(format!("read {}: {cause}", path.display())))
}

fn unusable(path: &Path, cause: &dyn std::fmt::Display) -> Error {
    Error::Configuration(format!("{} can't be used: {cause}", path.display()))
}
