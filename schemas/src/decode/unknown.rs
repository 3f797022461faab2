//! Counts of fields that events have and the contract doesn't.

use std::collections::BTreeMap;

/// How many names are told apart before the rest is counted as [`OTHER`].
const MAX_NAMES: usize = 64;
/// Longer names are counted as [`OTHER`] at once.
const MAX_NAME_BYTES: usize = 128;
const OTHER: &str = "other";

/// Counts by name, bounded whatever producers send.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    names: BTreeMap<Box<[u8]>, u64>,
    other: u64,
}

impl Unknown {
    pub(super) fn count(&mut self, name: &[u8]) {
        if let Some(count) = self.names.get_mut(name) {
            *count += 1;
        } else if self.names.len() < MAX_NAMES && name.len() <= MAX_NAME_BYTES {
            self.names.insert(name.into(), 1);
        } else {
            self.other += 1;
        }
    }

    /// Takes the counts, by name, `other` last.
    pub(super) fn take(&mut self) -> Vec<(String, u64)> {
        let names = std::mem::take(&mut self.names).into_iter();
        let mut counts: Vec<_> = names
            .map(|(name, count)| (String::from_utf8_lossy(&name).into_owned(), count))
            .collect();
        let other = std::mem::take(&mut self.other);
        if other > 0 {
            counts.push((OTHER.to_owned(), other));
        }
        counts
    }
}
