#![expect(clippy::unwrap_used, reason = "a test may panic")]

use serde_json::{Map, json};

use super::*;

fn command(actor: &str, key: &str, module: &str) -> Command {
    let parameters = Map::from_iter([("module".to_owned(), json!(module))]);
    let what = ("install_module".to_owned(), &parameters);
    Command::new((actor.into(), None), what, key.to_owned(), Timestamp(5))
}

fn outcome(succeeded: bool) -> Outcome {
    Outcome { succeeded, detail: "HTTP 200".into(), at: Timestamp(9) }
}

fn open(state: &State, actor: &str) -> Vec<String> {
    let queue = state.open().get(actor).into_iter().flat_map(Queue::commands);
    queue.map(|open| open.command.key.clone()).collect()
}

#[test]
fn the_first_record_of_an_id_is_the_command() {
    let mut state = State::default();
    state.take(0, Entry::Accepted(command("a", "k", "one")));
    state.take(0, Entry::Accepted(command("a", "k", "two")));
    let first = command("a", "k", "one");
    assert_eq!(state.find(first.id).unwrap().content, first.content);
    assert_eq!((state.open_size().count, open(&state, "a")), (1, vec!["k".to_owned()]));
    assert_eq!(state.open()["a"].first().unwrap().command.parameters, r#"{"module":"one"}"#);
}

#[test]
fn what_is_open_is_in_order_and_ends_once() {
    let mut state = State::default();
    for key in ["1", "2", "3"] {
        state.take(0, Entry::Accepted(command("a", key, "m")));
    }
    state.take(1, Entry::Accepted(command("b", "1", "m")));
    assert_eq!(open(&state, "a"), ["1", "2", "3"]);
    let (second, of_b) = (command("a", "2", "m").id, command("b", "1", "m").id);
    state.take(0, Entry::Ended(second, outcome(true)));
    state.take(0, Entry::Ended(second, outcome(false)));
    state.take(1, Entry::Ended(of_b, outcome(false)));
    assert_eq!(open(&state, "a"), ["1", "3"]);
    assert!(state.find(second).unwrap().outcome.as_ref().unwrap().succeeded, "the first one");
    assert!(state.find(second).unwrap().is_audited);
    assert!(!state.open().contains_key("b"));
    state.take(0, Entry::Ended(command("a", "1", "m").id, outcome(true)));
    state.take(0, Entry::Ended(command("a", "3", "m").id, outcome(true)));
    assert_eq!((state.open_size(), state.oldest_open()), (Size::default(), None));
    // Accepted again after it has ended, it isn't to be done again.
    state.take(0, Entry::Accepted(command("a", "1", "m")));
    assert_eq!(state.open_size().count, 0);
}

#[test]
fn an_actors_commands_keep_their_order_over_partitions_that_were_added() {
    let logs = [(0, vec![("1", 10), ("3", 30), ("2", 20)]), (2, vec![("4", 25), ("5", 30)])];
    let read = |order: [usize; 2]| {
        let mut state = State::default();
        for (partition, log) in order.map(|at| &logs[at]) {
            for (key, at) in log {
                let command = Command { received_at: Timestamp(*at), ..command("a", key, "m") };
                state.take(*partition, Entry::Accepted(command));
            }
        }
        open(&state, "a")
    };
    // Of one partition it is the log that says who was first; and whichever is read first, the order is one.
    assert_eq!(read([0, 1]), ["1", "4", "3", "2", "5"]);
    assert_eq!(read([0, 1]), read([1, 0]));
}

#[test]
fn one_actor_leaves_room_for_the_others() {
    let mut state = State::default();
    let fill = |state: &mut State, actor: &str| {
        let mut taken = 0;
        while state.full_for(actor).is_none() {
            state.take(0, Entry::Accepted(command(actor, &taken.to_string(), "m")));
            taken += 1;
        }
        taken
    };
    assert_eq!(fill(&mut state, "a"), MOST_OPEN_OF_ONE.count);
    assert_eq!((state.full_for("a"), state.full_for("b")), (Some(Full::OfActor), None));
    for other in 1..MOST_OPEN.count / MOST_OPEN_OF_ONE.count {
        fill(&mut state, &other.to_string());
    }
    assert_eq!(state.full_for("b"), Some(Full::OfAll));
    state.take(0, Entry::Ended(command("a", "0", "m").id, outcome(true)));
    assert_eq!((state.full_for("a"), state.full_for("b")), (None, None));
    // By bytes.
    let mut state = State::default();
    let large = "x".repeat(1 << 20);
    for number in 0..32 {
        state.take(0, Entry::Accepted(command("a", &number.to_string(), &large)));
    }
    assert_eq!((state.full_for("a"), state.full_for("b")), (Some(Full::OfActor), None));
}

#[test]
fn an_outcome_of_nothing_is_passed_over() {
    let mut state = State::default();
    state.take(0, Entry::Ended(command("a", "1", "m").id, outcome(true)));
    assert_eq!(state.ignored(), 1);
    state.take(0, Entry::Accepted(command("a", "1", "m")));
    assert_eq!(state.open_size().count, 1, "it is to be done all the same");
}
