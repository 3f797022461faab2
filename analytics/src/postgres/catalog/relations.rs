//! The relations, as tables in memory.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray},
    error::ArrowError,
};
use datafusion::{
    catalog::{MemorySchemaProvider, SchemaProvider},
    datasource::MemTable,
    error::Result,
};

use super::{TYPES, UTF8, empty::EMPTY, table_oid, type_of};
use crate::{
    postgres::commands::SETTINGS,
    tables::{CATALOG, SCHEMA as PUBLIC, TableInfo},
};

const PUBLIC_OID: i32 = 2200;
const CATALOG_OID: i32 = 11;
const INFORMATION_OID: i32 = 13_000;
const OWNER: i32 = 10;
const VIEWS: [&str; 2] = ["task_latency", "decision_outcomes"];

/// All of them, about these tables.
pub(crate) fn schema(tables: &[TableInfo]) -> Result<Arc<dyn SchemaProvider>> {
    let schema = MemorySchemaProvider::new();
    let relations = [
        ("pg_class", classes(tables)?),
        ("pg_attribute", attributes(tables)?),
        ("pg_namespace", namespaces()?),
        ("pg_type", types()?),
        ("pg_description", descriptions(tables)?),
        ("pg_am", methods()?),
        ("pg_database", databases()?),
        ("pg_extension", extensions()?),
        ("pg_settings", settings()?),
        ("information_schemata", schemata()?),
        ("information_tables", information_tables(tables)?),
        ("information_columns", information_columns(tables)?),
    ];
    let empty = EMPTY.iter().map(|relation| (relation.name, relation.rows()));
    for (name, rows) in relations.into_iter().chain(empty) {
        let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
        schema.register_table(name.to_owned(), Arc::new(table))?;
    }
    Ok(Arc::new(schema))
}

/// A relation in the making: columns of equal length.
struct Relation {
    rows: usize,
    columns: Vec<(&'static str, ArrayRef)>,
}

impl Relation {
    fn of(rows: usize) -> Relation {
        Relation { rows, columns: Vec::new() }
    }

    fn texts<T: AsRef<str>>(mut self, name: &'static str, of: impl Fn(usize) -> T) -> Relation {
        let values: StringArray = (0..self.rows).map(|row| Some(of(row))).collect();
        self.columns.push((name, Arc::new(values)));
        self
    }

    fn numbers(mut self, name: &'static str, of: impl Fn(usize) -> i32) -> Relation {
        let values = (0..self.rows).map(of);
        self.columns.push((name, Arc::new(Int32Array::from_iter_values(values))));
        self
    }

    fn flags(mut self, name: &'static str, of: impl Fn(usize) -> bool) -> Relation {
        let values: BooleanArray = (0..self.rows).map(|row| Some(of(row))).collect();
        self.columns.push((name, Arc::new(values)));
        self
    }

