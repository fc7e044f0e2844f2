//! Two organizations on one server run their days at once. Every record, answer, event, call and log line belongs to
//! exactly one of them. Both use the same names: code that ignores the organization finds the other's record and fails
//! the test.

pub mod day;
pub mod world;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use day::{Made, afternoon, look_around, morning};
use futures_util::future::join;
use overseer_engine::ports::table::{Item, Read};
use serde_json::Value;
use tokio::sync::Mutex;
use world::{Side, World};

use crate::accounts::connect::canary::Log;
use crate::support::app::App;

pub const ACME: &str = "acme-7f3a";
pub const GLOBEX: &str = "globex-91bc";

/// What tells that something is of the one or of the other.
struct Marks<'a>([(&'static str, Vec<&'a str>); 2]);

impl<'a> Marks<'a> {
    fn of(acme: &'a Made, globex: &'a Made) -> Self {
        Self([(ACME, acme), (GLOBEX, globex)].map(|(marker, made)| (marker, [&[marker], &made.ids()[..]].concat())))
    }

    /// The organization that a text belongs to, if the text has a mark. Panics on marks of both.
    #[track_caller]
    fn whose(&self, text: &str, what: &str) -> Option<&'static str> {
        let has = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
        let found: Vec<_> = self.0.iter().filter(|(_, marks)| has(marks)).map(|(marker, _)| *marker).collect();
        assert!(found.len() < 2, "{what} is of both: {text}");
        found.first().copied()
    }
}

