//! What stands in a checkpoint: all of the table, and each kind of action where a reader of another kind passes over it.

use std::{collections::BTreeMap, fs::File, path::Path, time::Duration};

use aion_sinks::{
    conformance::{Log, marks, schema, settle, take},
    lake::upkeep::{Compacted, Compaction, Swept},
    sink::Sink,
};
use parquet::file::{
    reader::{FileReader, SerializedFileReader},
    statistics::Statistics,
};

use crate::shared::{Place, age, range, spec};

/// A field that an action of each kind always has.
const KINDS: [&str; 5] =
    ["add.path", "remove.path", "txn.appId", "metaData.id", "protocol.minReaderVersion"];

/// How many actions of each kind there are in each row group of a checkpoint.
fn groups(checkpoint: &Path) -> Vec<BTreeMap<String, u64>> {
    let file = SerializedFileReader::new(File::open(checkpoint).unwrap()).unwrap();
    let groups = file.metadata().row_groups().iter().map(|group| {
        let columns = group.columns().iter();
        let columns = columns.map(|column| (column.column_path().string(), column.statistics()));
        let kinds = columns.filter(|(path, _)| KINDS.contains(&path.as_str()));
        let counted = kinds.map(|(path, statistics)| {
            let nulls = statistics.and_then(Statistics::null_count_opt).expect("null counts");
            (path, group.num_rows() as u64 - nulls)
        });
        counted.filter(|(_, count)| *count > 0).collect()
    });
    groups.collect()
}

fn counts(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removed_files_lie_apart_and_are_not_forgotten() {
    let (place, log) = (Place::new(), Log::new());
    let p0 = log.partition(0);
    let mut sink = place.owner(std::slice::from_ref(&p0)).await;
    let mut upkeep = place.lake.upkeep(spec(schema())).await.unwrap().unwrap();
    let mut next = 0;
    // The second checkpoint is made from the first.
    for (version, removed, in_all) in [(6, 4, 4), (12, 6, 10)] {
        for flush in 0..5 {
            if flush == 4 {
                let done = upkeep.compact(&Compaction::default(), |_, _| ()).await.unwrap();
                assert_eq!(done, Compacted { removed, added: 1, given_up: 0 });
            }
            take(&mut sink, log.batch(0, next, next + 10)).await;
            settle(&mut sink).await;
            next += 10;
        }
        assert_eq!(upkeep.checkpoint().await.unwrap(), version);
        let others = [("txn.appId", 2), ("metaData.id", 1), ("protocol.minReaderVersion", 1)];
        let (added, removed) = ([("add.path", 2)], [("remove.path", in_all)]);
        let checkpoint = place.log().join(format!("{version:020}.checkpoint.parquet"));
        assert_eq!(groups(&checkpoint), [counts(&others), counts(&added), counts(&removed)]);
        // From here on the checkpoint alone knows.
        for entry in version - 5..=version {
            std::fs::remove_file(place.log().join(format!("{entry:020}.json"))).unwrap();
        }
        assert_eq!(place.offsets(&p0).await, range(0, next));
    }
    // Also that these files were removed just now, however old they are; one that it doesn't know is litter.
    std::fs::write(place.table().join("unknown.parquet"), b"litter").unwrap();
    age(&place.table(), Duration::from_hours(30 * 24));
    take(&mut sink, log.batch(0, next, next + 10)).await;
    settle(&mut sink).await;
    assert_eq!(upkeep.vacuum(false).await.unwrap(), Swept { files: 1, bytes: 6 });
    let mut second = place.open().await;
    let found = second.assign(std::slice::from_ref(&p0)).await.unwrap();
    assert_eq!(found, marks([(&p0, next + 10)]));
}
