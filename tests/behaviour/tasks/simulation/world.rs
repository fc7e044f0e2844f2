//! The world of a simulation: its agenda, and the ports that inject faults.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use jiff::Timestamp;
use overseer_engine::ports::events::EventBusError;
use overseer_engine::ports::table::{Key, TableError};
use overseer_engine::ports::timer::TimerError;
use overseer_engine::ports::{Clock, Event, EventBus, Ids, Timer, Work};
use tokio::sync::{mpsc, oneshot};

use super::watch::Watch;
use crate::support::app::TestIds;
use crate::support::hooked::{Hooks, Operation};

/// Random numbers, the same for the same seed.
pub struct Lots(TestIds);

impl Lots {
    pub fn new(seed: u64) -> Self {
        Self(TestIds::new(seed))
    }

    /// A number below `end`.
    pub fn below(&self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % end
    }

    /// Whether an event of this probability happens.
    pub fn hit(&self, thousandths: u64) -> bool {
        self.below(1000) < thousandths
    }

    /// From `first` up to, and without, `end`.
    pub fn between(&self, first: i64, end: i64) -> i64 {
        first + i64::try_from(self.below(u64::try_from(end - first).unwrap())).unwrap()
    }

    pub fn one_of<T: Copy>(&self, all: &[T]) -> T {
        all[usize::try_from(self.below(u64::try_from(all.len()).unwrap())).unwrap()]
    }
}

/// A change of a task by a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Cancel,
    Edit,
    Pause,
    Resume,
    Retry,
}

/// What an actor does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Make(u64),
    Fire(Work),
    Sweep,
    Change(u64, Change),
}

/// An entry of the agenda.
pub enum Happening {
    Begin(Act),
    /// A paused actor continues.
    GoOn(u64, oneshot::Sender<()>),
    /// Faults end, and every alarm is lost except those of the sweep.
    Calm,
}

/// The end of an actor's step.
pub enum Step {
    Stopped(oneshot::Sender<()>),
    Crashed,
    Ended,
}

/// The planned entries by time in milliseconds and order of planning, and how many were planned.
type Agenda = (BTreeMap<(i64, u64), Happening>, u64);

pub struct World {
    pub lots: Lots,
    pub watch: Mutex<Watch>,
    now_ms: AtomicI64,
    /// The actor that runs. All others are paused.
    actor: AtomicU64,
    calm: AtomicBool,
    /// The factor of this world's fault probabilities.
    trouble: u64,
    steps: mpsc::UnboundedSender<Step>,
    agenda: Mutex<Agenda>,
}

impl World {
    pub fn new(seed: u64, start: Timestamp) -> (Arc<Self>, mpsc::UnboundedReceiver<Step>) {
        let (steps, stepped) = mpsc::unbounded_channel();
        let world = Self {
            lots: Lots::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)),
            watch: Mutex::default(),
            now_ms: AtomicI64::new(start.as_millisecond()),
            actor: AtomicU64::new(0),
            calm: AtomicBool::new(false),
            trouble: seed % 4,
            steps,
            agenda: Mutex::default(),
        };
        (Arc::new(world), stepped)
    }

    pub fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock().unwrap()
    }

    pub fn actor(&self) -> u64 {
        self.actor.load(Ordering::SeqCst)
    }

    pub fn is_calm(&self) -> bool {
        self.calm.load(Ordering::SeqCst)
    }

    /// Lets `actor` run; all others are paused.
    pub fn let_go(&self, actor: u64) {
        self.actor.store(actor, Ordering::SeqCst);
    }

    pub fn tell(&self, step: Step) {
        // The simulation may be over.
        let _ = self.steps.send(step);
    }

    /// Puts something on the agenda.
    pub fn plan(&self, at_ms: i64, happening: Happening) {
        let mut agenda = self.agenda.lock().unwrap();
        agenda.1 += 1;
        let number = agenda.1;
        agenda.0.insert((at_ms.max(self.now_ms.load(Ordering::SeqCst)), number), happening);
    }

    pub fn plan_in(&self, ms: i64, happening: Happening) {
        self.plan(self.now_ms.load(Ordering::SeqCst) + ms, happening);
    }

    /// The next entry; moves the clock to its time.
    pub fn next(&self, end_ms: i64) -> Option<Happening> {
        let ((at_ms, _), happening) = self.agenda.lock().unwrap().0.pop_first()?;
        self.now_ms.store(at_ms, Ordering::SeqCst);
        (at_ms <= end_ms).then_some(happening)
    }

    /// Ends the faults and drops all alarms: only the sweep remains.
    pub fn calm_down(&self) {
        self.calm.store(true, Ordering::SeqCst);
        let keep = |happening: &Happening| !matches!(happening, Happening::Begin(Act::Fire(_)));
        self.agenda.lock().unwrap().0.retain(|_, happening| keep(happening));
    }

    /// Whether a fault of this probability happens.
    fn strikes(&self, thousandths: u64) -> bool {
        !self.is_calm() && self.lots.hit(thousandths * self.trouble)
    }

    /// May pause the actor for a while.
    async fn pause(&self, thousandths: u64) {
        if !self.is_calm() && self.lots.hit(thousandths) {
            let (go, gone) = oneshot::channel();
            self.tell(Step::Stopped(go));
            // An error means that the simulation is over.
            let _ = gone.await;
        }
    }

    /// May pause or crash the actor.
    async fn step(&self, place: &str) {
        self.pause(40).await;
        let actor = self.actor();
        let doomed = self.watch().is_doomed(actor);
        if doomed || self.strikes(4) {
            self.watch().crashed(actor, place);
            self.tell(Step::Crashed);
            std::future::pending::<()>().await;
        }
    }

    fn broken(&self, place: &str) -> Result<(), TableError> {
        if self.strikes(3) {
            self.watch().store_failed(self.actor(), place);
            return Err(TableError::store("a simulated fault"));
        }
        Ok(())
    }
}

