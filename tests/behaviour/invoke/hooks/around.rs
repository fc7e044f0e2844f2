//! Hooks before calls.

use axum::http::StatusCode;
use overseer_engine::access::principal::Role;
use tokio::net::TcpListener;

use super::*;

/// One hook, with more of its keys.
fn hook(on: &str, more: &Value) -> Value {
    let mut hook = json!({ "on": on });
    hook.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    hook
}

#[tokio::test]
async fn hook_gets_a_signed_request_before_the_call() {
    let bench = Bench::start().await;
    let secret = bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    let config = json!({ "level": 3, "code": "a-secret-code" });
    bench.ok(Method::PUT, "/api/v1/plugins/guard/config", &config).await;
    let body =
        json!({ "tool": "own", "intent": "act", "agentId": "agent_1", "context": { "path": "one", "note": TOKEN } });
    bench.app.post(INTENTS, &body).await.data();

    let got = bench.last();
    assert_eq!((got.path.as_str(), got.signed_with(&secret)), ("/guard/hooks/before_tool_call", 1));
    assert!(got.headers.get("authorization").is_none());
    let mut said = got.json();
    let request = said["context"].as_object_mut().unwrap().remove("request_id").unwrap();
    assert!(request.is_string());
    assert_eq!(
        said,
        json!({
            "type": "before_tool_call", "timestamp": "2026-11-21T09:00:00Z",
            "context": { "organization_id": "acme", "user_id": "admin", "agent_id": "agent_1", "channel": null,
                         "tool": "own", "intent": "act", "session_id": null, "task_id": null,
                         "plugin": "guard", "version": "1.0.0", "reported": false, "config": { "level": 3 } },
            // Overseer removes the account's token before the hook sees the data.
            "data": { "path": "one", "note": "[secret removed]" },
        })
    );
    assert_eq!(bench.service.calls(), ["POST /one"]);
}

#[tokio::test]
async fn passing_hook_costs_no_round_trip() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call", "after_tool_call"]))).await;
    bench.act("one").await.data();
    for answer in ["", r#"{"decision": "proceed"}"#] {
        bench.receiver.answer(answer);
        bench.receiver.answer(answer);
        bench.app.table.take();
        bench.act("one").await.data();
        assert_eq!(bench.app.table.take(), (1, 2), "{answer}");
    }
    bench.app.intend("own", "read", json!({ "path": "two" })).await.data();
    assert_eq!(bench.app.table.take(), (1, 0));
    assert_eq!(bench.asked().len(), 8);
}

#[tokio::test]
async fn hook_replacement_is_sent() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    bench.decides(&json!({ "decision": "replace", "data": { "path": "other" } }));
    assert_eq!(bench.act("one").await.data()["path"], "other");
    assert_eq!(bench.service.calls(), ["POST /other"]);
}

#[tokio::test]
async fn hook_answer_without_a_decision_is_the_data() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    bench.decides(&json!({ "path": "other" }));
    assert_eq!(bench.act("one").await.data()["path"], "other");
}

#[tokio::test]
async fn hook_name_may_be_in_capitals() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["BEFORE_TOOL_CALL"]))).await;
    bench.decides(&json!({ "decision": "veto" }));
    assert_eq!(bench.act("one").await.failure(), "vetoed");
}

#[tokio::test]
async fn run_records_the_hook_replacement() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    bench.decides(&json!({ "decision": "replace", "data": { "path": "other" } }));
    let run = bench.act("one").await.json()["metadata"]["runId"].as_str().unwrap().to_owned();
    let run = bench.app.get(&format!("/api/plugin-engine/runs/{run}")).await.json();
    assert_eq!(run["context"], json!({ "path": "other" }));
}

/// An intent under the key `k`.
fn keyed() -> Value {
    json!({ "tool": "own", "intent": "act", "idempotencyKey": "k", "context": { "path": "one" } })
}

/// The answer to an intent that the guard vetoes.
async fn vetoed(bench: &Bench, reason: &Value) -> Answer {
    bench.decides(&json!({ "decision": "veto", "reason": reason }));
    let answer = bench.app.post(INTENTS, &keyed()).await;
    assert_eq!(answer.failure(), "vetoed");
    answer
}

