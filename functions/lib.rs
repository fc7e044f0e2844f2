//! What every Lambda does at its cold start. Until there are ports on AWS the records are kept in a data folder on the
//! Lambda's own disk (`OVERSEER_DATA`), which is enough to run one with `cargo lambda watch`, and for one instance only.
//! Alarms run nothing there, since a Lambda sleeps between its events: what is due waits for an event of `cron` that
//! names it.

use std::path::PathBuf;
use std::sync::Arc;

use lambda_http::Error;
use overseer_engine::catalog::Catalog;
use overseer_engine::config::Config;
use overseer_engine::engine::Engine;
use overseer_engine::ports::{Clock, Ids, RandomIds, SystemClock, Work};
use overseer_http::{Routes, service};
use overseer_local::embedded::Embedded;
use overseer_local::folder::DataFolder;

/// Serves `routes`, which belong to browsers as well if `for_browsers`: then `PUBLIC_URL` is needed.
pub async fn serve(routes: Routes, for_browsers: bool) -> Result<(), Error> {
    let engine = engine(for_browsers).await?;
    lambda_http::run(service(engine, routes)).await
}

/// The engine of this process, and its log. `PUBLIC_URL` is needed if it is `for_browsers`.
pub async fn engine(for_browsers: bool) -> Result<Arc<Engine>, Error> {
    lambda_http::tracing::init_default_subscriber();
    let (catalog, left_out) = Catalog::built_in();
    for plugin in left_out {
        tracing::warn!("left out {}: {}", plugin.origin, plugin.reason);
    }
    let config = Config::read(&catalog, |name| std::env::var(name).ok())?;
    if for_browsers && config.public_url.is_none() {
        return Err(
            "PUBLIC_URL must say where browsers reach this Overseer, such as https://overseer.example.com".into()
        );
    }
    let data = std::env::var_os("OVERSEER_DATA").map(PathBuf::from).ok_or("OVERSEER_DATA must name the data folder")?;
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn Ids>) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let folder = DataFolder::open(&data, Arc::clone(&clock), &ids).await?;
    let Embedded { ports, events: _, mut due } = Embedded::new(folder.table(), folder.master_key(), clock, ids)?;
    // The timer takes orders only while somebody hears it.
    tokio::spawn(async move {
        while let Some(Work { org, kind, id, .. }) = due.recv().await {
            tracing::warn!(%org, kind, id, "due, and left until an event names it");
        }
    });
    Ok(Engine::new(ports, catalog, config)?)
}
