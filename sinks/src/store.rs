//! Where files live that must last: a local folder, or anything that `object_store` reaches by URL.
//!
//! Paths are relative to the root of the store (of a table: its folder), with `/` between parts.
//!
//! **Invariant:** when a put has returned, a power failure doesn't take it back. On a local disk that means:
//! the file is synced, then its folder; a log entry is staged, synced, linked, and the folder synced.
//! `object_store`'s own local store syncs nothing, so it only reads here.
//! **Invariant:** a log entry is put only if its name is free, in one atomic step (hard link; conditional put).

mod folder;
mod local;

use std::{collections::HashMap, fmt, fs, io, path::PathBuf, sync::Arc};

use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::{
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload, path::Path as ObjectPath,
};
use url::Url;
use uuid::Uuid;

use crate::{fault, sink::SinkError};

/// What became of a put if absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The name was free and is now ours.
    Created,
    /// Somebody has put it before, possibly an earlier try of our own.
    Exists,
}

/// The files under one root: of a table, of exports.
#[derive(Clone, Debug)]
pub struct Store {
    root: Url,
    objects: Arc<dyn ObjectStore>,
    place: Place,
    #[cfg(feature = "testing")]
    pub(crate) rig: Arc<crate::lake::testing::Rig>,
}

#[derive(Clone, Debug)]
enum Place {
    Folder(PathBuf),
    Objects(ObjectPath),
}

/// Options of an object store by their names: `region`, `endpoint`, `access_key_id` and so on, as the crate
/// `object_store` has them. A folder has none. Values may be secrets and are never shown.
#[derive(Clone, Default)]
pub struct StoreOptions(HashMap<String, String>);

impl FromIterator<(String, String)> for StoreOptions {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(options: T) -> StoreOptions {
        StoreOptions(options.into_iter().collect())
    }
}

impl fmt::Debug for StoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Store {
    /// Opens the store at `url`, with its options; nothing is read or made.
    pub fn open(url: &Url, options: &StoreOptions) -> Result<Store, SinkError> {
        let mut root = url.clone();
        if !root.path().ends_with('/') {
            root.set_path(&format!("{}/", url.path()));
        }
        Store::new(&root, object_store(&root, options)?)
    }

    /// Reaches the store at `root`; nothing is read or made.
    pub fn new(root: &Url, objects: Arc<dyn ObjectStore>) -> Result<Store, SinkError> {
        let place = match root.scheme() {
            "file" => root.to_file_path().ok().map(Place::Folder),
            _ => ObjectPath::from_url_path(root.path()).ok().map(Place::Objects),
        };
        let place = place.ok_or_else(|| unusable(root, "the path can't be used"))?;
        Ok(Store {
            root: root.clone(),
            objects,
            place,
            #[cfg(feature = "testing")]
            rig: Arc::default(),
        })
    }

    /// Its URL, which ends in `/`.
    pub fn root(&self) -> &Url {
        &self.root
    }

    /// The object store that holds it, for readers.
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// Makes a folder with those that lead to it; object stores have none.
    pub async fn make_folder(&self, path: &str) -> Result<(), SinkError> {
        let Place::Folder(root) = &self.place else { return Ok(()) };
        let folder = root.join(path);
        let made = blocking(move || local::make_folders(&folder)).await;
        made.map_err(|e| failed(format!("make folder {}{path}", self.root), &e))
    }

    /// Makes the folders of a table; object stores have none.
    pub async fn prepare(&self) -> Result<(), SinkError> {
        let Place::Folder(root) = &self.place else { return Ok(()) };
        let folder = root.clone();
        let made = blocking(move || local::prepare(&folder)).await;
        made.map_err(|e| failed(format!("make folder {}/_delta_log", self.root), &e))
    }

    /// Puts files under names that nobody has used; all are durable when it returns. After a failure none
    /// of them is left, as far as the disk lets us: a full disk must not fill up with the remains of retries.
    pub async fn put_files(&self, files: Vec<(String, Bytes)>) -> Result<(), SinkError> {
        let doing = || format!("write {} data files to {}", files.len(), self.root);
        match &self.place {
            Place::Folder(root) => {
                let (doing, root) = (doing(), root.clone());
                blocking(move || local::put_files(&root, &files))
                    .await
                    .map_err(|e| failed(doing, &e))
            }
            Place::Objects(root) => {
                for (path, bytes) in &files {
                    let (object, payload) = (join(root, path), PutPayload::from(bytes.clone()));
                    fault::point("lake.before_file_write");
                    let put = self.objects.put(&object, payload).await;
                    put.map_err(|e| failed(doing(), &io_error(e)))?;
                    fault::point("lake.after_file_sync");
                }
                Ok(())
            }
        }
    }

