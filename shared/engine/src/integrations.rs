//! A user's authorised accounts. For now an account is a token that the user hands over; it goes into the vault and is
//! never given back.

use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::{Error, causes};
use crate::ids::{Alias, OrgId, Owner, PluginName, UserId};
use crate::keys;
use crate::manifest::{Auth, Manifest, Runtime};
use crate::ports::table::{BATCH_MAX, Condition, Item, NewItem, Read, TableError};
use crate::ports::vault::{Purpose, SecretId, VaultError};
use crate::principal::Principal;
use crate::secrets::SECRET_MIN_BYTES;

/// The longest token, in bytes.
pub const TOKEN_MAX_BYTES: usize = 16 * 1024;

/// Refuses what cannot be a token: it must fit into a header, and be long enough to be told from ordinary text.
pub(crate) fn check_token(token: &SecretString) -> Result<(), String> {
    let token = token.expose_secret();
    if (SECRET_MIN_BYTES..=TOKEN_MAX_BYTES).contains(&token.len()) && token.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err(format!("must be {SECRET_MIN_BYTES} to {TOKEN_MAX_BYTES} printable ASCII characters, without spaces"))
}

/// What to connect.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Connect {
    /// The service's token or key: 8 to 16,384 printable ASCII characters.
    #[schemars(with = "String", length(min = SECRET_MIN_BYTES, max = TOKEN_MAX_BYTES), regex(pattern = "^[!-~]*$"))]
    pub token: SecretString,
    /// Which of the user's accounts at the service this is; left out, `default`.
    pub alias: Option<Alias>,
    /// Whose account it is. Left out, the user that the API key is bound to.
    pub user_id: Option<UserId>,
}

/// An account as it is shown: never with its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Integration {
    /// The plugin whose service it is an account of.
    pub plugin: PluginName,
    /// Which of the user's accounts there.
    pub alias: Alias,
    /// Whose account.
    pub user_id: UserId,
    /// When it was first connected.
    pub created_at: Timestamp,
    /// When its token was last replaced.
    pub updated_at: Timestamp,
}

/// The stored record.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    user: UserId,
    plugin: PluginName,
    alias: Alias,
    /// What the token may be used for: [`Engine::bound_to`] when it was connected.
    bound_to: String,
    /// Names the secret in the vault.
    secret: String,
    /// The version of the secret that counts.
    secret_version: String,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// The account that an intent is to use.
pub(crate) enum Account {
    /// Connected, with this token.
    Token(SecretString),
    /// Not connected.
    Missing,
    /// Connected, but the vault's key is not the one that sealed its token.
    Sealed,
    /// Connected, but the plugin now sends its credential elsewhere, or otherwise, than when the user handed it over.
    Moved,
}

impl Record {
    fn secret_id(&self, org: &OrgId) -> SecretId {
        let purpose = Purpose::Integration {
            owner: Owner::User(self.user.clone()),
            plugin: self.plugin.clone(),
            alias: self.alias.clone(),
        };
        SecretId { org: org.clone(), purpose, id: self.secret.clone() }
    }
}

impl Engine {
    /// Connects an account, or replaces the token of one that is connected.
    pub async fn connect(
        self: &Arc<Self>,
        principal: &Principal,
        plugin: &str,
        connect: Connect,
    ) -> Result<Integration, Error> {
        let manifest = &self.catalog.plugin(plugin)?.manifest;
        let user = principal.acting_for(connect.user_id)?;
        if matches!(manifest.auth, Auth::None) {
            return Err(Error::field("", format!("{} needs no account", manifest.display_name)));
        }
        check_token(&connect.token).map_err(|rule| Error::field("/token", rule))?;
        let alias = connect.alias.unwrap_or_default();
        let now = self.ports.clock.now();
        let record = Record {
            user,
            plugin: manifest.name.clone(),
            alias,
            bound_to: self.bound_to(manifest),
            secret: self.ports.ids.hex(16),
            secret_version: "1".to_owned(),
            created_at: now,
            updated_at: now,
        };
        let (engine, org) = (Arc::clone(self), principal.org.clone());
        self.to_its_end(async move { engine.store_token(&org, record, &connect.token).await }).await
    }

    /// Where a plugin's credential goes and how. A token serves only what it was handed over for: a manifest that says
    /// otherwise later does not get it.
    fn bound_to(&self, manifest: &Manifest) -> String {
        if self.config.stand_ins.contains_key(&manifest.name) {
            return "a stand-in".to_owned();
        }
        let Runtime::Http { base_url } = &manifest.runtime;
        let mut hosts: Vec<&str> = manifest.hosts().collect();
        hosts.sort_unstable();
        let way = match &manifest.auth {
            Auth::None => "nothing".to_owned(),
            Auth::Oauth2 { .. } => "oauth2".to_owned(),
            Auth::ApiKey { header, .. } => format!("api_key in {}", header.to_ascii_lowercase()),
        };
        format!("{way} to {} {}", base_url.origin().ascii_serialization(), hosts.join(" "))
    }

