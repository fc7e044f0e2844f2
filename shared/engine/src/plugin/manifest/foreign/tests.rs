//! The older forms, with their makers' example manifests, which the behaviour tests register as well.

use serde_json::{Map, Value, json};

use super::*;
use crate::core::effect::Effect;
use crate::plugin::manifest::{DataAdapterKind, Manifest, PullPolicy};

const CLAUDE: &str =
    include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/manifests/claude-environment.yaml"));
const MODULE: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/manifests/module.json"));
const BOOKING: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/manifests/booking.yaml"));
const CRM: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/manifests/crm.yaml"));

#[track_caller]
fn refused(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from}");
    Manifest::parse(&text.replacen(from, to, 1)).unwrap_err().to_string()
}

#[track_caller]
fn all_refused(text: &str, cases: &[(&str, &str, &str)]) {
    for (from, to, expected) in cases {
        let problem = refused(text, from, to);
        assert!(problem.contains(expected), "{to}: {problem}");
    }
}

#[test]
fn environment_form_is_read() {
    let manifest = Manifest::parse(CLAUDE).unwrap();
    assert_eq!((manifest.name.as_str(), manifest.display_name.as_str()), ("claude-environment", "claude-environment"));
    assert_eq!(manifest.version.to_string(), "1.0.0");
    assert!(manifest.actions.is_empty() && manifest.default_enabled && manifest.permissions.is_empty());
    let container = manifest.runtime.container().unwrap();
    let image = &container.image;
    assert_eq!((image.name.as_str(), image.registry.as_str()), ("a8s-claude", "local"));
    assert_eq!(image.pull_policy, Some(PullPolicy::Never));
    assert_eq!(container.env.required[0].name, "ANTHROPIC_API_KEY");
    assert_eq!(container.env.required[0].description, "API key for Anthropic services");
    let optional: Vec<_> =
        container.env.optional.iter().map(|one| (&*one.name, one.default.as_ref().unwrap().as_str())).collect();
    assert_eq!(optional, [("HEIGHT", "768"), ("WIDTH", "1024"), ("DISPLAY_NUM", "1")]);
    let volume = &container.volumes[0];
    assert_eq!((volume.name.as_str(), volume.kind.as_str()), ("github-credentials", "secret"));
    assert_eq!(volume.mount_path, "/home/computeruse/.github-credentials");
    let resources = &container.resources;
    let bounds = [&resources.cpu.min, &resources.cpu.max, &resources.memory.min, &resources.memory.max];
    assert_eq!(bounds.map(|bound| bound.as_ref().unwrap().as_str()), ["1", "2", "2Gi", "4Gi"]);
    let ports: Vec<_> = container.ports.iter().map(|port| (port.name.as_str(), port.container_port)).collect();
    assert_eq!(ports, [("vnc", 5900), ("streamlit", 8501), ("novnc", 6080), ("api", 8080)]);
    let paths: Vec<_> = container.ingress.paths.iter().map(|path| (&*path.path, path.service_port.as_str())).collect();
    assert!(container.ingress.enabled);
    assert_eq!(paths, [("/streamlit", "streamlit"), ("/novnc", "novnc"), ("/api", "api")]);
    assert!(manifest.cannot_run().unwrap().contains("a8s-claude"));
}

#[test]
fn environment_form_ignores_unknown_keys() {
    let small = "name: e\nversion: 1.0.0\nimage: { name: x }\n";
    let manifest = Manifest::parse(small).unwrap();
    let container = manifest.runtime.container().unwrap();
    assert_eq!((container.image.registry.as_str(), container.ports.len()), ("local", 0));
    let more = CLAUDE
        .replace("  pull_policy: Never", "  pull_policy: Never\n  digest: abc\nsidecars: [a]")
        .replace("    container_port: 5900", "    container_port: 5900\n    protocol: TCP")
        .replace("        max: \"2\"", "        max: 2\n        burst: 3")
        .replace("  volumes:", "  other: 1\n  volumes:")
        .replace("    - path: /api", "    - tls: true\n      path: /api");
    assert_eq!(Manifest::parse(&more).unwrap(), Manifest::parse(CLAUDE).unwrap());
}

