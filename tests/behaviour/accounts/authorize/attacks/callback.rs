//! Attacks with what comes back from a provider: states, codes and their parameters.

use axum::http::StatusCode;
use overseer_engine::access::principal::Role;
use reqwest::Method;
use serde_json::json;

use super::super::{Browser, accounts, leads_to, link, parameter};
use super::{Flow, NOT_KNOWN, OTHER_BROWSER, OTHER_PROVIDER, Stage, is_page, kept, set_client};
use crate::support::app::Answer;

#[tokio::test]
async fn unknown_state_is_refused() {
    let stage = Stage::new().await;
    let mut flow = stage.flow("honest", &json!({})).await;
    let (upper, longer) = (flow.state.to_ascii_uppercase(), format!("{}0", flow.state));
    let (zeros, ticket) = ("0".repeat(64), flow.ticket.clone());
    let missing = flow.with(&[("code", &flow.code)]);
    let mut cases = vec![(missing, "it has no state"), (flow.with(&[("code", &flow.code), ("state", "")]), "no state")];
    for state in [&zeros, &ticket, &upper, &longer, "x", "../state", "<script>", "\0", &"s".repeat(4096)] {
        cases.push((flow.with(&[("code", &flow.code), ("state", state)]), NOT_KNOWN));
    }
    cases.push((format!("{}?code={}&state=%FF%FE", flow.back, flow.code), NOT_KNOWN));
    cases.push((flow.back.clone(), "it has no state"));
    for (url, says) in cases {
        let answer = flow.browser.open(&url).await;
        stage.refused(&answer, 400, says, &flow).await;
    }
    assert!(stage.honest.asked().is_empty());
    flow.finishes().await;
}

#[tokio::test]
async fn state_is_used_once() {
    let stage = Stage::new().await;
    // Denied, then tried with a code.
    let mut flow = stage.flow("honest", &json!({})).await;
    let denied = flow.with(&[("error", "access_denied"), ("state", &flow.state)]);
    let answer = flow.browser.open(&denied).await;
    stage.refused(&answer, 400, "Access was denied at the service", &flow).await;
    for url in [flow.answer(), denied] {
        let answer = flow.browser.open(&url).await;
        stage.refused(&answer, 400, NOT_KNOWN, &flow).await;
    }
    assert!(stage.honest.asked().is_empty());

    // Connected, then replayed, also with another code.
    let mut flow = stage.flow("honest", &json!({})).await;
    flow.finishes().await;
    let after = kept(&stage.app).await;
    let fresh = stage.honest.grant(&flow.request).unwrap();
    for url in [flow.answer(), flow.with(&[("code", &fresh), ("state", &flow.state)])] {
        let answer = flow.browser.open(&url).await;
        is_page(&answer, 400, NOT_KNOWN, &flow);
    }
    assert_eq!((stage.honest.asked().len(), kept(&stage.app).await), (1, after));
}

#[tokio::test]
async fn state_expires_after_ten_minutes() {
    let stage = Stage::new().await;
    let mut late = stage.flow("honest", &json!({ "alias": "late" })).await;
    stage.app.clock.advance(1);
    let mut timely = stage.flow("honest", &json!({})).await;
    stage.app.clock.advance(599);
    let answer = late.finish().await;
    stage.refused(&answer, 400, NOT_KNOWN, &late).await;
    assert!(stage.honest.asked().is_empty());
    timely.finishes().await;
}

#[tokio::test]
async fn one_of_many_requests_wins_a_state() {
    let stage = Stage::new().await;
    let flow = stage.flow("honest", &json!({})).await;
    let url = flow.answer();
    let requests = (0..8).map(|_| {
        let (cookie, url) = (flow.browser.cookie.clone(), url.clone());
        let app = &stage.app;
        async move { Browser::with(app, cookie).open(&url).await }
    });
    let answers = futures_util::future::join_all(requests).await;
    let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == StatusCode::OK);
    assert_eq!((won.len(), stage.honest.asked().len()), (1, 1));
    for answer in lost {
        is_page(answer, 400, NOT_KNOWN, &flow);
    }
    assert_eq!(accounts(&stage.app, "honest", "admin").await.len(), 1);
}

