//! What another engine needs to make an export, such as Spark: the same rows as SQL over the lake's tables.
//!
//! The files that it writes get the same manifest, and `aion export verify` proves them the same way.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use aion_analytics::{
    Engine,
    exports::{
        closing::Open,
        dataset::{Dialect, Within},
        manifest::{About, Plan, PlannedTable},
        request::Asked,
    },
};
use anyhow::Context;
use uuid::Uuid;

use super::{
    closing,
    service::{Exports, Refusal, check_kept, refusal_of},
    source::Source,
    survey,
};

impl Exports {
    /// Plans an export for Spark. Its interval has to be complete.
    pub async fn plan(&self, asked: &Asked) -> Result<Plan, Refusal> {
        let request = self.check(asked)?;
        let source = self.source("lake").map_err(anyhow::Error::msg).map_err(Refusal::Failed)?;
        let tables = self.tables(&request).await.map_err(|cause| refusal_of(&cause))?;
        check_kept(&source, &request).await?;
        let open = |why: Open| Refusal::Open(why.to_string());
        let closed = closing::close(&self.journal, &source, &tables, request.boundary()).await;
        let vectors = closed.map_err(Refusal::Failed)?.map_err(open)?;
        let reached = closing::reached(&source, &tables, &vectors).await;
        reached.map_err(Refusal::Failed)?.map_err(open)?;
        let topic_ids: BTreeSet<Uuid> =
            tables.iter().flat_map(|(_, logs)| logs.topic_ids.iter().copied()).collect();
        let named = (&*request.id(&topic_ids), request.canonical(&topic_ids));
        let within = Within { dialect: Dialect::Spark, prefix: "", vectors: &vectors };
        let sql = request.dataset.rows(&request, &within);
        let (_, late) = source.counts(&request, &vectors).await.map_err(Refusal::Failed)?;
        let about = survey::about(self, named, (&source, &request), vectors, late).await;
        let about = about.map_err(Refusal::Failed)?;
        Ok(Plan {
            plan_version: 1,
            engine: "spark".to_owned(),
            sql,
            event_time: request.dataset.event_time().to_owned(),
            tables: tables_of(&source, &about).map_err(Refusal::Failed)?,
            about,
        })
    }
}

/// The folders of the lake's tables, as of the versions that have all rows.
fn tables_of(source: &Source, about: &About) -> anyhow::Result<BTreeMap<Arc<str>, PlannedTable>> {
    let Source::Lake(engine) = source else { return Ok(BTreeMap::new()) };
    let folder = |engine: &Engine, table: &str| {
        // A URL without a slash at its end would lose its last part.
        let mut lake = engine.lake_url().clone();
        if !lake.path().ends_with('/') {
            lake.set_path(&format!("{}/", lake.path()));
        }
        lake.join(table).context("name a table's folder")
    };
    let tables = about.lake_versions.iter().map(|(table, version)| {
        let uri = folder(engine, table)?.into();
        Ok((Arc::clone(table), PlannedTable { uri, version: *version }))
    });
    tables.collect()
}
