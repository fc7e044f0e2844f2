//! The configuration of an instance: checked against the plugin's schema, with defaults for what is left out. Its secrets go
//! into the vault and never come back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{OrgId, PluginName};
use crate::core::problem::FieldProblem;
use crate::core::schema;
use crate::engine::Engine;
use crate::plugin::manifest::Manifest;
use crate::ports::events::EventKind;
use crate::ports::ids::sha256;
use crate::ports::table::Read;
use crate::ports::vault::{Purpose, SecretId, VaultError};
use crate::registry::instances::{ConfigSecrets, Instance, SeenInstance};
use crate::registry::policy::config_problems;
use crate::storage::keys;

/// The largest configuration, in bytes of JSON, and as much again for its secrets.
const CONFIG_MAX_BYTES: usize = 16 * 1024;
/// The only version of a secret: another configuration is another secret.
const VERSION: &str = "1";

/// An instance's configuration as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConfigView {
    /// What the organization set, without secrets.
    pub config: Map<String, Value>,
    /// What counts: what was set, the plugin's own configuration for what is left out, and then the defaults of its schema.
    pub effective: Map<String, Value>,
    /// The secrets that are set, by their names.
    pub secrets: BTreeSet<String>,
    /// The secrets that are needed and not set.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub missing_secrets: BTreeSet<String>,
    /// The schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<Value>,
    /// Changes with the configuration.
    #[serde(skip)]
    pub etag: String,
}

/// A configuration, in the place of what was set before. Of the secrets, those that are left out stay, and those that are
/// `null` go.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transparent)]
pub struct SetConfig(pub Map<String, Value>);

