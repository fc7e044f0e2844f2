//! A table in maps, for simulations: the store with its own thread and file format would take most of their time. It passes
//! the conformance suite.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use overseer_engine::ports::table::{
    Condition, Cursor, DueEntry, Item, Key, NewItem, Page, Query, Range, Read, TableError, Version, Write, check_batch,
    check_item, check_key, check_limit, check_query, check_queue,
};
use overseer_engine::ports::{Clock, Ids, Table, cursor};
use serde_json::{Value, json};

/// The bytes after which a page of items ends.
const PAGE_MAX_BYTES: usize = 1024 * 1024;

/// The table in maps.
pub struct MemoryTable {
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    state: Mutex<State>,
}

#[derive(Clone, Default)]
struct State {
    items: BTreeMap<Key, Item>,
    /// The list's key, and the item's.
    lists: BTreeSet<(Key, Key)>,
    due: BTreeSet<(String, i64, Key)>,
}

impl State {
    fn remove(&mut self, key: &Key) {
        let Some(old) = self.items.remove(key) else { return };
        if let Some(list) = old.stored.list {
            self.lists.remove(&(list, key.clone()));
        }
        if let Some(due) = old.stored.due {
            self.due.remove(&(due.queue, due.at.as_millisecond(), key.clone()));
        }
    }

    fn put(&mut self, item: Item) {
        let key = item.stored.key.clone();
        self.remove(&key);
        if let Some(list) = &item.stored.list {
            self.lists.insert((list.clone(), key.clone()));
        }
        if let Some(due) = &item.stored.due {
            self.due.insert((due.queue.clone(), due.at.as_millisecond(), key.clone()));
        }
        self.items.insert(key, item);
    }

    fn live(&self, key: &Key, now_s: i64) -> Option<&Item> {
        self.items.get(key).filter(|item| item.stored.expires_at.is_none_or(|at| at.as_second() > now_s))
    }
}

impl MemoryTable {
    /// An empty table.
    pub fn new(clock: Arc<dyn Clock>, ids: Arc<dyn Ids>) -> Self {
        Self { clock, ids, state: Mutex::default() }
    }

    fn now_s(&self) -> i64 {
        self.clock.now().as_second()
    }

    fn version(&self) -> Version {
        Version(self.ids.hex(16))
    }

    /// Does all of the writes or none. Returns the new versions, and the sum of the last counter.
    fn write(&self, writes: Vec<Write>) -> Result<(Vec<Version>, Option<i64>), TableError> {
        let now_s = self.now_s();
        let mut state = self.state.lock().unwrap();
        for (index, write) in writes.iter().enumerate() {
            let (Write::Put(NewItem { key, .. }, condition)
            | Write::Delete(key, condition)
            | Write::Check(key, condition)) = write
            else {
                continue;
            };
            let current = state.live(key, now_s);
            let holds = match condition {
                Condition::Any => true,
                Condition::Absent => current.is_none(),
                Condition::Version(version) => current.is_some_and(|item| item.version == *version),
            };
            if !holds {
                return Err(TableError::Condition { index, current: current.cloned().map(Box::new) });
            }
        }
        let mut sums = Vec::new();
        for write in &writes {
            if let Write::Add(key, amount, _) = write {
                let before = state.live(key, now_s).and_then(|item| item.stored.count).unwrap_or(0);
                let sum = before.checked_add(*amount);
                sums.push(sum.ok_or(TableError::Request("a counter would leave its range"))?);
            }
        }
        let mut sums = sums.into_iter();
        let (mut versions, mut last) = (Vec::new(), None);
        for write in writes {
            match write {
                Write::Put(mut stored, _) => {
                    let version = self.version();
                    whole(&mut stored);
                    state.put(Item { stored, version: version.clone() });
                    versions.push(version);
                }
                Write::Delete(key, _) => state.remove(&key),
                Write::Check(..) => {}
                Write::Add(key, _, expires_at) => {
                    last = sums.next();
                    let mut item = state.live(&key, now_s).cloned().unwrap_or_else(|| {
                        let mut stored =
                            NewItem { key, body: String::new(), count: None, expires_at, due: None, list: None };
                        whole(&mut stored);
                        Item { stored, version: self.version() }
                    });
                    item.stored.count = last;
                    state.put(item);
                }
            }
        }
        Ok((versions, last))
    }

    fn page<T>(
        &self,
        query: &Query,
        order: &str,
        entries: impl FnOnce(&State, Span) -> Vec<(Value, usize, T)>,
    ) -> Result<Page<T>, TableError> {
        check_query(query)?;
        let identity = format!("{order} {:?}", (&query.partition, &query.range, query.backwards));
        let span = Span { query: query.clone(), after: None };
        let after: Option<(String, Option<Key>)> =
            query.cursor.as_ref().map(|sealed| cursor::open(&identity, sealed)).transpose()?;
        if after.as_ref().is_some_and(|(sort, _)| !span.has(sort)) {
            return Err(cursor::FOREIGN);
        }
        let entries = entries(&self.state.lock().unwrap(), Span { after, ..span });
        cut(entries, query.limit, &identity)
    }
}

/// A query, and the position where the previous page ended.
struct Span {
    query: Query,
    after: Option<(String, Option<Key>)>,
}

impl Span {
    fn has(&self, sort: &str) -> bool {
        match &self.query.range {
            Range::All => true,
            Range::Prefix(prefix) => sort.starts_with(prefix.as_str()),
            Range::Between(low, high) => (low.as_str()..=high.as_str()).contains(&sort),
        }
    }

    /// Whether an entry at this position comes after the previous page.
    fn is_next(&self, sort: &str, key: Option<&Key>) -> bool {
        self.has(sort)
            && self.after.as_ref().is_none_or(|(after, of)| {
                let (after, position) = ((after.as_str(), of.as_ref()), (sort, key));
                if self.query.backwards { position < after } else { position > after }
            })
    }

