//! The keys that issuers sign with: a JSON Web Key Set from a file or a URL.
//!
//! **Invariant:** a set is asked for at most once a minute, however many tokens name keys that it doesn't have; and
//! once more when the policy is read again.
//! **Invariant:** a set that can't be had changes nothing: the keys that were known hold.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Client, redirect};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use url::{Host, Url};

use super::jwt::{Algorithm, Flaw};

/// The least time between two fetches.
const APART: Duration = Duration::from_mins(1);
/// Keys are fetched again after this time, so that one that was withdrawn doesn't hold for ever.
const OLD: Duration = Duration::from_mins(10);
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest set.
const MAX_BYTES: usize = 256 << 10;
/// The most keys of one.
const MAX_KEYS: usize = 100;

/// Where a set is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A file.
    File(PathBuf),
    /// Over HTTP.
    Url(Url),
}

impl Place {
    /// Reads `file:PATH` or `https://..`; without encryption from this machine only.
    pub fn parse(text: &str) -> Result<Place, String> {
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Place::File(path.into()));
        }
        let wanted = || format!("jwks {text:?}: https://HOST/PATH or file:PATH is wanted");
        let url = Url::parse(text).map_err(|_| wanted())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(
                "jwks: a URL with a name or a password in it would stand in logs".to_owned()
            );
        }
        let is_here = match url.host() {
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            _ => false,
        };
        if url.scheme() == "https" || (url.scheme() == "http" && is_here) {
            return Ok(Place::Url(url));
        }
        Err(wanted())
    }
}

/// A set of keys.
pub struct Jwks {
    /// Where it is.
    pub place: Place,
    keys: Mutex<Arc<Vec<Jwk>>>,
    fetched: tokio::sync::Mutex<Fetched>,
}

/// When it was asked for last, and when that was answered.
#[derive(Default)]
struct Fetched {
    asked: Option<Instant>,
    answered: Option<Instant>,
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwks").field("place", &self.place).finish_non_exhaustive()
    }
}

/// A public key of a set.
#[derive(Clone, Debug)]
struct Jwk {
    kid: Option<String>,
    algorithm: Algorithm,
    key: Key,
}

#[derive(Clone, Debug)]
enum Key {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// An uncompressed point, or the 32 bytes of Ed25519.
    Point(Vec<u8>),
}

impl Jwks {
    /// The set of that place, which isn't read yet.
    pub fn at(place: Place) -> Jwks {
        Jwks { place, keys: Mutex::default(), fetched: tokio::sync::Mutex::default() }
    }

    /// Begins with what another knew.
    pub fn take_over(&self, other: &Jwks) {
        *self.lock() = Arc::clone(&other.lock());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Arc<Vec<Jwk>>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the set has the key.
    pub fn has(&self, kid: Option<&str>, algorithm: Algorithm) -> bool {
        self.find(kid, algorithm).is_some()
    }

    /// The key of that name, or the only one of that kind where no name is given.
    fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<Jwk> {
        let keys = Arc::clone(&self.lock());
        let mut fitting = keys.iter().filter(|key| {
            key.algorithm == algorithm && kid.is_none_or(|kid| key.kid.as_deref() == Some(kid))
        });
        match (fitting.next(), fitting.next()) {
            (Some(one), None) => Some(one.clone()),
            _ => None,
        }
    }

    /// Verifies a signature.
    pub fn verify(
        &self,
        (kid, algorithm): (Option<&str>, Algorithm),
        signed: &[u8],
        signature: &[u8],
    ) -> Result<(), Flaw> {
        let Jwk { key, .. } = self.find(kid, algorithm).ok_or("no such key")?;
        let verified = match (&key, algorithm) {
            (Key::Rsa { n, e }, Algorithm::RS256) => RsaPublicKeyComponents { n, e }.verify(
                &RSA_PKCS1_2048_8192_SHA256,
                signed,
                signature,
            ),
            (Key::Point(point), Algorithm::ES256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature)
            }
            (Key::Point(point), Algorithm::EdDSA) => {
                UnparsedPublicKey::new(&ED25519, point).verify(signed, signature)
            }
            _ => return Err("no such key"),
        };
        verified.map_err(|_| "signature")
    }

    /// Fetches the set, unless it was asked for a moment ago.
    pub async fn refresh(self: &Arc<Jwks>) {
        let keys = Arc::clone(self);
        // A task of its own: a request whose client goes away doesn't take the answer with it.
        drop(tokio::spawn(async move { keys.ask().await }).await);
    }

    async fn ask(&self) {
        let mut fetched = self.fetched.lock().await;
        if fetched.asked.is_some_and(|at| at.elapsed() < APART) {
            return;
        }
        fetched.asked = Some(Instant::now());
        match self.fetch().await {
            Ok(keys) => {
                *self.lock() = Arc::new(keys);
                fetched.answered = fetched.asked;
            }
            Err(cause) => tracing::warn!("access: the keys at {:?}: {cause}", self.place),
        }
    }

