//! Reads a JSON Schema file into a [`Schema`].
//!
//! What a column needs is kept strict: one type a field, a closed object at the top, a description
//! for people. Constraints on values (`enum`, `minimum`, `pattern` ...) and anything inside an
//! object field are for producers; they pass through to the validator and don't change the column.
//!
//! | `type` | and | kind |
//! |---|---|---|
//! | `string` | | `Text` |
//! | `string` | `format: date-time` | `Time` |
//! | `string` | `contentEncoding: base64` (internal topics) | `Bytes` |
//! | `integer`, `number`, `boolean`, `object` | | the same |
//!
//! How the contract may change is said beside the type: `x-aliases` lists names that a field had before,
//! `default` is what events become that were written before a *required* field was there.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{Field, Kind, Schema};
use crate::{
    catalog::Problems,
    name::{self, NAME_RULE},
    suggest::did_you_mean,
};

const DIALECT: &str = "https://json-schema.org/draft/2020-12/schema";

const TOP_KEYWORDS: [&str; 10] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "type",
    "additionalProperties",
    "required",
    "properties",
    "examples",
];

const FIELD_KEYWORDS: [&str; 12] = [
    "type",
    "description",
    "title",
    "$comment",
    "examples",
    "deprecated",
    "enum",
    "const",
    "default",
    "x-aliases",
    "x-unit",
    "x-few-values",
];
const TEXT_KEYWORDS: [&str; 5] = ["format", "contentEncoding", "minLength", "maxLength", "pattern"];
const NUMBER_KEYWORDS: [&str; 5] =
    ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"];
const OBJECT_KEYWORDS: [&str; 7] = [
    "properties",
    "required",
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "minProperties",
    "maxProperties",
];

/// A schema file about to be read, and what the catalog says about it.
pub(crate) struct File<'a> {
    /// The schema's name.
    pub(crate) name: &'a str,
    /// The file's name for messages.
    pub(crate) shown: &'a str,
    /// The field that says when the event happened.
    pub(crate) event_time: &'a str,
    /// Whether the topic is internal, which allows bytes.
    pub(crate) internal: bool,
}