/// What is wrong with a configuration that has no secrets in it.
pub(crate) fn check_config(
    manifest: &Manifest,
    config: &Map<String, Value>,
    place: &str,
) -> Result<(), Vec<FieldProblem>> {
    let bytes = serde_json::to_vec(config).map_or(0, |json| json.len());
    if bytes > CONFIG_MAX_BYTES {
        let message = format!("has {bytes} bytes of JSON, more than the {CONFIG_MAX_BYTES} allowed");
        return Err(vec![FieldProblem::new(place, message)]);
    }
    let Some(schema) = &manifest.config_schema else {
        if config.is_empty() {
            return Ok(());
        }
        let message = format!("{} has nothing that can be configured; leave it out", manifest.name);
        return Err(vec![FieldProblem::new(place, message)]);
    };
    let secret = |name: &&String| manifest.secret_names().any(|secret| secret == name.as_str());
    let mut problems: Vec<_> = config
        .keys()
        .filter(secret)
        .map(|name| {
            let path = format!("PUT /api/v1/plugins/{}/config", manifest.name);
            FieldProblem::new(format!("{place}/{name}"), format!("is a secret; set it with {path}"))
        })
        .collect();
    let schema = manifest.without_secrets(schema);
    let whole = Value::Object(manifest.config_with_defaults(config.clone()));
    match schema::compile(&schema) {
        Ok(validator) => problems.extend(schema::problems_of(&validator, &schema, &whole, place)),
        // A schema that does not compile was refused with its manifest.
        Err(_) => problems.push(FieldProblem::new(place, "the plugin's own schema is wrong; tell its author")),
    }
    if problems.is_empty() {
        problems.extend(config_problems(manifest, config, place));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

impl Instance {
    /// What the configuration comes to, without secrets.
    pub(crate) fn effective_config(&self, manifest: &Manifest) -> Map<String, Value> {
        manifest.config_with_defaults(self.config.clone())
    }

    fn config_etag(&self) -> String {
        let secrets = self.secrets.as_ref().map(|secrets| (&secrets.id, &secrets.names));
        sha256(json!([self.config, secrets]).to_string().as_bytes())
    }

    fn config_shown(&self, manifest: &Manifest) -> ConfigView {
        let secrets = self.secrets.as_ref().map(|secrets| secrets.names.clone()).unwrap_or_default();
        let required = manifest.config_schema.as_ref().and_then(|schema| schema.get("required")?.as_array());
        let needed = |name: &&str| required.into_iter().flatten().any(|required| required.as_str() == Some(*name));
        let missing = manifest.secret_names().filter(needed).filter(|name| !secrets.contains(*name));
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

/// Where a secret is that a plugin's instance names: those of its configuration, or one that signs.
pub(crate) fn config_secret_id(org: &OrgId, plugin: &PluginName, id: &str) -> SecretId {
    SecretId { org: org.clone(), purpose: Purpose::Config { plugin: plugin.clone() }, id: id.to_owned() }
}

impl Engine {
    /// What the configuration of a plugin comes to in an organization, for whoever has not read its instance.
    pub(crate) async fn config_of(&self, org: &OrgId, manifest: &Manifest) -> Result<Map<String, Value>, Error> {
        if manifest.config_schema.is_none() {
            return Ok(Map::new());
        }
        let item = self.ports.table.get(&keys::instance(org, &manifest.name), Read::Consistent).await?;
        Ok(SeenInstance::of(item)?.instance.effective_config(manifest))
    }

    /// The configuration of a plugin as the organization has it.
    pub async fn config(&self, principal: &Principal, plugin: &str) -> Result<ConfigView, Error> {
        principal.must_administer()?;
        let (plugin, seen) = self.plugin_and_instance(&principal.org, plugin).await?;
        Ok(seen.instance.config_shown(&plugin.manifest))
    }

    /// Sets the configuration. `expected` are the tags that it may have now; where it has another, somebody else was faster
    /// ([`Error::Changed`]).
    pub async fn set_config(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        SetConfig(given): SetConfig,
        expected: Option<Vec<String>>,
    ) -> Result<ConfigView, Error> {
        principal.must_administer()?;
        let (engine, principal) = (Arc::clone(self), principal.clone());
        let (plugin, seen) = self.plugin_and_instance(&principal.org, plugin).await?;
        self.run_to_completion(async move {
            let (org, manifest) = (&principal.org, &plugin.manifest);
            let (mut config, mut secrets) = (Map::new(), BTreeMap::new());
            for (name, value) in given {
                if manifest.secret_names().any(|secret| secret == name) {
                    secrets.insert(name, value);
                } else {
                    config.insert(name, value);
                }
            }
            check_config(manifest, &config, "").map_err(Error::Invalid)?;
            check_secrets(manifest, &secrets).map_err(Error::Invalid)?;
            let etag = seen.instance.config_etag();
            if expected.is_some_and(|expected| !expected.contains(&etag)) {
                return Err(Error::Changed);
            }
            let kept = engine.kept_secrets(org, manifest, &seen.instance, secrets).await?;
            let (before, after) = (seen.instance.secrets.clone(), kept.clone());
            let digest = plugin.digest.clone();
            let change = move |instance: &mut Instance| {
                // Also for those who did not say what they had looked at: else one of two changes would be lost. And what
                // was checked by one version's schema is nothing to another.
                let version = instance.installed.as_ref().map(|installed| &installed.digest);
                if instance.config_etag() != etag || version != digest.as_ref() {
                    return Err(Error::Changed);
                }
                instance.config.clone_from(&config);
                instance.secrets.clone_from(&after);
                Ok(())
            };
            let said = (EventKind::PluginConfigured, json!({}));
            let changed = engine.update_as(&principal, Arc::clone(&plugin), Some(seen), said, change);
            let (instance, unused) = match changed.await {
                Ok(instance) => (instance, before.filter(|before| Some(before) != kept.as_ref())),
                // What is not known to have failed may be there.
                Err(error @ (Error::Table(_) | Error::Panicked(_))) => return Err(error),
                Err(error) => {
                    if let Some(new) = kept.filter(|kept| Some(kept) != before.as_ref()) {
                        engine.forget_secrets(org, &manifest.name, &new).await;
                    }
                    return Err(error);
                }
            };
            if let Some(unused) = unused {
                engine.forget_secrets(org, &manifest.name, &unused).await;
            }
            Ok(instance.config_shown(manifest))
        })
        .await
    }

    /// The secrets after a change, kept: those before, less those that go, and those that come.
    async fn kept_secrets(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        seen: &Instance,
        given: BTreeMap<String, Value>,
    ) -> Result<Option<ConfigSecrets>, Error> {
        if given.is_empty() {
            return Ok(seen.secrets.clone());
        }
        let mut all = BTreeMap::<String, Value>::new();
        if let Some(secrets) = &seen.secrets {
            let stored = self.ports.vault.get(&config_secret_id(org, &manifest.name, &secrets.id), VERSION).await;
            let stored = match stored {
                // What nobody can open any more can only be set anew.
                Err(VaultError::DoesNotOpen) => None,
                stored => stored?,
            };
            if let Some(text) = stored {
                all = serde_json::from_str(text.expose_secret()).unwrap_or_default();
            }
        }
        all.extend(given);
        all.retain(|name, value| !value.is_null() && manifest.secret_names().any(|secret| secret == name));
        check_secrets(manifest, &all).map_err(Error::Invalid)?;
        if all.is_empty() {
            return Ok(None);
        }
        let id = self.ports.ids.hex(16);
        let names = all.keys().cloned().collect();
        let text = SecretString::from(json!(all).to_string());
        self.ports.vault.put(&config_secret_id(org, &manifest.name, &id), VERSION, &text).await?;
        Ok(Some(ConfigSecrets { id, names }))
    }

    pub(super) async fn forget_secrets(&self, org: &OrgId, plugin: &PluginName, secrets: &ConfigSecrets) {
        if let Err(error) = self.ports.vault.delete(&config_secret_id(org, plugin, &secrets.id)).await {
            // Nothing refers to it any more, and it is sealed.
            tracing::error!(%org, error = %causes(&error), "secrets of a configuration stay in the vault");
        }
    }
}

/// What is wrong with secrets. What is said never has one in it.
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
