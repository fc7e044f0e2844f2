//! A plugin in memory: its manifest with compiled schemas.

use std::sync::OnceLock;

use jsonschema::Validator;
use serde_json::{Map, Value};

use crate::core::error::Error;
use crate::core::ids::ActionName;
use crate::core::problem::FieldProblem;
use crate::core::schema;
use crate::core::suggest::nearest;
use crate::plugin::digest::Digest;
use crate::plugin::manifest::{Action, Manifest};

/// A plugin in memory.
#[derive(Debug)]
pub struct Plugin {
    /// Its manifest.
    pub manifest: Manifest,
    /// The digest of the manifest's text, for a registered plugin; `None` for one of the catalog.
    pub(crate) digest: Option<Digest>,
    /// The compiled parameter schemas, in the order of actions; compiled at first use.
    validators: Vec<OnceLock<Option<Validator>>>,
}

impl Plugin {
    pub(super) fn new(manifest: Manifest) -> Self {
        let validators = manifest.actions.iter().map(|_| OnceLock::new()).collect();
        Self { manifest, digest: None, validators }
    }

    /// A plugin of the registry, with the digest of its manifest's text.
    pub(crate) fn registered(manifest: Manifest, digest: Digest) -> Self {
        Self { digest: Some(digest), ..Self::new(manifest) }
    }

    /// The action with that name or alias.
    pub fn action(&self, name: &str) -> Result<CompiledAction<'_>, Error> {
        let found = self.manifest.actions.iter().zip(&self.validators).find(|(action, _)| {
            action.name.as_str() == name || action.aliases.iter().any(|alias| alias.as_str() == name)
        });
        let Some((action, validator)) = found else {
            let names = self.manifest.actions.iter().flat_map(|a| std::iter::once(&a.name).chain(&a.aliases));
            return Err(Error::UnknownAction {
                plugin: self.manifest.name.to_string(),
                name: name.to_owned(),
                nearest: nearest(name, names.map(ActionName::as_str)),
            });
        };
        Ok(CompiledAction { action, validator })
    }
}

/// An action with its compiled parameter schema.
#[derive(Debug, Clone, Copy)]
pub struct CompiledAction<'a> {
    /// The action.
    pub action: &'a Action,
    validator: &'a OnceLock<Option<Validator>>,
}

impl CompiledAction<'_> {
    /// Adds defaults to the parameters and validates them. The error has every problem, with pointers into the intent.
    pub fn check(&self, parameters: Map<String, Value>) -> Result<Map<String, Value>, Error> {
        let parameters = Value::Object(self.action.with_defaults(parameters));
        // Always compiles: a manifest with another schema is refused.
        let validator = self.validator.get_or_init(|| schema::compile(&self.action.parameters).ok());
        let problems = match validator {
            Some(validator) => schema::problems_of(validator, &self.action.parameters, &parameters, "/context"),
            None => vec![FieldProblem::new("/intent", "the action's own schema is invalid; tell the plugin's author")],
        };
        match parameters {
            Value::Object(parameters) if problems.is_empty() => Ok(parameters),
            Value::Object(_) | Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                Err(Error::Invalid(problems))
            }
        }
    }
}
