//! Writes the files that are derived from the contract, and finds those that are out of date.
//!
//! They are committed, so that people and tools without this program can read them: Avro mirrors in
//! `bigdata/schemas`, tables in `bigdata/clickhouse`, the page `docs/topics.md`, the description of the
//! endpoint of commands, and in `schemas/history` each form that a mirror ever had. What is generated is one
//! list; writing and checking both follow it.
//!
//! **Invariant:** the text of a generated file depends on the contract alone, never on the clock,
//! the machine, or what stood in the file before.

mod ddl;
mod history;
mod page;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    path::{Path, PathBuf},
};

pub use self::history::Incompatible;
use crate::{
    catalog::{Catalog, CatalogError},
    commands::{Commands, CommandsError, OPENAPI},
    schema::{NAMESPACE, Schema},
};

/// What brings the files up to date, for messages.
const COMMAND: &str = "aion schemas generate";

/// Folders in which every file of that extension is generated, so that one too many is out of date
/// too.
const OWNED: [(&str, &str); 2] = [("bigdata/schemas", "avsc"), ("bigdata/clickhouse", "sql")];

/// A file as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedFile {
    /// Its path below the root of the repository.
    pub path: String,
    /// Its whole text.
    pub text: String,
}

/// Why a file is, or was, out of date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It isn't there.
    Missing,
    /// Its text differs from what the contract says.
    Differs,
    /// Nothing in the contract stands behind it any more.
    Orphan,
}

/// A file that is, or was, out of date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Its path below the root of the repository.
    pub path: String,
    /// Why.
    pub reason: Reason,
}

/// Says what [`write()`] did: `wrote docs/topics.md`.
impl fmt::Display for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = match self.reason {
            Reason::Missing | Reason::Differs => "wrote",
            Reason::Orphan => "removed",
        };
        write!(f, "{done} {}", self.path)
    }
}

/// Why generated files could not be written, or aren't current.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// The contract itself is refused.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A schema of a command's parameters is refused.
    #[error(transparent)]
    Commands(#[from] CommandsError),
    /// A file or folder can't be read or written.
    #[error("{action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A schema changed in a way that old events don't survive.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Incompatible(Vec<Incompatible>),
    /// A file of the history isn't what was generated.
    #[error("{} isn't an Avro schema: {why}; take it back from the repository", path.display())]
    History {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Generated files are out of date.
    #[error("{}\nrun `{COMMAND}` and commit what it writes", lines(.0))]
    Drift(Vec<Changed>),
}

fn lines(changes: &[Changed]) -> String {
    let line = |change: &Changed| {
        let what = match change.reason {
            Reason::Missing => "is missing",
            Reason::Differs => "differs from the contract",
            Reason::Orphan => "has nothing in the contract behind it",
        };
        format!("{} {what}", change.path)
    };
    changes.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What other crates make of the contract, which this one can't: it is written and checked with the rest.
pub type Others = fn(&Catalog) -> Vec<GeneratedFile>;

/// The files that the contract gives rise to.
pub fn files(catalog: &Catalog) -> Vec<GeneratedFile> {
    let mut files = avro_mirrors(catalog);
    files.extend(ddl::files(catalog));
    files.push(GeneratedFile { path: "docs/topics.md".to_owned(), text: page::text(catalog) });
    files
}

/// Brings the generated files below `root` up to date, and says which weren't.
///
/// `root` is the top of the repository; the contract is read from `schemas/` in it.
pub fn write(root: &Path, others: Others) -> Result<Vec<Changed>, GenerateError> {
    let files = all(root, others)?;
    let changes = compare(root, &files)?;
    for change in &changes {
        let path = root.join(&change.path);
        let text = files.iter().find(|file| file.path == change.path).map(|file| &file.text);
        match (text, path.parent()) {
            (Some(text), Some(folder)) => fs::create_dir_all(folder)
                .and_then(|()| fs::write(&path, text))
                .map_err(failed("write", &path))?,
            _ => fs::remove_file(&path).map_err(failed("remove", &path))?,
        }
    }
    Ok(changes)
}

/// Checks that the generated files below `root` are what the contract says:
/// [`GenerateError::Drift`] lists those that aren't.
pub fn check(root: &Path, others: Others) -> Result<(), GenerateError> {
    let files = all(root, others)?;
    let changes = compare(root, &files)?;
    if changes.is_empty() { Ok(()) } else { Err(GenerateError::Drift(changes)) }
}

/// What the contract gives rise to, and what the history lacks of it.
fn all(root: &Path, others: Others) -> Result<Vec<GeneratedFile>, GenerateError> {
    let catalog = Catalog::load(&root.join("schemas"))?;
    let commands = Commands::load(&root.join("schemas"))?;
    let mut files = files(&catalog);
    let openapi = GeneratedFile { path: OPENAPI.to_owned(), text: commands.openapi_text() };
    files.push(openapi);
    files.extend(others(&catalog));
    files.extend(history::due(root, &catalog)?);
    Ok(files)
}

/// The schemas of the topics that producers write, each once.
fn public_schemas(catalog: &Catalog) -> impl Iterator<Item = &Schema> {
    let mut seen = BTreeSet::new();
    let public = catalog.topics.iter().filter(|topic| !topic.internal);
    public.map(|topic| &*topic.schema).filter(move |schema| seen.insert(&schema.name))
}

/// One mirror for each schema of the topics that producers write.
fn avro_mirrors(catalog: &Catalog) -> Vec<GeneratedFile> {
    public_schemas(catalog)
        .map(|schema| GeneratedFile {
            path: format!("bigdata/schemas/{}.avsc", schema.name),
            text: schema.avro_text(NAMESPACE),
        })
        .collect()
}

fn compare(root: &Path, files: &[GeneratedFile]) -> Result<Vec<Changed>, GenerateError> {
    let mut changes = Vec::new();
    for file in files {
        let path = root.join(&file.path);
        let reason = match fs::read(&path) {
            Ok(text) if text == file.text.as_bytes() => continue,
            Ok(_) => Reason::Differs,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Reason::Missing,
            Err(error) => return Err(failed("read", &path)(error)),
        };
        changes.push(Changed { path: file.path.clone(), reason });
    }
    for (folder, extension) in OWNED {
        orphans(root, folder, extension, files, &mut changes)?;
    }
    Ok(changes)
}

/// Adds the files of an owned folder that aren't generated any more.
fn orphans(
    root: &Path,
    folder: &str,
    extension: &str,
    files: &[GeneratedFile],
    changes: &mut Vec<Changed>,
) -> Result<(), GenerateError> {
    let path = root.join(folder);
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("list", &path)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        names.push(entry.map_err(failed("list", &path))?.file_name());
    }
    names.sort();
    for name in names {
        let path = format!("{folder}/{}", name.to_string_lossy());
        let ours = Path::new(&name).extension().is_some_and(|found| found == extension);
        if ours && files.iter().all(|file| file.path != path) {
            changes.push(Changed { path, reason: Reason::Orphan });
        }
    }
    Ok(())
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> GenerateError {
    let path = path.to_owned();
    move |source| GenerateError::Io { action, path, source }
}
