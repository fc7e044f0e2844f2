//! API keys: `ovs_<id>_<secret>`. Only a hash of the secret is stored, so only the answer that creates a key contains it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aws_lc_rs::constant_time;
use jiff::{SignedDuration, Timestamp};
use quick_cache::sync::Cache;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tracing::debug_span;
use tracing::field::Empty;

use crate::access::principal::{AgentOf, Principal, Role};
use crate::core::error::Error;
use crate::core::ids;
use crate::core::ids::{AgentId, ChannelName, KeyId, NAME_FORMAT, OrgId, UserId};
use crate::core::problem::FieldProblem;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::events::EventKind;
use crate::ports::ids::sha256;
use crate::ports::table::{Condition, Cursor, Item, NewItem, Page, Query, Read, TableError, Write};
use crate::storage::compare_and_set::CompareAndSet;
use crate::storage::keys;

/// The most API keys that a process keeps in memory.
const KEYS_CACHED_MAX: usize = 1_000;
/// How long a process uses a cached key, and so how long a key that another process revoked may still work here.
pub const KEY_SEEN_FOR: SignedDuration = SignedDuration::from_secs(60);
/// How long a revoked key stays listed.
const REVOKED_LISTED_FOR: SignedDuration = SignedDuration::from_hours(30 * 24);

/// A key to create.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewApiKey {
    /// What the key is for: a text for people.
    #[schemars(extend("format" = NAME_FORMAT))]
    pub name: String,
    /// What its bearer may do; at least one role.
    #[schemars(length(min = 1))]
    pub roles: BTreeSet<Role>,
    /// The user that it is bound to. Required if `user` is the only role; otherwise the default when a request names no user.
    pub user_id: Option<UserId>,
    /// The channel whose plugins its bearer may use. Required for the role `agent`, and only for it.
    pub channel: Option<ChannelName>,
    /// The agent that its bearer is. Required for the role `agent`, and only for it.
    pub agent_id: Option<AgentId>,
}

impl NewApiKey {
    fn check(&self) -> Result<(), Error> {
        let mut problems = Vec::new();
        let mut problem = |pointer: &str, message: &str| problems.push(FieldProblem::new(pointer, message));
        if let Err(error) = ids::free(&self.name) {
            problem("/name", &error.to_string());
        }
        let only = |role: Role| !self.roles.is_empty() && self.roles.iter().all(|own| *own == role);
        if self.roles.is_empty() {
            problem("/roles", "must hold at least one of administrator, operator, service, user and agent");
        } else if self.roles.contains(&Role::Agent) && !only(Role::Agent) {
            problem(
                "/roles",
                "agent cannot be combined with other roles: it limits what its bearer may do, and they would undo that",
            );
        }
        if only(Role::User) && self.user_id.is_none() {
            problem("/user_id", "is needed for a key that acts for one user");
        }
        for (pointer, is_set) in [("/channel", self.channel.is_some()), ("/agent_id", self.agent_id.is_some())] {
            match (self.roles.contains(&Role::Agent), is_set) {
                (true, false) => problem(pointer, "is needed for the role agent"),
                (false, true) => problem(pointer, "is only for the role agent; leave it out"),
                (true, true) | (false, false) => {}
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::Invalid(problems)) }
    }
}

/// A key without its secret.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ApiKeyView {
    /// Its id, the public half of the key.
    pub id: KeyId,
    /// What it is for.
    pub name: String,
    /// What its bearer may do.
    pub roles: BTreeSet<Role>,
    /// The user that it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<UserId>,
    /// The channel of an agent's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelName>,
    /// The agent of an agent's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_id: Option<AgentId>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
}

/// The stored record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ApiKeyRecord {
    org: OrgId,
    #[serde(flatten)]
    view: ApiKeyView,
    /// SHA-256 of the secret, in hexadecimal digits. The secret has 256 random bits, so it needs no slow hash.
    hash: String,
}

/// The API keys that this process has read.
pub(crate) struct KeyCache {
    /// By id, with the time when each was read.
    keys: Cache<KeyId, (Timestamp, ApiKeyRecord)>,
    /// How many keys this process has revoked, to not cache a record after a revocation that was read before it.
    revocations: Mutex<u64>,
}

