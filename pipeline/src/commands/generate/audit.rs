//! Administrative changes: rare, in sessions of one actor, and not always granted.

use aion_schemas::log::Timestamp;
use uuid::Uuid;

use super::{
    event::{Event, Topic, Value},
    random::Random,
    world::World,
};

/// Share of the mean gap that lies between two changes of one session.
const WITHIN_SESSION: f64 = 0.1;
/// The most changes in a session; sessions of 1 to this many are equally frequent.
const LONGEST_SESSION: u32 = 5;

/// An action, the word for what it is done to, and how many of those there are.
static ACTIONS: [(&str, &str, u32); 14] = [
    ("policy.update", "policy", 17),
    ("policy.create", "policy", 17),
    ("quota.update", "tenant", 250),
    ("role.grant", "user", 90),
    ("role.revoke", "user", 90),
    ("key.rotate", "key", 40),
    ("module.enable", "module", 31),
    ("webhook.update", "endpoint", 12),
    ("approve_kernel_proposal", "proposal", 400),
    ("reject_kernel_proposal", "proposal", 400),
    ("install_module", "module", 31),
    ("ingest_dataset", "dataset", 60),
    ("update_memory_profile", "profile", 25),
    ("route.drain", "route", 6),
];

/// What people write beside a change: also what breaks careless parsers.
static COMMENTS: [&str; 6] = [
    "as agreed in the weekly review",
    "requested by \"ops\" after the burst",
    "Rückbau: Größe < 4 MiB, siehe C:\\Konfig",
    "承認済み",
    "temporary;\nremove after the migration",
    "\u{1f680} go-live",
];

static ADDRESSES: [&str; 5] = ["10.0.3.17", "10.0.3.44", "10.0.8.2", "192.168.14.9", "fd00::4:11"];

/// The stream of administrative changes.
#[derive(Debug)]
pub(super) struct Audit {
    random: Random,
    at: f64,
    gap_micros: f64,
    session: Session,
}

/// One actor at work.
#[derive(Debug)]
struct Session {
    actor: Value,
    channel: &'static str,
    address: &'static str,
    changes_left: u32,
}

impl Audit {
    pub(super) fn new(mut random: Random, start: i64, rate: f64) -> Audit {
        let gap_micros = 1e6 / rate;
        let at = start as f64 + random.between(0.0, 1.0) * gap_micros;
        let session = Session::begin(&mut random);
        Audit { random, at, gap_micros, session }
    }

    /// When the next is due.
    pub(super) const fn due(&self) -> i64 {
        self.at as i64
    }

    /// The event that is due.
    pub(super) fn take(&mut self, event_id: Uuid, world: &World) -> Event {
        let time = Timestamp(self.due());
        let event = self.change(event_id, time, world);
        self.session.changes_left -= 1;
        // Sessions last (1 + longest) / 2 changes on average; the pauses between them make up the
        // rate.
        let mean_changes = f64::from(1 + LONGEST_SESSION) / 2.0;
        let share = if self.session.changes_left > 0 {
            WITHIN_SESSION
        } else {
            self.session = Session::begin(&mut self.random);
            mean_changes - (mean_changes - 1.0) * WITHIN_SESSION
        };
        self.at += self.random.exponential(self.gap_micros * share);
        event
    }

    fn change(&mut self, event_id: Uuid, time: Timestamp, world: &World) -> Event {
        let random = &mut self.random;
        let (action, kind, count) = random.pick(&ACTIONS);
        let result = match random.below(100) {
            0..93 => "accepted",
            93..97 => "denied",
            _ => "failed",
        };
        let mut fields =
            vec![("event_id", Value::Id(event_id)), ("actor_id", self.session.actor.clone())];
        if random.chance(0.7) {
            fields.push(("tenant_id", Value::Numbered("tenant", world.tenants.draw(random) + 1)));
        }
        fields.push(("action", Value::Word(action)));
        fields.push(("resource", Value::Numbered(kind, random.below(count) + 1)));
        fields.push(("result", Value::Word(result)));
        fields.push(("timestamp", Value::Time(time)));
        let mut context = vec![
            ("channel", Value::Word(self.session.channel)),
            ("ip", Value::Word(self.session.address)),
        ];
        if random.chance(0.3) {
            context.insert(1, ("comment", Value::Word(random.pick(&COMMENTS))));
        }
        fields.push(("context", Value::Object(context)));
        Event { topic: Topic::Audit, time, fields }
    }
}

impl Session {
    fn begin(random: &mut Random) -> Session {
        let service = random.chance(0.25);
        let actor = if service {
            Value::Word(random.pick(&["svc-deployer", "svc-autoscaler", "svc-compliance"]))
        } else {
            Value::Numbered("user", random.below(90) + 1)
        };
        Session {
            actor,
            channel: if service { "api" } else { random.pick(&["console", "cli", "api"]) },
            address: random.pick(&ADDRESSES),
            changes_left: random.below(LONGEST_SESSION) + 1,
        }
    }
}
