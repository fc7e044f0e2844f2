//! Which plugins an agent may use: the enabled plugins of its channel; in a locked channel, the plugins and actions of the
//! locked build.

use super::channel::{Channel, SeenChannel};
use crate::core::error::Error;
use crate::core::ids::{ActionName, ChannelName, OrgId, PluginName};
use crate::engine::Engine;
use crate::ports::table::{Item, Read};
use crate::storage::keys;

/// Refuses a plugin, or an action of it, that a channel does not admit. `item` is the channel as read from the table.
pub(crate) fn must_admit(
    channel: &ChannelName,
    item: Option<&Item>,
    plugin: &PluginName,
    action: Option<&ActionName>,
) -> Result<(), Error> {
    let Some(SeenChannel { channel: seen, .. }) = SeenChannel::of(item)? else {
        return Err(Error::Forbidden(format!(
            "there is no channel {channel}, so no plugin is enabled in it; an administrator makes it with \
             PUT /api/v1/channels/{channel}"
        )));
    };
    if seen.admits(plugin, action) {
        return Ok(());
    }
    Err(Error::Forbidden(if seen.pinned.is_some() {
        format!(
            "{plugin}{} is not in the build that the channel {channel} is locked to; an administrator locks it anew with \
             POST /api/v1/agents/{channel}/lock",
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
    /// As [`must_admit`] for any action of the plugin, for callers that have not read the channel.
    pub(crate) async fn must_be_admitted(
        &self,
        org: &OrgId,
        channel: Option<&ChannelName>,
        plugin: &str,
    ) -> Result<(), Error> {
        // A text that cannot be a plugin's name has an error of its own.
        let (Some(channel), Ok(plugin)) = (channel, PluginName::parse(plugin)) else { return Ok(()) };
        let item = self.ports.table.get(&keys::channel(org, channel), Read::Consistent).await?;
        must_admit(channel, item.as_ref(), &plugin, None)
    }

    /// Replaces errors about the plugin's actions and parameters if the channel does not admit the plugin: the caller must
    /// not learn about a plugin that they may not use. Other results pass, because by then the request has checked its
    /// channel.
    pub(crate) async fn hide_errors_unless_admitted<T: Send>(
        &self,
        org: &OrgId,
        channel: Option<&ChannelName>,
        plugin: &str,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        if let Err(Error::Invalid(_) | Error::UnknownPlugin { .. } | Error::UnknownAction { .. }) = &result {
            self.must_be_admitted(org, channel, plugin).await?;
        }
        result
    }

    /// The channel of that name, if there is one.
    pub(crate) async fn channel_if_any(&self, org: &OrgId, name: &ChannelName) -> Result<Option<Channel>, Error> {
        let item = self.ports.table.get(&keys::channel(org, name), Read::Consistent).await?;
        Ok(SeenChannel::of(item.as_ref())?.map(|seen| seen.channel))
    }
}
