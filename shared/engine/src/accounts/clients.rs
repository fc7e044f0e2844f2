//! OAuth clients: the identity that Overseer has at a provider. An organization's own client comes first; the operator's
//! client serves only plugins of the built-in catalog.

use std::sync::Arc;

use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tracing::debug_span;
use tracing::field::Empty;
use url::Url;

use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{OrgId, PluginName};
use crate::core::problem::FieldProblem;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::outbound::config::{CLIENT_ID_RULE, OauthClient, is_client_id};
use crate::outbound::credential::check_client_secret;
use crate::outbound::oauth::Protocol;
use crate::plugin::manifest::{Auth, Manifest};
use crate::ports::ids::sha256;
use crate::ports::table::{Condition, Item, NewItem, Read};
use crate::ports::vault::{Purpose, SecretId};
use crate::storage::compare_and_set::CompareAndSet;
use crate::storage::keys;

/// An organization's own client at a provider.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewClient {
    /// Its id at the provider: 1 to 255 printable ASCII characters.
    pub client_id: String,
    /// Its secret at the provider. A public client has none.
    #[schemars(with = "Option<String>")]
    pub client_secret: Option<SecretString>,
}

/// The client that Overseer uses for a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientInUse {
    /// The plugin's name.
    pub plugin: PluginName,
    /// Its id at the provider, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Where it comes from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<ClientSource>,
    /// The redirect URI to register at the provider, character for character.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect_uri: Option<Url>,
}

/// Where a client comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientSource {
    /// The organization set it.
    Organization,
    /// The operator set it, for all organizations.
    Operator,
    /// It belongs to the stand-in.
    StandIn,
}

/// The stored record of an organization's client.
#[derive(Debug, Serialize, Deserialize)]
struct ClientRecord {
    client_id: String,
    /// What the secret may be used for: [`Engine::audience`] when it was set.
    #[serde(rename = "bound_to")]
    audience: String,
    /// The id of the secret in the vault; `None` for a public client.
    secret: Option<String>,
}

impl ClientRecord {
    fn version(self) -> String {
        self.secret.unwrap_or(self.client_id)
    }
}

/// A client, where it comes from, and its version.
pub(super) struct VersionedClient {
    pub client: OauthClient,
    source: ClientSource,
    /// Another text for another client or secret.
    pub version: String,
}

impl VersionedClient {
    /// A client of the configuration. Sixteen bits of a digest tell its versions apart, and nothing of the secret.
    fn configured(client: &OauthClient, source: ClientSource) -> Self {
        let secret = client.secret.as_ref().map(ExposeSecret::expose_secret).unwrap_or_default();
        let mut version = sha256(format!("{}\n{secret}", client.id).as_bytes());
        version.truncate(4);
        Self { client: client.clone(), source, version }
    }
}

/// The only version of each secret: a new client gets a new id.
const VERSION: &str = "1";

fn secret_id(org: &OrgId, plugin: &PluginName, id: &str) -> SecretId {
    SecretId { org: org.clone(), purpose: Purpose::Client { plugin: plugin.clone() }, id: id.to_owned() }
}

impl Engine {
    /// The client that Overseer uses for a plugin, if there is one.
    pub(super) async fn client(&self, org: &OrgId, manifest: &Manifest) -> Result<Option<OauthClient>, Error> {
        Ok(self.versioned_client(org, manifest).await?.map(|versioned| versioned.client))
    }

    /// The version of the client that Overseer uses for a plugin, without its secret. It changes with every secret.
    pub(super) async fn client_version(&self, org: &OrgId, manifest: &Manifest) -> Result<Option<String>, Error> {
        if let Some(configured) = self.stand_in_client(manifest) {
            return Ok(Some(configured.version));
        }
        let record = self.client_record(org, manifest).await?;
        Ok(record.map(ClientRecord::version).or_else(|| Some(self.operator_client(manifest)?.version)))
    }

    fn stand_in_client(&self, manifest: &Manifest) -> Option<VersionedClient> {
        let stand_in = self.config.stand_ins.get(&manifest.name)?;
        Some(VersionedClient::configured(&stand_in.client, ClientSource::StandIn))
    }

    fn operator_client(&self, manifest: &Manifest) -> Option<VersionedClient> {
        let client = self.config.services.get(&manifest.name)?.client.as_ref()?;
        Some(VersionedClient::configured(client, ClientSource::Operator))
    }

