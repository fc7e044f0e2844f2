//! Pages of the three orders. Each query requests one entry more than the page holds, so that the last page has no cursor.

use aws_sdk_dynamodb::operation::query::builders::QueryFluentBuilder;
use futures_util::future::try_join_all;
use jiff::Timestamp;
use overseer_engine::ports::cursor;
use overseer_engine::ports::table::{
    Cursor, DueEntry, Item, Key, Page, Query, Range, Read, SORT_MAX_BYTES, TableError, check_key,
};
use serde::Serialize;

use super::expression::{NOT_EXPIRED, Values, names, values};
use super::row::{self, Row, number, text};
use super::{DynamoTable, failure};

/// The bytes of bodies at which a page of items ends. One response of DynamoDB has a megabyte at most.
const PAGE_BYTES: usize = 512 * 1024;

/// The query that a cursor is bound to.
#[derive(Serialize)]
struct Identity<'a> {
    order: &'static str,
    partition: &'a str,
    range: (&'static str, &'a str, &'a str),
    backwards: bool,
}

impl<'a> Identity<'a> {
    fn of(order: &'static str, query: &'a Query) -> Self {
        let range = match &query.range {
            Range::All => ("all", "", ""),
            Range::Prefix(prefix) => ("prefix", prefix.as_str(), ""),
            Range::Between(low, high) => ("between", low.as_str(), high.as_str()),
        };
        Self { order, partition: &query.partition, range, backwards: query.backwards }
    }
}

impl DynamoTable {
    pub(super) async fn page_of_items(&self, query: &Query) -> Result<Page<Item>, TableError> {
        let identity = Identity::of("items", query);
        let after: Option<String> = open_cursor(&identity, query, |sort| sort)?;
        let Some((condition, mut values)) = range(query, row::PARTITION, row::SORT) else { return Ok(empty_page()) };
        let now_s = self.now_s();
        values.insert(":now".to_owned(), number(now_s));
        let start = after.map(|sort| row::key(&Key { partition: query.partition.clone(), sort }));
        let request = self
            .query_request(&condition, values, Some(NOT_EXPIRED))
            .consistent_read(query.read == Read::Consistent)
            .scan_index_forward(!query.backwards);
        let (rows, end) = paginate(request, start, query.limit, |row| Ok(row::key_in(row)?.sort)).await?;
        let entries: Result<Vec<_>, _> = rows.into_iter().map(|row| row::live(row, now_s)).collect();
        Ok(Page { entries: entries?.into_iter().flatten().collect(), next: seal_cursor(&identity, end.as_ref())? })
    }

    pub(super) async fn page_of_list(&self, query: &Query) -> Result<Page<Key>, TableError> {
        let identity = Identity::of("list", query);
        let after: Option<(String, Key)> = open_cursor(&identity, query, |(sort, _)| sort)?;
        let Some((condition, values)) = range(query, row::LIST_PARTITION, row::LIST_SORT) else {
            return Ok(empty_page());
        };
        let start = match after {
            None => None,
            Some((sort, key)) => {
                check_key(&key).map_err(|_| cursor::FOREIGN)?;
                let mut start = row::key(&key);
                start.insert(row::LIST_PARTITION.to_owned(), text(query.partition.as_str()));
                start.insert(row::LIST_SORT.to_owned(), text(sort));
                Some(start)
            }
        };
        let request =
            self.query_request(&condition, values, None).index_name(row::LIST).scan_index_forward(!query.backwards);
        let position = |row: &Row| Ok((row::find_text(row, row::LIST_SORT)?.to_owned(), row::key_in(row)?));
        let (rows, end) = paginate(request, start, query.limit, position).await?;
        let entries: Result<Vec<_>, _> = rows.iter().map(row::key_in).collect();
        Ok(Page { entries: entries?, next: seal_cursor(&identity, end.as_ref())? })
    }

    /// Queries all shards at once and merges their entries by time, then by shard. A cursor names one entry. A shard before
    /// that entry's goes on with what is due later, a shard after it also with what is due at the same time.
    pub(super) async fn page_of_queue(
        &self,
        queue: &str,
        until_ms: i64,
        limit: usize,
        cursor: Option<&Cursor>,
    ) -> Result<Page<DueEntry>, TableError> {
        let identity = ("due", queue, until_ms);
        let after: Option<(i64, u8, Key)> = cursor.map(|sealed| cursor::open(&identity, sealed)).transpose()?;
        if let Some((at_ms, shard, key)) = &after
            && (*at_ms > until_ms || *shard >= row::SHARDS || check_key(key).is_err())
        {
            return Err(cursor::FOREIGN);
        }
        let after = after.as_ref();
        let shards = (0..row::SHARDS).map(|shard| self.shard_of_queue(queue, shard, until_ms, limit, after));
        let (positions, more): (Vec<_>, Vec<_>) = try_join_all(shards).await?.into_iter().unzip();
        let mut positions = positions.concat();
        // The sort is stable, so each shard keeps its order.
        positions.sort_by_key(|(at_ms, shard, _)| (*at_ms, *shard));
        let more = positions.len() > limit || more.contains(&true);
        positions.truncate(limit);
        let next = seal_cursor(&identity, positions.last().filter(|_| more))?;
        let entries = positions.into_iter().map(|(at_ms, _, key)| {
            let at = Timestamp::from_millisecond(at_ms).map_err(|error| TableError::Record(Box::new(error)))?;
            Ok(DueEntry { key, at })
        });
        Ok(Page { entries: entries.collect::<Result<_, TableError>>()?, next })
    }

