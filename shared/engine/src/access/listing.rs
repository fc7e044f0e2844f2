//! Records that belong to a user and that the organization lists, such as tasks, runs and failures: one way to get and page
//! them, the newest first.
//!
//! Each record is stored under its user and has an entry in a list of its organization. Its id begins with the time of its
//! creation, so both are in the order of time.

use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::access::principal::Principal;
use crate::core::error::{Error, causes};
use crate::core::ids::{OrgId, UserId};
use crate::engine::Engine;
use crate::ports::table::{BATCH_MAX, Cursor, Item, Key, Page, Query, Range, Read};
use crate::storage::keys;
use crate::storage::keys::ListedKind;

/// The most queries for one page of a filtered list.
const QUERIES_MAX: usize = 10;

impl Engine {
    /// A new id that sorts by its time.
    pub(crate) fn id_at(&self, time: Timestamp) -> String {
        format!("{:012x}{}", time.as_millisecond().max(0), self.ports.ids.hex(8))
    }

    /// A record that the caller may see: one of their own user, or, for a caller who acts for all users, any in the
    /// organization.
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
        let entry = keys::in_list(&principal.org, listed, id);
        let range = Range::Between(entry.sort.clone(), entry.sort);
        let query = Query { range, ..Query::partition(entry.partition, 1) };
        let Some(key) = self.ports.table.query_list(query).await?.entries.pop() else { return Ok(None) };
        Ok(self.ports.table.get(&key, Read::Consistent).await?)
    }

    /// Records of one user, or of all, that match `filter`, with their items. A page may have fewer than `limit` records and
    /// still not be the last. A record that cannot be read is logged and left out.
    pub(crate) async fn list<T: DeserializeOwned>(
        &self,
        org: &OrgId,
        user: Option<&UserId>,
        listed: ListedKind,
        filter: impl Fn(&T) -> bool,
        limit: usize,
        mut cursor: Option<Cursor>,
    ) -> Result<Page<(T, Item)>, Error> {
        let mut entries = Vec::new();
        let mut queries = 0;
        loop {
            let wanted = limit - entries.len();
            let (items, next) = match user {
                Some(user) => self.items_of_user(org, user, listed, wanted, cursor).await?,
                None => self.items_of_all(org, listed, wanted, cursor).await?,
            };
            queries += 1;
            for item in items {
                match item.record::<T>() {
                    Ok(record) if filter(&record) => entries.push((record, item)),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(%org, ?listed, error = %causes(&error), "record is unreadable; left out of the list");
                    }
                }
            }
            cursor = next;
            if cursor.is_none() || entries.len() >= limit || queries >= QUERIES_MAX {
                return Ok(Page { entries, next: cursor });
            }
        }
    }

    async fn items_of_user(
        &self,
        org: &OrgId,
        user: &UserId,
        listed: ListedKind,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<(Vec<Item>, Option<Cursor>), Error> {
        let Key { partition, sort: prefix } = keys::listed(org, user, listed, "");
        let range = Range::Prefix(prefix);
        let query = Query { range, cursor, backwards: true, ..Query::partition(partition, limit) };
        let page = self.ports.table.query(query).await.map_err(Error::of_cursor)?;
        Ok((page.entries, page.next))
    }

    async fn items_of_all(
        &self,
        org: &OrgId,
        listed: ListedKind,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<(Vec<Item>, Option<Cursor>), Error> {
        let query = Query { cursor, backwards: true, ..Query::partition(keys::list_of(org, listed), limit) };
        let page = self.ports.table.query_list(query).await.map_err(Error::of_cursor)?;
        let mut items = Vec::with_capacity(page.entries.len());
        for keys in page.entries.chunks(BATCH_MAX) {
            items.extend(self.ports.table.batch_get(keys, Read::Eventual).await?.into_iter().flatten());
        }
        Ok((items, page.next))
    }
}

impl Principal {
    /// Refuses a caller who acts for one user only.
    pub(crate) fn must_act_for_all(&self) -> Result<(), Error> {
        if self.acts_for_all() {
            return Ok(());
        }
        Err(Error::Forbidden("this needs the API key of an administrator, an operator or a service".to_owned()))
    }

    /// The user whose records a request means. `None` means all users: only if the request names no user, and the caller acts
    /// for all.
    pub(crate) fn visible_user(&self, requested: Option<&UserId>) -> Result<Option<UserId>, Error> {
        match requested {
            None if self.acts_for_all() => Ok(None),
            requested => self.resolve_user(requested.cloned()).map(Some),
        }
    }
}
