//! Some columns of a stored file, read without the others.

use std::{ops::Range, sync::Arc};

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::{FutureExt, TryStreamExt, future::BoxFuture};
use object_store::{ObjectStore, ObjectStoreExt, path::Path as ObjectPath};
use parquet::{
    arrow::{
        ParquetRecordBatchStreamBuilder, ProjectionMask, arrow_reader::ArrowReaderOptions,
        async_reader::AsyncFileReader,
    },
    errors::{ParquetError, Result},
    file::metadata::{ParquetMetaData, ParquetMetaDataReader},
};

use super::actions::Add;
use crate::{sink::SinkError, store::Store};

/// The columns to read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Columns<'a> {
    /// Those of them that the file has.
    OfAll(&'a [&'a str]),
    /// This one; nothing of a file that doesn't have it.
    Of(&'a str),
}

/// Calls `take` with the rows of a file, some thousands at a time, of these columns.
pub(crate) async fn peek(
    store: &Store,
    file: &Add,
    columns: Columns<'_>,
    take: impl FnMut(&RecordBatch),
) -> std::result::Result<(), SinkError> {
    let location = store.locate(&file.path)?;
    let (objects, size) = (Arc::clone(store.objects()), file.size.max(0) as u64);
    let bytes = Stored { objects, location, size };
    read(bytes, columns, take).await.map_err(|e| {
        let (doing, cause) = (format!("look into {}", file.path), e.to_string());
        match e {
            ParquetError::External(_) => SinkError::Retry { doing, cause },
            _ => SinkError::Fatal {
                doing,
                cause,
                hint: "the file is damaged: restore it, or the table from a copy".to_owned(),
            },
        }
    })
}

async fn read(
    bytes: Stored,
    columns: Columns<'_>,
    mut take: impl FnMut(&RecordBatch),
) -> Result<()> {
    // By the file's own types: what other writers say of Arrow's would give other forms of text.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchStreamBuilder::new_with_options(bytes, options).await?;
    let names = match &columns {
        Columns::OfAll(names) => names,
        Columns::Of(name) if builder.schema().field_with_name(name).is_err() => return Ok(()),
        Columns::Of(name) => std::slice::from_ref(name),
    };
    let mask = ProjectionMask::columns(builder.parquet_schema(), names.iter().copied());
    let mut rows = builder.with_projection(mask).build()?;
    while let Some(rows) = rows.try_next().await? {
        take(&rows);
    }
    Ok(())
}

/// A file in its object store, read by ranges.
#[derive(Clone, Debug)]
struct Stored {
    objects: Arc<dyn ObjectStore>,
    location: ObjectPath,
    size: u64,
}

impl AsyncFileReader for Stored {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        let got = async move { self.objects.get_range(&self.location, range).await };
        got.map(|got| got.map_err(|e| ParquetError::External(Box::new(e)))).boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        let size = self.size;
        let read = ParquetMetaDataReader::new().load_and_finish(self, size);
        read.map(|read| read.map(Arc::new)).boxed()
    }
}
