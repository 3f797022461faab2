//! What a person sees of `aion dev`: a list of addresses, four things to try, and one line that lives.

use std::{
    collections::VecDeque,
    io::IsTerminal,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::{
    commands::generate::Counters,
    health::Health,
    logging, place,
    webhooks::status::{EndpointStatus, State},
};

/// How often the line is renewed on a terminal, and printed where there is none.
const TERMINAL: Duration = Duration::from_millis(500);
const PLAIN: Duration = Duration::from_secs(10);

/// The addresses and the status line.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) kafka: SocketAddr,
    pub(super) registry: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) postgres: Option<SocketAddr>,
    pub(super) data: PathBuf,
    pub(super) catalog: Option<PathBuf>,
    pub(super) tables: Vec<Arc<str>>,
    /// Where keys to command with are.
    pub(super) access: Option<PathBuf>,
    /// By which webhooks are sent.
    pub(super) policy: Option<PathBuf>,
    pub(super) health: Arc<Health>,
}

impl Screen {
    /// Prints the addresses, then keeps the status line until `shutdown`.
    pub(super) async fn run(&self, counters: Option<Arc<Counters>>, shutdown: &CancellationToken) {
        self.print_addresses();
        let terminal = std::io::stderr().is_terminal();
        let line = ProgressBar::new_spinner();
        if terminal {
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                line.set_style(style);
            }
            logging::keep_above(line.clone());
        }
        let mut rate = Rate::default();
        let mut tick = tokio::time::interval(if terminal { TERMINAL } else { PLAIN });
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = shutdown.cancelled() => break,
            }
            let text = self.status(counters.as_deref(), &mut rate);
            if terminal {
                line.set_message(text);
                line.tick();
            } else {
                println!("{text}");
            }
        }
        line.finish_and_clear();
        println!("Stopping: what is in memory is being written.");
    }

    fn print_addresses(&self) {
        let (kafka, registry, http) = (self.kafka, self.registry, self.http);
        let data = self.data.display();
        let (aion, sr_cli) = (program("aion"), program("sr-cli"));
        let tables = self.tables.join(", ");
        let psql = self.postgres.map_or_else(
            || "not served: 127.0.0.1:5433 is taken, --postgres names another".to_owned(),
            |address| format!("psql -h {} -p {} -U me aion", address.ip(), address.port()),
        );
        println!(
            "\nAION is running; everything is kept in {data}. Ctrl-C stops it, starting again goes on.

  Kafka   {kafka}
  Schemas http://{registry}   a schema registry, with the topics' schemas
  HTTP    http://{http}   /livez /readyz /metrics /metrics/platform /v1/sql
  SQL     {psql}
  Lake    {data}/lake   Delta tables {tables}
  Exports http://{http}/v1/exports   into {data}/exports (docs/exports.md){webhooks}{inbound}

Try, in a second terminal:

  {aion} sql{flags} \"select route, tier, count(*) from decisions group by 1, 2 order by 3 desc\"
  {aion} generate --topic aion.tasks.lifecycle --count 100000 --to {kafka}
  {sr_cli} --url http://{registry} list
  kcat -b {kafka} -t aion.router.decisions -C -o -3 -e
",
            flags = self.flags(),
            inbound = self.access.as_deref().map_or_else(String::new, |access| {
                let access = access.display();
                format!("\n  Commands http://{http}/webhooks/inbound   with {access}/key (docs/inbound.md)")
            }),
            webhooks = self.policy.as_deref().map_or_else(String::new, |policy| {
                format!("\n  Webhooks by {}   {aion} webhooks status{}", policy.display(), self.flags())
            }),
        );
    }

    /// ` --data DIR` and ` --catalog DIR` where they aren't what `aion sql` takes anyway.
    fn flags(&self) -> String {
        let usual = place::full(Path::new("data")).is_ok_and(|usual| usual == self.data);
        let data = if usual { String::new() } else { format!(" --data {}", quoted(&self.data)) };
        let catalog = self.catalog.as_deref().map(|dir| format!(" --catalog {}", quoted(dir)));
        data + &catalog.unwrap_or_default()
    }

    fn status(&self, counters: Option<&Counters>, rate: &mut Rate) -> String {
        let (mut stored, mut rejected, mut gaps, mut lag) = (0, 0, 0, 0);
        for job in self.health.jobs() {
            // A row that is in the lake and in the series is one row.
            let places = job.partitions.iter().map(|one| one.marks.len()).max().unwrap_or(1);
            stored += job.rows_stored / places.max(1) as u64;
            rejected += job.rejected;
            gaps += job.gaps;
            lag += job.lag();
        }
        let mut parts = vec![
            format!(
                "{} rows stored ({}/s)",
                HumanCount(stored),
                HumanCount(rate.per_second(Instant::now(), stored))
            ),
            format!("{} behind", HumanCount(lag.max(0).unsigned_abs())),
            format!("{} dead letters", HumanCount(rejected)),
        ];
        if let Some(counters) = counters {
            parts.insert(0, format!("{} events sent", HumanCount(counters.acked())));
        }
        if let Some(webhooks) = self.health.webhooks() {
            let sent = webhooks.endpoints.iter().map(|one| one.counters.delivered).sum();
            let is_failing = |one: &&EndpointStatus| one.state == State::Failing;
            let failing = webhooks.endpoints.iter().filter(is_failing).count();
            let gone =
                if failing > 0 { format!(" ({failing} not reached)") } else { String::new() };
            parts.push(format!("{} webhooks{gone}", HumanCount(sent)));
        }
        if gaps > 0 {
            parts.push(format!("{} gaps: see table gaps", HumanCount(gaps)));
        }
        let mut text = parts.join(" · ");
        if let Some(missing) = self.health.missing().first() {
            text.push_str(" · not ready: ");
            text.push_str(missing);
        }
        text
    }
}

