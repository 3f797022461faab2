use super::*;

const START: Timestamp = Timestamp(1_772_323_200_000_000);

fn backlog() -> Backlog {
    let source = Source {
        connection: Connection::to("127.0.0.1:1"),
        rate: 1_000.0,
        broken: Share::default(),
        counters: Arc::default(),
    };
    Backlog::new(&source, START)
}

fn after(ms: i64) -> Timestamp {
    Timestamp(START.0 + ms * 1000)
}

#[test]
fn what_is_due_is_sent_once_and_in_order() {
    let (mut backlog, mut times, mut bodies) = (backlog(), Vec::new(), Vec::new());
    for ms in (0..2_000).step_by(20) {
        backlog.send_due(after(ms), |message| {
            assert!(message.time <= after(ms) && message.time > after(ms - 20));
            times.push(message.time);
            bodies.push(message.body.to_vec());
            true
        });
    }
    assert!(times.len() > 500 && times.is_sorted());
    bodies.sort_unstable();
    assert!(bodies.windows(2).all(|pair| pair[0] != pair[1]));
}

#[test]
fn a_full_queue_holds_the_feed_up_and_loses_nothing() {
    let (mut steady, mut held) = (Vec::new(), Vec::new());
    let (mut one, mut other) = (backlog(), backlog());
    let mut refusals = 0;
    for ms in (0..1_000).step_by(20) {
        one.send_due(after(ms), |message| {
            steady.push(message.body.to_vec());
            true
        });
        other.send_due(after(ms), |message| {
            let full = (200..600).contains(&ms);
            if full {
                refusals += 1;
            } else {
                held.push(message.body.to_vec());
            }
            !full
        });
    }
    assert!(refusals > 10);
    assert_eq!(steady, held);
}

#[test]
fn a_long_absence_is_not_made_up_for() {
    let mut backlog = backlog();
    assert!(!backlog.is_too_old(after(50_000)));
    assert!(backlog.is_too_old(after(70_000)));
    let mut sent = 0;
    let more = backlog.send_due(after(3_600_000), |_| {
        sent += 1;
        true
    });
    assert_eq!((more, sent), (true, AT_ONCE), "others get a turn");
}
