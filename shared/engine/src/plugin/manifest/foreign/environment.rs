//! The environment form: what an operator needs to deploy a container image.

use serde_json::{Map, Value};

use super::fields::{Translated, common_fields, read_value, retain_keys, take, take_object};
use crate::plugin::manifest::{Container, Runtime};

pub(super) const RENAMED_KEYS: &[(&str, &str)] =
    &[("env", "dependencies.env_vars"), ("volumes", "dependencies.volumes"), ("resources", "dependencies.resources")];

pub(super) fn translate(mut document: Map<String, Value>) -> Result<Translated, String> {
    let manifest = common_fields(&mut document, "name", "display_name");
    let mut dependencies = take_object(&mut document, "dependencies")?;
    let mut container = Map::new();
    let mut put = |key: &str, value: Option<Value>| container.extend(value.map(|value| (key.to_owned(), value)));

    put("image", take(&mut document, "image").map(|image| retain_keys(image, &["name", "registry", "pull_policy"])));
    put(
        "env",
        take(&mut dependencies, "env_vars")
            .map(|env| retain_nested_keys(env, &["required", "optional"], &VARIABLE_KEYS)),
    );
    put(
        "volumes",
        take(&mut dependencies, "volumes").map(|volumes| retain_keys(volumes, &["name", "mount_path", "type"])),
    );
    put(
        "resources",
        take(&mut dependencies, "resources")
            .map(|bounds| retain_nested_keys(bounds, &["cpu", "memory"], &["min", "max"])),
    );
    put("ports", take(&mut document, "ports").map(|ports| retain_keys(ports, &["name", "container_port"])));
    let ingress = take(&mut document, "ingress");
    put(
        "ingress",
        ingress.map(|ingress| retain_nested_keys(ingress, &["enabled", "paths"], &["path", "service_port"])),
    );

    let container: Container = read_value("", Value::Object(container))?;
    Ok(Translated { manifest, runtime: Runtime::Container(Box::new(container)), permissions: Vec::new() })
}

const VARIABLE_KEYS: [&str; 3] = ["name", "description", "default"];

/// Removes unknown fields of an object, and unknown fields of the objects in them.
fn retain_nested_keys(value: Value, keys: &[&str], nested_keys: &[&str]) -> Value {
    match retain_keys(value, keys) {
        Value::Object(fields) => {
            fields.into_iter().map(|(key, value)| (key, retain_keys(value, nested_keys))).collect()
        }
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => other,
    }
}
