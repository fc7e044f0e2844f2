//! Organizations: for now, a record that one exists.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::debug_span;
use tracing::field::Empty;

use crate::core::error::Error;
use crate::core::ids::OrgId;
use crate::core::trace::traced;
use crate::engine::Engine;
use crate::ports::table::{Condition, NewItem, TableError};
use crate::storage::keys;

/// The stored record.
#[derive(Debug, Serialize, Deserialize)]
struct OrganizationRecord {
    id: OrgId,
    created_at: Timestamp,
}

impl Engine {
    /// Creates an organization unless it exists. Gives whether it was created.
    pub async fn create_organization(&self, id: &OrgId) -> Result<bool, Error> {
        let span = debug_span!("create_organization", outcome = Empty);
        traced(span, async {
            let record = OrganizationRecord { id: id.clone(), created_at: self.ports.clock.now() };
            match self.ports.table.put(NewItem::new(keys::organization(id), &record)?, Condition::Absent).await {
                Ok(_) => Ok(true),
                Err(TableError::Condition { .. }) => Ok(false),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }
}
