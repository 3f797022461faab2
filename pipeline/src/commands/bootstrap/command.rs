//! `aion bootstrap`.

use std::path::PathBuf;

use aion_kafka::{Admin, Error, Purpose};
use aion_schemas::catalog::{Catalog, Environment};
use anyhow::bail;

use super::{
    PATIENCE, Plan, Principals, Step, Wanted,
    schemas::{SchemaStep, Schemas},
};
use crate::{
    args::{
        kafka::{KafkaArgs, property},
        lake,
    },
    exit::{Exit, Failure},
};

/// What `aion bootstrap` is told.
#[derive(Debug, clap::Args)]
pub struct BootstrapArgs {
    #[command(flatten)]
    kafka: KafkaArgs,
    /// Brokers of the cluster, several with commas; or `bootstrap.servers` in the client file.
    #[arg(long, value_name = "HOST:PORT", env = "KAFKA_BROKERS")]
    brokers: Option<String>,
    /// Sets how long messages are kept.
    #[arg(long, value_name = "dev|prod", env = "AION_ENV", default_value = "dev", value_parser = environment)]
    environment: Environment,
    /// Replicas of each topic [default: 3, or as many as there are brokers].
    #[arg(long, value_name = "N", env = "AION_REPLICATION", value_parser = clap::value_parser!(i32).range(1..=100))]
    replication: Option<i32>,
    /// Partitions of the platform's topics, in place of the catalog's.
    #[arg(long, value_name = "N", env = "AION_PARTITIONS", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: Option<i32>,
    /// Give a topic with fewer partitions more. Later events of a key may then go to another
    /// partition than earlier ones.
    #[arg(long)]
    raise_partitions: bool,
    /// The principal of an account where it isn't `User:ACCOUNT`; may be repeated.
    #[arg(long = "principal", value_name = "ACCOUNT=User:NAME", value_parser = property)]
    principals: Vec<(String, String)>,
    /// Leave access rules alone.
    #[arg(long, conflicts_with = "principals")]
    no_access_rules: bool,
    /// The schema registry, several URLs with commas: registers the topics' schemas, at
    /// `BACKWARD_TRANSITIVE`.
    #[arg(long, value_name = "URL", env = "KAFKA_SCHEMA_REGISTRY")]
    registry: Option<String>,
    /// Properties of the registry, as `sr-cli` takes them: for an account, for certificates.
    #[arg(long, value_name = "FILE", env = "KAFKA_SCHEMA_REGISTRY_CONFIG")]
    registry_config: Option<PathBuf>,
    /// A catalog of your own, laid out like `schemas/`.
    #[arg(long, value_name = "DIR")]
    catalog: Option<PathBuf>,
    /// Print the plan and change nothing.
    #[arg(long)]
    dry_run: bool,
}

fn environment(text: &str) -> Result<Environment, &'static str> {
    match text {
        "dev" => Ok(Environment::Dev),
        "prod" => Ok(Environment::Prod),
        _ => Err("known are dev, prod"),
    }
}

/// Prints the plan; without `--dry-run` carries it out. Fails if a step failed, after all were
/// tried.
pub fn run(args: &BootstrapArgs) -> anyhow::Result<()> {
    let Some(connection) = args.kafka.connection(args.brokers.as_deref())? else {
        let what = "which cluster? Give --brokers HOST:PORT (or KAFKA_BROKERS), or a --client-config \
                    with bootstrap.servers";
        return Err(Failure::new(Exit::Usage, what).into());
    };
    let catalog = lake::catalog(args.catalog.as_deref())?;
    let wanted = wanted(args, &catalog)?;
    let explain = |error: &Error| connection.explain(error, Purpose::Administer);
    let failure = |error: Error| {
        let exit = match error {
            Error::Authentication { .. } | Error::Refused { .. } | Error::Configuration { .. } => {
                Exit::Usage
            }
            _ => Exit::Failed,
        };
        Failure::new(exit, explain(&error))
    };
    let admin = Admin::open(&connection, PATIENCE).map_err(failure)?;
    let plan = Plan::make(&admin, &catalog, &wanted).map_err(failure)?;
    let url = args.registry.as_deref().filter(|url| !url.is_empty());
    let schemas = Schemas::plan(args.registry_config.as_deref(), url, &catalog)?;
    for step in &plan.steps {
        println!("{:<9} {step}", step.verb());
    }
    let steps = schemas.as_ref().map_or(&[][..], |schemas| &schemas.steps);
    for step in steps {
        println!("{:<9} {step}", step.verb());
    }
    let wanting = plan.steps.iter().filter(|step| step.changes()).count()
        + steps.iter().filter(|step| step.changes()).count();
    let is_refused = |step: &&SchemaStep| matches!(step, SchemaStep::Incompatible { .. });
    let refused = steps.iter().filter(is_refused).count();
    let unchanged = plan.steps.len() + steps.len() - wanting - refused;
    if args.dry_run {
        println!("{wanting} to change, {unchanged} as they are; nothing was changed");
        return incompatible(refused);
    }
    let is_known = plan.steps.iter().any(|step| matches!(step, Step::NoAuthorizer(_)));
    let (mut changed, mut failed) = (0, 0);
    for (step, outcome) in plan.carry_out(&admin).map_err(failure)? {
        match outcome {
            Err(error) => {
                failed += 1;
                eprintln!("aion: {} {step}: {}", step.verb(), explain(&error));
            }
            Ok(()) if step.changes() => changed += 1,
            Ok(()) if matches!(step, Step::NoAuthorizer(_)) && !is_known => {
                println!("{:<9} {step}", step.verb());
            }
            Ok(()) => {}
        }
    }
    if let Some(schemas) = &schemas {
        let (done, not_done) = schemas.carry_out();
        changed += done;
        failed += not_done;
    }
    println!("{changed} changed, {unchanged} as they were");
    if failed > 0 {
        bail!("{failed} of {wanting} changes failed; what they need is said above");
    }
    incompatible(refused)
}

fn wanted(args: &BootstrapArgs, catalog: &Catalog) -> anyhow::Result<Wanted> {
    Ok(Wanted {
        environment: args.environment,
        replication: args.replication,
        partitions: args.partitions,
        raise_partitions: args.raise_partitions,
        access: if args.no_access_rules { None } else { Some(principals(args, catalog)?) },
    })
}

fn incompatible(refused: usize) -> anyhow::Result<()> {
    if refused > 0 {
        bail!(
            "{refused} schemas can't read what was written before; what stands in the way is said above"
        );
    }
    Ok(())
}

fn principals(args: &BootstrapArgs, catalog: &Catalog) -> anyhow::Result<Principals> {
    for (account, principal) in &args.principals {
        if !catalog.accounts.iter().any(|known| *known.name == **account) {
            let known: Vec<&str> = catalog.accounts.iter().map(|known| &*known.name).collect();
            let what =
                format!("--principal: no account {account:?}; known are {}", known.join(", "));
            return Err(Failure::new(Exit::Usage, what).into());
        }
        if !principal.contains(':') {
            let what =
                format!("--principal {account}: {principal:?} has no type; write User:{principal}");
            return Err(Failure::new(Exit::Usage, what).into());
        }
    }
    Ok(args.principals.iter().cloned().collect())
}
