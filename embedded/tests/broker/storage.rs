//! The data folder: who may open it, what a crash leaves, what retention takes.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
};

use aion_embedded::{Broker, Error, Settings};
use kafka_protocol::{
    ResponseError,
    messages::{
        DeleteRecordsRequest,
        delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic},
    },
};

use crate::{
    rig::{Rig, batch, name},
    wire::{epoch_end, now_ms, put},
};

fn refused(rig: &Rig, settings: Settings) -> String {
    match rig.runtime.block_on(Broker::start(settings)) {
        Ok(_) => panic!("started"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_start_that_cant_be_says_what_to_do() {
    let rig = Rig::new();
    let message = refused(&rig, Settings::new(rig.data()));
    let pid = format!("in use by process {}; stop that broker", std::process::id());
    assert!(message.contains(&pid), "{message}");

    let other = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(other.path().join("new"));
    settings.listen = rig.address();
    let message = refused(&rig, settings);
    assert!(message.contains(&format!("{}: the port is in use", rig.address())), "{message}");

    let mut settings = Settings::new(other.path().join("new"));
    settings.listen = "0.0.0.0:0".parse().unwrap();
    assert!(refused(&rig, settings).contains("loopback"));

    fs::write(other.path().join("thesis.txt"), "irreplaceable").unwrap();
    let message = refused(&rig, Settings::new(other.path()));
    assert!(message.contains("not this broker's"), "{message}");
    assert_eq!(fs::read_dir(other.path()).unwrap().count(), 1, "and leaves it alone");
}

/// Killed, or out of room, between the lock and the identity, which was empty then, or half of it was there.
#[test]
fn what_a_first_start_left_that_died_is_no_obstacle() {
    for staged in ["", "{\n  \"product\": \"aion-em"] {
        let mut rig = Rig::with(|settings| {
            fs::create_dir(&settings.data).unwrap();
            fs::write(settings.data.join("lock"), "").unwrap();
            fs::write(settings.data.join("broker.json.new"), staged).unwrap();
        });
        rig.create("t", 1, &[]);
        rig.send("t", &["a"]);
        rig.restart();
        assert_eq!(rig.values("t", 1), ["a"]);
        assert!(!rig.data().join("broker.json.new").exists());
    }
    let other = tempfile::tempdir().unwrap();
    for name in ["lock", "broker.json.new", "thesis.txt"] {
        fs::write(other.path().join(name), "irreplaceable").unwrap();
    }
    let message = refused(&Rig::new(), Settings::new(other.path()));
    assert!(message.contains("not this broker's"), "{message}");
}

#[test]
fn a_folder_of_a_newer_build_is_refused() {
    let mut rig = Rig::new();
    rig.stop();
    let path = rig.data().join("broker.json");
    let newer = fs::read_to_string(&path).unwrap().replace("\"format\": 1", "\"format\": 2");
    fs::write(&path, &newer).unwrap();
    let message = refused(&rig, Settings::new(rig.data()));
    assert!(message.contains("has format 2, this build knows 1"), "{message}");
    fs::write(&path, "{}").unwrap();
    assert!(refused(&rig, Settings::new(rig.data())).contains("not this broker's"));
    fs::write(&path, newer.replace("\"format\": 2", "\"format\": 1")).unwrap();
    rig.start();
}

/// The segment files of the only partition, in order.
fn segments(rig: &Rig) -> Vec<PathBuf> {
    let topics = fs::read_dir(rig.data().join("topics")).unwrap();
    let folder = topics.map(|entry| entry.unwrap().path()).next().unwrap();
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
    files.sort();
    files
}

#[test]
fn a_torn_tail_is_cut_and_nothing_before_it() {
    let mut rig = Rig::new();
    rig.create("t", 1, &[]);
    for values in [["a", "b"], ["c", "d"]] {
        rig.send("t", &values);
    }
    let whole = fs::read(&segments(&rig)[0]).unwrap();
    let next = batch(&[now_ms(); 3], (-1, -1, -1));
    let mut flipped = next.to_vec();
    flipped[8 + 4 + 60] ^= 1;
    let tears = [next[..7].to_vec(), next[..70].to_vec(), flipped, vec![0; 4_096]];
    for tear in tears {
        rig.stop();
        let mut file = OpenOptions::new().append(true).open(&segments(&rig)[0]).unwrap();
        // The base offset is right, so that only length and checksum can tell.
        let mut tear = tear;
        if tear.len() >= 8 && tear.iter().any(|byte| *byte != 0) {
            tear[..8].copy_from_slice(&4_i64.to_be_bytes());
        }
        file.write_all(&tear).unwrap();
        rig.start();
        assert_eq!(fs::read(&segments(&rig)[0]).unwrap(), whole);
        assert_eq!(rig.watermarks("t"), (0, 4));
    }
    rig.send("t", &["e"]);
    assert_eq!(rig.values("t", 5), ["a", "b", "c", "d", "e"]);
}

#[test]
fn damage_before_the_tail_stops_the_start() {
    let mut rig = Rig::new();
    rig.create("t", 1, &[("segment.bytes", "1024")]);
    for _ in 0..10 {
        put(&rig, "t", batch(&[now_ms(); 20], (-1, -1, -1)));
    }
    rig.stop();
    let files = segments(&rig);
    assert!(files.len() > 3);
    let whole = fs::read(&files[1]).unwrap();
    fs::write(&files[1], &whole[..whole.len() - 1]).unwrap();
    let message = refused(&rig, Settings::new(rig.data()));
    assert!(message.contains("damaged: no whole batch at byte"), "{message}");
    assert!(message.contains(files[1].to_str().unwrap()), "{message}");
    fs::remove_file(&files[1]).unwrap();
    let message = refused(&rig, Settings::new(rig.data()));
    assert!(message.contains("is missing"), "{message}");
    fs::write(&files[1], &whole).unwrap();
    rig.start();
    assert_eq!(rig.watermarks("t"), (0, 200));
}

#[test]
fn torn_commits_are_cut_too() {
    let mut rig = Rig::new();
    rig.create("t", 1, &[]);
    let path = rig.data().join("offsets.log");
    for _ in 0..2 {
        rig.stop();
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"00000000 {\"group\":\"g\",\"at\":nu").unwrap();
        rig.start();
        assert_eq!(fs::read(&path).unwrap(), b"");
    }
}

#[test]
fn what_a_crash_left_of_a_topic_is_swept() {
    let mut rig = Rig::new();
    rig.create("t", 1, &[]);
    rig.stop();
    let orphan = rig.data().join("topics").join(format!("{}-0", uuid::Uuid::new_v4()));
    fs::create_dir(&orphan).unwrap();
    let stranger = rig.data().join("topics").join("README");
    fs::write(&stranger, "mine").unwrap();
    rig.start();
    assert!(!orphan.exists());
    assert!(stranger.exists());
}

#[test]
fn retention_by_size_takes_whole_segments_from_the_start() {
    let mut rig = Rig::new();
    let set = [("segment.bytes", "4000"), ("retention.bytes", "9000")];
    rig.create("t", 1, &set);
    for _ in 0..20 {
        put(&rig, "t", batch(&[now_ms(); 50], (-1, -1, -1)));
    }
    let before = segments(&rig).len();
    let gone = rig.broker().apply_retention();
    assert!(gone > 0);
    assert_eq!(segments(&rig).len(), before - gone);
    let bytes: u64 = segments(&rig).iter().map(|path| path.metadata().unwrap().len()).sum();
    assert!((9_000..13_000).contains(&bytes), "{bytes}");
    let (start, end) = rig.watermarks("t");
    assert!(start > 0 && start % 50 == 0);
    assert_eq!(end, 1_000);
    assert_eq!(rig.broker().apply_retention(), 0);
    rig.restart();
    assert_eq!(rig.watermarks("t"), (start, end));
}

#[test]
fn retention_by_time_takes_the_active_segment_too() {
    let mut rig = Rig::new();
    rig.create("t", 1, &[("retention.ms", "60000")]);
    put(&rig, "t", batch(&[now_ms() - 120_000; 5], (-1, -1, -1)));
    rig.create("compacted", 1, &[("retention.ms", "60000"), ("cleanup.policy", "compact")]);
    put(&rig, "compacted", batch(&[now_ms() - 120_000; 5], (-1, -1, -1)));
    assert_eq!(rig.broker().apply_retention(), 1);
    assert_eq!(rig.watermarks("t"), (5, 5));
    assert_eq!(rig.watermarks("compacted"), (0, 5));
    put(&rig, "t", batch(&[now_ms(); 2], (-1, -1, -1)));
    assert_eq!(rig.broker().apply_retention(), 0);
    rig.restart();
    assert_eq!(rig.watermarks("t"), (5, 7));
}

#[test]
fn retention_by_time_takes_whole_segments_and_leaves_the_young() {
    let mut rig = Rig::new();
    let bytes = batch(&[now_ms(); 50], (-1, -1, -1)).len();
    let two_batches = (2 * bytes).to_string();
    rig.create("t", 1, &[("retention.ms", "60000"), ("segment.bytes", two_batches.as_str())]);
    let (old, young) = (now_ms() - 120_000, now_ms());
    for at in [old, old, old, young, young, young] {
        assert_eq!(put(&rig, "t", batch(&[at; 50], (-1, -1, -1))).error_code, 0);
    }
    let before = segments(&rig);
    assert_eq!(before.len(), 3, "old ones, both, young ones");
    assert_eq!(rig.broker().apply_retention(), 1);
    assert_eq!(segments(&rig), before[1..], "a segment goes when the last of it is old");
    assert_eq!(rig.watermarks("t"), (100, 300));
    assert_eq!(rig.values("t", 200).len(), 200);
    assert_eq!(rig.broker().apply_retention(), 0);
    rig.restart();
    assert_eq!(rig.broker().apply_retention(), 0);
    assert_eq!(rig.watermarks("t"), (100, 300));
}

#[test]
fn what_cant_be_written_is_told_until_it_can() {
    // A segment for each batch.
    let rig = Rig::with(|settings| settings.segment_bytes = 1);
    rig.create("t", 1, &[]);
    let watch = rig.broker().watch();
    let send = || put(&rig, "t", batch(&[now_ms(); 5], (-1, -1, -1))).error_code;
    assert_eq!((send(), watch.trouble()), (0, None));
    let folder = segments(&rig)[0].parent().unwrap().to_owned();
    let in_the_way = folder.join(format!("{:020}.log", 5));
    fs::create_dir(&in_the_way).unwrap();
    assert_eq!(send(), ResponseError::KafkaStorageError.code());
    let told = watch.trouble().unwrap();
    let what = format!("t[0]: start a segment in {}: ", folder.display());
    assert!(told.starts_with(&what) && told.ends_with("; clients try again"), "{told}");
    fs::remove_dir(&in_the_way).unwrap();
    assert_eq!((send(), watch.trouble()), (0, None));
    assert_eq!(rig.watermarks("t"), (0, 10));
}

/// Deletes the records of topic `t` below an offset: (error, the first offset now).
fn delete(rig: &Rig, offset: i64) -> (i16, i64) {
    let partition = DeleteRecordsPartition::default().with_offset(offset);
    let topic = DeleteRecordsTopic::default().with_name(name("t"));
    let topic = topic.with_partitions(vec![partition]);
    let answer = rig.ask(1, &DeleteRecordsRequest::default().with_topics(vec![topic]));
    let answer = answer.topics[0].partitions[0].clone();
    (answer.error_code, answer.low_watermark)
}

#[test]
fn records_can_be_deleted_up_to_any_offset() {
    let mut rig = Rig::new();
    rig.create("t", 1, &[]);
    rig.send("t", &["a", "b", "c"]);
    assert_eq!(delete(&rig, 2), (0, 2));
    assert_eq!(delete(&rig, 1), (0, 2), "never back");
    assert_eq!(delete(&rig, 4).0, 1);
    rig.restart();
    assert_eq!(rig.watermarks("t"), (2, 3));
    assert_eq!(rig.values("t", 1), ["c"]);
    assert_eq!(delete(&rig, -1), (0, 3));
}

/// Writes batches of five records that are so old to topic `t`.
fn write_fives(rig: &Rig, ages_ms: &[i64]) {
    for age_ms in ages_ms {
        let answer = put(rig, "t", batch(&[now_ms() - age_ms; 5], (-1, -1, -1)));
        assert_eq!(answer.error_code, 0);
    }
}

/// Where the first so many leader epochs of topic `t` ended.
fn epoch_ends(rig: &Rig, count: i32) -> Vec<(i32, i64)> {
    let end = |epoch| {
        let (code, found, end) = epoch_end(rig, "t", -1, epoch);
        assert_eq!(code, 0, "epoch {epoch}");
        (found, end)
    };
    (0..count).map(end).collect()
}

/// Epoch 0 is 0..10, epoch 1 is 10..15, epoch 2 is 15..20. An epoch that ended below the start is told to end there:
/// no answer at all would look as if the log had been cut.
#[test]
fn deleted_records_take_their_leader_epochs_along() {
    let mut rig = Rig::new();
    rig.create("t", 1, &[]);
    write_fives(&rig, &[0; 4]);
    assert_eq!(rig.broker().truncate("t", 0, 10).unwrap(), 10);
    write_fives(&rig, &[0; 2]);
    assert_eq!(rig.broker().truncate("t", 0, 15).unwrap(), 15);
    write_fives(&rig, &[0]);
    assert_eq!(epoch_ends(&rig, 3), [(0, 10), (1, 15), (2, 20)]);
    let starts = [
        (7, [(0, 10), (1, 15), (2, 20)]),
        (12, [(0, 12), (1, 15), (2, 20)]),
        (15, [(0, 15), (1, 15), (2, 20)]),
        (20, [(0, 20), (1, 20), (2, 20)]),
    ];
    for (start, ends) in starts {
        assert_eq!(delete(&rig, start), (0, start));
        assert_eq!(epoch_ends(&rig, 3), ends, "from {start} on");
        rig.restart();
        assert_eq!(epoch_ends(&rig, 3), ends, "from {start} on, after a restart");
    }
    assert_eq!(epoch_end(&rig, "t", -1, -1), (0, -1, -1), "no epoch");
    write_fives(&rig, &[0]);
    assert_eq!(epoch_ends(&rig, 3), [(0, 20), (1, 20), (2, 25)]);
}

/// A segment each: 0..5 of epoch 0 and 5..10 of epoch 1, both old, and 10..15, young.
#[test]
fn segments_that_retention_took_take_their_leader_epochs_along() {
    let old_ms = 120_000;
    let mut rig = Rig::with(|settings| settings.segment_bytes = 1);
    rig.create("t", 1, &[("retention.ms", "60000")]);
    write_fives(&rig, &[old_ms; 2]);
    assert_eq!(rig.broker().truncate("t", 0, 5).unwrap(), 5);
    write_fives(&rig, &[old_ms, 0]);
    assert_eq!(epoch_ends(&rig, 2), [(0, 5), (1, 15)]);
    assert_eq!(rig.broker().apply_retention(), 2);
    for _ in 0..2 {
        assert_eq!(rig.watermarks("t"), (10, 15));
        assert_eq!(epoch_ends(&rig, 2), [(0, 10), (1, 15)]);
        rig.restart();
    }
}

#[test]
fn a_stopped_broker_gives_its_folder_back() {
    let mut rig = Rig::new();
    rig.create("t", 1, &[]);
    for n in 0..3 {
        rig.send("t", &[&format!("{n}")]);
        rig.restart();
    }
    assert_eq!(rig.values("t", 3), ["0", "1", "2"]);
    let error = rig.runtime.block_on(Broker::start(Settings::new(rig.data()))).err().unwrap();
    assert!(matches!(error, Error::Locked { .. }));
}
