//! Finds what a person probably meant to write.

/// "did you mean" with the nearest of `known`, or `otherwise` when none is near.
pub(crate) fn did_you_mean<'a>(
    word: &str,
    known: impl Iterator<Item = &'a str>,
    otherwise: &str,
) -> String {
    match nearest(word, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => otherwise.to_owned(),
    }
}

/// The one of `known` that takes the fewest edits to reach; `None` when they are over a third of
/// it. A name cut short counts as one edit: `actor` is nearer to `actor_id` than to `action`.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Words come from input: what is longer than any name can't be near one.
    if word.len() > 128 {
        return None;
    }
    known
        .map(|candidate| {
            let cut = word.len() >= 3 && candidate.starts_with(word);
            (if cut { 1 } else { edits(word, candidate) }, candidate)
        })
        .filter(|(edits, candidate)| *edits <= candidate.len().div_ceil(3))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Edit distance (Levenshtein), case apart.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(!from.eq_ignore_ascii_case(to));
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{edits, nearest};

    #[test]
    fn counts_edits() {
        assert_eq!(edits("", "tier"), 4);
        assert_eq!(edits("teir", "tier"), 2);
        assert_eq!(edits("taskId", "task_id"), 1);
        assert_eq!(edits("kitten", "sitting"), 3);
    }

    #[test]
    fn finds_only_what_is_near() {
        let names = ["task_id", "tenant_id", "tier", "timestamp"];
        assert_eq!(nearest("taskId", names.into_iter()), Some("task_id"));
        assert_eq!(nearest("teir", names.into_iter()), Some("tier"));
        assert_eq!(nearest("task", names.into_iter()), Some("task_id"));
        assert_eq!(nearest("actor", ["action", "actor_id"].into_iter()), Some("actor_id"));
        assert_eq!(nearest("colour", names.into_iter()), None);
        assert_eq!(nearest(&"x".repeat(1_000_000), names.into_iter()), None);
    }
}
