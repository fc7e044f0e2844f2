//! What every Lambda does at its cold start. Until there are ports on AWS the records are kept in a data folder on the
//! Lambda's own disk (`OVERSEER_DATA`), which is enough to run one with `cargo lambda watch`, and for one instance only.

use std::path::PathBuf;
use std::sync::Arc;

use lambda_http::Error;
use overseer_engine::catalog::Catalog;
use overseer_engine::config::Config;
use overseer_engine::engine::Engine;
use overseer_engine::ports::{Clock, Ids, RandomIds, SystemClock};
use overseer_http::{Routes, service};
use overseer_local::embedded::Embedded;
use overseer_local::folder::DataFolder;

/// Serves `routes`, which belong to browsers as well if `for_browsers`: then `PUBLIC_URL` is needed.
pub async fn serve(routes: Routes, for_browsers: bool) -> Result<(), Error> {
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
    let embedded = Embedded::new(folder.table(), folder.master_key(), clock, ids)?;
    let engine = Engine::new(embedded.ports, catalog, config)?;
    lambda_http::run(service(engine, routes)).await
}
