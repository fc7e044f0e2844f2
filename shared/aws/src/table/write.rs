//! Writing one item, and several as one.

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
use crate::patience::Backoff;

/// The most bytes of keys and bodies in one transaction: the 4 MB of DynamoDB, read as the smaller of what that may mean,
/// leave room for the rest.
const TRANSACTION_MAX_BYTES: usize = 4_000_000;

/// One part of a transaction, and its place among those that were asked for.
struct Part {
    index: usize,
    what: PartKind,
}

enum PartKind {
    Fixed(Box<TransactWriteItem>),
    Add(Addition),
}

/// What a cancelled transaction calls for.
enum RetryDecision {
    /// Another try of the same, when whatever was in the way has gone.
    Again,
    /// Another try with other expressions.
    Corrected,
    /// Nothing that the port knows.
    Failed,
}

impl DynamoTable {
    pub(super) async fn put_one(&self, item: NewItem, condition: &Condition) -> Result<Version, TableError> {
        let (now_s, version) = (self.now_s(), self.version());
        let asked = ConditionExpr::of(condition, now_s);
        let request = self
            .client
            .put_item()
            .table_name(&self.name)
            .set_item(Some(row::of(item, &version)))
            .set_condition_expression(asked.expression)
            .set_expression_attribute_names(asked.names)
            .set_expression_attribute_values(asked.values)
            .return_values_on_condition_check_failure(AllOld);
        let mut patience = Backoff::default();
        loop {
            let Err(error) = request.clone().send().await else { return Ok(version) };
            if let Some(PutItemError::ConditionalCheckFailedException(refusal)) = error.as_service_error() {
                let ours = |row: &Row| row::find_text(row, row::VERSION).is_ok_and(|found| found == version.0);
                // The SDK sent again what had been done, but whose answer was lost.
                return if refusal.item().is_some_and(ours) {
                    Ok(version)
                } else {
                    Err(refused(0, refusal.item(), now_s))
                };
            }
            if !in_conflict(&error) || !patience.wait(&*self.ids).await {
                return Err(failure("PutItem", error));
            }
        }
    }

    /// Doing this twice does no more than doing it once.
    pub(super) async fn delete_one(&self, key: &Key, condition: &Condition) -> Result<(), TableError> {
        let now_s = self.now_s();
        let asked = ConditionExpr::of(condition, now_s);
        let request = self
            .client
            .delete_item()
            .table_name(&self.name)
            .set_key(Some(row::key(key)))
            .set_condition_expression(asked.expression)
            .set_expression_attribute_names(asked.names)
            .set_expression_attribute_values(asked.values)
            .return_values_on_condition_check_failure(AllOld);
        let mut patience = Backoff::default();
        loop {
            let Err(error) = request.clone().send().await else { return Ok(()) };
            if let Some(DeleteItemError::ConditionalCheckFailedException(refusal)) = error.as_service_error() {
                return Err(refused(0, refusal.item(), now_s));
            }
            if !in_conflict(&error) || !patience.wait(&*self.ids).await {
                return Err(failure("DeleteItem", error));
            }
        }
    }

