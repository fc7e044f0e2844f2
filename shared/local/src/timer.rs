//! Alarms within one process.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use overseer_engine::ports::Clock;
use overseer_engine::ports::timer::{Timer, TimerError, Work};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

/// The longest sleep without a look at the clock: a laptop that slept, or a clock that was set, is noticed by then.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// How many alarms may wait for the engine to take them.
const CHANNEL: usize = 64;

/// Alarms in memory, fired in the order of their times.
///
/// They are gone when the process ends: the engine sets them again from the table when it starts.
#[derive(Debug)]
pub struct LocalTimer {
    alarms: Arc<Alarms>,
    task: JoinHandle<()>,
}

impl LocalTimer {
    /// A timer without alarms, and the end at which they arrive. Must be called within a tokio runtime. Dropping the
    /// timer forgets its alarms and closes the channel.
    pub fn new(clock: Arc<dyn Clock>) -> (Self, mpsc::Receiver<Work>) {
        let (fire, fired) = mpsc::channel(CHANNEL);
        let alarms = Arc::new(Alarms::default());
        let task = tokio::spawn(run(Arc::clone(&alarms), clock, fire));
        (Self { alarms, task }, fired)
    }
}

impl Drop for LocalTimer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[async_trait]
impl Timer for LocalTimer {
    async fn set(&self, work: Work, at: Timestamp) -> Result<(), TimerError> {
        if self.task.is_finished() {
            return Err(TimerError("nobody takes the alarms any more".into()));
        }
        self.alarms.lock().set(work, at);
        self.alarms.changed.notify_one();
        Ok(())
    }

    async fn cancel(&self, work: &Work) -> Result<(), TimerError> {
        self.alarms.lock().cancel(work);
        Ok(())
    }
}

#[derive(Debug, Default)]
struct Alarms {
    set: Mutex<AlarmSet>,
    changed: Notify,
}

impl Alarms {
    fn lock(&self) -> MutexGuard<'_, AlarmSet> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct AlarmSet {
    /// The number keeps alarms of one moment apart, in the order in which they were set.
    by_time: BTreeMap<(Timestamp, u64), Work>,
    by_work: HashMap<Work, (Timestamp, u64)>,
    last: u64,
}

impl AlarmSet {
    fn set(&mut self, work: Work, at: Timestamp) {
        self.cancel(&work);
        self.last += 1;
        self.by_work.insert(work.clone(), (at, self.last));
        self.by_time.insert((at, self.last), work);
    }

    fn cancel(&mut self, work: &Work) {
        if let Some(place) = self.by_work.remove(work) {
            self.by_time.remove(&place);
        }
    }

    /// Takes the first alarm if its time has come; otherwise says how long there is nothing to do.
    fn take_due(&mut self, now: Timestamp) -> Result<Work, Duration> {
        let Some(first) = self.by_time.first_entry() else { return Err(LOOK_EVERY) };
        let (at, _) = first.key();
        if *at > now {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or(LOOK_EVERY);
            return Err(wait.min(LOOK_EVERY));
        }
        let work = first.remove();
        self.by_work.remove(&work);
        Ok(work)
    }
}

async fn run(alarms: Arc<Alarms>, clock: Arc<dyn Clock>, fire: mpsc::Sender<Work>) {
    loop {
        let taken = alarms.lock().take_due(clock.now());
        match taken {
            Ok(work) => {
                if fire.send(work).await.is_err() {
                    return;
                }
            }
            Err(wait) => {
                tokio::select! {
                    () = alarms.changed.notified() => {}
                    () = tokio::time::sleep(wait) => {}
                    () = fire.closed() => return,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use overseer_engine::core::ids::OrgId;
    use tokio::time::Instant;

    use super::*;

    /// Follows tokio's clock, which the tests pause, and can be set forward as people set clocks.
    struct TestClock {
        start: Instant,
        set_forward: Mutex<Duration>,
    }

    impl TestClock {
        fn new() -> Arc<Self> {
            Arc::new(Self { start: Instant::now(), set_forward: Mutex::default() })
        }

        fn set_forward(&self, by: Duration) {
            *self.set_forward.lock().unwrap() += by;
        }
    }

    impl Clock for TestClock {
        fn now(&self) -> Timestamp {
            let elapsed = self.start.elapsed() + *self.set_forward.lock().unwrap();
            Timestamp::UNIX_EPOCH + elapsed
        }
    }

    fn work(id: &str) -> Work {
        Work { org: OrgId::parse("acme").unwrap(), kind: "task".into(), id: id.to_owned(), revision: 1 }
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn alarms_fire_at_their_times_in_order() {
        let clock = TestClock::new();
        let (timer, mut fired) = LocalTimer::new(clock.clone());
        for (id, at) in [("last", 100_000), ("second", 50), ("first", 50), ("past", -5)] {
            timer.set(work(id), second(at)).await.unwrap();
        }
        for (id, at) in [("past", 0), ("second", 50), ("first", 50), ("last", 100_000)] {
            assert_eq!(fired.recv().await, Some(work(id)));
            assert_eq!(clock.now().as_second(), at);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_alarm_moves_and_is_forgotten() {
        let clock = TestClock::new();
        let (timer, mut fired) = LocalTimer::new(clock.clone());
        timer.set(work("later"), second(10)).await.unwrap();
        timer.set(work("sooner"), second(40)).await.unwrap();
        timer.set(work("cancelled"), second(5)).await.unwrap();
        timer.set(work("later"), second(60)).await.unwrap();
        timer.set(work("sooner"), second(20)).await.unwrap();
        timer.cancel(&work("cancelled")).await.unwrap();
        timer.cancel(&work("unknown")).await.unwrap();
        assert_eq!(fired.recv().await, Some(work("sooner")));
        assert_eq!(clock.now(), second(20));
        assert_eq!(fired.recv().await, Some(work("later")));
        assert_eq!(clock.now(), second(60));
        drop(timer);
        assert_eq!(fired.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sooner_alarm_wakes_a_sleeping_timer() {
        let clock = TestClock::new();
        let (timer, mut fired) = LocalTimer::new(clock.clone());
        timer.set(work("later"), second(29)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        timer.set(work("sooner"), second(2)).await.unwrap();
        assert_eq!(fired.recv().await, Some(work("sooner")));
        assert_eq!(clock.now(), second(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_is_noticed_within_half_a_minute() {
        let clock = TestClock::new();
        let (timer, mut fired) = LocalTimer::new(clock.clone());
        timer.set(work("tomorrow"), second(86_400)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        clock.set_forward(Duration::from_hours(24));
        let before = Instant::now();
        assert_eq!(fired.recv().await, Some(work("tomorrow")));
        assert!(before.elapsed() <= LOOK_EVERY);
    }

    #[tokio::test]
    async fn a_timer_that_nobody_listens_to_takes_no_alarms() {
        let (timer, fired) = LocalTimer::new(TestClock::new());
        drop(fired);
        while !timer.task.is_finished() {
            tokio::task::yield_now().await;
        }
        timer.set(work("any"), second(0)).await.unwrap_err();
    }
}
