//! What the table on DynamoDB promises beyond the port: its requests, and how it handles lost responses and throttling.
//! DynamoDB is dynoxide, in this process.

use std::collections::VecDeque;
use std::error::Error;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::{
    BeforeDeserializationInterceptorContextMut, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_dynamodb::config::retry::RetryConfig;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, ConfigBag, Credentials, Intercept, Region, RuntimeComponents};
use overseer_aws::DynamoTable;
use overseer_aws::table::create_table;
use overseer_engine::ports::table::{Condition, Due, Key, NewItem, Query, Range, Read, TableError, Write};
use overseer_engine::ports::{RandomIds, Table};
use tokio::net::TcpListener;

use super::{TestClock, body, forged, item, key, query, refused, too_large, wrong};

/// A proxy between the table and DynamoDB: counts requests, and can replace the next responses.
#[derive(Debug, Default)]
pub(super) struct Wire {
    requests: AtomicUsize,
    answers: Mutex<VecDeque<(u16, String)>>,
}

impl Wire {
    /// DynamoDB executes the next request, but the caller receives this response.
    fn say(&self, status: u16, answer: impl Into<String>) {
        self.answers.lock().unwrap().push_back((status, answer.into()));
    }

    /// The requests since the last call.
    fn requests(&self) -> usize {
        self.requests.swap(0, Ordering::Relaxed)
    }
}

#[derive(Debug)]
struct Tap(Arc<Wire>);

impl Intercept for Tap {
    fn name(&self) -> &'static str {
        "Tap"
    }

    fn read_before_transmit(
        &self,
        _context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        if let Some((status, answer)) = self.0.answers.lock().unwrap().pop_front() {
            *context.response_mut().status_mut() = status.try_into()?;
            *context.response_mut().body_mut() = answer.into();
        }
        Ok(())
    }
}

/// An empty table in a new DynamoDB, which stops with the test.
pub(super) async fn start() -> (DynamoTable, Arc<Wire>, Arc<TestClock>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(dynoxide::server::serve_on(listener, dynoxide::Database::memory().unwrap()));
    let wire = Arc::new(Wire::default());
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "a test"))
        .endpoint_url(format!("http://{address}"))
        .retry_config(RetryConfig::standard().with_initial_backoff(std::time::Duration::from_millis(1)))
        .interceptor(Tap(Arc::clone(&wire)))
        .build();
    let client = Client::from_conf(config);
    create_table(&client, "overseer").await.unwrap();
    let clock = TestClock::new();
    let table = DynamoTable::new(client, "overseer", clock.clone(), Arc::new(RandomIds));
    wire.requests();
    (table, wire, clock)
}

/// A lost response: the SDK sends the request again.
fn lose(wire: &Wire) {
    wire.say(500, "");
}

async fn stands(table: &DynamoTable, item_key: &Key) -> Option<NewItem> {
    table.get(item_key, Read::Consistent).await.unwrap().map(|item| item.stored)
}

