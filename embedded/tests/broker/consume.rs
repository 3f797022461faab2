//! What librdkafka reads back: bytes, headers, times, offsets by time.

use bytes::Bytes;
use kafka_protocol::messages::{
    ListOffsetsRequest,
    list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic},
};
use rdkafka::{
    Message, Offset, Timestamp, TopicPartitionList,
    consumer::Consumer,
    message::{Header, Headers, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use uuid::Uuid;

use crate::{
    rig::{PATIENCE, Rig, batch, name, poll},
    wire::{fetch, now_ms, put},
};

/// Where the low byte of a batch's attributes lies, whose last three bits name the codec.
const CODEC_AT: usize = 22;

/// The batches of partition 0 as they are stored, up to a mebibyte.
fn stored(rig: &Rig, topic: &str) -> Vec<Bytes> {
    let answer = rig.ask(12, &fetch(topic, Uuid::nil(), 12, 0));
    let mut rest = answer.responses[0].partitions[0].records.clone().unwrap();
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let length = i32::from_be_bytes(rest[8..12].try_into().unwrap());
        batches.push(rest.split_to(12 + length as usize));
    }
    batches
}

#[test]
fn every_compression_comes_back_as_it_was_sent() {
    let rig = Rig::new();
    for (number, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].into_iter().enumerate() {
        let topic = format!("t-{codec}");
        rig.create(&topic, 1, &[]);
        let config = rig.config(&[("compression.type", codec), ("linger.ms", "50")]);
        let producer: BaseProducer = config.create().unwrap();
        for n in 0..500 {
            let (key, value) = (format!("key {n}"), format!("value {n} ").repeat(20));
            let headers = OwnedHeaders::new()
                .insert(Header { key: "n", value: Some(n.to_string().as_bytes()) })
                .insert(Header { key: "null", value: None::<&[u8]> })
                .insert(Header { key: "empty", value: Some(b"") });
            let record = BaseRecord::to(&topic).key(&key).payload(&value);
            let record = record.headers(headers).timestamp(now_ms() - n);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(PATIENCE).unwrap();
        let consumer = rig.consumer(codec, &[]);
        consumer.subscribe(&[&topic]).unwrap();
        for n in 0..500 {
            let message = poll(&consumer);
            assert_eq!(message.offset(), n, "{codec}");
            assert_eq!(message.key().unwrap(), format!("key {n}").as_bytes());
            assert_eq!(message.payload().unwrap(), format!("value {n} ").repeat(20).as_bytes());
            let headers = message.headers().unwrap();
            assert_eq!(headers.get(0).value, Some(n.to_string().as_bytes()));
            assert_eq!((headers.get(1).key, headers.get(1).value), ("null", None));
            assert_eq!((headers.get(2).key, headers.get(2).value), ("empty", Some(&b""[..])));
        }
        for batch in stored(&rig, &topic) {
            assert_eq!(usize::from(batch[CODEC_AT] & 7), number, "{codec}");
        }
    }
}

#[test]
fn a_compressed_batch_is_stored_byte_by_byte_as_it_was_sent() {
    let rig = Rig::new();
    rig.create("t", 1, &[]);
    let mut sent = Vec::new();
    for codec in 1..=4 {
        let mut records = batch(&[now_ms(); 3], (-1, -1, -1)).to_vec();
        records[CODEC_AT] = codec;
        // Nothing that any decompressor takes: who looks in can't give it back.
        records[61..].fill(0xa5);
        let checksum = crc32c::crc32c(&records[21..]);
        records[17..21].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(put(&rig, "t", records.clone().into()).error_code, 0);
        sent.push(records);
    }
    let stored = stored(&rig, "t");
    assert_eq!(stored.len(), sent.len());
    for (number, (stored, sent)) in stored.iter().zip(&sent).enumerate() {
        let (base_offset, leader_epoch) = (3 * number as i64, 0_i32);
        assert_eq!(stored[..8], base_offset.to_be_bytes());
        assert_eq!(stored[8..12], sent[8..12]);
        assert_eq!(stored[12..16], leader_epoch.to_be_bytes());
        assert_eq!(stored[16..], sent[16..], "from the format's number on, the checksum too");
    }
}

#[test]
fn tombstones_and_empty_values_are_told_apart() {
    let rig = Rig::new();
    rig.create("t", 1, &[]);
    let producer: BaseProducer = rig.config(&[]).create().unwrap();
    producer.send(BaseRecord::<str, [u8]>::to("t").key("k")).map_err(|(e, _)| e).unwrap();
    producer
        .send(BaseRecord::<str, [u8]>::to("t").key("").payload(b""))
        .map_err(|(e, _)| e)
        .unwrap();
    producer.flush(PATIENCE).unwrap();
    let consumer = rig.consumer("g", &[]);
    consumer.subscribe(&["t"]).unwrap();
    let (first, second) = (poll(&consumer), poll(&consumer));
    assert_eq!((first.key(), first.payload()), (Some(&b"k"[..]), None));
    assert_eq!((second.key(), second.payload()), (Some(&b""[..]), Some(&b""[..])));
}

#[test]
fn the_topic_says_whose_clock_counts() {
    let rig = Rig::new();
    rig.create("created", 1, &[("message.timestamp.type", "CreateTime")]);
    rig.create("appended", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let before = now_ms();
    for (topic, codec) in [("created", "none"), ("appended", "none"), ("appended", "zstd")] {
        let producer: BaseProducer = rig.config(&[("compression.type", codec)]).create().unwrap();
        let record = BaseRecord::<str, str>::to(topic).payload("v").timestamp(1_000);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(PATIENCE).unwrap();
    }
    // The client checks the batch's checksum, which covers the new time.
    let consumer = rig.consumer("g", &[("check.crcs", "true")]);
    consumer.subscribe(&["created"]).unwrap();
    assert_eq!(poll(&consumer).timestamp(), Timestamp::CreateTime(1_000));
    let consumer = rig.consumer("h", &[("check.crcs", "true")]);
    consumer.subscribe(&["appended"]).unwrap();
    for _ in 0..2 {
        let Timestamp::LogAppendTime(at) = poll(&consumer).timestamp() else {
            panic!("wrong type")
        };
        assert!((before..=now_ms()).contains(&at));
    }
}

#[test]
fn offsets_for_times_name_the_first_record_that_is_not_older() {
    let rig = Rig::new();
    rig.create("t", 1, &[]);
    // Times that go back within and between batches: offsets 0..3, 3..6, 6..7.
    for times in [&[1_000, 3_000, 2_000][..], &[2_500, 2_600, 5_000], &[4_000]] {
        assert_eq!(put(&rig, "t", batch(times, (-1, -1, -1))).error_code, 0);
    }
    let consumer = rig.consumer("g", &[]);
    let at = |time: i64| {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_offset("t", 0, Offset::Offset(time)).unwrap();
        let found = consumer.offsets_for_times(wanted, PATIENCE).unwrap();
        found.elements()[0].offset()
    };
    let expected = [(0, 0), (1_000, 0), (1_001, 1), (3_000, 1), (3_001, 5), (5_000, 5), (2_100, 1)];
    for (time, offset) in expected {
        assert_eq!(at(time), Offset::Offset(offset), "at {time}");
    }
    assert_eq!(at(5_001), Offset::End);
    let newest = ListOffsetsPartition::default().with_timestamp(-3).with_current_leader_epoch(-1);
    let topic = ListOffsetsTopic::default().with_name(name("t")).with_partitions(vec![newest]);
    let request = ListOffsetsRequest::default().with_topics(vec![topic]);
    let answer = rig.ask(7, &request).topics[0].partitions[0].clone();
    assert_eq!((answer.offset, answer.timestamp), (5, 5_000));
}

#[test]
fn many_segments_read_as_one_log() {
    let rig = Rig::new();
    rig.create("t", 1, &[("segment.bytes", "20000")]);
    let values: Vec<String> =
        (0..3_000).map(|n| format!("value {n} {}", "x".repeat(n % 90))).collect();
    let producer: BaseProducer = rig.config(&[("batch.num.messages", "50")]).create().unwrap();
    for value in &values {
        let record = BaseRecord::<(), str>::to("t").payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(PATIENCE).unwrap();
    assert_eq!(rig.values("t", 3_000), values);
    let consumer = rig.consumer("g", &[("fetch.message.max.bytes", "3000")]);
    for start in [0, 1, 777, 1_499, 2_999] {
        let mut place = TopicPartitionList::new();
        place.add_partition_offset("t", 0, Offset::Offset(start)).unwrap();
        consumer.assign(&place).unwrap();
        assert_eq!(poll(&consumer).offset(), start);
    }
}

#[test]
fn a_batch_greater_than_the_fetch_limit_still_comes() {
    let rig = Rig::new();
    rig.create("t", 1, &[("max.message.bytes", "3000000")]);
    let value = "x".repeat(2_000_000);
    let config = rig.config(&[("message.max.bytes", "3000000")]);
    let producer: BaseProducer = config.create().unwrap();
    producer.send(BaseRecord::<(), str>::to("t").payload(&value)).map_err(|(e, _)| e).unwrap();
    producer.flush(PATIENCE).unwrap();
    let consumer = rig.consumer("g", &[("fetch.message.max.bytes", "1000")]);
    consumer.subscribe(&["t"]).unwrap();
    assert_eq!(poll(&consumer).payload().unwrap().len(), value.len());
}
