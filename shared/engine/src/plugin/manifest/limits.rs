//! Limits on the size of a manifest. An untrusted author writes it, and a process that serves other customers pays for reading,
//! storing and using it. These limits are checked first: a manifest that exceeds one is not compiled.

use super::Manifest;
use crate::core::schema;

/// The longest version, in characters. One item of the registry holds a hundred versions.
const VERSION_MAX: usize = 64;
/// The longest short text, such as a display name, in characters.
const TEXT_MAX: usize = 255;
/// The longest description, in characters.
const DESCRIPTION_MAX: usize = 4_096;
/// The most actions.
const ACTIONS_MAX: usize = 200;
/// The most entries of any other list, such as permissions.
const ENTRIES_MAX: usize = 50;
/// The most hooks.
const HOOKS_MAX: usize = 20;
/// The most environment variables or libraries.
const VARIABLES_MAX: usize = 200;
/// The most schemas in all JSON Schemas of a manifest together.
const SCHEMAS_MAX: usize = 10_000;
/// The most patterns in all JSON Schemas and `mappings` together. Each may take 256 KiB of memory once compiled.
const PATTERNS_MAX: usize = 50;

/// The limits that a manifest exceeds, each with its path.
#[derive(Default)]
struct LimitProblems(Vec<String>);

impl LimitProblems {
    fn length(&mut self, path: &str, text: &str, max: usize) {
        let length = text.chars().count();
        if length > max {
            self.0.push(format!("{path}: has {length} characters, more than the {max} allowed; shorten it"));
        }
    }

    fn count(&mut self, path: &str, count: usize, max: usize) {
        if count > max {
            self.0.push(format!("{path}: there are {count}, more than the {max} allowed; remove some"));
        }
    }
}

impl Manifest {
    /// The limits that it exceeds. `runtime_path` is the path of the runtime in the author's form, with its dot.
    pub(super) fn limit_problems(&self, runtime_path: &str) -> Vec<String> {
        let mut limits = LimitProblems::default();
        limits.length("version", &self.version.to_string(), VERSION_MAX);
        limits.length("display_name", &self.display_name, TEXT_MAX);
        limits.length("description", &self.description, DESCRIPTION_MAX);
        for (path, text) in [("author", &self.author), ("license", &self.license), ("website", &self.website)] {
            limits.length(path, text.as_deref().unwrap_or_default(), TEXT_MAX);
        }
        limits.count("categories", self.categories.len(), ENTRIES_MAX);
        for category in &self.categories {
            limits.length("categories", category, TEXT_MAX);
        }
        limits.count("permissions", self.permissions.len(), ENTRIES_MAX);
        for permission in &self.permissions {
            limits.length("permissions", &permission.to_string(), TEXT_MAX + "network:".len());
        }
        limits.count("hooks", self.hooks.len(), HOOKS_MAX);
        limits.count("mappings", self.mappings.len(), ENTRIES_MAX);
        limits.count("data_adapters", self.data_adapters.len(), ENTRIES_MAX);
        limits.count("dependencies.plugins", self.dependencies.plugins.len(), ENTRIES_MAX);
        limits.count("dependencies.libraries", self.dependencies.libraries.len(), VARIABLES_MAX);
        limits.count("actions", self.actions.len(), ACTIONS_MAX);
        for action in &self.actions {
            limits.length(&format!("actions.{}.description", action.name), &action.description, DESCRIPTION_MAX);
            limits.count(&format!("actions.{}.aliases", action.name), action.aliases.len(), ENTRIES_MAX);
        }
        self.container_limits(runtime_path, &mut limits);
        // The schemas of a manifest that is already too large are not followed.
        if limits.0.is_empty() {
            self.schema_limits(&mut limits);
        }
        limits.0
    }

    fn container_limits(&self, path: &str, limits: &mut LimitProblems) {
        let Some(container) = self.runtime.container() else { return };
        limits.length(&format!("{path}image.name"), &container.image.name, TEXT_MAX);
        limits.length(&format!("{path}image.registry"), &container.image.registry, TEXT_MAX);
        let variables = container.env.required.len() + container.env.optional.len();
        limits.count(&format!("{path}env"), variables, VARIABLES_MAX);
        limits.count(&format!("{path}volumes"), container.volumes.len(), ENTRIES_MAX);
        limits.count(&format!("{path}ports"), container.ports.len(), ENTRIES_MAX);
        limits.count(&format!("{path}ingress.paths"), container.ingress.paths.len(), ENTRIES_MAX);
    }

