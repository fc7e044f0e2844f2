//! Records that users have and organizations list: found and paged in one way, the newest first.
//!
//! Each stands under its user, and in a list of its organization. Their ids begin with the time, so that no list needs an
//! order of its own.

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{OrgId, UserId};
use crate::engine::Engine;
use crate::ports::table::{BATCH_MAX, Cursor, Item, Key, Page, Query, Range, Read};
use crate::storage::keys;
use crate::storage::keys::ListedKind;

/// How often the store is asked for one page of a filtered list.
const ASKED_MAX: usize = 10;

impl Engine {
    /// A new id, which stands in a list by its time.
    pub(crate) fn id_at(&self, time: Timestamp) -> String {
        format!("{:012x}{}", time.as_millisecond().max(0), self.ports.ids.hex(8))
    }

    /// A record that the caller may see: their own, or, for whoever acts for all, anybody's in the organization.
    pub(crate) async fn listed(
        &self,
        principal: &Principal,
        listed: ListedKind,
        id: &str,
    ) -> Result<Option<Item>, Error> {
        if let Some(user) = &principal.user {
            let key = keys::listed(&principal.org, user, listed, id);
            if let Some(item) = self.ports.table.get(&key, Read::Consistent).await? {
                return Ok(Some(item));
            }
        }
        if !principal.acts_for_all() {
            return Ok(None);
        }
        let place = keys::in_list(&principal.org, listed, id);
        let range = Range::Between(place.sort.clone(), place.sort);
        let query = Query { range, ..Query::partition(place.partition, 1) };
        let Some(key) = self.ports.table.query_list(query).await?.entries.pop() else { return Ok(None) };
        Ok(self.ports.table.get(&key, Read::Consistent).await?)
    }

    /// Records of one user, or of everybody, with their items. A page may have fewer than `limit` and still not be the last.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        org: &OrgId,
        user: Option<&UserId>,
        listed: ListedKind,
        holds: impl Fn(&T) -> bool,
        limit: usize,
        mut cursor: Option<Cursor>,
    ) -> Result<Page<(T, Item)>, Error> {
        let mut entries = Vec::new();
        let mut asked = 0;
        loop {
            let page = limit - entries.len();
            let (items, next) = if let Some(user) = user {
                let Key { partition, sort: prefix } = keys::listed(org, user, listed, "");
                let query = Query {
                    range: Range::Prefix(prefix),
                    cursor,
                    backwards: true,
                    ..Query::partition(partition, page)
                };
                let page = self.ports.table.query(query).await.map_err(Error::of_cursor)?;
                (page.entries, page.next)
            } else {
                let query = Query { cursor, backwards: true, ..Query::partition(keys::list_of(org, listed), page) };
                let page = self.ports.table.query_list(query).await.map_err(Error::of_cursor)?;
                let mut items = Vec::with_capacity(page.entries.len());
                for keys in page.entries.chunks(BATCH_MAX) {
                    items.extend(self.ports.table.batch_get(keys, Read::Eventual).await?.into_iter().flatten());
                }
                (items, page.next)
            };
            asked += 1;
            for item in items {
                match item.record::<T>() {
                    Ok(record) if holds(&record) => entries.push((record, item)),
                    Ok(_) => {}
                    // One that does not read must not hide the others.
                    Err(error) => tracing::error!(%org, ?listed, error = %causes(&error), "a record does not read"),
                }
            }
            cursor = next;
            if cursor.is_none() || entries.len() >= limit || asked >= ASKED_MAX {
                return Ok(Page { entries, next: cursor });
            }
        }
    }
}

impl Principal {
    /// Refuses whoever acts for one user only.
    pub(crate) fn must_act_for_all(&self) -> Result<(), Error> {
        if self.acts_for_all() {
            return Ok(());
        }
        Err(Error::Forbidden("this needs the API key of an administrator, an operator or a service".to_owned()))
    }

    /// Whose records are meant: one user's, or everybody's, where nobody is named by a caller who acts for all.
    pub(crate) fn visible_user(&self, asked: Option<&UserId>) -> Result<Option<UserId>, Error> {
        match asked {
            None if self.acts_for_all() => Ok(None),
            asked => self.resolve_user(asked.cloned()).map(Some),
        }
    }
}
