//! A simulation of tasks under faults: many workers over one store in memory, with alarms that are lost, early, late or
//! doubled, workers that pause or crash, a store and a service that fail, and callers who cancel and edit tasks in flight.
//! Time is simulated. After six hours the faults end, but every alarm is lost: the sweep has to find the remaining tasks.
//!
//! A seed replays: all random numbers come from it, and only one actor (a worker, a sweep or a caller) runs at a time, from
//! one access to the store or the service to the next. Two things do not come from the seed and have no influence: how long
//! an attempt took by the machine's clock, and the port of the service.
//!
//! `OVERSEER_SIMULATION_SEED`, with the same number of tasks, replays one seed and prints the history of the task that
//! violated a rule. `OVERSEER_SIMULATION_SEEDS` and `OVERSEER_SIMULATION_TASKS` set how many seeds of how many tasks run, and
//! `OVERSEER_SIMULATION_FIRST` the first seed.

mod many;
mod watch;
mod world;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::routing::any;
use jiff::{SignedDuration, Timestamp};
use overseer_engine::access::principal::{Principal, Role};
use overseer_engine::core::error::Error;
use overseer_engine::core::ids::{KeyId, OrgId, UserId};
use overseer_engine::engine::{Engine, Ports};
use overseer_engine::invoke::runs::RequestOptions;
use overseer_engine::outbound::address::AllowedAddress;
use overseer_engine::outbound::config::Config;
use overseer_engine::plugin::catalog::Catalog;
use overseer_engine::ports::{Clock as _, Work};
use overseer_local::embedded::Embedded;
use secrecy::SecretBox;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;
use watch::{Counts, is_final};
use world::{Act, Change, Happening, Step, World};

use crate::support::app::{START_S, TestIds};
use crate::support::hooked::Hooked;
use crate::support::memory::MemoryTable;

const SEEDS: u64 = 20;
const TASKS: u64 = 500;
const MINUTE_MS: i64 = 60_000;
/// Callers create tasks until this time, and for no later time.
const BUSY_MS: i64 = 3 * 60 * MINUTE_MS;
/// After this time there are no more faults.
const CALM_MS: i64 = 6 * 60 * MINUTE_MS;
/// Every task that ends has ended by now: ten attempts with the longest pauses.
const END_MS: i64 = 10 * 60 * MINUTE_MS;

/// Tasks whose calls the service always fails.
fn is_hopeless(number: u64) -> bool {
    number.is_multiple_of(40)
}

fn manifest(address: &str) -> String {
    let parameters = json!({ "type": "object", "required": ["number", "edition"], "additionalProperties": false,
        "properties": { "number": { "type": "integer" }, "edition": { "type": "integer" } } });
    let action = |name: &str, effect: &str, method: &str| {
        json!({ "name": name, "description": "Does something.", "effect": effect, "parameters": parameters,
                "request": { "method": method, "path": "/{{ number }}/{{ edition }}" } })
    };
    json!({
        "name": "own", "version": "1.0.0", "display_name": "Own", "description": "A service of a test.",
        "runtime": { "type": "http", "base_url": format!("http://{address}") },
        "permissions": ["network:127.0.0.1"], "auth": { "type": "none" },
        // An open breaker would block every attempt.
        "breaker": { "failures": 100, "window_s": 1 },
        "actions": [action("look", "read", "GET"), action("set", "idempotent", "PUT"), action("add", "unsafe", "POST")],
    })
    .to_string()
}

fn principal(user: &str) -> Principal {
    Principal {
        org: OrgId::parse("acme").unwrap(),
        user: Some(UserId::parse(user).unwrap()),
        roles: [Role::Administrator].into(),
        key: KeyId::parse("k1").unwrap(),
        agent: None,
    }
}

/// An engine over these ports whose service is at `address`.
fn engine(ports: Ports, address: std::net::SocketAddr) -> Arc<Engine> {
    let catalog = Catalog::default();
    catalog.add(&manifest(&address.to_string())).unwrap();
    let mut config = Config::read(&Catalog::default(), |_| None).unwrap();
    config.allowed_addresses.push(AllowedAddress::Socket(address));
    Engine::new(ports, catalog, config).unwrap()
}

struct Simulation {
    world: Arc<World>,
    engine: Arc<Engine>,
    steps: UnboundedReceiver<Step>,
    tasks: u64,
    /// When no sweep runs, in milliseconds since the start.
    outage: std::ops::Range<i64>,
    start_ms: i64,
}

