//! A topic that is deleted while its group is well: the group takes the partitions away before anybody makes it anew.

use aion_schemas::{
    catalog::{DEAD_LETTERS, GAPS},
    log::Offset,
};
use aion_sinks::memory::Store;
use arrow::{array::AsArray, datatypes::Int64Type};

use crate::{Cluster, EVENTS, event, stored_up_to};

#[tokio::test(flavor = "multi_thread")]
async fn what_its_group_took_away_with_a_topic_is_written_down() {
    let mut cluster = Cluster::start(1).await;
    // So the group notices soon.
    let refresh = ("topic.metadata.refresh.interval.ms".to_owned(), "500".to_owned());
    cluster.connection.properties.extend([refresh]);
    // All behind the poison waits for a letter that can't be written down.
    cluster.delete(DEAD_LETTERS);
    let good = event();
    cluster.send(0, &[Some(&good), Some("{not json"), Some(&good), Some(&good), Some(&good)]);
    let (rows, gaps) = (Store::new(), Store::new());
    let mut job = cluster.job("tasks", EVENTS, &rows);
    let is_located = |one: &aion::job::status::PartitionStatus| one.high == Some(Offset(5));
    job.until("the log's end is known", |status| status.partitions.iter().any(is_located)).await;
    let old = cluster.partition(EVENTS, 0);
    cluster.delete(EVENTS);
    job.until("the partition is taken away", |status| status.partitions.is_empty()).await;

    cluster.create(EVENTS, 1, &[]);
    cluster.send_events(0, 2);
    let status = job.until("the second life stored", stored_up_to(2)).await;
    assert_eq!(status.stream.as_ref().map(|one| one.id), Some(cluster.id_of(EVENTS)));
    // Else the stores are asked minutes later, when nothing can be on its way into them any more.
    job.stop().await;
    assert!(rows.offsets(&old).is_empty());
    assert_eq!(rows.offsets(&cluster.partition(EVENTS, 0)), [0, 1]);

    let mut reader = cluster.job("gaps", GAPS, &gaps);
    reader.until("the gap stored", |status| status.rows_stored == 1).await;
    let batch = gaps.rows().remove(0);
    let column = |name: &str| batch.column_by_name(name).unwrap();
    let number = |name: &str| column(name).as_primitive::<Int64Type>().value(0);
    let text = |name: &str| column(name).as_string::<i32>().value(0).to_owned();
    assert_eq!((number("first"), number("next")), (0, 5));
    assert_eq!(
        (text("reason"), text("topic_id")),
        ("topic_deleted".to_owned(), old.stream.id.to_string())
    );
    reader.stop().await;
}
