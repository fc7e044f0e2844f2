//! The Lambda of `/api/plugin-engine`. Until there are ports on AWS it keeps its records in a data folder on its own
//! disk (`OVERSEER_DATA`), which is enough to run it with `cargo lambda watch`, and for one instance only.

use std::path::PathBuf;
use std::sync::Arc;

use lambda_http::Error;
use overseer_engine::catalog::Catalog;
use overseer_engine::config::Config;
use overseer_engine::engine::Engine;
use overseer_engine::ports::{Clock, Ids, RandomIds, SystemClock};
use overseer_http::{intent, service};
use overseer_local::embedded::Embedded;
use overseer_local::folder::DataFolder;

#[tokio::main]
async fn main() -> Result<(), Error> {
    lambda_http::tracing::init_default_subscriber();
    let (catalog, left_out) = Catalog::built_in();
    for plugin in left_out {
        tracing::warn!("left out {}: {}", plugin.origin, plugin.reason);
    }
    let config = Config::read(&catalog, |name| std::env::var(name).ok())?;
    let data = std::env::var_os("OVERSEER_DATA").map(PathBuf::from).ok_or("OVERSEER_DATA must name the data folder")?;
    let (clock, ids): (Arc<dyn Clock>, Arc<dyn Ids>) = (Arc::new(SystemClock), Arc::new(RandomIds));
    let folder = DataFolder::open(&data, Arc::clone(&clock), &ids)?;
    let embedded = Embedded::new(folder.table(), folder.master_key(), clock, ids)?;
    let engine = Engine::new(embedded.ports, catalog, config)?;
    lambda_http::run(service(engine, intent::routes())).await
}