#[test]
fn environment_problem_names_the_author_keys() {
    all_refused(
        CLAUDE,
        &[
            ("version: 1.0.0", "version: 1.0", "version: "),
            ("version: 1.0.0\n", "", "missing field `version`"),
            ("name: claude-environment", "name: Claude", "name: must begin with a small letter"),
            ("  name: a8s-claude\n", "", "image: missing field `name`"),
            ("name: a8s-claude", "name: ''", "image.name: must be ASCII"),
            (
                "registry: local",
                &format!("registry: {}", "r".repeat(256)),
                "image.registry: has 256 characters, more than the 255 allowed",
            ),
            ("registry: local", "registry: \"a\\u0001b\"", "image.registry: must be ASCII"),
            ("pull_policy: Never", "pull_policy: Sometimes", "image.pull_policy: unknown variant"),
            ("container_port: 5900", "container_port: 0", "ports.vnc.container_port: must be 1 to 65535"),
            ("container_port: 5900", "container_port: 65536", "ports.vnc.container_port: must be 1 to 65535"),
            ("container_port: 5900", "container_port: many", "ports[0].container_port: "),
            ("name: vnc", "name: api", "ports: the name api is used twice"),
            ("service_port: api", "service_port: apo", "\"/api\" leads to the port apo, which is not in ports"),
            ("path: /api", "path: api", "ingress.paths: \"api\" must begin with /"),
            ("name: ANTHROPIC_API_KEY", "name: HEIGHT", "dependencies.env_vars: the variable HEIGHT is set twice"),
            ("name: ANTHROPIC_API_KEY", "name: A-B", "dependencies.env_vars: \"A-B\" is not the name of a variable"),
            (
                "      - name: ANTHROPIC_API_KEY\n  ",
                "      - ",
                "dependencies.env_vars.required[0]: missing field `name`",
            ),
            ("mount_path: /home", "mount_path: home", "dependencies.volumes.github-credentials.mount_path"),
            ("min: \"2Gi\"", "min: [2]", "dependencies.resources.memory.min: must be a text"),
        ],
    );
    for port in ["1", "65535"] {
        Manifest::parse(&CLAUDE.replacen("5900", port, 1)).unwrap();
    }
}

#[test]
fn module_form_is_read() {
    let manifest = Manifest::parse(MODULE).unwrap();
    assert_eq!(manifest.name.as_str(), "unique_plugin_id");
    assert_eq!(manifest.display_name, "Human Readable Plugin Name");
    assert_eq!(manifest.author.as_deref(), Some("Author Name"));
    assert_eq!(manifest.website.as_deref(), Some("https://plugin-website.com"));
    let permissions: Vec<String> = manifest.permissions.iter().map(ToString::to_string).collect();
    assert_eq!(permissions, ["file_system_read", "network_access"]);
    assert_eq!(manifest.hosts().count(), 0);
    let (other, range) = manifest.dependencies.plugins.iter().next().unwrap();
    assert_eq!((other.as_str(), range.to_string()), ("other_plugin_id", ">=1.0.0".to_owned()));
    assert_eq!(manifest.dependencies.libraries["requests"], ">=2.25.0");
    let action = &manifest.actions[0];
    assert_eq!((action.name.as_str(), action.effect), ("action_name", Effect::Unsafe));
    assert_eq!((&action.parameters, &action.returns), (&json!({ "type": "object" }), &Some(json!({}))));
    assert!(!action.streaming_supported && action.request.is_none() && manifest.default_enabled);
    let reason = manifest.cannot_run().unwrap();
    assert!(reason.contains("class PluginMainClass of the Python module main_module.py"), "{reason}");
}

#[test]
fn module_form_overrides_defaults() {
    let text = MODULE
        .replace("\"file_system_read\"", "\"network:API.example.com\"")
        .replace("\"default_enabled\": true", "\"default_enabled\": false, \"surprise\": {}")
        .replace("\"streaming_supported\": false", "\"streaming_supported\": true, \"effect\": \"read\", \"cost\": 5");
    let manifest = Manifest::parse(&text).unwrap();
    assert_eq!(manifest.hosts().collect::<Vec<_>>(), ["api.example.com"]);
    assert!(!manifest.default_enabled);
    assert!(manifest.actions[0].streaming_supported && manifest.actions[0].effect == Effect::Read);
}

