//! The domain form: functions with handlers, the sources of their data, and what an agent is told, in camelCase.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::{Translated, action, begun, kept, of_object, taken, taken_object, taken_objects};
use crate::core::ids::ActionName;
use crate::plugin::manifest::{Module, Runtime};

pub(super) const WORDS: &[(&str, &str)] = &[
    ("actions", "functions"),
    ("config_schema", "configSchema"),
    ("data_adapters", "dataAdapters"),
    ("default_config", "defaultConfig"),
    ("display_name", "displayName"),
    ("instruction_template", "instructionTemplate"),
];

pub(super) fn translated(mut document: Map<String, Value>) -> Result<Translated, String> {
    let mut manifest = begun(&mut document, "name", "displayName");
    let mut put = |key: &str, value: Option<Value>| manifest.extend(value.map(|value| (key.to_owned(), value)));
    put("config_schema", taken(&mut document, "configSchema").map(of_object));
    put("default_config", taken(&mut document, "defaultConfig"));
    put("instruction_template", taken(&mut document, "instructionTemplate"));
    let adapters = taken(&mut document, "dataAdapters");
    put("data_adapters", adapters.map(|adapters| kept(adapters, &["name", "type", "config"])));

    let (mut actions, mut handlers) = (Vec::new(), BTreeMap::new());
    for (place, mut fields) in taken_objects(&mut document, "functions")? {
        let mut action = action(&mut fields);
        let within = |problem: String| format!("{place}.{problem}");
        let parameters = taken_object(&mut fields, "parameters").map_err(within)?;
        let validation = taken_object(&mut fields, "validation").map_err(within)?;
        action.insert("parameters".to_owned(), schema_of(parameters, &validation));
        let name = action.get("name").and_then(Value::as_str).and_then(|name| ActionName::parse(name).ok());
        if let (Some(name), Some(handler)) = (name, fields.get("handler").and_then(Value::as_str)) {
            handlers.insert(name, handler.to_owned());
        }
        actions.push(Value::Object(action));
    }
    put("actions", Some(Value::Array(actions)));
    let runtime = Runtime::Module(Module { handlers, ..Module::default() });
    Ok(Translated { manifest, runtime, permissions: Vec::new() })
}

/// The schema of a function's parameters, which stand there as one or as a map of properties, with what `validation` says.
pub(super) fn schema_of(parameters: Map<String, Value>, validation: &Map<String, Value>) -> Value {
    let parameters = Value::Object(parameters);
    let mut whole = if is_schema(&parameters) { parameters } else { json!({ "properties": parameters }) };
    let required = validation.get("required").and_then(Value::as_array);
    if let Some(fields) = whole.as_object_mut() {
        add_required(fields, required.into_iter().flatten().cloned().collect());
    }
    let mut schema = of_object(proper(whole));
    let Some(fields) = schema.as_object_mut() else { return schema };
    let example = validation.get("example").filter(|example| example.as_object().is_some_and(|one| !one.is_empty()));
    if let Some(example) = example {
        fields.entry("examples").or_insert_with(|| json!([example]));
    }
    schema
}

/// Whether it is a schema, and not a map of properties: a property may be called `type` or `properties`, too, but is an
/// object that says its type.
fn is_schema(parameters: &Value) -> bool {
    let says_type = |value: &Value| value.get("type").is_some_and(Value::is_string);
    let kind = parameters.get("type").is_some_and(|kind| kind.is_string() || kind.is_array());
    let properties =
        parameters.get("properties").is_some_and(|properties| properties.is_object() && !says_type(properties));
    kind || properties || parameters.as_object().into_iter().flatten().any(|(key, _)| key.starts_with('$'))
}

/// A schema in which an object lists what is required, instead of each property saying so of itself.
fn proper(mut schema: Value) -> Value {
    let Some(fields) = schema.as_object_mut() else { return schema };
    if let Some(items) = fields.get_mut("items") {
        *items = proper(items.take());
    }
    let mut required = Vec::new();
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties {
            *property = proper(property.take());
            let own = property.as_object_mut().filter(|own| own.get("required").is_some_and(Value::is_boolean));
            if own.and_then(|own| own.remove("required")) == Some(Value::Bool(true)) {
                required.push(Value::from(name.as_str()));
            }
        }
    }
    add_required(fields, required);
    schema
}

/// Adds names to those that are required, once each.
fn add_required(fields: &mut Map<String, Value>, names: Vec<Value>) {
    if names.is_empty() {
        return;
    }
    let Some(required) = fields.entry("required").or_insert_with(|| json!([])).as_array_mut() else { return };
    let text = |name: &Value| name.as_str().unwrap_or_default().to_owned();
    let mut there: BTreeSet<String> = required.iter().map(text).collect();
    required.extend(names.into_iter().filter(|name| there.insert(text(name))));
}
