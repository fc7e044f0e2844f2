//! Channels: which plugins each has, set by administrators.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::adapters;
use crate::access::channel::{
    ASSIGNMENTS_MAX, Assignment, CHANNEL_MAX_BYTES, Channel, INSTRUCTIONS_MAX_BYTES, Lock, SeenChannel, parsed,
};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{ChannelName, OrgId};
use crate::core::problem::FieldProblem;
use crate::engine::Engine;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, Cursor, Item, Key, Page, Query, Range, Read, TableError, Write};
use crate::registry::instances::SeenInstance;
use crate::storage::keys;

/// How often a change is tried while others change the same channel.
pub(super) const TRIES: usize = 20;

/// A channel, in the place of what it was before.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetChannel {
    /// Its plugins, each once, at most 50.
    #[schemars(length(max = 50))]
    pub plugin_assignments: Vec<Assignment>,
    /// What an agent is told in the place of all that its plugins say. At most 32 KiB.
    #[schemars(length(min = 1))]
    pub instructions: Option<String>,
}

/// A channel as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChannelView {
    /// What it is called.
    pub channel: ChannelName,
    /// Its plugins, in the order in which they count.
    pub plugin_assignments: Vec<Assignment>,
    /// What an agent is told in the place of all that its plugins say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// What it is locked to: agents have that, whatever is set here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<Lock>,
    /// When it was set.
    pub updated_at: Timestamp,
    /// Changes with what is set.
    #[serde(skip)]
    pub etag: String,
}

impl Channel {
    fn shown(self, channel: ChannelName) -> ChannelView {
        ChannelView {
            channel,
            etag: self.etag(),
            plugin_assignments: self.assignments,
            instructions: self.instructions,
            locked: self.pinned.map(|pinned| pinned.lock),
            updated_at: self.updated_at,
        }
    }
}

/// Refuses a change of a channel by somebody who looked at another. `expected` are the tags that it may have.
fn as_expected(expected: Option<&Vec<String>>, standing: Option<&Channel>) -> Result<(), Error> {
    let Some(expected) = expected else { return Ok(()) };
    let is = standing.is_some_and(|channel| expected.contains(&channel.etag()));
    if is { Ok(()) } else { Err(Error::Changed) }
}

