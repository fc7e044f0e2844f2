//! The domain form: functions with handlers, data adapters and an agent's instructions, in camelCase.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::fields::{
    Translated, common_action_fields, common_fields, object_schema, retain_keys, take, take_object, take_objects,
};
use crate::core::ids::ActionName;
use crate::plugin::manifest::{Module, Runtime};

pub(super) const RENAMED_KEYS: &[(&str, &str)] = &[
    ("actions", "functions"),
    ("config_schema", "configSchema"),
    ("data_adapters", "dataAdapters"),
    ("default_config", "defaultConfig"),
    ("display_name", "displayName"),
    ("instruction_template", "instructionTemplate"),
];

pub(super) fn translate(mut document: Map<String, Value>) -> Result<Translated, String> {
    let mut manifest = common_fields(&mut document, "name", "displayName");
    let mut put = |key: &str, value: Option<Value>| manifest.extend(value.map(|value| (key.to_owned(), value)));
    put("config_schema", take(&mut document, "configSchema").map(object_schema));
    put("default_config", take(&mut document, "defaultConfig"));
    put("instruction_template", take(&mut document, "instructionTemplate"));
    let adapters = take(&mut document, "dataAdapters");
    put("data_adapters", adapters.map(|adapters| retain_keys(adapters, &["name", "type", "config"])));

    let (mut actions, mut handlers) = (Vec::new(), BTreeMap::new());
    for (path, mut fields) in take_objects(&mut document, "functions")? {
        let mut action = common_action_fields(&mut fields);
        let within = |problem: String| format!("{path}.{problem}");
        let parameters = take_object(&mut fields, "parameters").map_err(within)?;
        let validation = take_object(&mut fields, "validation").map_err(within)?;
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

/// The schema of a function's parameters. The author writes them as a schema or as a map of properties; `validation` adds
/// required names and an example.
pub(super) fn schema_of(parameters: Map<String, Value>, validation: &Map<String, Value>) -> Value {
    let parameters = Value::Object(parameters);
    let mut schema = if is_schema(&parameters) { parameters } else { json!({ "properties": parameters }) };
    let required = validation.get("required").and_then(Value::as_array);
    if let Some(fields) = schema.as_object_mut() {
        add_required(fields, required.into_iter().flatten().cloned().collect());
    }
    let mut schema = object_schema(with_required_lists(schema));
    let Some(fields) = schema.as_object_mut() else { return schema };
    let example = validation.get("example").filter(|example| example.as_object().is_some_and(|one| !one.is_empty()));
    if let Some(example) = example {
        fields.entry("examples").or_insert_with(|| json!([example]));
    }
    schema
}

/// Whether it is a schema, and not a map of properties. A property may also be called `type` or `properties`, but is then an
/// object with a type.
fn is_schema(parameters: &Value) -> bool {
    let is_property = |value: &Value| value.get("type").is_some_and(Value::is_string);
    let has_type = parameters.get("type").is_some_and(|kind| kind.is_string() || kind.is_array());
    let has_properties =
        parameters.get("properties").is_some_and(|properties| properties.is_object() && !is_property(properties));
    let mut keys = parameters.as_object().into_iter().flatten().map(|(key, _)| key);
    has_type || has_properties || keys.any(|key| key.starts_with('$'))
}

/// Moves `required: true` of single properties into the `required` list of their object.
fn with_required_lists(mut schema: Value) -> Value {
    let Some(fields) = schema.as_object_mut() else { return schema };
    if let Some(items) = fields.get_mut("items") {
        *items = with_required_lists(items.take());
    }
    let mut required = Vec::new();
    if let Some(properties) = fields.get_mut("properties").and_then(Value::as_object_mut) {
        for (name, property) in properties {
            *property = with_required_lists(property.take());
            let own = property.as_object_mut().filter(|own| own.get("required").is_some_and(Value::is_boolean));
            if own.and_then(|own| own.remove("required")) == Some(Value::Bool(true)) {
                required.push(Value::from(name.as_str()));
            }
        }
    }
    add_required(fields, required);
    schema
}

/// Adds names to the `required` list, each once.
fn add_required(fields: &mut Map<String, Value>, names: Vec<Value>) {
    if names.is_empty() {
        return;
    }
    let Some(required) = fields.entry("required").or_insert_with(|| json!([])).as_array_mut() else { return };
    let text = |name: &Value| name.as_str().unwrap_or_default().to_owned();
    let mut listed: BTreeSet<String> = required.iter().map(text).collect();
    required.extend(names.into_iter().filter(|name| listed.insert(text(name))));
}
