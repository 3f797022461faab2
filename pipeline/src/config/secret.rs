//! References to secrets: `env:NAME` and `file:PATH`; other text stands for itself.

/// The value that a text refers to, or the text.
pub(crate) fn resolve(text: &str) -> Result<String, String> {
    if let Some(name) = text.strip_prefix("env:") {
        return std::env::var(name).map_err(|_| format!("environment variable {name} is not set"));
    }
    if let Some(path) = text.strip_prefix("file:") {
        return std::fs::read_to_string(path)
            .map(|secret| secret.trim_end_matches(['\r', '\n']).to_owned())
            .map_err(|cause| format!("read secret file {path}: {cause}"));
    }
    Ok(text.to_owned())
}

/// The value of a secret, which has to be a reference.
pub(crate) fn required(text: &str) -> Result<String, String> {
    if text.starts_with("env:") || text.starts_with("file:") {
        return resolve(text);
    }
    Err("a secret doesn't belong here: write env:NAME or file:PATH".to_owned())
}

/// The value of a librdkafka property; one that is a secret has to be a reference.
pub(crate) fn property(name: &str, text: &str) -> Result<String, String> {
    if aion_kafka::is_secret(name) { required(text) } else { resolve(text) }
}
