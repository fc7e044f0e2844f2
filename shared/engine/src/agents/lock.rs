//! Locking an agent: what was looked at stays what agents get, whatever is configured since, until somebody decides
//! otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::build::Build;
use super::channels::{TRIES, contention};
use super::diff::{AgentDiff, compared};
use super::view::AgentView;
use crate::access::channel::{BUILD_MAX_BYTES, LOCKS_MAX, Lock, Pinned, SeenChannel, parsed};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::ChannelName;
use crate::engine::Engine;
use crate::ports::Event;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, NewItem, TableError, Write};
use crate::storage::keys;

/// What to lock.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockAgent {
    /// The content hash of what was looked at: where the configuration gives something else by now, nothing is locked.
    pub hash: Option<String>,
}

/// What to go back to.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollBackAgent {
    /// The content hash of one of the locks.
    pub hash: String,
}

/// What a channel was locked to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Locks {
    /// What it is locked to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<Lock>,
    /// All that it can be rolled back to, the latest first, at most 20.
    pub locks: Vec<Lock>,
}

impl Engine {
    /// Locks a channel to what its configuration gives now. Where it is locked to that already nothing changes.
    pub async fn lock_agent(
        self: &Arc<Self>,
        principal: &Principal,
        channel: &str,
        asked: LockAgent,
    ) -> Result<AgentView, Error> {
        principal.must_administer()?;
        let name = parsed(channel)?;
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.run_to_completion(async move {
            let org = &principal.org;
            for _ in 0..TRIES {
                let seen = engine.channel_seen(org, &name).await?;
                let (build, warnings) = engine.build(org, &seen.channel).await?;
                if asked.hash.as_ref().is_some_and(|hash| *hash != build.hash) {
                    let message = format!("the channel {name} gives something else by now; look again, at {}", build.hash);
                    return Err(Error::Conflict(message));
                }
                if let Some(pinned) = seen.channel.pinned.as_ref().filter(|pinned| pinned.lock.hash == build.hash) {
                    return Ok(AgentView::of(name, build, Some(pinned.lock.clone()), warnings));
                }
                let item = NewItem::new(keys::build(org, &name, &build.hash), &build)?;
                if item.body.len() > BUILD_MAX_BYTES {
                    return Err(Error::Conflict(format!(
                        "the agent of the channel {name} has {} bytes of JSON, more than the {BUILD_MAX_BYTES} that can be \
                         locked; give the channel fewer plugins",
                        item.body.len()
                    )));
                }
                let plugins: Vec<_> = build.plugins.iter().map(|used| &used.name).collect();
                let detail = json!({ "channel": name, "hash": build.hash, "plugins": plugins, "key": principal.key,
                                     "userId": principal.user });
                let event = engine.event(org, EventKind::AgentLocked, &detail);
                let pinned = engine.pin(&principal, &name, seen, (&build, Some(item)), event).await?;
                let Some(lock) = pinned else { continue };
                return Ok(AgentView::of(name, build, Some(lock), warnings));
            }
            Err(contention(&name))
        })
        .await
    }

    /// Goes back to an earlier lock, whether the channel is locked or not.
    pub async fn roll_back_agent(
        self: &Arc<Self>,
        principal: &Principal,
        channel: &str,
        RollBackAgent { hash }: RollBackAgent,
    ) -> Result<AgentView, Error> {
        principal.must_administer()?;
        let name = parsed(channel)?;
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.run_to_completion(async move {
            let org = &principal.org;
            for _ in 0..TRIES {
                let seen = engine.channel_seen(org, &name).await?;
                if !seen.channel.locks.iter().any(|lock| lock.hash == hash) {
                    let rule = format!("is not one of the channel's locks; GET /api/v1/agents/{name}/locks lists them");
                    return Err(Error::field("/hash", rule));
                }
                let build = engine.locked_build(org, &name, &hash).await?;
                let before = seen.channel.pinned.as_ref().map(|pinned| pinned.lock.clone());
                if let Some(lock) = before.clone().filter(|lock| lock.hash == hash) {
                    return Ok(AgentView::of(name, build, Some(lock), Vec::new()));
                }
                let detail = json!({ "channel": name, "from": before.map(|lock| lock.hash), "to": hash,
                                     "key": principal.key, "userId": principal.user });
                let event = engine.event(org, EventKind::AgentRolledBack, &detail);
                let pinned = engine.pin(&principal, &name, seen, (&build, None), event).await?;
                let Some(lock) = pinned else { continue };
                return Ok(AgentView::of(name, build, Some(lock), Vec::new()));
            }
            Err(contention(&name))
        })
        .await
    }

