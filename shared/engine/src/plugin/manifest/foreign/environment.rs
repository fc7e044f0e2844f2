//! The environment form: what a container's image needs to be deployed.

use serde_json::{Map, Value};

use super::{Translated, begun, kept, read_value, taken, taken_object};
use crate::plugin::manifest::{Container, Runtime};

pub(super) const WORDS: &[(&str, &str)] =
    &[("env", "dependencies.env_vars"), ("volumes", "dependencies.volumes"), ("resources", "dependencies.resources")];

pub(super) fn translated(mut document: Map<String, Value>) -> Result<Translated, String> {
    let manifest = begun(&mut document, "name", "display_name");
    let mut needed = taken_object(&mut document, "dependencies")?;
    let mut container = Map::new();
    let mut put = |key: &str, value: Option<Value>| container.extend(value.map(|value| (key.to_owned(), value)));

    put("image", taken(&mut document, "image").map(|image| kept(image, &["name", "registry", "pull_policy"])));
    put("env", taken(&mut needed, "env_vars").map(|env| parts(env, &["required", "optional"], &VARIABLE)));
    put("volumes", taken(&mut needed, "volumes").map(|volumes| kept(volumes, &["name", "mount_path", "type"])));
    put("resources", taken(&mut needed, "resources").map(|bounds| parts(bounds, &["cpu", "memory"], &["min", "max"])));
    put("ports", taken(&mut document, "ports").map(|ports| kept(ports, &["name", "container_port"])));
    let ingress = taken(&mut document, "ingress");
    put("ingress", ingress.map(|ingress| parts(ingress, &["enabled", "paths"], &["path", "service_port"])));

    let container: Container = read_value("", Value::Object(container))?;
    Ok(Translated { manifest, runtime: Runtime::Container(Box::new(container)), permissions: Vec::new() })
}

const VARIABLE: [&str; 3] = ["name", "description", "default"];

/// The known keys of an object, each with the known keys of what stands under it.
fn parts(value: Value, keys: &[&str], of_each: &[&str]) -> Value {
    match kept(value, keys) {
        Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, kept(value, of_each))).collect(),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => other,
    }
}