#[test]
fn module_problem_names_the_author_keys() {
    all_refused(
        MODULE,
        &[
            ("\"id\": \"unique_plugin_id\",", "", "id: is missing; add the plugin's id"),
            ("unique_plugin_id", "Unique", "id: must begin with a small letter"),
            ("\"name\": \"Human Readable Plugin Name\"", "\"name\": 5", "name: invalid type"),
            (">=1.0.0", "newest", "dependencies.plugins.other_plugin_id: \"newest\" is not a version range"),
            (
                "other_plugin_id",
                "unique_plugin_id",
                "dependencies.plugins.unique_plugin_id: a plugin cannot depend on itself",
            ),
            ("\"network_access\"", "5", "permissions[1]: invalid type"),
            (
                "\"parameters_schema\": {}",
                "\"parameters_schema\": 5",
                "actions.action_name.parameters_schema: must be a schema",
            ),
            (
                "\"parameters_schema\": {}",
                "\"parameters_schema\": {\"type\": \"array\"}",
                "parameters_schema: must be a schema",
            ),
            (
                "\"returns_schema\": {}",
                "\"returns_schema\": {\"type\": 5}",
                "actions.action_name.returns_schema/type: ",
            ),
            ("\"returns_schema\": {}", "\"returns_schema\": {\"$ref\": \"https://x.example/s\"}", "nothing is fetched"),
            ("\"action_name\"", "\"1st\"", "actions[0].name: must begin with a letter"),
            (
                "\"streaming_supported\": false",
                "\"streaming_supported\": 1",
                "actions[0].streaming_supported: invalid type",
            ),
            ("\"actions\": [", "\"actions\": 5, \"x\": [", "actions: must be a list"),
        ],
    );
}

#[test]
fn domain_form_is_read() {
    let manifest = Manifest::parse(BOOKING).unwrap();
    assert_eq!((manifest.name.as_str(), manifest.display_name.as_str()), ("booking", "Appointment Booking"));
    let names: Vec<_> = manifest.actions.iter().map(|action| (action.name.as_str(), action.effect)).collect();
    let expected = ["GetAllPatients", "CreateAppointment", "UpdateAppointment"].map(|name| (name, Effect::Unsafe));
    assert_eq!(names, expected);
    let parameters: Vec<&Value> = manifest.actions.iter().map(|action| &action.parameters).collect();
    assert_eq!(parameters[0], &json!({ "type": "object", "properties": {} }));
    assert_eq!(
        parameters[1],
        &json!({
            "type": "object",
            "required": ["PatNum", "AptDateTime", "ProvNum", "Op"],
            "properties": {
                "PatNum": { "type": "number" }, "AptDateTime": { "type": "string", "format": "date-time" },
                "ProvNum": { "type": "number" }, "Op": { "type": "number" }, "Note": { "type": "string" },
            },
            "examples": [{ "PatNum": 1, "AptDateTime": "2025-12-15 10:00:00", "ProvNum": 1, "Op": 1 }],
        })
    );
    assert_eq!(parameters[2]["required"], json!(["AptNum"]));
    let adapters: Vec<_> = manifest.data_adapters.iter().map(|one| (one.name.as_str(), one.kind)).collect();
    assert_eq!(adapters, [("local-supabase", DataAdapterKind::Database), ("opendental", DataAdapterKind::Api)]);
    assert_eq!(manifest.data_adapters[0].config["connectionString"], "env:SUPABASE_URL");
    assert!(manifest.instruction_template.is_some());
    assert_eq!(manifest.default_config["allowSameDayBooking"], true);
    let reason = manifest.cannot_run().unwrap();
    assert!(reason.contains("TypeScript plugin, such as functions/"), "{reason}");

    let crm = Manifest::parse(CRM).unwrap();
    assert_eq!(crm.actions[0].parameters["required"], json!(["email", "name", "source"]));
    assert_eq!(crm.actions[1].parameters.get("required"), None);
    let status = json!({ "type": "string", "enum": ["new", "contacted", "qualified", "lost"] });
    assert_eq!(crm.actions[1].parameters["properties"]["status"], status);
    assert_eq!(crm.config_with_defaults(Map::new())["requireManagerApproval"], true);
}

