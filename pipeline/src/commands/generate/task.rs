//! One task: what the router decides about it, and what becomes of it.
//!
//! | from | to | when |
//! |---|---|---|
//! | (decided) | `queued` | at once |
//! | `queued` | `running`, `cancelled` | a worker takes it; the caller gives up |
//! | `running` | `succeeded`, `failed`, `cancelled` | last |
//! | `running` | `queued` | an attempt failed and there is another: `retries` goes up |
//!
//! The outcome can be learned from the decision: it comes of the same route, size, budgets and
//! load.

use aion_schemas::log::Timestamp;
use uuid::Uuid;

use super::{
    event::{Event, Topic, Value},
    random::{Random, stir},
    world::{
        ENGINE_VERSIONS, Intent, PRIVATE_ROUTES, ROUTES, Route, TENANTS, TIERS, VERSION_MICROS,
        World,
    },
};

/// The most attempts after the first.
const MAX_RETRIES: u8 = 2;
/// The reason of decisions that a policy took out of the router's hands.
const OVERRIDDEN: &str = "policy override";
/// Attempts are given up after this multiple of the latency budget.
const DEADLINE_FACTOR: f64 = 1.1;
/// The longest wait and the longest attempt: bounds how many tasks are under way at once.
const LONGEST_MS: f64 = 600_000.0;

/// A state of the lifecycle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Queued,
    Running,
    Succeeded,
    Failed,
    Cancelled,
}

impl Status {
    const fn name(self) -> &'static str {
        match self {
            Status::Queued => "queued",
            Status::Running => "running",
            Status::Succeeded => "succeeded",
            Status::Failed => "failed",
            Status::Cancelled => "cancelled",
        }
    }
}

/// The next thing to happen to a task.
#[derive(Clone, Copy, Debug)]
struct Step {
    status: Status,
    time: i64,
    /// Why the attempt before it failed.
    error: Option<&'static str>,
}

/// A task from its decision to its end. It carries its own randomness, so that it needs no memory
/// but this.
#[derive(Debug)]
pub(super) struct Task {
    id: Uuid,
    random: Random,
    /// From 0 for the busiest; `None` for the platform's own tasks.
    tenant: Option<u32>,
    project: u32,
    agent: u32,
    intent: &'static Intent,
    tier: u8,
    size: u32,
    latency_budget_ms: u32,
    cost_budget_micros: u32,
    route: &'static Route,
    reason: &'static str,
    retries: u8,
    arrived: i64,
    next: Step,
}

impl Task {
    /// A task that arrives at `time`, with a random generator of its own.
    pub(super) fn arrive(id: Uuid, mut random: Random, time: i64, world: &World) -> Task {
        let tenant = (!random.chance(0.03)).then(|| world.tenants.draw(&mut random));
        let intent = Intent::draw(&mut random);
        let size = random.lognormal(intent.size, 0.9).clamp(16.0, 400_000.0);
        let patience = random.lognormal(intent.patience_ms, 0.5).clamp(200.0, 900_000.0);
        let cost = random.lognormal(2.5 * size, 0.8).clamp(100.0, 50_000_000.0);
        let decided = random.between(200.0, 5_000.0) as i64;
        let mut task = Task {
            id,
            tenant,
            project: tenant.map_or(0, |tenant| (tenant + 1) * 10) + random.below(6),
            agent: random.below(40) + 1,
            intent,
            tier: tier(tenant, &mut random),
            size: size as u32,
            latency_budget_ms: (patience / 50.0) as u32 * 50,
            cost_budget_micros: cost as u32 / 100 * 100,
            route: &ROUTES[0],
            reason: "",
            retries: 0,
            arrived: time,
            next: Step { status: Status::Queued, time: time + decided, error: None },
            random,
        };
        (task.route, task.reason) = task.choose();
        task
    }

    /// When its next lifecycle event is due.
    pub(super) const fn due(&self) -> i64 {
        self.next.time
    }

