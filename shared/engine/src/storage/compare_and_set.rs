//! Compare-and-set: read an item, change it, and write it on the condition that no other writer has written it since.

use std::fmt::Display;

use crate::core::error::Error;
use crate::ports::table::{Item, TableError};

/// The most attempts of one change. Each lost race means that another writer succeeded, so only a storm of writers on one item
/// reaches the limit.
const TRIES_MAX: usize = 1_000;

/// The races that one change has lost so far.
#[derive(Debug, Default)]
pub(crate) struct CompareAndSet {
    lost: usize,
}

impl CompareAndSet {
    /// Call this with the error of a conditional write. After a lost race it returns the current item, if there is one, for
    /// the next attempt; after too many lost races it returns a conflict that names `subject`. Other errors are returned.
    pub(crate) fn after_lost_race(&mut self, error: TableError, subject: impl Display) -> Result<Option<Item>, Error> {
        let TableError::Condition { current, .. } = error else { return Err(error.into()) };
        self.lost += 1;
        if self.lost >= TRIES_MAX {
            return Err(Error::Conflict(format!("{subject} is being changed by too many requests at once; try again")));
        }
        Ok(current.map(|item| *item))
    }
}
