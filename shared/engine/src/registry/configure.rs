//! The configuration of an instance: checked against the plugin's schema, with defaults for what is left out. Its secrets
//! are written to the vault, and no answer contains them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing::debug_span;
use tracing::field::Empty;

use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{OrgId, PluginName};
use crate::core::problem::FieldProblem;
use crate::core::schema;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::plugin::manifest::Manifest;
use crate::ports::events::EventKind;
use crate::ports::ids::sha256;
use crate::ports::table::Read;
use crate::ports::vault::{Purpose, SecretId, VaultError};
use crate::registry::instances::{ConfigSecrets, Instance, LoadedInstance};
use crate::registry::policy::config_problems;
use crate::storage::keys;

/// The largest configuration, in bytes of JSON. Its secrets may have as many bytes again.
const CONFIG_MAX_BYTES: usize = 16 * 1024;
/// The only version of a secret: each configuration gets a secret with a new id.
const SECRET_VERSION: &str = "1";

/// An instance's configuration, for administrators.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConfigView {
    /// What the organization set, without secrets.
    pub config: Map<String, Value>,
    /// The configuration that calls use: what the organization set, then the plugin's own configuration, then the defaults
    /// of the schema.
    pub effective: Map<String, Value>,
    /// The names of the secrets that are set.
    pub secrets: BTreeSet<String>,
    /// The names of the required secrets that are not set.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub missing_secrets: BTreeSet<String>,
    /// The plugin's schema of its configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Differs whenever the configuration or its secrets do.
    #[serde(skip)]
    pub etag: String,
}

/// A configuration that replaces the earlier one. A secret that is left out stays; a secret that is `null` is deleted.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transparent)]
pub struct SetConfig(pub Map<String, Value>);