    /// The router's choice, and the reason that it gives.
    fn choose(&mut self) -> (&'static Route, &'static str) {
        let private = self.tier >= 2;
        let [small, large, edge, standard, premium, batch] = &ROUTES;
        let affordable = |route: &Route| {
            u64::from(route.cost_micros) * u64::from(self.size) / 1000
                <= u64::from(self.cost_budget_micros)
        };
        let within_budget = affordable(standard);
        let best_affordable = affordable(premium);
        if self.random.chance(0.03) {
            return (if private { large } else { premium }, OVERRIDDEN);
        }
        if self.random.chance(0.06) {
            let any = self.random.below(if private { PRIVATE_ROUTES } else { ROUTES.len() as u32 });
            return (&ROUTES[any as usize], "exploration: a share of tasks goes anywhere allowed");
        }
        match () {
            () if private => (
                if self.size <= 8_000 { small } else { large },
                "tier requires execution on the premises",
            ),
            () if self.latency_budget_ms < 1_200 => {
                (edge, "latency budget below what the cloud needs")
            }
            () if self.latency_budget_ms > 45_000 => {
                (batch, "latency budget allows batch execution")
            }
            () if best_affordable && self.size > 2_500 => {
                (premium, "best model within the cost budget")
            }
            () if within_budget => (standard, "standard model within the cost budget"),
            () => (small, "cost budget below the price of the cloud"),
        }
    }

    /// The decision as an event.
    pub(super) fn decision(&self, event_id: Uuid, time: i64, since_start: i64) -> Event {
        let version =
            (since_start / VERSION_MICROS) as usize + usize::from(self.agent.is_multiple_of(10));
        let version = ENGINE_VERSIONS[version.min(ENGINE_VERSIONS.len() - 1)];
        let mut fields = Vec::with_capacity(15);
        fields.push(("event_id", Value::Id(event_id)));
        fields.push(("task_id", Value::Id(self.id)));
        if let Some(tenant) = self.tenant {
            fields.push(("tenant_id", Value::Numbered("tenant", tenant + 1)));
        }
        fields.push(("intent", Value::Word(self.intent.name)));
        fields.push(("route", Value::Word(self.route.name)));
        fields.push(("reason", Value::Word(self.reason)));
        fields.push(("tier", Value::Word(TIERS[usize::from(self.tier)])));
        fields.push(("timestamp", Value::Time(Timestamp(time))));
        fields.push(("size", Value::Integer(i64::from(self.size))));
        fields.push(("latency_budget_ms", Value::Integer(i64::from(self.latency_budget_ms))));
        fields.push(("cost_budget", Value::Millionths(i64::from(self.cost_budget_micros))));
        if self.reason == OVERRIDDEN {
            let policy = Value::Numbered("policy", self.project % 17 + 1);
            let route = Value::Word(self.route.name);
            fields.push((
                "policy_overrides",
                Value::Object(vec![("policy", policy), ("route", route)]),
            ));
        }
        fields.push(("engine_model", Value::Word(self.route.model)));
        fields.push(("engine_version", Value::Word(version)));
        Event { topic: Topic::Decisions, time: Timestamp(time), fields }
    }

    /// Takes the step that is due: its event, and whether another follows.
    pub(super) fn step(&mut self, event_id: Uuid, world: &World) -> (Event, bool) {
        let step = self.next;
        let load = world.load(step.time);
        match step.status {
            Status::Queued => self.next = self.after_queued(step.time, load),
            Status::Running => self.next = self.after_running(step.time, load),
            Status::Succeeded | Status::Failed | Status::Cancelled => {}
        }
        let goes_on = matches!(step.status, Status::Queued | Status::Running);
        let event = self.lifecycle(event_id, step);
        self.retries +=
            u8::from(step.status == Status::Running && self.next.status == Status::Queued);
        (event, goes_on)
    }

