//! The configuration of a plugin's instances: what it may be, what is secret in it, and what stands in for what is left
//! out.

use serde_json::{Map, Value};

use super::Manifest;
use crate::schema;
use crate::template::Names;

/// The keyword that marks a secret.
const SECRET: &str = "writeOnly";

impl Manifest {
    /// The names of the secrets in an instance's configuration: they are written and never read back.
    pub fn secret_names(&self) -> impl Iterator<Item = &str> {
        let properties = self.config_schema.as_ref().and_then(|schema| schema.get("properties")?.as_object());
        let secret = |schema: &Value| schema.get(SECRET) == Some(&Value::Bool(true));
        properties.into_iter().flatten().filter(move |(_, schema)| secret(schema)).map(|(name, _)| name.as_str())
    }

    /// An instance's configuration, with `default_config` for what is left out, and then the defaults of the schema's
    /// properties.
    pub fn config_with_defaults(&self, given: Map<String, Value>) -> Map<String, Value> {
        let mut config = Map::new();
        let properties = self.config_schema.as_ref().and_then(|schema| schema.get("properties")?.as_object());
        for (name, schema) in properties.into_iter().flatten() {
            config.extend(schema.get("default").map(|default| (name.clone(), default.clone())));
        }
        config.extend(self.default_config.clone());
        config.extend(given);
        config
    }

    /// What is wrong with them.
    pub(super) fn config_problems(&self, strict: bool) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(text) = &self.instruction_template {
            let wrong = text.problems(&Names::from(["config"])).into_iter();
            problems.extend(wrong.map(|problem| format!("instruction_template: {problem}")));
        }
        let Some(schema) = &self.config_schema else {
            if !self.default_config.is_empty() {
                problems.push("default_config: needs config_schema, which says what it may be".to_owned());
            }
            return problems;
        };
        problems.extend(schema_problems("config_schema", schema, strict));
        for place in schema::places_of(schema, SECRET) {
            let top = place.strip_prefix("/properties/").is_some_and(|name| !name.contains('/'));
            if !top {
                problems
                    .push(format!("config_schema{place}: {SECRET} is only for properties at the top; move it there"));
            }
        }
        let config = self.config_with_defaults(Map::new());
        let mut without_secrets = schema.clone();
        for name in self.secret_names() {
            if config.contains_key(name) {
                problems.push(format!("default_config/{name}: is a secret, which no manifest may hold; remove it"));
            }
            let required = without_secrets.get_mut("required").and_then(Value::as_array_mut);
            if let Some(required) = required {
                required.retain(|required| required.as_str() != Some(name));
            }
        }
        // A schema that does not compile is a problem of its own.
        if let (false, Ok(validator)) = (self.default_config.is_empty(), schema::compile(&without_secrets)) {
            let wrong = schema::problems_of(&validator, &without_secrets, &Value::Object(config), "default_config");
            problems.extend(wrong.into_iter().map(|problem| format!("{}: {}", problem.pointer, problem.message)));
        }
        problems
    }
}

/// What is wrong with a schema of an object. `strict` says whether keywords that do not exist are.
pub(super) fn schema_problems(place: &str, schema: &Value, strict: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        problems.push(format!("{place}: must be a schema with type: object"));
    }
    problems.extend(any_schema_problems(place, schema, strict));
    problems
}

/// What is wrong with a schema of anything.
pub(super) fn any_schema_problems(place: &str, schema: &Value, strict: bool) -> Vec<String> {
    let mut problems: Vec<String> =
        schema::compile(schema).err().into_iter().map(|error| format!("{place}: {error}")).collect();
    for (inside, keyword) in schema::unknown_keywords(schema).into_iter().filter(|_| strict) {
        problems.push(format!(
            "{place}{inside}: {keyword:?} is not a keyword of JSON Schema; quote a text that has a comma"
        ));
    }
    problems
}
