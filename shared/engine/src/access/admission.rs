//! Which plugins an agent may use: those of its channel; if that is locked, with the actions that they had then.

use super::channel::{Channel, SeenChannel};
use crate::core::error::Error;
use crate::core::ids::{ActionName, ChannelName, OrgId, PluginName};
use crate::engine::Engine;
use crate::ports::table::{Item, Read};
use crate::storage::keys;

/// Refuses a plugin that is not enabled in a channel, as that was read.
pub(crate) fn must_admit(
    channel: &ChannelName,
    item: Option<&Item>,
    (plugin, action): (&PluginName, Option<&ActionName>),
) -> Result<(), Error> {
    let Some(SeenChannel { channel: seen, .. }) = SeenChannel::of(item)? else {
        return Err(Error::Forbidden(format!(
            "there is no channel {channel}, so that nothing is enabled in it; an administrator makes it with \
             PUT /api/v1/channels/{channel}"
        )));
    };
    if seen.admits(plugin, action) {
        return Ok(());
    }
    Err(Error::Forbidden(if seen.pinned.is_some() {
        format!(
            "{plugin}{} is not among what the channel {channel} is locked to; an administrator locks it anew with POST \
             /api/v1/agents/{channel}/lock",
            action.map(|action| format!(" {action}")).unwrap_or_default()
        )
    } else {
        format!(
            "{plugin} is not enabled in the channel {channel}; an administrator enables it with PUT \
             /api/v1/channels/{channel}"
        )
    }))
}

impl Engine {
    /// Refuses a plugin that is not enabled in a channel, for whoever has not read that.
    pub(crate) async fn must_be_admitted(
        &self,
        org: &OrgId,
        channel: Option<&ChannelName>,
        plugin: &str,
    ) -> Result<(), Error> {
        // What cannot be a plugin's name is refused as such.
        let (Some(channel), Ok(plugin)) = (channel, PluginName::parse(plugin)) else { return Ok(()) };
        let item = self.ports.table.get(&keys::channel(org, channel), Read::Consistent).await?;
        must_admit(channel, item.as_ref(), (&plugin, None))
    }

    /// What came of a request in a channel. What is wrong with it is of no concern to whoever may not use the plugin: an
    /// intent that came so far as to be read has its channel read by then.
    pub(crate) async fn admitted<T: Send>(
        &self,
        org: &OrgId,
        channel: Option<&ChannelName>,
        plugin: &str,
        came: Result<T, Error>,
    ) -> Result<T, Error> {
        if let Err(Error::Invalid(_) | Error::UnknownPlugin { .. } | Error::UnknownAction { .. }) = &came {
            self.must_be_admitted(org, channel, plugin).await?;
        }
        came
    }

    /// The channel of an agent, if there is one.
    pub(crate) async fn channel_if_any(&self, org: &OrgId, name: &ChannelName) -> Result<Option<Channel>, Error> {
        let item = self.ports.table.get(&keys::channel(org, name), Read::Consistent).await?;
        Ok(SeenChannel::of(item.as_ref())?.map(|seen| seen.channel))
    }
}