impl Engine {
    /// The organization's channels, by name.
    pub async fn list_channels(
        &self,
        principal: &Principal,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<ChannelView>, Error> {
        principal.must_operate()?;
        let (partition, prefix) = keys::channels(&principal.org);
        let query = Query { range: Range::Prefix(prefix.to_owned()), cursor, ..Query::partition(partition, limit) };
        let page = self.ports.table.query(query).await.map_err(Error::of_cursor)?;
        let shown = |item: &Item| -> Result<Option<ChannelView>, TableError> {
            let name = item.stored.key.sort.strip_prefix(prefix).and_then(|name| ChannelName::parse(name).ok());
            name.map(|name| Ok(item.record::<Channel>()?.shown(name))).transpose()
        };
        let entries = page.entries.iter().map(shown).filter_map(Result::transpose).collect::<Result<_, _>>()?;
        Ok(Page { entries, next: page.next })
    }

    /// One channel.
    pub async fn channel(&self, principal: &Principal, name: &str) -> Result<ChannelView, Error> {
        principal.must_operate()?;
        let name = parsed(name)?;
        Ok(self.channel_seen(&principal.org, &name).await?.channel.shown(name))
    }

    /// Sets a channel, and makes it if there is none. What it is locked to stays so.
    pub async fn set_channel(
        self: &Arc<Self>,
        principal: &Principal,
        name: &str,
        set: SetChannel,
        expected: Option<Vec<String>>,
    ) -> Result<ChannelView, Error> {
        principal.must_administer()?;
        let name = ChannelName::parse(name).map_err(|rule| Error::field("", format!("the channel's name {rule}")))?;
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.run_to_completion(async move {
            let org = &principal.org;
            let SetChannel { plugin_assignments: mut assignments, instructions } = set;
            let key = keys::channel(org, &name);
            let mut standing = engine.check_channel(org, &assignments, instructions.as_deref(), &key).await?;
            assignments.sort_by(|a, b| (a.priority, &a.plugin).cmp(&(b.priority, &b.plugin)));
            for _ in 0..TRIES {
                let seen = SeenChannel::of(standing.as_ref())?;
                as_expected(expected.as_ref(), seen.as_ref().map(|seen| &seen.channel))?;
                let condition = seen.as_ref().map_or(Condition::Absent, SeenChannel::unchanged);
                let (pinned, locks) = match &seen {
                    Some(SeenChannel { channel, .. }) => (channel.pinned.clone(), channel.locks.clone()),
                    None => (None, Vec::new()),
                };
                let (assignments, instructions) = (assignments.clone(), instructions.clone());
                let updated_at = engine.ports.clock.now();
                let channel = Channel { assignments, instructions, updated_at, pinned, locks };
                if let Some(seen) = seen.filter(|seen| seen.channel.etag() == channel.etag()) {
                    return Ok(seen.channel.shown(name));
                }
                let enabled = channel.assignments.iter().filter(|one| one.enabled).map(|one| &one.plugin);
                let detail = json!({ "channel": name, "plugins": enabled.collect::<Vec<_>>(), "key": principal.key,
                                     "userId": principal.user });
                let event = engine.event(org, EventKind::ChannelChanged, &detail);
                match engine.put_with(channel.item(org, &name)?, condition, Some(&event)).await {
                    Ok(()) => {
                        engine.publish(event).await;
                        return Ok(channel.shown(name));
                    }
                    Err(TableError::Condition { standing: found, .. }) => standing = found.map(|item| *item),
                    Err(error) => return Err(error.into()),
                }
            }
            Err(contention(&name))
        })
        .await
    }

    /// Checks what is to be set, and gives the channel as it stands: one read, beside manifests.
    async fn check_channel(
        &self,
        org: &OrgId,
        assignments: &[Assignment],
        instructions: Option<&str>,
        key: &Key,
    ) -> Result<Option<Item>, Error> {
        let mut problems = Vec::new();
        if assignments.len() > ASSIGNMENTS_MAX {
            let message = format!("has more than the {ASSIGNMENTS_MAX} plugins that a channel may have");
            return Err(Error::field("/plugin_assignments", message));
        }
        if instructions.is_some_and(|text| text.len() > INSTRUCTIONS_MAX_BYTES) {
            let message = format!("must have at most {INSTRUCTIONS_MAX_BYTES} bytes");
            problems.push(FieldProblem::new("/instructions", message));
        }
        let bytes = json!([assignments, instructions]).to_string().len();
        if bytes > CHANNEL_MAX_BYTES {
            let message = format!("the channel has {bytes} bytes of JSON, more than the {CHANNEL_MAX_BYTES} allowed");
            problems.push(FieldProblem::new("", message));
        }
        let names: BTreeSet<_> = assignments.iter().map(|one| &one.plugin).collect();
        let wanted: Vec<_> =
            names.iter().map(|name| keys::instance(org, name)).chain(std::iter::once(key.clone())).collect();
        let mut items = self.ports.table.batch_get(&wanted, Read::Consistent).await?;
        let standing = items.pop().flatten();
        let mut manifests = BTreeMap::new();
        for (name, item) in names.into_iter().zip(items) {
            manifests.insert(name, self.assigned(org, name, &SeenInstance::of(item)?.instance).await?);
        }
        let mut seen = BTreeSet::new();
        for (index, Assignment { plugin, data_adapter, .. }) in assignments.iter().enumerate() {
            let place = format!("/plugin_assignments/{index}");
            if !seen.insert(plugin) {
                problems.push(FieldProblem::new(format!("{place}/plugin"), "is there twice; name each plugin once"));
                continue;
            }
            match manifests.get(plugin) {
                Some(Some(found)) => {
                    let place = format!("{place}/data_adapter");
                    let wrong =
                        data_adapter.iter().flat_map(|choice| adapters::problems(&found.manifest, choice, &place));
                    problems.extend(wrong);
                }
                Some(None) | None => problems.push(FieldProblem::new(
                    format!("{place}/plugin"),
                    format!("is not a plugin that the organization uses; POST /api/v1/plugins/{plugin}/enable first"),
                )),
            }
        }
        if problems.is_empty() { Ok(standing) } else { Err(Error::Invalid(problems)) }
    }

    /// Removes a channel with all that it was locked to. Agents in it may use nothing from then on.
    pub async fn remove_channel(
        self: &Arc<Self>,
        principal: &Principal,
        name: &str,
        expected: Option<Vec<String>>,
    ) -> Result<ChannelView, Error> {
        principal.must_administer()?;
        let name = parsed(name)?;
        let (engine, principal) = (Arc::clone(self), principal.clone());
        self.run_to_completion(async move {
            let org = &principal.org;
            for _ in 0..TRIES {
                let seen = engine.channel_seen(org, &name).await?;
                as_expected(expected.as_ref(), Some(&seen.channel))?;
                let mut writes = vec![Write::Delete(keys::channel(org, &name), seen.unchanged())];
                let builds = seen.channel.locks.iter().map(|lock| keys::build(org, &name, &lock.hash));
                writes.extend(builds.map(|key| Write::Delete(key, Condition::Any)));
                let detail = json!({ "channel": name, "removed": true, "key": principal.key,
                                     "userId": principal.user });
                let event = engine.event(org, EventKind::ChannelChanged, &detail);
                match engine.transact_with(writes, Some(&event)).await {
                    Ok(_) => {
                        engine.publish(event).await;
                        return Ok(seen.channel.shown(name));
                    }
                    Err(TableError::Condition { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Err(contention(&name))
        })
        .await
    }
}

/// Nobody can say what a channel is that is another whenever one looks.
pub(super) fn contention(name: &ChannelName) -> Error {
    Error::Conflict(format!("the channel {name} changes all the time; try again"))
}
