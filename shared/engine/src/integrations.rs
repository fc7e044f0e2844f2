//! A user's authorised accounts. For now an account is a token that the user hands over; it goes into the vault and is
//! never given back.

use jiff::Timestamp;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::Error;
use crate::ids::{Alias, OrgId, PluginName, UserId};
use crate::keys;
use crate::manifest::Auth;
use crate::ports::table::{Condition, Item, NewItem, Read, TableError};
use crate::ports::vault::{Purpose, SecretId, VaultError};
use crate::principal::Principal;
use crate::secrets::SECRET_MIN_BYTES;

/// The longest token, in bytes.
pub const TOKEN_MAX_BYTES: usize = 16 * 1024;

/// What to connect.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Connect {
    /// The service's token or key: 8 to 16,384 printable ASCII characters.
    #[schemars(with = "String")]
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
}

impl Record {
    fn secret_id(&self, org: &OrgId) -> SecretId {
        let purpose =
            Purpose::Integration { user: self.user.clone(), plugin: self.plugin.clone(), alias: self.alias.clone() };
        SecretId { org: org.clone(), purpose, id: self.secret.clone() }
    }
}

impl Engine {
    /// Connects an account, or replaces the token of one that is connected.
    pub async fn connect(&self, principal: &Principal, plugin: &str, connect: Connect) -> Result<Integration, Error> {
        let manifest = &self.catalog.plugin(plugin)?.manifest;
        let user = principal.acting_for(connect.user_id)?;
        if matches!(manifest.auth, Auth::None) {
            return Err(Error::field("", format!("{} needs no account", manifest.display_name)));
        }
        let token = connect.token.expose_secret();
        if !(SECRET_MIN_BYTES..=TOKEN_MAX_BYTES).contains(&token.len()) || !token.bytes().all(|b| b.is_ascii_graphic())
        {
            let rule = format!("must be {SECRET_MIN_BYTES} to {TOKEN_MAX_BYTES} printable ASCII characters, no spaces");
            return Err(Error::field("/token", rule));
        }
        let alias = connect.alias.unwrap_or_default();
        self.store_token(&principal.org, user, manifest.name.clone(), alias, &connect.token).await
    }

    async fn store_token(
        &self,
        org: &OrgId,
        user: UserId,
        plugin: PluginName,
        alias: Alias,
        token: &SecretString,
    ) -> Result<Integration, Error> {
        let key = keys::integration(org, &user, &plugin, &alias);
        let now = self.ports.clock.now();
        let mut record = Record {
            user,
            plugin,
            alias,
            secret: self.ports.ids.hex(16),
            secret_version: "1".to_owned(),
            created_at: now,
            updated_at: now,
        };
        // The token first: a record never names a secret that is not there.
        self.ports.vault.put(&record.secret_id(org), &record.secret_version, token).await?;
        loop {
            let standing = self.ports.table.get(&key, Read::Consistent).await?;
            let before: Option<Record> = standing.as_ref().map(Item::record).transpose()?;
            record.created_at = before.as_ref().map_or(now, |before| before.created_at);
            let condition = standing.map_or(Condition::Absent, |item| Condition::Version(item.version));
            match self.ports.table.put(NewItem::new(key.clone(), &record)?, condition).await {
                // Somebody else connected the same account just now; the later one counts.
                Err(TableError::Condition { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(_) => {
                    if let Some(before) = before {
                        self.ports.vault.delete(&before.secret_id(org)).await?;
                    }
                    break;
                }
            }
        }
        let Record { user, plugin, alias, created_at, updated_at, .. } = record;
        let integration = Integration { plugin, alias, user_id: user, created_at, updated_at };
        self.publish(org, "integration.connected", &integration).await?;
        Ok(integration)
    }

    /// The account that an intent is to use: one read while the process is warm.
    pub(crate) async fn token(
        &self,
        org: &OrgId,
        user: &UserId,
        plugin: &PluginName,
        alias: &Alias,
    ) -> Result<Account, Error> {
        let key = keys::integration(org, user, plugin, alias);
        // Twice at most: the secret may be replaced between the two reads.
        for _ in 0..2 {
            let mut found = self.ports.table.batch_get(std::slice::from_ref(&key), Read::Consistent).await?;
            let Some(item) = found.pop().flatten() else { return Ok(Account::Missing) };
            let record: Record = item.record()?;
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

    /// Whether the caller has a default account at a plugin's service.
    pub async fn is_connected(&self, principal: &Principal, plugin: &PluginName) -> Result<bool, Error> {
        let user = principal.acting_for(None)?;
        Ok(self.connected(&principal.org, &user, std::slice::from_ref(plugin)).await? == [true])
    }

    /// Which of `plugins` the user has a default account at.
    pub(crate) async fn connected(
        &self,
        org: &OrgId,
        user: &UserId,
        plugins: &[PluginName],
    ) -> Result<Vec<bool>, Error> {
        let alias = Alias::default();
        let mut connected = Vec::with_capacity(plugins.len());
        for some in plugins.chunks(crate::ports::table::BATCH_MAX) {
            let keys: Vec<_> = some.iter().map(|plugin| keys::integration(org, user, plugin, &alias)).collect();
            let found = self.ports.table.batch_get(&keys, Read::Eventual).await?;
            connected.extend(found.iter().map(Option::is_some));
        }
        Ok(connected)
    }
}