    /// The record of the organization's own client, if it has one for the plugin as it is.
    async fn client_record(&self, org: &OrgId, manifest: &Manifest) -> Result<Option<ClientRecord>, Error> {
        let item = self.ports.table.get(&keys::client(org, &manifest.name), Read::Consistent).await?;
        let record: Option<ClientRecord> = item.as_ref().map(Item::record).transpose()?;
        Ok(record.filter(|record| record.audience == self.audience(manifest)))
    }

    /// Like [`client`](Self::client), with its version.
    pub(super) async fn versioned_client(
        &self,
        org: &OrgId,
        manifest: &Manifest,
    ) -> Result<Option<VersionedClient>, Error> {
        let plugin = &manifest.name;
        if let Some(stand_in) = self.stand_in_client(manifest) {
            return Ok(Some(stand_in));
        }
        // Twice at most: the secret may be replaced between the two reads.
        for _ in 0..2 {
            let Some(record) = self.client_record(org, manifest).await? else { break };
            let secret = match &record.secret {
                Some(id) => match self.ports.vault.get(&secret_id(org, plugin, id), VERSION).await? {
                    Some(secret) => Some(secret),
                    None => continue,
                },
                None => None,
            };
            let client = OauthClient { id: record.client_id.clone(), secret };
            let source = ClientSource::Organization;
            return Ok(Some(VersionedClient { client, source, version: record.version() }));
        }
        Ok(self.operator_client(manifest))
    }

    /// The protocol with a plugin's provider, if the plugin has one.
    pub(super) fn protocol<'a>(
        &'a self,
        manifest: &'a Manifest,
        client: &'a OauthClient,
        deadline: Instant,
    ) -> Option<Protocol<'a>> {
        let stand_in = self.config.stand_ins.get(&manifest.name);
        Some(Protocol::new(&self.outbound, manifest.auth.provider()?, stand_in, client, deadline))
    }

    /// The redirect URI of a plugin. Each plugin has its own: no provider can present another provider's response as
    /// its own (RFC 9700, 4.4). A registered plugin has one in each organization, because another organization may have
    /// registered another plugin by that name.
    pub(super) fn redirect_uri(&self, org: &OrgId, plugin: &PluginName) -> Option<Url> {
        let base = self.config.public_url.as_ref()?.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}/api/plugin-engine/oauth/callback/{}", self.callback_name(org, plugin))).ok()
    }

    /// The name of a plugin in the path of its redirect URI.
    pub(super) fn callback_name(&self, org: &OrgId, plugin: &PluginName) -> String {
        if self.catalog.has(plugin) {
            return plugin.to_string();
        }
        let org_hash = sha256(org.as_str().as_bytes());
        format!("{plugin}~{}", org_hash.get(..16).unwrap_or_default())
    }

    /// The client that Overseer uses for a plugin.
    pub async fn client_in_use(&self, principal: &Principal, plugin: &str) -> Result<ClientInUse, Error> {
        let span = debug_span!("client_in_use", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let plugin = self.plugin(&principal.org, plugin).await?;
            let manifest = &plugin.manifest;
            require_oauth(manifest)?;
            let client = self.versioned_client(&principal.org, manifest).await?;
            let (client_id, source) = client.map(|versioned| (versioned.client.id, versioned.source)).unzip();
            let uses_browser = matches!(manifest.auth, Auth::Oauth2(_));
            let redirect_uri = uses_browser.then(|| self.redirect_uri(&principal.org, &manifest.name)).flatten();
            Ok(ClientInUse { plugin: manifest.name.clone(), client_id, source, redirect_uri })
        })
        .await
    }

    /// Sets the organization's own client for a plugin. Accounts that were connected through another client have to be
    /// connected again once their tokens expire.
    pub async fn set_client(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        new: NewClient,
    ) -> Result<ClientInUse, Error> {
        let span = debug_span!("set_client", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let found = self.plugin(&principal.org, plugin).await?;
            let manifest = &found.manifest;
            require_oauth(manifest)?;
            new.check()?;
            let record = ClientRecord {
                client_id: new.client_id,
                audience: self.audience(manifest),
                secret: new.client_secret.as_ref().map(|_| self.ports.ids.hex(16)),
            };
            let (engine, org, name) = (Arc::clone(self), principal.org.clone(), manifest.name.clone());
            self.run_to_completion(async move {
                if let (Some(id), Some(secret)) = (&record.secret, &new.client_secret) {
                    engine.ports.vault.put(&secret_id(&org, &name, id), VERSION, secret).await?;
                }
                engine.replace_client(&org, &name, Some(&record)).await
            })
            .await?;
            self.client_in_use(principal, plugin).await
        })
        .await
    }

    /// Removes the organization's own client for a plugin, also for a plugin that was removed. Without a client it succeeds.
    pub async fn remove_client(self: &Arc<Self>, principal: &Principal, plugin: &str) -> Result<ClientInUse, Error> {
        let span = debug_span!("remove_client", org = %principal.org, plugin, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let Ok(name) = PluginName::parse(plugin) else { return self.client_in_use(principal, plugin).await };
            let found = self.plugin_if_any(&principal.org, &name).await?;
            if let Some(found) = &found {
                require_oauth(&found.manifest)?;
            }
            let (engine, org, plugin_name) = (Arc::clone(self), principal.org.clone(), name.clone());
            let removed =
                self.run_to_completion(async move { engine.replace_client(&org, &plugin_name, None).await }).await?;
            if found.is_some() || !removed {
                return self.client_in_use(principal, plugin).await;
            }
            Ok(ClientInUse { plugin: name, client_id: None, source: None, redirect_uri: None })
        })
        .await
    }

    /// Writes or deletes the record of a client by compare-and-set, and deletes the secret that it replaced. Returns whether
    /// there was a client before.
    async fn replace_client(
        &self,
        org: &OrgId,
        plugin: &PluginName,
        new: Option<&ClientRecord>,
    ) -> Result<bool, Error> {
        let key = keys::client(org, plugin);
        let mut stored = self.ports.table.get(&key, Read::Consistent).await?;
        let mut race = CompareAndSet::default();
        let before: Option<ClientRecord> = loop {
            let before = stored.as_ref().map(Item::record).transpose()?;
            let condition = stored.map_or(Condition::Absent, |item| Condition::Version(item.version));
            let written = match new {
                Some(record) => self.ports.table.put(NewItem::new(key.clone(), record)?, condition).await.map(|_| ()),
                None => self.ports.table.delete(&key, condition).await,
            };
            match written {
                Ok(()) => break before,
                Err(error) => stored = race.after_lost_race(error, "the OAuth client")?,
            }
        };
        let existed = before.is_some();
        if let Some(id) = before.and_then(|before| before.secret)
            && let Err(error) = self.ports.vault.delete(&secret_id(org, plugin, &id)).await
        {
            // No record refers to it, and it is sealed.
            tracing::error!(%org, error = %causes(&error), "failed to delete replaced client secret");
        }
        Ok(existed)
    }
}

