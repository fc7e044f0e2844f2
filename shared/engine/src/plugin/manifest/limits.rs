//! How much there may be in a manifest. Its author may be anybody, and what it costs to read it, to keep it and to use it is
//! paid by a process that serves others. These are looked at before all else: what is too much is not even compiled.

use super::Manifest;
use crate::core::schema;

/// The longest version, in characters. An item of the registry holds a hundred.
const VERSION_MAX: usize = 64;
/// The longest short text, such as a display name, in characters.
const TEXT_MAX: usize = 255;
/// The longest description, in characters.
const DESCRIPTION_MAX: usize = 4_096;
/// The most actions.
const ACTIONS_MAX: usize = 200;
/// The most of anything else that is listed, such as permissions.
const LISTED_MAX: usize = 50;
/// The most hooks.
const HOOKS_MAX: usize = 20;
/// The most variables or libraries.
const VARIABLES_MAX: usize = 200;
/// The most schemas in all JSON Schemas of a manifest.
const SCHEMAS_MAX: usize = 10_000;
/// The most patterns in all JSON Schemas and `mappings`: each may take 256 KiB when it is compiled, and stays in memory.
const PATTERNS_MAX: usize = 50;

/// What is too long or too many, each with its place.
#[derive(Default)]
struct LimitProblems(Vec<String>);

impl LimitProblems {
    fn length(&mut self, place: &str, text: &str, most: usize) {
        let length = text.chars().count();
        if length > most {
            self.0.push(format!("{place}: has {length} characters, more than the {most} allowed; shorten it"));
        }
    }

    fn number(&mut self, place: &str, number: usize, most: usize) {
        if number > most {
            self.0.push(format!("{place}: there are {number}, more than the {most} allowed; leave some out"));
        }
    }
}

impl Manifest {
    /// What is too long or too many. `place` is where the form says how it runs.
    pub(super) fn limit_problems(&self, place: &str) -> Vec<String> {
        let mut limits = LimitProblems::default();
        limits.length("version", &self.version.to_string(), VERSION_MAX);
        limits.length("display_name", &self.display_name, TEXT_MAX);
        limits.length("description", &self.description, DESCRIPTION_MAX);
        for (place, text) in [("author", &self.author), ("license", &self.license), ("website", &self.website)] {
            limits.length(place, text.as_deref().unwrap_or_default(), TEXT_MAX);
        }
        limits.number("categories", self.categories.len(), LISTED_MAX);
        for category in &self.categories {
            limits.length("categories", category, TEXT_MAX);
        }
        limits.number("permissions", self.permissions.len(), LISTED_MAX);
        for permission in &self.permissions {
            limits.length("permissions", &permission.to_string(), TEXT_MAX + "network:".len());
        }
        limits.number("hooks", self.hooks.len(), HOOKS_MAX);
        limits.number("mappings", self.mappings.len(), LISTED_MAX);
        limits.number("data_adapters", self.data_adapters.len(), LISTED_MAX);
        limits.number("dependencies.plugins", self.dependencies.plugins.len(), LISTED_MAX);
        limits.number("dependencies.libraries", self.dependencies.libraries.len(), VARIABLES_MAX);
        limits.number("actions", self.actions.len(), ACTIONS_MAX);
        for action in &self.actions {
            limits.length(&format!("actions.{}.description", action.name), &action.description, DESCRIPTION_MAX);
            limits.number(&format!("actions.{}.aliases", action.name), action.aliases.len(), LISTED_MAX);
        }
        self.container_limits(place, &mut limits);
        // What is too long to be shown is not looked into.
        if limits.0.is_empty() {
            self.schema_limits(&mut limits);
        }
        limits.0
    }