    fn schema_limits(&self, limits: &mut LimitProblems) {
        let action_schemas =
            self.actions.iter().flat_map(|action| std::iter::once(&action.parameters).chain(&action.returns));
        let mut schemas = 0;
        let mut patterns = self.mappings.values().filter(|kind| kind.id.is_some()).count();
        for schema in action_schemas.chain(&self.config_schema) {
            // A single schema that costs too much is reported elsewhere.
            let cost = schema::cost_of(schema).unwrap_or_default();
            schemas += cost.schemas;
            patterns += cost.patterns;
            if schemas > SCHEMAS_MAX {
                break;
            }
        }
        let mut check = |unit: &str, count: usize, max: usize| {
            if count > max {
                limits.0.push(format!(
                    "parameters, returns and config_schema together have at least {count} {unit}, more than the {max} \
                     allowed; each reference ($ref) counts all that it refers to; remove some"
                ));
            }
        };
        check("schemas", schemas, SCHEMAS_MAX);
        check("patterns (with those of mappings)", patterns, PATTERNS_MAX);
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

    /// A list of `count` elements.
    fn list(count: usize, element: impl Fn(usize) -> Value) -> Value {
        (0..count).map(element).collect()
    }

    /// An object of `count` fields.
    fn object(count: usize, field: impl Fn(usize) -> Value) -> Value {
        Value::Object((0..count).map(|number| (format!("n{number}"), field(number))).collect())
    }

    /// Makes a value of a size.
    type Sized = fn(usize) -> Value;

    #[test]
    fn manifest_is_limited_in_length_and_count() {
        let text: Sized = |length| json!("x".repeat(length));
        let cases: [(&str, usize, Sized); 16] = [
            ("/version", 64, |length| json!(format!("1.0.0-{}+{}", "a".repeat(20), "b".repeat(length - 27)))),
            ("/display_name", 255, text),
            ("/description", 4_096, text),
            ("/author", 255, text),
            ("/license", 255, text),
            ("/website", 255, text),
            ("/categories", 50, |count| list(count, |number| json!(number.to_string()))),
            ("/categories", 255, |length| json!(["x".repeat(length)])),
            ("/permissions", 50, |count| {
                list(count, |number| {
                    json!(if number == 0 {
                        "network:echo.example".into()
                    } else {
                        format!("network:h{number}.example")
                    })
                })
            }),
            ("/mappings", 50, |count| object(count, |_| json!({}))),
            ("/data_adapters", 50, |count| {
                list(count, |number| json!({ "name": format!("n{number}"), "type": "api" }))
            }),
            ("/dependencies/plugins", 50, |count| object(count, |_| json!("1.0.0"))),
            ("/dependencies/libraries", 200, |count| object(count, |_| json!("1.0.0"))),
            ("/actions", 200, |count| list(count, |number| action(&format!("a{number}")))),
            ("/actions/0/description", 4_096, text),
            ("/actions/0/aliases", 50, |count| list(count, |number| json!(format!("b{number}")))),
        ];
        for (place, max, of_size) in cases {
            let with = |size: usize| {
                let mut manifest = manifest();
                manifest["dependencies"] = json!({});
                let (inside, last) = place.rsplit_once('/').unwrap();
                manifest.pointer_mut(inside).unwrap()[last] = of_size(size);
                Manifest::parse(&manifest.to_string())
            };
            with(max).unwrap();
            let problem = with(max + 1).unwrap_err().to_string();
            let place = place.trim_start_matches('/').replace("/0/", ".say.").replace('/', ".");
            assert!(problem.starts_with(&format!("{place}: ")), "{problem}");
            assert!(problem.contains(&format!("more than the {max} allowed; ")), "{problem}");
        }
    }

    #[test]
    fn container_is_limited_in_length_and_count() {
        let text: Sized = |length| json!("x".repeat(length));
        let cases: [(&str, usize, Sized); 6] = [
            ("/image/name", 255, text),
            ("/image/registry", 255, text),
            ("/env/optional", 200, |count| list(count, |number| json!({ "name": format!("N{number}") }))),
            ("/volumes", 50, |count| {
                list(count, |number| json!({ "name": format!("n{number}"), "mount_path": "/a", "type": "secret" }))
            }),
            ("/ports", 50, |count| list(count, |number| json!({ "name": format!("n{number}"), "container_port": 80 }))),
            ("/ingress/paths", 50, |count| list(count, |_| json!({ "path": "/", "service_port": "n0" }))),
        ];
        for (place, max, of_size) in cases {
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
            with(max).unwrap();
            let problem = with(max + 1).unwrap_err().to_string();
            assert!(
                problem.starts_with("runtime") && problem.contains(&format!("more than the {max} allowed; ")),
                "{problem}"
            );
        }
    }

    #[test]
    fn schemas_of_a_manifest_are_counted_together() {
        let patterns = |in_parameters: usize, in_returns: usize, in_config: usize, ids: usize| {
            let mut manifest = manifest();
            let schema =
                |count| json!({ "type": "object", "properties": object(count, |_| json!({ "pattern": "^a$" })) });
            manifest["actions"][0]["parameters"] = schema(in_parameters);
            manifest["actions"][0]["returns"] = schema(in_returns);
            manifest["config_schema"] = schema(in_config);
            manifest["mappings"] = object(ids, |_| json!({ "id": "^b$" }));
            Manifest::parse(&manifest.to_string())
        };
        patterns(15, 15, 10, 10).unwrap();
        for (parameters, returns, config, ids) in
            [(16, 15, 10, 10), (15, 16, 10, 10), (15, 15, 11, 10), (15, 15, 10, 11)]
        {
            let problem = patterns(parameters, returns, config, ids).unwrap_err().to_string();
            assert!(
                problem.contains("at least 51 patterns (with those of mappings), more than the 50 allowed"),
                "{problem}"
            );
        }
        let schemas = |more: usize| {
            let mut manifest = manifest();
            // Each action counts 400: the schema itself and 399 fields.
            manifest["actions"] = list(25, |number| {
                let mut action = action(&format!("a{number}"));
                action["parameters"] = json!({ "type": "object", "properties": object(399, |_| json!({})) });
                action
            });
            manifest["config_schema"] = json!({ "type": "object", "properties": object(more, |_| json!({})) });
            manifest["config_schema"]["additionalProperties"] = json!(false);
            manifest["actions"][0]["parameters"]["properties"] = object(397, |_| json!({}));
            Manifest::parse(&manifest.to_string())
        };
        schemas(0).unwrap();
        let problem = schemas(1).unwrap_err().to_string();
        assert!(problem.contains("at least 10001 schemas, more than the 10000 allowed"), "{problem}");
    }

    #[test]
    fn id_pattern_is_checked_when_the_manifest_is_read() {
        let mut manifest = manifest();
        manifest["mappings"] = json!({ "channel": { "id": "(" } });
        let problem = Manifest::parse(&manifest.to_string()).unwrap_err().to_string();
        assert!(problem.starts_with("mappings.channel.id: "), "{problem}");
    }

    /// Manifests close to the largest size, each the most expensive of its kind.
    #[test]
    fn most_expensive_manifests_are_read_quickly() {
        let with = |change: &dyn Fn(&mut Value)| {
            let mut manifest = manifest();
            change(&mut manifest);
            manifest.to_string()
        };
        let filled = |piece: &str| piece.repeat(250_000 / piece.len());
        let slow = "\\pL{1,4}";
        let manifests = [
            ("patterns", with(&|m| m["mappings"] = object(50, |_| json!({ "id": slow })))),
            ("too many patterns", with(&|m| m["mappings"] = object(5_000, |_| json!({ "id": slow })))),
            (
                "patterns of fields",
                with(&|m| {
                    let fields = object(50, |_| json!({ "pattern": slow }));
                    m["actions"][0]["parameters"] = json!({ "type": "object", "properties": fields });
                }),
            ),
            (
                "schemas",
                with(&|m| {
                    let leaf = object(15, |_| json!({ "type": "string", "format": "date", "enum": ["a"] }));
                    let deep = json!({ "type": "object", "properties": object(6, |_| json!({ "$ref": "#/$defs/a" })), "$defs": { "a": { "properties": leaf } } });
                    m["actions"] = list(95, |number| {
                        let mut action = action(&format!("a{number}"));
                        action["parameters"] = deep.clone();
                        action
                    });
                }),
            ),
            (
                "lookups",
                with(&|m| {
                    let fields = object(490, |_| json!({ "type": "string" }));
                    m["actions"][0]["parameters"] = json!({ "type": "object", "properties": fields });
                    m["mappings"] = object(
                        50,
                        |_| json!({ "lookup": { "action": "say", "items": "data", "name": "item", "id": "item" } }),
                    );
                }),
            ),
            (
                "an enum",
                with(&|m| m["actions"][0]["returns"] = json!({ "enum": list(30_000, |number| json!(number)) })),
            ),
            (
                "missing names",
                with(&|m| {
                    m["actions"][0]["request"]["query"] = object(1_200, |n| {
                        json!(format!(
                            "{{{{ [{}] }}}}",
                            (0..25).map(|one| format!("m{n}{one}")).collect::<Vec<_>>().join(",")
                        ))
                    });
                }),
            ),
            ("unknown keywords", with(&|m| m["config_schema"] = object(20_000, |_| json!(1)))),
            (
                "templates",
                with(&|m| {
                    let template = format!("{{{{ body.a{} }}}}", " | default(body.b)".repeat(60));
                    m["actions"][0]["response"] = json!({ "data": list(200, |_| json!(template)) });
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
            assert!(length < 200_000, "{name}: an error of {length} bytes");
        }
    }
}
