//! Runs the work whose alarms fire, and sweeps for work whose alarm was lost.

use std::sync::Arc;
use std::time::Duration;

use overseer_engine::core::error::causes;
use overseer_engine::engine::Engine;
use overseer_engine::ports::Work;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::Receiver;
use tokio::time::{MissedTickBehavior, interval};

/// The most pieces of work in flight at once.
const IN_FLIGHT_MAX: usize = 16;
const SWEEP_INTERVAL: Duration = Duration::from_mins(1);

/// Dispatches work as it becomes due, until the channel closes. Work in flight goes on when this is aborted.
pub(crate) async fn run_worker(engine: Arc<Engine>, mut due: Receiver<Work>) {
    let slots = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut sweeps = interval(SWEEP_INTERVAL);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once, when the alarms have just been set.
    sweeps.tick().await;
    loop {
        let work = tokio::select! {
            _ = sweeps.tick() => {
                if let Err(error) = engine.sweep().await {
                    tracing::error!(error = %causes(&error), "sweep failed");
                }
                continue;
            }
            work = due.recv() => work,
        };
        let (Some(work), Ok(slot)) = (work, Arc::clone(&slots).acquire_owned().await) else { return };
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            if let Err(error) = engine.dispatch(work, None).await {
                tracing::error!(error = %causes(&error), "dispatch of due work failed");
            }
            drop(slot);
        });
    }
}
