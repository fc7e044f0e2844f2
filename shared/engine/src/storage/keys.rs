//! The keys of all records.
//!
//! A partition begins with the organization, with four exceptions: records that are read before the organization is known
//! (an API key, an attempt to connect), the one list across organizations (their data keys), plugins that a platform
//! administrator registered for all, and the item by which writing is checked. Parts are joined by `#`. Within a part every
//! byte except letters, digits, `-`, `_`, `.` and `@` is percent-encoded, so that no name can reach into another partition. A
//! part of more than 200 bytes is replaced by `~` and its hash; no encoded part contains `~`.

use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::core::ids::{
    ActionName, AgentId, Alias, ChannelName, DeliveryId, IdempotencyKey, KeyId, MappingKind, OrgId, Owner, PluginName,
    RunId, Scope, TaskId, UserId, WebhookId,
};
use crate::ports::ids::sha256;
use crate::ports::table::Key;

const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'@');
const PART_MAX_BYTES: usize = 200;

fn part(text: &str) -> String {
    let encoded = utf8_percent_encode(text, PART).to_string();
    if encoded.len() <= PART_MAX_BYTES {
        return encoded;
    }
    format!("~{}", sha256(text.as_bytes()))
}

fn of_org(org: &OrgId, rest: &str) -> String {
    format!("org#{}{rest}", part(org.as_str()))
}

/// The item that a check of the store writes. It belongs to no organization, and holds a number only.
pub(crate) fn write_check() -> Key {
    Key { partition: "write_check".to_owned(), sort: "count".to_owned() }
}

/// The organization itself.
pub(crate) fn organization(org: &OrgId) -> Key {
    Key { partition: of_org(org, ""), sort: "organization".to_owned() }
}

/// An API key, by its public half.
pub(crate) fn api_key(id: &KeyId) -> Key {
    Key { partition: format!("key#{id}"), sort: "key".to_owned() }
}

/// An API key in the list of its organization, ordered by age.
pub(crate) fn api_key_in_list(org: &OrgId, created_at: Timestamp, id: &KeyId) -> Key {
    Key { partition: api_keys_of(org), sort: format!("{:015}#{id}", created_at.as_millisecond().max(0)) }
}

/// The list of an organization's API keys.
pub(crate) fn api_keys_of(org: &OrgId) -> String {
    of_org(org, "#keys")
}

/// The partition of an owner's records.
fn of_owner(org: &OrgId, owner: &Owner) -> String {
    match owner {
        Owner::User(user) => of_org(org, &format!("#user#{}", part(user.as_str()))),
        Owner::Organization => of_org(org, ""),
    }
}

/// Every account of an owner at one plugin's service.
pub(crate) fn integrations(org: &OrgId, owner: &Owner, plugin: &PluginName) -> Key {
    let (partition, prefix) = integrations_of(org, owner);
    Key { partition, sort: format!("{prefix}{plugin}") }
}

/// The partition of an owner's accounts, and the prefix of their sort keys.
pub(crate) fn integrations_of(org: &OrgId, owner: &Owner) -> (String, &'static str) {
    (of_owner(org, owner), "integrations#")
}

/// An account that waits for its confirmation, by the hash of its code.
pub(crate) fn pending(org: &OrgId, code_hash: &str) -> Key {
    Key { partition: of_org(org, "#pending"), sort: part(code_hash) }
}

/// A pending account in the list of its owner.
pub(crate) fn pending_in_list(org: &OrgId, owner: &Owner, plugin: &PluginName, code_hash: &str) -> Key {
    Key { partition: pending_of(org, owner), sort: format!("{plugin}#{}", part(code_hash)) }
}

/// The list of an owner's pending accounts.
pub(crate) fn pending_of(org: &OrgId, owner: &Owner) -> String {
    format!("{}#pending-list", of_owner(org, owner))
}

/// An attempt to connect, by the hash of the ticket in its link. The browser sends it before the user is known.
pub(crate) fn ticket(hash: &str) -> Key {
    Key { partition: format!("ticket#{hash}"), sort: "ticket".to_owned() }
}