impl Default for KeyCache {
    fn default() -> Self {
        Self { keys: Cache::new(KEYS_CACHED_MAX), revocations: Mutex::new(0) }
    }
}

impl Engine {
    /// Creates a key for `org`. No later answer contains it.
    pub async fn create_api_key(
        self: &Arc<Self>,
        org: &OrgId,
        new: NewApiKey,
    ) -> Result<(SecretString, ApiKeyView), Error> {
        let span = debug_span!("create_api_key", %org, outcome = Empty);
        traced(span, async {
            new.check()?;
            let id = KeyId::parse(self.ports.ids.hex(8)).map_err(Error::internal)?;
            let secret = self.ports.ids.hex(32);
            let view = ApiKeyView {
                id: id.clone(),
                name: new.name,
                roles: new.roles,
                user_id: new.user_id,
                channel: new.channel,
                agent_id: new.agent_id,
                created_at: self.ports.clock.now(),
                revoked_at: None,
            };
            let record = ApiKeyRecord { org: org.clone(), view: view.clone(), hash: sha256(secret.as_bytes()) };
            let mut item = NewItem::new(keys::api_key(&id), &record)?;
            item.list = Some(keys::api_key_in_list(org, view.created_at, &id));
            let (engine, org) = (Arc::clone(self), org.clone());
            self.run_to_completion(async move {
                let event = engine.event(&org, EventKind::ApiKeyCreated, &view);
                engine.put_with(item, Condition::Absent, Some(&event)).await?;
                engine.publish(event).await;
                Ok((format!("ovs_{id}_{secret}").into(), view))
            })
            .await
        })
        .await
    }

    /// The caller who presents a key. Fails if the key is malformed, unknown or revoked.
    pub async fn authenticate(&self, key: &SecretString) -> Result<Principal, Error> {
        let span = debug_span!("authenticate", outcome = Empty);
        traced(span, async {
            let malformed = || Error::Unauthenticated("the API key is malformed; it has the form ovs_<id>_<secret>");
            let mut parts = key.expose_secret().split('_');
            let (Some("ovs"), Some(id), Some(secret), None) = (parts.next(), parts.next(), parts.next(), parts.next())
            else {
                return Err(malformed());
            };
            let id = KeyId::parse(id).map_err(|_| malformed())?;
            if secret.is_empty() {
                return Err(malformed());
            }
            let record = self.api_key_record(&id).await?.filter(|record| {
                constant_time::verify_slices_are_equal(sha256(secret.as_bytes()).as_bytes(), record.hash.as_bytes())
                    .is_ok()
            });
            match record {
                None => Err(Error::Unauthenticated("the API key is not known")),
                Some(record) if record.view.revoked_at.is_some() => Err(was_revoked()),
                Some(ApiKeyRecord { org, view, .. }) => {
                    let agent = view.channel.zip(view.agent_id).map(|(channel, id)| AgentOf { channel, id });
                    Ok(Principal { org, user: view.user_id, roles: view.roles, key: id, agent })
                }
            }
        })
        .await
    }

    /// The stored key, at most [`KEY_SEEN_FOR`] stale.
    async fn api_key_record(&self, id: &KeyId) -> Result<Option<ApiKeyRecord>, Error> {
        let now = self.ports.clock.now();
        if let Some((read_at, record)) = self.key_cache.keys.get(id)
            && now.duration_since(read_at) < KEY_SEEN_FOR
        {
            return Ok(Some(record));
        }
        let before = *self.revocations();
        let item = self.ports.table.get(&keys::api_key(id), Read::Consistent).await?;
        let record: Option<ApiKeyRecord> = item.as_ref().map(Item::record).transpose()?;
        let revocations = self.revocations();
        if let Some(record) = &record
            && *revocations == before
        {
            self.key_cache.keys.insert(id.clone(), (now, record.clone()));
        }
        Ok(record)
    }

