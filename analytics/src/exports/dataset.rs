//! Datasets: their columns, the tables that they are made of, and the SQL that makes them.
//!
//! The SQL keeps to what DataFusion, ClickHouse and Spark have in common; where they differ there is a [`Dialect`].
//!
//! | dataset | a row is |
//! |---|---|
//! | a topic's table | an event, with the place where it stood in the log |
//! | `router_training` | a decision of the router, with what became of it ([`training`]) |
//!
//! Rows are in one order, by event time, topic id, partition, offset: no two have the same.

pub mod training;

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

use aion_schemas::{
    catalog::{Catalog, Topic},
    log::Timestamp,
    schema::Kind,
};
use arrow::datatypes::{Field, Schema, SchemaRef};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{
    closing::Vector,
    request::{Request, hex},
};

/// The dataset of decisions with their outcomes.
pub const TRAINING: &str = "router_training";
/// The topics that it is made of.
const DECISIONS: &str = "decisions";
const TASKS: &str = "tasks";

/// A column of an export.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Its name.
    pub name: Arc<str>,
    /// Its type, in words of the contract.
    #[serde(with = "kind_name")]
    pub kind: Kind,
    /// One sentence for people.
    pub doc: Arc<str>,
}

/// What can be exported.
#[derive(Clone, Debug)]
pub struct Dataset {
    name: Arc<str>,
    /// The topics that it reads: the first gives the rows.
    topics: Vec<Topic>,
    columns: Vec<Column>,
}

/// How an engine's SQL differs from that of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// The embedded engine, over the lake.
    DataFusion,
    /// ClickHouse, over its own tables.
    ClickHouse,
    /// Spark, over the lake.
    Spark,
}

/// The names of all datasets.
pub fn names(catalog: &Catalog) -> Vec<String> {
    let tables = catalog.topics.iter().filter(|topic| !topic.internal);
    let tables = tables.map(|topic| topic.table.to_string());
    let training = Dataset::named(TRAINING, catalog).map(|_| TRAINING.to_owned());
    tables.chain(training).collect()
}

