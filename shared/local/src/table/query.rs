//! Pages of the three orders. Each reads its range row by row and stops when the page is full: the cost does not depend on
//! the size of the partition.

use std::ops::Bound;

use jiff::Timestamp;
use overseer_engine::ports::cursor;
use overseer_engine::ports::table::{Cursor, DueEntry, Item, Key, Page, Query, Range, TableError};
use redb::ReadTransaction;
use serde::Serialize;

use super::schema::{DUE, ITEMS, LIST, damaged, expired, parse_header, store_error};

/// The bytes at which a page of items ends, as a page of DynamoDB does: so callers see short pages in local runs, too.
const PAGE_MAX_BYTES: usize = 1024 * 1024;

/// A query for the due entries of a queue.
pub(super) struct DueQuery {
    pub(super) queue: String,
    pub(super) until_ms: i64,
    pub(super) limit: usize,
    pub(super) cursor: Option<Cursor>,
}

/// A page of a partition.
pub(super) fn items(transaction: &ReadTransaction, query: &Query, now_s: i64) -> Result<Page<Item>, TableError> {
    let Some(span) = Span::of("items", query) else { return Ok(empty_page()) };
    let after: Option<String> = span.after(query.cursor.as_ref(), |sort| sort)?;
    let end = span.end();
    let (partition, low) = (span.partition, span.low.as_str());
    let last = span.high.as_ref().map_or((end.as_str(), ""), |high| (partition, high.as_str()));
    let bounds = bounds((partition, low), last, after.as_ref().map(|sort| (partition, sort.as_str())), query.backwards);

    let table = transaction.open_table(ITEMS).map_err(store_error)?;
    let range = table.range::<(&str, &str)>(bounds).map_err(store_error)?;
    let rows = directed(range, query.backwards).map(|row| {
        let (key_row, row) = row.map_err(store_error)?;
        let ((partition, sort), (header, body)) = (key_row.value(), row.value());
        let header = parse_header(header)?;
        if header.expired(now_s) {
            return Ok(None);
        }
        let key = Key { partition: partition.to_owned(), sort: sort.to_owned() };
        let bytes = partition.len() + sort.len() + body.len();
        Ok(Some((sort.to_owned(), bytes, header.into_item(key, body.to_owned())?)))
    });
    page(rows, query.limit, &span)
}

/// A page of the second order.
pub(super) fn list(transaction: &ReadTransaction, query: &Query, now_s: i64) -> Result<Page<Key>, TableError> {
    let Some(span) = Span::of("list", query) else { return Ok(empty_page()) };
    let after: Option<(String, Key)> = span.after(query.cursor.as_ref(), |(sort, _)| sort)?;
    let end = span.end();
    let (partition, low) = (span.partition, span.low.as_str());
    let last = span.high.as_ref().map_or((end.as_str(), "", "", ""), |high| (partition, high.as_str(), "", ""));
    let after = after.as_ref().map(|(sort, key)| (partition, sort.as_str(), key.partition.as_str(), key.sort.as_str()));
    let bounds = bounds((partition, low, "", ""), last, after, query.backwards);

    let table = transaction.open_table(LIST).map_err(store_error)?;
    let range = table.range::<(&str, &str, &str, &str)>(bounds).map_err(store_error)?;
    let rows = directed(range, query.backwards).map(|row| {
        let (key_row, row) = row.map_err(store_error)?;
        if expired(row.value(), now_s) {
            return Ok(None);
        }
        let (_, list_sort, partition, sort) = key_row.value();
        let key = Key { partition: partition.to_owned(), sort: sort.to_owned() };
        Ok(Some(((list_sort.to_owned(), key.clone()), 0, key)))
    });
    page(rows, query.limit, &span)
}

/// A page of a queue.
pub(super) fn due(transaction: &ReadTransaction, query: &DueQuery, now_s: i64) -> Result<Page<DueEntry>, TableError> {
    let identity = ("due", &query.queue, query.until_ms);
    let queue = query.queue.as_str();
    let after: Option<(i64, Key)> = query.cursor.as_ref().map(|sealed| cursor::open(&identity, sealed)).transpose()?;
    if after.as_ref().is_some_and(|(at_ms, _)| *at_ms > query.until_ms) {
        return Err(cursor::FOREIGN);
    }
    let last = (queue, query.until_ms.saturating_add(1), "", "");
    let after = after.as_ref().map(|(at_ms, key)| (queue, *at_ms, key.partition.as_str(), key.sort.as_str()));
    let bounds = bounds((queue, i64::MIN, "", ""), last, after, false);

    let table = transaction.open_table(DUE).map_err(store_error)?;
    let rows = table.range::<(&str, i64, &str, &str)>(bounds).map_err(store_error)?.map(|row| {
        let (key_row, row) = row.map_err(store_error)?;
        if expired(row.value(), now_s) {
            return Ok(None);
        }
        let (_, at_ms, partition, sort) = key_row.value();
        let key = Key { partition: partition.to_owned(), sort: sort.to_owned() };
        let at = Timestamp::from_millisecond(at_ms).map_err(damaged)?;
        Ok(Some(((at_ms, key.clone()), 0, DueEntry { key, at })))
    });
    page(rows, query.limit, &identity)
}

