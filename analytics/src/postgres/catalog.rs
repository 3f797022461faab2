//! The part of PostgreSQL's catalogs that psql's `\d` and Grafana's query builder ask: tables of our own, made
//! from what [`tables`](crate::tables) knows.
//!
//! What those clients write in words that only PostgreSQL understands (casts to `regclass`, operators by their
//! full name) is put into plain SQL first. Deliberately absent: the other hundred relations, apart from those that are
//! always empty here; a question about one is answered with an error.

mod empty;
mod functions;
mod relations;
mod rewrite;

pub(crate) use self::{
    empty::is_about_nothing,
    functions::functions,
    relations::schema,
    rewrite::{NOTHING, rewritten},
};

/// The schema of these tables.
pub(crate) const SCHEMA: &str = "pg_catalog";

/// PostgreSQL's number of the encoding that all texts have here.
const UTF8: i32 = 6;

/// The object id of the table at this place in the list; PostgreSQL's own end below.
fn table_oid(at: usize) -> i32 {
    16_384 + at as i32
}

/// A type as PostgreSQL has it: object id, name in catalogs, name for people, length.
struct PgType {
    oid: i32,
    name: &'static str,
    full: &'static str,
    length: i32,
}

const TYPES: [(&str, PgType); 10] = [
    ("boolean", pg_type(16, "bool", "boolean", 1)),
    ("bytea", pg_type(17, "bytea", "bytea", -1)),
    ("bigint", pg_type(20, "int8", "bigint", 8)),
    ("smallint", pg_type(21, "int2", "smallint", 2)),
    ("integer", pg_type(23, "int4", "integer", 4)),
    ("real", pg_type(700, "float4", "real", 4)),
    ("double", pg_type(701, "float8", "double precision", 8)),
    ("date", pg_type(1082, "date", "date", 4)),
    ("timestamptz", pg_type(1184, "timestamptz", "timestamp with time zone", 8)),
    ("varchar", pg_type(1043, "varchar", "character varying", -1)),
];

const fn pg_type(oid: i32, name: &'static str, full: &'static str, length: i32) -> PgType {
    PgType { oid, name, full, length }
}

/// What PostgreSQL calls a type of ours; what isn't known is sent as text.
fn type_of(sql_type: &str) -> &'static PgType {
    const ALL: &[(&str, PgType)] = &TYPES;
    let text = &ALL[ALL.len() - 1].1;
    ALL.iter().find(|(ours, _)| *ours == sql_type).map_or(text, |(_, theirs)| theirs)
}
