//! An environment of a container's image: what somebody needs to deploy it.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::core::ids::PartName;

/// An environment of a container's image.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Container {
    /// The image.
    pub image: Image,
    /// The variables that it reads.
    #[serde(default)]
    pub env: Variables,
    /// What is mounted into it.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// What it may use of the machine.
    #[serde(default)]
    pub resources: Resources,
    /// The ports that it listens on.
    #[serde(default)]
    pub ports: Vec<Port>,
    /// What of it is reachable from outside.
    #[serde(default)]
    pub ingress: Ingress,
}

/// An image, and where it comes from.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its name, with a tag if there is one.
    pub name: String,
    /// The registry that has it.
    #[serde(default = "local")]
    pub registry: String,
    /// When it is fetched.
    pub pull_policy: Option<PullPolicy>,
}

fn local() -> String {
    "local".to_owned()
}

/// When an image is fetched, in the words of Kubernetes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum PullPolicy {
    /// Before each start.
    Always,
    /// Where it is not there yet.
    IfNotPresent,
    /// Never: it has to be there.
    Never,
}

/// The variables that a container reads.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Variables {
    /// Those without which it does not work.
    #[serde(default)]
    pub required: Vec<RequiredVariable>,
    /// The others.
    #[serde(default)]
    pub optional: Vec<OptionalVariable>,
}

/// A variable that has to be given.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequiredVariable {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// A variable that may be given.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OptionalVariable {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// What stands in for it.
    pub default: Option<Plain>,
}

/// Something that is mounted.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// What it is called.
    pub name: PartName,
    /// Where it is mounted: an absolute path.
    pub mount_path: String,
    /// What it is, such as `secret`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// What a container may use of the machine.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Processors, as quantities of Kubernetes, such as `500m`.
    #[serde(default)]
    pub cpu: Bounds,
    /// Memory, as quantities of Kubernetes, such as `2Gi`.
    #[serde(default)]
    pub memory: Bounds,
}

/// At least and at most how much.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// What it always has.
    pub min: Option<Plain>,
    /// What it never exceeds.
    pub max: Option<Plain>,
}

/// A text, or a number or boolean that is read as the text it is written as.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(try_from = "Value")]
#[schemars(with = "PlainValue")]
pub struct Plain(String);

/// What [`Plain`] is read from.
#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[expect(dead_code, reason = "is there for its schema")]
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
    /// What it is called.
    pub name: PartName,
    /// Its number: 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub container_port: i64,
}

/// What of a container is reachable from outside.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ingress {
    /// Whether anything is.
    #[serde(default)]
    pub enabled: bool,
    /// Which paths lead to which port.
    #[serde(default)]
    pub paths: Vec<IngressPath>,
}

/// A path that leads to a port.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IngressPath {
    /// What the request's path begins with.
    pub path: String,
    /// The name of the port.
    pub service_port: PartName,
}

impl Container {
    /// What is wrong with it, each with its place in it.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (field, text) in [("name", &self.image.name), ("registry", &self.image.registry)] {
            if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                problems.push(format!("image.{field}: must be something in ASCII, without spaces"));
            }
        }
        let variables = self.env.required.iter().map(|variable| &variable.name);
        let variables = variables.chain(self.env.optional.iter().map(|variable| &variable.name));
        let mut names = BTreeSet::new();
        for name in variables {
            if !is_variable(name) {
                problems.push(format!(
                    "env: {name:?} is not the name of a variable; use letters, digits and _, and no digit first"
                ));
            } else if !names.insert(name) {
                problems.push(format!("env: the variable {name} is there twice; remove one"));
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
                    "ingress.paths: {:?} leads to the port {}, which is not in ports; write the name of one that is",
                    path.path, path.service_port
                ));
            }
        }
        problems
    }
}

fn is_variable(name: &str) -> bool {
    let mut characters = name.chars();
    let first = characters.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    first && name.len() <= 255 && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
}