impl Simulation {
    async fn new(seed: u64, tasks: u64, keeps_logs: bool) -> Self {
        let start = Timestamp::from_second(START_S).unwrap();
        let (world, steps) = World::new(seed, start);
        world.watch().keeps_logs = keeps_logs;
        let ids = Arc::new(TestIds::new(seed));
        let store = Arc::new(MemoryTable::new(world.clone(), Arc::new(TestIds::new(!seed))));
        let embedded = Embedded::new(store.clone(), &SecretBox::new(Box::new([7; 32])), world.clone(), ids).unwrap();
        let table = Arc::new(Hooked::new(store, world.clone()));
        let ports = Ports { table, timer: world.clone(), events: world.clone(), ..embedded.ports };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let engine = engine(ports, listener.local_addr().unwrap());
        let service = Router::new().route("/{number}/{edition}", any(world::serve)).with_state(world.clone());
        tokio::spawn(axum::serve(listener, service).into_future());
        let outage = world.lots.between(0, CALM_MS);
        let outage = outage..outage + world.lots.between(0, 40) * MINUTE_MS;
        Self { world, engine, steps, tasks, outage, start_ms: start.as_millisecond() }
    }

    /// Runs it to completion. The error names the rule that was violated.
    async fn run(mut self) -> Result<(Counts, u64), String> {
        let world = self.world.clone();
        for number in 0..self.tasks {
            world.plan_in(world.lots.between(0, BUSY_MS), Happening::Begin(Act::Make(number)));
        }
        world.plan_in(MINUTE_MS, Happening::Begin(Act::Sweep));
        world.plan_in(CALM_MS, Happening::Calm);
        let mut actors = 0;
        while let Some(happening) = world.next(self.start_ms + END_MS) {
            let actor = match happening {
                Happening::Calm => {
                    world.calm_down();
                    continue;
                }
                Happening::Begin(Act::Sweep) if self.no_sweep() => continue,
                Happening::Begin(act) => {
                    actors += 1;
                    world.let_go(actors);
                    self.begin(actors, act);
                    actors
                }
                Happening::GoOn(actor, go) => {
                    world.let_go(actor);
                    go.send(()).unwrap();
                    actor
                }
            };
            // Far longer than any step takes by the machine's clock: a longer one is stuck.
            let step = tokio::time::timeout(Duration::from_mins(1), self.steps.recv()).await;
            match step.map_err(|_| format!("actor {actor} is stuck"))?.unwrap() {
                Step::Stopped(go) => self.stopped(actor, go),
                Step::Crashed => {}
                Step::Ended => world.watch().ended(actor),
            }
            if let Some(wrong) = world.watch().wrong.take() {
                return Err(wrong);
            }
        }
        world.watch().close(world.now());
        if let Some(wrong) = world.watch().wrong.take() {
            return Err(wrong);
        }
        self.stored().await?;
        let watch = world.watch();
        Ok((watch.counts.clone(), watch.trace))
    }

    /// Checks that the stored tasks are those that were last written.
    async fn stored(&self) -> Result<(), String> {
        let seen: Vec<_> =
            self.world.watch().tasks.iter().map(|(number, seen)| (*number, seen.record.clone())).collect();
        for (number, record) in seen.into_iter().filter(|(_, record)| !record.is_null()) {
            let id = record["id"].as_str().unwrap();
            let found = self.engine.get_task(&principal(&format!("u-{number}")), id).await;
            let found = found.map_err(|error| format!("task {number} is lost: {error}"))?;
            if json!(found.status) != record["state"] {
                return Err(format!("task {number} is {:?}, and was {}", found.status, record["state"]));
            }
        }
        Ok(())
    }

    /// Plans the next sweep, and returns whether this one is left out.
    fn no_sweep(&self) -> bool {
        let world = &self.world;
        world.plan_in(MINUTE_MS, Happening::Begin(Act::Sweep));
        let since_start = world.now().as_millisecond() - self.start_ms;
        !world.is_calm() && (self.outage.contains(&since_start) || world.lots.hit(50))
    }

    /// Pauses an actor for a while, in which other actors run.
    fn stopped(&self, actor: u64, go: tokio::sync::oneshot::Sender<()>) {
        let world = &self.world;
        let lots = &world.lots;
        world.watch().counts.stops += 1;
        let for_ms = match lots.below(20) {
            0..12 => lots.between(0, 20),
            12..17 => lots.between(0, 30_000),
            17..19 => lots.between(30_000, 150_000),
            // Longer than any claim lasts.
            _ => lots.between(150_000, 600_000),
        };
        world.plan_in(for_ms, Happening::GoOn(actor, go));
        let task = world.watch().task_of(actor);
        let Some(task) = task else { return };
        if lots.hit(200) {
            let change = lots.one_of(&[Change::Cancel, Change::Edit, Change::Retry]);
            world.plan_in(lots.between(0, for_ms + 1), Happening::Begin(Act::Change(task, change)));
        }
        if lots.hit(100) {
            let work = self.alarm(task);
            for _ in 0..lots.between(1, 4) {
                if let Some(work) = work.clone() {
                    world.plan_in(lots.between(0, for_ms + 1), Happening::Begin(Act::Fire(work)));
                }
            }
        }
    }

