//! Which tables there are: one per table of the catalog, `<name>_raw` beside those that are shown
//! without repetitions, `lag`, `batches`, `schemas`, `exports` where somebody keeps them, and views.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use aion_schemas::{
    catalog::{Catalog, Topic},
    schema::{POSITION_COLUMNS, Schema},
};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
        SchemaProvider, TableProvider,
    },
    error::{DataFusionError, Result},
    execution::{SessionState, SessionStateBuilder},
};

use crate::{
    control::{
        Outside,
        batches::{self, Batches},
        exports,
        schemas::{self, SchemaText},
    },
    derived,
    lag::{self, Lag},
    postgres::catalog as pg,
    stored::{Sources, Stored},
    views,
};

/// The catalog and the schema that all tables are in.
pub(crate) const CATALOG: &str = "aion";
pub(crate) const SCHEMA: &str = "public";

/// The column by which the lake is cut into folders: the UTC day of the event time.
pub(crate) const DATE_COLUMN: &str = "_date";

/// A table as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableInfo {
    /// The name to ask for.
    pub name: String,
    /// One sentence for people.
    pub doc: String,
    /// The columns, in order.
    pub columns: Vec<ColumnInfo>,
}

/// A column as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnInfo {
    /// The name to ask for.
    pub name: String,
    /// Its type, in SQL's words.
    pub sql_type: String,
    /// Whether it can be null.
    pub nullable: bool,
    /// One sentence for people.
    pub doc: String,
}

/// A table of the lake: what it is called there and in SQL, and its columns.
#[derive(Debug)]
pub(crate) struct Definition {
    /// The name in SQL, and of the folder in the lake.
    pub(crate) table: String,
    /// The topic that it is filled from.
    pub(crate) topic: Arc<str>,
    /// The topic of its retries, where it has one.
    pub(crate) retries: Option<Arc<str>>,
    /// The column that says when an event happened.
    pub(crate) event_time: String,
    /// The columns that make rows one and the same; `None` where each row stands for itself.
    pub(crate) key: Option<Vec<String>>,
    /// What a Parquet file holds: the schema's fields, then the position columns.
    pub(crate) file_schema: SchemaRef,
    /// The same with [`DATE_COLUMN`] at the end.
    pub(crate) schema: SchemaRef,
    info: TableInfo,
}

impl Definition {
    fn new(topic: &Topic, retries: Option<Topic>, text: &DataType) -> Definition {
        let arrow = topic.schema.arrow();
        let fields = arrow.fields().iter().map(|field| column(field, text)).collect::<Vec<_>>();
        let date = Field::new(DATE_COLUMN, DataType::Date32, true);
        let all = fields.iter().cloned().chain([date]).collect::<Vec<_>>();
        Definition {
            table: topic.table.to_string(),
            topic: Arc::clone(&topic.name),
            retries: retries.map(|topic| topic.name),
            event_time: topic.schema.fields[topic.schema.event_time].name.to_string(),
            key: views::key(topic),
            file_schema: Arc::new(ArrowSchema::new(fields)),
            schema: Arc::new(ArrowSchema::new(all)),
            info: info(&topic.table, &topic.schema),
        }
    }
}

/// Any column may be null, also one that events must have: files older than the column lack it.
fn column(field: &Arc<Field>, text: &DataType) -> Field {
    let data_type = match field.data_type() {
        DataType::Utf8 => text.clone(),
        other => other.clone(),
    };
    Field::new(field.name(), data_type, true)
}

/// The tables of a catalog, made once for all queries.
#[derive(Debug)]
pub(crate) struct Tables {
    definitions: Vec<Arc<Definition>>,
    /// The contract, as table `schemas` has it.
    contract: Vec<SchemaText>,
    views: Vec<&'static derived::Statement>,
    infos: Vec<TableInfo>,
    /// What PostgreSQL's clients ask about them.
    pg_catalog: Arc<dyn SchemaProvider>,
}

impl Tables {
    /// The tables that the topics of the catalog fill, with text of this type, and those of what can be asked outside.
    pub(crate) fn of(catalog: &Catalog, text: &DataType, outside: &Outside) -> Result<Tables> {
        let definition = |topic| Arc::new(Definition::new(topic, catalog.retries_of(topic), text));
        let definitions: Vec<_> = catalog.topics.iter().map(definition).collect();
        let mut infos = infos(&definitions);
        infos.extend(outside.exports.as_ref().map(|_| exports::info()));
        let views: Vec<_> = derived::over(&infos).collect();
        infos.extend(views.iter().map(|view| view.info()));
        let pg_catalog = pg::schema(&infos)?;
        let contract = schemas::of(catalog);
        Ok(Tables { definitions, contract, views, infos, pg_catalog })
    }

    /// The names of the tables that the lake holds.
    pub(crate) fn stored(&self) -> impl Iterator<Item = &str> {
        self.definitions.iter().map(|definition| definition.table.as_str())
    }

    /// All tables as people see them.
    pub(crate) fn infos(&self) -> &[TableInfo] {
        &self.infos
    }

