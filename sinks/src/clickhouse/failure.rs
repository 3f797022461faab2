//! Why a request failed, and who can act on it.
//!
//! | class | examples | what is done |
//! |---|---|---|
//! | retry | no answer, 5xx, too many parts, read-only, a replica that is behind | verify, then the same token again, after a pause |
//! | size | 241 (memory), 159 (time), a proxy's 413; an INSERT that nobody answers, twice | verify, then half the batch; a single row again as it is |
//! | row | a constraint other than the lease, text that can't be converted, a column that can't be computed; 36 and 117 that name a function | verify, then half the batch, until it is one row: a dead letter |
//! | lease | 469 that names the lease | verify, a new lease, the same token again; never a reject |
//! | running | 216 | an earlier INSERT of the token still runs: wait for it |
//! | fatal | 401, 403, a redirect, unknown table or column, a bad argument, a setting that may not be set | stop, and say what to change |
//!
//! Whatever the class, an INSERT that was not acknowledged may have landed: only the table tells.
//!
//! **Invariant:** what is said of a refused row has nothing that stands in the row. It goes to logs, `/readyz` and the letter's
//! `detail`, which more people read than its value.

use reqwest::StatusCode;

use crate::sink::SinkError;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection was made: it did nothing.
    Unreached(String),
    /// No answer, or half of one: what it did is not known.
    Unanswered(String),
    /// The server said no.
    Refused {
        /// ClickHouse's number; 0 where it is a stranger who answers, such as a proxy.
        code: u32,
        /// What it said.
        text: String,
        /// HTTP's number.
        status: u16,
    },
    /// An answer, and not one that can be understood.
    Unread(String),
}

/// Who can act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Retry,
    Lease,
    Running,
    /// The batch takes more memory, or time, than there is, or more bytes than are let through.
    Size,
    /// A row is refused for what it holds.
    Row,
    Fatal(&'static str),
}

/// So many characters are kept of the beginning of what a server says, and of its end: in between it may quote a long value.
const MAX_TEXT: usize = 600;
/// HTTP's number for a request that is too large; that of nginx has 1 MiB at most unless it is told.
const TOO_LARGE: u16 = 413;

impl Failure {
    pub(super) fn unanswered(error: reqwest::Error) -> Failure {
        let is_unreached = error.is_connect();
        // The address stands in the error and may have a password in it.
        let error = error.without_url();
        let mut text = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        if is_unreached { Failure::Unreached(text) } else { Failure::Unanswered(text) }
    }

    pub(super) fn refused(status: StatusCode, code: Option<u32>, body: &[u8]) -> Failure {
        let text = String::from_utf8_lossy(body);
        let text = without_middle(text.trim());
        // A proxy before the server, or a server that fails late, says the number in the text at most.
        let told =
            text.split("Code: ").nth(1).and_then(|rest| rest.split('.').next()?.parse().ok());
        Failure::Refused { code: code.or(told).unwrap_or(0), text, status: status.as_u16() }
    }

