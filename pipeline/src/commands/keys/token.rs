//! `aion keys token`.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};

use crate::{
    config::secret,
    exit::{Exit, Failure},
};

/// The arguments of `aion keys token`.
#[derive(Debug, clap::Args)]
pub(super) struct TokenArgs {
    /// Whom it is about.
    #[arg(long, value_name = "NAME")]
    subject: String,
    /// The secret that the issuer shares with the policy, as `env:NAME` or `file:PATH`.
    #[arg(long, value_name = "SECRET")]
    secret: String,
    /// The issuer's name, as the policy has it.
    #[arg(long, value_name = "ISSUER")]
    issuer: String,
    /// Our name, as the policy has it.
    #[arg(long, value_name = "AUDIENCE", default_value = "aion")]
    audience: String,
    /// The issuer's names of roles, with commas.
    #[arg(long, value_name = "ROLE", value_delimiter = ',')]
    roles: Vec<String>,
    /// How long it is good for.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(i64).range(1..=86_400))]
    seconds: i64,
}

/// Prints a token.
pub(super) fn run(args: &TokenArgs) -> Result<(), Failure> {
    let secret = secret::required(&args.secret);
    let secret = secret.map_err(|cause| Failure::new(Exit::Usage, format!("--secret: {cause}")))?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = since.as_secs() as i64;
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!(
        "{}.{}",
        encode(&json!({"alg": "HS256", "typ": "JWT"})),
        encode(&json!({
            "iss": args.issuer, "aud": args.audience, "sub": args.subject, "roles": args.roles,
            "nbf": now, "exp": now + args.seconds,
        }))
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    println!("{signed}.{signature}");
    Ok(())
}
