//! The configuration of a plugin's instances: its schema, its secrets and its defaults.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Manifest;
use crate::core::schema;
use crate::plugin::template::Names;

/// The keyword that marks a secret.
const SECRET: &str = "writeOnly";

impl Manifest {
    /// The names of the secrets in an instance's configuration. Callers can set them and never read them.
    pub fn secret_names(&self) -> impl Iterator<Item = &str> {
        let properties = self.config_schema.as_ref().and_then(|schema| schema.get("properties")?.as_object());
        let secret = |schema: &Value| schema.get(SECRET) == Some(&Value::Bool(true));
        properties.into_iter().flatten().filter(move |(_, schema)| secret(schema)).map(|(name, _)| name.as_str())
    }

    /// An instance's configuration. Values that it does not set come from `default_config`, then from the defaults of the
    /// schema's properties.
    pub fn config_with_defaults(&self, instance_config: Map<String, Value>) -> Map<String, Value> {
        let mut config = Map::new();
        let properties = self.config_schema.as_ref().and_then(|schema| schema.get("properties")?.as_object());
        for (name, schema) in properties.into_iter().flatten() {
            config.extend(schema.get("default").map(|default| (name.clone(), default.clone())));
        }
        config.extend(self.default_config.clone());
        config.extend(instance_config);
        config
    }

    /// The schema without the requirement of secrets, for a configuration that lacks them.
    pub(crate) fn without_secrets(&self, schema: &Value) -> Value {
        let mut schema = schema.clone();
        let secrets: BTreeSet<&str> = self.secret_names().collect();
        if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|required| !required.as_str().is_some_and(|name| secrets.contains(name)));
        }
        schema
    }

    /// Every problem of the configuration's schema, its defaults and the instructions.
    pub(super) fn config_problems(&self, strict: bool) -> Vec<String> {
        let mut problems = Vec::new();
        if let Some(text) = &self.instruction_template {
            let text_problems = text.problems(&Names::from(["config"])).into_iter();
            problems.extend(text_problems.map(|problem| format!("instruction_template: {problem}")));
        }
        let Some(schema) = &self.config_schema else {
            if !self.default_config.is_empty() {
                problems.push("default_config: needs config_schema; add the schema of the configuration".to_owned());
            }
            return problems;
        };
        problems.extend(schema_problems("config_schema", schema, strict));
        for pointer in schema::pointers_of(schema, SECRET) {
            let at_top = pointer.strip_prefix("/properties/").is_some_and(|name| !name.contains('/'));
            if !at_top {
                problems
                    .push(format!("config_schema{pointer}: {SECRET} is only for properties at the top; move it there"));
            }
        }
        let config = self.config_with_defaults(Map::new());
        for name in self.secret_names().filter(|name| config.contains_key(*name)) {
            problems.push(format!("default_config/{name}: is a secret, which no manifest may hold; remove it"));
        }
        let without_secrets = self.without_secrets(schema);
        // A schema that does not compile was reported above.
        if let (false, Ok(validator)) = (self.default_config.is_empty(), schema::compile(&without_secrets)) {
            let value_problems =
                schema::problems_of(&validator, &without_secrets, &Value::Object(config), "default_config");
            problems
                .extend(value_problems.into_iter().map(|problem| format!("{}: {}", problem.pointer, problem.message)));
        }
        problems
    }
}

/// Every problem of an object's schema at `path`. With `strict`, unknown keywords are problems.
pub(super) fn schema_problems(path: &str, schema: &Value, strict: bool) -> Vec<String> {
    let mut problems = Vec::new();
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        problems.push(format!("{path}: must be a schema with type: object"));
    }
    problems.extend(any_schema_problems(path, schema, strict));
    problems
}

