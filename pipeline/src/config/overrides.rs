//! Overrides from the environment: `AION__LAKE__FLUSH_AGE_S=5` is `lake.flush_age_s = 5`.

/// What marks a variable as an override; two underscores stand between the parts of a key.
const PREFIX: &str = "AION__";

/// Writes the overrides into the tree of a configuration file.
///
/// A value is read as TOML (`5`, `true`, `["a"]`) and taken as text where it isn't.
pub(super) fn apply(
    tree: &mut toml::Table,
    environment: impl Iterator<Item = (String, String)>,
) -> Result<(), String> {
    for (name, text) in environment {
        let Some(key) = name.strip_prefix(PREFIX) else { continue };
        let key = key.to_lowercase();
        let parts: Vec<&str> = key.split("__").collect();
        set(tree, &parts, value(&text)).map_err(|cause| format!("environment {name}: {cause}"))?;
    }
    Ok(())
}

fn value(text: &str) -> toml::Value {
    let line = format!("v = {text}");
    let parsed = line.parse::<toml::Table>().ok().and_then(|mut table| table.remove("v"));
    match parsed {
        Some(value) if !value.is_table() && !value.is_datetime() => value,
        _ => toml::Value::String(text.to_owned()),
    }
}

fn set(tree: &mut toml::Table, parts: &[&str], value: toml::Value) -> Result<(), String> {
    let Some((last, path)) = parts.split_last() else { return Ok(()) };
    let mut table = tree;
    for part in path {
        let entry = table
            .entry((*part).to_owned())
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = entry.as_table_mut().ok_or_else(|| format!("{part} is not a table"))?;
    }
    table.insert((*last).to_owned(), value);
    Ok(())
}