/// A program that stands beside this one, or this one, as a person would type it here.
fn program(name: &str) -> String {
    let Ok(path) = std::env::current_exe() else { return name.into() };
    let path = path.with_file_name(name);
    let here = std::env::current_dir().unwrap_or_default();
    match path.strip_prefix(&here) {
        // Without a folder the shell would look for it on the PATH.
        Ok(near) if near.components().count() == 1 => quoted(&Path::new(".").join(near)),
        Ok(near) => quoted(near),
        Err(_) => quoted(&path),
    }
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:@%,".contains(c);
    if text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// A count by the second, over the last [`WINDOW`]: rows become durable a flush at a time, and every
/// few seconds only.
#[derive(Debug, Default)]
struct Rate {
    seen: VecDeque<(Instant, u64)>,
}

/// Several flushes.
const WINDOW: Duration = Duration::from_secs(20);

impl Rate {
    fn per_second(&mut self, now: Instant, count: u64) -> u64 {
        self.seen.push_back((now, count));
        while self.seen.get(1).is_some_and(|(then, _)| now.duration_since(*then) >= WINDOW) {
            self.seen.pop_front();
        }
        let Some((then, before)) = self.seen.front() else { return 0 };
        let seconds = now.duration_since(*then).as_secs_f64();
        if seconds > 0.0 { (count.saturating_sub(*before) as f64 / seconds) as u64 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_come_in_flushes_have_a_steady_rate() {
        let (mut rate, start) = (Rate::default(), Instant::now());
        // A look each half second, and a thousand rows each five seconds.
        let at = |look: u64| {
            rate.per_second(start + Duration::from_millis(look * 500), look / 10 * 1000)
        };
        let rates: Vec<u64> = (0..200).map(at).collect();
        assert!(rates[60..].iter().all(|rate| (150..=250).contains(rate)), "{rates:?}");
    }

    #[test]
    fn a_path_can_be_pasted_into_a_shell() {
        assert_eq!(quoted(Path::new("/tmp/data-1")), "/tmp/data-1");
        assert_eq!(quoted(Path::new("my data")), "'my data'");
        assert_eq!(quoted(Path::new("it's")), r"'it'\''s'");
    }
}
