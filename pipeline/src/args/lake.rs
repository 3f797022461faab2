//! The arguments of commands that work on a lake: where it is, and what its tables are.

use std::{
    fs,
    path::{Path, PathBuf},
};

use aion_schemas::catalog::Catalog;
use url::Url;

use crate::{
    exit::{Exit, Failure},
    place,
};

/// Which lake, and which contract.
#[derive(Debug, clap::Args)]
pub struct LakeArgs {
    /// Data folder of `aion dev`; the lake lies in it.
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// The lake itself: a folder, or a URL.
    #[arg(long, value_name = "URL", conflicts_with = "data")]
    pub lake: Option<String>,
    /// Folder with catalog.toml and schemas; the built-in contract without it.
    #[arg(long, value_name = "DIR")]
    pub catalog: Option<PathBuf>,
}

impl LakeArgs {
    /// The lake's URL. A folder that isn't there, or holds no table, is refused: it would look like a lake
    /// without rows.
    pub fn url(&self) -> Result<Url, Failure> {
        let url = match &self.lake {
            Some(lake) if lake.contains("://") => Url::parse(lake)
                .map_err(|cause| Failure::new(Exit::Usage, format!("--lake {lake}: {cause}")))?,
            Some(folder) => folder_url(Path::new(folder))?,
            None => folder_url(&self.data.join("lake"))?,
        };
        let folder = url.to_file_path().ok().filter(|_| url.scheme() == "file");
        match folder {
            Some(folder) if !has_tables(&folder) => Err(nothing_at(&folder)),
            _ => Ok(url),
        }
    }

    /// The contract.
    pub fn catalog(&self) -> Result<Catalog, Failure> {
        catalog(self.catalog.as_deref())
    }
}

/// The contract in a folder, or the built-in one.
pub fn catalog(folder: Option<&Path>) -> Result<Catalog, Failure> {
    let Some(folder) = folder else { return Ok(Catalog::builtin()) };
    Catalog::load(folder).map_err(|cause| {
        Failure::new(Exit::Usage, format!("catalog {}: {cause}", folder.display()))
    })
}

fn has_tables(folder: &Path) -> bool {
    let tables = fs::read_dir(folder).into_iter().flatten().flatten();
    tables.map(|table| table.path()).any(|table| table.join("_delta_log").is_dir())
}

fn folder_url(folder: &Path) -> Result<Url, Failure> {
    place::folder_url(folder).map_err(|_| nothing_at(folder))
}

fn nothing_at(folder: &Path) -> Failure {
    let message = format!(
        "there is no lake at {}; `aion dev` makes one, or name another place by --data or --lake",
        folder.display()
    );
    Failure::new(Exit::Data, message)
}
