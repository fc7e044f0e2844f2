//! Names listed, and looked up among those that are stored.

use serde::{Deserialize, Serialize};

use super::lookup::near;
use super::names::{NameResolvedBy, Naming};
use super::record::{CachedName, Mapping, MappingView, Provenance, ScopeName};
use super::scope;
use crate::access::principal::Principal;
use crate::accounts::AccountLookup;
use crate::core::error::Error;
use crate::core::ids::{AgentId, Alias, MappingKind, MappingName, OrgId, PluginName, Scope, UserId};
use crate::core::problem::FieldProblem;
use crate::engine::Engine;
use crate::plugin::manifest::Auth;
use crate::ports::table::{BATCH_MAX, Cursor, Item, Page, Query, Range, Read, TableError};
use crate::storage::keys;

/// How often the store is asked for one page, or for all that names of a kind were found to be.
const ASKED_MAX: usize = 10;

/// Which names to list: those of one scope.
#[derive(Debug, Clone, Default)]
pub struct WhichMappings {
    /// Of which plugin.
    pub tool: Option<PluginName>,
    /// Of which kind.
    pub kind: Option<MappingKind>,
    /// For which user.
    pub user_id: Option<UserId>,
    /// For which agent.
    pub agent_id: Option<AgentId>,
}

/// A name that somebody may intend.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NameToLookUp {
    /// The plugin.
    pub tool: PluginName,
    /// What it is a name of.
    pub kind: MappingKind,
    /// The name.
    pub name: MappingName,
    /// The user that intends it; left out, the one that the API key is bound to.
    pub user_id: Option<UserId>,
    /// The agent that intends it.
    pub agent_id: Option<AgentId>,
    /// The account that the intent names.
    pub integration: Option<Alias>,
}

/// What a name stands for now.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LookedUp {
    /// Whether that is known.
    pub found: bool,
    /// What the service calls it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// For whom the name is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<ScopeName>,
    /// How it came to be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
    /// From when on it no longer counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<jiff::Timestamp>,
    /// Where nothing is known, the nearest of the names that are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Vec<String>>,
}

/// The two lists that a user's names come from. A cursor begins with the letter of its list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Written,
    Found,
}

impl List {
    fn letter(self) -> char {
        match self {
            Self::Written => 'w',
            Self::Found => 'f',
        }
    }

    /// Where a listing goes on.
    fn of(cursor: Option<&Cursor>, scope: &Scope) -> Result<(Self, Option<Cursor>), Error> {
        let Some(Cursor(cursor)) = cursor else { return Ok((Self::Written, None)) };
        let mut letters = cursor.chars();
        let list = match (letters.next(), scope) {
            (Some('w'), _) => Self::Written,
            (Some('f'), Scope::User(_)) => Self::Found,
            _ => return Err(Error::of_cursor(TableError::Request("a cursor of another list"))),
        };
        let rest = letters.as_str();
        Ok((list, (!rest.is_empty()).then(|| Cursor(rest.to_owned()))))
    }
}