    /// Fetches it, where what is known is old.
    pub async fn refresh_if_old(self: &Arc<Jwks>) {
        let is_old = self.fetched.lock().await.answered.is_none_or(|at| at.elapsed() >= OLD);
        if is_old {
            self.refresh().await;
        }
    }

    async fn fetch(&self) -> Result<Vec<Jwk>, String> {
        let text = match &self.place {
            Place::File(path) => tokio::fs::read(path).await.map_err(|cause| cause.to_string())?,
            Place::Url(url) => download(url).await.map_err(|cause| cause.to_string())?,
        };
        read(&text)
    }
}

async fn download(url: &Url) -> Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>> {
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(TIMEOUT)
        .timeout(TIMEOUT)
        .build()?;
    let mut answer = client.get(url.clone()).send().await?.error_for_status()?;
    let mut text = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        text.extend_from_slice(&chunk);
        if text.len() > MAX_BYTES {
            return Err(format!("it is longer than {} KiB", MAX_BYTES >> 10).into());
        }
    }
    Ok(text)
}

#[derive(Deserialize)]
struct SetFile {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct KeyFile {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Reads a set; keys of other kinds, for other purposes or without form are passed over.
fn read(text: &[u8]) -> Result<Vec<Jwk>, String> {
    let set: SetFile =
        serde_json::from_slice(text).map_err(|cause| format!("no key set: {cause}"))?;
    if set.keys.len() > MAX_KEYS {
        return Err(format!("more than {MAX_KEYS} keys"));
    }
    // A set without a key that is known says that none is valid any more.
    Ok(set.keys.into_iter().filter_map(|one| key(serde_json::from_value(one).ok()?)).collect())
}

fn key(file: KeyFile) -> Option<Jwk> {
    if file.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
        return None;
    }
    let bytes = |text: Option<&String>| URL_SAFE_NO_PAD.decode(text?).ok();
    let (algorithm, key) = match (&*file.kty, file.crv.as_deref()) {
        ("RSA", None) => {
            let (n, e) = (bytes(file.n.as_ref())?, bytes(file.e.as_ref())?);
            (Algorithm::RS256, Key::Rsa { n, e })
        }
        ("EC", Some("P-256")) => {
            let (x, y) = (bytes(file.x.as_ref())?, bytes(file.y.as_ref())?);
            let is_point = x.len() == 32 && y.len() == 32;
            let point = [&[4][..], &x, &y].concat();
            (Algorithm::ES256, is_point.then_some(Key::Point(point))?)
        }
        ("OKP", Some("Ed25519")) => {
            let x = bytes(file.x.as_ref()).filter(|x| x.len() == 32)?;
            (Algorithm::EdDSA, Key::Point(x))
        }
        _ => return None,
    };
    let fits = file.alg.as_deref().is_none_or(|name| name == algorithm.name());
    fits.then_some(Jwk { kid: file.kid, algorithm, key })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_set_may_withdraw_every_key_and_one_without_form_hides_no_other() {
        let kids = |text: &str| {
            let keys = read(text.as_bytes()).unwrap();
            keys.into_iter().map(|key| key.kid.unwrap()).collect::<Vec<_>>()
        };
        let good = format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{}"}}"#, "A".repeat(43));
        assert_eq!(kids(&format!(r#"{{"keys":[{good}]}}"#)), ["a"]);
        assert_eq!(kids(&format!(r#"{{"keys":[{{"kid":"b"}},7,{good}]}}"#)), ["a"]);
        assert!(kids(r#"{"keys":[]}"#).is_empty());
        assert!(read(b"{}").is_err() && read(b"<html>").is_err());
    }
    #[tokio::test]
    async fn who_goes_away_doesnt_take_the_keys_with_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let (came, go_on) = (Arc::new(tokio::sync::Notify::new()), tokio::sync::watch::channel(()));
        let (told, wait) = (Arc::clone(&came), go_on.1);
        let answer = move || {
            let (told, mut wait) = (Arc::clone(&told), wait.clone());
            async move {
                told.notify_one();
                wait.changed().await.unwrap();
                let x = "A".repeat(43);
                format!(r#"{{"keys":[{{"kty":"OKP","crv":"Ed25519","kid":"a","x":"{x}"}}]}}"#)
            }
        };
        let app = axum::Router::new().route("/jwks", axum::routing::get(answer));
        tokio::spawn(axum::serve(listener, app).into_future());
        let keys = Arc::new(Jwks::at(Place::parse(&url).unwrap()));
        {
            let mut asking = std::pin::pin!(keys.refresh());
            tokio::select! {
                () = &mut asking => panic!("nothing is answered yet"),
                () = came.notified() => {}
            }
        }
        assert!(!keys.has(Some("a"), Algorithm::EdDSA));
        go_on.0.send(()).unwrap();
        // It isn't asked again within a minute: what comes is what was asked for by who went away.
        keys.refresh().await;
        assert!(keys.has(Some("a"), Algorithm::EdDSA));
    }
}
