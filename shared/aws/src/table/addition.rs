//! Adding to a counter. An item that stands there keeps all but its count, one that is absent or expired is made anew: no
//! single expression says all of that, so the likeliest is tried, and the refusal shows which is right.

use aws_sdk_dynamodb::operation::update_item::UpdateItemError;
use aws_sdk_dynamodb::types::ReturnValuesOnConditionCheckFailure::AllOld;
use aws_sdk_dynamodb::types::{ReturnValue, Update};
use overseer_engine::ports::table::{Key, TableError};

use super::expression::{ABSENT, NOT_EXPIRED, Values, names, values};
use super::row::{self, Row, number, text};
use super::{DynamoTable, failure, in_conflict};
use crate::patience::Backoff;

/// The answer where the sum would not fit.
const OUT_OF_RANGE: TableError = TableError::Request("a counter would leave its range");

/// What is taken to stand there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Guess {
    /// Nothing, or a counter that has its expiry if this one is to have one.
    Usual,
    /// What has expired.
    Expired,
    /// What has no expiry, and is not to get one.
    Lasting,
}

/// One amount for one counter.
#[derive(Debug, Clone)]
pub(super) struct Addition {
    key: Row,
    amount: i64,
    expires_at_s: Option<i64>,
    /// The version of the item if it is made.
    version: String,
    now_s: i64,
    guess: Guess,
}

impl Addition {
    pub(super) fn new(key: &Key, amount: i64, expires_at_s: Option<i64>, version: String, now_s: i64) -> Self {
        Self { key: row::key(key), amount, expires_at_s, version, now_s, guess: Guess::Usual }
    }

    /// Corrects the guess by what stands there.
    pub(super) fn refused(&mut self, standing: Option<&Row>) -> Result<(), TableError> {
        self.guess = match standing {
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

    /// What changes, on which condition.
    fn expressions(&self) -> (String, String) {
        let expires = self.expires_at_s.is_some();
        let fits = "(attribute_not_exists(#count) OR #count BETWEEN :low AND :high)";
        match self.guess {
            Guess::Usual => {
                let keep = if expires { ", #expires_at = if_not_exists(#expires_at, :expires_at)" } else { "" };
                let stands =
                    if expires { "(attribute_not_exists(#partition) OR #expires_at > :now)" } else { NOT_EXPIRED };
                let update = format!(
                    "SET #version = if_not_exists(#version, :version), #body = if_not_exists(#body, :body){keep} ADD #count :amount"
                );
                (update, format!("{stands} AND {fits}"))
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
                let stands = "attribute_exists(#partition) AND attribute_not_exists(#expires_at)";
                ("ADD #count :amount".to_owned(), format!("{stands} AND {fits}"))
            }
        }
    }

    /// The values that stand in the expressions.
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
        // No name begins with another.
        all.retain(|name, _| update.contains(name.as_str()) || condition.contains(name.as_str()));
        all
    }

    /// As a part of a transaction.
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
    /// Where an answer is lost, the SDK sends the addition again, and it may count twice.
    pub(super) async fn add_one(&self, key: &Key, amount: i64, expires_at_s: Option<i64>) -> Result<i64, TableError> {
        let mut addition = Addition::new(key, amount, expires_at_s, self.version().0, self.now_s());
        let mut patience = Backoff::default();
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
                Ok(answer) => return row::find_number(&answer.attributes.unwrap_or_default(), row::COUNT),
                Err(error) => error,
            };
            if let Some(UpdateItemError::ConditionalCheckFailedException(refusal)) = error.as_service_error() {
                addition.refused(refusal.item())?;
            } else if !in_conflict(&error) {
                return Err(failure("UpdateItem", error));
            }
            if !patience.wait(&*self.ids).await {
                return Err(failure("UpdateItem", error));
            }
        }
    }
}