/// All that is in an item, with what is in Base64 there.
fn written(item: &Item) -> String {
    fn decoded(value: &Value, found: &mut String) {
        match value {
            Value::String(text) => {
                if let Ok(bytes) = STANDARD.decode(text) {
                    found.push_str(&String::from_utf8_lossy(&bytes));
                }
            }
            Value::Array(values) => values.iter().for_each(|value| decoded(value, found)),
            Value::Object(values) => values.values().for_each(|value| decoded(value, found)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    let mut all = format!("{item:?}");
    decoded(&serde_json::from_str(&item.stored.body).unwrap_or_default(), &mut all);
    all
}

/// Looks through everything that is stored. Gives what each organization has there, without its marker.
async fn stored(app: &App, marks: &Marks<'_>) -> [BTreeSet<String>; 2] {
    let mut kinds = [BTreeSet::new(), BTreeSet::new()];
    for key in app.table.items().await {
        // It may have gone by now.
        let Some(item) = app.table.inner.get(&key, Read::Consistent).await.unwrap() else { continue };
        let found = marks.whose(&written(&item), "an item");
        // What is found before the organization is known is not in a partition of it.
        let begins = key.partition.split('#').next().unwrap();
        assert!(["org", "key", "ticket"].contains(&begins), "{key:?} is nobody's");
        for (kinds, marker) in kinds.iter_mut().zip([ACME, GLOBEX]) {
            let Some(rest) = key.partition.strip_prefix(&format!("org#{marker}")) else { continue };
            assert!(rest.is_empty() || rest.starts_with('#'), "{key:?}");
            assert_eq!(found, Some(marker), "{key:?}");
            let of = rest.split('#').nth(1).unwrap_or_default();
            let first = if matches!(of, "" | "user") { key.sort.split('#').next().unwrap() } else { "" };
            // What is on its way is there for a moment.
            if of != "outbox" {
                kinds.insert(format!("{of} {first}"));
            }
        }
    }
    kinds
}

/// Looks through all that there is of a day so far.
async fn apart(sides: [&Side<'_>; 2], made: [&Made; 2], log: &str) {
    let (app, world, marks) = (sides[0].app, sides[0].world, Marks::of(made[0], made[1]));
    let secrets = made.map(|made| made.secrets.clone()).concat();
    assert_eq!(secrets.len(), 28);
    for side in sides {
        for (request, answer) in side.answers.lock().unwrap().iter() {
            let found = marks.whose(answer, request);
            assert!(found.is_none_or(|found| found == side.marker), "{} asked {request}: {answer}", side.marker);
        }
    }
    let [acme, globex] = stored(app, &marks).await;
    assert_eq!(acme, globex);
    assert!(acme.len() > 10, "{acme:?}");

    let mut counted = [[0; 3]; 2];
    let mut count = |found: Option<&str>, what: usize| {
        if let Some(place) = [ACME, GLOBEX].iter().position(|marker| found == Some(marker)) {
            counted[place][what] += 1;
        }
    };
    for event in app.events.lock().unwrap().iter().filter(|event| event.org.as_str() != "acme") {
        let found = marks.whose(&event.detail.to_string(), event.kind);
        assert!(found.is_none_or(|found| found == event.org.as_str()), "{event:?}");
        count(Some(event.org.as_str()), 0);
    }
    for got in world.got() {
        let found = marks.whose(&format!("{} {:?} {}", got.path, got.headers, got.body), "a call");
        assert!(found.is_some(), "{got:?}");
        count(found, if got.path.starts_with("/hook/") { 1 } else { 2 });
    }
    assert_eq!(counted[0], counted[1], "events, deliveries and calls are as many for both");
    assert!(counted[0].iter().all(|count| *count > 5), "{counted:?}");

    let mut lines = [0; 2];
    for line in log.lines() {
        let found = marks.whose(line, "a line of the log");
        if let Some(place) = [ACME, GLOBEX].iter().position(|marker| found == Some(marker)) {
            lines[place] += 1;
        }
        assert!(!secrets.iter().any(|secret| line.contains(secret)), "a secret is logged: {line}");
    }
    assert!(log.contains("TRACE") && lines.iter().all(|count| *count > 5), "{lines:?}");
}

/// Both days at once, in turns or as it comes.
async fn both(in_turns: bool) {
    let log = Log::default();
    let heard = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_ansi(false);
    let _here = tracing::subscriber::set_default(heard.with_writer(log.clone()).finish());
    let world = World::start().await;
    let app = world.app().await;
    // It is fair: who asked waits until the other has asked, too.
    let turn = Mutex::new(());
    let turn = in_turns.then_some(&turn);
    let (acme, globex) = (Side::new(&app, &world, ACME, turn).await, Side::new(&app, &world, GLOBEX, turn).await);
    let sides = [&acme, &globex];

    let (of_acme, of_globex) = join(morning(&acme), morning(&globex)).await;
    join(look_around(&acme, &of_acme), look_around(&globex, &of_globex)).await;
    let made = [&of_acme, &of_globex];
    apart(sides, made, &log.take()).await;
    acme.meets_nothing_of(&globex, &of_globex).await;
    globex.meets_nothing_of(&acme, &of_acme).await;

    app.clock.advance(3_600);
    app.engine.sweep().await.unwrap();
    join(afternoon(&acme, &of_acme), afternoon(&globex, &of_globex)).await;
    apart(sides, made, &log.take()).await;
}

impl Side<'_> {
    /// Asks for what the other organization made, with its ids and the places where its lists go on.
    async fn meets_nothing_of(&self, other: &Self, made: &Made) {
        for path in [
            format!("/api/plugin-engine/tasks/{}", made.task),
            format!("/api/plugin-engine/runs/{}", made.run),
            format!("/api/plugin-engine/errors/{}", made.failure),
            format!("/api/v1/webhooks/{}", made.webhook),
            format!("/api/v1/webhooks/{}/deliveries", made.webhook),
        ] {
            let answer = self.ask(&format!("GET {path}"), &Value::Null).await;
            assert_eq!(answer.problem(404), "not_found", "{path}");
        }
        for list in ["plugin-engine/tasks", "plugin-engine/runs", "plugin-engine/errors", "v1/keys"] {
            let list = format!("GET /api/{list}?limit=1");
            let page = other.done(&list, &Value::Null).await;
            let next = page["nextCursor"].as_str().or(page["next_cursor"].as_str()).unwrap();
            let answer = self.ask(&format!("{list}&cursor={next}"), &Value::Null).await;
            assert_eq!(answer.problem(400), "invalid_parameters", "{list}");
        }
    }
}

#[tokio::test]
async fn alternating_day_keeps_organizations_apart() {
    both(true).await;
}

#[tokio::test]
async fn concurrent_day_keeps_organizations_apart() {
    both(false).await;
}
