//! Locking an agent. An administrator builds the agent of a channel, looks at the difference, and locks it: from then on
//! agents get that build, whatever the configuration becomes, until an administrator locks it anew, rolls it back or unlocks
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::debug_span;
use tracing::field::Empty;

use super::build::Build;
use super::diff::AgentDiff;
use super::view::AgentView;
use crate::access::channel::{BUILD_MAX_BYTES, LOCKS_MAX, Lock, Pinned, SeenChannel, parsed};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{ChannelName, OrgId};
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, NewItem, TableError, Write};
use crate::storage::compare_and_set::CompareAndSet;
use crate::storage::keys;

/// A request to lock a channel.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockAgent {
    /// The content hash that the caller reviewed. If the configuration gives another build by now, nothing is locked.
    pub hash: Option<String>,
}

/// A request to go back to an earlier lock.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollBackAgent {
    /// The content hash of one of the locks.
    pub hash: String,
}

/// The locks of a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Locks {
    /// The lock in force; none if the channel is not locked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<Lock>,
    /// The locks that the channel can be rolled back to, the latest first, at most 20.
    pub locks: Vec<Lock>,
}

/// A build to lock a channel to.
struct NewLock<'a> {
    build: &'a Build,
    /// The item that stores the build; none if it is stored already.
    item: Option<NewItem>,
    event: Event,
}

impl Engine {
    /// Compares the lock of a channel with what its configuration gives now. An error if the channel is not locked.
    pub async fn agent_diff(&self, principal: &Principal, channel: &str) -> Result<AgentDiff, Error> {
        let span = debug_span!("agent_diff", org = %principal.org, channel, outcome = Empty);
        traced(span, async {
            principal.must_operate()?;
            let (org, name) = (&principal.org, parsed(channel)?);
            let SeenChannel { channel, .. } = self.channel_seen(org, &name).await?;
            let Some(Pinned { lock, .. }) = &channel.pinned else {
                return Err(Error::Conflict(format!(
                    "the channel {name} is not locked, so its agent follows the configuration; lock it with POST \
                     /api/v1/agents/{name}/lock"
                )));
            };
            let old = self.locked_build(org, &name, &lock.hash).await?;
            let (new, warnings) = self.build(org, &channel).await?;
            Ok(AgentDiff::between(name, lock.clone(), &old, new, warnings))
        })
        .await
    }

    /// Locks a channel to what its configuration gives now. Nothing changes if it is locked to that already.
    pub async fn lock_agent(
        self: &Arc<Self>,
        principal: &Principal,
        channel: &str,
        LockAgent { hash }: LockAgent,
    ) -> Result<AgentView, Error> {
        principal.must_administer()?;
        let name = parsed(channel)?;
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.run_to_completion(async move { engine.lock_to_build(&principal, name, hash.as_deref()).await }).await
    }

    /// Builds the agent, checks it against the hash that the caller reviewed, and locks the channel to it.
    async fn lock_to_build(
        &self,
        principal: &Principal,
        name: ChannelName,
        reviewed: Option<&str>,
    ) -> Result<AgentView, Error> {
        let org = &principal.org;
        let mut race = CompareAndSet::default();
        loop {
            let seen = self.channel_seen(org, &name).await?;
            let (build, warnings) = self.build(org, &seen.channel).await?;
            if reviewed.is_some_and(|hash| hash != build.hash) {
                return Err(Error::Conflict(format!(
                    "the configuration of the channel {name} changed since: it gives {} now; review the difference and \
                     lock that hash",
                    build.hash
                )));
            }
            if let Some(lock) = lock_in_force(&seen, &build.hash) {
                return Ok(AgentView::of(name, build, Some(lock), warnings));
            }
            let item = Some(build_item(org, &name, &build)?);
            let plugins: Vec<_> = build.plugins.iter().map(|used| &used.name).collect();
            let detail = json!({ "channel": name, "hash": build.hash, "plugins": plugins, "key": principal.key,
                                 "userId": principal.user });
            let event = self.event(org, EventKind::AgentLocked, &detail);
            match self.write_lock(principal, &name, seen, NewLock { build: &build, item, event }).await {
                Ok(lock) => return Ok(AgentView::of(name, build, Some(lock), warnings)),
                Err(error) => drop(race.after_lost_race(error, format_args!("the channel {name}"))?),
            }
        }
    }

    /// Locks a channel to one of its earlier locks, whether it is locked at the moment or not.
    pub async fn roll_back_agent(
        self: &Arc<Self>,
        principal: &Principal,
        channel: &str,
        RollBackAgent { hash }: RollBackAgent,
    ) -> Result<AgentView, Error> {
        principal.must_administer()?;
        let name = parsed(channel)?;
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.run_to_completion(async move { engine.lock_to_earlier(&principal, name, &hash).await }).await
    }

