use overseer_playground::{NOTION_HOME_PAGE, NOTION_TASKS_DATABASE};
use serde_json::{Value, json};

use super::{refused, success};
use crate::support::app::App;

fn title_of(page: &Value, property: &str) -> String {
    page["properties"][property]["title"][0]["plain_text"].as_str().unwrap_or_default().to_owned()
}

fn names(data: &Value) -> Vec<String> {
    data["results"].as_array().unwrap().iter().map(|row| title_of(row, "Name")).collect()
}

/// The texts of the paragraphs in the last call.
fn paragraphs(app: &App) -> Vec<String> {
    let body = app.last_received().body;
    let text = |block: &Value| {
        assert_eq!((&block["object"], &block["type"]), (&json!("block"), &json!("paragraph")));
        block["paragraph"]["rich_text"][0]["text"]["content"].as_str().unwrap().to_owned()
    };
    body["children"].as_array().unwrap().iter().map(text).collect()
}

async fn page(app: &App, title: &str) -> Value {
    app.intend("notion", "create_page", json!({ "parent_id": NOTION_HOME_PAGE, "title": title })).await.data()
}

#[tokio::test]
async fn every_alias_creates_a_page() {
    let app = App::start().await;
    for name in ["create_page", "send", "create"] {
        let context = json!({ "parent_id": NOTION_HOME_PAGE, "title": format!("Plan für {name}") });
        let answer = app.intend("notion", name, context.clone()).await;
        let data = success(&answer, "notion", "create_page");
        assert_eq!(answer.json()["externalId"], data["id"]);
        assert_eq!(title_of(&data, "title"), context["title"].as_str().unwrap());
        assert!(data["url"].as_str().unwrap().starts_with("https://"));
        let received = app.last_received();
        assert_eq!((received.method.as_str(), received.path.as_str()), ("POST", "/playground/notion/v1/pages"));
        // An omitted parameter sends no key.
        let title = json!({ "title": [{ "type": "text", "text": { "content": context["title"] } }] });
        let expected = json!({ "parent": { "page_id": NOTION_HOME_PAGE }, "properties": { "title": title } });
        assert_eq!(received.body, expected);
    }
}

#[tokio::test]
async fn row_is_created_with_its_properties() {
    let app = App::start().await;
    let context = json!({
        "parent_id": NOTION_TASKS_DATABASE, "parent_type": "database", "title": "Buy milk",
        "properties": { "Status": { "select": { "name": "To do" } }, "Done": { "checkbox": true } },
    });
    let data = app.intend("notion", "create_page", context).await.data();
    assert_eq!(title_of(&data, "Name"), "Buy milk");
    assert_eq!(data["properties"]["Status"]["select"]["name"], "To do");
    assert_eq!(data["properties"]["Done"]["checkbox"], json!(true));
    assert_eq!(app.last_received().body["parent"], json!({ "database_id": NOTION_TASKS_DATABASE }));
}

#[tokio::test]
async fn long_content_is_split_without_loss() {
    let app = App::start().await;
    let words: String = (0..).map(|number| format!("wört{number} ")).take(2000).collect();
    for (content, most) in [
        (words.chars().take(5000).collect::<String>(), 5),
        ("x".repeat(5000), 3),
        ("👋".repeat(2001), 3),
        ("short".to_owned(), 1),
        (words.chars().cycle().take(50_000).collect(), 100),
        (format!("{} ", "y".repeat(1000)).chars().cycle().take(50_000).collect(), 100),
    ] {
        let create = json!({ "parent_id": NOTION_HOME_PAGE, "title": "Long", "content": content });
        let made = app.intend("notion", "create_page", create).await.data();
        let parts = paragraphs(&app);
        assert!(parts.iter().all(|part| part.encode_utf16().count() <= 2000));
        assert_eq!(parts.concat(), content);
        assert!(parts.len() <= most, "{} parts", parts.len());

        let append = json!({ "page_id": made["id"], "content": content });
        app.intend("notion", "append_content", append).await.data();
        assert_eq!(paragraphs(&app).concat(), content);
    }
}

