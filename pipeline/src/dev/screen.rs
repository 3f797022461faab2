//! What a person sees of `aion dev`: a list of addresses, three things to try, and one line that lives.

use std::{
    io::IsTerminal,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use crate::{generate::Counters, health::Health, logging};

/// How often the line is renewed on a terminal, and printed where there is none.
const TERMINAL: Duration = Duration::from_millis(500);
const PLAIN: Duration = Duration::from_secs(10);

/// The addresses and the status line.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) kafka: SocketAddr,
    pub(super) http: SocketAddr,
    pub(super) data: PathBuf,
    pub(super) tables: Vec<Arc<str>>,
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
        let (kafka, http) = (self.kafka, self.http);
        let data = self.data.display();
        let aion = program();
        let tables = self.tables.join(", ");
        println!(
            "\nAION is running; everything is kept in {data}. Ctrl-C stops it, starting again goes on.

  Kafka   {kafka}
  HTTP    http://{http}   /livez /readyz /metrics
  Lake    {data}/lake   Delta tables {tables}

Try, in a second terminal:

  {aion} sql{flag} \"select route, tier, count(*) from decisions group by 1, 2 order by 3 desc\"
  {aion} generate --topic aion.tasks.lifecycle --count 100000 --to {kafka}
  kcat -b {kafka} -t aion.router.decisions -C -o -3 -e
",
            flag = self.data_flag(),
        );
    }

    /// ` --data DIR` where the folder isn't the one that `aion sql` looks into anyway.
    fn data_flag(&self) -> String {
        let usual = std::path::absolute("data").is_ok_and(|usual| usual == self.data);
        if usual { String::new() } else { format!(" --data {}", self.data.display()) }
    }

    fn status(&self, counters: Option<&Counters>, rate: &mut Rate) -> String {
        let (mut stored, mut rejected, mut gaps, mut lag) = (0, 0, 0, 0);
        for job in self.health.jobs() {
            stored += job.rows_stored;
            rejected += job.rejected;
            gaps += job.gaps;
            lag += job.lag();
        }
        let mut parts = vec![
            format!(
                "{} rows stored ({}/s)",
                HumanCount(stored),
                HumanCount(rate.per_second(stored))
            ),
            format!("{} behind", HumanCount(lag.max(0).unsigned_abs())),
            format!("{} dead letters", HumanCount(rejected)),
        ];
        if let Some(counters) = counters {
            parts.insert(0, format!("{} events sent", HumanCount(counters.acked())));
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

/// How this program was called, as a person would type it here.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else { return "aion".into() };
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(&here).map(Path::to_path_buf).unwrap_or(path).display().to_string()
}

/// A count by the second, over the time between two looks.
#[derive(Debug, Default)]
struct Rate {
    last: Option<(Instant, u64)>,
}

impl Rate {
    fn per_second(&mut self, count: u64) -> u64 {
        let now = Instant::now();
        let (then, before) = self.last.replace((now, count)).unwrap_or((now, count));
        let seconds = now.saturating_duration_since(then).as_secs_f64();
        if seconds > 0.0 { (count.saturating_sub(before) as f64 / seconds) as u64 } else { 0 }
    }
}
