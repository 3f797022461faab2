//! The clocks of servers: leases and TTLs go by them, and those of replicas are held against one another.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::future::join_all;

use crate::clickhouse::client::Client;

/// A clock that is further off than this, from this machine's or from another of the same table, is worth a word.
const FAR_S: i64 = 5;
/// How long a clock is waited for: who is slow is told of otherwise, and what waits for that are rows.
const WITHIN: Duration = Duration::from_secs(5);

/// The clock of the server at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The address.
    pub address: String,
    /// How many seconds it is ahead of this machine's.
    pub ahead_s: i64,
}

/// Which clocks are too far off, from this machine's or from one another.
pub fn far_off(clocks: &[Clock]) -> Vec<String> {
    let is_off = |clock: &&Clock| clock.ahead_s.abs() > FAR_S;
    let off = clocks.iter().filter(is_off).map(|Clock { address, ahead_s }| {
        let at = if clocks.len() > 1 { format!(" at {address}") } else { String::new() };
        format!("its clock{at} is {ahead_s} s ahead of this machine's")
    });
    let by_clock = |clock: &&Clock| clock.ahead_s;
    let ends = clocks.iter().min_by_key(by_clock).zip(clocks.iter().max_by_key(by_clock));
    let apart = ends.and_then(|(slow, fast)| {
        let apart_s = fast.ahead_s - slow.ahead_s;
        let what = || {
            let (fast, slow) = (&fast.address, &slow.address);
            format!("its clock at {fast} is {apart_s} s ahead of that at {slow}")
        };
        (apart_s > FAR_S).then(what)
    });
    off.chain(apart).collect()
}

/// The clocks at all addresses that answer, asked at once. Who was silent when replicas were looked at is told of there, and not
/// waited for once more.
pub(super) async fn look(client: &Client) -> Vec<Clock> {
    let mut asked = Vec::new();
    for (at, (address, one)) in client.each().enumerate() {
        if client.replicas().is_none_or(|replicas| replicas.knows(at)) {
            asked.push(clock(address, one));
        }
    }
    join_all(asked).await.into_iter().flatten().collect()
}

async fn clock(address: String, client: Client) -> Option<Clock> {
    let before = here_s();
    let asked = client.ask::<(i64,)>("SELECT toUnixTimestamp(now())");
    let rows = tokio::time::timeout(WITHIN, asked).await.ok()?.ok()?;
    let (there,) = rows.into_iter().next()?;
    Some(Clock { address, ahead_s: ahead_s(there, before, here_s()) })
}

/// This machine's time, in seconds since 1970.
fn here_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs() as i64)
}

/// How far a clock is ahead that was read at some time between two of this machine's: a slow answer is no difference.
fn ahead_s(there: i64, before: i64, after: i64) -> i64 {
    there - there.clamp(before, after.max(before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_no_difference_of_clocks() {
        assert_eq!(ahead_s(100, 100, 100), 0);
        assert_eq!(ahead_s(100, 90, 120), 0, "it may have been read at any time between");
        assert_eq!(ahead_s(130, 90, 120), 10);
        assert_eq!(ahead_s(80, 90, 120), -10);
        assert_eq!(ahead_s(100, 110, 90), -10, "this machine's clock was set back meanwhile");
    }

    #[test]
    fn clocks_are_held_against_this_machines_and_one_another() {
        let told = |clocks: &[(&str, i64)]| {
            let clock = |(address, ahead_s): &(&str, i64)| Clock {
                address: (*address).into(),
                ahead_s: *ahead_s,
            };
            far_off(&clocks.iter().map(clock).collect::<Vec<_>>())
        };
        let none = Vec::<String>::new();
        assert_eq!(told(&[]), none);
        assert_eq!(told(&[("a", 5)]), none);
        assert_eq!(told(&[("a", -7)]), ["its clock is -7 s ahead of this machine's"]);
        assert_eq!(told(&[("a", 2), ("b", -3)]), none);
        assert_eq!(told(&[("a", 3), ("b", -3)]), ["its clock at a is 6 s ahead of that at b"]);
        assert_eq!(
            told(&[("a", 60), ("b", 61)]),
            [
                "its clock at a is 60 s ahead of this machine's",
                "its clock at b is 61 s ahead of this machine's"
            ]
        );
        assert_eq!(
            told(&[("a", 0), ("b", 1), ("c", -60)]),
            [
                "its clock at c is -60 s ahead of this machine's",
                "its clock at b is 61 s ahead of that at c"
            ]
        );
    }
}
