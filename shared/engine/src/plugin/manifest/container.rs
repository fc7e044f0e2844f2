//! A plugin that is a container image: what an operator needs to deploy it.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::core::ids::PartName;

/// What an operator needs to deploy a container image.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// The image.
    pub image: Image,
    /// The environment variables that it reads.
    #[serde(default)]
    pub env: Variables,
    /// The volumes to mount.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// The CPU and memory that it needs and may use.
    #[serde(default)]
    pub resources: Resources,
    /// The ports that it listens on.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// Its paths that are reachable from outside.
    #[serde(default)]
    pub ingress: Ingress,
}

/// An image and its registry.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its name, with a tag if there is one.
    pub name: String,
    /// The registry to pull it from; `local` if left out.
    #[serde(default = "local")]
    pub registry: String,
    /// When it is pulled.
    pub pull_policy: Option<PullPolicy>,
}

fn local() -> String {
    "local".to_owned()
}

/// When an image is pulled, in the terms of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// Before each start.
    Always,
    /// If the machine does not have it yet.
    IfNotPresent,
    /// Never: the machine has to have it.
    Never,
}

/// The environment variables that a container reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Variables {
    /// The variables without which it does not work.
    #[serde(default)]
    pub required: Vec<RequiredVariable>,
    /// The other variables.
    #[serde(default)]
    pub optional: Vec<OptionalVariable>,
}

/// A variable that the operator has to set.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequiredVariable {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// A variable that the operator may set.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptionalVariable {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Its value if it is not set.
    pub default: Option<Plain>,
}

/// A volume to mount.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// The volume's name.
    pub name: PartName,
    /// The path to mount it at, absolute.
    pub mount_path: String,
    /// The kind of volume, such as `secret`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// The CPU and memory of a container.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPU, as quantities of Kubernetes, such as `500m`.
    #[serde(default)]
    pub cpu: Bounds,
    /// Memory, as quantities of Kubernetes, such as `2Gi`.
    #[serde(default)]
    pub memory: Bounds,
}

/// A lower and an upper bound.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// The amount that is reserved for it.
    pub min: Option<Plain>,
    /// The amount that it never exceeds.
    pub max: Option<Plain>,
}

/// A text. A number or a boolean is read as the text that its author wrote.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Value")]
#[schemars(with = "PlainValue")]
pub struct Plain(String);

/// The types that [`Plain`] is read from, for the published schema.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "only its schema is used")]
enum PlainValue {
    Text(String),
    Number(f64),
    Boolean(bool),
}

impl Plain {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<Value> for Plain {
    type Error = &'static str;
    fn try_from(value: Value) -> Result<Self, Self::Error> {
        match value {
            Value::String(text) => Ok(Self(text)),
            Value::Number(_) | Value::Bool(_) => Ok(Self(value.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => Err("must be a text; quote it"),
        }
    }
}

/// A port that a container listens on.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// The port's name.
    pub name: PartName,
    /// Its number: 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub container_port: i64,
}

/// The paths of a container that are reachable from outside.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ingress {
    /// Whether any path is reachable.
    #[serde(default)]
    pub enabled: bool,
    /// The port for each path.
    #[serde(default)]
    pub paths: Vec<IngressPath>,
}

/// A path that leads to a port.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IngressPath {
    /// The beginning of the request's path.
    pub path: String,
    /// The name of the port.
    pub service_port: PartName,
}

impl Container {
    /// Every problem of the container, each with its path within it.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (field, text) in [("name", &self.image.name), ("registry", &self.image.registry)] {
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                problems.push(format!("image.{field}: must be ASCII without spaces, and not empty"));
            }
        }
        let required = self.env.required.iter().map(|variable| &variable.name);
        let variables = required.chain(self.env.optional.iter().map(|variable| &variable.name));
        let mut names = BTreeSet::new();
        for name in variables {
            if !is_variable(name) {
                problems.push(format!(
                    "env: {name:?} is not the name of a variable; use letters, digits and _, and do not begin with a digit"
                ));
            } else if !names.insert(name) {
                problems.push(format!("env: the variable {name} is set twice; remove one"));
            }
        }
        let mut names = BTreeSet::new();
        for volume in &self.volumes {
            if !names.insert(&volume.name) {
                problems.push(format!("volumes: the name {} is used twice; choose another", volume.name));
            }
            if !volume.mount_path.starts_with('/') {
                problems.push(format!("volumes.{}.mount_path: must be a path that begins with /", volume.name));
            }
        }
        let mut names = BTreeSet::new();
        for port in &self.ports {
            if !names.insert(&port.name) {
                problems.push(format!("ports: the name {} is used twice; choose another", port.name));
            }
            if !(1..=65_535).contains(&port.container_port) {
                problems.push(format!("ports.{}.container_port: must be 1 to 65535", port.name));
            }
        }
        for path in &self.ingress.paths {
            if !path.path.starts_with('/') {
                problems.push(format!("ingress.paths: {:?} must begin with /", path.path));
            }
            if !names.contains(&path.service_port) {
                problems.push(format!(
                    "ingress.paths: {:?} leads to the port {}, which is not in ports; use the name of one of them",
                    path.path, path.service_port
                ));
            }
        }
        problems
    }
}

/// Whether a text is the name of an environment variable.
fn is_variable(name: &str) -> bool {
    let mut characters = name.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && name.len() <= 255 && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