/// Every problem of a schema at `path`. With `strict`, unknown keywords are problems.
pub(super) fn any_schema_problems(path: &str, schema: &Value, strict: bool) -> Vec<String> {
    let mut problems: Vec<String> = schema::compile(schema)
        .err()
        .into_iter()
        .map(|error| format!("{path}{}: {}", error.pointer, error.problem))
        .collect();
    for (pointer, keyword) in schema::unknown_keywords(schema).into_iter().filter(|_| strict) {
        problems.push(format!(
            "{path}{pointer}: {keyword:?} is not a keyword of JSON Schema; quote a text that has a comma"
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GOOD: &str = r#"
name: echo
version: 1.0.0
display_name: Echo
description: Says it again.
runtime: { type: http, base_url: "https://echo.example" }
permissions: ["network:echo.example"]
config_schema:
  type: object
  additionalProperties: false
  required: [token, region]
  properties:
    token: { type: string, writeOnly: true }
    region: { enum: [eu, us] }
    limit: { type: integer, maximum: 10, default: 5 }
default_config: { region: eu }
instruction_template: "Say it{% if config.region == 'us' %} loudly{% endif %}."
actions:
  - name: say
    description: Says it.
    effect: read
    request: { path: "/{{ config.region }}" }
    response: { message: "{{ config.limit }}" }
"#;

    fn object(value: Value) -> Map<String, Value> {
        let Value::Object(object) = value else { panic!("not an object") };
        object
    }

    #[test]
    fn configuration_is_completed_with_defaults() {
        let manifest = Manifest::parse(GOOD).unwrap();
        assert_eq!(manifest.secret_names().collect::<Vec<_>>(), ["token"]);
        let filled = |given| Value::Object(manifest.config_with_defaults(object(given)));
        assert_eq!(filled(json!({})), json!({ "region": "eu", "limit": 5 }));
        assert_eq!(filled(json!({ "region": "us", "limit": 1 })), json!({ "region": "us", "limit": 1 }));
        // default_config overrides the defaults of the schema.
        let over = GOOD.replacen("{ region: eu }", "{ region: eu, limit: 6 }", 1);
        assert_eq!(Manifest::parse(&over).unwrap().config_with_defaults(Map::new())["limit"], 6);
    }

    #[test]
    fn configuration_problem_names_its_path() {
        for (from, to, expected) in [
            ("  type: object\n", "  type: array\n", "config_schema: must be a schema with type: object"),
            (
                "{ type: integer, maximum: 10",
                "{ type: integer, maxium: 10",
                "config_schema/properties/limit: \"maxium\"",
            ),
            ("{ type: integer,", "{ type: int,", "config_schema/properties/limit/type: "),
            ("required: [token, region]", "required: token", "config_schema/required: "),
            (
                "{ enum: [eu, us] }",
                "{ $ref: \"https://x.example/s\" }",
                "config_schema/properties/region/$ref: points outside the schema, and nothing is fetched",
            ),
            ("{ enum: [eu, us] }", "{ $ref: \"file:///etc/passwd\" }", "nothing is fetched"),
            ("{ enum: [eu, us] }", "{ $ref: \"other.json\" }", "nothing is fetched"),
            ("{ enum: [eu, us] }", "{ $ref: \"#/$defs/none\" }", "under $defs"),
            ("{ enum: [eu, us] }", "{ pattern: \"((a{900}){900}){900}\" }", "is not a \"regex\""),
            (
                "{ enum: [eu, us] }",
                "{ type: object, properties: { key: { writeOnly: true } } }",
                "config_schema/properties/region/properties/key: writeOnly is only for properties at the top",
            ),
            ("{ region: eu }", "{ region: mars }", "default_config/region: "),
            ("{ region: eu }", "{ region: eu, limit: 11 }", "default_config/limit: "),
            ("{ region: eu }", "{ region: eu, more: 1 }", "default_config/more: unknown field"),
            ("{ region: eu }", "{ limit: 1 }", "default_config/region: is required and missing"),
            (
                "{ region: eu }",
                "{ region: eu, token: x }",
                "default_config/token: is a secret, which no manifest may hold",
            ),
            ("writeOnly: true }", "writeOnly: true, default: x }", "default_config/token: is a secret"),
            ("{ region: eu }", "[eu]", "expected"),
            ("config.region == 'us'", "cfg.region == 'us'", "instruction_template: "),
            ("config.region == 'us'", "user.id == 'us'", "refers to user"),
            ("loudly", "loudly{{ 'a' | shout }}", "shout"),
            ("loudly{% endif %}", "loudly", "template"),
        ] {
            assert!(GOOD.contains(from), "{from}");
            let problem = Manifest::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(problem.contains(expected), "{to}: {problem}");
            assert!(!problem.contains("mars"), "a value is shown: {problem}");
        }
        let (before, rest) = GOOD.split_once("config_schema:").unwrap();
        let (_, after) = rest.split_once("default_config:").unwrap();
        let without = format!("{before}default_config:{after}");
        let problem = Manifest::parse(&without).unwrap_err().to_string();
        assert!(problem.contains("default_config: needs config_schema"), "{problem}");
    }

    #[test]
    fn schema_may_refer_to_itself() {
        let own = GOOD.replacen("{ enum: [eu, us] }", "{ $ref: \"#/$defs/region\" }", 1);
        let own = own.replacen("  properties:\n", "  $defs: { region: { enum: [eu, us] } }\n  properties:\n", 1);
        Manifest::parse(&own).unwrap();
        // Without default_config, instances have to set what the schema requires.
        Manifest::parse(&GOOD.replacen("default_config: { region: eu }\n", "", 1)).unwrap();
    }
}