#[tokio::test]
async fn veto_stops_the_call() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    let answer = vetoed(&bench, &json!("not on a Sunday")).await;
    let error = answer.json()["error"].clone();
    assert_eq!(error["retryable"], json!(false));
    assert!(error["fallback"].is_string(), "{error}");
    assert_eq!(answer.json()["metadata"]["attempts"], 0);
    assert_eq!(bench.service.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn veto_gives_its_shortened_reason() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    for (reason, said) in [
        (json!("not on a Sunday"), "The guard forbids it: not on a Sunday".to_owned()),
        (json!(null), "The guard forbids it: it gives no reason".to_owned()),
        (json!("x".repeat(501)), format!("The guard forbids it: {}…", "x".repeat(500))),
    ] {
        let error = vetoed(&bench, &reason).await.json()["error"].clone();
        assert_eq!((&error["message"], &error["retryable"]), (&json!(said), &json!(false)));
    }
}

#[tokio::test]
async fn each_veto_is_recorded_as_failure() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    for _ in 0..3 {
        vetoed(&bench, &json!("no")).await;
    }
    let recorded = bench.errors("own").await;
    assert_eq!((recorded.len(), &recorded[0]["code"]), (3, &json!("vetoed")));
}

#[tokio::test]
async fn vetoed_intent_starts_no_run() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    vetoed(&bench, &json!("no")).await;
    assert_eq!(bench.app.get("/api/plugin-engine/runs").await.json()["runs"], json!([]));
}

#[tokio::test]
async fn veto_frees_the_idempotency_key() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    vetoed(&bench, &json!("no")).await;
    bench.app.post(INTENTS, &keyed()).await.data();
}

/// A bench with hooks of three plugins at four priorities.
async fn with_priorities() -> Bench {
    let bench = Bench::start().await;
    bench
        .install(&bench.guard("late", "1.0.0", &json!([hook("before_tool_call", &json!({ "priority": 1000 }))])))
        .await;
    let hooks = json!([
        hook("before_tool_call", &json!({ "priority": 7 })),
        hook("before_tool_call", &json!({ "priority": 0 }))
    ]);
    bench.install(&bench.guard("zeal", "1.0.0", &hooks)).await;
    bench.install(&bench.guard("alpha", "1.0.0", &json!([hook("before_tool_call", &json!({ "priority": 7 }))]))).await;
    bench
}

/// Where the hook of a guard is asked.
fn path(name: &str) -> String {
    format!("/{name}/hooks/before_tool_call")
}

#[tokio::test]
async fn hooks_are_asked_by_priority() {
    let bench = with_priorities().await;
    bench.act("one").await.data();
    assert_eq!(bench.asked(), [path("zeal"), path("alpha"), path("zeal"), path("late")]);
}

#[tokio::test]
async fn later_hook_sees_the_replacement() {
    let bench = with_priorities().await;
    bench.decides(&json!({ "decision": "proceed" }));
    bench.decides(&json!({ "decision": "replace", "data": { "path": "two" } }));
    bench.act("one").await.data();
    let seen: Vec<_> = bench.receiver.got().iter().map(|got| got.json()["data"]["path"].clone()).collect();
    assert_eq!(seen, ["one", "one", "two", "two"]);
    assert_eq!(bench.service.calls(), ["POST /two"]);
}

#[tokio::test]
async fn hook_after_a_veto_is_not_asked() {
    let bench = with_priorities().await;
    bench.decides(&json!({ "decision": "proceed" }));
    bench.decides(&json!({ "decision": "veto", "reason": "no" }));
    assert_eq!(bench.act("one").await.failure(), "vetoed");
    assert_eq!(bench.asked(), [path("zeal"), path("alpha")]);
}

/// Has the receiver answer wrongly; what is said of that, and under which code.
type Wrong = (fn(&Bench), &'static str, &'static str);

