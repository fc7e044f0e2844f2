//! Channels: administrators set which plugins each has; operators list and read them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::debug_span;
use tracing::field::Empty;

use super::adapters;
use crate::access::channel::{
    ASSIGNMENTS_MAX, Assignment, CHANNEL_MAX_BYTES, Channel, INSTRUCTIONS_MAX_BYTES, Lock, SeenChannel, parsed,
};
use crate::access::principal::Principal;
use crate::core::error::Error;
use crate::core::ids::{ChannelName, OrgId, PluginName};
use crate::core::problem::FieldProblem;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::plugin::catalog::Plugin;
use crate::ports::events::EventKind;
use crate::ports::table::{Condition, Cursor, Item, Page, Query, Range, Read, TableError, Write};
use crate::registry::instances::LoadedInstance;
use crate::storage::compare_and_set::CompareAndSet;
use crate::storage::keys;

/// The new content of a channel. It replaces what the channel had.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetChannel {
    /// Its plugins, each once, at most 50.
    #[schemars(length(max = 50))]
    pub plugin_assignments: Vec<Assignment>,
    /// The agent's instructions. They replace the instructions of all its plugins. At most 32 KiB.
    #[schemars(length(min = 1))]
    pub instructions: Option<String>,
}

/// A channel, for administrators and operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChannelView {
    /// Its name.
    pub channel: ChannelName,
    /// Its plugins, by priority and then by name.
    pub plugin_assignments: Vec<Assignment>,
    /// The agent's instructions, where they replace those of its plugins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
    /// The lock in force. While there is one, agents get its build and not what is set here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locked: Option<Lock>,
    /// When it was last set.
    pub updated_at: Timestamp,
    /// Changes with the plugins and the instructions, and not with locks.
    #[serde(skip)]
    pub etag: String,
}