    async fn store_token(&self, org: &OrgId, mut record: Record, token: &SecretString) -> Result<Integration, Error> {
        let key = keys::integration(org, &record.user, &record.plugin, &record.alias);
        // The token first: a record never names a secret that is not there.
        self.ports.vault.put(&record.secret_id(org), &record.secret_version, token).await?;
        loop {
            let standing = self.ports.table.get(&key, Read::Consistent).await?;
            let before: Option<Record> = standing.as_ref().map(Item::record).transpose()?;
            record.created_at = before.as_ref().map_or(record.updated_at, |before| before.created_at);
            let condition = standing.map_or(Condition::Absent, |item| Condition::Version(item.version));
            match self.ports.table.put(NewItem::new(key.clone(), &record)?, condition).await {
                // Somebody else connected the same account just now; the later one counts.
                Err(TableError::Condition { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    if let Some(before) = before
                        && let Err(error) = self.ports.vault.delete(&before.secret_id(org)).await
                    {
                        // Nothing refers to it any more, and it is sealed.
                        tracing::error!(%org, error = %causes(&error), "the token that was replaced stays in the vault");
                    }
                    break;
                }
            }
        }
        let Record { user, plugin, alias, created_at, updated_at, .. } = record;
        let integration = Integration { plugin, alias, user_id: user, created_at, updated_at };
        self.publish(org, "integration.connected", &integration).await;
        Ok(integration)
    }

    /// The account that an intent is to use: one read while the process is warm.
    pub(crate) async fn account(
        &self,
        org: &OrgId,
        user: &UserId,
        manifest: &Manifest,
        alias: &Alias,
    ) -> Result<Account, Error> {
        let plugin = &manifest.name;
        let key = keys::integration(org, user, plugin, alias);
        // Twice at most: the secret may be replaced between the two reads.
        for _ in 0..2 {
            let mut found = self.ports.table.batch_get(std::slice::from_ref(&key), Read::Consistent).await?;
            let Some(item) = found.pop().flatten() else { return Ok(Account::Missing) };
            let record: Record = item.record()?;
            if record.bound_to != self.bound_to(manifest) {
                return Ok(Account::Moved);
            }
            let id = record.secret_id(org);
            let version = (id, record.secret_version);
            if let Some(token) = self.seen_tokens.get(&version) {
                return Ok(Account::Token(token));
            }
            match self.ports.vault.get(&version.0, &version.1).await {
                Ok(Some(token)) => {
                    self.seen_tokens.insert(version, token.clone());
                    return Ok(Account::Token(token));
                }
                Ok(None) => {}
                Err(VaultError::DoesNotOpen) => {
                    tracing::error!(%org, %user, %plugin, %alias, "a token does not open with the vault's key");
                    return Ok(Account::Sealed);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Account::Missing)
    }

    /// Whether the caller's default account at a stand-in is missing or of no use. An account at the real service is
    /// left alone.
    pub async fn wants_stand_in(&self, principal: &Principal, plugin: &PluginName) -> Result<bool, Error> {
        let user = principal.acting_for(None)?;
        let manifest = &self.catalog.plugin(plugin.as_str())?.manifest;
        Ok(match self.account(&principal.org, &user, manifest, &Alias::default()).await? {
            Account::Missing | Account::Sealed => true,
            Account::Token(_) | Account::Moved => false,
        })
    }

    /// Which of `plugins` the user has a default account at.
    pub(crate) async fn connected(
        &self,
        org: &OrgId,
        user: &UserId,
        plugins: &[&Manifest],
    ) -> Result<Vec<bool>, Error> {
        let alias = Alias::default();
        let mut connected = Vec::with_capacity(plugins.len());
        for some in plugins.chunks(BATCH_MAX) {
            let keys: Vec<_> = some.iter().map(|plugin| keys::integration(org, user, &plugin.name, &alias)).collect();
            let found = self.ports.table.batch_get(&keys, Read::Eventual).await?;
            for (manifest, item) in some.iter().zip(found) {
                let record: Option<Record> = item.as_ref().map(Item::record).transpose()?;
                connected.push(record.is_some_and(|record| record.bound_to == self.bound_to(manifest)));
            }
        }
        Ok(connected)
    }
}
