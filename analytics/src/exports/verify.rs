//! The proof of an export: its files against its manifest, and its rows against a store.

use std::collections::BTreeSet;

use aion_schemas::log::Timestamp;
use aion_sinks::{sink::SinkError, store::Store};
use arrow::{
    array::{AsArray, types::TimestampMicrosecondType},
    datatypes::SchemaRef,
    record_batch::RecordBatch,
};
use bytes::Bytes;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use ring::digest::{SHA256, digest};

use super::{
    dataset::Dataset,
    files::{DATA, WriteError, conform, row_layout},
    manifest::{FileEntry, Manifest},
    request::{Request, Split, hex},
    time,
};
use crate::digest::{Digest, Layout};

/// What isn't as the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where: a file, or the whole.
    pub place: String,
    /// What the manifest says, and what is found.
    pub what: String,
}

/// Reads every file in the manifest's folder, and says what differs, and what else is there.
pub async fn files(
    store: &Store,
    folder: &str,
    manifest: &Manifest,
    dataset: &Dataset,
    mut told: impl FnMut(&FileEntry),
) -> Result<Vec<Difference>, SinkError> {
    let mut found = Found {
        layout: row_layout(dataset),
        schema: dataset.schema(),
        event_time: dataset.event_time().to_owned(),
        all: Digest::default(),
        differences: Vec::new(),
    };
    if dataset.fingerprint() != manifest.about.fingerprint {
        let what = "the dataset had other columns when it was written; use the version that wrote it, or export again";
        found.differ("columns", what.to_owned());
        return Ok(found.differences);
    }
    for file in &manifest.files {
        match store.get(&format!("{folder}{}", file.path)).await? {
            None => found.differ(&file.path, "it isn't there".to_owned()),
            Some(bytes) => found.file(file, bytes),
        }
        told(file);
    }
    for path in beside(store, folder, manifest).await? {
        let what = "the manifest doesn't name it; whoever reads all of the folder has its rows as well: remove it";
        found.differ(&path, what.to_owned());
    }
    let (rows, digest) = (found.all.rows, found.all.to_string());
    if rows != manifest.rows {
        found.differ("rows", format!("{} by the manifest, {rows} in the files", manifest.rows));
    }
    if digest != manifest.digest {
        found.differ(
            "digest",
            format!("{} by the manifest, {digest} in the files", manifest.digest),
        );
    }
    Ok(found.differences)
}

/// What lies among the files and isn't one of them. Names with `.` or `_` in front are of no data: readers pass over them.
async fn beside(
    store: &Store,
    folder: &str,
    manifest: &Manifest,
) -> Result<Vec<String>, SinkError> {
    let named: BTreeSet<_> = manifest.files.iter().map(|file| file.path.as_str()).collect();
    let inside = store.locate(folder)?;
    let mut others = Vec::new();
    for object in store.list(&format!("{folder}{DATA}")).await? {
        let parts: Vec<_> = object.location.prefix_match(&inside).into_iter().flatten().collect();
        let path = parts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("/");
        let is_data = !path.split('/').any(|part| part.starts_with(['.', '_']));
        if is_data && !named.contains(path.as_str()) {
            others.push(path);
        }
    }
    others.sort();
    Ok(others)
}

/// The digest of rows as a store gives them.
#[derive(Debug)]
pub struct RowsDigest {
    schema: SchemaRef,
    split: Option<Split>,
    layout: Layout,
    digest: Digest,
}

impl RowsDigest {
    /// Of the rows of a request.
    pub fn new(request: &Request) -> RowsDigest {
        RowsDigest {
            schema: request.dataset.schema(),
            split: request.split.clone(),
            layout: row_layout(&request.dataset),
            digest: Digest::default(),
        }
    }

    /// Takes rows in.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<(), WriteError> {
        let rows = conform(&self.schema, self.split.as_ref(), rows)?;
        self.digest.add(&self.layout, &rows).map_err(|cause| WriteError::Encode(cause.to_string()))
    }

    /// What all of them say.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// What was found so far.
struct Found {
    layout: Layout,
    schema: SchemaRef,
    event_time: String,
    all: Digest,
    differences: Vec<Difference>,
}

impl Found {
    fn differ(&mut self, place: &str, what: String) {
        self.differences.push(Difference { place: place.to_owned(), what });
    }

    fn file(&mut self, file: &FileEntry, bytes: Bytes) {
        if bytes.len() as u64 != file.bytes {
            let what = format!("{} bytes by the manifest, it has {}", file.bytes, bytes.len());
            self.differ(&file.path, what);
        }
        let sha256 = hex(digest(&SHA256, &bytes).as_ref());
        if sha256 != file.sha256 {
            self.differ(
                &file.path,
                format!("sha256 {} by the manifest, it has {sha256}", file.sha256),
            );
        }
        match self.rows(bytes) {
            Err(cause) => self.differ(&file.path, format!("it can't be read: {cause}")),
            Ok((rows, first, last)) => {
                if rows != file.rows {
                    self.differ(
                        &file.path,
                        format!("{} rows by the manifest, it has {rows}", file.rows),
                    );
                }
                let times = (time::rfc3339(Timestamp(first)), time::rfc3339(Timestamp(last)));
                if rows > 0 && times != (file.min_time.clone(), file.max_time.clone()) {
                    let what = format!(
                        "from {} to {} by the manifest, it has {} to {}",
                        file.min_time, file.max_time, times.0, times.1
                    );
                    self.differ(&file.path, what);
                }
            }
        }
    }

    /// How many rows a file has, the first and the last time.
    fn rows(&mut self, bytes: Bytes) -> Result<(u64, i64, i64), String> {
        let text = |cause: &dyn std::fmt::Display| cause.to_string();
        let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).map_err(|e| text(&e))?;
        let reader = reader.build().map_err(|e| text(&e))?;
        let (mut count, mut first, mut last) = (0, None, 0);
        for batch in reader {
            let batch = batch.map_err(|e| text(&e))?;
            let batch = RecordBatch::try_new(self.schema.clone(), batch.columns().to_vec())
                .map_err(|e| text(&e))?;
            self.all.add(&self.layout, &batch).map_err(|e| text(&e))?;
            let at = self.schema.index_of(&self.event_time).map_err(|e| text(&e))?;
            let times = batch.column(at).as_primitive::<TimestampMicrosecondType>().values();
            first = first.or(times.first().copied());
            last = times.last().copied().unwrap_or(last);
            count += batch.num_rows() as u64;
        }
        Ok((count, first.unwrap_or(0), last))
    }
}
