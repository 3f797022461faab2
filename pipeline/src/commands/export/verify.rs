//! `aion export verify`: the files of an export against its manifest, then its rows against the store.

use std::{fmt::Write, path::PathBuf, process::ExitCode, sync::Arc};

use aion_analytics::exports::{
    dataset::Dataset,
    manifest::{MANIFEST, Manifest},
    request::Request,
    verify::{self, Difference, RowsDigest},
};
use aion_sinks::store::Store;
use anyhow::Context;
use futures::StreamExt;
use url::Url;

use crate::{
    config::Config,
    exit::{Exit, Failure},
    exports::{source::Source, survey},
    place, storage,
};

/// The arguments of `aion export verify`.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// The manifest: a file, or its URL.
    manifest: String,
    /// Only the files; no store is read.
    #[arg(long)]
    files_only: bool,
    /// A configuration: it says where the stores are.
    #[arg(long, value_name = "FILE", conflicts_with = "data")]
    config: Option<PathBuf>,
    /// Data folder of `aion dev`.
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// The store to prove it against, `lake` or `clickhouse`; the one that it was made from without it.
    #[arg(long, value_name = "STORE")]
    source: Option<String>,
}

/// Reads everything, says what it finds.
pub(super) async fn run(args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let (store, name) = open(&args.manifest)?;
    let folder = name.strip_suffix(MANIFEST).unwrap_or_default().to_owned();
    let text = store.get(&name).await?;
    let text = text.ok_or_else(|| {
        Failure::new(Exit::Data, format!("there is no manifest at {}", args.manifest))
    })?;
    let manifest: Manifest =
        serde_json::from_slice(&text).with_context(|| format!("read {}", args.manifest))?;
    let stores = if args.files_only { None } else { Some(stores(args, &manifest)?) };
    let catalog = match &stores {
        Some((_, catalog)) => Arc::clone(catalog),
        None => Arc::new(crate::args::lake::catalog(None)?),
    };
    let dataset = Dataset::named(&manifest.about.request.dataset, &catalog).with_context(|| {
        format!("no dataset {:?} in the contract", manifest.about.request.dataset)
    })?;
    let mut differences = verify::files(&store, &folder, &manifest, &dataset, |file| {
        eprintln!("{}: {} rows, {} bytes", file.path, file.rows, file.bytes);
    })
    .await?;
    if differences.is_empty()
        && let Some((source, _)) = &stores
    {
        differences.extend(against(source, &manifest, &catalog).await?);
    }
    for Difference { place, what } in &differences {
        println!("wrong: {place}: {what}");
    }
    if !differences.is_empty() {
        return Ok(Exit::Failed.into());
    }
    let of = stores.map_or("its files", |(source, _)| match source {
        Source::Lake(_) => "its files and the lake",
        Source::ClickHouse(_) => "its files and ClickHouse",
    });
    println!(
        "proven by {of}: {} rows in {} files, digest {}",
        manifest.rows,
        manifest.files.len(),
        manifest.digest
    );
    Ok(ExitCode::SUCCESS)
}

/// The rows of a store below the manifest's offsets.
async fn against(
    source: &Source,
    manifest: &Manifest,
    catalog: &Arc<aion_schemas::catalog::Catalog>,
) -> anyhow::Result<Option<Difference>> {
    let asked = &manifest.about.request;
    let tiers = asked.tiers.clone().unwrap_or_default();
    let request = Request::check(asked, catalog, &tiers);
    let request = request.map_err(|wrong| {
        let wrong: Vec<_> = wrong.iter().map(ToString::to_string).collect();
        anyhow::anyhow!("the manifest's request: {}", wrong.join("; "))
    })?;
    let mut digest = RowsDigest::new(&request);
    let mut rows = source.rows(&request, &manifest.about.offsets).await?;
    while let Some(batch) = rows.next().await {
        digest.add(&batch?)?;
    }
    let found = digest.digest();
    if found.rows == manifest.rows && found.to_string() == manifest.digest {
        return Ok(None);
    }
    let mut what = format!(
        "{} rows of digest {} by the manifest, {} rows of digest {found} in the store",
        manifest.rows, manifest.digest, found.rows
    );
    if let Err(expired) = survey::expired(source, &request).await? {
        write!(what, "; {expired}, or only at the files with --files-only")?;
    }
    Ok(Some(Difference { place: source.name().to_owned(), what }))
}

/// The store in which a manifest lies, and its name there.
fn open(manifest: &str) -> anyhow::Result<(Store, String)> {
    let refuse = |cause: String| Failure::new(Exit::Usage, cause);
    let url = if manifest.contains("://") {
        Url::parse(manifest).map_err(|cause| refuse(format!("{manifest}: {cause}")))?
    } else {
        let path = place::full(std::path::Path::new(manifest)).context("find the manifest")?;
        Url::from_file_path(&path).map_err(|()| refuse(format!("{manifest}: not a usable name")))?
    };
    let name = url.path_segments().and_then(Iterator::last).unwrap_or_default().to_owned();
    let folder = url.join(".").map_err(|cause| refuse(format!("{manifest}: {cause}")))?;
    Ok((Store::open(&folder, &storage::from_environment())?, name))
}

fn stores(
    args: &VerifyArgs,
    manifest: &Manifest,
) -> anyhow::Result<(Source, Arc<aion_schemas::catalog::Catalog>)> {
    let name = args.source.as_deref().unwrap_or(&manifest.source);
    let (lake, options, catalog, house) = if let Some(path) = &args.config {
        let config = Config::load(path)?;
        let house = config.clickhouse.map(|house| house.server);
        (config.lake.url, config.lake.options, Arc::new(config.catalog), house)
    } else {
        let lake = place::folder_url(&args.data.join("lake"));
        let lake = lake.map_err(|cause| Failure::new(Exit::Data, cause))?;
        let catalog = Arc::new(crate::args::lake::catalog(None)?);
        (lake, storage::from_environment(), catalog, None)
    };
    let source = match (name, house) {
        ("lake", _) => {
            let mut settings = aion_analytics::Settings::new(lake, Arc::clone(&catalog));
            settings.lake_options = options;
            settings.deadline = std::time::Duration::from_hours(24);
            Source::Lake(Arc::new(aion_analytics::Engine::open(settings)?))
        }
        ("clickhouse", Some(server)) => {
            Source::ClickHouse(aion_sinks::clickhouse::ClickHouse::new(server)?)
        }
        ("clickhouse", None) => {
            let what = "it was made from ClickHouse: name a configuration that has it with --config, or --source lake";
            return Err(Failure::new(Exit::Usage, what).into());
        }
        (other, _) => {
            let what = format!("--source {other}: `lake` or `clickhouse` is wanted");
            return Err(Failure::new(Exit::Usage, what).into());
        }
    };
    Ok((source, catalog))
}
