//! What is wrong with a catalog, in words that lead to the line to change.

use std::fmt;

/// One thing that is wrong: in which file, where in it, what it is, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file, as the reader of the message would open it.
    pub file: String,
    /// The place in the file: `topic aion.router.decisions, key`; empty for the file as a whole.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub fix: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if !self.place.is_empty() {
            write!(f, ", {}", self.place)?;
        }
        write!(f, ": {}; {}", self.problem, self.fix)
    }
}

/// A catalog that can't be used, with all that is wrong with it: one line each, at least one.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.problems))]
pub struct CatalogError {
    /// What is wrong, in the order of the files.
    pub problems: Vec<Problem>,
}

fn lines(problems: &[Problem]) -> String {
    problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n")
}

/// Collects problems, so that a person sees all of them at once.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    /// Adds one.
    pub(crate) fn add(
        &mut self,
        file: &str,
        place: impl Into<String>,
        problem: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.0.push(Problem {
            file: file.to_owned(),
            place: place.into(),
            problem: problem.into(),
            fix: fix.into(),
        });
    }

    /// How many there are so far.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// `value`, unless there are problems.
    pub(crate) fn unless<T>(self, value: T) -> Result<T, CatalogError> {
        if self.0.is_empty() { Ok(value) } else { Err(CatalogError { problems: self.0 }) }
    }
}
