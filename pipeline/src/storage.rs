//! The options of an object store, from a configuration and from the environment.

use std::collections::BTreeMap;

use aion_sinks::lake::StoreOptions;

use crate::config::secret;

/// Beginnings of the names of variables that say how to reach an object store.
const VARIABLES: [&str; 3] = ["AWS_", "AZURE_STORAGE_", "GOOGLE_"];
/// Parts of the names of options whose values are secrets.
const SECRETS: [&str; 4] = ["secret", "token", "password", "account_key"];

/// What the environment says of object stores: `AWS_REGION`, `AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID` and so on.
pub fn from_environment() -> StoreOptions {
    let is_ours = |name: &str| VARIABLES.iter().any(|start| name.starts_with(start));
    // Not `vars`, which panics on text that isn't UTF-8.
    let texts = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts
        .filter(move |(name, _)| is_ours(name))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .collect()
}

/// What `[lake.storage]` says, where secrets have to be references; without it, what the environment says. Never
/// both: one option has several names, and which of two values holds would be a matter of chance.
pub(crate) fn options(table: &BTreeMap<String, toml::Value>) -> Result<StoreOptions, String> {
    if table.is_empty() {
        return Ok(from_environment());
    }
    let mut options = Vec::new();
    for (name, value) in table {
        let key = format!("lake.storage.{name}");
        let value = match value {
            toml::Value::String(text) => {
                let is_reference = text.starts_with("env:") || text.starts_with("file:");
                if !is_reference && SECRETS.iter().any(|part| name.contains(part)) {
                    let what = "a secret doesn't belong here: write env:NAME or file:PATH";
                    return Err(format!("{key}: {what}"));
                }
                secret::resolve(text).map_err(|cause| format!("{key}: {cause}"))?
            }
            toml::Value::Boolean(flag) => flag.to_string(),
            toml::Value::Integer(number) => number.to_string(),
            other => {
                let wanted = "text, a whole number or true/false is wanted";
                return Err(format!("{key}: {wanted}, not {}", other.type_str()));
            }
        };
        options.push((name.clone(), value));
    }
    Ok(options.into_iter().collect())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn parsed(text: &str) -> Result<StoreOptions, String> {
        options(&toml::from_str(text).unwrap())
    }

    #[test]
    fn secrets_are_references_and_are_never_shown() {
        let refused = parsed("secret_access_key = 'hunter2'").unwrap_err();
        assert!(refused.contains("lake.storage.secret_access_key") && !refused.contains("hunter2"));
        let shown =
            format!("{:?}", parsed("access_key_id = 'hunter2'\nallow_http = true").unwrap());
        assert!(shown.contains("access_key_id") && shown.contains("allow_http"), "{shown}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(parsed("region = []").unwrap_err().contains("text"));
    }
}