    fn after_queued(&mut self, time: i64, load: f64) -> Step {
        // Waiting grows faster than the load: that is what queues do.
        let wait = self.random.exponential(self.route.queue_ms * load * load);
        let gives_up = self.random.chance(0.004) || wait > 1.2 * f64::from(self.latency_budget_ms);
        let status = if gives_up { Status::Cancelled } else { Status::Running };
        Step { status, time: after(time, wait), error: None }
    }

    fn after_running(&mut self, time: i64, load: f64) -> Step {
        let size = f64::from(self.size) / 1000.0;
        let median = (self.route.base_ms + self.route.size_ms * size) * (0.7 + 0.3 * load);
        let needed = self.random.lognormal(median, self.route.sigma);
        let deadline = DEADLINE_FACTOR * f64::from(self.latency_budget_ms);
        let (took, failure) = if self.size > self.route.capacity && self.random.chance(0.6) {
            (needed * 0.4, Some(("out_of_memory", false)))
        } else if self.random.chance(self.route.flaw_share * load) {
            (
                needed * 0.3,
                Some((
                    self.random.pick(&["engine_unavailable", "rate_limited", "worker_lost"]),
                    true,
                )),
            )
        } else if self.random.chance(0.004) {
            (needed, Some((self.random.pick(&["invalid_output", "policy_denied"]), false)))
        } else if needed > deadline {
            (deadline, Some(("deadline_exceeded", true)))
        } else {
            (needed, None)
        };
        let retry = self.retries < MAX_RETRIES && self.random.chance(0.6);
        let status = match failure {
            Some((_, true)) if retry => Status::Queued,
            Some(_) => Status::Failed,
            None if self.random.chance(0.012) => Status::Cancelled,
            None => Status::Succeeded,
        };
        Step { status, time: after(time, took), error: failure.map(|(code, _)| code) }
    }

    fn lifecycle(&self, event_id: Uuid, step: Step) -> Event {
        let mut fields = Vec::with_capacity(13);
        fields.push(("event_id", Value::Id(event_id)));
        fields.push(("task_id", Value::Id(self.id)));
        if let Some(tenant) = self.tenant {
            fields.push(("tenant_id", Value::Numbered("tenant", tenant + 1)));
        }
        fields.push(("intent", Value::Word(self.intent.name)));
        fields.push(("status", Value::Word(step.status.name())));
        fields.push(("timestamp", Value::Time(Timestamp(step.time))));
        match (step.status, step.error) {
            (Status::Running, _) => {
                let worker = stir(self.id.as_u64_pair().0, u64::from(self.retries)) % 24;
                let worker = Value::Numbered("worker", worker as u32);
                fields.push(("metadata", Value::Object(vec![("worker", worker)])));
            }
            (Status::Queued, Some(code)) => {
                fields.push(("metadata", Value::Object(vec![("retry_of", Value::Word(code))])));
            }
            _ => {}
        }
        fields.push(("agent_id", Value::Numbered("agent", self.agent)));
        fields.push(("project_id", Value::Numbered("project", self.project)));
        fields.push(("latency_ms", Value::Integer((step.time - self.arrived) / 1000)));
        fields.push(("retries", Value::Integer(i64::from(self.retries))));
        if let (Status::Failed, Some(code)) = (step.status, step.error) {
            fields.push(("error_code", Value::Word(code)));
        }
        Event { topic: Topic::Tasks, time: Timestamp(step.time), fields }
    }
}

/// A later time, by milliseconds within the bounds of one step.
fn after(time: i64, ms: f64) -> i64 {
    time + ((ms.clamp(1.0, LONGEST_MS)) * 1000.0) as i64
}

/// Privacy is a habit of tenants: each has a usual tier, from which its tasks deviate at times.
fn tier(tenant: Option<u32>, random: &mut Random) -> u8 {
    if random.chance(0.2) {
        return random.below(TIERS.len() as u32) as u8;
    }
    match tenant.map(|tenant| stir(tenant.into(), TENANTS.into()) % 10) {
        Some(0..=3) => 0,
        None | Some(4..=7) => 1,
        Some(8) => 2,
        Some(_) => 3,
    }
}
