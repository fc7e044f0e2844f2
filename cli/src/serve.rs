//! Serves every route on one port of this machine, until Ctrl-C or a termination signal.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use overseer_engine::engine::Engine;
use overseer_engine::outbound::config::Config;
use overseer_engine::plugin::catalog::Catalog;
use overseer_engine::ports::{Clock, Ids, RandomIds, SystemClock};
use overseer_local::embedded::Embedded;
use overseer_local::folder::DataFolder;
use overseer_playground::{Playground, Service};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::sleep;
use url::Url;

use crate::arguments::Arguments;
use crate::connections::{ConnectionLimits, ConnectionServer};
use crate::failure::Failure;
use crate::watch::{FolderWatch, comma_separated, log_reload};
use crate::worker::run_worker;
use crate::{server, setup};

/// The limits of connections. Half of the usual limit of open files, 1,024, is left for calls to services and the data file.
const LIMITS: ConnectionLimits = ConnectionLimits {
    head: Duration::from_secs(10),
    body: Duration::from_secs(30),
    idle: Duration::from_mins(1),
    connections: 512,
};
/// The signal for a file that would become larger than its limit, the same number on Linux and macOS.
const SIGXFSZ: i32 = 25;

/// Serves until Ctrl-C or a termination signal, then finishes what is in flight.
pub async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let catalog = Catalog::built_in();
    let mut config = Config::read(&catalog, |name| std::env::var(name).ok())?;
    let watch = read_plugins(arguments, &catalog)?;
    tracing::info!("plugins: {}", comma_separated(&catalog.names()));

    let (listener, address) = listen(arguments.port).await?;
    let stand_ins = server::point_at_playground(&mut config, address);
    if config.public_url.is_none() {
        config.public_url = Url::parse(&format!("http://{address}")).ok();
    }

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ids: Arc<dyn Ids> = Arc::new(RandomIds);
    let folder = DataFolder::open(&arguments.data, Arc::clone(&clock), &ids).await?;
    let Embedded { ports, events: _, due } =
        Embedded::new(folder.table(), folder.master_key(), clock, Arc::clone(&ids))?;
    let engine = Engine::new(ports, catalog, config)?;
    if let Some(watch) = watch {
        tokio::spawn(watch.follow(Arc::clone(&engine)));
    }
    engine.set_alarms().await?;
    let worker = tokio::spawn(run_worker(Arc::clone(&engine), due));
    let new_key = setup::prepare(&engine, &folder, &stand_ins).await?;

    // A write beyond the limit of a file's size (RLIMIT_FSIZE) is an error, instead of the end of the process.
    let _beyond_file_size = signal(SignalKind::from_raw(SIGXFSZ)).map_err(Failure::Signals)?;
    // Before the banner: its reader may send a signal at once.
    let mut signals = Signals::listen()?;
    let now = Arc::new(|| jiff::Timestamp::now().as_second());
    let playground = Playground::with_key(now, folder.playground_key(ids.as_ref())?);
    let service = server::routes(Arc::clone(&engine), &playground, address);
    if let Err(error) = print_banner(address, &folder, new_key, &stand_ins) {
        tracing::warn!(%error, "failed to print the banner");
    }

    let budget = engine.config.limits.budget.max(engine.config.limits.task_budget);
    let server = ConnectionServer::start(listener, service, LIMITS);
    signals.next().await;
    tracing::info!(
        "stopping: new requests are refused, and those in flight are finished; Ctrl-C again to stop at once"
    );
    // No new work is claimed; the next start finds what is due.
    worker.abort();
    server.stop_reading();
    let finished = async {
        // Intents first, while the port is still open: they may be calling a stand-in on it.
        engine.drain().await;
        server.close().await;
    };
    tokio::select! {
        () = finished => tracing::info!("stopped"),
        () = sleep(budget + Duration::from_secs(1)) => tracing::warn!(requests = server.in_flight(), "stopped; requests in flight were cut"),
        () = signals.next() => tracing::warn!(requests = server.in_flight(), "stopped at once; requests in flight were cut"),
    }
    Ok(())
}

/// Reads the folder of `--plugins` into the catalog, if there is one. A folder that cannot be watched is only read.
fn read_plugins(arguments: &Arguments, catalog: &Catalog) -> Result<Option<FolderWatch>, Failure> {
    let Some(folder) = &arguments.plugins else { return Ok(None) };
    // The watch comes first, so that it sees what changes during the read.
    let watch = FolderWatch::start(folder);
    let read = catalog.read_folder(folder);
    log_reload(&read.map_err(|reason| Failure::Plugins { folder: folder.clone(), reason })?);
    let unwatched = |error| tracing::warn!(folder = %folder.display(), %error, "failed to watch plugins");
    Ok(watch.map_err(unwatched).ok())
}

async fn listen(port: u16) -> Result<(TcpListener, SocketAddr), Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = TcpListener::bind(address).await.map_err(|reason| {
        let in_use = reason.kind() == std::io::ErrorKind::AddrInUse;
        if in_use { Failure::PortInUse(address) } else { Failure::Listen { address, reason } }
    })?;
    let bound = listener.local_addr().map_err(|reason| Failure::Listen { address, reason })?;
    Ok((listener, bound))
}

/// The rest of the banner's `curl` line, which sends a message to the stand-in. Without it the line lists the tools.
const EXAMPLE_INTENT: &str = r##" -H 'Content-Type: application/json' -d '{"tool": "slack", "intent": "send_message", "context": {"channel": "#general", "text": "Hello from Overseer"}}'"##;

/// Prints the address, the path of the administrator's key and a `curl` line to paste.
fn print_banner(address: SocketAddr, folder: &DataFolder, new_key: bool, stand_ins: &[Service]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let key = folder.admin_key_path().display().to_string();
    let made = if new_key { " (made just now)" } else { "" };
    writeln!(out, "Overseer {} listens on http://{address}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "The administrator's API key{made} is in {key}")?;
    if !stand_ins.is_empty() {
        let titles: Vec<&str> = stand_ins.iter().map(|service| service.title()).collect();
        let titles = titles.join(", ");
        tracing::warn!("a stand-in, not the real service, answers for: {titles}");
        writeln!(out, "A stand-in answers for: {titles}. What it receives: http://{address}/playground")?;
    }
    let quoted = format!("'{}'", key.replace('\'', r"'\''"));
    // A message to a real channel would reach people, so the line only reads where Slack is real.
    let intent = if stand_ins.contains(&Service::Slack) { EXAMPLE_INTENT } else { "" };
    writeln!(
        out,
        "\nTry it:\n\ncurl -sS http://{address}/api/plugin-engine -H \"Authorization: Bearer $(cat {quoted})\"{intent}\n"
    )?;
    out.flush()
}

/// Ctrl-C and the termination signal.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(Failure::Signals);
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Waits for the next signal.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