#[tokio::test]
async fn each_operation_sends_the_documented_requests() {
    let (table, wire, clock) = start().await;
    let (item_key, page) = (key("p", "a"), query(Range::All));
    let expiring = |after_s| NewItem { expires_at: Some(clock.after_seconds(after_s)), ..item("p", "a") };
    let mut seen = Vec::new();
    let mut note = |what: &'static str| seen.push((what, wire.requests()));

    let version = table.put(item("p", "a"), Condition::Absent).await.unwrap();
    note("put");
    refused(table.put(item("p", "a"), Condition::Absent).await);
    note("put, refused, and what stands there");
    table.get(&item_key, Read::Eventual).await.unwrap();
    note("get");
    let keys: Vec<_> = (0..100).map(|number| key("p", &number.to_string())).collect();
    table.batch_get(&keys, Read::Eventual).await.unwrap();
    table.batch_get(&[], Read::Eventual).await.unwrap();
    note("batch_get");
    table.query(page.clone()).await.unwrap();
    note("query");
    table.query_list(page.clone()).await.unwrap();
    note("query_list");
    table.query_due("q", clock.after_seconds(0), 100, None).await.unwrap();
    note("query_due");
    table.delete(&item_key, Condition::Version(version)).await.unwrap();
    note("delete of a version");
    table.delete(&item_key, Condition::Any).await.unwrap();
    note("delete");
    table.transact(keys.iter().map(|item_key| Write::Add(item_key.clone(), 1, None)).collect()).await.unwrap();
    note("transact");
    table.transact(vec![Write::Check(item_key.clone(), Condition::Any)]).await.unwrap();
    note("transact of nothing");
    table.add(&item_key, 1, None).await.unwrap();
    note("add, made");
    table.add(&item_key, 1, None).await.unwrap();
    note("add");
    table.add(&item_key, 1, Some(clock.after_seconds(9))).await.unwrap();
    note("add to what lasts");
    for (what, again) in [("add to what has expired", None), ("the same with an expiry", Some(clock.after_seconds(9)))]
    {
        table.put(expiring(0), Condition::Any).await.unwrap();
        wire.requests();
        table.add(&item_key, 1, again).await.unwrap();
        note(what);
    }
    table.put(expiring(0), Condition::Any).await.unwrap();
    wire.requests();
    table.transact(vec![Write::Add(item_key.clone(), 1, None)]).await.unwrap();
    note("transact with such an add");
    let expected = [
        ("put", 1),
        ("put, refused, and what stands there", 1),
        ("get", 1),
        ("batch_get", 1),
        ("query", 1),
        ("query_list", 1),
        ("query_due", 8),
        ("delete of a version", 1),
        ("delete", 1),
        ("transact", 1),
        ("transact of nothing", 0),
        ("add, made", 1),
        ("add", 1),
        ("add to what lasts", 2),
        ("add to what has expired", 2),
        ("the same with an expiry", 2),
        ("transact with such an add", 2),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn expired_items_cost_few_requests() {
    let (table, wire, clock) = start().await;
    let writes = (0..300).map(|number| {
        let expires_at = (number != 299).then(|| clock.after_seconds(0));
        Write::Put(NewItem { expires_at, ..item("p", &format!("{number:03}")) }, Condition::Any)
    });
    for writes in writes.collect::<Vec<_>>().chunks(100) {
        table.transact(writes.to_vec()).await.unwrap();
    }
    wire.requests();
    let page = table.query(Query { limit: 1, ..query(Range::All) }).await.unwrap();
    assert_eq!(page.entries.iter().map(|item| item.stored.key.sort.as_str()).collect::<Vec<_>>(), ["299"]);
    assert_eq!(page.next, None);
    // 2 + 4 + 8 + … + 256 rows.
    assert_eq!(wire.requests(), 8);
}

#[tokio::test]
async fn write_with_a_lost_response_succeeds() {
    let (table, wire, _) = start().await;
    let item_key = key("p", "a");
    lose(&wire);
    let first = table.put(body("p", "a", "1"), Condition::Absent).await.unwrap();
    lose(&wire);
    let second = table.put(body("p", "a", "2"), Condition::Version(first)).await.unwrap();
    assert_eq!(stands(&table, &item_key).await, Some(body("p", "a", "2")));
    wire.requests();
    lose(&wire);
    let write = Write::Put(body("p", "a", "3"), Condition::Version(second));
    let counter = Write::Add(key("p", "counter"), 1, None);
    let third = table.transact(vec![write, counter]).await.unwrap().pop().unwrap();
    assert_eq!(wire.requests(), 2);
    assert_eq!(stands(&table, &key("p", "counter")).await.unwrap().count, Some(1));
    lose(&wire);
    table.delete(&item_key, Condition::Version(third.clone())).await.unwrap();
    assert_eq!(stands(&table, &item_key).await, None);
    assert_eq!(refused(table.delete(&item_key, Condition::Version(third)).await), (0, None));
}

#[tokio::test]
async fn transaction_conflict_is_retried() {
    let (table, wire, _) = start().await;
    let conflict = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionConflictException"}"#;
    let cancelled = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException","CancellationReasons":
        [{"Code":"None"},{"Code":"TransactionConflict"}]}"#;
    for answers in 1..3 {
        (0..answers).for_each(|_| wire.say(400, conflict));
        table.put(item("p", &format!("{answers}")), Condition::Absent).await.unwrap();
        (0..answers).for_each(|_| wire.say(400, conflict));
        table.delete(&key("p", "x"), Condition::Absent).await.unwrap();
        (0..answers).for_each(|_| wire.say(400, cancelled));
        let writes = vec![Write::Put(item("q", "a"), Condition::Any), Write::Add(key("q", "b"), 1, None)];
        table.transact(writes).await.unwrap();
        assert_eq!(wire.requests(), 3 * (answers + 1));
    }
    assert_eq!(stands(&table, &key("q", "b")).await.unwrap().count, Some(2));
}

#[tokio::test]
async fn unprocessed_keys_of_a_batch_are_requested_again() {
    let (table, wire, _) = start().await;
    let large = "x".repeat(390 * 1024);
    let keys: Vec<_> = (0..45).map(|number| key("p", &format!("{number:02}"))).collect();
    for item_key in &keys {
        table.put(body("p", &item_key.sort, &large), Condition::Any).await.unwrap();
    }
    wire.requests();
    let found = table.batch_get(&keys, Read::Consistent).await.unwrap();
    let found: Vec<_> = found.into_iter().map(|item| item.unwrap().stored.key).collect();
    assert_eq!(found, keys);
    assert_eq!(wire.requests(), 2);
}

#[tokio::test]
async fn transaction_holds_four_megabytes_at_most() {
    let (table, wire, _) = start().await;
    let large = "x".repeat(390_000);
    let writes = |many: usize| {
        let writes = (0..many).map(|number| Write::Put(body("p", &format!("{number:02}"), &large), Condition::Any));
        writes.collect::<Vec<_>>()
    };
    assert_eq!(too_large(table.transact(writes(11)).await), (11 * 390_003, 4_000_000));
    assert_eq!(wire.requests(), 0);
    table.transact(writes(10)).await.unwrap();
}

#[tokio::test]
async fn forged_cursor_with_an_invalid_key_is_refused() {
    let (table, wire, clock) = start().await;
    for sort in ["a", "b"] {
        let due = Some(Due { queue: "q".to_owned(), at: clock.after_seconds(0) });
        table.put(NewItem { due, list: Some(key("l", sort)), ..item("p", sort) }, Condition::Any).await.unwrap();
    }
    let (items, list) = (Query { limit: 1, ..query(Range::All) }, Query::partition("l", 1));
    let of_items = table.query(items.clone()).await.unwrap().next.unwrap();
    let of_list = table.query_list(list.clone()).await.unwrap().next.unwrap();
    let now = clock.after_seconds(0);
    let page = table.query_due("q", now, 1, None).await.unwrap();
    let (of_queue, first) = (page.next.unwrap(), &page.entries[0].key.sort);
    wire.requests();
    for to in [String::new(), "a".repeat(2_000)] {
        wrong(table.query(Query { cursor: Some(forged(&of_items, "a", &to)), ..items.clone() }).await);
        for from in ["a", "p"] {
            let to = to.repeat(2);
            wrong(table.query_list(Query { cursor: Some(forged(&of_list, from, &to)), ..list.clone() }).await);
        }
        wrong(table.query_due("q", now, 1, Some(forged(&of_queue, first, &to))).await);
    }
    assert_eq!(wire.requests(), 0);
}

/// Everything that a log could contain of an error.
fn log_text(error: &TableError) -> String {
    let mut text = format!("{error:?}");
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        text = format!("{text}\n{error}");
        cause = error.source();
    }
    text
}