/// Checks a configuration without secrets. `pointer` is its place in the request.
pub(crate) fn check_config(
    manifest: &Manifest,
    config: &Map<String, Value>,
    pointer: &str,
) -> Result<(), Vec<FieldProblem>> {
    let bytes = serde_json::to_vec(config).map_or(0, |json| json.len());
    if bytes > CONFIG_MAX_BYTES {
        let message = format!("has {bytes} bytes of JSON, more than the {CONFIG_MAX_BYTES} allowed");
        return Err(vec![FieldProblem::new(pointer, message)]);
    }
    let Some(schema) = &manifest.config_schema else {
        if config.is_empty() {
            return Ok(());
        }
        let message = format!("{} has nothing that can be configured; leave it out", manifest.name);
        return Err(vec![FieldProblem::new(pointer, message)]);
    };
    let is_secret = |name: &&String| manifest.secret_names().any(|secret| secret == name.as_str());
    let mut problems: Vec<_> = config
        .keys()
        .filter(is_secret)
        .map(|name| {
            let path = format!("PUT /api/v1/plugins/{}/config", manifest.name);
            FieldProblem::new(format!("{pointer}/{name}"), format!("is a secret; set it with {path}"))
        })
        .collect();
    let schema = manifest.without_secrets(schema);
    let whole = Value::Object(manifest.config_with_defaults(config.clone()));
    match schema::compile(&schema) {
        Ok(validator) => problems.extend(schema::problems_of(&validator, &schema, &whole, pointer)),
        // Cannot happen: a manifest with a schema that does not compile is refused.
        Err(_) => problems.push(FieldProblem::new(pointer, "the plugin's own schema is wrong; tell its author")),
    }
    if problems.is_empty() {
        problems.extend(config_problems(manifest, config, pointer));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

impl Instance {
    /// The configuration that calls use, without secrets: as set, with defaults for what is left out.
    pub(crate) fn effective_config(&self, manifest: &Manifest) -> Map<String, Value> {
        manifest.config_with_defaults(self.config.clone())
    }

    fn config_etag(&self) -> String {
        let secrets = self.secrets.as_ref().map(|secrets| (&secrets.id, &secrets.names));
        sha256(json!([self.config, secrets]).to_string().as_bytes())
    }

    fn config_view(&self, manifest: &Manifest) -> ConfigView {
        let secrets = self.secrets.as_ref().map(|secrets| secrets.names.clone()).unwrap_or_default();
        let required = manifest.config_schema.as_ref().and_then(|schema| schema.get("required")?.as_array());
        let is_required = |name: &&str| required.into_iter().flatten().any(|required| required.as_str() == Some(*name));
        let missing = manifest.secret_names().filter(is_required).filter(|name| !secrets.contains(*name));
        ConfigView {
            config: self.config.clone(),
            effective: self.effective_config(manifest),
            missing_secrets: missing.map(str::to_owned).collect(),
            secrets,
            schema: manifest.config_schema.clone(),
            etag: self.config_etag(),
        }
    }
}

/// The vault's id of a secret that an instance names: the secrets of its configuration, or a signing secret of its hooks.
pub(crate) fn config_secret_id(org: &OrgId, plugin: &PluginName, id: &str) -> SecretId {
    SecretId { org: org.clone(), purpose: Purpose::Config { plugin: plugin.clone() }, id: id.to_owned() }
}

impl Engine {
    /// As [`Instance::effective_config`], for callers that have not read the instance.
    pub(crate) async fn config_of(&self, org: &OrgId, manifest: &Manifest) -> Result<Map<String, Value>, Error> {
        if manifest.config_schema.is_none() {
            return Ok(Map::new());
        }
        let item = self.ports.table.get(&keys::instance(org, &manifest.name), Read::Consistent).await?;
        Ok(LoadedInstance::of(item)?.instance.effective_config(manifest))
    }

    /// The organization's configuration of a plugin.
    pub async fn config(&self, principal: &Principal, plugin: &str) -> Result<ConfigView, Error> {
        let span = debug_span!("config", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let (plugin, seen) = self.plugin_and_instance(&principal.org, plugin).await?;
            Ok(seen.instance.config_view(&plugin.manifest))
        })
        .await
    }

    /// Replaces the configuration. `expected` are the etags that the caller accepts; another one is a lost update
    /// ([`Error::Changed`]).
    pub async fn set_config(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        SetConfig(values): SetConfig,
        expected: Option<Vec<String>>,
    ) -> Result<ConfigView, Error> {
        let span = debug_span!("set_config", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let (engine, principal) = (Arc::clone(self), principal.clone());
            let (plugin, seen) = self.plugin_and_instance(&principal.org, plugin).await?;
            self.run_to_completion(async move {
                let is_secret = |name: &str| plugin.manifest.secret_names().any(|secret| secret == name);
                let (mut config, mut secrets) = (Map::new(), BTreeMap::new());
                for (name, value) in values {
                    if is_secret(&name) {
                        secrets.insert(name, value);
                    } else {
                        config.insert(name, value);
                    }
                }
                check_config(&plugin.manifest, &config, "").map_err(Error::Invalid)?;
                check_secrets(&plugin.manifest, &secrets).map_err(Error::Invalid)?;
                if expected.is_some_and(|expected| !expected.contains(&seen.instance.config_etag())) {
                    return Err(Error::Changed);
                }
                engine.store_config(&principal, plugin, seen, config, secrets).await
            })
            .await
        })
        .await
    }

    /// Writes the new secrets to the vault, then the instance, and then deletes the secrets that it no longer names.
    async fn store_config(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: Arc<Plugin>,
        seen: LoadedInstance,
        config: Map<String, Value>,
        secrets: BTreeMap<String, Value>,
    ) -> Result<ConfigView, Error> {
        let (org, manifest) = (&principal.org, &plugin.manifest);
        let before = seen.instance.secrets.clone();
        let after = self.store_secrets(org, manifest, &seen.instance, secrets).await?;
        let (etag, digest, new_secrets) = (seen.instance.config_etag(), plugin.digest.clone(), after.clone());
        let change = move |instance: &mut Instance| {
            // Also for callers that sent no etag: one of two concurrent changes would be lost. And the configuration was
            // checked by the schema of one version only.
            let version = instance.installed.as_ref().map(|installed| &installed.digest);
            if instance.config_etag() != etag || version != digest.as_ref() {
                return Err(Error::Changed);
            }
            instance.config.clone_from(&config);
            instance.secrets.clone_from(&new_secrets);
            Ok(())
        };
        let kind = EventKind::PluginConfigured;
        let written = self.update_as(principal, Arc::clone(&plugin), Some(seen), kind, json!({}), change).await;
        let unused = match &written {
            Ok(_) => before.filter(|before| Some(before) != after.as_ref()),
            // The write may have happened: keep the secrets that it may name.
            Err(Error::Table(_) | Error::Panicked(_)) => None,
            Err(_) => after.filter(|after| Some(after) != before.as_ref()),
        };
        if let Some(unused) = unused {
            self.forget_secrets(org, &manifest.name, &unused).await;
        }
        Ok(written?.config_view(manifest))
    }

    /// Writes the secrets after a change to the vault: those before, without deleted ones, with the new ones. Without changes
    /// it writes nothing and gives the present ones.
    async fn store_secrets(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        seen: &Instance,
        changes: BTreeMap<String, Value>,
    ) -> Result<Option<ConfigSecrets>, Error> {
        if changes.is_empty() {
            return Ok(seen.secrets.clone());
        }
        let mut all = BTreeMap::<String, Value>::new();
        if let Some(secrets) = &seen.secrets {
            let stored =
                self.ports.vault.get(&config_secret_id(org, &manifest.name, &secrets.id), SECRET_VERSION).await;
            let stored = match stored {
                // No key opens them any more; they have to be set again.
                Err(VaultError::DoesNotOpen) => None,
                stored => stored?,
            };
            if let Some(text) = stored {
                all = serde_json::from_str(text.expose_secret()).unwrap_or_default();
            }
        }
        all.extend(changes);
        all.retain(|name, value| !value.is_null() && manifest.secret_names().any(|secret| secret == name));
        check_secrets(manifest, &all).map_err(Error::Invalid)?;
        if all.is_empty() {
            return Ok(None);
        }
        let id = self.ports.ids.hex(16);
        let names = all.keys().cloned().collect();
        let text = SecretString::from(json!(all).to_string());
        self.ports.vault.put(&config_secret_id(org, &manifest.name, &id), SECRET_VERSION, &text).await?;
        Ok(Some(ConfigSecrets { id, names }))
    }

    /// Deletes secrets that no instance names any more. A failure is only logged: they stay in the vault, sealed.
    pub(super) async fn forget_secrets(&self, org: &OrgId, plugin: &PluginName, secrets: &ConfigSecrets) {
        if let Err(error) = self.ports.vault.delete(&config_secret_id(org, plugin, &secrets.id)).await {
            tracing::error!(%org, %plugin, error = %causes(&error), "failed to delete secrets of a configuration");
        }
    }
}

/// Checks secrets against the schema. The problems never quote a value.
fn check_secrets(manifest: &Manifest, secrets: &BTreeMap<String, Value>) -> Result<(), Vec<FieldProblem>> {
    let bytes = json!(secrets).to_string().len();
    if bytes > CONFIG_MAX_BYTES {
        let message = format!("the secrets have {bytes} bytes of JSON, more than the {CONFIG_MAX_BYTES} allowed");
        return Err(vec![FieldProblem::new("", message)]);
    }
    let mut problems = Vec::new();
    for (name, value) in secrets.iter().filter(|(_, value)| !value.is_null()) {
        let properties = manifest.config_schema.as_ref().and_then(|schema| schema.get("properties")?.get(name));
        let fits =
            properties.and_then(|schema| schema::compile(schema).ok()).is_none_or(|schema| schema.is_valid(value));
        if !fits {
            problems.push(FieldProblem::new(format!("/{name}"), "is not what the plugin's schema says it must be"));
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