/// A second person with the link must not replace the account that its user connected.
#[tokio::test]
async fn link_opened_by_many_browsers_connects_once() {
    let stage = Stage::new().await;
    let link = link(&stage.app, "honest", &json!({})).await;
    let mut mallory = stage.flow_of("honest", &link, Browser::new(&stage.app)).await;
    let mut again = stage.flow_of("honest", &link, Browser::new(&stage.app)).await;
    let mut ann = stage.flow_of("honest", &link, Browser::new(&stage.app)).await;
    ann.finishes().await;
    let after = kept(&stage.app).await;
    for flow in [&mut mallory, &mut again] {
        let answer = flow.finish().await;
        is_page(&answer, 400, NOT_KNOWN, flow);
    }
    // Nor at the end of its time.
    stage.app.clock.advance(599);
    is_page(&mallory.finish().await, 400, NOT_KNOWN, &mallory);
    assert_eq!((stage.honest.asked().len(), kept(&stage.app).await), (1, after));
}

#[tokio::test]
async fn one_of_many_browsers_wins_a_link() {
    let stage = Stage::new().await;
    let link = link(&stage.app, "honest", &json!({})).await;
    let mut flows = Vec::new();
    for _ in 0..6 {
        flows.push(stage.flow_of("honest", &link, Browser::new(&stage.app)).await);
    }
    let answers = futures_util::future::join_all(flows.iter_mut().map(Flow::finish)).await;
    for (answer, flow) in answers.iter().zip(&flows).filter(|(answer, _)| answer.status != StatusCode::OK) {
        is_page(answer, 400, NOT_KNOWN, flow);
    }
    let won = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!((won, stage.honest.asked().len()), (1, 1));
}

#[tokio::test]
async fn other_browser_is_refused() {
    let stage = Stage::new().await;
    let mut flow = stage.flow("honest", &json!({})).await;
    let others = stage.flow("honest", &json!({ "alias": "others" })).await.browser.cookie.unwrap();
    let own = flow.browser.cookie.clone().unwrap();
    let (name, secret) = own.split_once('=').unwrap();
    let mut cookies = vec![None, Some(others.clone())];
    let zeros = "0".repeat(64);
    for value in ["", "x", secret.split_at(1).1, &format!("{secret}0"), &zeros, &format!("\"{secret}\""), "é"] {
        cookies.push(Some(format!("{name}={value}")));
    }
    cookies.push(Some(format!("x{own}")));
    cookies.push(Some(format!("__Host-{own}")));
    // Two cookies of one name: an attacker may have set either.
    for both in [format!("{own}; {others}"), format!("{others}; {own}"), format!("{own}; {name}=x")] {
        cookies.push(Some(both));
    }
    for cookie in cookies {
        let answer = Browser::with(&stage.app, cookie).open(&flow.answer()).await;
        stage.refused(&answer, 403, OTHER_BROWSER, &flow).await;
    }
    let path = flow.answer().replace(&format!("http://{}", stage.app.address), "");
    let twice = stage.app.request(Method::GET, &path).header("cookie", &own).header("cookie", &others);
    stage.refused(&Answer::of(twice.send().await.unwrap()).await, 403, OTHER_BROWSER, &flow).await;
    assert!(stage.honest.asked().is_empty());
    flow.finishes().await;
}

#[tokio::test]
async fn callback_at_another_address_is_refused() {
    let stage = Stage::new().await;
    for rest in [
        "/other",
        "/slack",
        "",
        "/nowhere",
        "/Honest",
        "/honest%3Fx",
        "/honest%2F",
        "/x%2F..%2Fhonest",
        "/.%2Fhonest",
        "/hon%09est",
        "/%FF",
        "/%00",
    ] {
        let mut flow = stage.flow("honest", &json!({ "returnTo": "https://agent.example/done" })).await;
        let elsewhere = flow.answer().replace("/callback/honest?", &format!("/callback{rest}?"));
        let answer = flow.browser.open(&elsewhere).await;
        stage.refused(&answer, 400, OTHER_PROVIDER, &flow).await;
        let answer = flow.finish().await;
        stage.refused(&answer, 400, NOT_KNOWN, &flow).await;
    }
    assert!(stage.honest.asked().is_empty() && stage.other.asked().is_empty());
}