impl File<'_> {
    /// The schema, and the JSON that it was read from; `None` when problems make it unusable.
    pub(crate) fn read(&self, text: &str, problems: &mut Problems) -> Option<(Schema, Value)> {
        let before = problems.len();
        let parsed = serde_json::from_str::<Value>(text)
            .and_then(|value| Ok((value, serde_json::from_str::<Outline>(text)?)));
        let (value, Names(order)) = match parsed {
            Ok((value, outline)) => (value, outline.properties),
            Err(error) => {
                problems.add(self.shown, "", error.to_string(), "correct the JSON Schema");
                return None;
            }
        };
        self.check_top(&value, problems);
        let fields: Vec<Field> =
            order.iter().filter_map(|name| self.field(name, &value, problems)).collect();
        let event_time = self.event_time(&fields, problems);
        if problems.len() > before {
            return None;
        }
        let doc = value["description"].as_str().unwrap_or_default().into();
        let schema = Schema { name: self.name.into(), doc, fields, event_time: event_time? };
        Some((schema, value))
    }

    fn check_top(&self, value: &Value, problems: &mut Problems) {
        let mut refuse = |what: &str, fix: &str| problems.add(self.shown, "", what, fix);
        if value["$schema"] != DIALECT {
            refuse("the dialect isn't stated", &format!("write \"$schema\": \"{DIALECT}\""));
        }
        if value["type"] != "object" {
            refuse("an event is an object", "write \"type\": \"object\"");
        }
        if value["additionalProperties"] != false {
            let fix = "write \"additionalProperties\": false, so that a misspelt field is refused";
            refuse("the schema isn't closed", fix);
        }
        if value["description"].as_str().is_none_or(str::is_empty) {
            refuse("there is no description", "say in one sentence what such an event means");
        }
        for keyword in value.as_object().into_iter().flat_map(Map::keys) {
            if !TOP_KEYWORDS.contains(&keyword.as_str()) {
                let what = format!("`{keyword}` isn't supported at the top of a schema");
                let fix = format!("use only {}", TOP_KEYWORDS.join(", "));
                refuse(&what, &did_you_mean(keyword, TOP_KEYWORDS.into_iter(), &fix));
            }
        }
        let properties = value["properties"].as_object();
        for required in value["required"].as_array().into_iter().flatten() {
            let name = required.as_str().unwrap_or_default();
            if properties.is_none_or(|properties| !properties.contains_key(name)) {
                let names = properties.into_iter().flat_map(Map::keys).map(String::as_str);
                let what = format!("`required` names {required}, which isn't a property");
                refuse(&what, &did_you_mean(name, names, "add the property, or take the name out"));
            }
        }
    }

    fn field(&self, name: &str, value: &Value, problems: &mut Problems) -> Option<Field> {
        let before = problems.len();
        let mut refuse = |what: &str, fix: &str| {
            problems.add(self.shown, format!("property {name}"), what, fix);
        };
        let Some(property) = value["properties"][name].as_object() else {
            refuse("isn't an object", "write {\"description\": ..., \"type\": ...}");
            return None;
        };
        if !name::is_plain(name) {
            refuse("isn't a name for Avro and SQL", NAME_RULE);
        }
        let doc = property.get("description").and_then(Value::as_str).unwrap_or_default();
        if doc.is_empty() {
            refuse("there is no description", "say in one sentence what it means, with its unit");
        }
        let kind = match kind(property) {
            Ok(Kind::Bytes) if !self.internal => {
                refuse("bytes are for internal topics", "send text, or an object");
                return None;
            }
            Ok(kind) => kind,
            Err((what, fix)) => {
                refuse(&what, fix);
                return None;
            }
        };
        if matches!(kind, Kind::Integer | Kind::Number)
            && property.get("x-unit").and_then(Value::as_str).is_none_or(str::is_empty)
        {
            refuse(
                "a number without a unit",
                "write \"x-unit\", like \"ms\", \"bytes\", \"attempts\"",
            );
        }
        let few_values = property.get("x-few-values");
        if few_values.is_some_and(|few| *few != true || kind != Kind::Text) {
            refuse("`x-few-values` is for text, and true", "leave it out where values are many");
        }
        check_keywords(kind, property, &mut refuse);
        let required = value["required"]
            .as_array()
            .is_some_and(|names| names.iter().any(|required| required == name));
        let default = property.get("default").cloned();
        if let Some((what, fix)) = default.as_ref().and_then(|d| flaw(d, kind, required, property))
        {
            refuse(what, fix);
        }
        let aliases = aliases(property, &value["properties"], &mut refuse);
        (problems.len() == before).then(|| Field {
            name: name.into(),
            kind,
            required,
            few_values: few_values.is_some(),
            doc: doc.into(),
            aliases,
            default,
        })
    }

    fn event_time(&self, fields: &[Field], problems: &mut Problems) -> Option<usize> {
        let name = self.event_time;
        let mut refuse = |what: &str, fix: &str| {
            problems.add(self.shown, format!("event time {name}"), what, fix);
        };
        let Some(index) = fields.iter().position(|field| &*field.name == name) else {
            let names = fields.iter().map(|field| &*field.name);
            let fix = "add the property, or name another as event_time in catalog.toml";
            refuse("there is no such field that can be used", &did_you_mean(name, names, fix));
            return None;
        };
        if fields[index].kind != Kind::Time {
            refuse("isn't a time", "write \"type\": \"string\", \"format\": \"date-time\"");
        }
        if !fields[index].required {
            refuse("may be missing, and then a row has no date", "add it to `required`");
        }
        Some(index)
    }
}

/// The kind of a property, or what is wrong with it and what to do.
fn kind(property: &Map<String, Value>) -> Result<Kind, (String, &'static str)> {
    const TYPES: &str = "choose string, integer, number, boolean or object";
    let word = |keyword: &str| property.get(keyword).and_then(Value::as_str);
    match property.get("type") {
        None => return Err(("there is no type".to_owned(), TYPES)),
        Some(Value::Array(_)) => {
            let fix = "name one; for a field that may be missing, leave it out of `required`";
            return Err(("a column has one type".to_owned(), fix));
        }
        Some(_) => {}
    }
    match (word("type").unwrap_or_default(), word("format"), word("contentEncoding")) {
        ("string", None, None) => Ok(Kind::Text),
        ("string", Some("date-time"), None) => Ok(Kind::Time),
        ("string", None, Some("base64")) => Ok(Kind::Bytes),
        ("string", Some(format), _) if format != "date-time" => {
            let fix = "use date-time, or `pattern` for what producers must keep to";
            Err((format!("format `{format}` isn't supported"), fix))
        }
        ("string", ..) => {
            let fix = "use either format date-time or contentEncoding base64";
            Err(("the encoding isn't supported".to_owned(), fix))
        }
        ("integer", ..) => Ok(Kind::Integer),
        ("number", ..) => Ok(Kind::Number),
        ("boolean", ..) => Ok(Kind::Boolean),
        ("object", ..) => Ok(Kind::Object),
        ("array", ..) => Err(("columns are flat".to_owned(), "put the list into an object field")),
        (other, ..) => Err((format!("type `{other}` can't be a column"), TYPES)),
    }
}

