//! Writes of one item, and transactions.

use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::operation::transact_write_items::builders::TransactWriteItemsFluentBuilder;
use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure::AllOld;
use aws_sdk_dynamodb::types::{CancellationReason, ConditionCheck, Delete, Put, TransactWriteItem};
use jiff::Timestamp;
use overseer_engine::ports::table::{Condition, Key, NewItem, TableError, Version, Write};

use super::addition::Addition;
use super::expression::ConditionExpr;
use super::row::{self, Row};
use super::{DynamoTable, failure, in_conflict};
use crate::backoff::Backoff;

/// The most bytes of keys and bodies in one transaction. DynamoDB's limit is 4 MB; this reads it as the smaller of its two
/// meanings, which leaves room for the other attributes.
const TRANSACTION_MAX_BYTES: usize = 4_000_000;

/// Adds the table and a condition to a builder: of a request, or of a part of a transaction. The SDK has a type for each
/// of them, with the same methods.
macro_rules! conditional {
    ($builder:expr, $table:expr, $condition:expr) => {{
        let ConditionExpr { expression, names, values } = $condition;
        $builder
            .table_name($table)
            .set_condition_expression(expression)
            .set_expression_attribute_names(names)
            .set_expression_attribute_values(values)
            .return_values_on_condition_check_failure(AllOld)
    }};
}

/// One part of a transaction.
struct Part {
    /// The index of its write among the caller's.
    index: usize,
    kind: PartKind,
}

enum PartKind {
    Fixed(Box<TransactWriteItem>),
    Add(Addition),
}

/// What to do about a cancelled transaction.
enum RetryDecision {
    /// Send the same request again, when the conflict or throttling may have passed.
    Again,
    /// Send a request with corrected expressions.
    Corrected,
    /// Give up.
    Failed,
}

impl DynamoTable {
    pub(super) async fn put_one(&self, item: NewItem, condition: &Condition) -> Result<Version, TableError> {
        let (now_s, version) = (self.now_s(), self.version());
        let request = self.client.put_item().set_item(Some(row::of(item, &version)));
        let request = conditional!(request, &self.name, ConditionExpr::of(condition, now_s));
        let mut backoff = Backoff::default();
        loop {
            let Err(error) = request.clone().send().await else { return Ok(version) };
            if let Some(PutItemError::ConditionalCheckFailedException(refusal)) = error.as_service_error() {
                let is_ours = |row: &Row| row::find_text(row, row::VERSION).is_ok_and(|stored| stored == version.0);
                // The write was done, its response was lost, and the SDK sent it again.
                return if refusal.item().is_some_and(is_ours) {
                    Ok(version)
                } else {
                    Err(condition_failed(0, refusal.item(), now_s))
                };
            }
            if !in_conflict(&error) || !backoff.wait(&*self.ids).await {
                return Err(failure("PutItem", error));
            }
        }
    }

    /// Idempotent: the SDK may send it twice.
    pub(super) async fn delete_one(&self, key: &Key, condition: &Condition) -> Result<(), TableError> {
        let now_s = self.now_s();
        let request = self.client.delete_item().set_key(Some(row::key(key)));
        let request = conditional!(request, &self.name, ConditionExpr::of(condition, now_s));
        let mut backoff = Backoff::default();
        loop {
            let Err(error) = request.clone().send().await else { return Ok(()) };
            if let Some(DeleteItemError::ConditionalCheckFailedException(refusal)) = error.as_service_error() {
                return Err(condition_failed(0, refusal.item(), now_s));
            }
            if !in_conflict(&error) || !backoff.wait(&*self.ids).await {
                return Err(failure("DeleteItem", error));
            }
        }
    }

