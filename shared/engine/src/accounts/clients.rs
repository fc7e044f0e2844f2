//! OAuth clients: how Overseer is known to a provider. An organization's own comes first; the operator's serves plugins of
//! the built-in catalog only.

use std::sync::Arc;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use url::Url;

use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{OrgId, PluginName};
use crate::core::problem::FieldProblem;
use crate::engine::Engine;
use crate::outbound::config::{CLIENT_ID_RULE, OauthClient, is_client_id};
use crate::outbound::credential::check_password;
use crate::outbound::oauth::Protocol;
use crate::plugin::manifest::{Auth, Manifest};
use crate::ports::ids::sha256;
use crate::ports::table::{Condition, Item, NewItem, Read, TableError};
use crate::ports::vault::{Purpose, SecretId};
use crate::storage::keys;

/// An organization's own client at a provider.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewClient {
    /// Its id there: 1 to 255 printable ASCII characters.
    pub client_id: String,
    /// Its secret there, unless it is a public client.
    #[schemars(with = "Option<String>")]
    pub client_secret: Option<SecretString>,
}

/// The client that is used for a plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientInUse {
    /// The plugin.
    pub plugin: PluginName,
    /// Its id at the provider, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Whose it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<ClientSource>,
    /// What has to be registered as redirect URI at the provider, exactly so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redirect_uri: Option<Url>,
}

/// Whose a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ClientSource {
    /// The organization's own.
    Organization,
    /// The operator's, for all organizations.
    Operator,
    /// That of the stand-in.
    StandIn,
}

/// The stored record.
#[derive(Debug, Serialize, Deserialize)]
struct ClientRecord {
    client_id: String,
    /// Where the secret may be sent: [`Engine::bound_to`] when it was handed over.
    bound_to: String,
    /// Names the secret in the vault, if there is one.
    secret: Option<String>,
}

/// There is one version of each: another client gets another id.
const VERSION: &str = "1";

fn secret_id(org: &OrgId, plugin: &PluginName, id: &str) -> SecretId {
    SecretId { org: org.clone(), purpose: Purpose::Client { plugin: plugin.clone() }, id: id.to_owned() }
}

impl Engine {
    /// The client for a plugin, if there is one.
    pub(super) async fn client(&self, org: &OrgId, manifest: &Manifest) -> Result<Option<OauthClient>, Error> {
        Ok(self.client_and_source(org, manifest).await?.map(|(client, _)| client))
    }

    async fn client_and_source(
        &self,
        org: &OrgId,
        manifest: &Manifest,
    ) -> Result<Option<(OauthClient, ClientSource)>, Error> {
        let plugin = &manifest.name;
        if let Some(stand_in) = self.config.stand_ins.get(plugin) {
            return Ok(Some((stand_in.client.clone(), ClientSource::StandIn)));
        }
        // Twice at most: the secret may be replaced between the two reads.
        for _ in 0..2 {
            let own = self.ports.table.get(&keys::client(org, plugin), Read::Consistent).await?;
            let own: Option<ClientRecord> = own.as_ref().map(Item::record).transpose()?;
            let Some(own) = own.filter(|own| own.bound_to == self.audience(manifest)) else { break };
            let secret = match &own.secret {
                Some(id) => match self.ports.vault.get(&secret_id(org, plugin, id), VERSION).await? {
                    Some(secret) => Some(secret),
                    None => continue,
                },
                None => None,
            };
            return Ok(Some((OauthClient { id: own.client_id, secret }, ClientSource::Organization)));
        }
        let operators = self.config.services.get(plugin).and_then(|service| service.client.clone());
        Ok(operators.map(|client| (client, ClientSource::Operator)))
    }

