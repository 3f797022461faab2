//! A local folder as an object store to read from: `object_store`'s own, but for how a table's log is listed.
//!
//! Each query lists what the log has since its last checkpoint, in a folder that keeps an entry for each commit of a
//! week. The crate makes a path and a URL of every name there before it looks whether the name is asked for; here
//! a name that isn't costs what it takes to read it.

use std::{fmt, fs, ops::Range, path::Path as FilePath, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    local::LocalFileSystem, path::Path,
};

/// The local file system.
#[derive(Debug, Default)]
pub(super) struct Folder(Arc<LocalFileSystem>);

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Folder {
    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let (files, prefix, offset) = (Arc::clone(&self.0), prefix.cloned(), offset.clone());
        let list = async move {
            let folder = prefix.as_ref().and_then(|prefix| files.path_to_filesystem(prefix).ok());
            if let (Some(folder), Some(prefix)) = (folder, prefix.clone()) {
                let offset = offset.clone();
                let list = move || list_after(&folder, &prefix, &offset);
                if let Ok(Some(found)) = tokio::task::spawn_blocking(list).await {
                    return stream::iter(found.into_iter().map(Ok)).boxed();
                }
            }
            files.list_with_offset(prefix.as_ref(), &offset)
        };
        stream::once(list).flatten().boxed()
    }

    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.0.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.0.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.0.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.0.rename_opts(from, to, options).await
    }
}

/// The files of one folder whose names come after; `None` where there is more than plain files of plain names, as a
/// log has them.
fn list_after(folder: &FilePath, prefix: &Path, offset: &Path) -> Option<Vec<ObjectMeta>> {
    let after = offset.as_ref().strip_prefix(prefix.as_ref())?;
    let after = if after.is_empty() { after } else { after.strip_prefix('/')? };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).ok()? {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let name = name.to_str()?;
        if name <= after {
            continue;
        }
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return None;
        }
        // Of the entry itself: a link is none of our files.
        let of_file = match entry.metadata() {
            Ok(of_file) if of_file.is_file() => of_file,
            Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => continue,
            _ => return None,
        };
        found.push(ObjectMeta {
            location: prefix.clone().join(name),
            last_modified: of_file.modified().ok()?.into(),
            size: of_file.len(),
            e_tag: None,
            version: None,
        });
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use futures::TryStreamExt;

    use super::*;

    async fn listed(store: &dyn ObjectStore, prefix: &Path, offset: &str) -> Vec<(Path, u64)> {
        let offset = if offset.is_empty() { prefix.clone() } else { prefix.clone().join(offset) };
        let found = store.list_with_offset(Some(prefix), &offset);
        let found: Vec<_> = found.try_collect().await.unwrap();
        let mut found: Vec<_> = found.into_iter().map(|one| (one.location, one.size)).collect();
        found.sort();
        found
    }

    #[tokio::test]
    async fn it_lists_what_the_crate_lists() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a table").join("_delta_log");
        fs::create_dir_all(&log).unwrap();
        for (number, name) in
            ["00.json", "01.json", "01.checkpoint.parquet", "02.json", ".x.staged", "_last"]
                .into_iter()
                .enumerate()
        {
            fs::write(log.join(name), "x".repeat(number)).unwrap();
        }
        let prefix = Path::from_absolute_path(&log).unwrap();
        let (ours, theirs) = (Folder::default(), LocalFileSystem::new());
        let same = async |offset: &str, quickly: bool| {
            let at = if offset.is_empty() { prefix.clone() } else { prefix.clone().join(offset) };
            assert_eq!(list_after(&log, &prefix, &at).is_some(), quickly, "{offset}");
            let found = listed(&ours, &prefix, offset).await;
            assert_eq!(found, listed(&theirs, &prefix, offset).await, "{offset}");
            found.len()
        };
        for (offset, count) in [("", 6), ("00.json", 4), ("01.json", 2), ("01.z", 2), ("_last", 0)]
        {
            assert_eq!(same(offset, true).await, count, "{offset}");
        }
        // Where the folder has more than a log has.
        fs::create_dir(log.join("_sidecars")).unwrap();
        fs::write(log.join("_sidecars").join("one"), "").unwrap();
        assert_eq!(same("01.json", false).await, 3);
        fs::remove_dir_all(log.join("_sidecars")).unwrap();
        fs::write(log.join("a#b c%20"), "").unwrap();
        assert_eq!(same("01.json", false).await, 3);
        // There is none.
        let nowhere = prefix.clone().join("nowhere");
        assert_eq!(listed(&ours, &nowhere, "").await, listed(&theirs, &nowhere, "").await);
    }
}