    /// Writes that a channel is locked to a build, which is kept, if it is not yet; `None` if somebody was faster.
    async fn pin(
        &self,
        principal: &Principal,
        name: &ChannelName,
        seen: SeenChannel,
        (build, keep): (&Build, Option<NewItem>),
        event: Event,
    ) -> Result<Option<Lock>, Error> {
        let org = &principal.org;
        let lock = Lock {
            hash: build.hash.clone(),
            at: self.ports.clock.now(),
            by: principal.user.clone(),
            key: principal.key.clone(),
        };
        let unchanged = seen.unchanged();
        let mut channel = seen.channel;
        let mut plugins: BTreeMap<_, BTreeSet<_>> =
            build.plugins.iter().map(|used| (used.name.clone(), BTreeSet::new())).collect();
        for tool in &build.tools {
            plugins.entry(tool.plugin.clone()).or_default().insert(tool.action.clone());
        }
        channel.pinned = Some(Pinned { lock: lock.clone(), plugins });
        channel.locks.retain(|earlier| earlier.hash != lock.hash);
        channel.locks.insert(0, lock.clone());
        let forgotten = channel.locks.split_off(channel.locks.len().min(LOCKS_MAX));
        let mut writes = vec![Write::Put(channel.item(org, name)?, unchanged)];
        writes.extend(keep.map(|item| Write::Put(item, Condition::Any)));
        let forget = |lock: &Lock| Write::Delete(keys::build(org, name, &lock.hash), Condition::Any);
        writes.extend(forgotten.iter().map(forget));
        match self.transact_with(writes, Some(&event)).await {
            Ok(_) => {
                self.publish(event).await;
                Ok(Some(lock))
            }
            Err(TableError::Condition { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Lets a channel be what its configuration gives. The locks stay, to go back to.
    pub async fn unlock_agent(self: &Arc<Self>, principal: &Principal, channel: &str) -> Result<AgentView, Error> {
        principal.must_administer()?;
        let name = parsed(channel)?;
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.run_to_completion(async move {
            let org = &principal.org;
            for _ in 0..TRIES {
                let seen = engine.channel_seen(org, &name).await?;
                let unchanged = seen.unchanged();
                let mut channel = seen.channel;
                if let Some(pinned) = channel.pinned.take() {
                    let detail = json!({ "channel": name, "hash": pinned.lock.hash, "key": principal.key,
                                         "userId": principal.user });
                    let event = engine.event(org, EventKind::AgentUnlocked, &detail);
                    match engine.put_with(channel.item(org, &name)?, unchanged, Some(&event)).await {
                        Ok(()) => engine.publish(event).await,
                        Err(TableError::Condition { .. }) => continue,
                        Err(error) => return Err(error.into()),
                    }
                }
                let (build, warnings) = engine.build(org, &channel).await?;
                return Ok(AgentView::of(name, build, None, warnings));
            }
            Err(contention(&name))
        })
        .await
    }

    /// What a channel was locked to.
    pub async fn agent_locks(&self, principal: &Principal, channel: &str) -> Result<Locks, Error> {
        principal.must_operate()?;
        let SeenChannel { channel, .. } = self.channel_seen(&principal.org, &parsed(channel)?).await?;
        Ok(Locks { locked: channel.pinned.map(|pinned| pinned.lock), locks: channel.locks })
    }

    /// What would change if a channel that is locked were locked anew.
    pub async fn agent_diff(&self, principal: &Principal, channel: &str) -> Result<AgentDiff, Error> {
        principal.must_operate()?;
        let (org, name) = (&principal.org, parsed(channel)?);
        let SeenChannel { channel, .. } = self.channel_seen(org, &name).await?;
        let Some(Pinned { lock, .. }) = &channel.pinned else {
            return Err(Error::Conflict(format!(
                "the channel {name} is not locked, so that it is what its configuration gives; POST \
                 /api/v1/agents/{name}/lock locks it"
            )));
        };
        let old = self.locked_build(org, &name, &lock.hash).await?;
        let (new, warnings) = self.build(org, &channel).await?;
        Ok(compared(name, lock.clone(), &old, new, warnings))
    }
}
