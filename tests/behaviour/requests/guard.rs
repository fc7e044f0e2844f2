//! The local server answers only to its own host names, and not to pages of other sites.

use reqwest::Method;

use super::{INTENTS, hello, raw};
use crate::support::app::{Answer, App};

async fn get(app: &App, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = app.request(Method::GET, path).bearer_auth(&app.admin);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    Answer::of(request.send().await.unwrap()).await
}

const PATHS: [&str; 5] = ["/health", INTENTS, "/nowhere", "/playground", "/playground/received"];

#[tokio::test]
async fn foreign_host_is_refused_on_every_route() {
    let app = App::start().await;
    let port = app.address.port();
    let (own, next) = (format!("localhost:{port}"), port.wrapping_add(1));
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        format!("localhost:{next}"),
        format!("localhost.:{port}"),
        format!("localhost.evil.example:{port}"),
        format!("{own}.evil.example"),
        format!("127.0.0.2:{port}"),
        format!("0.0.0.0:{port}"),
        format!("::1:{port}"),
        format!("user@{own}"),
        format!("{own},{own}"),
        format!("{own}/"),
    ] {
        for path in PATHS {
            let answer = get(&app, path, &[("host", &host)]).await;
            assert_eq!(answer.problem(403), "forbidden", "{host} {path}");
        }
    }
}

#[tokio::test]
async fn own_host_names_are_accepted_with_the_port() {
    let app = App::start().await;
    let port = app.address.port();
    for name in ["localhost", "127.0.0.1", "[::1]", "LocalHost"] {
        let host = format!("{name}:{port}");
        let origin = format!("http://{host}");
        assert_eq!(get(&app, "/health", &[("host", &host)]).await.status, 200, "{host}");
        assert_eq!(get(&app, INTENTS, &[("host", &host), ("origin", &origin)]).await.status, 200, "{host}");
        assert_eq!(get(&app, "/playground", &[("host", &host), ("origin", &origin)]).await.status, 200, "{host}");
    }
}

#[tokio::test]
async fn request_needs_exactly_one_host() {
    let app = App::start().await;
    let port = app.address.port();
    let host = format!("Host: localhost:{port}\r\n");
    for hosts in [format!("{host}{host}"), format!("{host}Host: evil.example\r\n"), "Host: \r\n".to_owned()] {
        for path in PATHS {
            let answer = raw(&app, &format!("GET {path} HTTP/1.1\r\n{hosts}Connection: close\r\n\r\n")).await;
            let status = answer.split(' ').nth(1).unwrap();
            assert!(["400", "403"].contains(&status), "{hosts:?} {path}: {answer}");
        }
    }
    let old = raw(&app, "GET /health HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 403") || old.starts_with("HTTP/1.1 403"), "{old}");
    let fine = raw(&app, &format!("GET /health HTTP/1.1\r\n{host}Connection: close\r\n\r\n")).await;
    assert!(fine.starts_with("HTTP/1.1 200"), "{fine}");
}

#[tokio::test]
async fn foreign_origin_is_refused_on_every_route() {
    let app = App::start().await;
    let port = app.address.port();
    let next = port.wrapping_add(1);
    for origin in [
        "null".to_owned(),
        String::new(),
        "https://evil.example".to_owned(),
        format!("http://evil.example:{port}"),
        format!("https://localhost:{port}"),
        format!("http://localhost:{next}"),
        "http://localhost".to_owned(),
        format!("http://localhost:{port}.evil.example"),
        format!("http://localhost:{port}/"),
        "file://".to_owned(),
    ] {
        for path in PATHS {
            let answer = get(&app, path, &[("origin", &origin)]).await;
            assert_eq!(answer.problem(403), "forbidden", "{origin} {path}");
        }
    }
    let answer = app
        .request(Method::POST, INTENTS)
        .bearer_auth(&app.admin)
        .header("content-type", "application/json")
        .header("origin", "https://evil.example")
        .body(hello().to_string());
    assert_eq!(Answer::of(answer.send().await.unwrap()).await.problem(403), "forbidden");
    assert_eq!(app.playground.received_total(), 0);
}

#[tokio::test]
async fn answer_has_no_cors_header() {
    let app = App::start().await;
    let own = format!("http://localhost:{}", app.address.port());
    for path in PATHS {
        for origin in ["https://evil.example", own.as_str()] {
            let answer = get(&app, path, &[("origin", origin)]).await;
            assert_eq!(answer.headers.get("access-control-allow-origin"), None, "{path}");
        }
    }
}

#[tokio::test]
async fn http2_names_the_host_in_its_target() {
    let app = App::start().await;
    let client =
        reqwest::Client::builder().http2_prior_knowledge().resolve("evil.example", app.address).build().unwrap();
    let health = async |host: &str| {
        let request = client.get(format!("http://{host}:{}/health", app.address.port()));
        Answer::of(request.send().await.unwrap()).await
    };
    assert_eq!(health("127.0.0.1").await.status, 200);
    assert_eq!(health("evil.example").await.problem(403), "forbidden");
}