impl Dataset {
    /// The dataset of that name. Topics that the platform keeps for itself are none.
    pub fn named(name: &str, catalog: &Catalog) -> Option<Dataset> {
        if name == TRAINING {
            return training::dataset(catalog);
        }
        let topic = catalog.table(name).filter(|topic| !topic.internal)?;
        let fields = topic.schema.fields.iter();
        let fields = fields.map(|field| Column {
            name: Arc::clone(&field.name),
            kind: field.kind,
            doc: Arc::clone(&field.doc),
        });
        let columns = fields.chain(place_columns()).chain([origin_column()]).collect();
        Some(Dataset { name: name.into(), topics: vec![topic.clone()], columns })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The topics that it reads: the first gives the rows.
    pub fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Its columns, in order.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Whether it is the one of decisions with their outcomes.
    pub fn is_training(&self) -> bool {
        &*self.name == TRAINING
    }

    /// Whether its rows have a privacy tier.
    pub fn has_tier(&self) -> bool {
        self.columns.iter().any(|column| &*column.name == "tier")
    }

    /// The name of the column that says when a row happened.
    pub fn event_time(&self) -> &str {
        let schema = &self.topics[0].schema;
        &schema.fields[schema.event_time].name
    }

    /// What changes when a column does.
    pub fn fingerprint(&self) -> String {
        let mut text = String::new();
        for column in &self.columns {
            // Writing to a String can't fail.
            writeln!(text, "{} {}", column.name, kind_name::of(column.kind)).ok();
        }
        hex(digest(&SHA256, text.as_bytes()).as_ref())[..16].to_owned()
    }

    /// The columns as a file has them.
    pub fn schema(&self) -> SchemaRef {
        let fields = self.columns.iter().map(|column| {
            let field = Field::new(&*column.name, column.kind.arrow(), true);
            let doc = [("description".to_owned(), column.doc.to_string())];
            field.with_metadata(doc.into())
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The rows of a request, in their order, from the tables as `tables` calls them. The last column of a dataset for
    /// training, the split, isn't among them: it is computed from what is.
    pub fn rows(&self, request: &Request, within: &Within<'_>) -> String {
        if self.is_training() {
            return training::rows(self, request, within);
        }
        let topic = &self.topics[0];
        let columns = list(self.columns.iter().map(|column| quoted(&column.name)));
        let from = within.table(topic);
        let kept = self.kept(topic, request, within);
        let order = self.order();
        if !request.deduplicate {
            return format!("select {columns} from {from} where {kept} order by {order}");
        }
        let copy = first_copies(within.dialect);
        format!(
            "select {columns} from (select *, {copy} as _copy from {from} where {kept}) as copies \
             where _copy = 1 order by {order}"
        )
    }

    /// How many rows of the interval lie below the vector, and how many beyond it: those came late.
    pub fn counts(&self, request: &Request, within: &Within<'_>) -> String {
        let topic = &self.topics[0];
        let within_time = self.of_interval(request, within.dialect);
        let below = within.below(topic);
        format!(
            "select sum(case when {below} then 1 else 0 end) as kept, \
             sum(case when {below} then 0 else 1 end) as late from {} \
             where {within_time}{}",
            within.table(topic),
            of_tiers(request)
        )
    }

    fn kept(&self, topic: &Topic, request: &Request, within: &Within<'_>) -> String {
        let time = self.of_interval(request, within.dialect);
        format!("{time} and {}{}", within.below(topic), of_tiers(request))
    }

    fn of_interval(&self, request: &Request, dialect: Dialect) -> String {
        let time = quoted(self.event_time());
        let (start, end) = (dialect.time(request.start), dialect.time(request.end));
        format!("{time} >= {start} and {time} < {end}")
    }

    fn order(&self) -> String {
        format!("{}, _topic_id, _partition, _offset", quoted(self.event_time()))
    }
}

/// Where the rows of a request are read, and up to which offsets.
#[derive(Debug)]
pub struct Within<'a> {
    /// The engine that reads them.
    pub dialect: Dialect,
    /// What stands before a table's name, such as `aion.`.
    pub prefix: &'a str,
    /// Up to which offsets, by table.
    pub vectors: &'a BTreeMap<Arc<str>, Vector>,
}

impl Within<'_> {
    fn table(&self, topic: &Topic) -> String {
        format!("{}{}", self.prefix, topic.table)
    }

    /// The condition that a row lies below the table's vector.
    fn below(&self, topic: &Topic) -> String {
        let mut by_topic = BTreeMap::<_, Vec<String>>::new();
        for ((id, number), offset) in
            self.vectors.get(&topic.table).into_iter().flat_map(|vector| &vector.0)
        {
            let below = format!("_partition = {number} and _offset < {offset}");
            by_topic.entry(id).or_default().push(below);
        }
        if by_topic.is_empty() {
            return "false".to_owned();
        }
        let each = by_topic.into_iter().map(|(id, partitions)| {
            format!("_topic_id = '{id}' and ({})", partitions.join(" or "))
        });
        format!("({})", each.collect::<Vec<_>>().join(" or "))
    }
}

impl Dialect {
    /// A point in time.
    pub fn time(self, time: Timestamp) -> String {
        match self {
            Dialect::DataFusion => {
                format!("arrow_cast({}, 'Timestamp(Microsecond, Some(\"UTC\"))')", time.0)
            }
            Dialect::ClickHouse => format!("fromUnixTimestamp64Micro({}, 'UTC')", time.0),
            Dialect::Spark => format!("timestamp_micros({})", time.0),
        }
    }

    /// A time so many seconds later.
    fn later(self, time: &str, seconds: u32) -> String {
        match self {
            Dialect::DataFusion => format!("{time} + interval '{seconds} seconds'"),
            Dialect::ClickHouse => format!("addSeconds({time}, {seconds})"),
            Dialect::Spark => format!("{time} + make_dt_interval(0, 0, 0, {seconds})"),
        }
    }

    /// Null of a type.
    fn null(self, kind: Kind) -> String {
        let name = match (self, kind) {
            (Dialect::ClickHouse, Kind::Text | Kind::Object | Kind::Bytes) => "Nullable(String)",
            (Dialect::ClickHouse, Kind::Integer) => "Nullable(Int64)",
            (Dialect::ClickHouse, Kind::Number) => "Nullable(Float64)",
            (Dialect::ClickHouse, Kind::Boolean) => "Nullable(Bool)",
            (Dialect::ClickHouse, Kind::Time) => "Nullable(DateTime64(6, 'UTC'))",
            (Dialect::Spark, Kind::Text | Kind::Object) => "string",
            (_, Kind::Text | Kind::Object) => "varchar",
            (_, Kind::Bytes) => "binary",
            (_, Kind::Integer) => "bigint",
            (_, Kind::Number) => "double",
            (_, Kind::Boolean) => "boolean",
            (Dialect::DataFusion, Kind::Time) => {
                return "arrow_cast(null, 'Timestamp(Microsecond, Some(\"UTC\"))')".to_owned();
            }
            (Dialect::Spark, Kind::Time) => "timestamp",
        };
        format!("cast(null as {name})")
    }
}

/// ` and tier in (...)`, where rows have one.
fn of_tiers(request: &Request) -> String {
    let Some(tiers) = &request.tiers else { return String::new() };
    if tiers.is_empty() {
        return " and false".to_owned();
    }
    format!(" and tier in ({})", list(tiers.iter().map(|tier| literal(tier))))
}

/// Which of the events with one `event_id` a row is, the first that arrived being 1; one without an id is its own.
fn first_copies(dialect: Dialect) -> String {
    let text = match dialect {
        Dialect::DataFusion => "varchar",
        Dialect::ClickHouse => "String",
        Dialect::Spark => "string",
    };
    format!(
        "row_number() over (partition by coalesce(event_id, concat(_topic_id, '/', cast(_partition as {text}), '/', \
         cast(_offset as {text}))) order by _append_time, _topic_id, _partition, _offset)"
    )
}

fn column(name: &str, kind: Kind, doc: &str) -> Column {
    Column { name: name.into(), kind, doc: doc.into() }
}

/// Where a row stood in the log.
fn place_columns() -> [Column; 4] {
    [
        column("_topic_id", Kind::Text, "Id of the topic's incarnation."),
        column("_partition", Kind::Integer, "Kafka partition."),
        column("_offset", Kind::Integer, "Offset of the record."),
        column("_append_time", Kind::Time, "When the broker appended the record."),
    ]
}

fn origin_column() -> Column {
    let doc =
        "Of a retry: topic id, partition and offset of the record that was rejected; else null.";
    column("_origin", Kind::Text, doc)
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(", ")
}

/// Kinds by their names.
mod kind_name {
    use aion_schemas::schema::Kind;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const ALL: [(Kind, &str); 7] = [
        (Kind::Text, "text"),
        (Kind::Integer, "integer"),
        (Kind::Number, "number"),
        (Kind::Boolean, "boolean"),
        (Kind::Time, "time"),
        (Kind::Object, "object"),
        (Kind::Bytes, "bytes"),
    ];

    pub(super) fn of(kind: Kind) -> &'static str {
        ALL.iter().find(|(one, _)| *one == kind).map_or("", |(_, name)| name)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands out references")]
    pub(super) fn serialize<S: Serializer>(kind: &Kind, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(of(*kind))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Kind, D::Error> {
        let name = String::deserialize(from)?;
        let found = ALL.iter().find(|(_, one)| *one == name).map(|(kind, _)| *kind);
        found.ok_or_else(|| D::Error::custom(format!("{name:?} is no kind of column")))
    }
}