/// An attempt that is at the provider, by the hash of its state.
pub(crate) fn state(hash: &str) -> Key {
    Key { partition: format!("state#{hash}"), sort: "state".to_owned() }
}

/// A record of a user that the organization lists. Ids begin with the time, so that records are ordered by age. An empty id
/// gives the prefix of all sort keys.
pub(crate) fn listed(org: &OrgId, user: &UserId, listed: ListedKind, id: &str) -> Key {
    let kind = match listed {
        ListedKind::Tasks => "task",
        ListedKind::Runs => "run",
        ListedKind::Failures => "failure",
    };
    Key { partition: of_owner(org, &Owner::User(user.clone())), sort: format!("{kind}#{}", part(id)) }
}

/// Such a record in the list of its organization.
pub(crate) fn in_list(org: &OrgId, listed: ListedKind, id: &str) -> Key {
    Key { partition: list_of(org, listed), sort: part(id) }
}

/// The list of an organization's records of a kind.
pub(crate) fn list_of(org: &OrgId, listed: ListedKind) -> String {
    of_org(
        org,
        match listed {
            ListedKind::Tasks => "#tasks",
            ListedKind::Runs => "#runs",
            ListedKind::Failures => "#failures",
        },
    )
}

/// A task of a user.
pub(crate) fn task(org: &OrgId, user: &UserId, id: &TaskId) -> Key {
    listed(org, user, ListedKind::Tasks, id.as_str())
}

/// A run of a user.
pub(crate) fn run(org: &OrgId, user: &UserId, id: &RunId) -> Key {
    listed(org, user, ListedKind::Runs, id.as_str())
}

/// The idempotency record of a user's key.
pub(crate) fn idempotency(org: &OrgId, user: &UserId, key: &IdempotencyKey) -> Key {
    let partition = of_owner(org, &Owner::User(user.clone()));
    Key { partition, sort: format!("key#{}", part(key.as_str())) }
}

/// A registered plugin with its versions: an organization's, or one for all.
pub(crate) fn registered(owner_org: Option<&OrgId>, plugin: &PluginName) -> Key {
    Key { partition: of_registry(owner_org, "registry"), sort: plugin.to_string() }
}

/// The partition of all registered plugins.
pub(crate) fn all_registered(owner_org: Option<&OrgId>) -> String {
    of_registry(owner_org, "registry")
}

/// The text of a version's manifest.
pub(crate) fn manifest_text(owner_org: Option<&OrgId>, plugin: &PluginName, version: &semver::Version) -> Key {
    Key { partition: of_registry(owner_org, "manifests"), sort: format!("{plugin}#{}", part(&version.to_string())) }
}

fn of_registry(owner_org: Option<&OrgId>, records: &str) -> String {
    owner_org.map_or_else(|| records.to_owned(), |org| of_org(org, &format!("#{records}")))
}

/// An organization's instance of a plugin.
pub(crate) fn instance(org: &OrgId, plugin: &PluginName) -> Key {
    Key { partition: of_org(org, ""), sort: format!("instance#{plugin}") }
}

/// The hook index of an organization: its plugins with active hooks.
pub(crate) fn hooks(org: &OrgId) -> Key {
    Key { partition: of_org(org, ""), sort: "hooks".to_owned() }
}

/// The partition of an organization's instances, and the prefix of their sort keys.
pub(crate) fn instances(org: &OrgId) -> (String, &'static str) {
    (of_org(org, ""), "instance#")
}

/// A channel of an organization.
pub(crate) fn channel(org: &OrgId, channel: &ChannelName) -> Key {
    let (partition, prefix) = channels(org);
    Key { partition, sort: format!("{prefix}{channel}") }
}

/// The partition of an organization's channels, and the prefix of their sort keys.
pub(crate) fn channels(org: &OrgId) -> (String, &'static str) {
    (of_org(org, ""), "channel#")
}

