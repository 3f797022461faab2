//! What a reader's schema doesn't take of what a writer's schema may write.
//!
//! | written | read as |
//! |---|---|
//! | `int` | `int`, `long`, `float`, `double` |
//! | `long` | `long`, `float`, `double` |
//! | `float` | `float`, `double` |
//! | `string`, `bytes` | `string`, `bytes` |
//! | record | record of that name, or with it as an alias; each field is matched by name, else by the reader's aliases, or has a default |
//! | enum | enum of that name; symbols that the reader doesn't have need its default |
//! | fixed | fixed of that name and size |
//! | union | what takes every branch |
//! | any type | a union with a branch that takes it |
//! | decimal | decimal of the same precision and scale |

use std::{collections::HashSet, fmt, ptr};

use apache_avro::schema::{Aliases, Name, RecordSchema, Schema};

use super::avro::{AvroSchema, Names, Wire};

/// How many pairs of types are compared: a few nested definitions can unfold to billions.
const PAIRS: usize = 100_000;
/// How deep types are followed into each other, each step taking some of the thread's stack.
const DEPTH: usize = 256;
/// How many differences are named.
const DIFFERENCES: usize = 100;

/// Something written that isn't read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What kind of difference it is.
    pub kind: DifferenceKind,
    /// Where it is in the reader's schema (for a union branch, in the writer's): `/fields/3/type`.
    pub path: String,
    /// The field, by the names on the way to it: `labels.size`; empty for the schema itself.
    pub field: String,
    /// What was written, and what is read.
    pub detail: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.field.is_empty() {
            write!(f, "field `{}`: ", self.field)?;
        }
        write!(f, "{} (at {})", self.detail, self.path)
    }
}

/// The kinds of differences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DifferenceKind {
    /// Records, enums or fixed types have different names.
    Name,
    /// Fixed types have different sizes.
    FixedSize,
    /// The reader's enum lacks symbols and has no default.
    EnumSymbols,
    /// The reader's field wasn't written and has no default.
    MissingDefault,
    /// The types differ.
    Type,
    /// The reader's union lacks a branch.
    UnionBranch,
    /// Decimals have different precision or scale.
    Decimal,
    /// The schemas unfold to more than can be compared.
    TooLarge,
}

impl DifferenceKind {
    /// Its code, as schema registries write it.
    pub const fn code(self) -> &'static str {
        match self {
            DifferenceKind::Name => "NAME_MISMATCH",
            DifferenceKind::FixedSize => "FIXED_SIZE_MISMATCH",
            DifferenceKind::EnumSymbols => "MISSING_ENUM_SYMBOLS",
            DifferenceKind::MissingDefault => "READER_FIELD_MISSING_DEFAULT_VALUE",
            DifferenceKind::Type | DifferenceKind::Decimal | DifferenceKind::TooLarge => {
                "TYPE_MISMATCH"
            }
            DifferenceKind::UnionBranch => "MISSING_UNION_BRANCH",
        }
    }
}

/// Everything that `writer` may write and `reader` doesn't take.
pub fn differences(writer: &AvroSchema, reader: &AvroSchema) -> Vec<Difference> {
    let mut comparing = Comparing {
        written: writer.names(),
        read: reader.names(),
        open: HashSet::new(),
        pairs: 0,
        depth: 0,
        is_too_large: false,
    };
    let place = Place { path: String::new(), field: String::new() };
    let mut found = comparing.compare(writer.root(), reader.root(), &place);
    if comparing.is_too_large {
        let detail = format!(
            "the schemas unfold to more than {PAIRS} pairs of types, or deeper than {DEPTH}: too much \
             to compare"
        );
        found = vec![place.difference(DifferenceKind::TooLarge, detail)];
    }
    found.truncate(DIFFERENCES);
    found
}

/// A place in the reader's schema.
struct Place {
    path: String,
    field: String,
}

impl Place {
    fn below(&self, step: &str) -> Place {
        Place { path: format!("{}/{step}", self.path), field: self.field.clone() }
    }

    fn field(&self, index: usize, name: &str) -> Place {
        let gap = if self.field.is_empty() { "" } else { "." };
        Place {
            path: format!("{}/fields/{index}", self.path),
            field: format!("{}{gap}{name}", self.field),
        }
    }

    fn difference(&self, kind: DifferenceKind, detail: String) -> Difference {
        let path = if self.path.is_empty() { "/".to_owned() } else { self.path.clone() };
        Difference { kind, path, field: self.field.clone(), detail }
    }
}

struct Comparing<'a> {
    written: Names<'a>,
    read: Names<'a>,
    /// The pairs of records that are being compared: a record within itself is as good as itself.
    open: HashSet<(*const RecordSchema, *const RecordSchema)>,
    pairs: usize,
    depth: usize,
    is_too_large: bool,
}

impl<'a> Comparing<'a> {
    fn compare(&mut self, writer: &'a Schema, reader: &'a Schema, at: &Place) -> Vec<Difference> {
        if self.pairs >= PAIRS || self.depth >= DEPTH {
            self.is_too_large = true;
            return Vec::new();
        }
        self.pairs += 1;
        self.depth += 1;
        let found = self.types(writer, reader, at);
        self.depth -= 1;
        found
    }