    /// The keys of the caller's organization, the oldest first.
    pub async fn list_api_keys(
        &self,
        principal: &Principal,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<ApiKeyView>, Error> {
        let span = debug_span!("list_api_keys", org = %principal.org, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let query = Query { cursor, ..Query::partition(keys::api_keys_of(&principal.org), limit) };
            let page = self.ports.table.query_list(query).await.map_err(Error::of_cursor)?;
            let items = self.ports.table.batch_get(&page.entries, Read::Consistent).await?;
            let entries = items
                .iter()
                .flatten()
                .map(|item| Ok(item.record::<ApiKeyRecord>()?.view))
                .collect::<Result<_, TableError>>()?;
            Ok(Page { entries, next: page.next })
        })
        .await
    }

    fn revocations(&self) -> MutexGuard<'_, u64> {
        self.key_cache.revocations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Revokes a key of the caller's organization: at once in this process, within [`KEY_SEEN_FOR`] in others.
    pub async fn revoke_api_key(self: &Arc<Self>, principal: Principal, id: KeyId) -> Result<ApiKeyView, Error> {
        let span = debug_span!("revoke_api_key", org = %principal.org, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            if id == principal.key {
                // An organization always keeps one administrator's key.
                return Err(Error::field("", "a key cannot revoke itself; use another administrator's key"));
            }
            let engine = Arc::clone(self);
            self.run_to_completion(async move { engine.revoke(&principal, &id).await }).await
        })
        .await
    }

    /// Caches that a key was revoked.
    fn remember_revoked(&self, id: &KeyId, now: Timestamp, revoked: &ApiKeyRecord) {
        let mut revocations = self.revocations();
        *revocations += 1;
        self.key_cache.keys.insert(id.clone(), (now, revoked.clone()));
    }

    async fn revoke(&self, principal: &Principal, id: &KeyId) -> Result<ApiKeyView, Error> {
        let mut race = CompareAndSet::default();
        loop {
            let keys = [keys::api_key(id), keys::api_key(&principal.key)];
            let mut items = self.ports.table.batch_get(&keys, Read::Consistent).await?;
            let (own, item) = (items.pop().flatten(), items.pop().flatten());
            let own = must_be_valid(own)?;
            let item = item.ok_or(Error::NotFound("API key"))?;
            let mut record = revocable(principal, &item)?;
            if record.view.revoked_at.is_some() {
                return Ok(record.view);
            }
            let now = self.ports.clock.now();
            record.view.revoked_at = Some(now);
            let revoked = NewItem {
                list: item.stored.list.clone(),
                expires_at: now.checked_add(REVOKED_LISTED_FOR).ok(),
                ..NewItem::new(item.stored.key.clone(), &record)?
            };
            // The caller's key must still be valid when this is written: of two keys that revoke each other, only the first
            // succeeds.
            let writes = vec![
                Write::Check(own.stored.key, Condition::Version(own.version)),
                Write::Put(revoked, Condition::Version(item.version)),
            ];
            let event = self.event(&principal.org, EventKind::ApiKeyRevoked, &record.view);
            match self.transact_with(writes, Some(&event)).await {
                Ok(_) => {
                    self.remember_revoked(id, now, &record);
                    self.publish(event).await;
                    return Ok(record.view);
                }
                Err(error) => race.after_lost_race(error, format_args!("the API key {id}"))?,
            };
        }
    }
}

fn was_revoked() -> Error {
    Error::Unauthenticated("the API key was revoked; ask an administrator for another")
}

/// The item of the caller's own key, if it was not revoked since the caller was authenticated.
fn must_be_valid(own: Option<Item>) -> Result<Item, Error> {
    let own = own.ok_or_else(was_revoked)?;
    if own.record::<ApiKeyRecord>()?.view.revoked_at.is_some() {
        return Err(was_revoked());
    }
    Ok(own)
}

/// The stored key in `item`, if the caller may revoke it.
fn revocable(principal: &Principal, item: &Item) -> Result<ApiKeyRecord, Error> {
    let record: ApiKeyRecord = item.record()?;
    if record.org != principal.org {
        return Err(Error::NotFound("API key"));
    }
    if record.view.roles.contains(&Role::PlatformAdministrator) {
        principal.must_administer_platform()?;
    }
    Ok(record)
}
