//! What the local server does while its data file cannot grow, and after.

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tempfile::tempdir;

use super::{call, key};
use crate::support::own;
use crate::support::process::Server;

const KEYS: &str = "/api/v1/keys";

/// Registers a version of a plugin whose manifest has 200 KB.
async fn register(address: &str, key: &str, version: u32) -> (StatusCode, Value) {
    let manifest = own::manifest("https://own.example", &json!({ "type": "none" }));
    let manifest = manifest.replace("1.0.0", &format!("1.0.{version}")) + &" ".repeat(200_000);
    let request = Client::new().post(format!("http://{address}/plugins")).bearer_auth(key);
    let answer = request.header("content-type", "application/json").body(manifest).send().await.unwrap();
    (answer.status(), serde_json::from_str(&answer.text().await.unwrap()).unwrap())
}

/// A server whose data file cannot grow, after a write that has failed for it.
async fn full_server(data: &std::path::Path) -> (Server, String) {
    let server = Server::start(data, &[], &[]);
    let key = key(data);
    server.limit_file_size("1100000");
    for number in 0..20 {
        let (status, answer) = register(&server.address, &key, number).await;
        if status != StatusCode::CREATED {
            assert_eq!((status, &answer["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable")), "{answer}");
            return (server, key);
        }
    }
    panic!("the data file never met its limit");
}

#[tokio::test]
async fn writing_goes_on_when_the_disk_has_room_again() {
    let folder = tempdir().unwrap();
    let (server, key) = full_server(folder.path()).await;
    server.limit_file_size("unlimited");
    let body = json!({ "name": "after", "roles": ["service"] });
    let (status, answer) = call(&server.address, &key, KEYS, Some(body)).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
}

#[tokio::test]
async fn reading_goes_on_while_the_disk_is_full() {
    let folder = tempdir().unwrap();
    let (server, key) = full_server(folder.path()).await;
    assert_eq!(call(&server.address, &key, KEYS, None).await.0, StatusCode::OK);
}

#[tokio::test]
async fn health_tells_whether_writing_works() {
    let folder = tempdir().unwrap();
    let (server, key) = full_server(folder.path()).await;
    let health = async || call(&server.address, &key, "/health", None).await;
    assert_eq!(health().await.1["writing"], json!(false));
    server.limit_file_size("unlimited");
    call(&server.address, &key, "/health/ready", None).await;
    assert_eq!(health().await.1["writing"], json!(true));
}

#[tokio::test]
async fn readiness_gives_the_reason_of_a_failed_write() {
    let folder = tempdir().unwrap();
    let (server, key) = full_server(folder.path()).await;
    // Small writes fit into the file as it is.
    server.limit_file_size("100");
    let ready = async || call(&server.address, &key, "/health/ready", None).await;
    let (status, problem) = ready().await;
    assert_eq!((status, &problem["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable")));
    assert!(problem["detail"].as_str().unwrap().contains("File too large"), "{problem}");
    server.limit_file_size("unlimited");
    assert_eq!(ready().await, (StatusCode::OK, json!({ "status": "ready" })));
}