    /// The entries of one shard for a page, and whether the shard has more.
    async fn shard_of_queue(
        &self,
        queue: &str,
        shard: u8,
        until_ms: i64,
        limit: usize,
        after: Option<&(i64, u8, Key)>,
    ) -> Result<(Vec<(i64, u8, Key)>, bool), TableError> {
        let due_shard = text(row::shard(queue, shard));
        let (from_ms, start) = match after {
            None => (i64::MIN, None),
            Some((at_ms, of, _)) if shard < *of => (at_ms.saturating_add(1), None),
            Some((at_ms, of, _)) if shard > *of => (*at_ms, None),
            Some((at_ms, _, key)) => {
                let mut start = row::key(key);
                start.insert(row::DUE_SHARD.to_owned(), due_shard.clone());
                start.insert(row::DUE_AT.to_owned(), number(*at_ms));
                (*at_ms, Some(start))
            }
        };
        if from_ms > until_ms {
            return Ok((Vec::new(), false));
        }
        let condition = "#due_shard = :shard AND #due_at BETWEEN :from AND :until";
        let values = values([(":shard", due_shard), (":from", number(from_ms)), (":until", number(until_ms))]);
        let request = self.query_request(condition, values, None).index_name(row::DUE);
        let position = |row: &Row| Ok((row::find_number(row, row::DUE_AT)?, shard, row::key_in(row)?));
        let (rows, end) = paginate(request, start, limit, position).await?;
        Ok((rows.iter().map(position).collect::<Result<_, _>>()?, end.is_some()))
    }

    fn query_request(&self, condition: &str, values: Values, filter: Option<&str>) -> QueryFluentBuilder {
        self.client
            .query()
            .table_name(&self.name)
            .key_condition_expression(condition)
            .set_filter_expression(filter.map(str::to_owned))
            .set_expression_attribute_names(Some(names(&[condition, filter.unwrap_or_default()])))
            .set_expression_attribute_values(Some(values))
    }
}

/// The key condition of a query, or none if no sort key can match.
fn range(query: &Query, partition: &str, sort: &str) -> Option<(String, Values)> {
    let mut values = values([(":partition", text(query.partition.as_str()))]);
    let mut add = |name: &str, bound: &str| values.insert(name.to_owned(), text(bound));
    let condition = match &query.range {
        Range::Between(low, high) if low > high || high.is_empty() => return None,
        Range::Prefix(prefix) if !prefix.is_empty() => {
            add(":prefix", prefix);
            format!("#{partition} = :partition AND begins_with(#{sort}, :prefix)")
        }
        Range::Between(low, high) if low.is_empty() => {
            add(":high", high);
            format!("#{partition} = :partition AND #{sort} <= :high")
        }
        Range::Between(low, high) => {
            add(":low", low);
            add(":high", high);
            format!("#{partition} = :partition AND #{sort} BETWEEN :low AND :high")
        }
        Range::All | Range::Prefix(_) => format!("#{partition} = :partition"),
    };
    Some((condition, values))
}

/// Up to `limit` rows after `start`, and the position of the last one if there are more. Each request asks for twice as
/// many as the one before, since the filter drops expired rows.
async fn paginate<P>(
    request: QueryFluentBuilder,
    mut start: Option<Row>,
    limit: usize,
    position: impl Fn(&Row) -> Result<P, TableError>,
) -> Result<(Vec<Row>, Option<P>), TableError> {
    let (mut rows, mut bytes, mut wanted) = (Vec::<Row>::new(), 0, limit.saturating_add(1));
    loop {
        let request = request.clone().limit(i32::try_from(wanted).unwrap_or(i32::MAX)).set_exclusive_start_key(start);
        let response = request.send().await.map_err(|error| failure("Query", error))?;
        let items = response.items.unwrap_or_default();
        bytes += items.iter().filter_map(|row| row::find_text(row, row::BODY).ok()).map(str::len).sum::<usize>();
        rows.extend(items);
        if rows.len() > limit {
            rows.truncate(limit);
            let end = rows.last().map(position).transpose()?;
            return Ok((rows, end));
        }
        let Some(end) = response.last_evaluated_key else { return Ok((rows, None)) };
        if bytes > PAGE_BYTES {
            return Ok((rows, Some(position(&end)?)));
        }
        start = Some(end);
        wanted = wanted.saturating_mul(2);
    }
}

/// The position in a query's cursor: where the previous page ended.
fn open_cursor<P: serde::de::DeserializeOwned>(
    identity: &Identity<'_>,
    query: &Query,
    sort: impl FnOnce(&P) -> &String,
) -> Result<Option<P>, TableError> {
    let Some(sealed) = &query.cursor else { return Ok(None) };
    let position = cursor::open(identity, sealed)?;
    let sort = sort(&position);
    let within = match &query.range {
        Range::All => true,
        Range::Prefix(prefix) => sort.starts_with(prefix.as_str()),
        Range::Between(low, high) => (low..=high).contains(&sort),
    };
    // DynamoDB refuses a start that cannot be a key.
    let is_key = (1..=SORT_MAX_BYTES).contains(&sort.len());
    if within && is_key { Ok(Some(position)) } else { Err(cursor::FOREIGN) }
}

fn seal_cursor(identity: &impl Serialize, end: Option<&impl Serialize>) -> Result<Option<Cursor>, TableError> {
    end.map(|end| cursor::seal(identity, end)).transpose()
}

fn empty_page<T>() -> Page<T> {
    Page { entries: Vec::new(), next: None }
}