    fn directed<T>(&self, mut entries: Vec<T>) -> Vec<T> {
        if self.query.backwards {
            entries.reverse();
        }
        entries
    }
}

/// Cuts times to whole seconds, and due times to milliseconds.
fn whole(item: &mut NewItem) {
    item.expires_at = item.expires_at.map(|at| Timestamp::from_second(at.as_second()).unwrap());
    if let Some(due) = &mut item.due {
        due.at = Timestamp::from_millisecond(due.at.as_millisecond()).unwrap();
    }
}

fn cut<T>(entries: Vec<(Value, usize, T)>, limit: usize, identity: &String) -> Result<Page<T>, TableError> {
    let (mut page, mut last, mut total) = (Vec::new(), None, 0);
    for (position, bytes, entry) in entries {
        total += bytes;
        if let Some(last) = &last
            && (page.len() >= limit || total > PAGE_MAX_BYTES)
        {
            return Ok(Page { entries: page, next: Some(cursor::seal(identity, last)?) });
        }
        page.push(entry);
        last = Some(position);
    }
    Ok(Page { entries: page, next: None })
}

#[async_trait]
impl Table for MemoryTable {
    async fn get(&self, key: &Key, _: Read) -> Result<Option<Item>, TableError> {
        check_key(key)?;
        Ok(self.state.lock().unwrap().live(key, self.now_s()).cloned())
    }

    async fn batch_get(&self, keys: &[Key], _: Read) -> Result<Vec<Option<Item>>, TableError> {
        check_batch(keys.iter())?;
        let (state, now_s) = (self.state.lock().unwrap(), self.now_s());
        Ok(keys.iter().map(|key| state.live(key, now_s).cloned()).collect())
    }

    async fn put(&self, item: NewItem, condition: Condition) -> Result<Version, TableError> {
        check_item(&item)?;
        Ok(self.write(vec![Write::Put(item, condition)])?.0.remove(0))
    }

    async fn delete(&self, key: &Key, condition: Condition) -> Result<(), TableError> {
        check_key(key)?;
        self.write(vec![Write::Delete(key.clone(), condition)]).map(drop)
    }

    async fn query(&self, query: Query) -> Result<Page<Item>, TableError> {
        let now_s = self.now_s();
        self.page(&query, "items", |state, span| {
            let first = Key { partition: query.partition.clone(), sort: String::new() };
            let end = Key { partition: format!("{}\0", query.partition), sort: String::new() };
            let live =
                state.items.range((Included(first), Excluded(end))).filter_map(|(key, _)| state.live(key, now_s));
            let next = live.filter(|item| span.is_next(&item.stored.key.sort, None));
            let entry = |item: &Item| {
                let NewItem { key, body, .. } = &item.stored;
                (json!((&key.sort, None::<Key>)), key.partition.len() + key.sort.len() + body.len(), item.clone())
            };
            span.directed(next.map(entry).collect())
        })
    }

    async fn query_list(&self, query: Query) -> Result<Page<Key>, TableError> {
        let now_s = self.now_s();
        self.page(&query, "list", |state, span| {
            let first = Key { partition: query.partition.clone(), sort: String::new() };
            let least = Key { partition: String::new(), sort: String::new() };
            let of_list = state.lists.range((first, least)..).take_while(|(list, _)| list.partition == query.partition);
            let next =
                of_list.filter(|(list, key)| span.is_next(&list.sort, Some(key)) && state.live(key, now_s).is_some());
            span.directed(next.map(|(list, key)| (json!((&list.sort, key)), 0, key.clone())).collect())
        })
    }

    async fn query_due(
        &self,
        queue: &str,
        until: Timestamp,
        limit: usize,
        sealed: Option<Cursor>,
    ) -> Result<Page<DueEntry>, TableError> {
        check_queue(queue)?;
        check_limit(limit)?;
        let (until, now_s) = (until.as_millisecond(), self.now_s());
        let identity = format!("due {:?}", (queue, until));
        let after: Option<(i64, Key)> = sealed.as_ref().map(|sealed| cursor::open(&identity, sealed)).transpose()?;
        if after.as_ref().is_some_and(|(at, _)| *at > until) {
            return Err(cursor::FOREIGN);
        }
        let state = self.state.lock().unwrap();
        let least = Key { partition: String::new(), sort: String::new() };
        let from = after
            .map_or(Included((queue.to_owned(), i64::MIN, least)), |(at, key)| Excluded((queue.to_owned(), at, key)));
        let due = state.due.range((from, std::ops::Bound::Unbounded));
        let due = due.take_while(|(of, at, _)| of == queue && *at <= until);
        let live = due.filter(|(_, _, key)| state.live(key, now_s).is_some()).take(limit.saturating_add(1));
        let entry = |(_, at, key): &(String, i64, Key)| {
            let due = DueEntry { key: key.clone(), at: Timestamp::from_millisecond(*at).unwrap() };
            (json!((at, key)), 0, due)
        };
        cut(live.map(entry).collect(), limit, &identity)
    }

    async fn transact(&self, writes: Vec<Write>) -> Result<Vec<Version>, TableError> {
        check_batch(writes.iter().map(Write::key).collect::<Vec<_>>().into_iter())?;
        for write in &writes {
            if let Write::Put(item, _) = write {
                check_item(item)?;
            }
        }
        Ok(self.write(writes)?.0)
    }

    async fn add(&self, key: &Key, amount: i64, expires_at: Option<Timestamp>) -> Result<i64, TableError> {
        check_key(key)?;
        Ok(self.write(vec![Write::Add(key.clone(), amount, expires_at)])?.1.unwrap())
    }
}