impl Engine {
    /// The names of one scope; a user's are followed by what names were found to be. A page may have fewer than `limit`
    /// and still not be the last.
    pub async fn list_mappings(
        &self,
        principal: &Principal,
        which: &WhichMappings,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<MappingView>, Error> {
        let WhichMappings { tool, kind, user_id, agent_id } = which;
        let scope = scope(user_id.as_ref(), agent_id.as_ref(), "");
        if let Ok(scope) = &scope {
            principal.may_read(scope)?;
        }
        let known = match (tool, kind) {
            (Some(tool), Some(kind)) => self.kind(&principal.org, tool, kind, "").await?.map(drop),
            (Some(tool), None) => self.mapped_plugin(&principal.org, tool, "").await?.map(drop),
            (None, None) => Ok(()),
            (None, Some(_)) => Err(FieldProblem::new("/tool", "is needed to tell whose kind is meant")),
        };
        let scope = match (scope, known) {
            (Ok(scope), Ok(())) => scope,
            (scope, known) => return Err(Error::Invalid(scope.err().into_iter().chain(known.err()).collect())),
        };
        let (mut list, mut cursor) = List::of(cursor.as_ref(), &scope)?;
        let mut entries = Vec::new();
        for _ in 0..ASKED_MAX {
            let (partition, prefix) = match (list, &scope) {
                (List::Found, Scope::User(user)) => keys::found_names(&principal.org, user, tool.as_ref()),
                (List::Written | List::Found, scope) => {
                    keys::mappings(&principal.org, scope, tool.as_ref().map(|tool| (tool, kind.as_ref())))
                }
            };
            let query =
                Query { range: Range::Prefix(prefix), cursor, ..Query::partition(partition, limit - entries.len()) };
            let page = self.ports.table.query(query).await.map_err(Error::of_cursor)?;
            for item in page.entries {
                match (list, &scope) {
                    (List::Found, Scope::User(user)) => {
                        let found: CachedName = item.record()?;
                        entries.extend(kind.as_ref().is_none_or(|kind| found.kind == *kind).then(|| found.view(user)));
                    }
                    (List::Written | List::Found, scope) => entries.push(item.record::<Mapping>()?.view(scope)),
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                let more = list == List::Written && matches!(scope, Scope::User(_));
                if !more {
                    return Ok(Page { entries, next: None });
                }
                list = List::Found;
            }
            if entries.len() >= limit {
                break;
            }
        }
        let rest = cursor.map(|Cursor(cursor)| cursor).unwrap_or_default();
        Ok(Page { entries, next: Some(Cursor(format!("{}{rest}", list.letter()))) })
    }

    /// What a name would stand for in an intent, as far as that is stored. Nobody is asked, and nothing is written.
    pub async fn look_up_stored(&self, principal: &Principal, asked: NameToLookUp) -> Result<LookedUp, Error> {
        let NameToLookUp { tool, kind, name, user_id, agent_id, integration } = asked;
        let user = principal.resolve_user(user_id)?;
        let found = self.kind(&principal.org, &tool, &kind, "").await?;
        let (plugin, names) = found.map_err(|problem| Error::Invalid(vec![problem]))?;
        let manifest = &plugin.manifest;
        let (org, alias) = (&principal.org, integration.as_ref());
        let account = match manifest.auth {
            Auth::None => None,
            Auth::Oauth2(_) | Auth::ClientCredentials(_) | Auth::ApiKey(_) | Auth::Basic(_) => {
                self.find_account(org, &user, manifest, alias).await?
            }
        };
        let mut naming = Naming::one(&tool, &kind, &names, name.as_str());
        let keys = naming.keys(org, &user, agent_id.as_ref(), alias);
        let items =
            if keys.is_empty() { Vec::new() } else { self.ports.table.batch_get(&keys, Read::Consistent).await? };
        let account = account.as_ref().map(AccountLookup::identity);
        let seen_by = match plugin.digest {
            None => account.map(str::to_owned),
            Some(_) => self.plugin_and_instance(org, tool.as_str()).await?.1.instance.names_seen_by(&plugin, account),
        };
        naming.read(items, seen_by.as_deref())?;
        let resolved = naming.shown().pop();
        let known = resolved.and_then(|one| Some((one.external_id?, one.how, one.expires_at)));
        let known = known.filter(|(id, how, _)| *how != NameResolvedBy::AsGiven || names.is_id(id));
        if let Some((external_id, how, expires_at)) = known {
            let (scope, provenance) = match how {
                NameResolvedBy::Agent => (Some(ScopeName::Agent), Provenance::Manual),
                NameResolvedBy::User => (Some(ScopeName::User), Provenance::Manual),
                NameResolvedBy::Organization => (Some(ScopeName::Organization), Provenance::Manual),
                NameResolvedBy::Lookup => (Some(ScopeName::User), Provenance::Lookup),
                NameResolvedBy::AsGiven => (None, Provenance::AsGiven),
            };
            let (external_id, provenance) = (Some(external_id), Some(provenance));
            return Ok(LookedUp { found: true, external_id, scope, provenance, expires_at, nearest: None });
        }
        let mut there = self.written_names(org, (Some(&user), agent_id.as_ref()), &tool, &kind).await?;
        let found = self.found_names(org, &user, &tool, &kind).await?;
        there.extend(found.into_iter().map(|(found, _)| found.name.into()));
        let nearest = near(&names, name.as_str(), there.iter().map(String::as_str));
        Ok(LookedUp {
            found: false,
            external_id: None,
            scope: None,
            provenance: None,
            expires_at: None,
            nearest: Some(nearest),
        })
    }

    /// The first hundred names that somebody wrote, of each scope that counts.
    pub(super) async fn written_names(
        &self,
        org: &OrgId,
        (user, agent): (Option<&UserId>, Option<&AgentId>),
        plugin: &PluginName,
        kind: &MappingKind,
    ) -> Result<Vec<String>, TableError> {
        let scopes = [agent.cloned().map(Scope::Agent), user.cloned().map(Scope::User), Some(Scope::Organization)];
        let mut names = Vec::new();
        for scope in scopes.into_iter().flatten() {
            let (partition, prefix) = keys::mappings(org, &scope, Some((plugin, Some(kind))));
            let query =
                Query { range: Range::Prefix(prefix), read: Read::Eventual, ..Query::partition(partition, BATCH_MAX) };
            for item in self.ports.table.query(query).await?.entries {
                names.push(item.record::<Mapping>()?.name.into());
            }
        }
        Ok(names)
    }

    /// What a user's names of a kind were found to be, up to a thousand of the plugin's.
    pub(super) async fn found_names(
        &self,
        org: &OrgId,
        user: &UserId,
        plugin: &PluginName,
        kind: &MappingKind,
    ) -> Result<Vec<(CachedName, Item)>, TableError> {
        let (partition, prefix) = keys::found_names(org, user, Some(plugin));
        let (mut found, mut cursor) = (Vec::new(), None);
        for _ in 0..ASKED_MAX {
            let range = Range::Prefix(prefix.clone());
            let query = Query { range, cursor, ..Query::partition(partition.clone(), BATCH_MAX) };
            let page = self.ports.table.query(query).await?;
            for item in page.entries {
                let one: CachedName = item.record()?;
                if one.kind == *kind {
                    found.push((one, item));
                }
            }
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        Ok(found)
    }
}
