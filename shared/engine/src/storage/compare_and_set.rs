//! Compare-and-set: read an item, change it, and write it on the condition that nobody has written it since.

use std::fmt::Display;

use crate::core::error::Error;
use crate::ports::table::{Item, TableError};

/// How often one change is tried. Each lost race means that another writer got through, so only a storm of writers on one
/// item gets here.
const TRIES_MAX: usize = 1_000;

/// The races that one change has lost so far.
#[derive(Debug, Default)]
pub(crate) struct CompareAndSet {
    lost: usize,
}

impl CompareAndSet {
    /// Call this with the error of a conditional write. A lost race gives the item as it is now, where the store said so, for
    /// the next try; after too many the caller gets a conflict that names `subject`. Any other error is passed on.
    pub(crate) fn lost(&mut self, error: TableError, subject: impl Display) -> Result<Option<Item>, Error> {
        let TableError::Condition { standing, .. } = error else { return Err(error.into()) };
        self.lost += 1;
        if self.lost >= TRIES_MAX {
            return Err(Error::Conflict(format!("{subject} is being changed by too many requests at once; try again")));
        }
        Ok(standing.map(|item| *item))
    }
}
