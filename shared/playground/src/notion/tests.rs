//! The stand-in of Notion has Notion's objects, limits and errors.

use serde_json::{Value, json};

use crate::testing::Bench;
use crate::{NOTION_HOME_PAGE, NOTION_TASKS_DATABASE, Service};

fn text(content: &str) -> Value {
    json!([{"text": {"content": content}}])
}

fn paragraph(content: &str) -> Value {
    json!({"object": "block", "paragraph": {"rich_text": text(content)}})
}

async fn query(bench: &Bench, body: Value) -> Value {
    bench.notion("POST", &format!("databases/{NOTION_TASKS_DATABASE}/query"), body).await.json()
}

fn names(list: &Value) -> Vec<&str> {
    let rows = list["results"].as_array().unwrap_or_else(|| panic!("{list}"));
    rows.iter().map(|row| row["properties"]["Name"]["title"][0]["plain_text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn page_is_created_read_and_changed() {
    let bench = Bench::new();
    let body = json!({
        "parent": {"page_id": NOTION_HOME_PAGE.replace('-', "")},
        "properties": {"title": text("Plan")},
        "children": [paragraph("one"), {"type": "toggle", "toggle": {"rich_text": text("two"), "children": [paragraph("in")]}}],
    });
    let page = bench.notion("POST", "pages", body).await.json();
    assert_eq!(page["object"], "page");
    assert_eq!(page["parent"], json!({"type": "page_id", "page_id": NOTION_HOME_PAGE}));
    assert_eq!(page["properties"]["title"]["title"][0]["plain_text"], "Plan");
    assert_eq!(page["created_time"], "2027-01-15T08:00:00.000Z");
    assert!(page["url"].as_str().unwrap().starts_with("https://www.notion.so/Plan-"));
    let id = page["id"].as_str().unwrap();
    assert_eq!(bench.notion("GET", &format!("pages/{id}"), Value::Null).await.json(), page);

    let children = bench.notion("GET", &format!("blocks/{id}/children"), Value::Null).await.json();
    assert_eq!(children["results"][0]["paragraph"]["rich_text"][0]["plain_text"], "one");
    assert_eq!(children["results"][1]["has_children"], true);
    let toggle = children["results"][1]["id"].as_str().unwrap();
    let inner = bench.notion("GET", &format!("blocks/{toggle}/children"), Value::Null).await.json();
    assert_eq!(inner["results"].as_array().unwrap().len(), 1);

    let after = json!({"children": [paragraph("between")], "after": children["results"][0]["id"]});
    let added = bench.notion("PATCH", &format!("blocks/{id}/children"), after).await.json();
    assert_eq!(added["results"].as_array().unwrap().len(), 1);
    let path = format!("blocks/{id}/children?page_size=2");
    let first = bench.notion("GET", &path, Value::Null).await.json();
    assert_eq!(first["results"][1]["id"], added["results"][0]["id"]);
    assert_eq!(first["next_cursor"], toggle);
    let path = format!("blocks/{id}/children?start_cursor={toggle}");
    assert_eq!(bench.notion("GET", &path, Value::Null).await.json()["has_more"], false);

    bench.wait(60);
    let change = json!({"icon": {"type": "emoji", "emoji": "🎂"}, "archived": true});
    let patched = bench.notion("PATCH", &format!("pages/{id}"), change).await.json();
    assert_eq!((&patched["archived"], &patched["in_trash"]), (&json!(true), &json!(true)));
    assert_eq!(patched["last_edited_time"], "2027-01-15T08:01:00.000Z");
    let refused = bench.notion("PATCH", &format!("pages/{id}"), json!({"icon": null})).await;
    assert_eq!(refused.status, 400);
    let restored = bench.notion("PATCH", &format!("pages/{id}"), json!({"in_trash": false})).await.json();
    assert_eq!(restored["archived"], false);
}

#[tokio::test]
async fn database_query_filters_and_sorts() {
    let bench = Bench::new();
    let first = query(&bench, json!({"page_size": 3})).await;
    assert_eq!((first["results"].as_array().unwrap().len(), &first["has_more"]), (3, &json!(true)));
    let rest = query(&bench, json!({"page_size": 3, "start_cursor": first["next_cursor"]})).await;
    assert_eq!((rest["results"].as_array().unwrap().len(), &rest["next_cursor"]), (2, &Value::Null));

    let by_due = json!([{"property": "Due", "direction": "ascending"}]);
    let filtered = async |filter: Value| query(&bench, json!({"filter": filter, "sorts": by_due})).await;
    let done = filtered(json!({"property": "Done", "checkbox": {"equals": true}})).await;
    assert_eq!(names(&done), ["Fix the login page", "Order the cake"]);
    let to_do = filtered(json!({"property": "Status", "select": {"equals": "To do"}})).await;
    assert_eq!(names(&to_do), ["Invite the first customers", "Test the backups"]);
    let cookie = filtered(json!({"property": "Notes", "rich_text": {"contains": "COOKIE"}})).await;
    assert_eq!(names(&cookie), ["Fix the login page"]);
    let exact = filtered(json!({"property": "Name", "title": {"equals": "Order the cake"}})).await;
    assert_eq!(names(&exact), ["Order the cake"]);
    for filter in [
        json!({"and": []}),
        json!({"property": "Due", "date": {"before": "2030-01-01"}}),
        json!({"property": "Done", "checkbox": {"does_not_equal": true}}),
    ] {
        let refused = filtered(filter).await;
        assert_eq!(refused["code"], "validation_error");
        assert!(refused["message"].as_str().unwrap().contains("not supported by the stand-in"));
    }
    assert_eq!(filtered(json!({"property": "Nope", "title": {"equals": ""}})).await["code"], "validation_error");
    assert_eq!(query(&bench, json!({"page_size": 101})).await["code"], "validation_error");
    let path = format!("databases/{NOTION_TASKS_DATABASE}");
    let database = bench.notion("GET", &path, Value::Null).await.json();
    assert_eq!(database["properties"]["Status"]["select"]["options"][0]["name"], "To do");

    let row = json!({
        "parent": {"database_id": NOTION_TASKS_DATABASE},
        "properties": {"Name": {"title": text("New")}, "Status": {"select": {"name": "To do"}}},
    });
    let row = bench.notion("POST", "pages", row).await.json();
    assert_eq!(row["properties"]["Done"]["checkbox"], false);
    assert_eq!(names(&query(&bench, json!({})).await).len(), 6);
    let id = row["id"].as_str().unwrap();
    let change = json!({"properties": {"Done": {"checkbox": true}}});
    let patched = bench.notion("PATCH", &format!("pages/{id}"), change).await.json();
    assert_eq!(patched["properties"]["Done"]["checkbox"], true);
    assert_eq!(patched["properties"]["Name"]["title"][0]["plain_text"], "New");
}

#[tokio::test]
async fn bot_names_its_owner() {
    let bench = Bench::new();
    let me = bench.notion("GET", "users/me", Value::Null).await.json();
    assert_eq!((&me["object"], &me["type"]), (&json!("user"), &json!("bot")));
    assert_eq!(me["bot"]["workspace_name"], "Playground");
    assert_eq!(me["bot"]["owner"]["user"]["person"]["email"], "you@playground.example");
    assert!(me["id"].is_string() && me["name"].is_string());
    let unknown = bench.call(Service::Notion, "GET", "users/me", "x", Value::Null).await;
    assert_eq!(unknown.json()["code"], "unauthorized");
}

#[tokio::test]
async fn search_finds_pages_and_databases() {
    let bench = Bench::new();
    let search = async |body: Value| bench.notion("POST", "search", body).await.json();
    assert_eq!(search(json!({"query": "playground"})).await["results"][0]["id"], NOTION_HOME_PAGE);
    let databases = search(json!({"filter": {"property": "object", "value": "database"}})).await;
    assert_eq!(databases["results"][0]["id"], NOTION_TASKS_DATABASE);
    assert_eq!(databases["results"].as_array().unwrap().len(), 1);
    let first = search(json!({"page_size": 6})).await;
    assert_eq!(first["has_more"], true);
    let rest = search(json!({"page_size": 6, "start_cursor": first["next_cursor"]})).await;
    assert_eq!(rest["results"].as_array().unwrap().len(), 1);
    assert_eq!(search(json!({"filter": 1})).await["code"], "validation_error");
}

#[tokio::test]
async fn failures_have_notions_shape() {
    let bench = Bench::new();
    let parent = json!({"page_id": NOTION_HOME_PAGE});
    let title = json!({"title": text("x")});
    let nowhere = "99999999-9999-4999-8999-999999999999";
    let page = |extra: &str, value: Value| {
        let mut body = json!({"parent": parent, "properties": title});
        body[extra] = value;
        body
    };
    let many: Vec<Value> = (0..101).map(|_| paragraph("x")).collect();
    let row = json!({"parent": {"database_id": NOTION_TASKS_DATABASE}, "properties": {"Nope": {}}});
    let mistyped = json!({"parent": {"database_id": NOTION_TASKS_DATABASE}, "properties": {"Done": {"select": null}}});
    let cases = [
        ("POST", "pages".to_owned(), json!({"properties": {}}), 400, "validation_error"),
        ("POST", "pages".to_owned(), page("parent", json!({"page_id": nowhere})), 404, "object_not_found"),
        ("POST", "pages".to_owned(), page("children", many.into()), 400, "validation_error"),
        ("POST", "pages".to_owned(), page("children", json!([paragraph(&"x".repeat(2001))])), 400, "validation_error"),
        ("POST", "pages".to_owned(), page("children", json!([{"spell": {}}])), 400, "validation_error"),
        ("POST", "pages".to_owned(), row, 400, "validation_error"),
        ("POST", "pages".to_owned(), mistyped, 400, "validation_error"),
        ("GET", format!("pages/{nowhere}"), Value::Null, 404, "object_not_found"),
        ("GET", "pages/short".to_owned(), Value::Null, 400, "validation_error"),
        ("PATCH", format!("blocks/{nowhere}/children"), json!({"children": []}), 404, "object_not_found"),
        ("PATCH", format!("blocks/{NOTION_HOME_PAGE}/children"), json!({}), 400, "validation_error"),
        ("POST", format!("databases/{NOTION_HOME_PAGE}/query"), json!({}), 404, "object_not_found"),
        ("DELETE", "pages".to_owned(), Value::Null, 400, "invalid_request_url"),
    ];
    for (method, path, body, status, code) in cases {
        let reply = bench.notion(method, &path, body).await;
        let error = reply.json();
        assert_eq!((reply.status.as_u16(), &error["status"], &error["code"]), (status, &json!(status), &json!(code)));
        assert_eq!((&error["object"], error["request_id"].is_string()), (&json!("error"), true));
    }
    let long = page("children", json!([paragraph(&"x".repeat(2001))]));
    assert_eq!(
        bench.notion("POST", "pages", long).await.json()["message"],
        "body failed validation: body.children[0].paragraph.rich_text[0].text.content.length should be ≤ `2000`, instead was `2001`."
    );
    let path = format!("/playground/notion/v1/pages/{NOTION_HOME_PAGE}");
    let headers = [("authorization", "Bearer ntn_playground")];
    assert_eq!(bench.send("GET", &path, &headers, String::new()).await.json()["code"], "missing_version");
    let unauthorized = bench.send("GET", &path, &[], String::new()).await;
    assert_eq!(unauthorized.json()["message"], "API token is invalid.");
    assert_eq!(unauthorized.status, 401);
    let other = bench.call(Service::Notion, "GET", "pages/x", "xoxb-playground", Value::Null).await;
    assert_eq!(other.json()["code"], "unauthorized");
    let broken = bench.send("POST", "/playground/notion/v1/pages", &headers, "{".to_owned()).await;
    assert_eq!((broken.status.as_u16(), &broken.json()["code"]), (400, &json!("invalid_json")));
}
