//! Two organizations on one server, with a day of each at once: whatever is stored, answered, told, called and logged is of
//! the one or of the other, and never of both. They call what they have by the same names, so that whoever forgets which
//! organization is meant finds the other's.

pub mod day;
pub mod world;

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join;
use overseer_engine::ports::Table as _;
use overseer_engine::ports::table::{Item, Read};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::app::App;
use crate::connect::canary::Log;
use day::{afternoon, look_around, morning};
use world::{Side, World};

pub const ACME: &str = "acme-7f3a";
pub const GLOBEX: &str = "globex-91bc";

/// Whose marker is in a text; of what has those of both nobody can say it.
#[track_caller]
fn whose(text: &str, what: &str) -> Option<&'static str> {
    let found: Vec<_> = [ACME, GLOBEX].into_iter().filter(|marker| text.contains(marker)).collect();
    assert!(found.len() < 2, "{what} is of both: {text}");
    found.first().copied()
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
async fn stored(app: &App) -> [BTreeSet<String>; 2] {
    let mut kinds = [BTreeSet::new(), BTreeSet::new()];
    for key in app.table.items().await {
        // It may have gone by now.
        let Some(item) = app.table.inner.get(&key, Read::Consistent).await.unwrap() else { continue };
        let found = whose(&written(&item), "an item");
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
async fn apart(app: &App, world: &World, sides: [&Side<'_>; 2], log: &str, secrets: &[String]) {
    for side in sides {
        for (request, answer) in side.answers.lock().unwrap().iter() {
            let found = whose(answer, request);
            assert!(found.is_none_or(|found| found == side.marker), "{} asked {request}: {answer}", side.marker);
        }
    }
    let [acme, globex] = stored(app).await;
    assert_eq!(acme, globex);
    assert!(acme.len() > 10, "{acme:?}");

    let mut counted = [[0; 3]; 2];
    let mut count = |found: Option<&str>, what: usize| {
        if let Some(place) = [ACME, GLOBEX].iter().position(|marker| found == Some(marker)) {
            counted[place][what] += 1;
        }
    };
    for event in app.events.lock().unwrap().iter().filter(|event| event.org.as_str() != "acme") {
        let found = whose(&event.detail.to_string(), event.kind);
        assert!(found.is_none_or(|found| found == event.org.as_str()), "{event:?}");
        count(Some(event.org.as_str()), 0);
    }
    for got in world.got() {
        let found = whose(&format!("{got:?}"), "a call");
        assert!(found.is_some(), "{got:?}");
        count(found, if got.path.starts_with("/hook/") { 1 } else { 2 });
    }
    assert_eq!(counted[0], counted[1], "events, deliveries and calls are as many for both");
    assert!(counted[0].iter().all(|count| *count > 5), "{counted:?}");

    let mut lines = [0; 2];
    for line in log.lines() {
        let found = whose(line, "a line of the log");
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
    let secrets = [of_acme.secrets.clone(), of_globex.secrets.clone()].concat();
    assert_eq!(secrets.len(), 24);
    apart(&app, &world, sides, &log.take(), &secrets).await;
    for (side, other) in [(&acme, &of_globex), (&globex, &of_acme)] {
        side.meets_nothing_of(other).await;
    }

    app.clock.advance(3_600);
    app.engine.sweep().await.unwrap();
    join(afternoon(&acme, &of_acme), afternoon(&globex, &of_globex)).await;
    apart(&app, &world, sides, &log.take(), &secrets).await;
}

impl Side<'_> {
    /// Asks for what the other organization made, with its ids and the places where its lists go on.
    async fn meets_nothing_of(&self, other: &day::Made) {
        for path in [
            format!("/api/plugin-engine/tasks/{}", other.task),
            format!("/api/plugin-engine/runs/{}", other.run),
            format!("/api/plugin-engine/errors/{}", other.failure),
            format!("/api/v1/webhooks/{}", other.webhook),
            format!("/api/v1/webhooks/{}/deliveries", other.webhook),
        ] {
            let answer = self.ask(&format!("GET {path}"), &Value::Null).await;
            assert_eq!(answer.problem(404), "not_found", "{path}");
        }
    }
}

#[tokio::test]
async fn a_day_of_two_organizations_in_turns() {
    both(true).await;
}

#[tokio::test]
async fn a_day_of_two_organizations_at_once() {
    both(false).await;
}