impl Channel {
    fn into_view(self, channel: ChannelName) -> ChannelView {
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

/// Refuses a change if the channel has none of the `expected` tags: the caller looked at another version of it.
fn check_etag(expected: Option<&[String]>, stored: Option<&Channel>) -> Result<(), Error> {
    let Some(expected) = expected else { return Ok(()) };
    let matches = stored.is_some_and(|channel| expected.contains(&channel.etag()));
    if matches { Ok(()) } else { Err(Error::Changed) }
}

impl Engine {
    /// The organization's channels, by name.
    pub async fn list_channels(
        &self,
        principal: &Principal,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<ChannelView>, Error> {
        let span = debug_span!("list_channels", org = %principal.org, outcome = Empty);
        traced(span, async {
            principal.must_operate()?;
            let (partition, prefix) = keys::channels(&principal.org);
            let query = Query { range: Range::Prefix(prefix.to_owned()), cursor, ..Query::partition(partition, limit) };
            let page = self.ports.table.query(query).await.map_err(Error::of_cursor)?;
            let view = |item: &Item| -> Result<Option<ChannelView>, TableError> {
                let name = item.stored.key.sort.strip_prefix(prefix).and_then(|name| ChannelName::parse(name).ok());
                name.map(|name| Ok(item.record::<Channel>()?.into_view(name))).transpose()
            };
            let entries = page.entries.iter().map(view).filter_map(Result::transpose).collect::<Result<_, _>>()?;
            Ok(Page { entries, next: page.next })
        })
        .await
    }

    /// One channel.
    pub async fn channel(&self, principal: &Principal, name: &str) -> Result<ChannelView, Error> {
        let span = debug_span!("channel", org = %principal.org, channel = name, outcome = Empty);
        traced(span, async {
            principal.must_operate()?;
            let name = parsed(name)?;
            Ok(self.channel_seen(&principal.org, &name).await?.channel.into_view(name))
        })
        .await
    }

    /// Creates a channel or replaces its content. Its locks stay as they are. `expected` are the tags that the channel may
    /// have; none allows any.
    pub async fn set_channel(
        self: &Arc<Self>,
        principal: &Principal,
        name: &str,
        set: SetChannel,
        expected: Option<Vec<String>>,
    ) -> Result<ChannelView, Error> {
        let span = debug_span!("set_channel", org = %principal.org, channel = name, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let name =
                ChannelName::parse(name).map_err(|rule| Error::field("", format!("the channel's name {rule}")))?;
            let (engine, principal) = (Arc::clone(self), principal.clone());
            self.run_to_completion(
                async move { engine.write_channel(&principal, name, set, expected.as_deref()).await },
            )
            .await
        })
        .await
    }

    async fn write_channel(
        &self,
        principal: &Principal,
        name: ChannelName,
        mut set: SetChannel,
        expected: Option<&[String]>,
    ) -> Result<ChannelView, Error> {
        let org = &principal.org;
        let mut stored = self.validate_channel(org, &name, &set).await?;
        set.plugin_assignments.sort_by(|a, b| (a.priority, &a.plugin).cmp(&(b.priority, &b.plugin)));
        let mut race = CompareAndSet::default();
        loop {
            let seen = SeenChannel::of(stored.as_ref())?;
            check_etag(expected, seen.as_ref().map(|seen| &seen.channel))?;
            let condition = seen.as_ref().map_or(Condition::Absent, SeenChannel::unchanged);
            let channel = self.changed_channel(seen.as_ref().map(|seen| &seen.channel), &set);
            if let Some(seen) = seen.filter(|seen| seen.channel.etag() == channel.etag()) {
                return Ok(seen.channel.into_view(name));
            }
            let enabled = channel.assignments.iter().filter(|one| one.enabled).map(|one| &one.plugin);
            let detail = json!({ "channel": name, "plugins": enabled.collect::<Vec<_>>(), "key": principal.key,
                                 "userId": principal.user });
            let event = self.event(org, EventKind::ChannelChanged, &detail);
            match self.put_with(channel.item(org, &name)?, condition, Some(&event)).await {
                Ok(()) => {
                    self.publish(event).await;
                    return Ok(channel.into_view(name));
                }
                Err(error) => stored = race.after_lost_race(error, format_args!("the channel {name}"))?,
            }
        }
    }

    /// The new record of a channel: the new content with the locks of the stored record.
    fn changed_channel(&self, stored: Option<&Channel>, set: &SetChannel) -> Channel {
        Channel {
            assignments: set.plugin_assignments.clone(),
            instructions: set.instructions.clone(),
            updated_at: self.ports.clock.now(),
            pinned: stored.and_then(|channel| channel.pinned.clone()),
            locks: stored.map(|channel| channel.locks.clone()).unwrap_or_default(),
        }
    }

    /// Validates the content of a channel, and returns the stored item of the channel. Costs one read, and one for each
    /// manifest that this process has not cached.
    async fn validate_channel(&self, org: &OrgId, name: &ChannelName, set: &SetChannel) -> Result<Option<Item>, Error> {
        let mut problems = size_problems(set)?;
        let names: BTreeSet<_> = set.plugin_assignments.iter().map(|one| &one.plugin).collect();
        let mut keys: Vec<_> = names.iter().map(|plugin| keys::instance(org, plugin)).collect();
        keys.push(keys::channel(org, name));
        let mut items = self.ports.table.batch_get(&keys, Read::Consistent).await?;
        let stored = items.pop().flatten();
        let mut plugins = BTreeMap::new();
        for (plugin, item) in names.into_iter().zip(items) {
            if let Some(found) = self.assigned(org, plugin, &LoadedInstance::of(item)?.instance).await? {
                plugins.insert(plugin, found);
            }
        }
        problems.extend(assignment_problems(&set.plugin_assignments, &plugins));
        if problems.is_empty() { Ok(stored) } else { Err(Error::Invalid(problems)) }
    }

    /// Deletes a channel with its locks and their builds. From then on its agents may use nothing.
    pub async fn remove_channel(
        self: &Arc<Self>,
        principal: &Principal,
        name: &str,
        expected: Option<Vec<String>>,
    ) -> Result<ChannelView, Error> {
        let span = debug_span!("remove_channel", org = %principal.org, channel = name, outcome = Empty);
        traced(span, async {
            principal.must_administer()?;
            let name = parsed(name)?;
            let (engine, principal) = (Arc::clone(self), principal.clone());
            self.run_to_completion(async move { engine.delete_channel(&principal, name, expected.as_deref()).await })
                .await
        })
        .await
    }

    async fn delete_channel(
        &self,
        principal: &Principal,
        name: ChannelName,
        expected: Option<&[String]>,
    ) -> Result<ChannelView, Error> {
        let org = &principal.org;
        let mut race = CompareAndSet::default();
        loop {
            let seen = self.channel_seen(org, &name).await?;
            check_etag(expected, Some(&seen.channel))?;
            let mut writes = vec![Write::Delete(keys::channel(org, &name), seen.unchanged())];
            let builds = seen.channel.locks.iter().map(|lock| keys::build(org, &name, &lock.hash));
            writes.extend(builds.map(|key| Write::Delete(key, Condition::Any)));
            let detail = json!({ "channel": name, "removed": true, "key": principal.key, "userId": principal.user });
            let event = self.event(org, EventKind::ChannelChanged, &detail);
            match self.transact_with(writes, Some(&event)).await {
                Ok(_) => {
                    self.publish(event).await;
                    return Ok(seen.channel.into_view(name));
                }
                Err(error) => drop(race.after_lost_race(error, format_args!("the channel {name}"))?),
            }
        }
    }
}

/// What is too large. Too many assignments are an error at once: nothing else is checked.
fn size_problems(set: &SetChannel) -> Result<Vec<FieldProblem>, Error> {
    let SetChannel { plugin_assignments, instructions } = set;
    if plugin_assignments.len() > ASSIGNMENTS_MAX {
        let message = format!("has more than the {ASSIGNMENTS_MAX} plugins that a channel may have");
        return Err(Error::field("/plugin_assignments", message));
    }
    let mut problems = Vec::new();
    if instructions.as_ref().is_some_and(|text| text.len() > INSTRUCTIONS_MAX_BYTES) {
        let message = format!("must have at most {INSTRUCTIONS_MAX_BYTES} bytes");
        problems.push(FieldProblem::new("/instructions", message));
    }
    let bytes = json!([plugin_assignments, instructions]).to_string().len();
    if bytes > CHANNEL_MAX_BYTES {
        let message = format!("the channel has {bytes} bytes of JSON, more than the {CHANNEL_MAX_BYTES} allowed");
        problems.push(FieldProblem::new("", message));
    }
    Ok(problems)
}

/// Repeated plugins, plugins that the organization does not use, and invalid adapters.
fn assignment_problems(assignments: &[Assignment], plugins: &BTreeMap<&PluginName, Arc<Plugin>>) -> Vec<FieldProblem> {
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for (index, Assignment { plugin, data_adapter, .. }) in assignments.iter().enumerate() {
        let pointer = |field: &str| format!("/plugin_assignments/{index}/{field}");
        if !names.insert(plugin) {
            problems.push(FieldProblem::new(pointer("plugin"), "appears twice; name each plugin once"));
            continue;
        }
        let Some(found) = plugins.get(plugin) else {
            let message =
                format!("is not a plugin that the organization uses; POST /api/v1/plugins/{plugin}/enable first");
            problems.push(FieldProblem::new(pointer("plugin"), message));
            continue;
        };
        if let Some(choice) = data_adapter {
            problems.extend(adapters::problems(&found.manifest, choice, &pointer("data_adapter")));
        }
    }
    problems
}