/// A locked build of a channel, by its hash.
pub(crate) fn build(org: &OrgId, channel: &ChannelName, hash: &str) -> Key {
    Key { partition: of_org(org, &format!("#builds#{channel}")), sort: part(hash) }
}

/// The counter of an organization's failures of one plugin, action and code in the hour of `time`.
pub(crate) fn failures_counted(
    org: &OrgId,
    time: Timestamp,
    plugin: &PluginName,
    action: &ActionName,
    code: &str,
) -> Key {
    Key { partition: counts_of(org), sort: format!("{}#{plugin}#{action}#{}", hour(time), part(code)) }
}

/// The partition of an organization's failure counters, ordered by hour.
pub(crate) fn counts_of(org: &OrgId) -> String {
    of_org(org, "#counts")
}

/// The hour of a time (UTC), with which the keys of counters begin.
pub(crate) fn hour(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H").to_string()
}

/// An organization's fallback instruction for failures: of one plugin or all, for one agent or all.
pub(crate) fn fallback(org: &OrgId, plugin: Option<&PluginName>, agent: Option<&AgentId>) -> Key {
    let plugin = plugin.map_or("", PluginName::as_str);
    let agent = agent.map(|agent| part(agent.as_str())).unwrap_or_default();
    Key { partition: fallbacks_of(org), sort: format!("{plugin}#{agent}") }
}

/// The partition of an organization's fallbacks.
pub(crate) fn fallbacks_of(org: &OrgId) -> String {
    of_org(org, "#fallbacks")
}

/// An organization's own OAuth client for a plugin.
pub(crate) fn client(org: &OrgId, plugin: &PluginName) -> Key {
    Key { partition: of_org(org, ""), sort: format!("client#{plugin}") }
}

/// The mapping of a name in one scope. `name` is in its compared form.
pub(crate) fn mapping(org: &OrgId, scope: &Scope, plugin: &PluginName, kind: &MappingKind, name: &str) -> Key {
    let (partition, prefix) = mappings(org, scope, Some((plugin, Some(kind))));
    Key { partition, sort: format!("{prefix}{}", part(name)) }
}

/// The partition of a scope's mappings, and the prefix of the sort keys of all, of a plugin's or of a kind's.
pub(crate) fn mappings(
    org: &OrgId,
    scope: &Scope,
    of: Option<(&PluginName, Option<&MappingKind>)>,
) -> (String, String) {
    let partition = match scope {
        Scope::Agent(agent) => of_org(org, &format!("#agent#{}", part(agent.as_str()))),
        Scope::User(user) => of_owner(org, &Owner::User(user.clone())),
        Scope::Organization => of_owner(org, &Owner::Organization),
    };
    let plugin = of.map(|(plugin, _)| format!("{plugin}#"));
    let kind = of.and_then(|(_, kind)| kind).map(|kind| format!("{kind}#"));
    (partition, format!("mapping#{}{}", plugin.unwrap_or_default(), kind.unwrap_or_default()))
}

/// The cached id of a name, found through a user's account of that alias, or through the default account.
pub(crate) fn cached_name(
    org: &OrgId,
    user: &UserId,
    plugin: &PluginName,
    alias: Option<&Alias>,
    kind: &MappingKind,
    name: &str,
) -> Key {
    let (partition, prefix) = cached_names(org, user, Some(plugin));
    let alias = alias.map(Alias::as_str).unwrap_or_default();
    Key { partition, sort: format!("{prefix}{alias}#{kind}#{}", part(name)) }
}

/// The partition of the cached ids of a user's names, and the prefix of the sort keys of all or of a plugin's.
pub(crate) fn cached_names(org: &OrgId, user: &UserId, plugin: Option<&PluginName>) -> (String, String) {
    let plugin = plugin.map(|plugin| format!("{plugin}#")).unwrap_or_default();
    (of_owner(org, &Owner::User(user.clone())), format!("found#{plugin}"))
}