#[tokio::test]
async fn account_of_another_organization_is_unreachable() {
    let stage = Stage::new().await;
    let app = &stage.app;
    let bob = app.key("globex", &[Role::Administrator], Some("ann")).await;
    set_client(app, "honest", &json!({ "clientId": "overseer" })).await;
    let body = json!({ "userId": "ann", "returnTo": "https://agent.example/done" });
    let mut flow = stage.flow("honest", &body).await;
    let sees = async || {
        for path in ["", "/honest", "/honest?userId=ann", "/honest?owner=organization"] {
            let answer = app.send(&bob, Method::GET, &format!("/api/plugin-engine/integrations{path}"), None).await;
            let said = answer.json();
            let list = said.get("integrations").or_else(|| said.get("accounts")).unwrap();
            assert_eq!(list, &json!([]), "{path}");
        }
        for path in ["/honest", "/honest?userId=ann&alias=default"] {
            let answer = app.send(&bob, Method::DELETE, &format!("/api/plugin-engine/integrations{path}"), None).await;
            assert_eq!(answer.problem(404), "not_found");
        }
        let default = json!({ "alias": "default", "userId": "ann" });
        let path = "/api/plugin-engine/integrations/honest/default";
        assert_eq!(app.send(&bob, Method::PUT, path, Some(&default)).await.problem(404), "not_found");
    };
    sees().await;
    let code = parameter(&leads_to(&flow.finish().await), "code").unwrap();
    sees().await;
    let complete = "/api/plugin-engine/integrations/honest/connect/complete";
    let confirm = json!({ "userId": "ann", "code": code });
    assert_eq!(app.send(&bob, Method::POST, complete, Some(&confirm)).await.pointers(), ["/code"]);
    assert_eq!(accounts(app, "honest", "ann").await[0]["state"], "pending");
    assert_eq!(app.post(complete, &confirm).await.json()["state"], "active");
    sees().await;
    assert_eq!(accounts(app, "honest", "ann").await[0]["state"], "active");
}

#[tokio::test]
async fn malformed_callback_is_refused() {
    let stage = Stage::new().await;
    let mut flow = stage.flow("honest", &json!({})).await;
    let (own, code, long) = (flow.state.clone(), flow.code.clone(), "x".repeat(4097));
    for (more, says) in [
        (vec![("state", own.as_str())], "twice"),
        (vec![("state", "")], "twice"),
        (vec![("code", code.as_str())], "twice"),
        (vec![("code", "other")], "twice"),
        (vec![("iss", "a"), ("iss", "a")], "twice"),
        (vec![("error", "a"), ("error", "b")], "twice"),
        (vec![("iss", long.as_str())], "too long"),
        (vec![("error", long.as_str())], "too long"),
    ] {
        let url = flow.with(&[vec![("state", own.as_str()), ("code", code.as_str())], more].concat());
        let answer = flow.browser.open(&url).await;
        stage.refused(&answer, 400, says, &flow).await;
    }
    for (name, other) in [("state", ("code", code.as_str())), ("code", ("state", own.as_str()))] {
        let answer = flow.browser.open(&flow.with(&[(name, long.as_str()), other])).await;
        stage.refused(&answer, 400, "too long", &flow).await;
    }
    assert!(stage.honest.asked().is_empty());
    flow.finishes().await;
}

