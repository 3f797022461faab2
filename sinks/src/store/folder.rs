//! A local folder as an object store to read from: `object_store`'s own, but for how a table's log is listed.
//!
//! Each query lists what the log has since its last checkpoint, in a folder that keeps an entry for each commit of a
//! week. Reading the whole folder for that would take longer from day to day. Names in a log are numbers, so from a
//! checkpoint on they are looked up one after the other; only where that can't be the folder is read, and then a name
//! that isn't asked for costs what it takes to read it.
//!
//! **Invariant:** what is looked up ends where two entries in a row are missing. A log with a hole is read as a whole, so that
//! whoever asks sees the hole.

use std::{fmt, fs, io::ErrorKind, ops::Range, path::Path as FilePath, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt, stream, stream::BoxStream};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
    local::LocalFileSystem, path::Path,
};

/// The digits of a version in the names of a log.
const VERSION_DIGITS: usize = 20;

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
    if let Some(found) = look_up_from(folder, prefix, after) {
        return Some(found);
    }
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
        match entry.metadata() {
            Ok(of_file) if of_file.is_file() => found.push(described(prefix, name, &of_file)?),
            Err(gone) if gone.kind() == ErrorKind::NotFound => {}
            _ => return None,
        }
    }
    Some(found)
}

/// The entries and checkpoints of a log from a version on that has a checkpoint in one file; `None` where it has none,
/// or where what is asked for isn't a version, or the log has a hole.
fn look_up_from(folder: &FilePath, prefix: &Path, after: &str) -> Option<Vec<ObjectMeta>> {
    if after.len() != VERSION_DIGITS || !after.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let first: u64 = after.parse().ok()?;
    let look_up = |version: u64, kind: &str| {
        let name = format!("{version:0VERSION_DIGITS$}.{kind}");
        match fs::symlink_metadata(folder.join(&name)) {
            Ok(of_file) if of_file.is_file() => described(prefix, &name, &of_file).map(Some),
            Err(none) if none.kind() == ErrorKind::NotFound => Some(None),
            _ => None,
        }
    };
    let mut found = Vec::new();
    for version in first.. {
        let entry = look_up(version, "json")?;
        let checkpoint = look_up(version, "checkpoint.parquet")?;
        if version == first && checkpoint.is_none() {
            return None;
        }
        // The entry of the checkpoint itself may have been cleaned up.
        let is_end = entry.is_none() && version > first;
        found.extend(entry.into_iter().chain(checkpoint));
        if is_end {
            return look_up(version + 1, "json")?.is_none().then_some(found);
        }
    }
    None
}

fn described(prefix: &Path, name: &str, of_file: &fs::Metadata) -> Option<ObjectMeta> {
    Some(ObjectMeta {
        location: prefix.clone().join(name),
        last_modified: of_file.modified().ok()?.into(),
        size: of_file.len(),
        e_tag: None,
        version: None,
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use futures::TryStreamExt;

    use super::*;

    async fn listed(store: &dyn ObjectStore, prefix: &Path, offset: &str) -> Vec<(Path, u64)> {
        let offset = if offset.is_empty() { prefix.clone() } else { prefix.clone().join(offset) };
        let found = store.list_with_offset(Some(prefix), &offset);
        listed_by(found.try_collect().await.unwrap())
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
        fs::remove_file(log.join("a#b c%20")).unwrap();
        // There is none.
        let nowhere = prefix.clone().join("nowhere");
        assert_eq!(listed(&ours, &nowhere, "").await, listed(&theirs, &nowhere, "").await);
    }
    #[tokio::test]
    async fn from_a_checkpoint_on_entries_are_looked_up_unless_one_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("_delta_log");
        fs::create_dir_all(&log).unwrap();
        let entry = |version: u64| log.join(format!("{version:020}.json"));
        for version in 0..=12 {
            fs::write(entry(version), version.to_string()).unwrap();
        }
        for version in [5, 10] {
            fs::write(log.join(format!("{version:020}.checkpoint.parquet")), "").unwrap();
        }
        fs::write(log.join("_last_checkpoint"), "").unwrap();
        let prefix = Path::from_absolute_path(&log).unwrap();
        let looked_up = |version: u64| {
            let name = format!("{version:020}");
            let found = look_up_from(&log, &prefix, &name)?;
            Some((found.len(), listed_by(list_after(&log, &prefix, &prefix.clone().join(name))?)))
        };
        let whole = async |version: u64| {
            let offset = format!("{version:020}");
            let all = listed(&LocalFileSystem::new(), &prefix, &offset).await;
            let is_asked = |(path, _): &(Path, u64)| !path.as_ref().ends_with("_last_checkpoint");
            all.into_iter().filter(is_asked).collect::<Vec<_>>()
        };
        for (from, count) in [(5, 10), (10, 4)] {
            assert_eq!(looked_up(from), Some((count, whole(from).await)), "{from}");
        }
        // The checkpoint's own entry is cleaned up with those before it.
        fs::remove_file(entry(5)).unwrap();
        assert_eq!(looked_up(5), Some((9, whole(5).await)));
        // Without a checkpoint, in a log with a hole, and for what isn't a version the folder is read.
        fs::remove_file(entry(8)).unwrap();
        for version in [0, 5, 6, 12, 13, u64::MAX] {
            assert_eq!(looked_up(version), None, "{version}");
        }
        assert!(look_up_from(&log, &prefix, "").is_none());
        assert!(look_up_from(&log, &prefix, "+0000000000000000010").is_none());
        assert_eq!(looked_up(10), Some((4, whole(10).await)), "the hole is before it");
    }

    fn listed_by(found: Vec<ObjectMeta>) -> Vec<(Path, u64)> {
        let mut found: Vec<_> = found.into_iter().map(|one| (one.location, one.size)).collect();
        found.sort();
        found
    }
}
