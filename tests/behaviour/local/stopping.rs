//! How the local server stops.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::{TempDir, tempdir};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::{call, key};
use crate::support::process::Server;

const INTENTS: &str = "/api/plugin-engine";

/// A server with the plugin `slow`, whose service answers when the test lets it.
struct Slow {
    server: Server,
    key: String,
    /// Told when a call has come.
    arrived: Arc<Notify>,
    /// Lets one call be answered.
    release: Arc<Notify>,
    _folder: TempDir,
}

impl Slow {
    async fn start() -> Self {
        let (arrived, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let gates = (arrived.clone(), release.clone());
        let service = Router::new().route(
            "/do",
            post(async move || {
                gates.0.notify_one();
                gates.1.notified().await;
                r#"{"done": true}"#
            }),
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(axum::serve(listener, service).into_future());

        let folder = tempdir().unwrap();
        let plugins = folder.path().join("plugins");
        fs::create_dir_all(plugins.join("slow")).unwrap();
        let manifest = format!(
            "name: slow\nversion: 1.0.0\ndisplay_name: Slow\ndescription: Slow.\n\
             runtime: {{ type: http, base_url: 'http://{address}' }}\npermissions: ['network:127.0.0.1']\n\
             actions:\n  - {{ name: do, description: Does., effect: unsafe, request: {{ method: POST, path: /do }} }}\n"
        );
        fs::write(plugins.join("slow/plugin.yaml"), manifest).unwrap();
        let data = folder.path().join("data");
        let arguments = ["--plugins", plugins.to_str().unwrap()];
        let server = Server::start(&data, &arguments, &[("OVERSEER_ALLOW_ADDRESSES", &address)]);
        let key = key(&data);
        Self { server, key, arrived, release, _folder: folder }
    }

    /// Sends an intent, and stops the server once the service has its call: `meanwhile` is done before the service answers.
    /// Returns the answer of the intent.
    async fn stop_with_intent_in_flight(&mut self, meanwhile: impl AsyncFnOnce(&mut Server)) -> Value {
        let address = self.server.address.clone();
        let intent = json!({"tool": "slow", "intent": "do"});
        let (answer, ()) = tokio::join!(call(&address, &self.key, INTENTS, Some(intent)), async {
            self.arrived.notified().await;
            self.server.signal("INT");
            self.server.wait_for_log("stopping");
            meanwhile(&mut self.server).await;
            self.release.notify_one();
        });
        answer.1
    }
}

#[tokio::test]
async fn ctrl_c_finishes_what_is_in_flight() {
    let mut slow = Slow::start().await;
    let answer = slow.stop_with_intent_in_flight(async |_| {}).await;
    assert_eq!(answer["data"], json!({"done": true}), "{answer}");
    assert_eq!(slow.server.wait(), Some(0));
    assert!(slow.server.whole_log().contains("stopped"));
}

#[tokio::test]
async fn request_while_stopping_is_unavailable() {
    let mut slow = Slow::start().await;
    let key = slow.key.clone();
    slow.stop_with_intent_in_flight(async |server| {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.get(format!("http://{}{INTENTS}", server.address)).bearer_auth(&key);
        let answer = request.send().await.unwrap();
        assert_eq!(
            (answer.status(), &answer.headers()["retry-after"]),
            (StatusCode::SERVICE_UNAVAILABLE, &"5".parse().unwrap())
        );
    })
    .await;
}

#[tokio::test]
async fn stand_in_answers_while_stopping() {
    let mut slow = Slow::start().await;
    slow.stop_with_intent_in_flight(async |server| {
        let page = reqwest::get(format!("http://{}/playground", server.address)).await.unwrap();
        assert_eq!(page.status(), StatusCode::OK);
    })
    .await;
}

#[tokio::test]
async fn second_ctrl_c_tells_what_it_cut() {
    let mut slow = Slow::start().await;
    let intent = json!({"tool": "slow", "intent": "do"}).to_string();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("http://{}{INTENTS}", slow.server.address)).bearer_auth(&slow.key);
    let sent = tokio::spawn(request.header("content-type", "application/json").body(intent).send());
    slow.arrived.notified().await;
    slow.server.signal("INT");
    slow.server.wait_for_log("stopping");
    slow.server.signal("INT");
    assert_eq!(slow.server.wait(), Some(0));
    let log = slow.server.whole_log();
    assert!(log.lines().any(|line| line.contains("stopped at once") && line.contains("requests=1")), "{log}");
    assert!(sent.await.unwrap().is_err());
}

#[test]
fn half_a_request_does_not_delay_the_stop() {
    let folder = tempdir().unwrap();
    for begun in
        ["G", "GET /health HTTP/1.1\r\nhost: x", "POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n{", "PRI * HTTP/2.0\r\n"]
    {
        let mut server = Server::start(&folder.path().join("data"), &[], &[]);
        let mut client = TcpStream::connect(&server.address).unwrap();
        client.write_all(begun.as_bytes()).unwrap();
        server.signal("INT");
        assert_eq!(server.wait(), Some(0), "{begun}");
        assert!(!server.whole_log().contains("were cut"), "{begun}");
    }
}