    /// Numbers that are the same in each row.
    fn zeros(self, names: &[&'static str]) -> Relation {
        names.iter().fold(self, |relation, name| relation.numbers(name, |_| 0))
    }

    /// Flags that no row has.
    fn unset(self, names: &[&'static str]) -> Relation {
        names.iter().fold(self, |relation, name| relation.flags(name, |_| false))
    }

    /// Texts that are empty in each row.
    fn blank(self, names: &[&'static str]) -> Relation {
        names.iter().fold(self, |relation, name| relation.texts(name, |_| ""))
    }

    fn batch(self) -> Result<RecordBatch, ArrowError> {
        RecordBatch::try_from_iter(self.columns)
    }
}

fn is_view(table: &TableInfo) -> bool {
    VIEWS.contains(&table.name.as_str())
}

fn classes(tables: &[TableInfo]) -> Result<RecordBatch, ArrowError> {
    Relation::of(tables.len())
        .numbers("oid", table_oid)
        .texts("relname", |at| &tables[at].name)
        .numbers("relnamespace", |_| PUBLIC_OID)
        .texts("relkind", |at| if is_view(&tables[at]) { "v" } else { "r" })
        .numbers("relowner", |_| OWNER)
        .numbers("relam", |_| 2)
        .numbers("relnatts", |at| tables[at].columns.len() as i32)
        .numbers("reltuples", |_| -1)
        .texts("relpersistence", |_| "p")
        .texts("relreplident", |_| "n")
        .zeros(&["relchecks", "reltablespace", "reloftype", "reltoastrelid", "relpages", "reltype"])
        .unset(&[
            "relhasindex",
            "relhasrules",
            "relhastriggers",
            "relrowsecurity",
            "relforcerowsecurity",
            "relispartition",
            "relisshared",
        ])
        .batch()
}

fn attributes(tables: &[TableInfo]) -> Result<RecordBatch, ArrowError> {
    let all: Vec<_> = tables
        .iter()
        .enumerate()
        .flat_map(|(table, info)| (0..info.columns.len()).map(move |column| (table, column)))
        .collect();
    let column = |at: usize| &tables[all[at].0].columns[all[at].1];
    Relation::of(all.len())
        .numbers("attrelid", |at| table_oid(all[at].0))
        .texts("attname", |at| &column(at).name)
        .numbers("atttypid", |at| type_of(&column(at).sql_type).oid)
        .numbers("attlen", |at| type_of(&column(at).sql_type).length)
        .numbers("attnum", |at| all[at].1 as i32 + 1)
        .numbers("atttypmod", |_| -1)
        .numbers("attstattarget", |_| -1)
        .flags("attnotnull", |at| !column(at).nullable)
        .texts("attstorage", |_| "p")
        .zeros(&["attcollation", "attndims"])
        .unset(&["atthasdef", "attisdropped", "attislocal"])
        .blank(&["attidentity", "attgenerated", "attcompression"])
        .batch()
}

fn namespaces() -> Result<RecordBatch, ArrowError> {
    let all = [
        (PUBLIC_OID, PUBLIC),
        (CATALOG_OID, "pg_catalog"),
        (INFORMATION_OID, "information_schema"),
    ];
    Relation::of(all.len())
        .numbers("oid", |at| all[at].0)
        .texts("nspname", |at| all[at].1)
        .numbers("nspowner", |_| OWNER)
        .batch()
}

fn types() -> Result<RecordBatch, ArrowError> {
    Relation::of(TYPES.len())
        .numbers("oid", |at| TYPES[at].1.oid)
        .texts("typname", |at| TYPES[at].1.name)
        .numbers("typnamespace", |_| CATALOG_OID)
        .numbers("typlen", |at| TYPES[at].1.length)
        .numbers("typtypmod", |_| -1)
        .numbers("typowner", |_| OWNER)
        .texts("typtype", |_| "b")
        .texts("typdelim", |_| ",")
        .zeros(&["typrelid", "typelem", "typarray", "typbasetype", "typcollation"])
        .unset(&["typnotnull"])
        .blank(&["typdefault"])
        .batch()
}

fn descriptions(tables: &[TableInfo]) -> Result<RecordBatch, ArrowError> {
    let all: Vec<(i32, i32, &str)> = tables
        .iter()
        .enumerate()
        .flat_map(|(at, table)| {
            let columns = table.columns.iter().zip(1..);
            let columns = columns.map(move |(column, n)| (table_oid(at), n, column.doc.as_str()));
            std::iter::once((table_oid(at), 0, table.doc.as_str())).chain(columns)
        })
        .collect();
    Relation::of(all.len())
        .numbers("objoid", |at| all[at].0)
        .numbers("classoid", |_| 1259)
        .numbers("objsubid", |at| all[at].1)
        .texts("description", |at| all[at].2)
        .batch()
}

fn methods() -> Result<RecordBatch, ArrowError> {
    Relation::of(1).numbers("oid", |_| 2).texts("amname", |_| "heap").batch()
}

fn databases() -> Result<RecordBatch, ArrowError> {
    Relation::of(1)
        .numbers("oid", |_| 1)
        .texts("datname", |_| CATALOG)
        .numbers("datdba", |_| OWNER)
        .numbers("encoding", |_| UTF8)
        .flags("datallowconn", |_| true)
        .unset(&["datistemplate"])
        .texts("datlocprovider", |_| "c")
        .blank(&["datcollate", "datctype", "daticulocale", "daticurules"])
        .batch()
}

fn extensions() -> Result<RecordBatch, ArrowError> {
    Relation::of(0).zeros(&["oid"]).blank(&["extname", "extversion"]).batch()
}

fn settings() -> Result<RecordBatch, ArrowError> {
    Relation::of(SETTINGS.len())
        .texts("name", |at| SETTINGS[at].0)
        .texts("setting", |at| SETTINGS[at].1)
        .batch()
}

fn schemata() -> Result<RecordBatch, ArrowError> {
    let all = [PUBLIC, "pg_catalog", "information_schema"];
    Relation::of(all.len())
        .texts("catalog_name", |_| CATALOG)
        .texts("schema_name", |at| all[at])
        .texts("schema_owner", |_| CATALOG)
        .batch()
}

fn information_tables(tables: &[TableInfo]) -> Result<RecordBatch, ArrowError> {
    Relation::of(tables.len())
        .texts("table_catalog", |_| CATALOG)
        .texts("table_schema", |_| PUBLIC)
        .texts("table_name", |at| &tables[at].name)
        .texts("table_type", |at| if is_view(&tables[at]) { "VIEW" } else { "BASE TABLE" })
        .batch()
}

fn information_columns(tables: &[TableInfo]) -> Result<RecordBatch, ArrowError> {
    let all: Vec<_> = tables
        .iter()
        .flat_map(|table| table.columns.iter().zip(1..).map(move |(column, n)| (table, column, n)))
        .collect();
    Relation::of(all.len())
        .texts("table_catalog", |_| CATALOG)
        .texts("table_schema", |_| PUBLIC)
        .texts("table_name", |at| &all[at].0.name)
        .texts("column_name", |at| &all[at].1.name)
        .numbers("ordinal_position", |at| all[at].2)
        .texts("is_nullable", |at| if all[at].1.nullable { "YES" } else { "NO" })
        .texts("data_type", |at| type_of(&all[at].1.sql_type).full)
        .texts("udt_name", |at| type_of(&all[at].1.sql_type).name)
        .texts("udt_schema", |_| "pg_catalog")
        .batch()
}
