//! What `aion publish` tells: lines that break rules, and how far it is.

use std::{
    cell::Cell,
    io::{self, IsTerminal, Write},
    time::Duration,
};

use aion_schemas::validate::Violation;
use anyhow::Context;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde::Serialize;

/// A rule that a line breaks, for programs.
#[derive(Serialize)]
struct Refusal<'a> {
    line: u64,
    field: &'a str,
    rule: &'a str,
    message: &'a str,
    value: Option<&'a str>,
}

/// A bar on a terminal, and what is wrong.
pub(super) struct Report {
    json: bool,
    refused: Cell<u64>,
    bar: ProgressBar,
}

impl Report {
    /// Nothing is wrong so far; `json` is how it is told.
    pub(super) fn new(json: bool) -> Report {
        let bar = if io::stderr().is_terminal() && !io::stdin().is_terminal() {
            let bar = ProgressBar::new_spinner();
            let template = "{spinner} {human_pos} events acknowledged, {per_sec:0} {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        } else {
            ProgressBar::hidden()
        };
        Report { json, refused: Cell::new(0), bar }
    }

    /// Tells which rules a line breaks.
    pub(super) fn refuse(&self, line: u64, violations: &[Violation]) -> anyhow::Result<()> {
        self.refused.set(self.refused.get() + 1);
        let told = self.bar.suspend(|| self.tell(line, violations));
        match told {
            // Who reads has seen enough; what is refused is counted all the same.
            Err(cause) if cause.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            told => told.context("tell what is wrong"),
        }
    }

    fn tell(&self, line: u64, violations: &[Violation]) -> io::Result<()> {
        for Violation { field, rule, message, value } in violations {
            if self.json {
                let refusal = Refusal { line, field, rule, message, value: value.as_deref() };
                let mut out = io::stdout().lock();
                serde_json::to_writer(&mut out, &refusal)?;
                writeln!(out)?;
            } else {
                writeln!(io::stderr().lock(), "line {line}: {message} ({rule})")?;
            }
        }
        Ok(())
    }

    /// How many lines were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused.get()
    }

    /// Shows how far it is, and why nothing moves.
    pub(super) fn show(&self, acknowledged: u64, complaint: Option<&str>) {
        let stuck = complaint.filter(|_| acknowledged == self.bar.position());
        self.bar.set_message(stuck.map_or_else(String::new, |why| format!("({why})")));
        self.bar.set_position(acknowledged);
    }

    /// Takes the bar away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// Says what was done.
    pub(super) fn finish(&self, acknowledged: u64) -> anyhow::Result<()> {
        self.clear();
        let (sent, refused) = (HumanCount(acknowledged), HumanCount(self.refused()));
        writeln!(io::stderr(), "{sent} events sent and acknowledged, {refused} refused")
            .context("say what was done")
    }
}
