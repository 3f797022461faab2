//! The commands that may come from outside: which there are, and what belongs to each.
//!
//! `commands/<action>.schema.json` is the JSON Schema of an action's parameters; the name of the file is the
//! action. A new command is a new file: no Rust, and no rebuild where `--catalog` names a folder.
//!
//! **Invariant:** an action without a file doesn't exist: nobody may ask for it.
//! **Invariant:** a schema is closed, so that a misspelt parameter is refused and not passed over.

mod openapi;
mod params;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc, sync::LazyLock};

use serde_json::Value;

use self::params::Params;
use crate::{suggest::nearest, validate::Violation};

/// Where the document that describes the endpoint is committed.
pub const OPENAPI: &str = "docs/inbound.openapi.json";

/// How the name of a schema's file ends.
const SUFFIX: &str = ".schema.json";
const FOLDER: &str = "commands";

/// The files that are compiled in.
const BUILTIN: [(&str, &str); 5] = [
    ("approve_kernel_proposal", include_str!("../commands/approve_kernel_proposal.schema.json")),
    ("ingest_dataset", include_str!("../commands/ingest_dataset.schema.json")),
    ("install_module", include_str!("../commands/install_module.schema.json")),
    ("reject_kernel_proposal", include_str!("../commands/reject_kernel_proposal.schema.json")),
    ("update_memory_profile", include_str!("../commands/update_memory_profile.schema.json")),
];

/// The commands, by their actions.
#[derive(Clone, Debug)]
pub struct Commands(Arc<BTreeMap<String, Params>>);

/// A file of commands that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum CommandsError {
    /// It can't be read.
    #[error("read {path}: {source}")]
    Read {
        /// The file or folder.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It isn't a schema of parameters.
    #[error("{path}: {reason}")]
    Refused {
        /// The file.
        path: String,
        /// Why, and what would be right.
        reason: String,
    },
}

impl Commands {
    /// Those that are compiled in.
    pub fn builtin() -> Commands {
        static BUILT: LazyLock<Commands> = LazyLock::new(|| {
            let files = BUILTIN.map(|(action, text)| (action.to_owned(), text.to_owned()));
            read(files.into(), "schemas/commands").unwrap_or_else(|cause| {
                // Its files are part of the program, and a test reads them: no input leads here.
                unreachable!("the commands that were compiled in are refused: {cause}")
            })
        });
        BUILT.clone()
    }

    /// Those of a folder laid out like `schemas/`; the ones compiled in where it has no `commands/`.
    pub fn load(dir: &Path) -> Result<Commands, CommandsError> {
        let folder = dir.join(FOLDER);
        if !folder.is_dir() {
            return Ok(Commands::builtin());
        }
        let failed = |path: &Path| {
            let path = path.display().to_string();
            move |source| CommandsError::Read { path, source }
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(&folder).map_err(failed(&folder))? {
            let path = entry.map_err(failed(&folder))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if let Some(action) = name.strip_suffix(SUFFIX) {
                let text = fs::read_to_string(&path).map_err(failed(&path))?;
                files.push((action.to_owned(), text));
            }
        }
        read(files, &folder.display().to_string())
    }

    /// The actions, in the order of their names.
    pub fn actions(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether there is such an action.
    pub fn contains(&self, action: &str) -> bool {
        self.0.contains_key(action)
    }

    /// The action that was probably meant.
    pub fn nearest(&self, action: &str) -> Option<&str> {
        nearest(action, self.actions())
    }

    /// Holds parameters against the action's schema; `None` for an action that there isn't.
    pub fn check(&self, action: &str, parameters: &Value) -> Option<Result<(), Vec<Violation>>> {
        Some(self.0.get(action)?.check(parameters))
    }

    /// The `OpenAPI` document of the endpoint that takes them in.
    pub fn openapi(&self) -> Value {
        let schemas = self.0.iter().map(|(action, params)| (action.as_str(), params.schema()));
        openapi::document(schemas)
    }

    /// The same as text, for the committed file and for whoever asks the endpoint.
    pub fn openapi_text(&self) -> String {
        format!("{:#}\n", self.openapi())
    }
}

fn read(files: Vec<(String, String)>, folder: &str) -> Result<Commands, CommandsError> {
    let mut all = BTreeMap::new();
    for (action, text) in files {
        let refused =
            |reason| CommandsError::Refused { path: format!("{folder}/{action}{SUFFIX}"), reason };
        if !is_action(&action) {
            let reason = "an action is small letters, digits and underscores, 64 at most";
            return Err(refused(reason.to_owned()));
        }
        let params = Params::read(&text).map_err(refused)?;
        all.insert(action, params);
    }
    Ok(Commands(Arc::new(all)))
}

fn is_action(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=64).contains(&name.len())
        && name.as_bytes()[0].is_ascii_lowercase()
        && name.bytes().all(fits)
}
