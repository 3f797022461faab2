//! Who may use `/v1`: whoever has one of the keys.

use std::fmt;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};

/// The shortest key that is taken: what can be guessed is no key.
const MIN_CHARS: usize = 16;

/// A key, which no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// A key of this text, which goes into a header; a short one is refused.
    pub fn new(text: String) -> Result<Key, String> {
        if text.len() < MIN_CHARS || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "a key has {MIN_CHARS} printable ASCII characters or more and no blanks: `openssl rand \
                 -hex 32` makes a good one"
            ));
        }
        Ok(Key(text))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Who is let in.
#[derive(Clone, Debug)]
pub enum Keys {
    /// Everybody: on addresses of this machine, where `aion dev` listens.
    Everybody,
    /// Whoever has one of these; nobody if there is none.
    Holders(Vec<Key>),
}

impl Keys {
    /// Whether a request is let in; otherwise the answer for it.
    pub(super) fn admit(&self, headers: &HeaderMap) -> Result<(), (StatusCode, &'static str)> {
        let Keys::Holders(keys) = self else {
            // A page in a browser on this machine must not publish for whoever it came from.
            return if headers.contains_key(header::ORIGIN) {
                Err((StatusCode::FORBIDDEN, "requests from web pages need keys: see [http] keys"))
            } else {
                Ok(())
            };
        };
        if keys.is_empty() {
            return Err((
                StatusCode::FORBIDDEN,
                "/v1 is off: give [http] keys in the configuration",
            ));
        }
        let given = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
        let bearer = given.and_then(|value| value.split_at_checked("Bearer ".len()));
        let given = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"Bearer "));
        let Some((_, given)) = given else {
            return Err((
                StatusCode::UNAUTHORIZED,
                "a header `Authorization: Bearer KEY` is needed",
            ));
        };
        // Each is looked at, so that the time says nothing about which is nearly right.
        let fits = keys.iter().fold(false, |fits, key| fits | is_same(key.0.as_bytes(), given));
        if fits { Ok(()) } else { Err((StatusCode::UNAUTHORIZED, "the key isn't known")) }
    }
}

/// Compares without telling by the time where two texts differ.
fn is_same(key: &[u8], given: &[u8]) -> bool {
    key.len() == given.len() && key.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    fn status(keys: &Keys, pairs: &[(header::HeaderName, &str)]) -> Option<StatusCode> {
        keys.admit(&headers(pairs)).err().map(|(status, _)| status)
    }

    #[test]
    fn only_holders_of_a_key_are_let_in() {
        let key = |text: &str| Key::new(text.to_owned()).unwrap();
        let keys = Keys::Holders(vec![key("0123456789abcdef"), key("fedcba9876543210")]);
        for (given, refused) in [
            ("Bearer 0123456789abcdef", None),
            ("bearer fedcba9876543210", None),
            ("Bearer 0123456789abcdeF", Some(StatusCode::UNAUTHORIZED)),
            ("Bearer 0123456789abcde", Some(StatusCode::UNAUTHORIZED)),
            ("Bearer ", Some(StatusCode::UNAUTHORIZED)),
            ("Basic 0123456789abcdef", Some(StatusCode::UNAUTHORIZED)),
            ("0123456789abcdef", Some(StatusCode::UNAUTHORIZED)),
        ] {
            assert_eq!(status(&keys, &[(header::AUTHORIZATION, given)]), refused, "{given}");
        }
        assert_eq!(status(&keys, &[]), Some(StatusCode::UNAUTHORIZED));
        let nobody = Keys::Holders(Vec::new());
        let given = [(header::AUTHORIZATION, "Bearer 0123456789abcdef")];
        assert_eq!(status(&nobody, &given), Some(StatusCode::FORBIDDEN));
    }

    #[test]
    fn without_keys_a_web_page_is_not_let_in() {
        assert_eq!(status(&Keys::Everybody, &[]), None);
        let page = [(header::ORIGIN, "https://example.com")];
        assert_eq!(status(&Keys::Everybody, &page), Some(StatusCode::FORBIDDEN));
    }

    #[test]
    fn a_key_is_long_and_is_not_shown() {
        assert!(Key::new("short".to_owned()).unwrap_err().contains("16"));
        assert!(Key::new("with a blank in it".to_owned()).is_err());
        let key = Key::new("0123456789abcdef".to_owned()).unwrap();
        assert_eq!(format!("{key:?}"), "***");
    }
}
