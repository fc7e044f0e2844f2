//! All ports of the engine, embedded in this process over one table.

use std::sync::Arc;

use overseer_engine::engine::Ports;
use overseer_engine::ports::vault::VaultError;
use overseer_engine::ports::{Clock, Ids, Table, Work};
use overseer_engine::storage::vault::{EnvelopeVault, MasterKey, MasterKeys};
use tokio::sync::mpsc::Receiver;

use crate::events::LocalEvents;
use crate::timer::LocalTimer;

/// The ports with their event bus and the channel of their timer.
pub struct Embedded {
    /// The engine's ports.
    pub ports: Ports,
    /// The bus that the ports publish on.
    pub events: Arc<LocalEvents>,
    /// The work whose alarm has fired.
    pub due: Receiver<Work>,
}

impl Embedded {
    /// Ports over `table`. Their vault keeps secrets in the table, and `master_key` wraps its data keys. Must be called
    /// within a tokio runtime.
    pub fn new(
        table: Arc<dyn Table>,
        master_key: &MasterKey,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
    ) -> Result<Self, VaultError> {
        let events = Arc::new(LocalEvents::default());
        let (timer, due) = LocalTimer::new(Arc::clone(&clock));
        let keys = MasterKeys::new(master_key, &[])?;
        let vault = EnvelopeVault::new(Arc::clone(&table), Arc::clone(&ids), Arc::clone(&clock), keys);
        let ports = Ports {
            vault: Arc::new(vault),
            table,
            timer: Arc::new(timer),
            events: Arc::<LocalEvents>::clone(&events),
            clock,
            ids,
        };
        Ok(Self { ports, events, due })
    }
}
