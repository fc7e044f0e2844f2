//! Helpers that take fields out of a document.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::core::ids::PermissionName;
use crate::plugin::manifest::Runtime;

/// The keys that all forms share with Overseer's own.
const SHARED_KEYS: [&str; 6] = ["author", "compatible_versions", "default_enabled", "license", "version", "website"];

/// An object and its path in the document.
pub(super) type PathAndObject = (String, Map<String, Value>);

/// Reads a value at `path`. An error begins with the path of the wrong value.
pub(super) fn read_value<T: DeserializeOwned>(path: &str, value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let within = Some(error.path().to_string()).filter(|within| within != ".").unwrap_or_default();
        match format!("{path}{within}").as_str() {
            "" => error.inner().to_string(),
            path => format!("{path}: {}", error.inner()),
        }
    })
}

/// The first fields of a manifest in Overseer's own form: name, display name, description and the shared keys. Without a
/// display name the name is used; without a description it is empty.
pub(super) fn common_fields(
    document: &mut Map<String, Value>,
    name_key: &str,
    display_name_key: &str,
) -> Map<String, Value> {
    let mut own = Map::new();
    let display_name = document.remove(display_name_key).filter(|value| !value.is_null());
    let name = document.remove(name_key);
    own.extend(display_name.or_else(|| name.clone()).map(|value| ("display_name".to_owned(), value)));
    own.extend(name.map(|name| ("name".to_owned(), name)));
    own.insert("description".to_owned(), take(document, "description").unwrap_or_else(|| "".into()));
    for key in SHARED_KEYS {
        own.extend(take(document, key).map(|value| (key.to_owned(), value)));
    }
    own
}

/// Takes the value of a key; `None` if it is absent or null.
pub(super) fn take(fields: &mut Map<String, Value>, key: &str) -> Option<Value> {
    fields.remove(key).filter(|value| !value.is_null())
}

/// Takes an object, empty if it is absent.
pub(super) fn take_object(fields: &mut Map<String, Value>, key: &str) -> Result<Map<String, Value>, String> {
    match take(fields, key) {
        None => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(format!("{key}: must be an object"))
        }
    }
}

/// Takes a list of objects, empty if it is absent.
pub(super) fn take_objects(fields: &mut Map<String, Value>, key: &str) -> Result<Vec<PathAndObject>, String> {
    let list = match take(fields, key) {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            return Err(format!("{key}: must be a list"));
        }
    };
    let object = |(index, item)| match item {
        Value::Object(object) => Ok((format!("{key}[{index}]"), object)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(format!("{key}[{index}]: must be an object"))
        }
    };
    list.into_iter().enumerate().map(object).collect()
}

/// Removes unknown and null fields of an object, or of each object in a list.
pub(super) fn retain_keys(value: Value, keys: &[&str]) -> Value {
    match value {
        Value::Object(fields) => {
            let known = |(key, value): &(String, Value)| keys.contains(&key.as_str()) && !value.is_null();
            fields.into_iter().filter(known).collect()
        }
        Value::Array(items) => items.into_iter().map(|item| retain_keys(item, keys)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// An object's schema, with the `type` that its author may have left out.
pub(super) fn object_schema(mut schema: Value) -> Value {
    if let Some(fields) = schema.as_object_mut() {
        fields.entry("type").or_insert_with(|| "object".into());
    }
    schema
}

/// The fields of an action that all forms share. Without an effect it is `unsafe`.
pub(super) fn common_action_fields(fields: &mut Map<String, Value>) -> Map<String, Value> {
    let mut action = Map::new();
    action.extend(take(fields, "name").map(|name| ("name".to_owned(), name)));
    action.insert("description".to_owned(), take(fields, "description").unwrap_or_else(|| "".into()));
    action.insert("effect".to_owned(), take(fields, "effect").unwrap_or_else(|| "unsafe".into()));
    action
}

/// A document in the keys of Overseer's own form. Runtime and permissions are read separately.
pub(crate) struct Translated {
    pub(crate) manifest: Map<String, Value>,
    pub(crate) runtime: Runtime,
    pub(crate) permissions: Vec<PermissionName>,
}
