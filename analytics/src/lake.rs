//! The lake as the engine reads it: its tables, and its files as the only object store.

use std::{collections::BTreeMap, sync::Arc};

use aion_sinks::{
    lake::{
        Lake as Tables, StoreOptions,
        history::Commit,
        read::{Snapshot, Table},
    },
    sink::SinkError,
};
use datafusion::{
    error::Result as PlanResult,
    execution::object_store::{DefaultObjectStoreRegistry, ObjectStoreRegistry, ObjectStoreUrl},
};
use futures::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use object_store::ObjectStore;
use url::Url;

use crate::error::Error;

/// An open lake.
#[derive(Debug)]
pub(crate) struct Lake {
    url: Url,
    objects: Arc<dyn ObjectStore>,
    tables: BTreeMap<String, Table>,
}

impl Lake {
    /// Opens the tables of a lake. None of them need be there yet, nor the lake's folder.
    pub(crate) fn open<'a>(
        url: &Url,
        options: &StoreOptions,
        tables: impl Iterator<Item = &'a str>,
    ) -> Result<Lake, Error> {
        let failed =
            |cause: SinkError| Error::Open { lake: url.to_string(), cause: cause.to_string() };
        let lake = Tables::open(url, options).map_err(failed)?;
        let open = |name: &str| Ok((name.to_owned(), lake.table(name)?));
        let tables = tables.map(open).collect::<Result<BTreeMap<_, _>, _>>().map_err(failed)?;
        let objects = tables.values().next().map(Table::objects).ok_or_else(|| Error::Open {
            lake: url.to_string(),
            cause: "the catalog has no topic".to_owned(),
        })?;
        Ok(Lake { url: url.clone(), objects, tables })
    }

    /// Where it is.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// An object store registry that knows this lake and nothing else.
    pub(crate) fn registry(&self) -> PlanResult<DefaultObjectStoreRegistry> {
        let registry = DefaultObjectStoreRegistry::new();
        // It starts with the whole file system.
        registry.deregister_store(ObjectStoreUrl::local_filesystem().as_ref())?;
        registry.register_store(store_url()?.as_ref(), Arc::clone(&self.objects));
        Ok(registry)
    }

    /// The newest version of a table; `None` while there is no such table.
    pub(crate) async fn snapshot(&self, table: &str) -> Result<Option<Arc<Snapshot>>, Error> {
        let Some(open) = self.tables.get(table) else { return Ok(None) };
        open.snapshot().await.map_err(|cause| Error::Read {
            what: format!("table {table} of the lake"),
            cause: cause.to_string(),
        })
    }

    /// What each commit of a table up to a version covered, oldest first.
    pub(crate) fn commits(
        &self,
        table: &str,
        last: i64,
    ) -> BoxStream<'static, Result<Commit, Error>> {
        let Some(open) = self.tables.get(table) else { return stream::empty().boxed() };
        let what = format!("the log of table {table} of the lake");
        let failed =
            move |cause: SinkError| Error::Read { what: what.clone(), cause: cause.to_string() };
        open.commits(last).map_err(failed).boxed()
    }
}

/// The name under which the engine's runtime knows the lake.
pub(crate) fn store_url() -> PlanResult<ObjectStoreUrl> {
    ObjectStoreUrl::parse("lake://lake")
}
