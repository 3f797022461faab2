//! Tokens: JWS in compact form, verified by what an issuer is configured with and by nothing that a token says.
//!
//! | part | what is asked of it |
//! |---|---|
//! | `alg` | one of the issuer's algorithms, letter for letter |
//! | `crit`, `jku`, `jwk`, `x5u`, `x5c` | not there: an extension that isn't known, a key from a stranger |
//! | `kid` | names the key; without it the issuer has one key of that kind only |
//! | `iss`, `aud`, `sub` | the issuer's, ours, somebody |
//! | `exp`, `nbf` | whole numbers, both there, with the issuer's leeway around now |
//!
//! The signatures themselves are `ring`'s, which TLS stands on too.
//!
//! **Invariant:** an issuer has a shared secret or public keys, never both, so no public key is taken for a
//! secret.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::policy::Issuer;
use crate::strict_json;

/// The longest subject.
const MAX_SUBJECT_BYTES: usize = 200;
/// The longest `kid`.
const MAX_KID_BYTES: usize = 200;

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    HS256,
    /// RSA (PKCS #1 v1.5) with SHA-256.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    /// As tokens write it.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::HS256 => "HS256",
            Algorithm::RS256 => "RS256",
            Algorithm::ES256 => "ES256",
            Algorithm::EdDSA => "EdDSA",
        }
    }
}

/// A token that was taken apart; nothing of it is verified.
#[derive(Debug)]
pub struct Token<'a> {
    header: Map<String, Value>,
    claims: Map<String, Value>,
    /// What is signed.
    pub signed: &'a [u8],
    /// The signature over it.
    pub signature: Vec<u8>,
}

/// What a verified token says.
#[derive(Debug, PartialEq, Eq)]
pub struct Claims {
    /// Whom it is about.
    pub subject: String,
    /// The issuer's names of what they are.
    pub roles: Vec<String>,
    /// For whom they act, where the issuer says so.
    pub tenants: Option<Vec<String>>,
}

/// What is wrong with a token; for our own logs only.
pub type Flaw = &'static str;

/// Whether a credential has the form of a token.
pub fn looks_like(credential: &str) -> bool {
    credential.bytes().filter(|byte| *byte == b'.').count() == 2
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub fn parse(text: &'a str) -> Result<Token<'a>, Flaw> {
        let (signed, signature) = text.rsplit_once('.').ok_or("no token")?;
        let (header, claims) = signed.split_once('.').ok_or("no token")?;
        let object = |part: &str| -> Result<Map<String, Value>, Flaw> {
            let text = URL_SAFE_NO_PAD.decode(part).map_err(|_| "no base64url")?;
            match strict_json::parse(&text) {
                Ok(Value::Object(members)) => Ok(members),
                _ => Err("no JSON object, or a name that stands twice"),
            }
        };
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "no base64url")?;
        let (header, claims) = (object(header)?, object(claims)?);
        Ok(Token { header, claims, signed: signed.as_bytes(), signature })
    }

    /// Who says to have issued it.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss")?.as_str()
    }

    /// The key that it names.
    pub fn kid(&self) -> Result<Option<&str>, Flaw> {
        match self.header.get("kid") {
            None => Ok(None),
            Some(Value::String(kid)) if kid.len() <= MAX_KID_BYTES => Ok(Some(kid)),
            Some(_) => Err("kid"),
        }
    }

    /// Its algorithm, if the issuer signs so.
    pub fn algorithm(&self, allowed: &[Algorithm]) -> Result<Algorithm, Flaw> {
        for name in ["crit", "jku", "jwk", "x5u", "x5c"] {
            if self.header.contains_key(name) {
                return Err("a header that isn't taken");
            }
        }
        if let Some(kind) = self.header.get("typ") {
            let kind = kind.as_str().map(str::to_ascii_lowercase);
            if !matches!(kind.as_deref(), Some("jwt" | "at+jwt" | "application/at+jwt")) {
                return Err("typ");
            }
        }
        let given = self.header.get("alg").and_then(Value::as_str).ok_or("no alg")?;
        allowed.iter().copied().find(|one| one.name() == given).ok_or("alg")
    }

    /// What it says to whom; its signature has to be verified too.
    pub fn claims(&self, issuer: &Issuer, now: i64) -> Result<Claims, Flaw> {
        if self.issuer() != Some(&*issuer.issuer) {
            return Err("iss");
        }
        if !texts(self.claims.get("aud")).ok_or("aud")?.contains(&&*issuer.audience) {
            return Err("aud");
        }
        let time = |name: &str| self.claims.get(name).and_then(Value::as_i64);
        let (expires, begins) = (time("exp").ok_or("exp")?, time("nbf").ok_or("nbf")?);
        if now >= expires.saturating_add(issuer.leeway_s) {
            return Err("expired");
        }
        if now < begins.saturating_sub(issuer.leeway_s) {
            return Err("not valid yet");
        }
        let subject = self.claims.get("sub").and_then(Value::as_str).ok_or("sub")?;
        let is_plain = subject.chars().all(|c| !c.is_control());
        if subject.is_empty() || subject.len() > MAX_SUBJECT_BYTES || !is_plain {
            return Err("sub");
        }
        let roles = self.claims.get(&issuer.roles_claim);
        let roles = roles.map_or(Some(Vec::new()), |roles| words(Some(roles))).ok_or("roles")?;
        let tenants = match issuer.tenants_claim.as_deref() {
            None => None,
            Some(claim) => Some(words(self.claims.get(claim)).ok_or("tenants")?),
        };
        let own = |all: Vec<&str>| all.into_iter().map(str::to_owned).collect();
        Ok(Claims { subject: subject.to_owned(), roles: own(roles), tenants: tenants.map(own) })
    }
}

/// A text, or several.
fn texts(value: Option<&Value>) -> Option<Vec<&str>> {
    match value? {
        Value::String(one) => Some(vec![one]),
        Value::Array(all) => all.iter().map(Value::as_str).collect(),
        _ => None,
    }
}

/// Words with blanks between them, or a list.
fn words(value: Option<&Value>) -> Option<Vec<&str>> {
    match value? {
        Value::String(words) => Some(words.split_ascii_whitespace().collect()),
        other => texts(Some(other)),
    }
}
