//! What `--help` shows, word by word: help.txt.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use clap::CommandFactory;

use super::Cli;

/// What a command answers to `--help`, where lines have a hundred columns.
fn help(command: &str) -> String {
    let asked = command.split(' ').chain(["--help"]);
    let told = Cli::command().term_width(100).try_get_matches_from(asked).unwrap_err();
    format!("$ {command} --help\n\n{told}")
}

/// `AION_UPDATE=1 cargo test` writes the file anew.
#[test]
fn the_help_is_what_people_have_seen() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/help.txt");
    let shown = ["aion", "aion dev", "aion generate", "aion run"].map(help).join("\n");
    if std::env::var_os("AION_UPDATE").is_some() {
        std::fs::write(&file, &shown).unwrap();
    }
    assert!(
        std::fs::read_to_string(&file).unwrap() == shown,
        "not what pipeline/src/cli/help.txt has: AION_UPDATE=1 cargo test --release -- the_help_is; it is\n{shown}"
    );
}
