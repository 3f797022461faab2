//! How a command reaches Kafka: the flags that several commands share.

use std::{collections::BTreeMap, path::PathBuf};

use aion_kafka::Connection;

use crate::{
    config::secret,
    exit::{Exit, Failure},
};

/// Properties of the connection, from a file and from the command line.
#[derive(Debug, Default, clap::Args)]
pub struct KafkaArgs {
    /// A file of librdkafka properties, NAME=VALUE a line: `bootstrap.servers`, `sasl.*`, `ssl.*`.
    #[arg(long, value_name = "FILE")]
    client_config: Option<PathBuf>,
    /// A librdkafka property for the connection, such as security.protocol=ssl; may be repeated. A
    /// value of `env:NAME` or `file:PATH` is read from there: for secrets.
    #[arg(short = 'X', value_name = "NAME=VALUE", value_parser = property)]
    properties: Vec<(String, String)>,
}

impl KafkaArgs {
    /// The connection to `brokers`, else to those of the file; none if neither names any.
    pub fn connection(&self, brokers: Option<&str>) -> anyhow::Result<Option<Connection>> {
        let mut properties = match &self.client_config {
            None => BTreeMap::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|cause| usage(format!("read {}: {cause}", path.display())))?;
                file(&text).map_err(|cause| usage(format!("{}: {cause}", path.display())))?
            }
        };
        for (name, value) in &self.properties {
            let value = secret::property(name, value)
                .map_err(|cause| usage(format!("-X {name}: {cause}")))?;
            properties.insert(name.clone(), value);
        }
        let named = properties.remove("bootstrap.servers");
        let Some(brokers) = brokers.map(str::to_owned).or(named) else {
            if self.client_config.is_none() && self.properties.is_empty() {
                return Ok(None);
            }
            return Err(usage("the connection has settings and no broker: name one".into()).into());
        };
        let connection = Connection { brokers, properties };
        connection.check().map_err(|cause| usage(cause.to_string()))?;
        Ok(Some(connection))
    }
}

/// Reads NAME=VALUE.
pub(crate) fn property(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("a property is NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// Reads a file of properties. It is private to its owner by custom, so a secret may stand in it.
fn file(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut properties = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let (name, value) = property(line).map_err(|cause| format!("line {number}: {cause}"))?;
        let value = secret::resolve(&value).map_err(|cause| format!("line {number}: {cause}"))?;
        properties.insert(name, value);
    }
    Ok(properties)
}

fn usage(what: String) -> Failure {
    Failure::new(Exit::Usage, what)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test may panic")]

    use super::*;

    #[test]
    fn a_file_of_properties_is_read() {
        let text = "# a comment\n\n bootstrap.servers = a:1,b:2 \nsasl.password=p=q\n";
        let read = file(text).unwrap();
        assert_eq!(read["bootstrap.servers"], "a:1,b:2");
        assert_eq!(read["sasl.password"], "p=q");
        assert_eq!(file("a=1\nnonsense").unwrap_err(), "line 2: a property is NAME=VALUE");
    }

    #[test]
    fn settings_of_a_connection_to_nowhere_are_refused() {
        assert!(KafkaArgs::default().connection(None).unwrap().is_none());
        let properties = vec![("security.protocol".into(), "ssl".into())];
        let arguments = KafkaArgs { client_config: None, properties };
        assert!(arguments.connection(None).unwrap_err().to_string().contains("no broker"));
    }

    #[test]
    fn a_secret_on_the_command_line_is_refused() {
        let arguments = |value: &str| KafkaArgs {
            client_config: None,
            properties: vec![("sasl.password".into(), value.into())],
        };
        let error = arguments("hunter2").connection(Some("a:1")).unwrap_err().to_string();
        assert!(error.contains("env:NAME") && !error.contains("hunter2"), "{error}");
        assert!(arguments("env:PATH").connection(Some("a:1")).unwrap().is_some());
    }
}