/// The sort keys of a query, from `low` up to `high` exclusive. Cursors are bound to it.
#[derive(Serialize)]
struct Span<'a> {
    order: &'static str,
    partition: &'a str,
    low: String,
    /// None for the end of the partition.
    high: Option<String>,
    backwards: bool,
}

impl<'a> Span<'a> {
    /// None if no sort key can match.
    fn of(order: &'static str, query: &'a Query) -> Option<Self> {
        let (low, high) = match &query.range {
            Range::All => (String::new(), None),
            Range::Prefix(prefix) => (prefix.clone(), after_prefix(prefix)),
            Range::Between(low, high) if low > high => return None,
            // No string sorts between another and the same with a zero byte appended.
            Range::Between(low, high) => (low.clone(), Some(format!("{high}\0"))),
        };
        Some(Self { order, partition: &query.partition, low, high, backwards: query.backwards })
    }

    /// The first partition key after this one.
    fn end(&self) -> String {
        format!("{}\0", self.partition)
    }

    /// The position in the cursor: where the previous page ended.
    fn after<P: serde::de::DeserializeOwned>(
        &self,
        sealed: Option<&Cursor>,
        sort: impl FnOnce(&P) -> &String,
    ) -> Result<Option<P>, TableError> {
        let Some(sealed) = sealed else { return Ok(None) };
        let position = cursor::open(self, sealed)?;
        let sort = sort(&position);
        let within = *sort >= self.low && self.high.as_ref().is_none_or(|high| sort < high);
        if within { Ok(Some(position)) } else { Err(cursor::FOREIGN) }
    }
}

/// The first string after all that begin with `prefix`; none if no string can follow them.
fn after_prefix(prefix: &str) -> Option<String> {
    let mut successor = prefix.to_owned();
    while let Some(last) = successor.pop() {
        if let Some(next) = (last..=char::MAX).nth(1) {
            successor.push(next);
            return Some(successor);
        }
    }
    None
}

fn bounds<K>(first: K, end: K, after: Option<K>, backwards: bool) -> (Bound<K>, Bound<K>) {
    match after {
        Some(after) if backwards => (Bound::Included(first), Bound::Excluded(after)),
        Some(after) => (Bound::Excluded(after), Bound::Excluded(end)),
        None => (Bound::Included(first), Bound::Excluded(end)),
    }
}

fn directed<'a, I: DoubleEndedIterator + 'a>(rows: I, backwards: bool) -> Box<dyn Iterator<Item = I::Item> + 'a> {
    if backwards { Box::new(rows.rev()) } else { Box::new(rows) }
}

/// Fills a page from rows of (position, bytes, entry), and skips expired ones, which are none. The page has a cursor only if
/// at least one more entry follows.
fn page<T, P: Serialize>(
    rows: impl Iterator<Item = Result<Option<(P, usize, T)>, TableError>>,
    limit: usize,
    identity: &impl Serialize,
) -> Result<Page<T>, TableError> {
    let (mut entries, mut last, mut total) = (Vec::new(), None, 0);
    for row in rows {
        let Some((position, bytes, entry)) = row? else { continue };
        total += bytes;
        if let Some(last) = &last
            && (entries.len() >= limit || total > PAGE_MAX_BYTES)
        {
            return Ok(Page { entries, next: Some(cursor::seal(identity, last)?) });
        }
        entries.push(entry);
        last = Some(position);
    }
    Ok(Page { entries, next: None })
}

fn empty_page<T>() -> Page<T> {
    Page { entries: Vec::new(), next: None }
}

#[cfg(test)]
mod tests {
    use super::after_prefix;

    #[test]
    fn prefix_ends_before_the_next_character() {
        assert_eq!(after_prefix("a"), Some("b".to_owned()));
        assert_eq!(after_prefix("a\u{10ffff}\u{10ffff}"), Some("b".to_owned()));
        assert_eq!(after_prefix("a\u{d7ff}"), Some("a\u{e000}".to_owned()));
        assert_eq!(after_prefix("a\u{7f}"), Some("a\u{80}".to_owned()));
        assert_eq!(after_prefix("\u{10ffff}"), None);
        assert_eq!(after_prefix(""), None);
    }
}