    fn alarm(&self, task: u64) -> Option<Work> {
        let id = self.world.watch().tasks.get(&task)?.record["id"].as_str()?.to_owned();
        let org = OrgId::parse("acme").unwrap();
        Some(Work { org, kind: "task".into(), id: format!("{id} u-{task}"), revision: 1 })
    }

    fn begin(&self, actor: u64, act: Act) {
        let world = self.world.clone();
        world.watch().began(actor, act.clone());
        let doing = self.doing(act);
        tokio::spawn(async move {
            doing.await;
            world.tell(Step::Ended);
        });
    }

    /// The action of an actor. Refusals and failures are expected results.
    fn doing(&self, act: Act) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>> {
        let (engine, world) = (self.engine.clone(), self.world.clone());
        match act {
            Act::Sweep => Box::pin(async move {
                let _ = engine.sweep().await;
            }),
            Act::Fire(work) => {
                // Some alarms fire in a process that has too little time left.
                let hurried = !world.is_calm() && world.lots.hit(20);
                let deadline = hurried.then(|| Instant::now() + Duration::from_mins(1));
                Box::pin(async move {
                    let task = world.watch().task_of(world.actor());
                    let _ = engine.dispatch(work, deadline).await;
                    if let Some(task) = task {
                        reconsider(&world, task);
                    }
                })
            }
            Act::Make(number) => {
                let intent = serde_json::from_value(intent(&world, number)).unwrap();
                let lots = &world.lots;
                for _ in 0..lots.one_of(&[0, 0, 1, 2]) {
                    let changes = [Change::Cancel, Change::Edit, Change::Edit, Change::Pause, Change::Retry];
                    let change = Act::Change(number, lots.one_of(&changes));
                    world.plan_in(lots.between(0, BUSY_MS), Happening::Begin(change));
                }
                Box::pin(async move {
                    let made =
                        engine.schedule(&principal(&format!("u-{number}")), intent, &RequestOptions::default()).await;
                    // After a store error the task may exist all the same.
                    if !matches!(made, Ok(_) | Err(Error::Table(_))) {
                        world.watch().violated(number, &format!("not made: {made:?}"));
                    }
                })
            }
            Act::Change(task, change) => {
                let id = self.alarm(task).and_then(|work| Some(work.id.split_once(' ')?.0.to_owned()));
                let Some(id) = id else { return Box::pin(async {}) };
                // Every tenth caller is another user, who finds the task by the organization's list.
                let user = if world.lots.hit(100) { "admin".to_owned() } else { format!("u-{task}") };
                let edit = serde_json::from_value(edit(&world, task)).unwrap();
                if change == Change::Pause && world.lots.hit(700) {
                    let resume = Happening::Begin(Act::Change(task, Change::Resume));
                    world.plan_in(world.lots.between(0, 60 * MINUTE_MS), resume);
                }
                Box::pin(async move {
                    let caller = principal(&user);
                    let changed = match change {
                        Change::Cancel => engine.cancel_task(&caller, &id).await,
                        Change::Edit => engine.edit_task(&caller, &id, edit).await,
                        Change::Pause => engine.pause_task(&caller, &id).await,
                        Change::Resume => engine.resume_task(&caller, &id).await,
                        Change::Retry => engine.retry_task(&caller, &id).await,
                    };
                    match changed {
                        Ok(_) | Err(Error::Conflict(_) | Error::Table(_) | Error::Invalid(_)) => {}
                        Err(error) => world.watch().violated(task, &format!("{change:?}: {error}")),
                    }
                })
            }
        }
    }
}

/// After a bad end a caller may retry the task.
fn reconsider(world: &World, task: u64) {
    let watch = world.watch();
    let seen = &watch.tasks[&task];
    let ended = is_final(seen.state()) && seen.state() != "succeeded";
    drop(watch);
    if ended && !world.is_calm() && world.lots.hit(150) {
        let retry = Happening::Begin(Act::Change(task, Change::Retry));
        world.plan_in(world.lots.between(0, 600_000), retry);
    }
}

