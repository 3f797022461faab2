//! `aion publish`: events from standard input into a topic, each held against the contract before it is
//! sent.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | every line was sent and acknowledged by all in-sync replicas |
//! | 1 | something was not acknowledged; the message says what |
//! | 9 | lines broke the contract: they were not sent (with `--strict`: nothing was) |
//!
//! **Invariant:** nothing of a line that breaks a rule is sent.
//! **Invariant:** what is sent is acknowledged before the command says so. Sent again after a failure, an
//! event is another record: the log keeps both.

pub(crate) mod lines;
mod report;
mod sending;

use std::{
    io::{self, BufReader},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use aion_kafka::{Admin, Purpose};
use aion_schemas::{
    catalog::Topic,
    decode::SchemaId,
    encode::{Encoder, Encoding, Message},
    log::Timestamp,
    schema::NAMESPACE,
    validate::Violation,
};
use anyhow::{Context, anyhow, bail};

use self::{
    lines::{Line, Lines, Text},
    report::Report,
    sending::Sending,
};
use crate::{
    args::target::{Target, TargetArgs},
    exit::{Exit, Failure},
    registry::{self, Registry, Schema},
};

/// How long the cluster may take to answer before the first message.
const REACH: Duration = Duration::from_secs(10);
/// What `--strict` may hold of messages before the first is sent.
const STRICT_BYTES: usize = 256 << 20;

/// The arguments of `aion publish`.
#[derive(Debug, clap::Args)]
pub struct PublishArgs {
    /// Topic to send to, by its name or its table's
    #[arg(long, value_name = "TOPIC")]
    topic: String,
    /// How values are written; avro needs a registry that has the contract's schema
    #[arg(long, value_enum, default_value_t = Form::Json)]
    encoding: Form,
    /// Hold every line against the contract before the first is sent, and send none if one is wrong
    #[arg(long)]
    strict: bool,
    /// What is wrong with lines as JSON lines on standard output, in place of text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: TargetArgs,
}

/// An encoding by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// The line as it is
    Json,
    /// Avro by the contract's schema, in the registry's framing
    Avro,
}

/// Runs `aion publish`.
#[expect(clippy::needless_pass_by_value, reason = "a command owns its arguments")]
pub fn run(args: PublishArgs) -> anyhow::Result<ExitCode> {
    let target = args.target.find()?;
    let topic = target.producers_topic(&args.topic)?;
    let encoding = match args.encoding {
        Form::Json => Encoding::Json,
        Form::Avro => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let id = contract_id(target.registry.as_deref(), topic);
            Encoding::Avro(runtime.context("start the runtime")?.block_on(id)?)
        }
    };
    check_topic(&target, topic)?;
    let encoder = Encoder::new(topic, encoding).map_err(|cause| anyhow!("{cause}"))?;
    let lines = Lines::new(BufReader::new(io::stdin().lock()), topic.max_message_bytes as usize);
    let report = Report::new(args.json);
    let mut publishing = Publishing { encoder, lines, report };
    let mut sending = Sending::open(&target.connection, &topic.name)?;
    if args.strict {
        let messages = publishing.all()?;
        if publishing.report.refused() == 0 {
            for message in &messages {
                sending.send(message, &publishing.report)?;
            }
        }
    } else {
        publishing.each(|message, report| sending.send(&message, report))?;
    }
    sending.finish(&publishing.report)?;
    let refused = publishing.report.refused();
    publishing.report.finish(sending.acknowledged())?;
    Ok(if refused > 0 { Exit::Refused.into() } else { ExitCode::SUCCESS })
}

/// Lines on their way to messages.
struct Publishing<R> {
    encoder: Encoder,
    lines: Lines<R>,
    report: Report,
}

impl<R: io::BufRead> Publishing<R> {
    /// Hands over the message of each line; those apart that are refused.
    fn each(
        &mut self,
        mut take: impl FnMut(Message, &Report) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        while let Some(line) = self.lines.next().context("read standard input")? {
            match check(&mut self.encoder, &line) {
                Ok(message) => take(message, &self.report)?,
                Err(violations) => self.report.refuse(line.number, &violations)?,
            }
        }
        Ok(())
    }

    /// The messages of all lines; none of them is kept once one was refused.
    fn all(&mut self) -> anyhow::Result<Vec<Message>> {
        let (mut messages, mut bytes) = (Vec::new(), 0);
        self.each(|message, report| {
            if report.refused() > 0 {
                return Ok(());
            }
            bytes += message.key.len() + message.value.len();
            if bytes > STRICT_BYTES {
                bail!(
                    "--strict holds every event before the first is sent, {} MiB at most: split the \
                     input, or go without --strict",
                    STRICT_BYTES >> 20
                );
            }
            messages.push(message);
            Ok(())
        })?;
        Ok(messages)
    }
}

/// The message of a line, or the rules that it breaks.
pub(crate) fn check(encoder: &mut Encoder, line: &Line) -> Result<Message, Vec<Violation>> {
    match &line.text {
        Text::Event(text) => encoder.encode(text, now()),
        Text::TooLong => Err(vec![Violation {
            field: String::new(),
            rule: "max_message_bytes".to_owned(),
            message: "the event is longer than the topic takes".to_owned(),
            value: None,
        }]),
    }
}

/// The id that frames a topic's Avro messages: that under which the registry has the contract's schema. It is
/// never registered here: that is a deployment's decision.
pub(crate) async fn contract_id(
    registry: Option<&Registry>,
    topic: &Topic,
) -> Result<SchemaId, Failure> {
    let Some(registry) = registry else {
        let what = "Avro needs a schema registry: name it with --registry, or in [registry]";
        return Err(Failure::new(Exit::Usage, what));
    };
    let (subject, schema) = (topic.subject(), Schema::avro(topic.schema.avro_text(NAMESPACE)));
    match registry.lookup(&subject, &schema, true).await {
        Ok(found) => Ok(SchemaId(found.id)),
        Err(registry::Error::NotFound { message, .. }) => Err(Failure::new(
            Exit::Failed,
            format!(
                "the registry doesn't have the contract's schema under {subject} ({message}); register \
                 it: `aion bootstrap`, or `sr-cli register --subject {subject} --schema \
                 bigdata/schemas/{}.avsc`",
                topic.schema.name
            ),
        )),
        Err(cause) => Err(Failure::new(Exit::Failed, cause.to_string())),
    }
}

/// Refuses to start towards a cluster that doesn't answer or lacks the topic, which would show minutes
/// later.
fn check_topic(target: &Target, topic: &Topic) -> anyhow::Result<()> {
    let explain = |error| anyhow!(target.connection.explain(&error, Purpose::Produce));
    let admin = Admin::open(&target.connection, REACH).map_err(explain)?;
    admin.reach().map_err(explain)?;
    let found = admin.topic_ids(&[&topic.name]).map_err(explain)?;
    if found.first().is_none_or(|found| found.id.is_none()) {
        let brokers = &target.connection.brokers;
        bail!("the cluster at {brokers} has no topic {}: `aion bootstrap` makes it", topic.name);
    }
    Ok(())
}

/// The clock's time; a clock set before 1970 counts as 1970.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(since.as_micros() as i64)
}