    /// Puts a file, such as a log entry, if its name is free. An error says nothing about whether it is there now.
    pub async fn put_entry(&self, path: &str, bytes: Bytes) -> Result<Put, SinkError> {
        let doing = || format!("put {path} of {}", self.root);
        #[cfg(feature = "testing")]
        self.rig.before_put(path).await.map_err(|e| failed(doing(), &e))?;
        let put = match &self.place {
            Place::Folder(root) => {
                let (root, path) = (root.clone(), path.to_owned());
                blocking(move || local::put_entry(&root, &path, &bytes)).await
            }
            Place::Objects(root) => {
                let (object, payload) = (join(root, path), PutPayload::from(bytes));
                match self.objects.put_opts(&object, payload, PutMode::Create.into()).await {
                    Ok(_) => Ok(Put::Created),
                    Err(object_store::Error::AlreadyExists { .. }) => Ok(Put::Exists),
                    Err(e) => Err(io_error(e)),
                }
            }
        };
        #[cfg(feature = "testing")]
        let put = self.rig.after_put(put);
        put.map_err(|e| failed(doing(), &e))
    }

    /// Puts a file, replacing one that is there.
    pub async fn replace(&self, path: &str, bytes: Bytes) -> Result<(), SinkError> {
        let put = match &self.place {
            Place::Folder(root) => {
                let (root, path) = (root.clone(), path.to_owned());
                blocking(move || local::replace(&root, &path, &bytes)).await
            }
            Place::Objects(root) => {
                let (object, payload) = (join(root, path), PutPayload::from(bytes));
                self.objects.put(&object, payload).await.map(drop).map_err(io_error)
            }
        };
        put.map_err(|e| failed(format!("write {path} of {}", self.root), &e))
    }

    /// Makes durable what somebody else wrote at `path`.
    pub async fn sync(&self, path: &str) -> Result<(), SinkError> {
        let Place::Folder(root) = &self.place else { return Ok(()) };
        let file = root.join(path);
        let synced = blocking(move || local::sync(&file)).await;
        synced.map_err(|e| failed(format!("sync {path} of {}", self.root), &e))
    }

    /// Reads a file; `None` where there is none.
    pub async fn get(&self, path: &str) -> Result<Option<Bytes>, SinkError> {
        let got = match &self.place {
            Place::Folder(root) => {
                let file = root.join(path);
                blocking(move || fs::read(file).map(Bytes::from)).await
            }
            Place::Objects(root) => match self.objects.get(&join(root, path)).await {
                Ok(found) => found.bytes().await.map_err(io_error),
                Err(e) => Err(io_error(e)),
            },
        };
        match got {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(failed(format!("read {path} of {}", self.root), &e)),
        }
    }

    /// Whether a file is there.
    pub async fn exists(&self, path: &str) -> Result<bool, SinkError> {
        let found = match &self.place {
            Place::Folder(root) => {
                let file = root.join(path);
                blocking(move || fs::metadata(file).map(drop)).await
            }
            Place::Objects(root) => {
                self.objects.head(&join(root, path)).await.map(drop).map_err(io_error)
            }
        };
        match found {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(failed(format!("look for {path} of {}", self.root), &e)),
        }
    }

    /// Where a path of the log (percent-encoded, relative) is in [`Store::objects`].
    pub fn locate(&self, path: &str) -> Result<ObjectPath, SinkError> {
        let url = self.root.join(path).ok();
        let location = url.and_then(|url| ObjectPath::from_url_path(url.path()).ok());
        location.ok_or_else(|| unusable(&self.root, &format!("{path} is no path of a file")))
    }

    /// Reads a file where it was found.
    pub async fn read(&self, location: &ObjectPath) -> Result<Bytes, SinkError> {
        let read = async { self.objects.get(location).await?.bytes().await };
        read.await.map_err(|e| failed(format!("read {location}"), &io_error(e)))
    }

    /// Everything under a folder, in no order.
    pub async fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>, SinkError> {
        use futures::TryStreamExt;
        self.listed(folder)?.try_collect().await
    }