    async fn lock_to_earlier(&self, principal: &Principal, name: ChannelName, hash: &str) -> Result<AgentView, Error> {
        let org = &principal.org;
        let mut race = CompareAndSet::default();
        loop {
            let seen = self.channel_seen(org, &name).await?;
            if !seen.channel.locks.iter().any(|lock| lock.hash == hash) {
                let rule = format!("is not one of the channel's locks; GET /api/v1/agents/{name}/locks lists them");
                return Err(Error::field("/hash", rule));
            }
            let build = self.locked_build(org, &name, hash).await?;
            if let Some(lock) = lock_in_force(&seen, hash) {
                return Ok(AgentView::of(name, build, Some(lock), Vec::new()));
            }
            let from = seen.channel.pinned.as_ref().map(|pinned| &pinned.lock.hash);
            let detail = json!({ "channel": name, "from": from, "to": hash, "key": principal.key,
                                 "userId": principal.user });
            let event = self.event(org, EventKind::AgentRolledBack, &detail);
            match self.write_lock(principal, &name, seen, NewLock { build: &build, item: None, event }).await {
                Ok(lock) => return Ok(AgentView::of(name, build, Some(lock), Vec::new())),
                Err(error) => drop(race.after_lost_race(error, format_args!("the channel {name}"))?),
            }
        }
    }

    /// Writes a lock on the condition that the channel is still as `seen`: stores the build where that is needed, puts the
    /// lock first among the channel's locks, and deletes the builds of the oldest ones beyond [`LOCKS_MAX`].
    async fn write_lock(
        &self,
        principal: &Principal,
        name: &ChannelName,
        seen: SeenChannel,
        NewLock { build, item, event }: NewLock<'_>,
    ) -> Result<Lock, TableError> {
        let org = &principal.org;
        let lock = Lock {
            hash: build.hash.clone(),
            at: self.ports.clock.now(),
            by: principal.user.clone(),
            key: principal.key.clone(),
        };
        let unchanged = seen.unchanged();
        let mut channel = seen.channel;
        channel.pinned = Some(pinned(lock.clone(), build));
        channel.locks.retain(|earlier| earlier.hash != lock.hash);
        channel.locks.insert(0, lock.clone());
        let dropped = channel.locks.split_off(channel.locks.len().min(LOCKS_MAX));
        let mut writes = vec![Write::Put(channel.item(org, name)?, unchanged)];
        writes.extend(item.map(|item| Write::Put(item, Condition::Any)));
        let delete_build = |lock: &Lock| Write::Delete(keys::build(org, name, &lock.hash), Condition::Any);
        writes.extend(dropped.iter().map(delete_build));
        self.transact_with(writes, Some(&event)).await?;
        self.publish(event).await;
        Ok(lock)
    }

    /// Unlocks a channel: its agent follows the configuration again. The locks stay available for a rollback.
    pub async fn unlock_agent(self: &Arc<Self>, principal: &Principal, channel: &str) -> Result<AgentView, Error> {
        let span = debug_span!("unlock_agent", org = %principal.org, channel, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let name = parsed(channel)?;
            let (engine, principal) = (Arc::clone(self), principal.clone());
            self.run_to_completion(async move { engine.unlock(&principal, name).await }).await
        })
        .await
    }

    async fn unlock(&self, principal: &Principal, name: ChannelName) -> Result<AgentView, Error> {
        let org = &principal.org;
        let mut race = CompareAndSet::default();
        loop {
            let seen = self.channel_seen(org, &name).await?;
            let unchanged = seen.unchanged();
            let mut channel = seen.channel;
            if let Some(Pinned { lock, .. }) = channel.pinned.take() {
                let detail = json!({ "channel": name, "hash": lock.hash, "key": principal.key,
                                     "userId": principal.user });
                let event = self.event(org, EventKind::AgentUnlocked, &detail);
                match self.put_with(channel.item(org, &name)?, unchanged, Some(&event)).await {
                    Ok(()) => self.publish(event).await,
                    Err(error) => {
                        race.after_lost_race(error, format_args!("the channel {name}"))?;
                        continue;
                    }
                }
            }
            let (build, warnings) = self.build(org, &channel).await?;
            return Ok(AgentView::of(name, build, None, warnings));
        }
    }

    /// The locks of a channel.
    pub async fn agent_locks(&self, principal: &Principal, channel: &str) -> Result<Locks, Error> {
        let span = debug_span!("agent_locks", org = %principal.org, channel, outcome = Empty);
        traced(span, async {
            principal.must_operate()?;
            let SeenChannel { channel, .. } = self.channel_seen(&principal.org, &parsed(channel)?).await?;
            Ok(Locks { locked: channel.pinned.map(|pinned| pinned.lock), locks: channel.locks })
        })
        .await
    }
}

/// The channel's lock, if it is in force and of that build.
fn lock_in_force(seen: &SeenChannel, hash: &str) -> Option<Lock> {
    let lock = &seen.channel.pinned.as_ref()?.lock;
    (lock.hash == hash).then(|| lock.clone())
}

/// The item that stores a build. An error if the build is larger than [`BUILD_MAX_BYTES`].
fn build_item(org: &OrgId, name: &ChannelName, build: &Build) -> Result<NewItem, Error> {
    let item = NewItem::new(keys::build(org, name, &build.hash), build)?;
    let bytes = item.body.len();
    if bytes > BUILD_MAX_BYTES {
        return Err(Error::Conflict(format!(
            "the agent of the channel {name} has {bytes} bytes of JSON, more than the {BUILD_MAX_BYTES} that can be locked; \
             give the channel fewer plugins"
        )));
    }
    Ok(item)
}

/// The lock with the plugins and actions that it admits.
fn pinned(lock: Lock, build: &Build) -> Pinned {
    let mut plugins: BTreeMap<_, BTreeSet<_>> =
        build.plugins.iter().map(|used| (used.name.clone(), BTreeSet::new())).collect();
    for tool in &build.tools {
        plugins.entry(tool.plugin.clone()).or_default().insert(tool.action.clone());
    }
    Pinned { lock, plugins }
}
