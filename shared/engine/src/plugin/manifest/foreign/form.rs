//! Recognizes the form of a manifest and reads the older ones.

use serde_json::{Map, Value, json};

use super::fields::{Translated, read_value};
use super::{domain, environment, module};
use crate::plugin::manifest::{Manifest, ManifestError, Permission};

/// The form in which a manifest is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin::manifest) enum Form {
    /// Overseer's own.
    Own,
    /// An environment that an operator deploys: has `image`.
    Environment,
    /// Code: has `main_module` or `class_name`.
    Module,
    /// A domain: has `functions` with handlers.
    Domain,
}

impl Form {
    /// The form of a document. A document with Overseer's own `runtime` is in its own form.
    pub(in crate::plugin::manifest) fn of(document: &Map<String, Value>) -> Self {
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

    /// Pairs of a key in Overseer's own form and the key in this form, where they differ. A key that begins with a dot may be
    /// anywhere in a path; any other is at its beginning.
    fn renamed_keys(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Own => &[],
            Self::Environment => environment::RENAMED_KEYS,
            Self::Module => module::RENAMED_KEYS,
            Self::Domain => domain::RENAMED_KEYS,
        }
    }

    /// A problem with the keys of its path as the author wrote them.
    pub(in crate::plugin::manifest) fn with_author_keys(self, problem: String) -> String {
        let Some((path, text)) = problem.split_once(": ") else { return problem };
        for (own, theirs) in self.renamed_keys() {
            if own.starts_with('.') && path.contains(own) {
                return format!("{}: {text}", path.replacen(own, theirs, 1));
            }
            if let Some(rest) = path.strip_prefix(own)
                && (rest.is_empty() || rest.starts_with(['.', '/', '[']))
            {
                return format!("{theirs}{rest}: {text}");
            }
        }
        problem
    }
}

/// Reads a document of an older form; `None` if it is in Overseer's own.
pub(in crate::plugin::manifest) fn read(
    form: Form,
    document: Map<String, Value>,
) -> Option<Result<Manifest, ManifestError>> {
    let translated = match form {
        Form::Own => return None,
        Form::Environment => environment::translate(document),
        Form::Module => module::translate(document),
        Form::Domain => domain::translate(document),
    };
    let manifest = translated.and_then(|Translated { mut manifest, runtime, permissions }| {
        // A placeholder, since the key is required; the translated runtime replaces it.
        manifest.insert("runtime".to_owned(), json!({ "type": "module" }));
        let permissions = permissions.into_iter().map(Permission::from_module_form).collect();
        Ok(Manifest { runtime, permissions, ..read_value("", Value::Object(manifest))? })
    });
    Some(manifest.map_err(|problem| ManifestError::one(form.with_author_keys(problem))))
}
