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

/// The longest sleep between looks at the clock: it bounds how late a suspended laptop or a changed clock is noticed.
const CLOCK_CHECK: Duration = Duration::from_secs(30);
/// How many fired alarms may wait for the worker.
const CHANNEL: usize = 64;

/// Alarms in memory, fired in the order of their times.
///
/// They are lost when the process ends: the engine sets them again from the table when it starts.
#[derive(Debug)]
pub struct LocalTimer {
    alarms: Arc<Alarms>,
    task: JoinHandle<()>,
}

impl LocalTimer {
    /// A timer without alarms, and the channel that receives the work of fired alarms. Must be called within a tokio
    /// runtime. Dropping the timer drops its alarms and closes the channel.
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
            return Err(TimerError("the receiver of alarms is closed".into()));
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
    /// The sequence number distinguishes alarms of the same time, in the order in which they were set.
    by_time: BTreeMap<(Timestamp, u64), Work>,
    by_work: HashMap<Work, (Timestamp, u64)>,
    sequence: u64,
}

impl AlarmSet {
    fn set(&mut self, work: Work, at: Timestamp) {
        self.cancel(&work);
        self.sequence += 1;
        self.by_work.insert(work.clone(), (at, self.sequence));
        self.by_time.insert((at, self.sequence), work);
    }

    fn cancel(&mut self, work: &Work) {
        if let Some(key) = self.by_work.remove(work) {
            self.by_time.remove(&key);
        }
    }

    /// Removes and returns the first alarm if it is due; otherwise the time until the next look at the clock.
    fn take_due(&mut self, now: Timestamp) -> Result<Work, Duration> {
        let Some(first) = self.by_time.first_entry() else { return Err(CLOCK_CHECK) };
        let (at, _) = first.key();
        if *at > now {
            let wait = Duration::try_from(at.duration_since(now)).unwrap_or(CLOCK_CHECK);
            return Err(wait.min(CLOCK_CHECK));
        }
        let work = first.remove();
        self.by_work.remove(&work);
        Ok(work)
    }
}

async fn run(alarms: Arc<Alarms>, clock: Arc<dyn Clock>, fire: mpsc::Sender<Work>) {
    loop {
        let due = alarms.lock().take_due(clock.now());
        match due {
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

    /// Follows tokio's clock, which the tests pause, and can be set forward.
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
    async fn alarm_set_again_moves() {
        let clock = TestClock::new();
        let (timer, mut fired) = LocalTimer::new(clock.clone());
        timer.set(work("later"), second(10)).await.unwrap();
        timer.set(work("sooner"), second(40)).await.unwrap();
        timer.set(work("later"), second(60)).await.unwrap();
        timer.set(work("sooner"), second(20)).await.unwrap();
        assert_eq!(fired.recv().await, Some(work("sooner")));
        assert_eq!(clock.now(), second(20));
        assert_eq!(fired.recv().await, Some(work("later")));
        assert_eq!(clock.now(), second(60));
        drop(timer);
        assert_eq!(fired.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_alarm_does_not_fire() {
        let (timer, mut fired) = LocalTimer::new(TestClock::new());
        timer.set(work("cancelled"), second(5)).await.unwrap();
        timer.set(work("other"), second(20)).await.unwrap();
        timer.cancel(&work("cancelled")).await.unwrap();
        timer.cancel(&work("unknown")).await.unwrap();
        assert_eq!(fired.recv().await, Some(work("other")));
        drop(timer);
        assert_eq!(fired.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn sooner_alarm_wakes_a_sleeping_timer() {
        let clock = TestClock::new();
        let (timer, mut fired) = LocalTimer::new(clock.clone());
        timer.set(work("later"), second(29)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        timer.set(work("sooner"), second(2)).await.unwrap();
        assert_eq!(fired.recv().await, Some(work("sooner")));
        assert_eq!(clock.now(), second(2));
    }

    #[tokio::test(start_paused = true)]
    async fn clock_set_forward_is_noticed_within_half_a_minute() {
        let clock = TestClock::new();
        let (timer, mut fired) = LocalTimer::new(clock.clone());
        timer.set(work("tomorrow"), second(86_400)).await.unwrap();
        tokio::time::sleep(Duration::from_secs(1)).await;
        clock.set_forward(Duration::from_hours(24));
        let before = Instant::now();
        assert_eq!(fired.recv().await, Some(work("tomorrow")));
        assert!(before.elapsed() <= CLOCK_CHECK);
    }

    #[tokio::test]
    async fn timer_without_receiver_refuses_alarms() {
        let (timer, fired) = LocalTimer::new(TestClock::new());
        drop(fired);
        while !timer.task.is_finished() {
            tokio::task::yield_now().await;
        }
        timer.set(work("any"), second(0)).await.unwrap_err();
    }
}