#[tokio::test]
async fn failure_reveals_nothing_of_an_item() {
    let (table, wire, _) = start().await;
    let invalid = r#"{"__type":"com.amazon.coral.validate#ValidationException","message":"Value 'SECRET' at 'key'"}"#;
    let cancelled = r#"{"__type":"com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "message":"cancelled [ValidationError]","CancellationReasons":[{"Code":"ValidationError","Message":"SECRET",
        "Item":{"body":{"S":"SECRET"}}}]}"#;
    let denied = r#"{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"not allowed to PutItem"}"#;
    let secret = || body("p", "a", "SECRET");
    for (answer, expected) in [
        (invalid, "PutItem: ValidationException"),
        (denied, "not allowed to PutItem"),
        ("<SECRET>", "an error without a code"),
    ] {
        wire.say(400, answer);
        let log_text = log_text(&table.put(secret(), Condition::Any).await.unwrap_err());
        assert!(log_text.contains(expected) && !log_text.contains("SECRET"), "{log_text}");
    }
    wire.say(200, "SECRET");
    let nonsense = log_text(&table.put(secret(), Condition::Any).await.unwrap_err());
    assert!(!nonsense.contains("SECRET"), "{nonsense}");
    wire.say(400, cancelled);
    let error = table.transact(vec![Write::Put(secret(), Condition::Any)]).await.unwrap_err();
    assert!(matches!(error, TableError::Store(_)));
    let log_text = log_text(&error);
    assert!(
        log_text.contains("TransactWriteItems: TransactionCanceledException") && !log_text.contains("SECRET"),
        "{log_text}"
    );
}

#[tokio::test]
async fn sharded_queue_keeps_its_order() {
    let (table, _, clock) = start().await;
    for number in 0..40 {
        let due = Some(Due { queue: "q".to_owned(), at: clock.after_seconds(-(number % 20)) });
        table.put(NewItem { due, ..item("p", &format!("{number:02}")) }, Condition::Any).await.unwrap();
    }
    for limit in [1, 7, 39, 40, 41] {
        let page = |cursor| async { table.query_due("q", clock.after_seconds(0), limit, cursor).await.unwrap() };
        let found = super::follow(limit, None, page).await;
        assert_eq!(found.len(), 40);
        assert!(found.is_sorted_by_key(|entry| entry.at));
    }
}
