//! The local server from a newcomer's view: one command, one folder, one port.

mod connections;
pub mod docs;
mod full_disk;
mod log_format;
mod stopping;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::process::{Server, command, overseer, sentence};

fn key(data: &Path) -> String {
    fs::read_to_string(data.join("admin-key")).unwrap().trim().to_owned()
}

async fn call(address: &str, key: &str, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    let client = Client::builder().no_proxy().build().unwrap();
    let url = format!("http://{address}{path}");
    let request = match body {
        Some(body) => client.post(url).header("content-type", "application/json").body(body.to_string()),
        None => client.get(url),
    };
    let answer = request.header("authorization", format!("Bearer {key}")).send().await.unwrap();
    let status = answer.status();
    (status, serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

#[tokio::test]
async fn printed_curl_line_works_when_pasted() {
    let folder = tempdir().unwrap();
    let data = folder.path().join("it's data");
    let mut first_key = None;
    for _ in 0..2 {
        let mut server = Server::start(&data, &[], &[]);
        let answer: Value = serde_json::from_str(&Server::paste(&server.curl)).unwrap();
        assert_eq!(answer["success"], json!(true), "{answer}");
        let page = Server::paste(&format!("curl -sS http://{}/playground", server.address));
        assert!(page.contains("Hello from Overseer"), "{page}");
        assert!(page.contains("stand-in"), "{page}");
        assert!(server.greeting.contains("stand-in"), "{}", server.greeting);
        assert_eq!(*first_key.get_or_insert_with(|| key(&data)), key(&data));
        server.signal("INT");
        assert_eq!(server.wait(), Some(0));
        let log = server.whole_log();
        assert!(log.contains("a stand-in"), "{log}");
        assert!(log.contains("request_id"), "{log}");
        assert!(!log.contains("xoxb-playground") && !log.contains(&key(&data)), "{log}");
    }
    for entry in fs::read_dir(&data).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn rate_limited_call_names_the_retry_delay() {
    let folder = tempdir().unwrap();
    let server = Server::start(folder.path(), &[], &[]);
    let switch = json!({"service": "slack", "mode": "rate_limited", "calls": 1, "retry_after": 60}).to_string();
    let set = format!(
        "curl -sSf http://{}/playground/switches -H 'Content-Type: application/json' -d '{switch}'",
        server.address
    );
    Server::paste(&set);
    let answer: Value = serde_json::from_str(&Server::paste(&server.curl)).unwrap();
    assert_eq!(answer["error"]["code"], json!("rate_limited"), "{answer}");
    assert_eq!(answer["error"]["retryAfter"], json!(60), "{answer}");
    let answer: Value = serde_json::from_str(&Server::paste(&server.curl)).unwrap();
    assert_eq!(answer["success"], json!(true), "{answer}");
}

#[tokio::test]
async fn killed_server_keeps_acknowledged_writes() {
    let folder = tempdir().unwrap();
    let mut made = Vec::new();
    for round in 0..3 {
        let mut server = Server::start(folder.path(), &[], &[]);
        let admin = key(folder.path());
        let bodies = (0..20).map(|n| json!({"name": format!("{round}-{n}"), "roles": ["service"]}));
        let calls = bodies.map(|body| call(&server.address, &admin, "/api/v1/keys", Some(body)));
        for (status, answer) in futures_util::future::join_all(calls).await {
            assert_eq!(status, StatusCode::CREATED);
            made.push(answer["key"].as_str().unwrap().to_owned());
        }
        server.kill();
    }
    let server = Server::start(folder.path(), &[], &[]);
    for key in made {
        assert_eq!(call(&server.address, &key, "/api/plugin-engine", None).await.0, StatusCode::OK);
    }
}

#[test]
fn failed_start_gives_its_reason_in_one_sentence() {
    let folder = tempdir().unwrap();
    let data = folder.path().join("data");
    let server = Server::start(&data, &[], &[]);
    let port = server.address.rsplit(':').next().unwrap();

    let taken = sentence(&overseer(&["--port", port, "--data", folder.path().join("other").to_str().unwrap()]));
    assert!(taken.contains("in use") && taken.contains(port), "{taken}");
    let open = sentence(&overseer(&["--port", "0", "--data", data.to_str().unwrap()]));
    assert!(open.contains("already open"), "{open}");

    let file = folder.path().join("a-file");
    fs::write(&file, "x").unwrap();
    let unwritable = sentence(&overseer(&["--port", "0", "--data", file.join("below").to_str().unwrap()]));
    assert!(unwritable.contains("a-file") && unwritable.contains("--data"), "{unwritable}");
    let missing =
        sentence(&overseer(&["--port", "0", "--data", data.to_str().unwrap(), "--plugins", "/does/not/exist"]));
    assert!(missing.contains("/does/not/exist"), "{missing}");

    let mut wrong = command("overseer");
    wrong.args(["--port", "0", "--data"]).arg(folder.path().join("third"));
    let reason = sentence(&wrong.env("OVERSEER_ALLOW_ADDRESSES", "10.0.0.0/8, nonsense").output().unwrap());
    assert!(reason.contains("OVERSEER_ALLOW_ADDRESSES") && reason.contains("nonsense"), "{reason}");
    for (name, value) in [("OVERSEER_LOG", "loud"), ("OVERSEER_LOG", "info,=x"), ("SLACK_TOKEN", "short")] {
        let mut wrong = command("overseer");
        wrong.args(["--port", "0", "--data"]).arg(folder.path().join("third")).env(name, value);
        let reason = sentence(&wrong.output().unwrap());
        assert!(reason.contains(name), "{reason}");
    }
}

#[test]
fn damaged_data_folder_is_reported_in_one_sentence() {
    let folder = tempdir().unwrap();
    let data = folder.path().join("data");
    let mut server = Server::start(&data, &[], &[]);
    server.signal("TERM");
    assert_eq!(server.wait(), Some(0));
    let (table, master) = (data.join("overseer.redb"), data.join("master-key"));
    let whole = fs::read(&table).unwrap();
    let start = || sentence(&overseer(&["--port", "0", "--data", data.to_str().unwrap()]));
    for damaged in [b"not a table".to_vec(), vec![0; whole.len()], whole[..whole.len() / 3].to_vec()] {
        fs::write(&table, damaged).unwrap();
        let reason = start();
        assert!(reason.contains("overseer.redb") && reason.contains("damaged"), "{reason}");
    }
    fs::write(&table, whole).unwrap();
    fs::write(&master, "short").unwrap();
    let reason = start();
    assert!(reason.contains("master-key") && reason.contains("damaged"), "{reason}");
}

#[tokio::test]
async fn invalid_plugin_is_left_out() {
    let folder = tempdir().unwrap();
    let plugins = folder.path().join("plugins");
    for (name, text) in [
        ("broken", "name: broken\nversion: one\n"),
        (
            "impostor",
            &fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../plugins/slack/plugin.yaml")).unwrap(),
        ),
    ] {
        fs::create_dir_all(plugins.join(name)).unwrap();
        fs::write(plugins.join(name).join("plugin.yaml"), text).unwrap();
    }
    fs::create_dir_all(plugins.join("empty")).unwrap();
    let data = folder.path().join("data");
    let mut server = Server::start(&data, &["--plugins", plugins.to_str().unwrap()], &[]);
    let (status, tools) = call(&server.address, &key(&data), "/api/plugin-engine", None).await;
    assert_eq!(status, StatusCode::OK);
    let names: Vec<_> = tools["tools"].as_array().unwrap().iter().map(|tool| tool["tool"].as_str().unwrap()).collect();
    assert_eq!(names, ["gmail", "notion", "slack"]);
    server.kill();
    let log = server.whole_log();
    for text in ["broken/plugin.yaml", "version", "impostor/plugin.yaml", "taken", "empty"] {
        assert!(log.contains(text), "{text}: {log}");
    }
}

#[tokio::test]
async fn changed_plugin_is_reloaded_without_a_restart() {
    let folder = tempdir().unwrap();
    let (data, plugins) = (folder.path().join("data"), folder.path().join("plugins"));
    let write = |name: &str, file: &str, text: &str| {
        fs::create_dir_all(plugins.join(name)).unwrap();
        fs::write(plugins.join(name).join(file), text).unwrap();
    };
    let manifest = |name: &str, version: &str| {
        json!({ "name": name, "version": version, "display_name": "A desk", "description": "Shows notes.",
                "runtime": { "type": "http", "base_url": "https://desk.example" }, "permissions": ["network:desk.example"],
                "actions": [{ "name": "look", "description": "Looks.", "effect": "read", "request": { "path": "/look" } }] })
            .to_string()
    };
    write("desk", "plugin.yaml", &manifest("desk", "1.0.0"));
    let mut server = Server::start(&data, &["--plugins", plugins.to_str().unwrap()], &[]);
    let (address, key) = (server.address.clone(), key(&data));
    let version = async |name: &str| {
        let (status, shown) = call(&address, &key, &format!("/api/v1/plugins/{name}"), None).await;
        (status == StatusCode::OK).then(|| shown["version"].as_str().unwrap().to_owned())
    };
    assert_eq!(version("desk").await.as_deref(), Some("1.0.0"));
    write("desk", "plugin.yaml", &manifest("desk", "1.1.0"));
    server.wait_for_log("plugins changed: desk");
    assert_eq!(version("desk").await.as_deref(), Some("1.1.0"));
    write("chair", "manifest.json", &manifest("chair", "2.0.0"));
    server.wait_for_log("plugins added: chair");
    assert_eq!(version("chair").await.as_deref(), Some("2.0.0"));
    // The error is logged, and the previous version stays.
    write("desk", "plugin.yaml", "name: desk\nversion: one\n");
    server.wait_for_log("desk/plugin.yaml");
    assert_eq!(version("desk").await.as_deref(), Some("1.1.0"));
    fs::remove_dir_all(plugins.join("chair")).unwrap();
    server.wait_for_log("plugins removed: chair");
    assert_eq!(version("chair").await, None);
}

#[test]
fn real_client_or_token_replaces_the_stand_in() {
    let folder = tempdir().unwrap();
    let real = [("SLACK_CLIENT_ID", "123.456"), ("NOTION_TOKEN", "ntn_real-token-of-a-test")];
    let mut server = Server::start(folder.path(), &[], &real);
    assert!(server.greeting.contains("stand-in answers for: Gmail."), "{}", server.greeting);
    // A message to a real channel would reach people, so the printed line only reads.
    assert!(!server.curl.contains("send_message"), "{}", server.curl);
    let tools: Value = serde_json::from_str(&Server::paste(&server.curl)).unwrap();
    assert_eq!(tools["tools"][2]["tool"], json!("slack"), "{tools}");
    server.kill();
    assert!(!server.whole_log().contains("ntn_real-token-of-a-test"));
}

#[tokio::test]
async fn start_with_the_stand_in_keeps_a_real_account() {
    let folder = tempdir().unwrap();
    let real = [("SLACK_CLIENT_ID", "123.456")];
    let server = Server::start(folder.path(), &[], &real);
    let admin = key(folder.path());
    let connect = "/api/plugin-engine/integrations/slack/connect";
    let token = json!({"token": "xoxb-real-token-of-a-test"});
    assert_eq!(call(&server.address, &admin, connect, Some(token)).await.0, StatusCode::OK);
    drop(server);
    let server = Server::start(folder.path(), &[], &[]);
    let answer: Value = serde_json::from_str(&Server::paste(&server.curl)).unwrap();
    assert_eq!(answer["error"]["code"], json!("reconnect_required"), "{answer}");
    drop(server);
    let server = Server::start(folder.path(), &[], &real);
    let tools: Value = serde_json::from_str(&Server::paste(&server.curl)).unwrap();
    assert_eq!((&tools["tools"][2]["tool"], &tools["tools"][2]["connected"]), (&json!("slack"), &json!(true)));
}

#[tokio::test]
async fn key_command_manages_keys_of_the_running_server() {
    let folder = tempdir().unwrap();
    let data = folder.path().to_str().unwrap();
    let server = Server::start(folder.path(), &[], &[]);
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    let port = port.as_str();
    let run = |arguments: &[&str]| {
        let output = overseer(&[&["--port", port, "--data", data, "key"], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let made = run(&["create", "--name", "for ann", "--role", "user", "--user", "ann"]);
    let made = made.trim();
    assert_eq!(call(&server.address, made, "/api/plugin-engine", None).await.0, StatusCode::OK);
    let id = made.split('_').nth(1).unwrap();
    let listed = run(&["list"]);
    assert_eq!(listed.lines().count(), 2, "{listed}");
    assert!(listed.contains("for ann") && listed.contains(id) && !listed.contains(made), "{listed}");
    assert!(run(&["revoke", id]).contains("revoked"));
    assert_eq!(call(&server.address, made, "/api/plugin-engine", None).await.0, StatusCode::UNAUTHORIZED);

    let lexis = run(&["create", "--name", "lexi's", "--role", "agent", "--agent", "lexi", "--channel", "twilio"]);
    // The channel does not exist yet.
    let seen = call(&server.address, lexis.trim(), "/api/v1/agents/twilio", None).await;
    assert_eq!(seen.0, StatusCode::NOT_FOUND);
    let seen = call(&server.address, lexis.trim(), "/api/v1/agents/web", None).await;
    assert_eq!(seen.0, StatusCode::FORBIDDEN);

    let refused = sentence(&overseer(&["--port", port, "--data", data, "key", "revoke", "0000"]));
    assert!(refused.contains("no such API key"), "{refused}");
    drop(server);
    let down = sentence(&overseer(&["--port", port, "--data", data, "key", "list"]));
    assert!(down.contains("is it running"), "{down}");
}

#[tokio::test]
async fn lost_keys_are_replaced() {
    let folder = tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[], &[]);
    let before = key(folder.path());
    let ann = json!({"userId": "ann", "token": "xoxb-playground"});
    let connect = "/api/plugin-engine/integrations/slack/connect";
    assert_eq!(call(&server.address, &before, connect, Some(ann)).await.0, StatusCode::OK);
    server.kill();
    fs::remove_file(folder.path().join("admin-key")).unwrap();
    fs::remove_file(folder.path().join("master-key")).unwrap();
    let mut server = Server::start(folder.path(), &[], &[]);
    assert_ne!(before, key(folder.path()));
    // The server connects its own accounts again.
    let answer: Value = serde_json::from_str(&Server::paste(&server.curl)).unwrap();
    assert_eq!(answer["success"], json!(true), "{answer}");
    let intent = json!({"userId": "ann", "tool": "slack", "intent": "list_channels"});
    let (_, answer) = call(&server.address, &key(folder.path()), "/api/plugin-engine", Some(intent)).await;
    assert_eq!(answer["error"]["code"], json!("reconnect_required"), "{answer}");
    server.kill();
    let log = server.whole_log();
    assert!(log.contains("master-key is missing") && log.contains("an old one may still be good"), "{log}");
}

#[tokio::test]
async fn task_survives_a_crash() {
    let folder = tempdir().unwrap();
    let mut server = Server::start(folder.path(), &[], &[]);
    let key = key(folder.path());
    let soon = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let intent = json!({ "tool": "slack", "intent": "send", "scheduledTime": soon.to_string(),
                         "context": { "channel": "#general", "text": "after the crash" } });
    let (status, made) = call(&server.address, &key, "/api/plugin-engine", Some(intent)).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{made}");
    server.kill();
    // On a slow machine the task has run already.
    let line = "intent succeeded";
    let ran_before = server.whole_log().matches(line).count();

    let mut server = Server::start(folder.path(), &[], &[]);
    if ran_before == 0 {
        server.wait_for_log(line);
    }
    let path = format!("/api/plugin-engine/tasks/{}", made["task"]["id"].as_str().unwrap());
    server.signal("INT");
    assert_eq!(server.wait(), Some(0));
    assert_eq!(ran_before + server.whole_log().matches(line).count(), 1);
    let server = Server::start(folder.path(), &[], &[]);
    let (_, task) = call(&server.address, &key, &path, None).await;
    assert_eq!((&task["status"], &task["runs"]), (&json!("succeeded"), &json!(1)), "{task}");
}
