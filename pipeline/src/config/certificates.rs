//! The certificates that a configuration names.

use std::{collections::BTreeMap, path::Path};

use super::File;
use crate::certificates::Certificates;

/// Finds them before the rest is checked; one that can't be used is said by what needs it.
pub(super) fn of(file: &File) -> Certificates {
    let mut found = Certificates::default();
    found.shown("http", file.http.certificate.as_deref());
    if let Some(postgres) = &file.sql.postgres {
        found.shown("sql", postgres.certificate.as_deref());
    }
    if let Some(kafka) = &file.kafka {
        of_properties("kafka", &kafka.properties, &mut found);
    }
    if let Some(registry) = &file.registry {
        found.shown("registry", registry.certificate.as_deref());
        found.trusted("registry", registry.ca.as_deref());
    }
    if let Some(clickhouse) = &file.clickhouse {
        found.trusted("clickhouse", clickhouse.ca.as_deref());
    }
    if let Some(inbound) = &file.inbound {
        found.trusted("inbound", inbound.ca.as_deref());
        of_properties("inbound kafka", &inbound.properties, &mut found);
    }
    found
}

fn of_properties(
    used_for: &str,
    properties: &BTreeMap<String, toml::Value>,
    found: &mut Certificates,
) {
    let file = |name: &str| Some(Path::new(properties.get(name)?.as_str()?));
    found.shown(used_for, file("ssl.certificate.location"));
    found.trusted(used_for, file("ssl.ca.location"));
}