#[tokio::test]
async fn content_above_50000_characters_is_refused() {
    let app = App::start().await;
    let more = json!({ "parent_id": NOTION_HOME_PAGE, "title": "Long", "content": "x".repeat(50_001) });
    let answer = app.intend("notion", "create_page", more).await;
    answer.problem(400);
    assert_eq!(answer.pointers(), ["/context/content"]);
}

#[tokio::test]
async fn blocks_are_passed_through_unchanged() {
    let app = App::start().await;
    let blocks = json!([
        { "type": "heading_1", "heading_1": { "rich_text": [{ "text": { "content": "Big {{ title }}" } }] } },
        { "type": "to_do", "to_do": { "rich_text": [{ "text": { "content": "x" } }], "checked": true } },
        { "type": "divider", "divider": {} },
    ]);
    let context = json!({ "parent_id": NOTION_HOME_PAGE, "title": "Blocks", "blocks": blocks });
    let made = app.intend("notion", "create", context).await.data();
    assert_eq!(app.last_received().body["children"], blocks);
    let data = app.intend("notion", "append", json!({ "page_id": made["id"], "blocks": blocks })).await.data();
    assert_eq!(app.last_received().body, json!({ "children": blocks }));
    assert_eq!(data["block_ids"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn content_with_blocks_is_not_silently_dropped() {
    let app = App::start().await;
    let blocks = json!([{ "type": "divider", "divider": {} }]);
    let context = json!({ "parent_id": NOTION_HOME_PAGE, "title": "Both", "content": "text", "blocks": blocks });
    let answer = app.intend("notion", "create", context).await;
    if answer.status != 400 {
        let sent = app.last_received().body["children"].to_string();
        assert!(sent.contains("divider") && sent.contains("text"), "one of the two was dropped: {sent}");
    }
}

#[tokio::test]
async fn update_sends_only_the_given_fields() {
    let app = App::start().await;
    let id = page(&app, "Before").await["id"].clone();
    let title = json!({ "title": [{ "type": "text", "text": { "content": "After" } }] });
    for (name, more, sent) in [
        ("update_page", json!({ "title": "After" }), json!({ "properties": { "title": title } })),
        ("update", json!({ "archived": true }), json!({ "archived": true })),
        ("update", json!({ "archived": false }), json!({ "archived": false })),
    ] {
        let mut context = more;
        context["page_id"] = id.clone();
        let answer = app.intend("notion", name, context).await;
        let data = success(&answer, "notion", "update_page");
        assert_eq!((&data["id"], &answer.json()["externalId"]), (&id, &id));
        assert_eq!(title_of(&data, "title"), "After");
        let received = app.last_received();
        assert_eq!(received.method, "PATCH");
        assert_eq!(received.path, format!("/playground/notion/v1/pages/{}", id.as_str().unwrap()));
        assert_eq!(received.body, sent);
    }
}

#[tokio::test]
async fn update_changes_only_the_named_properties() {
    let app = App::start().await;
    let context = json!({
        "parent_id": NOTION_TASKS_DATABASE, "parent_type": "database", "title": "Row",
        "properties": { "Notes": { "rich_text": [{ "text": { "content": "n" } }] } },
    });
    let row = app.intend("notion", "create", context).await.data();
    let change = json!({ "page_id": row["id"], "properties": { "Done": { "checkbox": true } } });
    let data = app.intend("notion", "update", change).await.data();
    assert_eq!(data["properties"]["Done"]["checkbox"], json!(true));
    assert_eq!(title_of(&data, "Name"), "Row");
    assert_eq!(data["properties"]["Notes"]["rich_text"][0]["plain_text"], "n");
}

#[tokio::test]
async fn content_is_appended_to_a_page() {
    let app = App::start().await;
    let id = page(&app, "Diary").await["id"].clone();
    for name in ["append_content", "append"] {
        let answer = app.intend("notion", name, json!({ "page_id": id, "content": name })).await;
        let data = success(&answer, "notion", "append_content");
        assert_eq!(data["block_ids"].as_array().unwrap().len(), 1);
        let received = app.last_received();
        assert_eq!(received.path, format!("/playground/notion/v1/blocks/{}/children", id.as_str().unwrap()));
        assert_eq!(paragraphs(&app), [name]);
    }
}

#[tokio::test]
async fn every_alias_queries_a_database() {
    let app = App::start().await;
    for name in ["query_database", "fetch", "query"] {
        let context = json!({ "database_id": NOTION_TASKS_DATABASE });
        let data = success(&app.intend("notion", name, context).await, "notion", "query_database");
        assert_eq!(names(&data).len(), 5);
        let received = app.last_received();
        assert_eq!(received.path, format!("/playground/notion/v1/databases/{NOTION_TASKS_DATABASE}/query"));
        assert_eq!(received.body, json!({ "page_size": 50 }));
    }
}

#[tokio::test]
async fn rows_are_filtered_and_sorted_by_the_service() {
    let app = App::start().await;
    let filter = json!({ "property": "Done", "checkbox": { "equals": true } });
    let sorts = json!([{ "property": "Due", "direction": "ascending" }]);
    let context = json!({ "database_id": NOTION_TASKS_DATABASE, "filter": filter, "sorts": sorts });
    let data = app.intend("notion", "query", context).await.data();
    assert_eq!(names(&data), ["Fix the login page", "Order the cake"]);
    assert_eq!(app.last_received().body, json!({ "filter": filter, "sorts": sorts, "page_size": 50 }));
}

#[tokio::test]
async fn row_pages_have_no_loss_or_duplicate() {
    let app = App::start().await;
    let query = json!({ "database_id": NOTION_TASKS_DATABASE });
    let whole = names(&app.intend("notion", "query", query.clone()).await.data());
    for limit in [1, 2, 5, 1000] {
        let (mut found, mut context) = (Vec::new(), query.clone());
        context["limit"] = json!(limit);
        loop {
            let page = app.intend("notion", "query", context.clone()).await.data();
            assert!(names(&page).len() <= limit);
            found.extend(names(&page));
            let Some(cursor) = page.get("next_cursor") else {
                assert_eq!(page["more"], json!(false));
                break;
            };
            assert_eq!(page["more"], json!(true));
            context["cursor"] = cursor.clone();
        }
        assert_eq!(found, whole, "limit {limit}");
    }
}

#[tokio::test]
async fn one_intent_reads_more_rows_than_a_service_page() {
    let app = App::start().await;
    for number in 0..120 {
        let row =
            json!({ "parent_id": NOTION_TASKS_DATABASE, "parent_type": "database", "title": format!("{number}") });
        app.intend("notion", "create", row).await.data();
    }
    let calls = app.playground.received_total();
    let context = json!({ "database_id": NOTION_TASKS_DATABASE, "limit": 110 });
    let answer = app.intend("notion", "query", context).await;
    let data = success(&answer, "notion", "query_database");
    assert_eq!((names(&data).len(), &data["more"]), (110, &json!(true)));
    assert_eq!(app.playground.received_total() - calls, 2);
    let rest = json!({ "database_id": NOTION_TASKS_DATABASE, "limit": 110, "cursor": data["next_cursor"] });
    let rest = app.intend("notion", "query", rest).await.data();
    let mut all = [names(&data), names(&rest)].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 125);
}

#[tokio::test]
async fn pages_and_databases_are_found_by_their_titles() {
    let app = App::start().await;
    page(&app, "Zebra crossing").await;
    for (name, context, count) in [
        ("search", json!({ "query": "zebra" }), 1),
        ("find", json!({ "query": "zebra", "kind": "database" }), 0),
        ("find", json!({ "query": "tasks", "kind": "database" }), 1),
        ("search", json!({ "kind": "database" }), 1),
        ("search", json!({ "kind": "page" }), 7),
        ("search", json!({}), 8),
        ("search", json!({ "limit": 3 }), 3),
    ] {
        let data = success(&app.intend("notion", name, context.clone()).await, "notion", "search");
        assert_eq!(data["results"].as_array().unwrap().len(), count, "{context}");
        let kinds = |kind: &str| data["results"].as_array().unwrap().iter().all(|found| found["object"] == kind);
        assert!(context.get("kind").is_none_or(|kind| kinds(kind.as_str().unwrap())), "{context}");
        let sent = app.last_received().body;
        assert_eq!(sent.get("filter").is_some(), context.get("kind").is_some());
        assert_eq!(sent.get("query"), context.get("query"));
    }
}

#[tokio::test]
async fn id_never_leads_to_another_path() {
    let app = App::start().await;
    let id = NOTION_HOME_PAGE;
    let bad = [
        String::new(),
        "..".to_owned(),
        format!("{id}/"),
        format!("../{id}"),
        format!("{id}?a=b"),
        format!("{id}#"),
        format!("{id}\n"),
        "../../../../../../../../../../users".to_owned(),
        "11111111111111111111111111111/..".to_owned(),
        "%2e%2e%2f11111111-1111-4111-8111-11".to_owned(),
        "................................".to_owned(),
        "1".repeat(31),
        "1".repeat(37),
    ];
    for id in &bad {
        for (intent, field, more) in [
            ("update", "page_id", json!({ "title": "t" })),
            ("append", "page_id", json!({ "content": "c" })),
            ("query", "database_id", json!({})),
            ("create", "parent_id", json!({ "title": "t" })),
        ] {
            let mut context = more;
            context[field] = json!(id);
            let answer = app.intend("notion", intent, context).await;
            assert_eq!(answer.problem(400), "invalid_parameters");
            assert_eq!(answer.pointers(), [format!("/context/{field}")], "{}", answer.text);
        }
    }
    // A value that is no id could be a title: Overseer searched for it, and made no other call.
    let calls = app.playground.received();
    let search = "/playground/notion/v1/search";
    assert!(calls.iter().all(|call| call.path == search), "{calls:?}");
    assert!(calls.iter().any(|call| call.body["query"] == "../../../../../../../../../../users"), "{calls:?}");
}

#[tokio::test]
async fn service_refusal_is_rejected() {
    let app = App::start().await;
    let missing = "99999999-9999-4999-8999-999999999999";
    for (intent, context) in [
        ("update", json!({ "page_id": missing, "title": "t" })),
        ("query", json!({ "database_id": missing })),
        ("query", json!({ "database_id": NOTION_TASKS_DATABASE, "cursor": "nowhere" })),
    ] {
        let answer = app.intend("notion", intent, context).await;
        assert_eq!(answer.failure(), "rejected", "{}", answer.text);
        assert_eq!(answer.json()["error"]["retryable"], json!(false));
    }
}

#[tokio::test]
async fn every_invalid_parameter_is_named() {
    let app = App::start().await;
    for (intent, context, pointers) in [
        ("create", json!({}), vec!["/context/parent_id", "/context/title"]),
        ("update", json!({ "page_id": NOTION_HOME_PAGE }), vec!["/context"]),
        ("append", json!({ "page_id": NOTION_HOME_PAGE, "content": "" }), vec!["/context/content"]),
        ("query", json!({ "database_id": 5, "limit": 1001 }), vec!["/context/database_id", "/context/limit"]),
        ("search", json!({ "kind": "user", "limit": 0 }), vec!["/context/kind", "/context/limit"]),
    ] {
        refused(&app, &app.intend("notion", intent, context).await, &pointers);
    }
}