    fn types(&mut self, writer: &'a Schema, reader: &'a Schema, at: &Place) -> Vec<Difference> {
        if let Some(detail) = decimals(writer, reader) {
            return vec![at.difference(DifferenceKind::Decimal, detail)];
        }
        let (written, read) = (self.written.wire(writer), self.read.wire(reader));
        match (written, read) {
            (Wire::Union(branches), _) => self.branches(branches, reader, at),
            (_, Wire::Union(branches)) => {
                let taken =
                    branches.iter().any(|branch| self.compare(writer, branch, at).is_empty());
                let lacks = || {
                    let detail =
                        format!("{} is written, and the union doesn't take it", written.title());
                    at.difference(DifferenceKind::UnionBranch, detail)
                };
                (!taken).then(lacks).into_iter().collect()
            }
            (Wire::Record(written), Wire::Record(read)) => {
                let mut found = names((&written.name, "record"), (&read.name, &read.aliases), at);
                found.extend(self.records(written, read, at));
                found
            }
            (Wire::Enum(written), Wire::Enum(read)) => {
                let mut found = names((&written.name, "enum"), (&read.name, &read.aliases), at);
                if read.default.is_none() {
                    found.extend(symbols(&written.symbols, &read.symbols, at));
                }
                found
            }
            (Wire::Fixed(written), Wire::Fixed(read)) => {
                let mut found = names((&written.name, "fixed"), (&read.name, &read.aliases), at);
                if written.size != read.size {
                    let detail =
                        format!("{} bytes are written, {} are read", written.size, read.size);
                    found.push(at.difference(DifferenceKind::FixedSize, detail));
                }
                found
            }
            (Wire::Array(written), Wire::Array(read)) => {
                self.compare(written, read, &at.below("items"))
            }
            (Wire::Map(written), Wire::Map(read)) => {
                self.compare(written, read, &at.below("values"))
            }
            _ if is_promoted(written, read) => Vec::new(),
            _ => {
                let detail = format!("{} is written, {} is read", written.title(), read.title());
                vec![at.difference(DifferenceKind::Type, detail)]
            }
        }
    }

    /// A union is read if each of its branches is.
    fn branches(
        &mut self,
        branches: &'a [Schema],
        reader: &'a Schema,
        at: &Place,
    ) -> Vec<Difference> {
        let mut found = Vec::new();
        for (index, branch) in branches.iter().enumerate() {
            found.extend(self.compare(branch, reader, &at.below(&index.to_string())));
        }
        found
    }

    fn records(
        &mut self,
        written: &'a RecordSchema,
        read: &'a RecordSchema,
        at: &Place,
    ) -> Vec<Difference> {
        let pair = (ptr::from_ref(written), ptr::from_ref(read));
        if !self.open.insert(pair) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (index, field) in read.fields.iter().enumerate() {
            let at = at.field(index, &field.name);
            let mut names = std::iter::once(&field.name).chain(&field.aliases);
            let source = names.find_map(|name| written.fields.iter().find(|f| f.name == *name));
            match source {
                Some(source) => {
                    found.extend(self.compare(&source.schema, &field.schema, &at.below("type")));
                }
                None if field.default.is_none() => {
                    let detail = "it has no default, and was not written".to_owned();
                    found.push(at.difference(DifferenceKind::MissingDefault, detail));
                }
                None => {}
            }
        }
        self.open.remove(&pair);
        found
    }
}

/// Whether a value of one plain type is read as another.
fn is_promoted(written: Wire<'_>, read: Wire<'_>) -> bool {
    matches!(
        (written, read),
        (Wire::Null, Wire::Null)
            | (Wire::Boolean, Wire::Boolean)
            | (Wire::Int, Wire::Int | Wire::Long | Wire::Float | Wire::Double)
            | (Wire::Long, Wire::Long | Wire::Float | Wire::Double)
            | (Wire::Float, Wire::Float | Wire::Double)
            | (Wire::Double, Wire::Double)
            | (Wire::Bytes | Wire::String, Wire::Bytes | Wire::String)
    )
}

fn decimals(writer: &Schema, reader: &Schema) -> Option<String> {
    let (Schema::Decimal(written), Schema::Decimal(read)) = (writer, reader) else { return None };
    let (written, read) = ((written.precision, written.scale), (read.precision, read.scale));
    (written != read).then(|| {
        format!("decimal{written:?} is written, decimal{read:?} is read (precision, scale)")
    })
}

/// Names go together when their last parts are equal, or the reader has the written one as an alias.
fn names(
    (written, kind): (&Name, &str),
    (read, aliases): (&Name, &Aliases),
    at: &Place,
) -> Vec<Difference> {
    let is_alias =
        |alias: &apache_avro::schema::Alias| alias.fullname(None) == written.fullname(None);
    if written.name() == read.name() || aliases.iter().flatten().any(is_alias) {
        return Vec::new();
    }
    let detail = format!("{kind} {written} is written, {kind} {read} is read");
    vec![at.difference(DifferenceKind::Name, detail)]
}

fn symbols(written: &[String], read: &[String], at: &Place) -> Option<Difference> {
    let known: HashSet<&String> = read.iter().collect();
    let missing: Vec<&str> =
        written.iter().filter(|symbol| !known.contains(symbol)).map(String::as_str).collect();
    if missing.is_empty() {
        return None;
    }
    let detail = format!(
        "the enum has neither a default nor the symbols {}, which are written",
        missing.join(", ")
    );
    Some(at.difference(DifferenceKind::EnumSymbols, detail))
}