    /// What talks to a plugin's provider, if it has one.
    pub(super) fn protocol<'a>(
        &'a self,
        manifest: &'a Manifest,
        client: &'a OauthClient,
        deadline: Instant,
    ) -> Option<Protocol<'a>> {
        let stand_in = self.config.stand_ins.get(&manifest.name);
        Some(Protocol::new(&self.outbound, manifest.auth.provider()?, stand_in, client, deadline))
    }

    /// Where a plugin's provider sends browsers back to. Each plugin has its own, so that no provider can pass off another's
    /// answer as its own (RFC 9700, 4.4): what is registered, each in each organization, since others may have registered
    /// something else by that name.
    pub(super) fn redirect_uri(&self, org: &OrgId, plugin: &PluginName) -> Option<Url> {
        let base = self.config.public_url.as_ref()?.as_str().trim_end_matches('/');
        Url::parse(&format!("{base}/api/plugin-engine/oauth/callback/{}", self.callback_name(org, plugin))).ok()
    }

    /// What a plugin is called in the path of its redirect URI.
    pub(super) fn callback_name(&self, org: &OrgId, plugin: &PluginName) -> String {
        if self.catalog.has(plugin) {
            return plugin.to_string();
        }
        let whose = sha256(org.as_str().as_bytes());
        format!("{plugin}~{}", whose.get(..16).unwrap_or_default())
    }

    /// The client that is used for a plugin.
    pub async fn client_in_use(&self, principal: &Principal, plugin: &str) -> Result<ClientInUse, Error> {
        principal.must_administer()?;
        let found = self.plugin(&principal.org, plugin).await?;
        let manifest = &found.manifest;
        with_a_client(manifest)?;
        let found = self.client_and_source(&principal.org, manifest).await?;
        let (client_id, source) = found.map(|(client, source)| (client.id, source)).unzip();
        let by_users = matches!(manifest.auth, Auth::Oauth2(_));
        let redirect_uri = by_users.then(|| self.redirect_uri(&principal.org, &manifest.name)).flatten();
        Ok(ClientInUse { plugin: manifest.name.clone(), client_id, source, redirect_uri })
    }

    /// Sets the organization's own client for a plugin. Accounts that were connected through another have to be connected
    /// again once their tokens run out.
    pub async fn set_client(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        new: NewClient,
    ) -> Result<ClientInUse, Error> {
        principal.must_administer()?;
        let found = self.plugin(&principal.org, plugin).await?;
        let manifest = &found.manifest;
        with_a_client(manifest)?;
        let id = (!is_client_id(&new.client_id)).then(|| FieldProblem::new("/clientId", CLIENT_ID_RULE));
        let secret = new.client_secret.as_ref().and_then(|secret| check_password(secret).err());
        let secret = secret.map(|rule| FieldProblem::new("/clientSecret", rule));
        let problems: Vec<_> = id.into_iter().chain(secret).collect();
        if !problems.is_empty() {
            return Err(Error::Invalid(problems));
        }
        let record = ClientRecord {
            client_id: new.client_id,
            bound_to: self.audience(manifest),
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
    }

    /// Removes the organization's own client for a plugin, also for one that is gone; removing none is fine.
    pub async fn remove_client(self: &Arc<Self>, principal: &Principal, plugin: &str) -> Result<ClientInUse, Error> {
        principal.must_administer()?;
        let Ok(name) = PluginName::parse(plugin) else { return self.client_in_use(principal, plugin).await };
        let found = self.plugin_if_any(&principal.org, &name).await?;
        if let Some(found) = &found {
            with_a_client(&found.manifest)?;
        }
        let (engine, org, of) = (Arc::clone(self), principal.org.clone(), name.clone());
        let removed = self.run_to_completion(async move { engine.replace_client(&org, &of, None).await }).await?;
        if found.is_some() || !removed {
            return self.client_in_use(principal, plugin).await;
        }
        Ok(ClientInUse { plugin: name, client_id: None, source: None, redirect_uri: None })
    }

    /// Says whether there was one before.
    async fn replace_client(
        &self,
        org: &OrgId,
        plugin: &PluginName,
        new: Option<&ClientRecord>,
    ) -> Result<bool, Error> {
        let key = keys::client(org, plugin);
        let mut standing = self.ports.table.get(&key, Read::Consistent).await?;
        loop {
            let before: Option<ClientRecord> = standing.as_ref().map(Item::record).transpose()?;
            let condition = standing.map_or(Condition::Absent, |item| Condition::Version(item.version));
            let written = match new {
                Some(record) => self.ports.table.put(NewItem::new(key.clone(), record)?, condition).await.map(|_| ()),
                None => self.ports.table.delete(&key, condition).await,
            };
            match written {
                Ok(()) => {
                    let there_was_one = before.is_some();
                    let secret = before.and_then(|before| before.secret);
                    if let Some(id) = secret
                        && let Err(error) = self.ports.vault.delete(&secret_id(org, plugin, &id)).await
                    {
                        // Nothing refers to it any more, and it is sealed.
                        tracing::error!(%org, error = %causes(&error), "a client secret that was replaced stays in the vault");
                    }
                    return Ok(there_was_one);
                }
                Err(TableError::Condition { standing: found, .. }) => standing = found.map(|item| *item),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn with_a_client(manifest: &Manifest) -> Result<(), Error> {
    match manifest.auth {
        Auth::Oauth2(_) | Auth::ClientCredentials(_) => Ok(()),
        Auth::None | Auth::ApiKey(_) | Auth::Basic(_) => Err(Error::field(
            "",
            format!("{} is not reached by OAuth, so that it needs no client", manifest.display_name),
        )),
    }
}

/// What an administrator is told where there is no client.
pub(super) fn no_client(manifest: &Manifest) -> Error {
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
