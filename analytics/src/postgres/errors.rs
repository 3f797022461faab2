//! Errors with the codes that PostgreSQL's clients know them by.

use pgwire::error::{ErrorInfo, PgWireError};

use super::STATEMENT_BYTES;
use crate::error::Error;

/// The error as it is sent.
pub(super) fn of(error: &Error) -> PgWireError {
    user(state(error), error.to_string())
}

/// An error with an SQLSTATE.
pub(super) fn user(state: &str, message: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new("ERROR".into(), state.into(), message.into())))
}

/// The query was stopped because its client asked for that.
pub(super) fn cancelled() -> PgWireError {
    user("57014", "the query was stopped, as its client asked")
}

/// The last word to a client of a process that is stopping.
pub(super) fn stopping() -> PgWireError {
    let (state, what) = (state(&Error::Stopping), Error::Stopping.to_string());
    PgWireError::UserError(Box::new(ErrorInfo::new("FATAL".into(), state.into(), what)))
}

/// A client sent more than a statement may have.
pub(super) fn too_long() -> PgWireError {
    let most = STATEMENT_BYTES >> 20;
    user("54000", format!("the statement with its parameters is longer than {most} MiB"))
}

/// What pgwire itself refuses, with PostgreSQL's code: it says of a portal what is said of a statement.
pub(super) fn known(error: PgWireError) -> PgWireError {
    match error {
        PgWireError::PortalNotFound(name) => {
            user("34000", format!("portal {name:?} does not exist"))
        }
        other => other,
    }
}

/// `who` keeps all that it may of what clients have named.
pub(super) fn keeps_too_much(who: &str, most_bytes: usize) -> PgWireError {
    let most = most_bytes >> 20;
    let what = format!(
        "{who} {most} MiB of prepared statements and portals at most: close those that aren't needed, or deallocate all"
    );
    user("53200", what)
}

fn state(error: &Error) -> &'static str {
    match error {
        Error::Syntax(_) => "42601",
        Error::UnknownTable { .. } => "42P01",
        Error::UnknownColumn { .. } => "42703",
        Error::Query(what) if what.starts_with("Invalid function") => "42883",
        Error::Query(_) => "42000",
        Error::Data(what) => of_values(what),
        Error::Unsupported(_) => "0A000",
        Error::ReadOnly { .. } => "25006",
        Error::Memory { .. } => "53200",
        Error::Spill { .. } => "53400",
        Error::TemporaryFiles { .. } => "53100",
        Error::Deadline { .. } => "57014",
        Error::Stopping => "57P01",
        Error::Open { .. } | Error::Read { .. } => "58030",
        Error::Internal(_) => "XX000",
    }
}

/// As Arrow begins to say what is wrong with values.
const OF_VALUES: [(&str, &str); 8] = [
    ("Divide by zero", "22012"),
    ("Arithmetic overflow: ", "22003"),
    ("Cast error: Can't cast value ", "22003"),
    ("Cast error: Cannot cast to Decimal", "22003"),
    ("Cast error: Cannot cast string ", "22P02"),
    // To true or false.
    ("Cast error: Cannot cast value ", "22P02"),
    ("Parser error: Error parsing timestamp ", "22007"),
    ("Parser error: Invalid input syntax for type interval", "22007"),
];

