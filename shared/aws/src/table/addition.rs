//! Adds to a counter. An existing item keeps all but its count; an absent or expired one is replaced by a new one. No single
//! expression does both, so the likeliest is tried first, and a refusal shows which one is right.

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure::AllOld;
use aws_sdk_dynamodb::types::{ReturnValue, Update};
use overseer_engine::ports::table::{Key, TableError};

use super::expression::{ABSENT, NOT_EXPIRED, Values, names, values};
use super::row::{self, Row, number, text};
use super::{DynamoTable, failure, in_conflict};
use crate::backoff::Backoff;

/// The error where the sum would overflow.
const OUT_OF_RANGE: TableError = TableError::Request("a counter would leave its range");

/// The expected state of the stored item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guess {
    /// No item, or a counter that expires if the addition does.
    Usual,
    /// An expired item.
    Expired,
    /// An item that never expires, and does not get an expiry from the addition.
    Lasting,
}

/// An amount to add to one counter.
#[derive(Debug, Clone)]
pub(super) struct Addition {
    key: Row,
    amount: i64,
    expires_at_s: Option<i64>,
    /// The version of the item if this addition creates it.
    version: String,
    now_s: i64,
    guess: Guess,
}

impl Addition {
    pub(super) fn new(key: &Key, amount: i64, expires_at_s: Option<i64>, version: String, now_s: i64) -> Self {
        Self { key: row::key(key), amount, expires_at_s, version, now_s, guess: Guess::Usual }
    }

    /// Corrects the guess after a refusal, by the stored item.
    pub(super) fn correct(&mut self, stored: Option<&Row>) -> Result<(), TableError> {
        self.guess = match stored {
            None => Guess::Usual,
            Some(row) if row::expired(row, self.now_s)? => Guess::Expired,
            Some(row) => {
                row::optional_number(row, row::COUNT)?.unwrap_or(0).checked_add(self.amount).ok_or(OUT_OF_RANGE)?;
                let lasting = row::optional_number(row, row::EXPIRES_AT)?.is_none();
                if lasting && self.expires_at_s.is_some() { Guess::Lasting } else { Guess::Usual }
            }
        };
        Ok(())
    }

    /// The update expression and its condition.
    fn expressions(&self) -> (String, String) {
        let expires = self.expires_at_s.is_some();
        let fits = "(attribute_not_exists(#count) OR #count BETWEEN :low AND :high)";
        match self.guess {
            Guess::Usual => {
                let keep = if expires { ", #expires_at = if_not_exists(#expires_at, :expires_at)" } else { "" };
                let live =
                    if expires { "(attribute_not_exists(#partition) OR #expires_at > :now)" } else { NOT_EXPIRED };
                let update = format!(
                    "SET #version = if_not_exists(#version, :version), #body = if_not_exists(#body, :body){keep} ADD #count :amount"
                );
                (update, format!("{live} AND {fits}"))
            }
            Guess::Expired => {
                let (set, remove) = if expires { (", #expires_at = :expires_at", "") } else { ("", ", #expires_at") };
                let update = format!(
                    "SET #version = :version, #body = :body, #count = :amount{set} \
                     REMOVE #list_partition, #list_sort, #due_shard, #due_at{remove}"
                );
                (update, ABSENT.to_owned())
            }
            Guess::Lasting => {
                let live = "attribute_exists(#partition) AND attribute_not_exists(#expires_at)";
                ("ADD #count :amount".to_owned(), format!("{live} AND {fits}"))
            }
        }
    }

    /// The values that the expressions use.
    fn values(&self, update: &str, condition: &str) -> Values {
        let mut all = values([
            (":amount", number(self.amount)),
            (":body", text("")),
            (":version", text(self.version.as_str())),
            (":now", number(self.now_s)),
            (":low", number(i64::MIN.saturating_sub(self.amount.min(0)))),
            (":high", number(i64::MAX.saturating_sub(self.amount.max(0)))),
        ]);
        all.extend(self.expires_at_s.map(|at| (":expires_at".to_owned(), number(at))));
        // `contains` is exact enough: no placeholder is a prefix of another.
        all.retain(|name, _| update.contains(name.as_str()) || condition.contains(name.as_str()));
        all
    }

    /// The addition as a part of a transaction.
    pub(super) fn part(&self, table: &str) -> Result<Update, TableError> {
        let (update, condition) = self.expressions();
        Update::builder()
            .table_name(table)
            .set_key(Some(self.key.clone()))
            .set_expression_attribute_names(Some(names(&[&update, &condition])))
            .set_expression_attribute_values(Some(self.values(&update, &condition)))
            .update_expression(update)
            .condition_expression(condition)
            .return_values_on_condition_check_failure(AllOld)
            .build()
            .map_err(TableError::store)
    }
}

impl DynamoTable {
    /// Not idempotent: if the response is lost, the SDK sends the addition again, and it may count twice.
    pub(super) async fn add_one(&self, key: &Key, amount: i64, expires_at_s: Option<i64>) -> Result<i64, TableError> {
        let mut addition = Addition::new(key, amount, expires_at_s, self.version().0, self.now_s());
        let mut backoff = Backoff::default();
        loop {
            let (update, condition) = addition.expressions();
            let request = self
                .client
                .update_item()
                .table_name(&self.name)
                .set_key(Some(addition.key.clone()))
                .set_expression_attribute_names(Some(names(&[&update, &condition])))
                .set_expression_attribute_values(Some(addition.values(&update, &condition)))
                .update_expression(update)
                .condition_expression(condition)
                .return_values(ReturnValue::UpdatedNew)
                .return_values_on_condition_check_failure(AllOld);
            let error = match request.send().await {
                Ok(response) => return row::find_number(&response.attributes.unwrap_or_default(), row::COUNT),
                Err(error) => error,
            };
            if let Some(UpdateItemError::ConditionalCheckFailedException(refusal)) = error.as_service_error() {
                addition.correct(refusal.item())?;
            } else if !in_conflict(&error) {
                return Err(failure("UpdateItem", error));
            }
            if !backoff.wait(&*self.ids).await {
                return Err(failure("UpdateItem", error));
            }
        }
    }
}