    /// The class of the failure.
    pub(super) fn class(&self) -> Class {
        let (code, text, status) = match self {
            Failure::Unreached(_) | Failure::Unanswered(_) => return Class::Retry,
            Failure::Unread(_) => {
                return Class::Fatal("is it a ClickHouse server that answers there?");
            }
            Failure::Refused { code, text, status } => (*code, text, *status),
        };
        match code {
            469 if names_lease(text) => Class::Lease,
            216 => Class::Running,
            192..=194 | 516 => Class::Fatal("look at user and password of [clickhouse]"),
            497 => Class::Fatal("grant the account SELECT and INSERT on the tables"),
            16 | 47 | 60 | 81 => Class::Fatal("run `aion clickhouse plan`, then `apply`"),
            36 | 117 if is_of_an_expression(text) => Class::Row,
            36 => Class::Fatal(
                "no such statement is taken of this table, or an expression of yours, in a column, a constraint or a \
                 view, takes no such value",
            ),
            115 | 164 | 452 => Class::Fatal(
                "the account may not change a setting that the guarantee rests on: allow it, with no readonly \
                 profile",
            ),
            // Too many partitions for one INSERT, which has the number of too many parts.
            252 if text.contains("partitions for single INSERT") => Class::Fatal(
                "the table's partition key must be _batch_day: run `aion clickhouse plan`",
            ),
            6 | 26 | 27 | 38 | 41 | 43 | 53 | 69 | 70 | 72 | 128 | 130 | 131 | 135 | 153 | 190
            | 321 | 349 | 376 | 395 | 407 | 467 | 469 | 675 | 676 | 691 => Class::Row,
            159 | 241 => Class::Size,
            0 if status == TOO_LARGE => Class::Size,
            62 | 73 => Class::Fatal("the server may be too old: 24.8 or newer is needed"),
            117 => Class::Fatal(
                "the server may be too old, 24.8 or newer is needed; or an expression of yours, in a column, a \
                 constraint or a view, can't read such a value",
            ),
            0 if matches!(status, 401 | 403) => Class::Fatal(
                "look at user and password of [clickhouse], and at the proxy before it",
            ),
            0 if matches!(status, 300..=399) => Class::Fatal(
                "it redirects, and nobody is followed there with the password: name the server's own address in \
                 clickhouse.url",
            ),
            0 if matches!(status, 404 | 405) => {
                Class::Fatal("is it a ClickHouse server that answers at clickhouse.url?")
            }
            _ => Class::Retry,
        }
    }

    /// Whether it passes, and another replica may do better: too many parts, or a quorum that waits for the INSERT before,
    /// is what each would say.
    pub(super) fn is_of_the_server(&self) -> bool {
        self.class() == Class::Retry && !matches!(self, Failure::Refused { code: 252 | 286, .. })
    }

    /// Whether nobody says what became of the request: no answer came, or a proxy had none in its time.
    pub(super) fn is_silence(&self) -> bool {
        matches!(
            self,
            Failure::Unanswered(_) | Failure::Refused { code: 0, status: 408 | 502 | 504, .. }
        )
    }

    /// What the failure is to the job.
    pub(super) fn error(self, doing: &str) -> SinkError {
        let doing = doing.to_owned();
        match self.class() {
            Class::Fatal(hint) => {
                SinkError::Fatal { doing, cause: self.text(), hint: hint.to_owned() }
            }
            Class::Retry | Class::Lease | Class::Running | Class::Size | Class::Row => {
                SinkError::Retry { doing, cause: self.text() }
            }
        }
    }

    /// What is said of a refused row: the error's number and name, and what is the table's own in its text. Servers quote
    /// values, in every form.
    pub(super) fn without_values(self) -> String {
        let Failure::Refused { code, text, .. } = &self else { return self.text() };
        let (said, name) = apart(text);
        let name = name.map_or_else(String::new, |name| format!(" ({name})"));
        let own = of_the_table(*code, said).map_or_else(String::new, |own| format!(": {own}"));
        format!("Code: {code}{name}{own}")
    }

    /// What was said.
    pub(super) fn text(self) -> String {
        match self {
            // What a proxy says of it is a page.
            Failure::Refused { code: 0, status: TOO_LARGE, .. } => format!(
                "HTTP {TOO_LARGE}: a proxy before the server lets no request through that is so large; raise its limit on \
                 bodies (nginx: client_max_body_size)"
            ),
            Failure::Refused { text, status, .. } if text.is_empty() => format!("HTTP {status}"),
            Failure::Unreached(text)
            | Failure::Unanswered(text)
            | Failure::Unread(text)
            | Failure::Refused { text, .. } => text,
        }
    }
}

fn without_middle(text: &str) -> String {
    let count = text.chars().count();
    if count <= 2 * MAX_TEXT {
        return text.to_owned();
    }
    let begins: String = text.chars().take(MAX_TEXT).collect();
    let ends: String = text.chars().skip(count - MAX_TEXT).collect();
    format!("{begins} … {ends}")
}

/// What a server said, and the name of the error behind it.
fn apart(text: &str) -> (&str, Option<&str>) {
    let said = text.rsplit_once(" (version ").map_or(text, |(said, _)| said);
    let is_name = |name: &str| {
        let is_part = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        name.starts_with(|c: char| c.is_ascii_uppercase()) && name.chars().all(is_part)
    };
    match said.strip_suffix(')').and_then(|said| said.rsplit_once('(')) {
        Some((said, name)) if is_name(name) => (said.trim_end(), Some(name)),
        _ => (said, None),
    }
}