fn check_keywords(kind: Kind, property: &Map<String, Value>, mut refuse: impl FnMut(&str, &str)) {
    let own: &[&str] = match kind {
        Kind::Text | Kind::Time | Kind::Bytes => &TEXT_KEYWORDS,
        Kind::Integer | Kind::Number => &NUMBER_KEYWORDS,
        Kind::Object => &OBJECT_KEYWORDS,
        Kind::Boolean => &[],
    };
    let known = || FIELD_KEYWORDS.into_iter().chain(own.iter().copied());
    for keyword in property.keys() {
        if !known().any(|known| known == keyword) {
            let what = format!("`{keyword}` isn't supported for a field of this type");
            let fix = format!("use only {}", known().collect::<Vec<_>>().join(", "));
            refuse(&what, &did_you_mean(keyword, known(), &fix));
        }
    }
}

/// What is wrong with a default, and what to do.
fn flaw(
    default: &Value,
    kind: Kind,
    required: bool,
    property: &Map<String, Value>,
) -> Option<(&'static str, &'static str)> {
    if !required {
        let fix = "take the default out, or add the field to `required`";
        return Some(("a field that may be missing is null then", fix));
    }
    let fits = match kind {
        Kind::Text => default.is_string(),
        Kind::Integer => default.is_i64(),
        Kind::Number => default.is_number(),
        Kind::Boolean => default.is_boolean(),
        Kind::Object => default.as_object().is_some_and(Map::is_empty),
        Kind::Time | Kind::Bytes => false,
    };
    if !fits {
        let fix = "give text, a number, true or false as the type says, or {} for an object";
        return Some(("the default isn't of the field's type, or the type can't have one", fix));
    }
    let own = jsonschema::draft202012::new(&Value::Object(property.clone()));
    let kept = own.is_ok_and(|own| own.is_valid(default));
    (!kept).then_some(("the default isn't what the field's own rules allow", "change one of them"))
}

/// The names that a property had before.
fn aliases(
    property: &Map<String, Value>,
    properties: &Value,
    mut refuse: impl FnMut(&str, &str),
) -> Vec<Arc<str>> {
    let Some(written) = property.get("x-aliases") else { return Vec::new() };
    let names: Option<Vec<Arc<str>>> = written
        .as_array()
        .and_then(|names| names.iter().map(|name| name.as_str().map(Arc::from)).collect());
    let names = names.unwrap_or_default();
    if names.is_empty() {
        refuse("`x-aliases` isn't a list of names", "write [\"former_name\"], or take it out");
    }
    let others = || properties.as_object().into_iter().flatten();
    for name in &names {
        let is_alias = |other: &Map<String, Value>| {
            let aliases = other.get("x-aliases").and_then(Value::as_array);
            aliases.is_some_and(|aliases| aliases.iter().any(|alias| *alias == **name))
        };
        let bearers = others().filter(|(_, other)| other.as_object().is_some_and(is_alias)).count();
        if !name::is_avro(name) {
            let fix = "use a-z, A-Z, 0-9 and _, not starting with a digit";
            refuse(&format!("alias `{name}` isn't a name for Avro"), fix);
        } else if bearers > 1 || properties.get(&**name).is_some() {
            refuse(&format!("alias `{name}` is the name of another field too"), "take one out");
        }
    }
    names
}

/// The part of a file that [`Value`] forgets: the order of the properties.
#[derive(Deserialize)]
struct Outline {
    properties: Names,
}

/// The keys of a JSON object in the order of the text; a key that stands twice is refused.
struct Names(Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Names, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Names;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with the fields of the event")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Names, A::Error> {
                let mut names: Vec<String> = Vec::new();
                while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    if names.contains(&name) {
                        let what = format!("property `{name}` stands twice");
                        return Err(serde::de::Error::custom(what));
                    }
                    names.push(name);
                }
                Ok(Names(names))
            }
        }
        from.deserialize_map(Keys)
    }
}
