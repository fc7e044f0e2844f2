//! The configuration of a plugin's instances: what it may be, what is secret in it, and what stands in for what is left
//! out.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::Manifest;
use crate::core::schema;
use crate::plugin::template::Names;

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

    /// The schema of what is set beside the secrets.
    pub(crate) fn without_secrets(&self, schema: &Value) -> Value {
        let mut schema = schema.clone();
        let secrets: BTreeSet<&str> = self.secret_names().collect();
        if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
            required.retain(|required| !required.as_str().is_some_and(|name| secrets.contains(name)));
        }
        schema
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
        for name in self.secret_names().filter(|name| config.contains_key(*name)) {
            problems.push(format!("default_config/{name}: is a secret, which no manifest may hold; remove it"));
        }
        let without_secrets = self.without_secrets(schema);
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
    let mut problems: Vec<String> = schema::compile(schema)
        .err()
        .into_iter()
        .map(|error| format!("{place}{}: {}", error.place, error.problem))
        .collect();
    for (inside, keyword) in schema::unknown_keywords(schema).into_iter().filter(|_| strict) {
        problems.push(format!(
            "{place}{inside}: {keyword:?} is not a keyword of JSON Schema; quote a text that has a comma"
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
    fn what_is_left_out_of_a_configuration_is_filled_in() {
        let manifest = Manifest::parse(GOOD).unwrap();
        assert_eq!(manifest.secret_names().collect::<Vec<_>>(), ["token"]);
        let filled = |given| Value::Object(manifest.config_with_defaults(object(given)));
        assert_eq!(filled(json!({})), json!({ "region": "eu", "limit": 5 }));
        assert_eq!(filled(json!({ "region": "us", "limit": 1 })), json!({ "region": "us", "limit": 1 }));
        // The manifest's word counts more than its schema's.
        let over = GOOD.replacen("{ region: eu }", "{ region: eu, limit: 6 }", 1);
        assert_eq!(Manifest::parse(&over).unwrap().config_with_defaults(Map::new())["limit"], 6);
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (from, to, said) in [
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
                "config_schema/properties/region/$ref: leads out of the schema, and nothing is fetched",
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
            ("{ region: eu }", "{ region: eu, more: 1 }", "default_config/more: is not a field that is known"),
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
            assert!(problem.contains(said), "{to}: {problem}");
            assert!(!problem.contains("mars"), "a value is shown: {problem}");
        }
        let (before, rest) = GOOD.split_once("config_schema:").unwrap();
        let (_, after) = rest.split_once("default_config:").unwrap();
        let without = format!("{before}default_config:{after}");
        let problem = Manifest::parse(&without).unwrap_err().to_string();
        assert!(problem.contains("default_config: needs config_schema"), "{problem}");
    }

    #[test]
    fn a_schema_may_refer_to_itself() {
        let own = GOOD.replacen("{ enum: [eu, us] }", "{ $ref: \"#/$defs/region\" }", 1);
        let own = own.replacen("  properties:\n", "  $defs: { region: { enum: [eu, us] } }\n  properties:\n", 1);
        Manifest::parse(&own).unwrap();
        // Without defaults of its own, what is required is for instances to say.
        Manifest::parse(&GOOD.replacen("default_config: { region: eu }\n", "", 1)).unwrap();
    }
}
