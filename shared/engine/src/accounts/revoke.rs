//! Disconnecting: what was stored is deleted, and given back to its provider.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::record::{Account, Accounts, Change};
use super::refresh::version_of;
use super::{AccountSelector, Integration, Reason};
use crate::access::principal::Principal;
use crate::accounts::owner::owned_by;
use crate::core::error::{Error, causes};
use crate::core::ids::{Alias, OrgId, Owner, PluginName, TaskId};
use crate::engine::Engine;
use crate::outbound::credential::Credential;
use crate::plugin::manifest::Manifest;
use crate::ports::events::EventKind;

/// The time for giving a token back to its provider.
const GIVING_BACK_TIME: Duration = Duration::from_secs(10);

/// What is said of giving back where nobody heard how that went.
const UNHEARD: &str = "whoever was to give the tokens back was not heard of again";

/// An account that is no more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Disconnected {
    /// The account as it was.
    #[serde(flatten)]
    pub integration: Integration,
    /// Whether its provider took the tokens back.
    pub revoked: bool,
    /// Why not, where it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_revoked_because: Option<String>,
    /// The tasks that wait for the account, about 1,000 at most; they were not cancelled.
    pub tasks: Vec<TaskId>,
}

impl Engine {
    /// Disconnects an account: its credential is deleted at once, and given back to its provider where that is possible.
    pub async fn disconnect(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        which: AccountSelector,
    ) -> Result<Disconnected, Error> {
        // A plugin that is gone leaves accounts, which people want to be rid of.
        let plugin = PluginName::parse(plugin).map_err(|_| Error::NotFound("account"))?;
        let found = self.plugin_if_any(&principal.org, &plugin).await?;
        let manifest = found.as_ref().map(|found| &found.manifest);
        let owner = owned_by(principal, manifest, which.owner, which.user_id)?;
        let (engine, org) = (Arc::clone(self), principal.org.clone());
        self.run_to_completion(async move {
            let found = engine.catalog.plugin(plugin.as_str()).ok();
            let manifest = found.as_ref().map(|plugin| &plugin.manifest);
            let held = engine.id_at(engine.ports.clock.now());
            let (accounts, alias, account) = engine
                .change_accounts(&org, &owner, &plugin, |accounts| {
                    let before = accounts.clone();
                    let alias = which.alias.clone().unwrap_or_else(|| accounts.default.clone());
                    let account = accounts.remove(&alias).ok_or(Error::NotFound("account"))?;
                    // What is told if this process ends before it knows the rest.
                    let unheard = Disconnected {
                        integration: engine.shown(manifest, &before, &alias, &account),
                        revoked: false,
                        not_revoked_because: Some(UNHEARD.to_owned()),
                        tasks: Vec::new(),
                    };
                    let event = engine.event(&org, EventKind::IntegrationDisconnected, &unheard);
                    Ok(Change::Hold((before, alias, account), event, held.clone()))
                })
                .await?;
            let mut others = accounts.clone();
            others.by_alias.remove(&alias);
            let given_back = engine.give_back(&org, &alias, &account, &others).await;
            let user = match &owner {
                Owner::User(user) => Some(user),
                Owner::Organization => None,
            };
            let tasks = engine.tasks_that_need(&org, user, &plugin, &alias, accounts.default == alias).await;
            let tasks = tasks.unwrap_or_else(|error| {
                tracing::error!(%org, error = %causes(&error), "which tasks need the account is not known");
                Vec::new()
            });
            let manifest = found.as_ref().map(|found| &found.manifest);
            let disconnected = Disconnected {
                integration: engine.shown(manifest, &accounts, &alias, &account),
                revoked: given_back.is_ok(),
                not_revoked_because: given_back.err(),
                tasks,
            };
            let event = engine.event(&org, EventKind::IntegrationDisconnected, &disconnected);
            engine.release_held(&held, event).await;
            Ok(disconnected)
        })
        .await
    }

    /// Deletes the credential of an account that no record names any more, and gives it back to its provider. The error says
    /// why the provider did not take it. `others` are the owner's other accounts at the plugin.
    pub(super) async fn give_back(
        &self,
        org: &OrgId,
        alias: &Alias,
        account: &Account,
        others: &Accounts,
    ) -> Result<(), String> {
        let id = account.secret_id(org, &others.owner, &others.plugin, alias);
        // The latest is what somebody who renews may just have brought.
        let writers = account.lease.iter().map(|lease| &lease.owner).chain(account.lapsed.iter().rev());
        let newer = writers.map(|writer| version_of(account.generation + 1, writer));
        let mut credential = None;
        for version in newer.chain([account.version.clone()]) {
            let text = self.ports.vault.get(&id, &version).await.ok().flatten();
            credential = credential.or_else(|| text.as_ref().and_then(Credential::from_sealed_form));
            self.credential_cache.remove(&id, version);
        }
        // Deleted first: a provider that does not answer must not keep it alive here.
        if let Err(error) = self.ports.vault.delete(&id).await {
            tracing::error!(%org, error = %causes(&error), "a credential that nothing refers to stays in the vault");
        }
        let credential = credential.ok_or("the credential could not be read any more")?;
        // Providers may know one grant for each person and client: giving back one of two would end both.
        let same = |other: &Account| {
            let name = other.name.is_none() || account.name.is_none() || other.name == account.name;
            account.client_id.is_some() && other.client_id == account.client_id && name
        };
        if let Some((other, _)) = others.by_alias.iter().find(|(_, other)| same(other)) {
            return Err(format!("the account \"{other}\" may be the same one at the provider, and goes on"));
        }
        let plugin = self.plugin(org, others.plugin.as_str()).await;
        let plugin = plugin.map_err(|_| "the plugin is no longer here, so that its provider is not known")?;
        self.revoke_tokens(org, &plugin.manifest, account, &credential).await
    }

    /// Gives a credential of an account back to its provider.
    pub(super) async fn revoke_tokens(
        &self,
        org: &OrgId,
        manifest: &Manifest,
        account: &Account,
        credential: &Credential,
    ) -> Result<(), String> {
        if account.bound_to != self.audience(manifest) {
            return Err(format!("the account {}", Reason::PluginChanged.what()));
        }
        let Some(client_id) = &account.client_id else {
            return Err("the credential was handed over by hand; withdraw it at the service".to_owned());
        };
        let client = self.client(org, manifest).await.map_err(|error| {
            tracing::error!(%org, error = %causes(&error), "a client could not be read");
            "the OAuth client could not be read"
        })?;
        let client = client.filter(|client| client.id == *client_id);
        let client = client.ok_or_else(|| format!("the account {}", Reason::ClientChanged.what()))?;
        let protocol = self.protocol(manifest, &client, Instant::now() + GIVING_BACK_TIME);
        protocol.ok_or("the plugin has no provider")?.give_back(credential).await
    }
}