    /// The tables for one query: each takes its snapshot when it is first read.
    pub(crate) fn for_query(
        &self,
        base: &SessionState,
        sources: &Sources,
        outside: &Outside,
    ) -> Result<QueryTables> {
        let stored = |definition| Arc::new(Stored::new(Arc::clone(definition), sources.clone()));
        let stored: Vec<_> = self.definitions.iter().map(stored).collect();
        let mut named: BTreeMap<String, Arc<dyn TableProvider>> = BTreeMap::new();
        for table in &stored {
            let name = table.definition().table.clone();
            let raw = Arc::clone(table) as Arc<dyn TableProvider>;
            if let Some(key) = &table.definition().key {
                named.insert(views::raw_name(&name), Arc::clone(&raw));
                named.insert(name.clone(), views::distinct(&name, key, raw)?);
            } else {
                named.insert(name, raw);
            }
        }
        named.insert(batches::TABLE.into(), Arc::new(Batches::new(stored.clone())));
        named.insert(lag::TABLE.into(), Arc::new(Lag::new(stored, outside.ends.clone())));
        let texts = schemas::table(self.contract.clone(), outside.registered.clone());
        named.insert(schemas::TABLE.into(), Arc::new(texts));
        if let Some(told) = &outside.exports {
            named.insert(exports::TABLE.into(), Arc::new(exports::table(told.clone())));
        }
        let below = Arc::new(Named(named.clone()));
        for view in &self.views {
            named.insert(view.name().to_owned(), view.provider(base, &below));
        }
        let pg_catalog = Arc::clone(&self.pg_catalog);
        Ok(QueryTables { named: Named(named), pg_catalog, missing: Mutex::new(None) })
    }
}

fn infos(definitions: &[Arc<Definition>]) -> Vec<TableInfo> {
    let mut infos = Vec::new();
    for definition in definitions {
        infos.push(definition.info.clone());
        if definition.key.is_some() {
            let name = views::raw_name(&definition.table);
            let doc = format!("{} as stored, with repetitions", definition.table);
            infos.push(TableInfo { name, doc, ..definition.info.clone() });
        }
    }
    infos.extend([lag::info(), batches::info(), schemas::info()]);
    infos
}

fn info(table: &str, schema: &Schema) -> TableInfo {
    let mut columns: Vec<_> = schema
        .fields
        .iter()
        .map(|field| ColumnInfo {
            name: field.name.to_string(),
            sql_type: sql_type(&field.kind.arrow()).to_owned(),
            nullable: !field.required,
            doc: field.doc.to_string(),
        })
        .collect();
    let arrow = schema.arrow();
    columns.extend(POSITION_COLUMNS.iter().zip(POSITION_DOCS).map(|(name, doc)| {
        ColumnInfo {
            name: (*name).to_owned(),
            sql_type: arrow
                .field_with_name(name)
                .map_or_else(|_| String::new(), |field| sql_type(field.data_type()).to_owned()),
            nullable: arrow.field_with_name(name).is_ok_and(Field::is_nullable),
            doc: doc.to_owned(),
        }
    }));
    columns.push(ColumnInfo {
        name: DATE_COLUMN.to_owned(),
        sql_type: sql_type(&DataType::Date32).to_owned(),
        nullable: true,
        doc: "Day of the event time (UTC); a filter on it skips whole folders.".to_owned(),
    });
    TableInfo { name: table.to_owned(), doc: schema.doc.to_string(), columns }
}

const POSITION_DOCS: [&str; 6] = [
    "Id of the topic's incarnation.",
    "Leader epoch of the record; -1 where it is not known.",
    "Kafka partition.",
    "Offset of the record.",
    "When the broker appended the record.",
    "Of a retry: topic id, partition and offset of the record that was rejected; else null.",
];

/// The name that SQL has for a type of the contract.
pub fn sql_type(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "varchar",
        DataType::Int32 | DataType::UInt16 => "integer",
        DataType::Int64 | DataType::UInt32 => "bigint",
        DataType::Float64 => "double",
        DataType::Boolean => "boolean",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Date32 => "date",
        DataType::Binary | DataType::BinaryView => "bytea",
        DataType::Interval(_) | DataType::Duration(_) => "interval",
        DataType::List(_) | DataType::LargeList(_) => "array",
        DataType::Decimal128(..) | DataType::Decimal256(..) | DataType::UInt64 => "numeric",
        DataType::Float32 => "real",
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint",
        _ => "other",
    }
}

/// Tables by name.
#[derive(Debug)]
pub(crate) struct Named(BTreeMap<String, Arc<dyn TableProvider>>);

#[async_trait]
impl SchemaProvider for Named {
    fn table_names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        Ok(self.0.get(name).map(Arc::clone))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// The tables of one query.
#[derive(Debug)]
pub(crate) struct QueryTables {
    named: Named,
    pg_catalog: Arc<dyn SchemaProvider>,
    missing: Mutex<Option<String>>,
}

impl QueryTables {
    /// The first table that planning asked for in vain.
    pub(crate) fn missing(&self) -> Option<String> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The state of a session over these tables.
    pub(crate) fn session(self: &Arc<Self>, base: &SessionState) -> Result<SessionState> {
        let tables = Arc::clone(self) as Arc<dyn SchemaProvider>;
        session_over(base, [(SCHEMA, tables), (pg::SCHEMA, Arc::clone(&self.pg_catalog))])
    }
}

#[async_trait]
impl SchemaProvider for QueryTables {
    fn table_names(&self) -> Vec<String> {
        self.named.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        let mut found = self.named.table(name).await?;
        if found.is_none() && name.starts_with("pg_") {
            found = self.pg_catalog.table(name).await?;
        }
        if found.is_none() {
            let mut missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
            missing.get_or_insert_with(|| name.to_owned());
        }
        Ok(found)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.named.table_exist(name)
    }
}

/// The state of a session over these schemas and no others.
pub(crate) fn session_over<const N: usize>(
    base: &SessionState,
    schemas: [(&str, Arc<dyn SchemaProvider>); N],
) -> Result<SessionState> {
    let catalog = MemoryCatalogProvider::new();
    for (name, tables) in schemas {
        catalog.register_schema(name, tables)?;
    }
    // A list of its own: the one in the base state is shared by all clones.
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog(CATALOG.into(), Arc::new(catalog));
    let state = SessionStateBuilder::new_from_existing(base.clone());
    Ok(state.with_catalog_list(Arc::new(catalogs)).build())
}