/// A random intent: for now, for later, or recurring.
fn intent(world: &World, number: u64) -> Value {
    let lots = &world.lots;
    let mut intent = json!({
        "tool": "own", "intent": lots.one_of(&["look", "set", "add", "add"]),
        "context": { "number": number, "edition": 1 },
    });
    if lots.hit(400) {
        intent["maxAttempts"] = lots.one_of(&[1, 1, 2, 5, 10]).into();
    }
    let kind = if is_hopeless(number) { 99 } else { lots.below(100) };
    match kind {
        0..15 => {}
        15..65 => intent["scheduledTime"] = time(world, lots.between(-30_000, BUSY_MS)),
        _ => intent["schedule"] = schedule(world, is_hopeless(number)),
    }
    intent
}

fn time(world: &World, in_ms: i64) -> Value {
    json!(world.now() + SignedDuration::from_millis(in_ms))
}

fn schedule(world: &World, hopeless: bool) -> Value {
    let lots = &world.lots;
    let mut schedule = json!({ "catchUp": lots.one_of(&["skip", "one", "all"]) });
    if hopeless {
        // Reaches ten failures in a row soon.
        schedule["rate"] = json!("3 minutes");
        schedule["maxRuns"] = lots.one_of(&[10, 11, 12]).into();
        return schedule;
    }
    match lots.below(10) {
        0..6 => schedule["maxRuns"] = lots.between(1, 7).into(),
        6..9 => schedule["end"] = time(world, lots.between(61, 180) * MINUTE_MS),
        _ => {
            schedule["rate"] = json!("90 minutes");
            return schedule;
        }
    }
    if lots.hit(500) {
        schedule["rate"] = json!(format!("{} minutes", lots.between(10, 60)));
    } else {
        schedule["cron"] = json!(format!("*/{} * ? * * *", lots.one_of(&[15, 20, 30])));
    }
    schedule
}

/// A random change of a task.
fn edit(world: &World, task: u64) -> Value {
    let watch = world.watch();
    let seen = &watch.tasks[&task];
    let (recurs, edition) = (seen.recurs(), seen.edition());
    drop(watch);
    let lots = &world.lots;
    let mut edit = json!({});
    if lots.hit(700) {
        edit["context"] = json!({ "number": task, "edition": edition + 1 });
    }
    if lots.hit(500) && recurs {
        edit["schedule"] = schedule(world, is_hopeless(task));
    } else if lots.hit(500) && !recurs {
        edit["scheduledTime"] = time(world, lots.between(-30_000, 60 * MINUTE_MS));
    }
    if lots.hit(200) {
        edit["maxAttempts"] = lots.one_of(&[1, 2, 4]).into();
    }
    edit
}

/// One seed, in a world and a runtime of its own.
fn play(seed: u64, tasks: u64, keeps_logs: bool) -> Result<(Counts, u64), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { Simulation::new(seed, tasks, keeps_logs).await.run().await })
}

/// A number from the environment.
fn set(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number: {text}")))
}

#[test]
#[expect(clippy::print_stdout, reason = "prints the counts")]
fn every_task_ends_once_whatever_fails() {
    let tasks = set("OVERSEER_SIMULATION_TASKS").unwrap_or(TASKS);
    let only = set("OVERSEER_SIMULATION_SEED");
    let seeds = set("OVERSEER_SIMULATION_SEEDS").unwrap_or(SEEDS);
    let first = set("OVERSEER_SIMULATION_FIRST").unwrap_or(1);
    let (first, end) = only.map_or((first, seeds + 1), |seed| (seed, seed + 1));
    let (began, next) = (Instant::now(), AtomicU64::new(first));
    let worker = || {
        let mut sum = Counts::default();
        loop {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= end {
                return sum;
            }
            match play(seed, tasks, only.is_some()) {
                Ok((counts, _)) => {
                    // A run of hours shows its progress.
                    if seeds > SEEDS {
                        println!("seed {seed}: {counts}");
                    }
                    sum += counts;
                }
                Err(wrong) => {
                    panic!("replay with OVERSEER_SIMULATION_SEED={seed} OVERSEER_SIMULATION_TASKS={tasks}: {wrong}")
                }
            }
        }
    };
    let mut sum = Counts::default();
    std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        for worker in workers {
            sum += worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    println!("{} seeds of {tasks} tasks in {} s: {sum}", end - first, began.elapsed().as_secs());
}

#[test]
fn seed_replays_the_same_events() {
    let once = play(3, 60, false).unwrap();
    assert_eq!(once.1, play(3, 60, false).unwrap().1);
    assert_ne!(once.1, play(7, 60, false).unwrap().1);
}
