//! Where the data of a plugin is, as a channel says it: an adapter that the plugin declares, or one of the channel's own. A
//! channel is shown to operators and to agents, so that no credential may stand in it: only what names one.

use serde_json::{Map, Value, json};

use crate::core::problem::FieldProblem;
use crate::invoke::failures::looks_secret;
use crate::plugin::manifest::{DataAdapter, Manifest};

/// The largest adapter of a channel's own, in bytes of JSON.
pub(super) const ADAPTER_MAX_BYTES: usize = 4 * 1024;
/// How a text begins that names a credential.
const REFERENCES: [&str; 4] = ["env:", "config:", "credential:", "credential-"];
/// The fields by which an object may name what its `value` is, as lists of headers do.
const NAMING: [&str; 2] = ["name", "header"];

/// Where a plugin's data is, or that no adapter has the name that was chosen.
pub(super) fn chosen(manifest: &Manifest, choice: Option<&Value>) -> Result<Option<Value>, String> {
    let shown = |adapter: &DataAdapter| json!({ "name": adapter.name, "type": adapter.kind, "config": adapter.config });
    match choice {
        None => Ok(manifest.data_adapters.first().map(shown)),
        Some(Value::String(name)) => {
            let found = manifest.data_adapters.iter().find(|adapter| adapter.name.as_str() == name);
            found.map(|adapter| Some(shown(adapter))).ok_or_else(|| {
                let all: Vec<_> = manifest.data_adapters.iter().map(|adapter| adapter.name.as_str()).collect();
                let all = if all.is_empty() { "none".to_owned() } else { all.join(", ") };
                format!("is not the name of an adapter that {} declares ({all})", manifest.name)
            })
        }
        Some(own) => Ok(Some(own.clone())),
    }
}

/// What is wrong with a choice. Nothing that is said has a value in it.
pub(super) fn problems(manifest: &Manifest, choice: &Value, place: &str) -> Vec<FieldProblem> {
    let problem = |message: String| vec![FieldProblem::new(place, message)];
    match choice {
        Value::String(_) => chosen(manifest, Some(choice)).err().map(problem).unwrap_or_default(),
        Value::Object(own) => {
            let bytes = choice.to_string().len();
            if bytes > ADAPTER_MAX_BYTES {
                return problem(format!("has {bytes} bytes of JSON, more than the {ADAPTER_MAX_BYTES} allowed"));
            }
            let mut problems = Vec::new();
            if own.get("type").and_then(Value::as_str).is_none_or(str::is_empty) {
                problems
                    .push(FieldProblem::new(format!("{place}/type"), "is needed: what the adapter is, such as api"));
            }
            in_the_clear(own, false, place, &mut problems);
            problems
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            problem("must be the name of an adapter that the plugin declares, or an object with a type".to_owned())
        }
    }
}

/// Credentials that stand there as they are. All below a key that looks secret is one.
fn in_the_clear(fields: &Map<String, Value>, secret: bool, place: &str, problems: &mut Vec<FieldProblem>) {
    let named = NAMING.iter().any(|name| fields.get(*name).and_then(Value::as_str).is_some_and(is_secret));
    for (key, value) in fields {
        let below = format!("{place}/{}", key.replace('~', "~0").replace('/', "~1"));
        look(value, secret || is_secret(key) || (named && key == "value"), &below, problems);
    }
}

fn look(value: &Value, secret: bool, place: &str, problems: &mut Vec<FieldProblem>) {
    match value {
        Value::Null | Value::Bool(_) => {}
        Value::Number(_) if !secret => {}
        Value::String(text) if (!secret || is_reference(text)) && !has_credential(text) => {}
        Value::Number(_) | Value::String(_) => problems.push(FieldProblem::new(
            place,
            "looks like a credential, which a channel never holds; name one by env:…, config:… or credential:… instead",
        )),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                look(item, secret, &format!("{place}/{index}"), problems);
            }
        }
        Value::Object(fields) => in_the_clear(fields, secret, place, problems),
    }
}

/// Beside all that is kept of nobody's parameters, keys of any sort.
fn is_secret(key: &str) -> bool {
    let plain = key.to_ascii_lowercase();
    looks_secret(key) || plain.ends_with("key") || plain.ends_with("keys")
}

fn is_reference(text: &str) -> bool {
    let is_name = |rest: &str| {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
        (1..=128).contains(&rest.len()) && rest.chars().all(plain)
    };
    REFERENCES.iter().any(|prefix| text.strip_prefix(prefix).is_some_and(is_name))
}

/// Whether a text is an address with a user, a password, a fragment or a secret parameter in it, or says `name=value` of
/// something secret as connection strings do.
fn has_credential(text: &str) -> bool {
    let authority = text.split_once("://").and_then(|(_, rest)| rest.split(['/', '?', '#']).next());
    let of_parameters = || {
        let pairs = text.split(['?', '&', ';', '#']).filter_map(|part| part.split_once('='));
        pairs.into_iter().any(|(name, value)| is_secret(name.trim()) && !is_reference(value.trim()))
    };
    let has_user = authority.is_some_and(|authority| authority.contains('@'));
    has_user || (authority.is_some() && text.contains('#')) || of_parameters()
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

    fn places(choice: &Value) -> Vec<String> {
        problems(&manifest(), choice, "").into_iter().map(|problem| problem.pointer).collect()
    }

    #[test]
    fn an_adapter_is_one_that_is_declared_or_an_object_with_a_type() {
        let chosen = |choice: Option<Value>| chosen(&manifest(), choice.as_ref());
        assert_eq!(chosen(None).unwrap().unwrap()["name"], "local");
        assert_eq!(
            chosen(Some(json!("far"))).unwrap().unwrap(),
            json!({ "name": "far", "type": "api", "config": { "a": 1 } })
        );
        assert!(chosen(Some(json!("near"))).unwrap_err().contains("local, far"));
        assert_eq!(places(&json!("near")), [""]);
        assert_eq!(places(&json!({ "endpoint": "https://x.example" })), ["/type"]);
        assert_eq!(places(&json!({ "type": "" })), ["/type"]);
        for wrong in [json!(null), json!(1), json!(true), json!(["local"])] {
            assert_eq!(places(&wrong), [""], "{wrong}");
        }
        let of = |length: usize| json!({ "type": "api", "endpoint": "x".repeat(length) });
        let most = ADAPTER_MAX_BYTES - of(0).to_string().len();
        assert!(places(&of(most)).is_empty());
        assert_eq!(places(&of(most + 1)), [""]);
    }

    #[test]
    fn no_credential_stands_in_the_clear() {
        for fine in [
            json!({ "credentials": "credential-id-123" }),
            json!({ "apiKey": "env:API_KEY", "password": "config:db/password", "token": "credential:a.b" }),
            json!({ "url": "https://their-project.example/rest?page=2", "keyspace": "a", "region": "eu" }),
            json!({ "headers": [{ "name": "x-tenant", "value": "acme" }], "secret": null }),
        ] {
            let mut choice = fine.clone();
            choice["type"] = json!("api");
            assert!(places(&choice).is_empty(), "{fine}: {:?}", places(&choice));
        }
        for (wrong, place) in [
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
            assert_eq!(places(&choice), [place], "{wrong}");
        }
    }
}