    /// Does all of the writes or none.
    pub(super) async fn transaction(&self, writes: Vec<Write>) -> Result<Vec<Version>, TableError> {
        check_bytes(&writes)?;
        let now_s = self.now_s();
        let (mut parts, versions) = self.parts(writes, now_s)?;
        if parts.is_empty() {
            return Ok(versions);
        }
        let (mut request, mut backoff) = (self.request(&parts)?, Backoff::default());
        loop {
            let Err(error) = request.clone().send().await else { return Ok(versions) };
            let decision = match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                    classify_cancellation(&mut parts, cancelled.cancellation_reasons(), now_s)?
                }
                _ => RetryDecision::Failed,
            };
            match decision {
                RetryDecision::Again => {}
                // This makes a new token: a token identifies one request, and the previous one changed nothing.
                RetryDecision::Corrected => request = self.request(&parts)?,
                RetryDecision::Failed => return Err(failure("TransactWriteItems", error)),
            }
            if !backoff.wait(&*self.ids).await {
                return Err(failure("TransactWriteItems", error));
            }
        }
    }

    /// A request whose token makes it idempotent for ten minutes, whether the SDK or this code sends it again.
    fn request(&self, parts: &[Part]) -> Result<TransactWriteItemsFluentBuilder, TableError> {
        let items: Result<Vec<_>, _> = parts.iter().map(|part| part.item(&self.name)).collect();
        let request = self.client.transact_write_items().set_transact_items(Some(items?));
        Ok(request.client_request_token(self.ids.hex(16)))
    }

    /// The parts of the transaction, and the versions of the items that it puts.
    fn parts(&self, writes: Vec<Write>, now_s: i64) -> Result<(Vec<Part>, Vec<Version>), TableError> {
        let (mut parts, mut versions) = (Vec::with_capacity(writes.len()), Vec::new());
        for (index, write) in writes.into_iter().enumerate() {
            let kind = match write {
                Write::Put(item, condition) => {
                    let version = self.version();
                    let put = Put::builder().set_item(Some(row::of(item, &version)));
                    let put = conditional!(put, &self.name, ConditionExpr::of(&condition, now_s)).build();
                    versions.push(version);
                    PartKind::fixed(TransactWriteItem::builder().put(put.map_err(TableError::store)?).build())
                }
                Write::Delete(key, condition) => {
                    let delete = Delete::builder().set_key(Some(row::key(&key)));
                    let delete = conditional!(delete, &self.name, ConditionExpr::of(&condition, now_s)).build();
                    PartKind::fixed(TransactWriteItem::builder().delete(delete.map_err(TableError::store)?).build())
                }
                // It always holds, and DynamoDB refuses a check without a condition.
                Write::Check(_, Condition::Any) => continue,
                Write::Check(key, condition) => {
                    let check = ConditionCheck::builder().set_key(Some(row::key(&key)));
                    let check = conditional!(check, &self.name, ConditionExpr::of(&condition, now_s)).build();
                    let check = check.map_err(TableError::store)?;
                    PartKind::fixed(TransactWriteItem::builder().condition_check(check).build())
                }
                Write::Add(key, amount, expires_at) => {
                    let expires_at_s = expires_at.map(Timestamp::as_second);
                    PartKind::Add(Addition::new(&key, amount, expires_at_s, self.version().0, now_s))
                }
            };
            parts.push(Part { index, kind });
        }
        Ok((parts, versions))
    }
}

impl PartKind {
    fn fixed(item: TransactWriteItem) -> Self {
        Self::Fixed(Box::new(item))
    }
}

impl Part {
    fn item(&self, table: &str) -> Result<TransactWriteItem, TableError> {
        match &self.kind {
            PartKind::Fixed(item) => Ok(TransactWriteItem::clone(item)),
            PartKind::Add(addition) => Ok(TransactWriteItem::builder().update(addition.part(table)?).build()),
        }
    }
}

/// Reads why a transaction was cancelled: one reason for each part. A failed condition of the caller is the error; an
/// addition whose guess was wrong is corrected.
fn classify_cancellation(
    parts: &mut [Part],
    reasons: &[CancellationReason],
    now_s: i64,
) -> Result<RetryDecision, TableError> {
    let mut decision = RetryDecision::Failed;
    for (part, reason) in parts.iter_mut().zip(reasons) {
        match (&mut part.kind, reason.code()) {
            (PartKind::Fixed(_), Some("ConditionalCheckFailed")) => {
                return Err(condition_failed(part.index, reason.item(), now_s));
            }
            (PartKind::Add(addition), Some("ConditionalCheckFailed")) => {
                addition.correct(reason.item())?;
                decision = RetryDecision::Corrected;
            }
            (_, Some("TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded"))
                if !matches!(decision, RetryDecision::Corrected) =>
            {
                decision = RetryDecision::Again;
            }
            _ => {}
        }
    }
    Ok(decision)
}

/// The error of a write whose condition does not hold for the stored item.
fn condition_failed(index: usize, stored: Option<&Row>, now_s: i64) -> TableError {
    match stored.map_or(Ok(None), |row| row::live(row.clone(), now_s)) {
        Ok(current) => TableError::Condition { index, current: current.map(Box::new) },
        Err(damaged) => damaged,
    }
}

fn check_bytes(writes: &[Write]) -> Result<(), TableError> {
    let bytes = writes.iter().fold(0, |sum: usize, write| {
        let (key, body) = (write.key(), if let Write::Put(item, _) = write { item.body.len() } else { 0 });
        sum.saturating_add(key.partition.len() + key.sort.len() + body)
    });
    if bytes > TRANSACTION_MAX_BYTES {
        return Err(TableError::TooLarge { what: "a transaction", bytes, limit: TRANSACTION_MAX_BYTES });
    }
    Ok(())
}
