//! Data adapters of a channel's assignments: one that the plugin declares, chosen by name, or an object of the channel's own.
//! Operators and agents can read a channel, so an adapter may name credentials but never contain one.

use serde_json::{Map, Value, json};

use crate::core::problem::{FieldProblem, pointer_part};
use crate::invoke::failures::looks_secret;
use crate::plugin::manifest::{DataAdapter, Manifest};

/// The largest adapter of a channel's own, in bytes of JSON.
pub(super) const ADAPTER_MAX_BYTES: usize = 4 * 1024;
/// The prefixes of texts that name a credential.
const REFERENCES: [&str; 4] = ["env:", "config:", "credential:", "credential-"];
/// The fields that say what an object's `value` is, as in lists of headers.
const NAMING: [&str; 2] = ["name", "header"];

/// The adapter that an assignment chooses: the first that the plugin declares where it makes no choice, none where the plugin
/// declares none. The error is a message: no declared adapter has the chosen name.
pub(super) fn resolve(manifest: &Manifest, choice: Option<&Value>) -> Result<Option<Value>, String> {
    let view = |adapter: &DataAdapter| json!({ "name": adapter.name, "type": adapter.kind, "config": adapter.config });
    match choice {
        None => Ok(manifest.data_adapters.first().map(view)),
        Some(Value::String(name)) => {
            let declared = manifest.data_adapters.iter().find(|adapter| adapter.name.as_str() == name);
            declared.map(|adapter| Some(view(adapter))).ok_or_else(|| {
                let all: Vec<_> = manifest.data_adapters.iter().map(|adapter| adapter.name.as_str()).collect();
                let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
                format!("is not the name of an adapter that {} declares ({all})", manifest.name)
            })
        }
        Some(own) => Ok(Some(own.clone())),
    }
}

/// The problems of a choice at `pointer`. No message repeats a value.
pub(super) fn problems(manifest: &Manifest, choice: &Value, pointer: &str) -> Vec<FieldProblem> {
    let problem = |message: String| vec![FieldProblem::new(pointer, message)];
    match choice {
        Value::String(_) => resolve(manifest, Some(choice)).err().map(problem).unwrap_or_default(),
        Value::Object(own) => {
            let bytes = choice.to_string().len();
            if bytes > ADAPTER_MAX_BYTES {
                return problem(format!("has {bytes} bytes of JSON, more than the {ADAPTER_MAX_BYTES} allowed"));
            }
            let mut problems = Vec::new();
            if own.get("type").and_then(Value::as_str).is_none_or(str::is_empty) {
                let message = "is needed: the kind of the adapter, such as api";
                problems.push(FieldProblem::new(format!("{pointer}/type"), message));
            }
            find_credentials(own, false, pointer, &mut problems);
            problems
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            problem("must be the name of an adapter that the plugin declares, or an object with a type".to_owned())
        }
    }
}

/// Adds a problem for each credential in the fields. Everything below a key that looks secret counts as one.
fn find_credentials(fields: &Map<String, Value>, secret: bool, pointer: &str, problems: &mut Vec<FieldProblem>) {
    let names_secret = NAMING.iter().any(|name| fields.get(*name).and_then(Value::as_str).is_some_and(is_secret));
    for (key, value) in fields {
        let below = format!("{pointer}/{}", pointer_part(key));
        let secret = secret || is_secret(key) || (names_secret && key == "value");
        check_value(value, secret, &below, problems);
    }
}

fn check_value(value: &Value, secret: bool, pointer: &str, problems: &mut Vec<FieldProblem>) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(_) if !secret => {}
        Value::String(text) if (!secret || is_reference(text)) && !has_credential(text) => {}
        Value::Number(_) | Value::String(_) => problems.push(FieldProblem::new(
            pointer,
            "looks like a credential, which a channel must not contain; refer to it by env:…, config:… or credential:…",
        )),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check_value(item, secret, &format!("{pointer}/{index}"), problems);
            }
        }
        Value::Object(fields) => find_credentials(fields, secret, pointer, problems),
    }
}

/// Keys whose values are redacted in failures, and keys of any other sort.
fn is_secret(key: &str) -> bool {
    let lowercase = key.to_ascii_lowercase();
    looks_secret(key) || lowercase.ends_with("key") || lowercase.ends_with("keys")
}

/// Whether a text names a credential, such as `env:API_KEY`.
fn is_reference(text: &str) -> bool {
    let is_name = |rest: &str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
        (1..=128).contains(&rest.len()) && rest.chars().all(allowed)
    };
    REFERENCES.iter().any(|prefix| text.strip_prefix(prefix).is_some_and(is_name))
}

