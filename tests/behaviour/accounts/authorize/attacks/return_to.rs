//! Where Overseer may redirect a browser, and the public URL in its links.

use super::*;

const CONNECT: &str = "/api/plugin-engine/integrations/slack/connect";

#[tokio::test]
async fn return_to_is_limited_to_the_operators_list() {
    let allowed = ["https://agent.example/done", "https://root.example", "http://127.0.0.1:9999/cb/"];
    let return_to = allowed.map(str::to_owned).to_vec();
    let app = App::with(Options { unconnected: true, return_to, ..Options::default() }).await;
    let none = App::with(Options { unconnected: true, ..Options::default() }).await;
    for url in [
        "https://evil.example/done",
        "https://agent.example@evil.example/done",
        "https://agent.example:443@evil.example/done",
        "https://user@agent.example/done",
        "https://:password@agent.example/done",
        "https://agent.example.evil.example/done",
        "https://agent.example\t.evil.example/done",
        "https://evilagent.example/done",
        "https://agent.example./done",
        "https://\u{430}gent.example/done",
        "https://xn--gent-53d.example/done",
        "https://agent.example/",
        "https://agent.example/donexyz",
        "https://agent.example/done;x",
        "https://agent.example/Done",
        "https://agent.example/d%6fne",
        "https://agent.example//done",
        "https://agent.example/done/../x",
        "https://agent.example/done/%2e%2e/x",
        "https://agent.example/done/.%2E/x",
        "https://agent.example/done/..%2fx",
        "https://agent.example/done/%2F..%2Fx",
        "https://agent.example/done/..%5cx",
        "https://agent.example/done\\..\\x",
        "https://agent.example\\@evil.example/done",
        "https://evil.example\\@agent.example/done",
        "https:\\\\evil.example/done",
        "https:evil.example/done",
        "https:///evil.example/done",
        "http://agent.example/done",
        "wss://agent.example/done",
        "https://agent.example:8443/done",
        "https://agent.example/done#",
        "https://agent.example/done#code=x",
        "https://agent.example/done?code=x",
        "https://agent.example/done?x=1&error",
        "https://agent.example/done?%63ode=x",
        "https://root.example@evil.example",
        "https://root.example.evil.example",
        "http://127.0.0.1:9998/cb",
        "http://127.0.0.1/cb",
        "http://localhost:9999/cb",
        "http://127.0.0.1:9999/c",
        "https://127.0.0.1:9999/cb",
        "javascript:alert(1)",
        "javascript://agent.example/done",
        "data:text/html,done",
        "blob:https://agent.example/done",
        "blob:https://root.example/",
        "file:///done",
        "custom://agent.example/done",
        "//agent.example/done",
        "/done",
        "agent.example/done",
        "https://",
        "",
    ] {
        for app in [&app, &none] {
            let answer = app.post(CONNECT, &json!({ "returnTo": url })).await;
            assert_eq!(answer.problem(400), "invalid_parameters", "{url}");
            assert_eq!(answer.pointers(), ["/returnTo"], "{url}");
        }
    }
    for (url, exactly) in [
        ("https://agent.example/done", "https://agent.example/done?"),
        ("HTTPS://AGENT.example:443/done", "https://agent.example/done?"),
        ("https://agent.example/x/../done", "https://agent.example/done?"),
        ("https://agent.example/done/", "https://agent.example/done/?"),
        ("https://agent.example/done//evil.example", "https://agent.example/done//evil.example?"),
        ("https://agent.example/done?x=%26code%3D1", "https://agent.example/done?x=%26code%3D1&"),
        (
            "https://agent.example/done?next=https://evil.example",
            "https://agent.example/done?next=https://evil.example&",
        ),
        ("https://root.example", "https://root.example/?"),
        ("https://root.example/any/where", "https://root.example/any/where?"),
        ("http://127.0.0.1:9999/cb", "http://127.0.0.1:9999/cb?"),
    ] {
        let mut browser = Browser::new(&app);
        let provider = browser.go(&link(&app, "slack", &json!({ "returnTo": url })).await).await;
        let back = browser.decide(&provider, "allow").await;
        let on = leads_to(&browser.open(&back).await);
        let code = on.strip_prefix(exactly).and_then(|rest| rest.strip_prefix("code="));
        assert!(code.is_some_and(|code| code.len() == 64 && code.bytes().all(|b| b.is_ascii_hexdigit())), "{on}");
        let answer = none.post(CONNECT, &json!({ "returnTo": url })).await;
        assert_eq!(answer.pointers(), ["/returnTo"], "{url}");
    }
}

/// A `Host` is the client's word: a link by it would send the browser, with its ticket, anywhere.
#[tokio::test]
async fn links_come_from_the_public_url() {
    let app = super::super::unconnected().await;
    let (own, other) = (format!("http://{}/", app.address), format!("localhost:{}", app.address.port()));
    let sent = async |method: Method, path: &str, page: Option<&Answer>| {
        let mut request = app.request(method.clone(), path).header("host", &other).bearer_auth(&app.admin);
        for (name, value) in [
            ("x-forwarded-host", "evil.example"),
            ("x-forwarded-proto", "https"),
            ("forwarded", "host=evil.example;proto=https"),
            ("x-original-url", "https://evil.example/"),
        ] {
            request = request.header(name, value);
        }
        if let Some(page) = page {
            let cookie = page.headers["set-cookie"].to_str().unwrap().split(';').next().unwrap();
            request = request.header("cookie", cookie).header("content-type", "application/x-www-form-urlencoded");
            request = request.body(consent(&page.text));
        }
        if path == CONNECT {
            request = request.header("content-type", "application/json").body("{}");
        }
        Answer::of(request.send().await.unwrap()).await
    };
    let link = sent(Method::POST, CONNECT, None).await.json()["connectUrl"].as_str().unwrap().to_owned();
    let path = link.strip_prefix(&own).unwrap_or_else(|| panic!("{link}"));
    let page = sent(Method::GET, &format!("/{path}"), None).await;
    let request = leads_to(&sent(Method::POST, &format!("/{path}"), Some(&page)).await);
    let redirect_uri = parameter(&request, "redirect_uri").unwrap();
    assert_eq!(redirect_uri, format!("{own}api/plugin-engine/oauth/callback/slack"));
    assert!(!page.text.contains("evil") && !request.contains("evil"), "{} {request}", page.text);
}