    /// All of the writes or none.
    pub(super) async fn transaction(&self, writes: Vec<Write>) -> Result<Vec<Version>, TableError> {
        check_bytes(&writes)?;
        let now_s = self.now_s();
        let (mut parts, versions) = self.parts(writes, now_s)?;
        if parts.is_empty() {
            return Ok(versions);
        }
        let (mut request, mut patience) = (self.request(&parts)?, Backoff::default());
        loop {
            let Err(error) = request.clone().send().await else { return Ok(versions) };
            let next = match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                    classify_cancellation(&mut parts, cancelled.cancellation_reasons(), now_s)?
                }
                _ => RetryDecision::Failed,
            };
            match next {
                RetryDecision::Again => {}
                // Another token, too: one stands for one request, and the request before has come to nothing.
                RetryDecision::Corrected => request = self.request(&parts)?,
                RetryDecision::Failed => return Err(failure("TransactWriteItems", error)),
            }
            if !patience.wait(&*self.ids).await {
                return Err(failure("TransactWriteItems", error));
            }
        }
    }

    /// A request that does no more when it is sent again, within ten minutes: by the SDK or by us.
    fn request(&self, parts: &[Part]) -> Result<TransactWriteItemsFluentBuilder, TableError> {
        let items: Result<Vec<_>, _> = parts.iter().map(|part| part.item(&self.name)).collect();
        let request = self.client.transact_write_items().set_transact_items(Some(items?));
        Ok(request.client_request_token(self.ids.hex(16)))
    }

    /// The parts that DynamoDB is to see, and the versions of what is put.
    fn parts(&self, writes: Vec<Write>, now_s: i64) -> Result<(Vec<Part>, Vec<Version>), TableError> {
        let (mut parts, mut versions) = (Vec::with_capacity(writes.len()), Vec::new());
        for (index, write) in writes.into_iter().enumerate() {
            let what = match write {
                Write::Put(item, condition) => {
                    let version = self.version();
                    let put = self.put_part(row::of(item, &version), ConditionExpr::of(&condition, now_s))?;
                    versions.push(version);
                    PartKind::fixed(TransactWriteItem::builder().put(put).build())
                }
                Write::Delete(key, condition) => {
                    let delete = self.delete_part(&key, ConditionExpr::of(&condition, now_s))?;
                    PartKind::fixed(TransactWriteItem::builder().delete(delete).build())
                }
                // It always holds, and DynamoDB takes no check without a condition.
                Write::Check(_, Condition::Any) => continue,
                Write::Check(key, condition) => {
                    let check = self.check_part(&key, ConditionExpr::of(&condition, now_s))?;
                    PartKind::fixed(TransactWriteItem::builder().condition_check(check).build())
                }
                Write::Add(key, amount, expires_at) => {
                    let expires_at_s = expires_at.map(Timestamp::as_second);
                    PartKind::Add(Addition::new(&key, amount, expires_at_s, self.version().0, now_s))
                }
            };
            parts.push(Part { index, what });
        }
        Ok((parts, versions))
    }

    fn put_part(&self, row: Row, asked: ConditionExpr) -> Result<Put, TableError> {
        Put::builder()
            .table_name(&self.name)
            .set_item(Some(row))
            .set_condition_expression(asked.expression)
            .set_expression_attribute_names(asked.names)
            .set_expression_attribute_values(asked.values)
            .return_values_on_condition_check_failure(AllOld)
            .build()
            .map_err(TableError::store)
    }

    fn delete_part(&self, key: &Key, asked: ConditionExpr) -> Result<Delete, TableError> {
        Delete::builder()
            .table_name(&self.name)
            .set_key(Some(row::key(key)))
            .set_condition_expression(asked.expression)
            .set_expression_attribute_names(asked.names)
            .set_expression_attribute_values(asked.values)
            .return_values_on_condition_check_failure(AllOld)
            .build()
            .map_err(TableError::store)
    }

    fn check_part(&self, key: &Key, asked: ConditionExpr) -> Result<ConditionCheck, TableError> {
        ConditionCheck::builder()
            .table_name(&self.name)
            .set_key(Some(row::key(key)))
            .set_condition_expression(asked.expression)
            .set_expression_attribute_names(asked.names)
            .set_expression_attribute_values(asked.values)
            .return_values_on_condition_check_failure(AllOld)
            .build()
            .map_err(TableError::store)
    }
}

impl PartKind {
    fn fixed(item: TransactWriteItem) -> Self {
        Self::Fixed(Box::new(item))
    }
}

impl Part {
    fn item(&self, table: &str) -> Result<TransactWriteItem, TableError> {
        match &self.what {
            PartKind::Fixed(item) => Ok(TransactWriteItem::clone(item)),
            PartKind::Add(addition) => Ok(TransactWriteItem::builder().update(addition.part(table)?).build()),
        }
    }
}

/// Reads why a transaction was cancelled: one reason for each part. A condition that does not hold is the answer; a counter
/// whose place was guessed wrongly is corrected.
fn classify_cancellation(
    parts: &mut [Part],
    reasons: &[CancellationReason],
    now_s: i64,
) -> Result<RetryDecision, TableError> {
    let mut next = RetryDecision::Failed;
    for (part, reason) in parts.iter_mut().zip(reasons) {
        match (&mut part.what, reason.code()) {
            (PartKind::Fixed(_), Some("ConditionalCheckFailed")) => {
                return Err(refused(part.index, reason.item(), now_s));
            }
            (PartKind::Add(addition), Some("ConditionalCheckFailed")) => {
                addition.refused(reason.item())?;
                next = RetryDecision::Corrected;
            }
            (_, Some("TransactionConflict" | "ThrottlingError" | "ProvisionedThroughputExceeded"))
                if !matches!(next, RetryDecision::Corrected) =>
            {
                next = RetryDecision::Again;
            }
            _ => {}
        }
    }
    Ok(next)
}

/// The condition of a part did not hold for what stands there.
fn refused(index: usize, standing: Option<&Row>, now_s: i64) -> TableError {
    match standing.map_or(Ok(None), |row| row::live(row.clone(), now_s)) {
        Ok(standing) => TableError::Condition { index, standing: standing.map(Box::new) },
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