fn of_values(what: &str) -> &'static str {
    let wanted = what.rsplit_once(" to value of ").map_or("", |(_, wanted)| wanted);
    if wanted.starts_with("Date") || wanted.starts_with("Time") {
        return "22007";
    }
    // Behind a number, too large or too small.
    if what.starts_with("Invalid argument error: ") && what.contains(" to store in a Decimal") {
        return "22003";
    }
    let found = OF_VALUES.iter().find(|(beginning, _)| what.starts_with(beginning));
    found.map_or("22000", |(_, state)| *state)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use std::{sync::Arc, time::Duration};

    use arrow::{
        array::{ArrayRef, Int64Array, StringViewArray},
        record_batch::RecordBatch,
    };
    use datafusion::{common::DFSchema, execution::context::SessionContext};

    use super::*;
    use crate::error::{Asker, Bounds, explain};

    #[test]
    fn each_error_has_the_code_that_clients_know_it_by() {
        let text = || "why".to_owned();
        let asker = Asker::Sql;
        for (error, code) in [
            (Error::Syntax(text()), "42601"),
            (Error::UnknownTable { name: text(), near: None, tables: vec![text()] }, "42P01"),
            (Error::UnknownColumn { name: text(), near: Some(text()), columns: vec![] }, "42703"),
            (Error::Query("Invalid function 'nothing'".to_owned()), "42883"),
            (Error::Query(text()), "42000"),
            (Error::Data("Divide by zero error".to_owned()), "22012"),
            (Error::Data(text()), "22000"),
            (Error::Unsupported(text()), "0A000"),
            (Error::ReadOnly { what: text() }, "25006"),
            (Error::Memory { limit_bytes: 1 << 20, cause: text(), asker }, "53200"),
            (Error::Spill { limit_bytes: 1 << 20, asker }, "53400"),
            (Error::TemporaryFiles { cause: text() }, "53100"),
            (Error::Deadline { limit: Duration::from_secs(1), asker }, "57014"),
            (Error::Stopping, "57P01"),
            (Error::Open { lake: text(), cause: text() }, "58030"),
            (Error::Read { what: text(), cause: text() }, "58030"),
            (Error::Internal(text()), "XX000"),
        ] {
            let sent = of(&error);
            assert_eq!(sent.code(), code, "{error}");
            assert!(!sent.is_fatal(), "the connection goes on after {error}");
            assert!(sent.to_string().contains(&error.to_string()), "{sent}");
        }
        for (sent, code) in [
            (cancelled(), "57014"),
            (too_long(), "54000"),
            (keeps_too_much("a connection keeps", 1 << 20), "53200"),
            (known(PgWireError::PortalNotFound("p".to_owned())), "34000"),
            (known(PgWireError::StatementNotFound("s".to_owned())), "26000"),
        ] {
            assert_eq!((sent.code(), sent.is_fatal()), (code, false), "{sent}");
        }
    }

    /// In Arrow's own words: they are what is told apart.
    #[test]
    fn what_is_wrong_with_values_has_its_code() {
        for (sql, code) in [
            ("1 / (size - 1)", "22012"),
            ("(-9223372036854775807 - size) / -size", "22003"),
            ("cast(3000000000 * size as int)", "22003"),
            ("cast(1e300 * size as decimal(10, 2))", "22003"),
            ("cast(1000 * size as decimal(5, 2))", "22003"),
            ("cast(-1000 * size as decimal(5, 2))", "22003"),
            ("cast(replace(route, 'cloud', '1000') as decimal(5, 2))", "22003"),
            ("cast(route as int)", "22P02"),
            ("cast(replace(route, 'cloud', '99999999999') as int)", "22P02"),
            ("cast(route as double)", "22P02"),
            ("cast(route as boolean)", "22P02"),
            ("cast(route as decimal(5, 2))", "22P02"),
            ("cast(route as date)", "22007"),
            ("cast(route as time)", "22007"),
            ("cast(route as timestamp)", "22007"),
            ("cast(route as interval)", "22007"),
        ] {
            let error = refused(sql);
            assert_eq!(of(&error).code(), code, "{sql}: {error:?}");
        }
    }

    /// What an expression over a row with a number, 1, and a text fails with.
    fn refused(sql: &str) -> Error {
        let columns: [(&str, ArrayRef); 2] = [
            ("size", Arc::new(Int64Array::from(vec![1]))),
            ("route", Arc::new(StringViewArray::from(vec!["cloud"]))),
        ];
        let row = RecordBatch::try_from_iter(columns).unwrap();
        let schema = DFSchema::try_from(row.schema().as_ref().clone()).unwrap();
        let context = SessionContext::new();
        let parsed = context.parse_sql_expr(sql, &schema).unwrap();
        let expression = context.create_physical_expr(parsed, &schema).unwrap();
        explain(&expression.evaluate(&row).unwrap_err(), &Bounds::default())
    }
}