/// Every webhook of an organization.
pub(crate) fn webhooks(org: &OrgId) -> Key {
    Key { partition: of_org(org, ""), sort: "webhooks".to_owned() }
}

/// An event in the outbox, to be delivered to webhooks.
pub(crate) fn outgoing(org: &OrgId, event: &str) -> Key {
    Key { partition: of_org(org, OUTBOX), sort: part(event) }
}

/// Whether a key is that of an event in the outbox.
pub(crate) fn is_outgoing(key: &Key) -> bool {
    key.partition.ends_with(OUTBOX)
}

const OUTBOX: &str = "#outbox";

/// The delivery of an event to a webhook. Ids begin with the time of the event, which orders the deliveries.
pub(crate) fn delivery(org: &OrgId, webhook: &WebhookId, id: &DeliveryId) -> Key {
    Key { partition: deliveries_of(org, webhook), sort: part(id.as_str()) }
}

/// The partition of a webhook's deliveries.
pub(crate) fn deliveries_of(org: &OrgId, webhook: &WebhookId) -> String {
    of_org(org, &format!("#webhook#{webhook}"))
}

/// A version of a secret.
pub(crate) fn secret(org: &OrgId, id: &str, version: &str) -> Key {
    Key { partition: secret_versions(org, id), sort: part(version) }
}

/// All versions of a secret.
pub(crate) fn secret_versions(org: &OrgId, id: &str) -> String {
    of_org(org, &format!("#secret#{}", part(id)))
}

/// The list of every organization's data keys.
pub(crate) const VAULT_KEYS: &str = "vault-keys";

/// The data keys that seal an organization's secrets.
pub(crate) fn data_keys(org: &OrgId) -> Key {
    Key { partition: of_org(org, ""), sort: "data-keys".to_owned() }
}

/// An organization's data keys in the list of all.
pub(crate) fn data_keys_in_list(org: &OrgId) -> Key {
    Key { partition: VAULT_KEYS.to_owned(), sort: part(org.as_str()) }
}

/// A kind of record that organizations list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListedKind {
    Tasks,
    Runs,
    Failures,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_reaches_into_another_partition() {
        let names =
            ["a", "a#user#b", "a%23user%23b", "~", "a/b", "A", "é", &"x".repeat(255), &"é".repeat(127), "a#", "#a"];
        let mut seen = std::collections::HashSet::new();
        for org in names {
            for user in names {
                let (org, user) = (OrgId::parse(org).unwrap(), UserId::parse(user).unwrap());
                let key = integrations(&org, &Owner::User(user), &PluginName::parse("p").unwrap());
                assert!(key.partition.starts_with(&of_org(&org, "#")));
                assert!(key.partition.len() < 2048 && key.sort.len() < 1024);
                assert!(seen.insert(key));
            }
        }
    }

    #[test]
    fn each_name_has_a_unique_key() {
        let names = ["a", "k#a", "#a", "ä", "%23a", &"x".repeat(255), &"é".repeat(127)];
        let (org, user) = (OrgId::parse("o").unwrap(), UserId::parse("o").unwrap());
        let agent = AgentId::parse("o").unwrap();
        let (plugin, aliases) = (PluginName::parse("p").unwrap(), [None, Some(Alias::parse("k").unwrap())]);
        let mut seen = std::collections::HashSet::new();
        for kind in ["k", "a"].map(|kind| MappingKind::parse(kind).unwrap()) {
            for name in names {
                let scopes = [Scope::Agent(agent.clone()), Scope::User(user.clone()), Scope::Organization];
                let written = scopes.map(|scope| mapping(&org, &scope, &plugin, &kind, name));
                let found = aliases.clone().map(|alias| cached_name(&org, &user, &plugin, alias.as_ref(), &kind, name));
                for key in written.into_iter().chain(found) {
                    assert!(key.partition.starts_with("org#o") && key.sort.len() < 1024, "{key:?}");
                    assert!(seen.insert(key.clone()), "{key:?}");
                }
            }
        }
    }
}
