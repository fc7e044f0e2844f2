//! The three older forms of a manifest, which register unchanged: each is put into the words of our own form, and read as
//! that. What they have beside what is known of them is passed over, and what they do not say is taken at its worst: an
//! action of theirs is `unsafe`.

mod domain;
mod environment;
mod module;
#[cfg(test)]
mod tests;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{Manifest, Permission, Runtime};
use crate::core::ids::PermissionName;
use crate::plugin::manifest::problems::ManifestError;

/// The form that a manifest is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Our own.
    Own,
    /// Of an environment that is deployed: `image`.
    Environment,
    /// Of code: `main_module` and `class_name`.
    Module,
    /// Of a domain: `functions` with handlers.
    Domain,
}

/// A document in our own words. What it says of its runtime and its permissions is read apart.
struct Translated {
    manifest: Map<String, Value>,
    runtime: Runtime,
    permissions: Vec<PermissionName>,
}

impl Form {
    /// The form of a document. What says how it runs here is not an older one.
    pub(super) fn of(document: &Map<String, Value>) -> Self {
        let has = |keys: &[&str]| keys.iter().any(|key| document.contains_key(*key));
        if has(&["runtime"]) {
            Self::Own
        } else if has(&["image"]) {
            Self::Environment
        } else if has(&["main_module", "class_name"]) {
            Self::Module
        } else if has(&["functions", "displayName"]) {
            Self::Domain
        } else {
            Self::Own
        }
    }

    /// What the form calls what we call otherwise. What begins with a point may stand anywhere in a place.
    fn words(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Own => &[],
            Self::Environment => environment::WORDS,
            Self::Module => module::WORDS,
            Self::Domain => domain::WORDS,
        }
    }

    /// A problem with its place as the author wrote it.
    pub(super) fn in_its_words(self, problem: String) -> String {
        let Some((place, text)) = problem.split_once(": ") else { return problem };
        for (own, theirs) in self.words() {
            if own.starts_with('.') && place.contains(own) {
                return format!("{}: {text}", place.replacen(own, theirs, 1));
            }
            if let Some(rest) = place.strip_prefix(own)
                && (rest.is_empty() || rest.starts_with(['.', '/', '[']))
            {
                return format!("{theirs}{rest}: {text}");
            }
        }
        problem
    }
}

/// Reads a document of an older form; nothing where it is of our own.
pub(super) fn read(form: Form, document: Map<String, Value>) -> Option<Result<Manifest, ManifestError>> {
    let translated = match form {
        Form::Own => return None,
        Form::Environment => environment::translated(document),
        Form::Module => module::translated(document),
        Form::Domain => domain::translated(document),
    };
    let in_its_words = |problem| ManifestError::one(form.in_its_words(problem));
    let read = translated.and_then(|Translated { mut manifest, runtime, permissions }| {
        manifest.insert("runtime".to_owned(), json!({ "type": "module" }));
        let permissions = permissions.into_iter().map(Permission::of_module_form).collect();
        Ok(Manifest { runtime, permissions, ..read_value("", Value::Object(manifest))? })
    });
    Some(read.map_err(in_its_words))
}

/// Reads a value that stands at `place`; the error begins with the place that is wrong.
fn read_value<T: DeserializeOwned>(place: &str, value: Value) -> Result<T, String> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let within = Some(error.path().to_string()).filter(|path| path != ".").unwrap_or_default();
        match format!("{place}{within}").as_str() {
            "" => error.inner().to_string(),
            place => format!("{place}: {}", error.inner()),
        }
    })
}

/// The keys that all forms write as we do.
const SHARED: [&str; 6] = ["author", "compatible_versions", "default_enabled", "license", "version", "website"];

/// The beginning of a manifest in our own words. What nobody says is empty, and the display name is the name.
fn begun(document: &mut Map<String, Value>, name: &str, display_name: &str) -> Map<String, Value> {
    let mut own = Map::new();
    let shown = document.remove(display_name).filter(|value| !value.is_null());
    let name = document.remove(name);
    own.extend(shown.or_else(|| name.clone()).map(|shown| ("display_name".to_owned(), shown)));
    own.extend(name.map(|name| ("name".to_owned(), name)));
    own.insert("description".to_owned(), taken(document, "description").unwrap_or_else(|| "".into()));
    for key in SHARED {
        own.extend(taken(document, key).map(|value| (key.to_owned(), value)));
    }
    own
}

/// Takes what stands under a key, if it is anything.
fn taken(fields: &mut Map<String, Value>, key: &str) -> Option<Value> {
    fields.remove(key).filter(|value| !value.is_null())
}

/// Takes an object.
fn taken_object(fields: &mut Map<String, Value>, key: &str) -> Result<Map<String, Value>, String> {
    match taken(fields, key) {
        None => Ok(Map::new()),
        Some(Value::Object(object)) => Ok(object),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            Err(format!("{key}: must be an object"))
        }
    }
}

/// An object, and its place.
type Placed = (String, Map<String, Value>);

/// Takes a list of objects.
fn taken_objects(fields: &mut Map<String, Value>, key: &str) -> Result<Vec<Placed>, String> {
    let list = match taken(fields, key) {
        None => return Ok(Vec::new()),
        Some(Value::Array(list)) => list,
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
            return Err(format!("{key}: must be a list"));
        }
    };
    let object = |(index, item)| match item {
        Value::Object(object) => Ok((format!("{key}[{index}]"), object)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(format!("{key}[{index}]: must be an object"))
        }
    };
    list.into_iter().enumerate().map(object).collect()
}

/// A value with the known keys only, where it is an object or a list of objects.
fn kept(value: Value, keys: &[&str]) -> Value {
    match value {
        Value::Object(fields) => {
            let known = |(key, value): &(String, Value)| keys.contains(&key.as_str()) && !value.is_null();
            fields.into_iter().filter(known).collect()
        }
        Value::Array(items) => items.into_iter().map(|item| kept(item, keys)).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

/// A schema of an object that does not say that it is one.
fn of_object(mut schema: Value) -> Value {
    if let Some(fields) = schema.as_object_mut() {
        fields.entry("type").or_insert_with(|| "object".into());
    }
    schema
}

/// What is said of an action that is the same in all forms.
fn action(fields: &mut Map<String, Value>) -> Map<String, Value> {
    let mut action = Map::new();
    action.extend(taken(fields, "name").map(|name| ("name".to_owned(), name)));
    action.insert("description".to_owned(), taken(fields, "description").unwrap_or_else(|| "".into()));
    action.insert("effect".to_owned(), taken(fields, "effect").unwrap_or_else(|| "unsafe".into()));
    action
}
