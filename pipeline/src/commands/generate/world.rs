//! The world that a life happens in: what there is to choose from, and how the load goes up and
//! down.

use super::random::{Random, Ranks, stir, unit};

/// A place where tasks can run.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) name: &'static str,
    /// The model that it runs.
    pub(super) model: &'static str,
    /// Median milliseconds that any task takes.
    pub(super) base_ms: f64,
    /// Median milliseconds for every thousand units of size on top.
    pub(super) size_ms: f64,
    /// How long the tail of both is.
    pub(super) sigma: f64,
    /// Mean milliseconds of waiting for a worker.
    pub(super) queue_ms: f64,
    /// The size beyond which tasks tend to run out of memory.
    pub(super) capacity: u32,
    /// The share of attempts that fail for no fault of the task.
    pub(super) flaw_share: f64,
    /// Cost of a thousand units of size, in millionths.
    pub(super) cost_micros: u32,
}

/// How many of [`ROUTES`], from the first, are open to data of the stricter privacy tiers.
pub(super) const PRIVATE_ROUTES: u32 = 2;

/// Every route, those on the premises first; among them the names that the contract gives as examples, whose series are
/// there at 0 from the start.
pub(super) static ROUTES: [Route; 6] = [
    Route {
        name: "local",
        model: "aion-small",
        base_ms: 90.0,
        size_ms: 260.0,
        sigma: 0.45,
        queue_ms: 25.0,
        capacity: 8_000,
        flaw_share: 0.025,
        cost_micros: 400,
    },
    Route {
        name: "local-large",
        model: "aion-large",
        base_ms: 220.0,
        size_ms: 520.0,
        sigma: 0.55,
        queue_ms: 120.0,
        capacity: 48_000,
        flaw_share: 0.030,
        cost_micros: 1_500,
    },
    Route {
        name: "hybrid",
        model: "aion-nano",
        base_ms: 60.0,
        size_ms: 190.0,
        sigma: 0.35,
        queue_ms: 10.0,
        capacity: 4_000,
        flaw_share: 0.040,
        cost_micros: 900,
    },
    Route {
        name: "cloud",
        model: "aion-medium",
        base_ms: 380.0,
        size_ms: 310.0,
        sigma: 0.70,
        queue_ms: 40.0,
        capacity: 64_000,
        flaw_share: 0.026,
        cost_micros: 2_000,
    },
    Route {
        name: "cloud-premium",
        model: "aion-frontier",
        base_ms: 520.0,
        size_ms: 420.0,
        sigma: 0.75,
        queue_ms: 60.0,
        capacity: 200_000,
        flaw_share: 0.018,
        cost_micros: 9_000,
    },
    Route {
        name: "batch",
        model: "aion-large",
        base_ms: 4_000.0,
        size_ms: 300.0,
        sigma: 0.90,
        queue_ms: 3_500.0,
        capacity: 1_000_000,
        flaw_share: 0.045,
        cost_micros: 300,
    },
];

/// What a task is for, and what such tasks are like.
#[derive(Debug)]
pub(super) struct Intent {
    pub(super) name: &'static str,
    /// How many of a hundred tasks have it.
    percent: u32,
    /// Median size.
    pub(super) size: f64,
    /// Median milliseconds that the caller would wait.
    pub(super) patience_ms: f64,
}

/// Every intent.
pub(super) static INTENTS: [Intent; 10] = [
    intent("chat", 28, 900.0, 3_000.0),
    intent("search", 17, 200.0, 900.0),
    intent("summarize", 13, 6_000.0, 9_000.0),
    intent("classify", 11, 350.0, 1_200.0),
    intent("code_generate", 9, 1_500.0, 9_000.0),
    intent("extract", 7, 1_800.0, 4_000.0),
    intent("translate", 6, 2_200.0, 5_000.0),
    intent("code_review", 4, 5_000.0, 15_000.0),
    intent("embed", 3, 12_000.0, 60_000.0),
    intent("plan", 2, 1_200.0, 6_000.0),
];

