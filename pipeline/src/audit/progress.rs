//! How far an audit is: a bar on a terminal, nothing elsewhere.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

/// The bar on standard error.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar where somebody sees it.
    pub(super) fn on_terminal() -> Progress {
        let bar = if io::stderr().is_terminal() {
            ProgressBar::new_spinner().with_message("looking at topics and tables")
        } else {
            ProgressBar::hidden()
        };
        bar.tick();
        Progress { bar }
    }

    /// No bar at all.
    pub(super) fn none() -> Progress {
        Progress { bar: ProgressBar::hidden() }
    }

    /// Dead letters and gaps are being read.
    pub(super) fn reads_books(&self) {
        self.bar.set_message("reading dead letters and gaps");
        self.bar.tick();
    }

    /// The windows begin; so many offsets are to be looked at.
    pub(super) fn starts(&self, offsets: u64) {
        self.bar.set_length(offsets);
        let template = "{bar:30} {human_pos} of {human_len} offsets, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.reset_eta();
    }

    /// So many offsets more were looked at.
    pub(super) fn passed(&self, offsets: u64) {
        self.bar.inc(offsets);
    }

    /// All is done.
    pub(super) fn ends(&self) {
        self.bar.finish_and_clear();
    }
}
