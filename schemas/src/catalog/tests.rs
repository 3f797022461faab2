#![allow(clippy::unwrap_used)]

use super::*;

#[test]
fn the_builtin_catalog_is_whole() {
    let catalog = Catalog::builtin();
    let names: Vec<&str> = catalog.topics.iter().map(|topic| &*topic.name).collect();
    assert_eq!(
        names,
        [
            "aion.router.decisions",
            "aion.tasks.lifecycle",
            "aion.metrics.runtime",
            "aion.audit.activity",
            DEAD_LETTERS,
            GAPS
        ]
    );
}