impl NewClient {
    /// The error lists every problem.
    fn check(&self) -> Result<(), Error> {
        let id = (!is_client_id(&self.client_id)).then(|| FieldProblem::new("/clientId", CLIENT_ID_RULE));
        let secret = self.client_secret.as_ref().and_then(|secret| check_client_secret(secret).err());
        let secret = secret.map(|rule| FieldProblem::new("/clientSecret", rule));
        let problems: Vec<_> = id.into_iter().chain(secret).collect();
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems)) }
    }
}

/// Refuses a plugin whose sign-in uses no OAuth client.
fn require_oauth(manifest: &Manifest) -> Result<(), Error> {
    match manifest.auth {
        Auth::Oauth2(_) | Auth::ClientCredentials(_) => Ok(()),
        Auth::None | Auth::ApiKey(_) | Auth::Basic(_) => {
            Err(Error::field("", format!("{} does not use OAuth, so it needs no client", manifest.display_name)))
        }
    }
}

/// The error for a plugin without a client.
pub(super) fn missing_client(manifest: &Manifest) -> Error {
    let Manifest { name, display_name, .. } = manifest;
    let variable = name.as_str().to_ascii_uppercase().replace('-', "_");
    Error::field(
        "",
        format!(
            "there is no OAuth client for {display_name}: an administrator sets the organization's own with PUT \
             /api/plugin-engine/integrations/{name}/client; for a built-in plugin the operator can set \
             {variable}_CLIENT_ID and {variable}_CLIENT_SECRET"
        ),
    )
}