#[tokio::test]
async fn failed_hook_follows_its_declared_policy() {
    let bench = Bench::start().await;
    for (name, on_failure) in [("strict", "fatal"), ("loose", "ignore")] {
        let hooks = json!([hook("before_tool_call", &json!({ "on_failure": on_failure, "timeout_ms": 100 }))]);
        bench.install(&bench.guard(name, "1.0.0", &hooks)).await;
        bench.post(&format!("/api/v1/plugins/{name}/disable"), json!({})).await;
    }
    let answers: [Wrong; 6] = [
        (
            |bench| bench.receiver.answer(StatusCode::INTERNAL_SERVER_ERROR),
            "it answered with the status 500",
            "unavailable",
        ),
        (|bench| bench.receiver.answer(StatusCode::FOUND), "it answered with the status 302", "rejected"),
        (|bench| bench.receiver.answer("<html>"), "its answer is not a decision", "unavailable"),
        (|bench| bench.decides(&json!({ "decision": "allow" })), "its answer is not a decision", "unavailable"),
        (|bench| bench.decides(&json!({ "decision": "replace", "data": { "path": 7 } })), "/data/path", "rejected"),
        (
            |bench| bench.decides(&json!({ "decision": "replace", "data": [] })),
            "it is not an object of parameters",
            "rejected",
        ),
    ];
    for (name, fatal) in [("strict", true), ("loose", false)] {
        bench.post(&format!("/api/v1/plugins/{name}/enable"), json!({})).await;
        for (count, (answers, said, code)) in answers.iter().enumerate() {
            answers(&bench);
            let answer = bench.act("one").await;
            if fatal {
                assert_eq!(answer.failure(), "unavailable");
                let error = answer.json()["error"].clone();
                let message = error["message"].as_str().unwrap();
                let begins = "The guard has to be asked first: its hook before_tool_call failed: ";
                assert!(message.starts_with(begins) && message.contains(said), "{message}");
                // A retry helps only where the hook may answer later.
                assert_eq!(error["retryable"], json!(*code == "unavailable"));
            } else {
                assert_eq!(answer.data()["path"], "one");
            }
            let recorded = bench.errors(name).await;
            let latest = recorded.iter().find(|one| one["message"].as_str().unwrap().contains(said)).unwrap();
            assert_eq!((&latest["intent"], &latest["code"]), (&json!("before_tool_call"), &json!(code)));
            assert_eq!(recorded.len(), count + 1);
        }
        bench.post(&format!("/api/v1/plugins/{name}/disable"), json!({})).await;
    }
    assert_eq!(bench.service.calls().len(), answers.len());
}

/// A server that takes connections and never answers, and a guard with a hook there.
async fn silent_guard(bench: &Bench) -> (TcpListener, Value) {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let hooks = json!([hook("before_tool_call", &json!({ "timeout_ms": 100, "url": url }))]);
    let mut guard = bench.guard("guard", "1.0.0", &hooks);
    guard["permissions"] = json!(["network:127.0.0.1"]);
    (silent, guard)
}

