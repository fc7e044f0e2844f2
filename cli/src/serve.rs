//! Serves every route on one port of this machine, until it is told to stop.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use overseer_engine::core::error::causes;
use overseer_engine::core::ids::PluginName;
use overseer_engine::engine::Engine;
use overseer_engine::outbound::config::Config;
use overseer_engine::plugin::catalog::Catalog;
use overseer_engine::ports::{Clock, Ids, RandomIds, SystemClock, Work};
use overseer_local::embedded::Embedded;
use overseer_local::folder::DataFolder;
use overseer_playground::{Playground, Service};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::Receiver;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{MissedTickBehavior, interval};
use url::Url;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::watching::{Watched, log_reload};
use crate::{server, setup};

/// Serves until Ctrl-C or a termination signal, then finishes what is in flight.
pub async fn run(arguments: &Arguments) -> Result<(), Failure> {
    let catalog = Catalog::built_in();
    let mut config = Config::read(&catalog, |name| std::env::var(name).ok())?;
    let mut watched = None;
    if let Some(folder) = &arguments.plugins {
        // First, so that nothing is missed that changes while it is read.
        let begun = Watched::begin(folder);
        let read = catalog.read_folder(folder);
        log_reload(&read.map_err(|reason| Failure::Plugins { folder: folder.clone(), reason })?);
        let unwatched = |error| tracing::warn!("changes in {} will not be seen: {error}", folder.display());
        watched = begun.map_err(unwatched).ok();
    }
    let names = catalog.names();
    let names: Vec<&str> = names.iter().map(PluginName::as_str).collect();
    tracing::info!("plugins: {}", names.join(", "));

    let wanted = SocketAddr::from((Ipv4Addr::LOCALHOST, arguments.port));
    let listener = TcpListener::bind(wanted).await.map_err(|reason| {
        let in_use = reason.kind() == std::io::ErrorKind::AddrInUse;
        if in_use { Failure::PortInUse(wanted) } else { Failure::Listen { address: wanted, reason } }
    })?;
    let address = listener.local_addr().map_err(|reason| Failure::Listen { address: wanted, reason })?;
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
    if let Some(watched) = watched {
        tokio::spawn(watched.follow(Arc::clone(&engine)));
    }
    engine.set_alarms().await?;
    let working = tokio::spawn(run_worker(Arc::clone(&engine), due));
    let new_key = setup::prepare(&engine, &folder, &stand_ins).await?;

    // Before anybody is told that there is something to stop.
    let mut signals = Signals::listen()?;
    let now = Arc::new(|| jiff::Timestamp::now().as_second());
    let playground = Playground::with_key(now, folder.playground_key(ids.as_ref())?);
    let service = server::routes(Arc::clone(&engine), &playground, address);
    if let Err(reason) = print_banner(address, &folder, new_key, &stand_ins) {
        tracing::warn!("nobody reads what is printed at start: {reason}");
    }

    let budget = engine.config.limits.budget.max(engine.config.limits.task_budget);
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = axum::serve(listener, service).with_graceful_shutdown(async {
        let _ = stopped.await;
    });
    let mut serving = tokio::spawn(serving.into_future());
    tokio::select! {
        ended = &mut serving => return ended.map_err(std::io::Error::other).flatten().map_err(Failure::Serve),
        () = signals.next() => {}
    }
    tracing::info!("stopping: what is in flight is finished first; Ctrl-C again to stop at once");
    // Nothing new is begun; what is due is found at the next start.
    working.abort();
    let finished = async {
        // Intents first, while the port is still open: they may be calling a stand-in on it.
        engine.drain().await;
        let _ = stop.send(());
        let _ = serving.await;
    };
    tokio::select! {
        () = finished => tracing::info!("stopped"),
        () = tokio::time::sleep(budget + Duration::from_secs(1)) => tracing::warn!("stopped; a connection would not end"),
        () = signals.next() => tracing::warn!("stopped at once"),
    }
    Ok(())
}

/// Work that may be under way at once.
const AT_ONCE: usize = 16;
/// How often it is looked for what an alarm missed.
const SWEEP_EVERY: Duration = Duration::from_mins(1);

/// Does the work whose alarms go off, and looks now and then for what no alarm told of. What it has begun runs on when it is
/// stopped.
async fn run_worker(engine: Arc<Engine>, mut due: Receiver<Work>) {
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let mut minutes = interval(SWEEP_EVERY);
    minutes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first comes at once, when the alarms have just been set.
    minutes.tick().await;
    loop {
        let work = tokio::select! {
            _ = minutes.tick() => {
                if let Err(error) = engine.sweep().await {
                    tracing::error!(error = %causes(&error), "what is due was not looked for");
                }
                continue;
            }
            work = due.recv() => work,
        };
        let (Some(work), Ok(place)) = (work, Arc::clone(&room).acquire_owned().await) else { return };
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            if let Err(error) = engine.dispatch(work, None).await {
                tracing::error!(error = %causes(&error), "what was due was not done");
            }
            drop(place);
        });
    }
}

/// What the line to paste sends; without it the line lists what can be sent.
const TRY_IT: &str = r##" -H 'Content-Type: application/json' -d '{"tool": "slack", "intent": "send_message", "context": {"channel": "#general", "text": "Hello from Overseer"}}'"##;

/// Says where it listens, where the key is, and what to paste.
fn print_banner(address: SocketAddr, folder: &DataFolder, new_key: bool, stand_ins: &[Service]) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    let key = folder.admin_key_path().display().to_string();
    let made = if new_key { " (made just now)" } else { "" };
    writeln!(out, "Overseer {} listens on http://{address}", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "The administrator's API key{made} is in {key}")?;
    if !stand_ins.is_empty() {
        let names: Vec<&str> = stand_ins.iter().map(|service| service.title()).collect();
        let names = names.join(", ");
        tracing::warn!("a stand-in, not the real service, answers for: {names}");
        writeln!(out, "A stand-in answers for: {names}. What it receives: http://{address}/playground")?;
    }
    let quoted = format!("'{}'", key.replace('\'', r"'\''"));
    // Nobody's real channel is a place to try things.
    let intent = if stand_ins.contains(&Service::Slack) { TRY_IT } else { "" };
    writeln!(
        out,
        "\nTry it:\n\ncurl -sS http://{address}/api/plugin-engine -H \"Authorization: Bearer $(cat {quoted})\"{intent}\n"
    )?;
    out.flush()
}

/// Listens for Ctrl-C and for a termination signal.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(Failure::Signals);
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    /// Ends when the next one comes.
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