    /// The same one by one, for folders that may have more than is to be held.
    pub(crate) fn listed(
        &self,
        folder: &str,
    ) -> Result<BoxStream<'static, Result<ObjectMeta, SinkError>>, SinkError> {
        use futures::{StreamExt, TryStreamExt};
        let folder = self.locate(folder)?;
        let listed = self.objects.list(Some(&folder));
        Ok(listed.map_err(move |e| failed(format!("list {folder}"), &io_error(e))).boxed())
    }

    /// Removes a file; one that is gone already is as good.
    pub async fn remove(&self, location: &ObjectPath) -> Result<(), SinkError> {
        match self.objects.delete(location).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(failed(format!("remove {location}"), &io_error(e))),
        }
    }

    /// Makes sure that of two writers who put an object of the same name only one succeeds. A folder's file system is
    /// known by its errors.
    pub async fn probe(&self) -> Result<(), SinkError> {
        let Place::Objects(root) = &self.place else { return Ok(()) };
        let object = join(root, &format!("_aion_probe/{}", Uuid::new_v4()));
        let put = async |text: &'static str| {
            self.objects.put_opts(&object, text.into(), PutMode::Create.into()).await
        };
        let doing = || format!("try the object store at {}", self.root);
        put("first").await.map_err(|e| failed(doing(), &io_error(e)))?;
        let second = put("second").await;
        self.objects.delete(&object).await.map_err(|e| failed(doing(), &io_error(e)))?;
        match second {
            Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(e) => Err(failed(doing(), &io_error(e))),
            Ok(_) => Err(SinkError::Fatal {
                doing: doing(),
                cause: "it let a second put of the same object pass, though it was to be refused".to_owned(),
                hint: "use a store that heeds If-None-Match (S3 does since 2024): without it two writers \
                       would lose each other's rows"
                    .to_owned(),
            }),
        }
    }

    /// Whether anything is in a folder.
    pub async fn has_any(&self, folder: &str) -> Result<bool, SinkError> {
        use futures::TryStreamExt;
        let found = match &self.place {
            Place::Folder(root) => {
                let folder = root.join(folder);
                blocking(move || Ok(fs::read_dir(folder)?.any(|entry| is_visible(&entry)))).await
            }
            Place::Objects(root) => {
                let listed = self.objects.list(Some(&join(root, folder))).try_next().await;
                listed.map(|first| first.is_some()).map_err(io_error)
            }
        };
        match found {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            found => found.map_err(|e| failed(format!("list {folder} of {}", self.root), &e)),
        }
    }
}

/// Opens the object store of a URL with the options of its kind (region, keys, endpoint).
pub(crate) fn object_store(
    url: &Url,
    options: &StoreOptions,
) -> Result<Arc<dyn ObjectStore>, SinkError> {
    if url.scheme() == "file" {
        return Ok(Arc::new(folder::Folder::default()));
    }
    delta_kernel_default_engine::storage::store_from_url_opts(url, &options.0)
        .map_err(|e| unusable(url, &e.to_string()))
}

fn join(root: &ObjectPath, path: &str) -> ObjectPath {
    path.split('/').fold(root.clone(), ObjectPath::join)
}

/// Runs file system calls away from the tasks of the runtime.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(call).await.unwrap_or_else(|e| Err(io::Error::other(e)))
}

fn is_visible(entry: &io::Result<fs::DirEntry>) -> bool {
    entry.as_ref().is_ok_and(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
}

fn io_error(error: object_store::Error) -> io::Error {
    let kind = match error {
        object_store::Error::NotFound { .. } => io::ErrorKind::NotFound,
        object_store::Error::PermissionDenied { .. }
        | object_store::Error::Unauthenticated { .. } => io::ErrorKind::PermissionDenied,
        object_store::Error::NotImplemented { .. } | object_store::Error::NotSupported { .. } => {
            io::ErrorKind::Unsupported
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// Sorts a failure by who can act: most pass, some want the operator.
fn failed(doing: String, error: &io::Error) -> SinkError {
    use io::ErrorKind as Kind;
    let fatal = |hint: &str| SinkError::Fatal {
        doing: doing.clone(),
        cause: error.to_string(),
        hint: hint.to_owned(),
    };
    match error.kind() {
        Kind::PermissionDenied => fatal("let this process's user read and write there"),
        Kind::ReadOnlyFilesystem => fatal("mount the file system so that it can be written"),
        Kind::NotFound => fatal("the table was removed under its writer: put it back or restart"),
        Kind::Unsupported => fatal("choose a store with hard links or conditional puts"),
        Kind::StorageFull | Kind::QuotaExceeded => {
            let cause = format!("{error}: free some space, writing goes on by itself then");
            SinkError::Retry { doing, cause }
        }
        _ => SinkError::Retry { doing, cause: error.to_string() },
    }
}

fn unusable(url: &Url, cause: &str) -> SinkError {
    SinkError::Fatal {
        doing: format!("open {url}"),
        cause: cause.to_owned(),
        hint: "give a folder as file:///path or an object store's URL".to_owned(),
    }
}
