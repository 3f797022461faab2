//! A shared secret, which no log shows.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;

/// The shortest secret that is taken: what can be guessed signs nothing.
const MIN_CHARS: usize = 16;
/// How a secret begins that stands for the bytes of its base64, as Standard Webhooks writes them.
const PREFIX: &str = "whsec_";

/// A secret, ready to sign.
#[derive(Clone)]
pub struct Secret {
    /// Over the secret's own text: `X-Aion-Signature`.
    pub(crate) text: hmac::Key,
    /// Over the bytes that Standard Webhooks understands by it: `webhook-signature`.
    pub(crate) standard: hmac::Key,
}

impl Secret {
    /// Reads a secret.
    pub fn new(text: &str) -> Result<Secret, String> {
        if text.len() < MIN_CHARS {
            return Err(format!(
                "a secret has {MIN_CHARS} characters or more: `openssl rand -hex 32` makes a good one"
            ));
        }
        let standard = match text.strip_prefix(PREFIX) {
            Some(encoded) => STANDARD
                .decode(encoded)
                .map_err(|_| format!("a secret that begins with {PREFIX} goes on in base64"))?,
            None => text.as_bytes().to_vec(),
        };
        let key = |bytes: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, bytes);
        Ok(Secret { text: key(text.as_bytes()), standard: key(&standard) })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
