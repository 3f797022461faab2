//! What the process tells its caller: one exit code per kind of failure, so that scripts can act.

use std::{fmt, process::ExitCode};

/// Why a command ended without success. docs/commands.md lists the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Something failed at run time.
    Failed = 1,
    /// The command line or the configuration is wrong; nothing was started.
    Usage = 2,
    /// The data folder can't be used: missing, foreign, newer, or in use by another process.
    Data = 3,
    /// An address is already in use.
    Address = 4,
    /// The disk is full.
    Disk = 5,
    /// A guarantee can't be given any more; a person has to act before it goes on.
    Guarantee = 6,
    /// An audit found that a store isn't what the log says.
    Wrong = 7,
    /// An audit found nothing wrong, and something that can't be proven.
    NotProvable = 8,
    /// Events break the contract and were not sent.
    Refused = 9,
    /// Not now; the same may work later.
    TryAgain = 75,
    /// It worked, and there is nothing in it.
    NoData = 99,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// An error that knows its exit code; put into an `anyhow` chain, found again by [`code_of`].
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// A failure with a message for people.
    pub fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// The exit code that an error stands for: that of the [`Failure`] in its chain, 5 where the system
/// said that no space is left, else 1.
pub fn code_of(error: &anyhow::Error) -> Exit {
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.exit;
    }
    let full =
        error.chain().any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(is_disk_full));
    if full { Exit::Disk } else { Exit::Failed }
}

/// Whether the system said that the disk, or the quota on it, is used up.
pub fn is_disk_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use anyhow::Context;

    use super::*;

    #[test]
    fn the_code_is_found_through_context() {
        let error = Err::<(), _>(Failure::new(Exit::Address, "busy")).context("start").unwrap_err();
        assert_eq!(code_of(&error), Exit::Address);
    }

    #[test]
    fn a_full_disk_is_recognised_where_it_was_only_passed_on() {
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = Err::<(), _>(full).context("write segment").unwrap_err();
        assert_eq!(code_of(&error), Exit::Disk);
        assert_eq!(code_of(&anyhow::anyhow!("other")), Exit::Failed);
    }
}