/// Whether a text is a URL with a user, a password, a fragment or a secret parameter, or has `name=value` for a secret name,
/// as connection strings have.
fn has_credential(text: &str) -> bool {
    let authority = text.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    let has_user = authority.is_some_and(|authority| authority.contains('@'));
    let has_fragment = authority.is_some() && text.contains('#');
    let has_secret_parameter = || {
        let mut pairs = text.split(['?', '&', ';', '#']).filter_map(|part| part.split_once('='));
        pairs.any(|(name, value)| is_secret(name.trim()) && !is_reference(value.trim()))
    };
    has_user || has_fragment || has_secret_parameter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let text = json!({
            "name": "p", "version": "1.0.0", "display_name": "P", "description": "d",
            "runtime": { "type": "http", "base_url": "https://p.example" }, "permissions": ["network:p.example"],
            "data_adapters": [{ "name": "local", "type": "database" }, { "name": "far", "type": "api", "config": { "a": 1 } }],
            "actions": [{ "name": "a", "description": "d", "effect": "read", "request": { "path": "/" } }],
        });
        Manifest::parse(&text.to_string()).unwrap()
    }

    fn pointers(choice: &Value) -> Vec<String> {
        problems(&manifest(), choice, "").into_iter().map(|problem| problem.pointer).collect()
    }

    #[test]
    fn adapter_is_chosen_by_its_declared_name() {
        let resolve = |choice: Option<Value>| resolve(&manifest(), choice.as_ref());
        assert_eq!(resolve(None).unwrap().unwrap()["name"], "local");
        assert_eq!(
            resolve(Some(json!("far"))).unwrap().unwrap(),
            json!({ "name": "far", "type": "api", "config": { "a": 1 } })
        );
        assert!(resolve(Some(json!("near"))).unwrap_err().contains("local, far"));
        assert_eq!(pointers(&json!("near")), [""]);
    }

    #[test]
    fn own_adapter_is_an_object_with_a_type() {
        assert_eq!(pointers(&json!({ "endpoint": "https://x.example" })), ["/type"]);
        assert_eq!(pointers(&json!({ "type": "" })), ["/type"]);
        for wrong in [json!(null), json!(1), json!(true), json!(["local"])] {
            assert_eq!(pointers(&wrong), [""], "{wrong}");
        }
    }

    #[test]
    fn own_adapter_has_at_most_four_kibibytes() {
        let of = |length: usize| json!({ "type": "api", "endpoint": "x".repeat(length) });
        let most = ADAPTER_MAX_BYTES - of(0).to_string().len();
        assert!(pointers(&of(most)).is_empty());
        assert_eq!(pointers(&of(most + 1)), [""]);
    }

    #[test]
    fn reference_to_a_credential_is_accepted() {
        for fine in [
            json!({ "credentials": "credential-id-123" }),
            json!({ "apiKey": "env:API_KEY", "password": "config:db/password", "token": "credential:a.b" }),
            json!({ "url": "https://their-project.example/rest?page=2", "keyspace": "a", "region": "eu" }),
            json!({ "headers": [{ "name": "x-tenant", "value": "acme" }], "secret": null }),
        ] {
            let mut choice = fine.clone();
            choice["type"] = json!("api");
            assert!(pointers(&choice).is_empty(), "{fine}: {:?}", pointers(&choice));
        }
    }

    #[test]
    fn credential_in_the_clear_is_refused() {
        for (wrong, pointer) in [
            (json!({ "anonKey": "their-anon-key" }), "/anonKey"),
            (json!({ "key": "k" }), "/key"),
            (json!({ "db": { "Password": "hunter2" } }), "/db/Password"),
            (json!({ "db": [{ "api_token": "env:" }] }), "/db/0/api_token"),
            (json!({ "credentials": { "user": "a" } }), "/credentials/user"),
            (json!({ "pin": 1234 }), "/pin"),
            (json!({ "headers": [{ "name": "authorization", "value": "Bearer x" }] }), "/headers/0/value"),
            (json!({ "url": "postgres://user:hunter2@db.example/a" }), "/url"),
            (json!({ "url": "https://a.example/?access_token=x" }), "/url"),
            (json!({ "url": "https://ghp_abc@a.example/" }), "/url"),
            (json!({ "url": "https://a.example/#ghp_abc" }), "/url"),
            (json!({ "url": "jdbc:postgresql://u:hunter2@db.example/x" }), "/url"),
            (json!({ "dsn": "Server=a; Password=b" }), "/dsn"),
            (json!({ "connectionString": "Server=a;Password=b" }), "/connectionString"),
            (json!({ "secret": "env:A B" }), "/secret"),
        ] {
            let mut choice = wrong.clone();
            choice["type"] = json!("api");
            assert_eq!(pointers(&choice), [pointer], "{wrong}");
        }
    }
}
