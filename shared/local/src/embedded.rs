//! Every port of the engine, embedded in this process over one data folder.

use std::sync::Arc;

use overseer_engine::engine::Ports;
use overseer_engine::ports::vault::VaultError;
use overseer_engine::ports::{Clock, Ids, Table};
use overseer_engine::vault::{EnvelopeVault, MasterKey};

use crate::events::LocalEvents;
use crate::timer::LocalTimer;

/// The ports, and where their events can be heard.
pub struct Embedded {
    /// The ports.
    pub ports: Ports,
    /// What is published through them.
    pub events: Arc<LocalEvents>,
}

impl Embedded {
    /// Ports over `table`, whose vault `master_key` seals. To be called within a tokio runtime.
    pub fn new(
        table: Arc<dyn Table>,
        master_key: &MasterKey,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
    ) -> Result<Self, VaultError> {
        let events = Arc::new(LocalEvents::default());
        // Nothing sets an alarm until there are tasks, so nobody waits for one.
        let (timer, _) = LocalTimer::new(Arc::clone(&clock));
        let ports = Ports {
            vault: Arc::new(EnvelopeVault::new(Arc::clone(&table), master_key)?),
            table,
            timer: Arc::new(timer),
            events: Arc::<LocalEvents>::clone(&events),
            clock,
            ids,
        };
        Ok(Self { ports, events })
    }
}
