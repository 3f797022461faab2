//! What is asked of a table, and what keeps it from giving that.
//!
//! | with a finding of weight | exactly once is asked for | at least once is |
//! |---|---|---|
//! | [`Weight::Loses`]: rows would be missing, or other than they are | refused | refused |
//! | [`Weight::Doubles`]: a row may be there twice | refused | told |
//! | [`Weight::Word`]: the table itself is as it has to be | told | told |
//!
//! **Invariant:** at least once is never fallen back to: it is asked for in the configuration, or the table is refused.

use serde::{Deserialize, Serialize};

use crate::sink::SinkError;

/// What to do about a table that isn't as it has to be.
pub(super) const HINT: &str =
    "run `aion clickhouse plan` to see what differs, and `aion clickhouse apply`";
/// What else can be done where rows would be there twice at worst.
const LESS: &str = "or let rows be there twice, and none be missing: guarantee = \"at_least_once\" in its [[job]], or in [clickhouse]";

/// What is asked of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// Each offset is one row. A table that can't give that is refused, and one that has a batch twice stops its job.
    #[default]
    ExactlyOnce,
    /// No offset is missing. The ledger is kept all the same, and what it can't keep out stops nobody.
    AtLeastOnce,
}

impl Guarantee {
    /// What it is called.
    pub fn words(self) -> &'static str {
        match self {
            Guarantee::ExactlyOnce => "exactly once",
            Guarantee::AtLeastOnce => "at least once",
        }
    }

    fn is_given_with(self, weight: Weight) -> bool {
        match weight {
            Weight::Word => true,
            Weight::Doubles => self == Guarantee::AtLeastOnce,
            Weight::Loses => false,
        }
    }
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// The table's own rows are as they have to be.
    Word,
    /// Rows may be there twice.
    Doubles,
    /// Rows may be missing, or other than they were sent.
    Loses,
}

/// Something about a table that its owner should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What can't be had with it.
    pub weight: Weight,
    /// What it is.
    pub what: String,
    /// What to do about it.
    pub hint: String,
}

impl Finding {
    pub(super) fn new(weight: Weight, what: String) -> Finding {
        Finding { weight, what, hint: HINT.to_owned() }
    }

    pub(super) fn hinted(self, hint: impl Into<String>) -> Finding {
        Finding { hint: hint.into(), ..self }
    }
}

/// Refuses a table by what was found of it; everything that has to change is in the error.
pub(super) fn refuse(
    guarantee: Guarantee,
    doing: &str,
    findings: &[Finding],
) -> Result<(), SinkError> {
    let is_refused = |one: &&Finding| !guarantee.is_given_with(one.weight);
    let refused: Vec<&Finding> = findings.iter().filter(is_refused).collect();
    if refused.is_empty() {
        return Ok(());
    }
    let mut hints: Vec<&str> = Vec::new();
    for one in &refused {
        if !hints.contains(&one.hint.as_str()) {
            hints.push(&one.hint);
        }
    }
    if refused.iter().all(|one| one.weight == Weight::Doubles) {
        hints.push(LESS);
    }
    let causes: Vec<&str> = refused.iter().map(|one| one.what.as_str()).collect();
    Err(SinkError::Fatal {
        doing: doing.to_owned(),
        cause: causes.join("; "),
        hint: hints.join("; "),
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn told(guarantee: Guarantee, weights: &[Weight]) -> Result<(), String> {
        let find = |weight: &Weight| Finding::new(*weight, format!("{weight:?}"));
        let findings: Vec<Finding> = weights.iter().map(find).collect();
        refuse(guarantee, "look", &findings).map_err(|cause| cause.to_string())
    }

    #[test]
    fn what_cant_be_had_is_refused_unless_less_is_asked_for() {
        use Guarantee::{AtLeastOnce, ExactlyOnce};
        use Weight::{Doubles, Loses, Word};
        for guarantee in [ExactlyOnce, AtLeastOnce] {
            assert_eq!(told(guarantee, &[Word]), Ok(()));
            let both = told(guarantee, &[Word, Loses]).unwrap_err();
            assert!(both.starts_with("look: Loses; run `aion clickhouse plan`"), "{both}");
            assert!(!both.contains("at_least_once"), "it would not help: {both}");
        }
        assert_eq!(told(AtLeastOnce, &[Word, Doubles]), Ok(()));
        let one = told(ExactlyOnce, &[Doubles, Word, Doubles]).unwrap_err();
        assert!(one.starts_with("look: Doubles; Doubles; run `aion"), "{one}");
        assert!(one.contains("guarantee = \"at_least_once\""), "{one}");
        assert_eq!(one.matches("aion clickhouse plan").count(), 1, "said once: {one}");
        let all = told(AtLeastOnce, &[Doubles, Loses]).unwrap_err();
        assert!(all.starts_with("look: Loses; "), "what is put up with isn't named: {all}");
    }
}