impl Clock for World {
    fn now(&self) -> Timestamp {
        Timestamp::from_millisecond(self.now_ms.load(Ordering::SeqCst)).unwrap()
    }
}

#[async_trait]
impl Timer for World {
    async fn set(&self, work: Work, at: Timestamp) -> Result<(), TimerError> {
        if self.strikes(10) {
            return Err(TimerError("a simulated fault".into()));
        }
        let (now_ms, at_ms) = (self.now().as_millisecond(), at.as_millisecond());
        let alarm = || Happening::Begin(Act::Fire(work.clone()));
        if self.is_calm() {
            if at_ms <= now_ms {
                self.plan(at_ms, alarm());
            }
            return Ok(());
        }
        if self.strikes(60) {
            self.watch().counts.lost += 1;
            return Ok(());
        }
        let off_by_ms = match self.lots.below(20) {
            0 => -self.lots.between(1, 90_000),
            1 | 2 => self.lots.between(1, 300_000),
            _ => 0,
        };
        self.plan(at_ms + off_by_ms, alarm());
        if self.strikes(30) {
            self.watch().counts.duplicates += 1;
            self.plan(at_ms + self.lots.one_of(&[0, 0, 1, 5_000, 200_000]), alarm());
        }
        Ok(())
    }

    async fn cancel(&self, _work: &Work) -> Result<(), TimerError> {
        Ok(())
    }
}

#[async_trait]
impl EventBus for World {
    async fn publish(&self, events: Vec<Event>) -> Result<(), EventBusError> {
        for event in events {
            self.watch().published(self.actor(), event.kind);
        }
        Ok(())
    }
}

/// Whether a key belongs to failures, breakers, webhooks or fallbacks, which are accessed concurrently. Only tasks are
/// observed here.
fn is_by_the_way(key: &Key) -> bool {
    key.sort.starts_with("failure#")
        || key.sort.starts_with("instance#")
        || key.sort == "webhooks"
        || key.partition.ends_with("#fallbacks")
}

/// The place of an access to the store, for faults and messages.
fn place(asked: &Operation<'_>) -> Option<&'static str> {
    match asked {
        Operation::Get(_) | Operation::BatchGet(_) | Operation::Put(_)
            if asked.keys().into_iter().all(is_by_the_way) =>
        {
            None
        }
        Operation::Get(_) | Operation::BatchGet(_) | Operation::List => Some("read"),
        Operation::Put(_) => Some("before the write"),
        Operation::Delete(_) | Operation::Transact(_) | Operation::Add(_) => None,
    }
}

/// An access to the store may pause, crash or fail.
#[async_trait]
impl Hooks for World {
    async fn before(&self, asked: &Operation<'_>) -> Result<(), TableError> {
        let Some(place) = place(asked) else { return Ok(()) };
        self.step(place).await;
        self.broken(place)
    }

    async fn after(&self, asked: &Operation<'_>) -> Result<(), TableError> {
        let (Operation::Put(item), Some(_)) = (asked, place(asked)) else { return Ok(()) };
        if asked.puts("task#") {
            self.watch().wrote(self.actor(), &item.body, self.now());
        }
        self.step("after the write").await;
        self.broken("after the write")
    }
}

/// The service: may do the action or not, and may answer or not.
pub async fn serve(State(world): State<Arc<World>>, Path((number, edition)): Path<(u64, u64)>) -> Response<Body> {
    let actor = world.actor();
    world.watch().called(actor, number, edition);
    world.pause(40).await;
    if world.strikes(4) {
        world.watch().doom(actor);
    }
    let lot = if super::is_hopeless(number) { 70 } else { world.lots.below(100) };
    if !(70..86).contains(&lot) {
        world.watch().effect(actor, number);
    }
    world.pause(40).await;
    let answer = |status: u16| Response::builder().status(status).header("content-type", "application/json");
    match lot {
        70..78 => {
            let wait = world.lots.one_of(&["0", "1", "30", "120"]);
            answer(429).header("retry-after", wait).body("{}".into()).unwrap()
        }
        78..80 => answer(400).body("{}".into()).unwrap(),
        80..83 | 86..89 => answer(500).body("{}".into()).unwrap(),
        // Ends the connection, without the noise of a panic.
        83..86 | 89..92 => std::panic::resume_unwind(Box::new(())),
        92..94 => answer(200).body("not JSON".into()).unwrap(),
        _ => answer(200).body("{}".into()).unwrap(),
    }
}
