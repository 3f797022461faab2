//! Compares a schema with registered ones here, so that fields are named whatever the registry says.

use aion_schemas::compatibility::{self, AvroSchema, Conflict, Level};

use super::{Error, Registry, Schema, SchemaKind, Version};

impl Registry {
    /// Why a schema doesn't go together with the versions that `level` asks for, or with one version.
    ///
    /// `None` where it isn't Avro that this program can parse. A registered version that isn't is
    /// passed over: the registry's own answer is what counts.
    pub async fn conflicts(
        &self,
        subject: &str,
        version: Option<Version>,
        level: Level,
        schema: &Schema,
    ) -> Result<Option<Vec<Conflict>>, Error> {
        let Some(new) = self.parse(schema).await? else { return Ok(None) };
        let versions = if let Some(version) = version {
            vec![version]
        } else {
            let numbers = self.versions(subject, false).await?;
            level.compared(&numbers).iter().map(|number| Version::Number(*number)).collect()
        };
        let mut earlier = Vec::with_capacity(versions.len());
        for version in versions {
            let registered = self.version(subject, version).await?;
            if let Some(old) = self.parse(&registered.schema).await? {
                earlier.push((registered.version, old));
            }
        }
        Ok(Some(compatibility::check(level, &new, &earlier)))
    }

    async fn parse(&self, schema: &Schema) -> Result<Option<AvroSchema>, Error> {
        if schema.kind != SchemaKind::Avro {
            return Ok(None);
        }
        let dependencies = self.dependencies(schema).await?;
        Ok(AvroSchema::parse(&schema.text, &dependencies).ok())
    }
}
