//! References to secrets: `env:NAME` and `file:PATH`; other text stands for itself.

/// Resolves a reference. The error never shows what was read.
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