    fn container_limits(&self, place: &str, limits: &mut LimitProblems) {
        let Some(container) = self.runtime.container() else { return };
        limits.length(&format!("{place}image.name"), &container.image.name, TEXT_MAX);
        limits.length(&format!("{place}image.registry"), &container.image.registry, TEXT_MAX);
        let variables = container.env.required.len() + container.env.optional.len();
        limits.number(&format!("{place}env"), variables, VARIABLES_MAX);
        limits.number(&format!("{place}volumes"), container.volumes.len(), LISTED_MAX);
        limits.number(&format!("{place}ports"), container.ports.len(), LISTED_MAX);
        limits.number(&format!("{place}ingress.paths"), container.ingress.paths.len(), LISTED_MAX);
    }

    fn schema_limits(&self, limits: &mut LimitProblems) {
        let of_actions =
            self.actions.iter().flat_map(|action| std::iter::once(&action.parameters).chain(&action.returns));
        let mut schemas = 0;
        let mut patterns = self.mappings.values().filter(|kind| kind.id.is_some()).count();
        for schema in of_actions.chain(&self.config_schema) {
            // One that costs too much itself is a problem of its own.
            let cost = schema::cost_of(schema).unwrap_or_default();
            schemas += cost.schemas;
            patterns += cost.patterns;
            if schemas > SCHEMAS_MAX {
                break;
            }
        }
        let mut too_many = |what: &str, number: usize, most: usize| {
            if number > most {
                limits.0.push(format!(
                    "parameters, returns and config_schema have together {number} {what} or more, more than the {most} \
                     allowed, with those that references ($ref) multiply; leave some out"
                ));
            }
        };
        too_many("schemas", schemas, SCHEMAS_MAX);
        too_many("patterns (with those of mappings)", patterns, PATTERNS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn manifest() -> Value {
        json!({
            "name": "echo", "version": "1.0.0", "display_name": "Echo", "description": "Says it again.",
            "runtime": { "type": "http", "base_url": "https://echo.example" },
            "permissions": ["network:echo.example"],
            "actions": [action("say")],
        })
    }

    fn action(name: &str) -> Value {
        json!({ "name": name, "description": "Says it.", "effect": "read", "request": { "path": "/say" } })
    }

    /// As many things as are wanted, each with a number.
    fn some(count: usize, one: impl Fn(usize) -> Value) -> Value {
        (0..count).map(one).collect()
    }

    fn named(count: usize, one: impl Fn(usize) -> Value) -> Value {
        Value::Object((0..count).map(|number| (format!("n{number}"), one(number))).collect())
    }

    /// Something of a manifest, of a size.
    type Sized = fn(usize) -> Value;

    #[test]
    fn there_is_as_much_as_there_may_be_and_no_more() {
        let text: Sized = |length| json!("x".repeat(length));
        let cases: [(&str, usize, Sized); 16] = [
            ("/version", 64, |length| json!(format!("1.0.0-{}+{}", "a".repeat(20), "b".repeat(length - 27)))),
            ("/display_name", 255, text),
            ("/description", 4_096, text),
            ("/author", 255, text),
            ("/license", 255, text),
            ("/website", 255, text),
            ("/categories", 50, |count| some(count, |number| json!(number.to_string()))),
            ("/categories", 255, |length| json!(["x".repeat(length)])),
            ("/permissions", 50, |count| {
                some(count, |number| {
                    json!(if number == 0 {
                        "network:echo.example".into()
                    } else {
                        format!("network:h{number}.example")
                    })
                })
            }),
            ("/mappings", 50, |count| named(count, |_| json!({}))),
            ("/data_adapters", 50, |count| {
                some(count, |number| json!({ "name": format!("n{number}"), "type": "api" }))
            }),
            ("/dependencies/plugins", 50, |count| named(count, |_| json!("1.0.0"))),
            ("/dependencies/libraries", 200, |count| named(count, |_| json!("1.0.0"))),
            ("/actions", 200, |count| some(count, |number| action(&format!("a{number}")))),
            ("/actions/0/description", 4_096, text),
            ("/actions/0/aliases", 50, |count| some(count, |number| json!(format!("b{number}")))),
        ];
        for (place, most, of_size) in cases {
            let with = |size: usize| {
                let mut manifest = manifest();
                manifest["dependencies"] = json!({});
                let (inside, last) = place.rsplit_once('/').unwrap();
                manifest.pointer_mut(inside).unwrap()[last] = of_size(size);
                Manifest::parse(&manifest.to_string())
            };
            with(most).unwrap();
            let problem = with(most + 1).unwrap_err().to_string();
            let place = place.trim_start_matches('/').replace("/0/", ".say.").replace('/', ".");
            assert!(problem.starts_with(&format!("{place}: ")), "{problem}");
            assert!(problem.contains(&format!("more than the {most} allowed; ")), "{problem}");
        }
    }

    #[test]
    fn an_environment_has_as_much_as_it_may_have_and_no_more() {
        let text: Sized = |length| json!("x".repeat(length));
        let cases: [(&str, usize, Sized); 6] = [
            ("/image/name", 255, text),
            ("/image/registry", 255, text),
            ("/env/optional", 200, |count| some(count, |number| json!({ "name": format!("N{number}") }))),
            ("/volumes", 50, |count| {
                some(count, |number| json!({ "name": format!("n{number}"), "mount_path": "/a", "type": "secret" }))
            }),
            ("/ports", 50, |count| some(count, |number| json!({ "name": format!("n{number}"), "container_port": 80 }))),
            ("/ingress/paths", 50, |count| some(count, |_| json!({ "path": "/", "service_port": "n0" }))),
        ];
        for (place, most, of_size) in cases {
            let with = |size: usize| {
                let mut manifest = manifest();
                manifest["actions"] = json!([]);
                manifest["runtime"] = json!({
                    "type": "container", "image": { "name": "x" }, "env": {}, "ingress": {},
                    "ports": [{ "name": "n0", "container_port": 80 }],
                });
                let (inside, last) = place.rsplit_once('/').unwrap();
                manifest["runtime"].pointer_mut(inside).unwrap()[last] = of_size(size);
                Manifest::parse(&manifest.to_string())
            };
            with(most).unwrap();
            let problem = with(most + 1).unwrap_err().to_string();
            assert!(
                problem.starts_with("runtime") && problem.contains(&format!("more than the {most} allowed; ")),
                "{problem}"
            );
        }
    }

    #[test]
    fn patterns_and_schemas_are_counted_together() {
        let patterns = |in_parameters: usize, in_returns: usize, in_config: usize, ids: usize| {
            let mut manifest = manifest();
            let schema =
                |count| json!({ "type": "object", "properties": named(count, |_| json!({ "pattern": "^a$" })) });
            manifest["actions"][0]["parameters"] = schema(in_parameters);
            manifest["actions"][0]["returns"] = schema(in_returns);
            manifest["config_schema"] = schema(in_config);
            manifest["mappings"] = named(ids, |_| json!({ "id": "^b$" }));
            Manifest::parse(&manifest.to_string())
        };
        patterns(15, 15, 10, 10).unwrap();
        for (parameters, returns, config, ids) in
            [(16, 15, 10, 10), (15, 16, 10, 10), (15, 15, 11, 10), (15, 15, 10, 11)]
        {
            let problem = patterns(parameters, returns, config, ids).unwrap_err().to_string();
            assert!(
                problem.contains("51 patterns (with those of mappings) or more, more than the 50 allowed"),
                "{problem}"
            );
        }
        let schemas = |more: usize| {
            let mut manifest = manifest();
            // Each is the whole and 399 fields.
            manifest["actions"] = some(25, |number| {
                let mut action = action(&format!("a{number}"));
                action["parameters"] = json!({ "type": "object", "properties": named(399, |_| json!({})) });
                action
            });
            manifest["config_schema"] = json!({ "type": "object", "properties": named(more, |_| json!({})) });
            manifest["config_schema"]["additionalProperties"] = json!(false);
            manifest["actions"][0]["parameters"]["properties"] = named(397, |_| json!({}));
            Manifest::parse(&manifest.to_string())
        };
        schemas(0).unwrap();
        let problem = schemas(1).unwrap_err().to_string();
        assert!(problem.contains("10001 schemas or more, more than the 10000 allowed"), "{problem}");
    }

    #[test]
    fn the_pattern_of_an_id_is_looked_at_when_the_manifest_is_read() {
        let mut manifest = manifest();
        manifest["mappings"] = json!({ "channel": { "id": "(" } });
        let problem = Manifest::parse(&manifest.to_string()).unwrap_err().to_string();
        assert!(problem.starts_with("mappings.channel.id: "), "{problem}");
    }

    /// Manifests of nearly the largest size, each the worst of its kind.
    #[test]
    fn the_worst_manifests_are_read_in_no_time() {
        let with = |change: &dyn Fn(&mut Value)| {
            let mut manifest = manifest();
            change(&mut manifest);
            manifest.to_string()
        };
        let filled = |piece: &str| piece.repeat(250_000 / piece.len());
        let slow = "\\pL{1,4}";
        let manifests = [
            ("patterns", with(&|m| m["mappings"] = named(50, |_| json!({ "id": slow })))),
            ("too many patterns", with(&|m| m["mappings"] = named(5_000, |_| json!({ "id": slow })))),
            (
                "patterns of fields",
                with(&|m| {
                    let fields = named(50, |_| json!({ "pattern": slow }));
                    m["actions"][0]["parameters"] = json!({ "type": "object", "properties": fields });
                }),
            ),
            (
                "schemas",
                with(&|m| {
                    let leaf = named(15, |_| json!({ "type": "string", "format": "date", "enum": ["a"] }));
                    let deep = json!({ "type": "object", "properties": named(6, |_| json!({ "$ref": "#/$defs/a" })), "$defs": { "a": { "properties": leaf } } });
                    m["actions"] = some(95, |number| {
                        let mut action = action(&format!("a{number}"));
                        action["parameters"] = deep.clone();
                        action
                    });
                }),
            ),
            (
                "lookups",
                with(&|m| {
                    let fields = named(490, |_| json!({ "type": "string" }));
                    m["actions"][0]["parameters"] = json!({ "type": "object", "properties": fields });
                    m["mappings"] = named(
                        50,
                        |_| json!({ "lookup": { "action": "say", "items": "data", "name": "item", "id": "item" } }),
                    );
                }),
            ),
            (
                "an enum",
                with(&|m| m["actions"][0]["returns"] = json!({ "enum": some(30_000, |number| json!(number)) })),
            ),
            (
                "missing names",
                with(&|m| {
                    m["actions"][0]["request"]["query"] = named(1_200, |n| {
                        json!(format!(
                            "{{{{ [{}] }}}}",
                            (0..25).map(|one| format!("m{n}{one}")).collect::<Vec<_>>().join(",")
                        ))
                    });
                }),
            ),
            ("unknown keywords", with(&|m| m["config_schema"] = named(20_000, |_| json!(1)))),
            (
                "templates",
                with(&|m| {
                    let template = format!("{{{{ body.a{} }}}}", " | default(body.b)".repeat(60));
                    m["actions"][0]["response"] = json!({ "data": some(200, |_| json!(template)) });
                }),
            ),
            ("one template", with(&|m| m["actions"][0]["response"] = json!({ "message": filled("{{ a }}") }))),
            (
                "a constant",
                with(&|m| m["actions"][0]["response"] = json!({ "message": filled("{{ 'x' * 100000000 }}") })),
            ),
            (
                "a deep template",
                with(&|m| m["actions"][0]["response"] = json!({ "message": format!("{{{{ a{} }}}}", filled("-1")) })),
            ),
        ];
        for (name, manifest) in &manifests {
            assert!(manifest.len() <= super::super::MANIFEST_MAX_BYTES, "{name}: {}", manifest.len());
            let read = Manifest::parse(manifest);
            let length = read.as_ref().map_or_else(|error| error.to_string().len(), |_| 0);
            assert!(length < 200_000, "{name}: {length} bytes are said");
        }
    }
}