#[tokio::test]
async fn hook_at_a_refused_address_fails_the_call() {
    let bench = Bench::start().await;
    let (_silent, guard) = silent_guard(&bench).await;
    bench.install(&guard).await;
    let refused = bench.act("one").await;
    assert_eq!(refused.failure(), "unavailable");
    assert!(refused.text.contains("the operator does not allow its address"), "{}", refused.text);
    assert_eq!(bench.service.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn silent_hook_times_out() {
    let bench = Bench::start().await;
    let (silent, guard) = silent_guard(&bench).await;
    let allowed =
        vec![AllowedAddress::Socket(silent.local_addr().unwrap()), AllowedAddress::Socket(bench.service.address)];
    let plugins = vec![manifest(&format!("http://{}", bench.service.address), &json!({ "type": "none" }))];
    let app = App::with(Options { plugins, allowed, unconnected: true, ..Options::default() }).await;
    let bench = Bench { app, ..bench };
    bench.install(&guard).await;
    let late = bench.act("one").await;
    assert_eq!(late.failure(), "unavailable");
    assert_eq!(late.json()["error"]["retryable"], true);
    assert!(late.text.contains("no answer from 127.0.0.1 in time"), "{}", late.text);
    assert_eq!(bench.errors("guard").await[0]["code"], "timeout");
    assert_eq!(bench.service.calls(), Vec::<String>::new());
}

/// A bench with `slack` and a hook before its lookup of channels.
async fn with_lookup_hook() -> Bench {
    let bench = Bench::start().await;
    bench.app.connect("slack", "xoxb-playground").await;
    let hooks = json!([hook("before_tool_call", &json!({ "tools": ["slack.list_channels"] }))]);
    bench.install(&bench.guard("guard", "1.0.0", &hooks)).await;
    bench
}

async fn send_to_general(bench: &Bench) -> Answer {
    bench.app.intend("slack", "send", json!({ "channel": "#general", "text": "hello" })).await
}

#[tokio::test]
async fn hook_may_veto_a_name_lookup() {
    let bench = with_lookup_hook().await;
    bench.decides(&json!({ "decision": "veto", "reason": "channels are private" }));
    let veto = send_to_general(&bench).await;
    assert_eq!(veto.failure(), "vetoed");
    assert!(
        veto.text.contains("a name cannot be looked up by slack.list_channels: The guard forbids it"),
        "{}",
        veto.text
    );
    assert_eq!(bench.last().json()["context"]["intent"], "list_channels");
    assert_eq!(bench.app.playground.received_total(), 0);
}

#[tokio::test]
async fn hook_is_asked_until_the_name_is_known() {
    let bench = with_lookup_hook().await;
    bench.decides(&json!({ "decision": "veto", "reason": "channels are private" }));
    send_to_general(&bench).await.failure();
    for _ in 0..2 {
        send_to_general(&bench).await.data();
        assert_eq!(bench.asked().len(), 2);
    }
}

#[tokio::test]
async fn veto_keeps_may_have_happened() {
    let bench = Bench::start().await;
    let intent = json!({ "tool": "own", "intent": "act", "idempotencyKey": "k", "context": { "path": "500" } });
    assert_eq!(bench.app.post(INTENTS, &intent).await.json()["error"]["mayHaveHappened"], true);
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    bench.decides(&json!({ "decision": "veto", "reason": "no" }));
    let vetoed = bench.app.post(&format!("{INTENTS}?resolve=retry"), &intent).await;
    assert_eq!((vetoed.failure().as_str(), &vetoed.json()["error"]["mayHaveHappened"]), ("vetoed", &json!(true)));
    assert_eq!(bench.service.calls().len(), 1);
}

#[tokio::test]
async fn hook_is_asked_for_its_tools_only() {
    let bench = Bench::start().await;
    let hooks = json!([hook("before_tool_call", &json!({ "tools": ["own.act", "notion"] }))]);
    bench.install(&bench.guard("guard", "1.0.0", &hooks)).await;
    bench.app.intend("own", "read", json!({ "path": "one" })).await.data();
    assert_eq!(bench.asked().len(), 0);
    bench.act("one").await.data();
    assert_eq!(bench.asked().len(), 1);
}

#[tokio::test]
async fn task_asks_hooks_when_it_runs() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    let later = (bench.app.engine.ports.clock.now() + jiff::SignedDuration::from_secs(60)).to_string();
    let intent = json!({ "tool": "own", "intent": "act", "scheduledTime": later, "context": { "path": "one" } });
    let made = bench.app.post(INTENTS, &intent).await;
    let path = format!("/api/plugin-engine/tasks/{}", made.json()["task"]["id"].as_str().unwrap());
    assert_eq!(bench.asked().len(), 0);
    bench.decides(&json!({ "decision": "veto", "reason": "too late" }));
    bench.app.clock.advance(61);
    bench.app.engine.sweep().await.unwrap();
    let ended = loop {
        let task = bench.app.get(&path).await.json();
        if task["status"] != "scheduled" && task["status"] != "running" {
            break task;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(ended["status"], "failed", "{ended}");
    assert!(ended.to_string().contains("vetoed"), "{ended}");
    assert_eq!(bench.last().json()["context"]["task_id"], ended["id"]);
    assert_eq!(bench.service.calls(), Vec::<String>::new());
}

#[tokio::test]
async fn explanation_asks_no_hook() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["after_tool_call", "before_tool_call", "on_error"]))).await;
    let intent = json!({ "tool": "own", "intent": "act", "context": { "path": "one" } });
    let explained = bench.app.post(&format!("{INTENTS}?explain=true"), &intent).await.json();
    assert_eq!(explained["explanation"]["hooks"], json!(["guard.before_tool_call", "guard.after_tool_call"]));
    assert_eq!(bench.asked().len(), 0);
}

#[tokio::test]
async fn hooks_are_separate_by_organization() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    let other = bench.app.key("globex", &[Role::Administrator], Some("admin")).await;
    let connect = json!({ "token": "another-secret-token" });
    let path = "/api/plugin-engine/integrations/own/connect";
    assert!(bench.app.send(&other, Method::POST, path, Some(&connect)).await.status.is_success());
    let intent = json!({ "tool": "own", "intent": "act", "context": { "path": "one" } });
    bench.app.send(&other, Method::POST, INTENTS, Some(&intent)).await.data();
    assert_eq!(bench.asked().len(), 0);
}

#[tokio::test]
async fn guard_of_another_organization_is_unknown() {
    let bench = Bench::start().await;
    bench.install(&bench.guard("guard", "1.0.0", &json!(["before_tool_call"]))).await;
    let other = bench.app.key("globex", &[Role::Administrator], Some("admin")).await;
    for (method, path) in [(Method::GET, ""), (Method::POST, "/hook-secret")] {
        let path = format!("/api/v1/plugins/guard{path}");
        assert_eq!(bench.app.send(&other, method, &path, None).await.problem(404), "unknown_plugin");
    }
}