const fn intent(name: &'static str, percent: u32, size: f64, patience_ms: f64) -> Intent {
    Intent { name, percent, size, patience_ms }
}

impl Intent {
    pub(super) fn draw(random: &mut Random) -> &'static Intent {
        let mut left = random.below(100);
        for intent in &INTENTS {
            match left.checked_sub(intent.percent) {
                None => return intent,
                Some(rest) => left = rest,
            }
        }
        &INTENTS[0]
    }
}

/// The privacy tiers, from the least to the most strict.
pub(super) static TIERS: [&str; 4] = ["public", "internal", "confidential", "restricted"];

/// Versions of the engine, oldest first; each is in use for [`VERSION_MICROS`].
pub(super) static ENGINE_VERSIONS: [&str; 5] = ["3.4.0", "3.4.1", "3.5.0", "3.6.0", "3.6.1"];

/// How long it takes until a newer version of the engine comes into use.
pub(super) const VERSION_MICROS: i64 = 6 * 3_600_000_000;

/// How many tenants there are.
pub(super) const TENANTS: u32 = 250;

/// A minute in microseconds.
pub(super) const MINUTE_MICROS: i64 = 60_000_000;

/// Who there is, and how busy it is.
#[derive(Debug)]
pub(super) struct World {
    seed: u64,
    /// Tenants by how often they come.
    pub(super) tenants: Ranks,
}

impl World {
    pub(super) fn new(seed: u64) -> World {
        World { seed: stir(seed, 0x776f_726c_6400), tenants: Ranks::new(TENANTS) }
    }

    /// How busy the minute of that time is, with 1 as the mean over many: every fifteenth is a
    /// burst.
    pub(super) fn load(&self, micros: i64) -> f64 {
        let drawn = stir(self.seed, micros.div_euclid(MINUTE_MICROS) as u64);
        if drawn.is_multiple_of(15) { 3.5 } else { 0.6 + 0.443 * unit(drawn) }
    }
}

/// Independent arrivals whose rate follows the load.
#[derive(Debug)]
pub(super) struct Arrivals {
    random: Random,
    /// When the next is due, in microseconds since 1970; fractions matter at a million a second.
    at: f64,
    mean_gap_micros: f64,
}

impl Arrivals {
    /// The first arrival at or after `start`, and from there `rate` a second on average.
    pub(super) fn new(random: Random, start: i64, rate: f64, world: &World) -> Arrivals {
        let mut arrivals = Arrivals { random, at: start as f64, mean_gap_micros: 1e6 / rate };
        arrivals.advance(world);
        arrivals
    }

    /// When the next is due.
    pub(super) const fn due(&self) -> i64 {
        self.at as i64
    }

    /// Goes on to the one after.
    pub(super) fn advance(&mut self, world: &World) {
        loop {
            let load = world.load(self.due());
            let next = self.at + self.random.exponential(self.mean_gap_micros / load);
            let end = ((self.due().div_euclid(MINUTE_MICROS) + 1) * MINUTE_MICROS) as f64;
            if next < end {
                self.at = next;
                return;
            }
            // Exact for independent arrivals: what has not come by the end of a minute is drawn
            // anew.
            self.at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intents_make_up_a_hundred() {
        assert_eq!(INTENTS.iter().map(|intent| intent.percent).sum::<u32>(), 100);
    }

    #[test]
    fn arrivals_keep_their_rate_and_come_in_bursts() {
        let world = World::new(3);
        let mut arrivals = Arrivals::new(Random::new(4), 1_000_000, 5.0, &world);
        let minutes = 2_000;
        let mut per_minute = vec![0_u32; minutes];
        while let Some(count) = per_minute.get_mut((arrivals.due() / MINUTE_MICROS) as usize) {
            *count += 1;
            arrivals.advance(&world);
        }
        let rate = f64::from(per_minute.iter().sum::<u32>()) / (minutes as f64 * 60.0);
        assert!((4.7..5.3).contains(&rate), "{rate}");
        let busy = per_minute.iter().filter(|count| **count > 600).count();
        assert!((minutes / 30..minutes / 8).contains(&busy), "{busy} bursts");
    }
}
