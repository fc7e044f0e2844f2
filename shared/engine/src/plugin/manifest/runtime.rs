//! How a plugin's actions run, and whether Overseer can run them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use super::Container;
use crate::core::ids::ActionName;

/// How a plugin's actions run.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Runtime {
    /// The actions are HTTP requests that the manifest declares.
    Http {
        /// The URL before every request's path: `https`, unless it is an address of 127.0.0.0/8.
        base_url: Url,
    },
    /// Overseer's own code, for some of the built-in plugins.
    Native,
    /// A container image that an operator deploys. Overseer stores what the deployment needs and runs no actions.
    Container(Box<Container>),
    /// The author's own code, which Overseer does not run.
    Module(Module),
}

/// The author's own code.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Module {
    /// The file of the code.
    pub main_module: Option<String>,
    /// The class in the file.
    pub class_name: Option<String>,
    /// The code of each action, as the author's framework names it.
    #[serde(default)]
    pub handlers: BTreeMap<ActionName, String>,
}

impl Runtime {
    /// Why actions of this runtime cannot run here, with the remedy; `None` if they can.
    pub fn cannot_run(&self) -> Option<String> {
        match self {
            Self::Http { .. } | Self::Native => None,
            Self::Container(container) => Some(format!(
                "it is an environment of the image {}, which is deployed, not called; it has no actions",
                container.image.name
            )),
            Self::Module(module) => Some(module.reason()),
        }
    }

    /// The URL before every request's path, for the runtime `http`.
    pub fn base_url(&self) -> Option<&Url> {
        match self {
            Self::Http { base_url } => Some(base_url),
            Self::Native | Self::Container(_) | Self::Module(_) => None,
        }
    }

    /// The container, for the runtime `container`.
    pub fn container(&self) -> Option<&Container> {
        match self {
            Self::Container(container) => Some(container),
            Self::Http { .. } | Self::Native | Self::Module(_) => None,
        }
    }
}

impl Module {
    fn reason(&self) -> String {
        let code = match (&self.main_module, &self.class_name) {
            (Some(file), Some(class)) => format!("its code is the class {class} of the {} {file}", language(file)),
            (Some(file), None) => format!("its code is the {} {file}", language(file)),
            (None, Some(class)) => format!("its code is the class {class}"),
            (None, None) => match self.handlers.values().next() {
                Some(handler) => format!("its actions are handlers of a TypeScript plugin, such as {handler}"),
                None => "it declares no code".to_owned(),
            },
        };
        format!(
            "{code}, and Overseer runs no code of plugins; declare its actions as requests to the service that does them \
             (runtime: {{ type: http, base_url: … }}, and for each action a request)"
        )
    }
}

