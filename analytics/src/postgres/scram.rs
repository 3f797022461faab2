//! SCRAM-SHA-256 (RFC 5802, RFC 7677): a client proves that it knows a password, and the server that it has
//! its verifier, without the password being said.
//!
//! | from | message |
//! |---|---|
//! | client | `n,,n=,r=NONCE` |
//! | server | `r=NONCE+MORE,s=SALT,i=ITERATIONS` |
//! | client | `c=biws,r=NONCE+MORE,p=PROOF` |
//! | server | `v=SIGNATURE` |
//!
//! Deliberately absent: binding to the TLS channel (`SCRAM-SHA-256-PLUS`).

use std::sync::Arc;

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use pgwire::{
    api::{
        ClientInfo,
        auth::mechanism::{AuthMechanism, AuthState},
    },
    error::{PgWireError, PgWireResult},
    messages::startup::{Authentication, PasswordMessageFamily},
};
use ring::digest;

use super::access::{Users, Verifier, keyed, random};

/// The only mechanism that is offered.
const NAME: &str = "SCRAM-SHA-256";

/// One connection's proof.
pub(super) struct Scram {
    users: Arc<Users>,
    begun: Option<Begun>,
}

/// What was said so far.
struct Begun {
    verifier: Verifier,
    /// How the client's first message begins: nothing about channels or other people's names.
    header: String,
    /// The rest of it.
    client_first: String,
    server_first: String,
    nonce: String,
}

impl Scram {
    /// A proof that is still to come.
    pub(super) fn new(users: &Arc<Users>) -> Scram {
        Scram { users: Arc::clone(users), begun: None }
    }
}

#[async_trait]
impl AuthMechanism for Scram {
    async fn begin(&mut self, _: &(dyn ClientInfo + Send + Sync)) -> PgWireResult<AuthState> {
        Ok(AuthState::InProgress(Authentication::SASL(vec![NAME.to_owned()])))
    }

    async fn next(
        &mut self,
        client: &(dyn ClientInfo + Send + Sync),
        message: PasswordMessageFamily,
    ) -> PgWireResult<AuthState> {
        let user = client.metadata().get("user").map_or("", String::as_str);
        let Some(begun) = self.begun.take() else {
            let message = message.into_sasl_response()?.data;
            let first =
                initial(&message).ok_or_else(|| wrong("no first message of SCRAM-SHA-256"))?;
            let first = text(first)?;
            let more = STANDARD.encode(random::<18>());
            let begun = Begun::of(self.users.verifier(user), first, &more).map_err(wrong)?;
            let answer = Bytes::from(begun.server_first.clone());
            self.begun = Some(begun);
            return Ok(AuthState::InProgress(Authentication::SASLContinue(answer)));
        };
        let message = message.into_sasl_response()?;
        let signature = begun.end(text(&message.data)?).map_err(wrong)?;
        let signature = signature.ok_or_else(|| PgWireError::InvalidPassword(user.to_owned()))?;
        let last = Authentication::SASLFinal(format!("v={signature}").into());
        Ok(AuthState::Ok { final_message: Some(last), identity: None })
    }
}

impl Begun {
    /// Reads the client's first message, and answers with a nonce that has `more` in it.
    fn of(verifier: Verifier, first: &str, more: &str) -> Result<Begun, &'static str> {
        let (flag, rest) = first.split_once(',').ok_or("no header")?;
        let (other, client_first) = rest.split_once(',').ok_or("no header")?;
        if !matches!(flag, "n" | "y") {
            return Err("binding to a channel isn't offered");
        }
        if !other.is_empty() {
            return Err("nobody comes in as somebody else");
        }
        let (name, rest) = client_first.split_once(',').ok_or("no nonce")?;
        let nonce = rest.split(',').next().and_then(|part| part.strip_prefix("r="));
        let nonce = nonce.filter(|nonce| !nonce.is_empty()).ok_or("no nonce")?;
        // The name is that of the startup message; here clients leave it empty.
        if !name.starts_with("n=") {
            return Err("no name");
        }
        let nonce = format!("{nonce}{more}");
        let salt = STANDARD.encode(&verifier.salt);
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations);
        let (header, client_first) = (format!("{flag},,"), client_first.to_owned());
        Ok(Begun { verifier, header, client_first, server_first, nonce })
    }

    /// Reads the client's last message; the server's signature where the proof holds.
    fn end(&self, last: &str) -> Result<Option<String>, &'static str> {
        let (said, proof) = last.rsplit_once(",p=").ok_or("no proof")?;
        let mut parts = said.split(',');
        let header = parts.next().and_then(|part| part.strip_prefix("c="));
        if header != Some(&*STANDARD.encode(&self.header)) {
            return Err("another header than before");
        }
        if parts.next().and_then(|part| part.strip_prefix("r=")) != Some(&*self.nonce) {
            return Err("another nonce than before");
        }
        let proof = STANDARD.decode(proof).map_err(|_| "the proof isn't base64")?;
        let all = format!("{},{},{said}", self.client_first, self.server_first);
        let Verifier { stored_key, server_key, .. } = &self.verifier;
        let signature = keyed(stored_key, all.as_bytes());
        if proof.len() != signature.len() {
            return Err("the proof has another length");
        }
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        let hashed = digest::digest(&digest::SHA256, &client_key);
        // All bytes are compared, so that time tells nothing.
        let differ = hashed.as_ref().iter().zip(stored_key).fold(0, |sum, (a, b)| sum | (a ^ b));
        Ok((differ == 0).then(|| STANDARD.encode(keyed(server_key, all.as_bytes()))))
    }
}

/// What a client says first of all, after the name of the mechanism and the length of what follows.
fn initial(message: &[u8]) -> Option<&[u8]> {
    let rest = message.strip_prefix(NAME.as_bytes())?.strip_prefix(b"\0")?;
    let (length, said) = rest.split_first_chunk::<4>()?;
    (i32::from_be_bytes(*length) == said.len() as i32).then_some(said)
}

fn text(bytes: &[u8]) -> PgWireResult<&str> {
    std::str::from_utf8(bytes).map_err(|_| wrong("it isn't UTF-8"))
}

fn wrong(what: &str) -> PgWireError {
    PgWireError::InvalidScramMessage(what.to_owned())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    /// The exchange of RFC 7677, section 3.
    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const MORE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    fn begun() -> Begun {
        let mut users = Users::default();
        let verifier = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$\
                        WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:\
                        wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
        users.add("user", verifier).unwrap();
        Begun::of(users.verifier("user"), FIRST, MORE).unwrap()
    }

    #[test]
    fn the_rfcs_own_exchange_holds() {
        let begun = begun();
        let server_first = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                            s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(begun.server_first, server_first);
        let signature = "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(begun.end(LAST).unwrap().as_deref(), Some(signature));
    }

    #[test]
    fn what_is_changed_on_the_way_is_no_proof() {
        let begun = begun();
        assert_eq!(begun.end(&LAST.replace("p=dH", "p=dh")), Ok(None));
        for broken in [
            LAST.replace("biws", "eSws"),
            LAST.replace("k0,", "k1,"),
            LAST.replace("VQ=", ""),
            LAST.replace(",p=", ",q="),
            String::new(),
        ] {
            assert!(begun.end(&broken).is_err(), "{broken}");
        }
        for first in ["", "n", "n,,", "p=tls-server-end-point,,n=,r=a", "n,a=x,n=,r=a", "n,,n=,r="]
        {
            assert!(Begun::of(begun.verifier.clone(), first, MORE).is_err(), "{first}");
        }
    }
}
