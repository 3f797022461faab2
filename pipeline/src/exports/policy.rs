//! `policies/exports.yaml`: which privacy tiers may leave the platform.
//!
//! **Invariant:** what isn't named stays in: without a policy only [`PUBLIC`] goes out.

use std::{collections::BTreeSet, path::Path};

use serde::Deserialize;

/// The tier that goes out where no policy says otherwise.
pub const PUBLIC: &str = "public";

/// The policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Privacy tiers whose rows may be exported.
    pub tiers: BTreeSet<String>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { tiers: BTreeSet::from([PUBLIC.to_owned()]) }
    }
}

impl Policy {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Policy, String> {
        let place = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|cause| format!("{place} can't be read: {cause}"))?;
        let policy: Policy =
            serde_saphyr::from_str(&text).map_err(|cause| format!("{place}: {cause}"))?;
        if policy.tiers.iter().any(String::is_empty) {
            return Err(format!("{place}: tiers: a tier has a name"));
        }
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn what_isnt_named_stays_in() {
        assert_eq!(Policy::default().tiers.into_iter().collect::<Vec<_>>(), ["public"]);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exports.yaml");
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Policy::load(&path)
        };
        assert_eq!(
            load("tiers: [internal]").unwrap().tiers.into_iter().collect::<Vec<_>>(),
            ["internal"]
        );
        assert!(load("tires: [internal]").unwrap_err().contains("tires"));
        assert!(load("tiers: ['']").unwrap_err().contains("has a name"));
        assert!(Policy::load(&folder.path().join("none")).unwrap_err().contains("can't be read"));
    }
}