/// The kind of a code file, by its extension.
fn language(file: &str) -> &'static str {
    match file.rsplit_once('.').map(|(_, extension)| extension) {
        Some("py") => "Python module",
        Some("ts" | "tsx" | "mts" | "cts") => "TypeScript module",
        Some("js" | "mjs" | "cjs") => "JavaScript module",
        Some(_) | None => "module",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use crate::plugin::manifest::Manifest;

    const CONTAINER: &str = r#"
name: desk
version: 1.0.0
display_name: Desk
description: A desktop.
runtime:
  type: container
  image: { name: "desk:1" }
  env: { required: [{ name: KEY, description: A key. }], optional: [{ name: WIDTH, default: 1024 }] }
  volumes: [{ name: home, mount_path: /home, type: secret }]
  resources: { cpu: { min: 500m, max: 2 }, memory: { max: 2Gi } }
  ports: [{ name: web, container_port: 80 }]
  ingress: { enabled: true, paths: [{ path: /, service_port: web }] }
"#;
    const MODULE: &str = r"
name: code
version: 1.0.0
display_name: Code
description: Runs elsewhere.
runtime: { type: module, handlers: { Do: functions/do } }
actions:
  - { name: Do, description: Does it., effect: unsafe }
";

    fn all_refused(text: &str, cases: &[(&str, &str, &str)]) {
        for (from, to, said) in cases {
            assert!(text.contains(from), "{from}");
            let problem = Manifest::parse(&text.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(problem.contains(said), "{to}: {problem}");
        }
    }

    #[test]
    fn container_runtime_is_read() {
        let manifest = Manifest::parse(CONTAINER).unwrap();
        let container = manifest.runtime.container().unwrap();
        assert_eq!((container.image.registry.as_str(), container.image.pull_policy), ("local", None));
        assert_eq!(container.env.optional[0].default.as_ref().unwrap().as_str(), "1024");
        assert_eq!(container.resources.cpu.max.as_ref().unwrap().as_str(), "2");
        assert!(manifest.cannot_run().unwrap().contains("deployed, not called"));
        assert_eq!(manifest.runtime.base_url(), None);
        all_refused(
            CONTAINER,
            &[
                ("service_port: web", "service_port: wob", "runtime.ingress.paths: \"/\" leads to the port wob"),
                ("container_port: 80", "container_port: 65536", "runtime.ports.web.container_port: must be 1 to 65535"),
                ("container_port: 80", "container_port: -1", "runtime.ports.web.container_port"),
                (
                    "container_port: 80 }",
                    "container_port: 80 }, { name: web, container_port: 81 }",
                    "name web is used twice",
                ),
                ("mount_path: /home, ", "mount_path: /home, size: 5, ", "size"),
                ("image: { name: \"desk:1\" }", "image: { name: \"desk 1\" }", "runtime.image.name"),
                ("  ports:", "  prots:", "prots"),
                ("default: 1024", "default: [1024]", "must be a text; quote it"),
                (
                    "  ingress:",
                    "actions: [{ name: a, description: d, effect: read }]\nauth: { type: none }\nx:",
                    "unknown field",
                ),
            ],
        );
        let with_actions = format!("{CONTAINER}actions: [{{ name: a, description: d, effect: read }}]\n");
        assert!(Manifest::parse(&with_actions).unwrap_err().to_string().contains("actions: an environment has none"));
    }

    #[test]
    fn module_runtime_says_why_it_cannot_run() {
        let reason = |runtime: &str| {
            let text = MODULE.replacen("{ type: module, handlers: { Do: functions/do } }", runtime, 1);
            Manifest::parse(&text).unwrap().cannot_run().unwrap()
        };
        for (runtime, said) in [
            (
                "{ type: module, handlers: { Do: functions/do } }",
                "handlers of a TypeScript plugin, such as functions/do,",
            ),
            ("{ type: module, main_module: a.py, class_name: A }", "the class A of the Python module a.py,"),
            ("{ type: module, main_module: a/b.ts }", "its code is the TypeScript module a/b.ts,"),
            ("{ type: module, main_module: b.mjs }", "the JavaScript module b.mjs,"),
            ("{ type: module, class_name: A }", "its code is the class A,"),
            ("{ type: module }", "it declares no code,"),
        ] {
            let reason = reason(runtime);
            assert!(reason.contains(said) && reason.contains("base_url"), "{reason}");
        }
        all_refused(
            MODULE,
            &[
                (
                    "effect: unsafe }",
                    "effect: unsafe, request: { path: / } }",
                    "actions.Do.request: is for the runtime http only",
                ),
                (
                    "{ Do: functions/do }",
                    "{ Od: functions/do }",
                    "runtime.handlers.Od: there is no action of that name",
                ),
                ("{ type: module,", "{ type: module, language: rust,", "language"),
            ],
        );
        let http = "{ type: http, base_url: \"https://a.example\" }\npermissions: [\"network:a.example\"]";
        let text = MODULE.replacen("{ type: module, handlers: { Do: functions/do } }", http, 1);
        let problem = Manifest::parse(&text).unwrap_err().to_string();
        assert!(problem.contains("actions.Do.request: is missing"), "{problem}");
    }

    #[test]
    fn published_schema_agrees_with_the_parser() {
        let published = crate::core::schema::schema_of::<Manifest>();
        let validator = crate::core::schema::compile(&published).unwrap();
        let read = |text: &str| serde_saphyr::from_str::<Value>(text).unwrap();
        for text in [CONTAINER, MODULE] {
            let problems = crate::core::schema::problems_of(&validator, &published, &read(text), "");
            assert!(problems.is_empty(), "{problems:?}");
        }
        for place in ["", "/runtime", "/runtime/image", "/runtime/ports/0", "/runtime/ingress/paths/0"] {
            let mut wrong = read(CONTAINER);
            wrong.pointer_mut(place).unwrap().as_object_mut().unwrap().insert("surprise".to_owned(), 1.into());
            assert!(!validator.is_valid(&wrong), "an unknown key is taken at {place:?}");
        }
        let mut wrong = read(CONTAINER);
        *wrong.pointer_mut("/runtime/ports/0/container_port").unwrap() = 65_536.into();
        assert!(!validator.is_valid(&wrong));
    }
}
