//! Connections of the local server that send nothing, or too many of them.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::{get, post};
use overseer::connections::{ConnectionLimits, ConnectionServer};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const HOUR: Duration = Duration::from_hours(1);
const SHORT: Duration = Duration::from_millis(20);
/// Long enough for a request to come on a busy machine.
const ENOUGH: Duration = Duration::from_secs(2);
const PATIENT: ConnectionLimits = ConnectionLimits { head: HOUR, body: HOUR, idle: HOUR, connections: 100 };

async fn read(request: Request) -> Result<Bytes, StatusCode> {
    to_bytes(request.into_body(), 1_000).await.map_err(|_| StatusCode::BAD_REQUEST)
}

async fn start(limits: ConnectionLimits) -> (ConnectionServer, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new().route("/", get(async || "here")).route("/read", post(read));
    (ConnectionServer::start(listener, routes, limits), address)
}

/// What the server sends to a client that sends `text` and then waits for the end.
async fn answer(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn half_a_head_ends_in_time() {
    let (_server, address) = start(ConnectionLimits { head: SHORT, ..PATIENT }).await;
    for begun in ["G", "GET / HTTP/1.1\r\nhost: x", "PRI * HTTP/2.0\r\n"] {
        assert_eq!(answer(address, begun).await, "", "{begun}");
    }
}

#[tokio::test]
async fn silent_connection_ends_in_time() {
    let (_server, address) = start(ConnectionLimits { idle: SHORT, ..PATIENT }).await;
    assert_eq!(answer(address, "").await, "");
}

#[tokio::test]
async fn idle_connection_ends_after_its_answer() {
    let (_server, address) = start(ConnectionLimits { idle: ENOUGH, ..PATIENT }).await;
    let answer = answer(address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("here"), "{answer}");
}

#[tokio::test]
async fn half_a_body_is_refused_in_time() {
    let (_server, address) = start(ConnectionLimits { body: SHORT, idle: ENOUGH, ..PATIENT }).await;
    let answer = answer(address, "POST /read HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\n\r\nab").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
}

#[tokio::test]
async fn silent_connections_leave_room_for_others() {
    let (_server, address) = start(ConnectionLimits { connections: 3, ..PATIENT }).await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let answer = answer(address, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    assert!(answer.ends_with("here"), "{answer}");
    let mut oldest = silent.swap_remove(0);
    assert_eq!(oldest.read(&mut [0]).await.unwrap(), 0, "the oldest is closed");
}

/// A connection with a request in flight, which waits for its body.
async fn waiting_for_body(address: SocketAddr) -> TcpStream {
    let mut client = TcpStream::connect(address).await.unwrap();
    let head = b"POST /read HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
    client.write_all(head).await.unwrap();
    let mut proceed = [0; 25];
    client.read_exact(&mut proceed).await.unwrap();
    assert_eq!(&proceed, b"HTTP/1.1 100 Continue\r\n\r\n");
    client
}

#[tokio::test]
async fn half_a_body_does_not_delay_the_stop() {
    let (server, address) = start(PATIENT).await;
    let mut client = waiting_for_body(address).await;
    client.write_all(b"ab").await.unwrap();
    server.stop_reading();
    server.close().await;
    let mut status = [0; 12];
    client.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 400");
}

#[tokio::test]
async fn connections_with_requests_are_limited() {
    let (_server, address) = start(ConnectionLimits { connections: 1, ..PATIENT }).await;
    let _busy = waiting_for_body(address).await;
    let mut other = TcpStream::connect(address).await.unwrap();
    assert_eq!(other.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn closing_ends_silent_connections() {
    let (server, address) = start(PATIENT).await;
    let mut silent = TcpStream::connect(address).await.unwrap();
    // The server accepts connections in their order.
    answer(address, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    server.close().await;
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    assert!(TcpStream::connect(address).await.is_err(), "the port is closed");
}
