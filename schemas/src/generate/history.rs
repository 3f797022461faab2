//! Every form that a schema ever had, so that a change which old events don't survive is refused.
//!
//! `schemas/history/<schema>/<n>.avsc` are the mirrors that were registered, oldest first. Writing
//! adds the next one when the contract has changed; nothing else touches the folder.
//!
//! **Invariant:** a schema reads what was written with each of its earlier forms
//! (`BACKWARD_TRANSITIVE`), as Avro and as JSON, or generating and checking both fail.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use apache_avro::schema::{RecordField, Schema as Avro};

use super::{GenerateError, GeneratedFile, failed, public_schemas};
use crate::{
    catalog::Catalog,
    compatibility::{self, AvroSchema, Level},
    schema::{NAMESPACE, OBJECT_NOTE, Schema},
};

const FOLDER: &str = "schemas/history";

/// A change that old events don't survive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incompatible {
    /// The schema's name.
    pub schema: String,
    /// What stands in the way, one sentence each.
    pub conflicts: Vec<String>,
}

/// Says what is wrong, and what to do instead.
impl fmt::Display for Incompatible {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Incompatible { schema, conflicts } = self;
        writeln!(f, "schemas/events/{schema}.schema.json can't read the events that there are:")?;
        for conflict in conflicts {
            writeln!(f, "  {conflict}")?;
        }
        write!(
            f,
            "versions are those of {FOLDER}/{schema}; add a field as an optional one, keep what has \
             been required, and give what changes its type a new name"
        )
    }
}

/// The files that the history lacks: the current form of each schema that has changed.
pub(super) fn due(root: &Path, catalog: &Catalog) -> Result<Vec<GeneratedFile>, GenerateError> {
    let mut due = Vec::new();
    let mut refused = Vec::new();
    for schema in public_schemas(catalog) {
        let current = schema.avro_text(NAMESPACE);
        let mut earlier = read(root, schema)?;
        let is_known = earlier.last().is_some_and(|(_, text)| *text == current);
        if is_known {
            // Held against the others all the same: it may have been put there by hand.
            earlier.pop();
        }
        let conflicts = conflicts(root, schema, &current, &earlier)?;
        if conflicts.is_empty() && is_known {
            continue;
        }
        if conflicts.is_empty() {
            let n = earlier.len() + 1;
            let path = format!("{FOLDER}/{}/{n}.avsc", schema.name);
            due.push(GeneratedFile { path, text: current });
        } else {
            refused.push(Incompatible { schema: schema.name.to_string(), conflicts });
        }
    }
    if refused.is_empty() { Ok(due) } else { Err(GenerateError::Incompatible(refused)) }
}

/// A schema's earlier forms with their numbers, which go from 1 without a gap.
fn read(root: &Path, schema: &Schema) -> Result<Vec<(u32, String)>, GenerateError> {
    let mut forms = Vec::new();
    for n in 1.. {
        let path = form(root, schema, n);
        match fs::read_to_string(&path) {
            Ok(text) => forms.push((n, text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(failed("read", &path)(error)),
        }
    }
    Ok(forms)
}

fn form(root: &Path, schema: &Schema, n: u32) -> PathBuf {
    root.join(FOLDER).join(&*schema.name).join(format!("{n}.avsc"))
}

fn conflicts(
    root: &Path,
    schema: &Schema,
    current: &str,
    earlier: &[(u32, String)],
) -> Result<Vec<String>, GenerateError> {
    let parse = |text: &str, path: PathBuf| {
        AvroSchema::parse::<&str>(text, &[]).map_err(|why| GenerateError::History { path, why })
    };
    let new = parse(current, form(root, schema, 0))?;
    let mut parsed = Vec::with_capacity(earlier.len());
    for (n, text) in earlier {
        parsed.push((*n, parse(text, form(root, schema, *n))?));
    }
    let found = compatibility::check(Level::BackwardTransitive, &new, &parsed);
    let mut conflicts: Vec<String> = found.iter().map(ToString::to_string).collect();
    for (n, old) in parsed.iter().rev() {
        conflicts.extend(other_meanings(old, &new).map(|what| format!("version {n}: {what}")));
    }
    Ok(conflicts)
}

/// What a field holds besides its Avro type. A plain `long` is read as a time, and any text as an
/// object, by Avro's rules; by those of JSON they aren't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Time,
    Object,
    Plain,
}

impl Meaning {
    fn of(field: &RecordField) -> Meaning {
        let is_time = |schema: &Avro| matches!(schema, Avro::TimestampMicros);
        let is_in_union = |schema: &Avro| match schema {
            Avro::Union(union) => union.variants().iter().any(is_time),
            other => is_time(other),
        };
        match &field.doc {
            _ if is_in_union(&field.schema) => Meaning::Time,
            Some(doc) if doc.ends_with(OBJECT_NOTE) => Meaning::Object,
            _ => Meaning::Plain,
        }
    }
}

impl fmt::Display for Meaning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Meaning::Time => "a time",
            Meaning::Object => "an object",
            Meaning::Plain => "a plain value",
        })
    }
}

fn other_meanings<'a>(
    old: &'a AvroSchema,
    new: &'a AvroSchema,
) -> impl Iterator<Item = String> + 'a {
    fields(new).iter().filter_map(move |field| {
        let before = fields(old).iter().find(|before| before.name == field.name)?;
        let (was, is) = (Meaning::of(before), Meaning::of(field));
        (was != is).then(|| format!("field `{}` held {was}, and would hold {is}", field.name))
    })
}

fn fields(schema: &AvroSchema) -> &[RecordField] {
    match schema.root() {
        Avro::Record(record) => &record.fields,
        _ => &[],
    }
}
