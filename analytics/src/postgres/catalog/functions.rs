//! Functions of PostgreSQL that clients call in questions about the catalog.

use std::{collections::HashMap, sync::Arc};

use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, ListArray, StringArray},
    buffer::OffsetBuffer,
    compute::cast,
    datatypes::{DataType, Field, Int64Type},
};
use datafusion::{
    common::cast::as_string_array,
    error::Result,
    logical_expr::{
        ColumnarValue, ScalarUDF, Signature, SimpleScalarUDF, TypeSignature, Volatility, create_udf,
    },
    scalar::ScalarValue,
};

use super::{PgType, TYPES, UTF8, table_oid};
use crate::{
    postgres::{VERSION, commands::SETTINGS},
    tables::{CATALOG, SCHEMA as PUBLIC, TableInfo},
};

/// All of them, about these tables.
pub(crate) fn functions(tables: &[TableInfo]) -> Vec<ScalarUDF> {
    let docs = docs(tables);
    let of_table = docs.clone();
    let version = format!("PostgreSQL {VERSION} (AION Event Streams)");
    vec![
        constant("version", version),
        constant("current_database", CATALOG.to_owned()),
        constant("current_schema", PUBLIC.to_owned()),
        text_of_text("current_setting", |name| {
            let found = SETTINGS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            found.map(|(_, value)| (*value).to_owned())
        }),
        text_of_text("quote_ident", |name| Some(quoted(name))),
        parse_ident(),
        // SQLAlchemy asks for the number of `hstore` before anything else: null is a type that isn't there.
        text_of_text("to_regtype", |name| {
            let is_named = |kind: &PgType| kind.name == name || kind.full == name;
            TYPES.iter().find(|(_, kind)| is_named(kind)).map(|(_, kind)| kind.oid.to_string())
        }),
        visible("pg_table_is_visible"),
        visible("pg_type_is_visible"),
        text_of_number("pg_get_userbyid", 1, |_, _| Some(CATALOG.to_owned())),
        text_of_number("pg_encoding_to_char", 1, |encoding, _| {
            (encoding == i64::from(UTF8)).then(|| "UTF8".to_owned())
        }),
        text_of_number("format_type", 2, |oid, _| {
            let found = TYPES.iter().find(|(_, kind)| i64::from(kind.oid) == oid);
            found.map(|(_, kind)| kind.full.to_owned())
        }),
        text_of_number("col_description", 2, move |table, column| {
            docs.get(&(table, column)).cloned()
        }),
        obj_description(of_table),
    ]
}

fn docs(tables: &[TableInfo]) -> HashMap<(i64, i64), String> {
    let mut docs = HashMap::new();
    for (at, table) in tables.iter().enumerate() {
        let oid = i64::from(table_oid(at));
        docs.insert((oid, 0), table.doc.clone());
        let columns = table.columns.iter().zip(1..);
        docs.extend(columns.map(|(column, number)| ((oid, number), column.doc.clone())));
    }
    docs
}

/// A name as it is written in a statement.
fn quoted(name: &str) -> String {
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

fn constant(name: &str, value: String) -> ScalarUDF {
    let value = ColumnarValue::Scalar(ScalarValue::Utf8(Some(value)));
    create_udf(
        name,
        vec![],
        DataType::Utf8,
        Volatility::Stable,
        Arc::new(move |_: &[ColumnarValue]| Ok(value.clone())),
    )
}

fn text_of_text(
    name: &str,
    of: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
) -> ScalarUDF {
    let run = move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let texts = as_string_array(&arrays[0])?.iter();
        let found: StringArray = texts.map(|text| of(text?)).collect();
        Ok(ColumnarValue::Array(Arc::new(found)))
    };
    create_udf(name, vec![DataType::Utf8], DataType::Utf8, Volatility::Stable, Arc::new(run))
}

/// The comment of a table, which is an object whose kind is `pg_class` where that is said.
fn obj_description(docs: HashMap<(i64, i64), String>) -> ScalarUDF {
    let run = move |arguments: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let oids = cast(&arrays[0], &DataType::Int64)?;
        let kinds = arrays.get(1).map(|array| cast(array, &DataType::Utf8)).transpose()?;
        let is_table = |row: usize| {
            let kinds = kinds.as_ref().map(AsArray::as_string::<i32>);
            kinds.is_none_or(|kinds| kinds.is_valid(row) && kinds.value(row) == "pg_class")
        };
        let oids = oids.as_primitive::<Int64Type>().iter().enumerate();
        let found = oids.map(|(row, oid)| docs.get(&(oid?, 0)).filter(|_| is_table(row)));
        Ok(ColumnarValue::Array(Arc::new(found.collect::<StringArray>())))
    };
    let ways = [vec![DataType::Int64], vec![DataType::Int64, DataType::Utf8]];
    let ways = ways.map(TypeSignature::Exact).to_vec();
    let signature = Signature::one_of(ways, Volatility::Stable);
    SimpleScalarUDF::new_with_signature("obj_description", signature, DataType::Utf8, Arc::new(run))
        .into()
}

/// Of one or two numbers.
fn text_of_number(
    name: &str,
    arguments: usize,
    of: impl Fn(i64, i64) -> Option<String> + Send + Sync + 'static,
) -> ScalarUDF {
    let run = move |arguments: &[ColumnarValue]| {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let first = cast(&arrays[0], &DataType::Int64)?;
        let second = arrays.get(1).map(|array| cast(array, &DataType::Int64)).transpose()?;
        let number = |array: &ArrayRef, row: usize| {
            let array = array.as_primitive::<Int64Type>();
            array.is_valid(row).then(|| array.value(row))
        };
        let found = (0..first.len()).map(|row| {
            let second = second.as_ref().map_or(Some(0), |array| number(array, row)).unwrap_or(-1);
            of(number(&first, row)?, second)
        });
        Ok(ColumnarValue::Array(Arc::new(found.collect::<StringArray>())))
    };
    let types = vec![DataType::Int64; arguments];
    create_udf(name, types, DataType::Utf8, Volatility::Stable, Arc::new(run))
}

fn visible(name: &str) -> ScalarUDF {
    let run = |arguments: &[ColumnarValue]| {
        let rows = ColumnarValue::values_to_arrays(arguments)?[0].len();
        Ok(ColumnarValue::Array(Arc::new(BooleanArray::from(vec![true; rows]))))
    };
    create_udf(name, vec![DataType::Int64], DataType::Boolean, Volatility::Stable, Arc::new(run))
}

/// `a.b` as a list of names.
fn parse_ident() -> ScalarUDF {
    let item = Arc::new(Field::new_list_field(DataType::Utf8, true));
    let list = DataType::List(Arc::clone(&item));
    let run = move |arguments: &[ColumnarValue]| -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(arguments)?;
        let names = as_string_array(&arrays[0])?;
        let parts: Vec<Vec<String>> = names
            .iter()
            .map(|name| name.unwrap_or_default().split('.').map(str::to_owned).collect())
            .collect();
        let lengths = OffsetBuffer::from_lengths(parts.iter().map(Vec::len));
        let values = StringArray::from(parts.concat());
        let lists = ListArray::try_new(Arc::clone(&item), lengths, Arc::new(values), None)?;
        Ok(ColumnarValue::Array(Arc::new(lists)))
    };
    create_udf("parse_ident", vec![DataType::Utf8], list, Volatility::Stable, Arc::new(run))
}
