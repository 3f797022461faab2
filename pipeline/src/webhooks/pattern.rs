//! Patterns of topic names: `kernel.proposal.*`, where `*` stands for any characters, also none.
//!
//! **Invariant:** no pattern matches an internal topic, not even one that is its very name: attempts that
//! are recorded in a topic would deliver themselves for ever.

use std::{fmt, sync::Arc};

use aion_schemas::catalog::{Catalog, RETRIES};

/// How the names of the engine's own topics begin.
const OWN: &str = "aion.webhooks.";
/// How the names of Kafka's own topics begin.
const KAFKAS: &str = "__";

/// A pattern, as it is written in a policy.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// Reads a pattern; the error says why it can match nothing.
    pub fn new(text: &str, catalog: &Catalog) -> Result<Pattern, String> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "._-*".contains(c);
        if text.is_empty() || !text.chars().all(is_part) {
            return Err(format!(
                "topic pattern {text:?}: letters, digits, '.', '_', '-' and '*' are wanted"
            ));
        }
        if !text.contains('*') && is_internal(text, catalog) {
            return Err(format!(
                "topic {text} is internal: webhooks never deliver what the platform writes for itself"
            ));
        }
        Ok(Pattern(text.into()))
    }

    /// Whether a topic of this name is meant. Internal topics are the caller's to leave out: see
    /// [`is_internal`].
    pub fn matches(&self, topic: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = topic.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            // The first place is as good as any: what is left for the parts behind is the most.
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }

    /// The text of the policy.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Whether a topic is written by the platform itself, or by Kafka.
pub fn is_internal(topic: &str, catalog: &Catalog) -> bool {
    topic.starts_with(OWN)
        || topic.starts_with(KAFKAS)
        || topic.starts_with(RETRIES)
        || catalog.topic(topic).is_some_and(|topic| topic.internal)
}

/// Whether one of the patterns means this topic, and the topic isn't internal.
pub fn any_matches(patterns: &[Pattern], topic: &str, catalog: &Catalog) -> bool {
    !is_internal(topic, catalog) && patterns.iter().any(|pattern| pattern.matches(topic))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        Pattern(pattern.into()).matches(topic)
    }

    #[test]
    fn a_star_stands_for_any_characters() {
        for (pattern, topic) in [
            ("kernel.proposal.*", "kernel.proposal.created"),
            ("kernel.proposal.*", "kernel.proposal."),
            ("kernel.proposal.*", "kernel.proposal.a.b"),
            ("*", "anything"),
            ("*.created", "kernel.proposal.created"),
            ("kernel.*.created", "kernel.a.b.created"),
            ("a*b*c", "abbc"),
            ("a*a", "aa"),
            ("a**b", "ab"),
            ("exact", "exact"),
        ] {
            assert!(matches(pattern, topic), "{pattern} {topic}");
        }
        for (pattern, topic) in [
            ("kernel.proposal.*", "kernel.proposal"),
            ("kernel.proposal.*", "Kernel.proposal.created"),
            ("exact", "exactly"),
            ("a*a", "a"),
            ("a*b*c", "acb"),
            ("ab*bc", "abc"),
            ("*.created", "kernel.created.not"),
        ] {
            assert!(!matches(pattern, topic), "{pattern} {topic}");
        }
    }

    #[test]
    fn internal_topics_are_never_matched() {
        let catalog = Catalog::builtin();
        let all = [Pattern::new("*", &catalog).unwrap(), Pattern::new("aion.*", &catalog).unwrap()];
        for topic in catalog.topics.iter().filter(|topic| topic.internal) {
            assert!(!any_matches(&all, &topic.name, &catalog), "{}", topic.name);
            assert!(Pattern::new(&topic.name, &catalog).unwrap_err().contains("internal"));
        }
        for topic in ["aion.webhooks.attempts", "aion.retries.decisions", "__consumer_offsets"] {
            assert!(!any_matches(&all, topic, &catalog), "{topic}");
            assert!(Pattern::new(topic, &catalog).is_err(), "{topic}");
        }
        // The control: what isn't internal is matched.
        assert!(any_matches(&all, "aion.router.decisions", &catalog));
    }

    #[test]
    fn without_the_look_for_internal_topics_they_are_matched() {
        let catalog = Catalog::builtin();
        let internal: Vec<_> = catalog.topics.iter().filter(|topic| topic.internal).collect();
        let attempts = internal.iter().any(|topic| &*topic.name == "aion.webhooks.attempts");
        assert!(attempts, "the ones that would deliver themselves");
        for topic in internal {
            assert!(matches("aion.*", &topic.name) && matches("*", &topic.name), "{}", topic.name);
        }
        assert!(matches("*", "__consumer_offsets") && matches("aion.*", "aion.retries.decisions"));
    }

    #[test]
    fn what_no_topic_is_called_is_refused() {
        let catalog = Catalog::builtin();
        for text in ["", "a b", "a?c", "kernel/proposal", "ü"] {
            assert!(Pattern::new(text, &catalog).is_err(), "{text:?}");
        }
    }
}