#[test]
fn domain_parameters_are_a_schema_or_a_map() {
    let read = |parameters: Value, validation: Value| {
        let (Value::Object(parameters), Value::Object(validation)) = (parameters, validation) else { panic!() };
        domain::schema_of(parameters, &validation)
    };
    for (parameters, schema) in [
        // Properties with the names of keywords.
        (
            json!({"type": {"type": "string", "required": true}}),
            json!({"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}}),
        ),
        (
            json!({"properties": {"type": "object"}}),
            json!({"type": "object", "properties": {"properties": {"type": "object"}}}),
        ),
        (
            json!({"required": {"type": "boolean", "required": true}}),
            json!({"type": "object", "required": ["required"], "properties": {"required": {"type": "boolean"}}}),
        ),
        // Schemas.
        (
            json!({"properties": {"type": {"type": "string"}}}),
            json!({"type": "object", "properties": {"type": {"type": "string"}}}),
        ),
        (json!({"$ref": "#/$defs/a"}), json!({"type": "object", "$ref": "#/$defs/a"})),
        (
            json!({"type": "object", "required": ["a"], "properties": {"a": {}}}),
            json!({"type": "object", "required": ["a"], "properties": {"a": {}}}),
        ),
        // Within each other.
        (
            json!({"list": {"type": "array", "required": true, "items": {"type": "object", "properties": {"a": {"type": "string", "required": true}}}}}),
            json!({"type": "object", "required": ["list"], "properties": {
                "list": {"type": "array", "items": {"type": "object", "required": ["a"], "properties": {"a": {"type": "string"}}}}}}),
        ),
    ] {
        assert_eq!(read(parameters.clone(), json!({})), schema, "{parameters}");
    }
    let schema = read(
        json!({"a": {"type": "string", "required": true}}),
        json!({"required": ["a", "b"], "example": {"a": "x"}}),
    );
    assert_eq!((&schema["required"], &schema["examples"]), (&json!(["a", "b"]), &json!([{"a": "x"}])));
}

#[test]
fn domain_problem_names_the_author_keys() {
    all_refused(
        BOOKING,
        &[
            ("displayName: Appointment Booking", "displayName: [a]", "displayName: invalid type"),
            ("name: booking", "name: Booking", "name: must begin with a small letter"),
            ("name: GetAllPatients", "name: Get All", "functions[0].name: must begin with a letter"),
            ("name: GetAllPatients", "name: CreateAppointment", "functions: the name CreateAppointment is used twice"),
            ("parameters: {}", "parameters: []", "functions[0].parameters: must be an object"),
            (
                "parameters: {}",
                "parameters: { a: { type: text } }",
                "functions.GetAllPatients.parameters/properties/a/type: ",
            ),
            ("type: database", "type: disk", "dataAdapters[0].type: unknown variant"),
            ("name: opendental", "name: local-supabase", "dataAdapters: the name local-supabase is used twice"),
            ("config.allowSameDayBooking", "cfg.allowSameDayBooking", "instructionTemplate: "),
            (
                "{ type: boolean, default: true }",
                "{ type: bool }",
                "configSchema/properties/allowSameDayBooking/type: ",
            ),
            ("  allowSameDayBooking: true", "  allowSameDayBooking: maybe", "defaultConfig/allowSameDayBooking: "),
        ],
    );
}

#[test]
fn document_with_runtime_is_in_our_own_form() {
    let with = |text: &str| format!("{text}runtime: {{ type: http, base_url: \"https://a.example\" }}\n");
    let problem = Manifest::parse(&with(CRM)).unwrap_err().to_string();
    assert!(problem.contains("unknown field `displayName`"), "{problem}");
    let problem = Manifest::parse(&with(CLAUDE)).unwrap_err().to_string();
    assert!(problem.contains("unknown field `image`"), "{problem}");
    // A document of no known form gets the problems of Overseer's own.
    let problem = Manifest::parse("name: a\nversion: 1.0.0\n").unwrap_err().to_string();
    assert!(problem.contains("missing field `display_name`"), "{problem}");
}