/// What stands in it of the table: a constraint, a function with its arguments' names, a column with its type.
fn of_the_table(code: u32, said: &str) -> Option<&str> {
    let own = if code == 469 {
        said[said.find("Constraint ")?..].split(" Column values").next()?
    } else {
        // Added behind all else, so the last one isn't a value's.
        let last = |words: &str| said.rfind(words).map(|at| &said[at..]);
        let own = last(IN_A_FUNCTION).or_else(|| last("while converting column "));
        own?.lines().next()?
    };
    Some(own.trim_end_matches('.'))
}

/// How the server names the function that takes no such value.
const IN_A_FUNCTION: &str = "while executing 'FUNCTION ";

/// Whether a function of the table's owner, in a column or a constraint, takes no such value: of the statement as a whole
/// the server says nothing of the kind.
fn is_of_an_expression(text: &str) -> bool {
    text.contains(IN_A_FUNCTION)
}

/// Whether a violated constraint is the lease; a table may have others. Its name is the first that the server says: behind
/// it come the expression, and what stands in the row.
fn names_lease(text: &str) -> bool {
    let named = text.split_once("Constraint ").map_or("", |(_, named)| named);
    named.starts_with("`lease`") || named.starts_with("lease ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u32, text: &str) -> Class {
        Failure::Refused { code, text: text.to_owned(), status: 500 }.class()
    }

    #[test]
    fn classes_follow_who_can_act() {
        assert_eq!(Failure::Unanswered("timed out".into()).class(), Class::Retry);
        for code in [0, 202, 209, 210, 242, 243, 252, 319, 425, 999] {
            assert_eq!(refused(code, "busy"), Class::Retry, "{code}");
        }
        for code in [36, 47, 60, 81, 117, 164, 497, 516] {
            assert!(matches!(refused(code, "no"), Class::Fatal(_)), "{code}");
        }
        assert_eq!(refused(216, "already running"), Class::Running);
    }

    #[test]
    fn only_the_lease_is_taken_for_the_lease() {
        let lease = "Constraint `lease` for table aion.tasks is violated at row 1.";
        assert_eq!(refused(469, lease), Class::Lease);
        assert_eq!(refused(469, &format!("Code: 469. DB::Exception: {lease}")), Class::Lease);
        for other in [
            "Constraint `size` for table aion.lease is violated at row 1.",
            "Constraint `lease_2` for table aion.tasks is violated at row 1.",
            "Constraint `own` for table aion.tasks is violated at row 1. Expression: (note != 'Constraint `lease`'). \
             Column values: note = 'Constraint `lease`'",
            "Constraint `own` for table aion.tasks is violated at row 1. Column values: note = 'Constraint lease '",
        ] {
            assert_eq!(refused(469, other), Class::Row, "{other}");
        }
    }

    #[test]
    fn a_refused_row_and_a_lack_of_memory_or_time_are_the_batchs() {
        for code in [6, 38, 53, 72, 131, 153, 349, 376, 395, 407, 691] {
            assert_eq!(refused(code, "no"), Class::Row, "{code}");
        }
        let unread =
            "Invalid base64Decode value (!!): while executing 'FUNCTION base64Decode(note)'";
        for code in [36, 117] {
            assert_eq!(refused(code, unread), Class::Row, "{code}");
        }
        assert_eq!(refused(241, "memory limit exceeded"), Class::Size);
        assert_eq!(refused(159, "Timeout exceeded"), Class::Size);
    }

    #[test]
    fn a_function_is_found_behind_a_value_however_long() {
        let value = "ä".repeat(100_000);
        let text = format!(
            "Code: 117. DB::Exception: No base64 ({value}): while executing 'FUNCTION base64Decode(note : 0) -> \
             base64Decode(note) String : 1'. (INCORRECT_DATA)"
        );
        let failure = Failure::refused(StatusCode::BAD_REQUEST, Some(117), text.as_bytes());
        assert_eq!(failure.class(), Class::Row);
        let Failure::Refused { text, .. } = &failure else { panic!("{failure:?}") };
        assert_eq!(text.chars().count(), 2 * MAX_TEXT + 3);
        assert!(
            failure.without_values().contains(": while executing 'FUNCTION base64Decode(note : 0)")
        );
    }

    #[test]
    fn what_is_said_of_a_refused_row_has_nothing_of_the_row() {
        let said = |code, text: &str| {
            let text = format!("Code: {code}. DB::Exception: {text}");
            Failure::refused(StatusCode::BAD_REQUEST, Some(code), text.as_bytes()).without_values()
        };
        assert_eq!(
            said(
                469,
                "Constraint `size` for table d.t is violated at row 3. Expression: (n < 9). Column values: n = 4711. \
                 (VIOLATED_CONSTRAINT) (version 26.9.2.1 (official build))"
            ),
            "Code: 469 (VIOLATED_CONSTRAINT): Constraint `size` for table d.t is violated at row 3. Expression: (n < 9)"
        );
        assert_eq!(
            said(
                72,
                "Cannot parse '4711: while executing 'FUNCTION mine': while executing 'FUNCTION toFloat64(note : 0) -> \
                 toFloat64(note) Float64 : 1'. (CANNOT_PARSE_NUMBER)"
            ),
            "Code: 72 (CANNOT_PARSE_NUMBER): while executing 'FUNCTION toFloat64(note : 0) -> toFloat64(note) Float64 : 1'"
        );
        let column = "while converting column `n` from type Int64 to type Int8";
        assert_eq!(said(70, &format!("No 4711: {column}\n4711")), format!("Code: 70: {column}"));
        assert_eq!(said(38, "Cannot parse date (4711)"), "Code: 38");
    }

    #[test]
    fn what_a_proxy_lets_through_is_a_matter_of_size_and_says_what_to_raise() {
        let page = b"<html><head><title>413 Request Entity Too Large</title></head></html>";
        let failure = Failure::refused(StatusCode::PAYLOAD_TOO_LARGE, None, page);
        assert_eq!(failure.class(), Class::Size);
        assert!(!failure.is_of_the_server() && !failure.is_silence());
        let text = failure.text();
        assert!(text.contains("client_max_body_size") && !text.contains('<'), "{text}");
    }

    #[test]
    fn no_answer_is_told_from_an_answer() {
        let of = |code, status| Failure::Refused { code, text: "late".into(), status }.is_silence();
        assert!([408, 502, 504].into_iter().all(|status| of(0, status)));
        assert!(Failure::Unanswered("operation timed out".into()).is_silence());
        for (code, status) in [(159, 408), (202, 502), (0, 503), (0, 500), (216, 500)] {
            assert!(!of(code, status), "{code}, HTTP {status}");
        }
        assert!(!Failure::Unreached("refused".into()).is_silence());
    }

    #[test]
    fn too_many_partitions_is_not_too_many_parts() {
        assert_eq!(refused(252, "Too many parts (3000)"), Class::Retry);
        let partitions = "Too many partitions for single INSERT block";
        assert!(matches!(refused(252, partitions), Class::Fatal(_)));
    }

    #[test]
    fn only_what_is_the_servers_own_has_another_asked() {
        let is_own =
            |code| Failure::Refused { code, text: "busy".into(), status: 500 }.is_of_the_server();
        assert!([0, 202, 242, 285, 289, 319, 425].into_iter().all(is_own));
        assert!(![252, 286, 60, 216].into_iter().any(is_own));
        assert!(Failure::Unreached("refused".into()).is_of_the_server());
    }

    #[test]
    fn a_number_in_the_text_counts_where_the_header_is_lost() {
        let failure = Failure::refused(StatusCode::OK, None, b"Code: 241. DB::Exception: memory");
        assert!(matches!(failure, Failure::Refused { code: 241, .. }), "{failure:?}");
        for status in [StatusCode::UNAUTHORIZED, StatusCode::FOUND, StatusCode::PERMANENT_REDIRECT]
        {
            let stranger = Failure::refused(status, None, b"");
            assert!(matches!(stranger.class(), Class::Fatal(_)), "{status}");
        }
    }
}
