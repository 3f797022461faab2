//! An answer as one Parquet file, written as its rows come.

use arrow::{datatypes::SchemaRef, error::ArrowError, record_batch::RecordBatch};
use datafusion::parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

/// A row group ends at this many bytes; so much is held before anything of it can be sent.
const GROUP_BYTES: usize = 8 << 20;

/// A Parquet file that is being written.
#[derive(Debug)]
pub struct ParquetStream {
    writer: ArrowWriter<Vec<u8>>,
}

impl ParquetStream {
    /// With these columns.
    pub fn new(schema: &SchemaRef) -> Result<ParquetStream, ArrowError> {
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), SchemaRef::clone(schema), Some(properties))?;
        Ok(ParquetStream { writer })
    }

    /// Adds rows; appends to `out` what is finished.
    pub fn rows(&mut self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.writer.write(rows)?;
        if self.writer.in_progress_size() >= GROUP_BYTES {
            self.writer.flush()?;
        }
        out.append(self.writer.inner_mut());
        Ok(())
    }

    /// Appends the rest to `out`.
    pub fn end(mut self, out: &mut Vec<u8>) -> Result<(), ArrowError> {
        self.writer.finish()?;
        out.append(self.writer.inner_mut());
        Ok(())
    }
}
