#!/usr/bin/env bash
# Gives a Kafka cluster the platform's topics (with retention) and access rules, and a schema registry
# their schemas: `aion bootstrap` with settings from the environment. Prints the plan, changes only what
# differs, deletes nothing; --dry-run only prints. Arguments are passed on (aion bootstrap --help).
#
#   KAFKA_BROKERS          host:port, several with commas                (needed)
#   KAFKA_CLIENT_CONFIG    file of librdkafka properties: sasl.*, ssl.*  (for a secured cluster)
#   AION_ENV               dev (7 days kept) or prod (30 days)           [dev]
#   AION_PARTITIONS        partitions of the platform's topics           [the catalog's]
#   AION_REPLICATION       replicas of each topic                        [3, or as many as brokers]
#   KAFKA_SCHEMA_REGISTRY  http://host:port of the registry, several with commas    [no schemas]
#   KAFKA_SCHEMA_REGISTRY_CONFIG  file of its properties: basic.auth.*, schema.registry.ssl.*
set -euo pipefail
: "${KAFKA_BROKERS:?set KAFKA_BROKERS to host:port of a broker}"
command -v aion >/dev/null || {
  echo "bootstrap_kafka: aion isn't on the PATH: cargo install --locked --path pipeline" >&2
  exit 1
}
config=()
[ -z "${KAFKA_CLIENT_CONFIG:-}" ] || config=(--client-config "$KAFKA_CLIENT_CONFIG")
exec aion bootstrap "${config[@]}" "$@"