#[tokio::test]
async fn unknown_callback_parameters_are_ignored() {
    let stage = Stage::new().await;
    let (long, many) = ("x".repeat(20_000), "&a=b".repeat(5000));
    for more in [format!("&more={long}"), many, "&%FF=%FE&=&&;&%&code[]=x&Code=x&constructor=1".to_owned()] {
        let mut flow = stage.flow("honest", &json!({})).await;
        let answer = flow.browser.open(&format!("{}{more}", flow.answer())).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
}

#[tokio::test]
async fn callback_without_code_asks_no_provider() {
    let stage = Stage::new().await;
    let code = stage.flow("honest", &json!({})).await.code;
    for (pairs, says) in [
        (vec![], "it has no code"),
        (vec![("code", "")], "it has no code"),
        (vec![("error", "access_denied")], "Access was denied at the service"),
        (vec![("error", "access_denied"), ("code", &code)], "Access was denied at the service"),
        (vec![("code", code.as_str()), ("error", "temporarily_unavailable")], "refused (temporarily_unavailable)"),
        (vec![("error", "<script>alert(1)</script>")], "refused (an unreadable reason)"),
        (vec![("error", "a b"), ("error_description", "<b>call this number</b>")], "refused (an unreadable reason)"),
        (vec![("error", "x"), ("error_uri", "https://evil.example/help")], "refused (x)"),
    ] {
        let mut flow = stage.flow("honest", &json!({})).await;
        let url = flow.with(&[vec![("state", flow.state.as_str())], pairs].concat());
        let answer = flow.browser.open(&url).await;
        stage.refused(&answer, 400, says, &flow).await;
        for hostile in ["script>", "call this", "evil.example"] {
            assert!(!answer.text.contains(hostile), "{}", answer.text);
        }
        let answer = flow.finish().await;
        stage.refused(&answer, 400, NOT_KNOWN, &flow).await;
    }
    assert!(stage.honest.asked().is_empty());
}

#[tokio::test]
async fn application_gets_the_error_code_only() {
    let stage = Stage::new().await;
    for (error, sent_on) in
        [("access_denied", "access_denied"), ("temporarily_unavailable", "server_error"), ("\r\nx: y", "server_error")]
    {
        let mut flow = stage.flow("honest", &json!({ "returnTo": "https://agent.example/done?x=1" })).await;
        let hostile = ("error_description", "<b>&code=x#</b>");
        let url = flow.with(&[("error", error), hostile, ("code", &flow.code), ("state", &flow.state)]);
        let on = leads_to(&flow.browser.open(&url).await);
        assert_eq!(on, format!("https://agent.example/done?x=1&error={sent_on}"));
        assert_eq!(kept(&stage.app).await, stage.before);
    }
    assert!(stage.honest.asked().is_empty());
}

#[tokio::test]
async fn unknown_code_connects_nothing() {
    let stage = Stage::new().await;
    for (asked, code) in ["x", &"x".repeat(4096), "<script>", "a&client_id=b", "a\r\nb", "\0"].into_iter().enumerate() {
        let mut flow = stage.flow("honest", &json!({})).await;
        let answer = flow.browser.open(&flow.with(&[("code", code), ("state", &flow.state)])).await;
        stage.refused(&answer, 400, "refused (invalid_grant)", &flow).await;
        let body = stage.honest.asked()[asked].clone();
        let clients = body.split('&').filter(|pair| pair.trim_start().starts_with("client_id=")).count();
        assert_eq!(clients, 1, "{body}");
    }
    let mut flow = stage.flow("honest", &json!({})).await;
    let answer = flow.browser.open(&format!("{}?code=%FF%C0&state={}", flow.back, flow.state)).await;
    stage.refused(&answer, 400, "refused (invalid_grant)", &flow).await;
}

/// RFC 9700, 4.5: a code that was given to another attempt comes with another verifier.
#[tokio::test]
async fn code_of_another_attempt_is_refused() {
    let stage = Stage::new().await;
    for (victims, attackers) in [("ann", "mallory"), ("ann", "ann")] {
        let mut victim = stage.flow("honest", &json!({ "userId": victims })).await;
        let mut attacker = stage.flow("honest", &json!({ "userId": attackers })).await;
        // Mallory's code would have Ann's agent work in Mallory's account; the other way round is theft.
        let (victims, attackers) = (victim.code.clone(), attacker.code.clone());
        for (flow, code) in [(&mut victim, attackers), (&mut attacker, victims)] {
            let answer = flow.browser.open(&flow.with(&[("code", &code), ("state", &flow.state)])).await;
            stage.refused(&answer, 400, "refused (invalid_grant)", flow).await;
        }
    }
    // In one browser with one cookie it is the state that tells the attempts apart.
    let first = stage.flow("honest", &json!({})).await;
    let cookie = first.browser.cookie.clone();
    let link = link(&stage.app, "honest", &json!({})).await;
    let mut second = stage.flow_of("honest", &link, Browser::with(&stage.app, cookie.clone())).await;
    assert_eq!(second.browser.cookie, cookie);
    let answer = second.browser.open(&second.with(&[("code", &first.code), ("state", &second.state)])).await;
    stage.refused(&answer, 400, "refused (invalid_grant)", &second).await;
}
