//! Administrators disable a plugin, reset its breaker and set its limits.

use overseer_engine::access::principal::Role;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{OWN, Setup, out_of_use, plugin};
use crate::support::app::{Answer, Options, refused};

const PLUGINS: &str = "/api/v1/plugins";

async fn patch(setup: &Setup, body: Value) -> Answer {
    setup.app.send(&setup.app.admin, Method::PATCH, OWN, Some(&body)).await
}

pub(super) async fn post(setup: &Setup, what: &str, body: Option<&Value>) -> Value {
    let answer = setup.app.send(&setup.app.admin, Method::POST, &format!("{OWN}/{what}"), body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    answer.json()
}

/// Checks that an administrator's word stands in the way, and gives the error.
#[track_caller]
fn disabled(answer: &Answer) -> Value {
    assert_eq!(answer.failure(), "disabled", "{}", answer.text);
    let error = answer.json()["error"].take();
    assert_eq!((&error["retryable"], error.get("retryAfter")), (&json!(false), None), "{error}");
    assert!(error["fallback"].as_str().unwrap().contains("an administrator can switch it on"), "{error}");
    error
}

fn limits(failures: u8) -> Value {
    json!({ "failures": failures, "window_s": 300, "open_s": 60, "open_max_s": 1800 })
}

#[tokio::test]
async fn plugin_view_shows_the_organizations_instance() {
    let setup = Setup::with(json!({ "failures": 7 }), Options::default()).await;
    let closed = json!({ "state": "closed", "failures": 0 });
    let own = json!({
        "name": "own", "display_name": "Own", "version": "1.0.0", "enabled": true, "record_reads": false,
        "life": { "state": "active" },
        "breaker": { "read": closed, "write": closed, "limits": limits(7) },
    });
    assert_eq!(setup.app.get(OWN).await.json(), own);
}

#[tokio::test]
async fn plugin_list_shows_the_view_of_each_plugin() {
    let setup = Setup::start().await;
    let all = setup.app.get(PLUGINS).await.json()["plugins"].take();
    let names: Vec<_> = all.as_array().unwrap().iter().map(|plugin| plugin["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["gmail", "notion", "own", "policy", "slack"]);
    assert_eq!(all[2], setup.app.get(OWN).await.json());
    assert_eq!(all[4], setup.app.get("/api/v1/plugins/slack").await.json());
}

#[tokio::test]
async fn breaker_limits_have_defaults() {
    let setup = Setup::start().await;
    let slack = setup.app.get("/api/v1/plugins/slack").await.json();
    assert_eq!(slack["breaker"]["limits"], limits(5));
}

/// The id of the administrator's key.
async fn admin_key(setup: &Setup) -> Value {
    setup.app.get("/api/v1/keys").await.json()["keys"][0]["id"].take()
}

#[tokio::test]
async fn administrator_disables_a_plugin() {
    let setup = Setup::start().await;
    setup.act("500").await.failure();
    post(&setup, "disable", Some(&json!({ "reason": "we moved to another" }))).await;
    for answer in [setup.act("200").await, setup.read("200").await] {
        let error = disabled(&answer);
        assert!(error["message"].as_str().unwrap().contains("by an administrator: we moved to another; "), "{error}");
    }
    // A disabled plugin stays disabled.
    setup.app.clock.advance(86_400);
    disabled(&setup.act("200").await);
    assert_eq!(setup.calls(), 1);
}

#[tokio::test]
async fn plugin_view_shows_who_disabled_it() {
    let setup = Setup::start().await;
    let shown = post(&setup, "disable", Some(&json!({ "reason": "we moved to another" }))).await;
    assert_eq!(shown["enabled"], json!(false));
    let key = admin_key(&setup).await;
    let disabled_by =
        json!({ "at": "2026-11-21T09:00:00Z", "by": "admin", "key": key, "reason": "we moved to another" });
    assert_eq!(shown["disabled"], disabled_by, "{shown}");
    assert_eq!(setup.app.get(OWN).await.json(), shown);
}

#[tokio::test]
async fn administrator_enables_a_disabled_plugin() {
    let setup = Setup::start().await;
    for body in [None, Some(&json!({}))] {
        post(&setup, "disable", None).await;
        let shown = post(&setup, "enable", body).await;
        assert_eq!((&shown["enabled"], shown.get("disabled")), (&json!(true), None), "{shown}");
        setup.act("200").await.data();
    }
}

#[tokio::test]
async fn disable_reason_is_optional() {
    let setup = Setup::start().await;
    let shown = post(&setup, "disable", None).await;
    assert_eq!(shown["disabled"].get("reason"), None, "{shown}");
    let error = disabled(&setup.read("200").await);
    assert!(error["message"].as_str().unwrap().contains("by an administrator; an administrator can"), "{error}");
}

#[tokio::test]
async fn each_change_of_availability_emits_an_event() {
    let setup = Setup::start().await;
    post(&setup, "disable", Some(&json!({ "reason": "we moved to another" }))).await;
    post(&setup, "enable", None).await;
    post(&setup, "disable", None).await;
    post(&setup, "enable", Some(&json!({}))).await;
    assert_eq!(setup.kinds(), ["plugin.disabled", "plugin.enabled", "plugin.disabled", "plugin.enabled"]);
    let key = admin_key(&setup).await;
    assert_eq!(setup.events()[0].1, json!({ "tool": "own", "key": key, "userId": "admin" }));
    // Enabling an enabled plugin changes nothing.
    post(&setup, "enable", None).await;
    assert_eq!(setup.kinds().len(), 4);
}

#[tokio::test]
async fn disable_reason_has_a_limit() {
    let setup = Setup::start().await;
    let long = |characters: usize| json!({ "reason": "ö".repeat(characters) });
    let path = format!("{OWN}/disable");
    for (body, pointer) in
        [(long(501), "/reason"), (json!({ "reason": 5 }), "/reason"), (json!({ "because": "x" }), "/because")]
    {
        refused(&setup.app, &setup.app.post(&path, &body).await, &[pointer]);
    }
    setup.act("200").await.data();
    post(&setup, "disable", Some(&long(500))).await;
    disabled(&setup.act("200").await);
}

#[tokio::test]
async fn plugin_route_refuses_query_parameters() {
    let setup = Setup::start().await;
    for (method, path) in [
        (Method::GET, format!("{PLUGINS}?all=true")),
        (Method::GET, format!("{OWN}?all=true")),
        (Method::PATCH, format!("{OWN}?all=true")),
        (Method::POST, format!("{OWN}/disable?all=true")),
        (Method::POST, format!("{OWN}/enable?all=true")),
        (Method::POST, format!("{OWN}/reset?all=true")),
    ] {
        let body = (method == Method::PATCH).then(|| json!({}));
        let answer = setup.app.send(&setup.app.admin, method, &path, body.as_ref()).await;
        assert_eq!(answer.problem(400), "invalid_parameters", "{path}");
    }
}

#[tokio::test]
async fn administrator_resets_a_breaker() {
    let setup = Setup::start().await;
    setup.open().await;
    post(&setup, "reset", None).await;
    setup.act("200").await.data();
    assert_eq!(setup.breaker("write").await, json!({ "state": "closed", "failures": 0 }));
}

#[tokio::test]
async fn reset_forgets_counted_failures() {
    let setup = Setup::start().await;
    for _ in 0..4 {
        setup.act("500").await.failure();
    }
    post(&setup, "reset", None).await;
    // It takes five failures again.
    setup.open().await;
}

#[tokio::test]
async fn reset_starts_the_pause_anew() {
    let setup = Setup::start().await;
    setup.open().await;
    setup.app.clock.advance(60);
    setup.act("500").await.failure();
    out_of_use(&setup.act("200").await, 120);
    post(&setup, "reset", None).await;
    setup.open().await;
    out_of_use(&setup.act("200").await, 60);
}

#[tokio::test]
async fn enabling_resets_the_breaker() {
    let setup = Setup::start().await;
    setup.open().await;
    out_of_use(&setup.act("200").await, 60);
    post(&setup, "enable", None).await;
    setup.act("200").await.data();
}

#[tokio::test]
async fn reset_does_not_enable_the_plugin() {
    let setup = Setup::start().await;
    post(&setup, "disable", None).await;
    post(&setup, "reset", None).await;
    disabled(&setup.act("200").await);
}

/// A plugin whose manifest sets each limit.
async fn limited() -> Setup {
    Setup::with(json!({ "failures": 2, "window_s": 10, "open_s": 5, "open_max_s": 8 }), Options::default()).await
}

#[tokio::test]
async fn manifest_limits_override_the_defaults() {
    let setup = limited().await;
    setup.act("500").await.failure();
    setup.app.clock.advance(10);
    setup.act("500").await.failure();
    setup.app.clock.advance(9);
    setup.act("500").await.failure();
    for seconds in [5, 8, 8] {
        out_of_use(&setup.act("200").await, seconds);
        setup.app.clock.advance(i64::try_from(seconds).unwrap());
        setup.act("500").await.failure();
    }
}

#[tokio::test]
async fn organization_limits_override_the_manifest() {
    let setup = limited().await;
    // The manifest gives each limit that the organization leaves out.
    let shown = patch(&setup, json!({ "breaker": { "failures": 3, "open_s": 7 } })).await.json();
    assert_eq!(shown["breaker"]["limits"], json!({ "failures": 3, "window_s": 10, "open_s": 7, "open_max_s": 8 }));
    for _ in 0..3 {
        setup.act("500").await.failure();
    }
    out_of_use(&setup.act("200").await, 7);
}

#[tokio::test]
async fn breaker_limits_are_separate_by_organization() {
    let setup = limited().await;
    let other = setup.app.key("other", &[Role::Administrator], Some("admin")).await;
    patch(&setup, json!({ "breaker": { "failures": 3, "open_s": 7 } })).await.json();
    for _ in 0..2 {
        setup.act_as(&other, "admin", "500").await.failure();
    }
    out_of_use(&setup.act_as(&other, "admin", "200").await, 5);
}

#[tokio::test]
async fn plugin_patch_keeps_what_it_leaves_out() {
    let setup = limited().await;
    patch(&setup, json!({ "breaker": { "failures": 3, "open_s": 7 } })).await.json();
    let shown = patch(&setup, json!({ "record_reads": true })).await.json();
    assert_eq!((&shown["breaker"]["limits"]["failures"], &shown["record_reads"]), (&json!(3), &json!(true)));
    // A patch replaces the organization's limits as a whole.
    let shown = patch(&setup, json!({ "breaker": {} })).await.json();
    assert_eq!((&shown["breaker"]["limits"]["failures"], &shown["record_reads"]), (&json!(2), &json!(true)));
}

#[tokio::test]
async fn each_plugin_patch_emits_an_event() {
    let setup = limited().await;
    for body in [json!({ "breaker": { "failures": 3 } }), json!({ "record_reads": true }), json!({ "breaker": {} })] {
        patch(&setup, body).await.json();
    }
    assert_eq!(setup.kinds().iter().filter(|kind| **kind == "plugin.configured").count(), 3);
}

#[tokio::test]
async fn breaker_limits_have_edges() {
    let setup = Setup::with(json!({ "open_max_s": 600 }), Options::default()).await;
    for (breaker, pointers) in [
        (json!({ "failures": 0 }), vec!["/breaker/failures"]),
        (json!({ "failures": 101 }), vec!["/breaker/failures"]),
        (json!({ "failures": 100_000 }), vec!["/breaker/failures"]),
        (json!({ "failures": -1, "window_s": 0 }), vec!["/breaker/failures", "/breaker/window_s"]),
        (json!({ "window_s": 86_401, "open_s": 1.5 }), vec!["/breaker/open_s", "/breaker/window_s"]),
        (json!({ "open_s": 0, "open_max_s": 86_401 }), vec!["/breaker/open_max_s", "/breaker/open_s"]),
        (json!({ "open_s": 60, "open_max_s": 59 }), vec!["/breaker/open_max_s"]),
        // Checked together with the plugin's own limits and with the defaults.
        (json!({ "open_s": 601 }), vec!["/breaker/open_max_s"]),
        (json!({ "open_max_s": 59 }), vec!["/breaker/open_max_s"]),
        (json!({ "failures": "5" }), vec!["/breaker/failures"]),
        (json!({ "faliures": 5 }), vec!["/breaker/faliures"]),
    ] {
        let answer = patch(&setup, json!({ "breaker": breaker })).await;
        refused(&setup.app, &answer, &pointers);
    }
    for breaker in [
        json!({ "failures": 1, "window_s": 1, "open_s": 1, "open_max_s": 1 }),
        json!({ "failures": 100, "window_s": 86_400, "open_s": 86_400, "open_max_s": 86_400 }),
        json!({ "open_s": 600 }),
        json!({}),
    ] {
        assert_eq!(patch(&setup, json!({ "breaker": breaker })).await.status, StatusCode::OK, "{breaker}");
    }
}

#[tokio::test]
async fn plugin_patch_refuses_invalid_fields() {
    let setup = Setup::start().await;
    refused(
        &setup.app,
        &patch(&setup, json!({ "record_reads": 1, "enabled": false })).await,
        &["/enabled", "/record_reads"],
    );
}

#[tokio::test]
async fn manifest_with_invalid_limits_is_refused() {
    let setup = Setup::start().await;
    let catalog = setup.app.engine.catalog.clone();
    for (breaker, said) in [
        (json!({ "failures": 0 }), "breaker.failures: must be 1 to 100"),
        (json!({ "open_s": 100, "open_max_s": 99 }), "breaker.open_max_s: must not be less than open_s"),
        (json!({ "faliures": 5 }), "faliures"),
    ] {
        let error = catalog.add(&plugin("https://own.example", breaker, &json!({ "type": "none" }))).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
}

#[tokio::test]
async fn breaker_administration_requires_an_administrator() {
    let setup = Setup::start().await;
    let service = setup.app.key("acme", &[Role::Service], None).await;
    let user = setup.app.key("acme", &[Role::User], Some("ben")).await;
    let wrong = json!({ "breaker": { "open_s": 3000 } });
    let routes = [
        (Method::GET, PLUGINS.to_owned(), None),
        (Method::GET, OWN.to_owned(), None),
        (Method::GET, format!("{PLUGINS}/nothing"), None),
        (Method::PATCH, OWN.to_owned(), Some(json!({ "record_reads": true }))),
        // Overseer refuses the caller before it checks the body.
        (Method::PATCH, OWN.to_owned(), Some(wrong)),
        (Method::POST, format!("{OWN}/disable"), None),
        (Method::POST, format!("{OWN}/enable"), None),
        (Method::POST, format!("{OWN}/reset"), None),
    ];
    for (method, path, body) in &routes {
        for key in [&service, &user] {
            let answer = setup.app.send(key, method.clone(), path, body.as_ref()).await;
            assert_eq!(answer.problem(403), "forbidden", "{method} {path}");
        }
        let answer = setup.app.send("ovs_0_0", method.clone(), path, body.as_ref()).await;
        assert_eq!(answer.problem(401), "unauthenticated", "{method} {path}");
    }
}

#[tokio::test]
async fn unknown_plugin_is_not_found() {
    let setup = Setup::start().await;
    assert_eq!(setup.app.get(&format!("{PLUGINS}/nothing")).await.problem(404), "unknown_plugin");
    assert_eq!(setup.app.post(&format!("{PLUGINS}/nothing/disable"), &json!({})).await.problem(404), "unknown_plugin");
}

#[tokio::test]
async fn availability_is_separate_by_organization() {
    let setup = Setup::start().await;
    let other = setup.app.key("other", &[Role::Administrator], Some("admin")).await;
    setup.app.send(&other, Method::POST, &format!("{OWN}/disable"), None).await.json();
    disabled(&setup.act_as(&other, "admin", "200").await);
    setup.act("200").await.data();
    assert_eq!(setup.app.get(OWN).await.json()["enabled"], json!(true));
}
