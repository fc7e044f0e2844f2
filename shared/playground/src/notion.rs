//! The stand-in of the Notion API, version 2022-06-28: one page, one database, and what callers add to them.

mod block;
mod property;
mod query;

use std::collections::HashMap;

use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use crate::call::{Answer, Call, Fault, set, timestamp};
use crate::gmail::ADDRESS;
use crate::identifier::{canonical_uuid, uuid};

/// The page "Playground home", under which pages can be made.
pub const NOTION_HOME_PAGE: &str = "11111111-1111-4111-8111-111111111111";
/// The database "Tasks", with the properties Name, Status, Done, Notes and Due.
pub const NOTION_TASKS_DATABASE: &str = "22222222-2222-4222-8222-222222222222";
/// The author of all objects.
const USER: &str = "33333333-3333-4333-8333-333333333333";
pub(crate) const WORKSPACE: &str = "Playground";
/// The seeded rows: name, status, done, notes and due date.
const TASKS: [(&str, &str, bool, &str, &str); 5] = [
    ("Write the announcement", "In progress", false, "Two paragraphs are enough", "2030-01-10"),
    ("Invite the first customers", "To do", false, "Ask Ada first", "2030-01-15"),
    ("Order the cake", "Done", true, "Chocolate", "2030-01-05"),
    ("Test the backups", "To do", false, "Restore one", "2030-02-01"),
    ("Fix the login page", "Done", true, "It was the cookie", "2030-01-02"),
];

/// The workspace.
pub(crate) struct Notion {
    /// Oldest first.
    pages: Vec<Page>,
    /// By the id of the parent page or block.
    children: HashMap<String, Vec<Value>>,
    created: i64,
    sequence: u64,
}

struct Page {
    id: String,
    created: i64,
    edited: i64,
    parent: Value,
    properties: Map<String, Value>,
    icon: Value,
    cover: Value,
    archived: bool,
}

/// A Notion error: HTTP status, code and message.
struct Failure(StatusCode, &'static str, String);

type Outcome = Result<Answer, Failure>;

fn invalid(message: impl Into<String>) -> Failure {
    Failure(StatusCode::BAD_REQUEST, "validation_error", message.into())
}

fn invalid_body(message: impl AsRef<str>) -> Failure {
    invalid(format!("body failed validation: body.{}", message.as_ref()))
}

fn not_found(kind: &str, id: &str) -> Failure {
    let message = format!(
        "Could not find {kind} with ID: {id}. Make sure the relevant pages and databases are shared with your integration."
    );
    Failure(StatusCode::NOT_FOUND, "object_not_found", message)
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        let Failure(status, code, message) = failure;
        let body = json!({
            "object": "error", "status": status.as_u16(), "code": code, "message": message,
            "request_id": uuid(&message),
        });
        Self::failure(status, body, format!("{code}: {message}"))
    }
}

pub(crate) fn fault(fault: Fault) -> Answer {
    let (status, code, message) = match fault {
        Fault::MissingToken | Fault::UnknownToken | Fault::ExpiredToken | Fault::RevokedToken => {
            (StatusCode::UNAUTHORIZED, "unauthorized", "API token is invalid.")
        }
        Fault::RateLimited => (
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            "You have been rate limited. Please try again in a few minutes.",
        ),
        Fault::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal_server_error", "Unexpected error occurred."),
        Fault::Malformed => (StatusCode::BAD_REQUEST, "invalid_json", "Error parsing JSON body."),
        Fault::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "validation_error", "Request body is too large."),
    };
    Failure(status, code, message.to_owned()).into()
}

impl Notion {
    pub(crate) fn new(now: i64) -> Self {
        let mut notion = Self { pages: Vec::new(), children: HashMap::new(), created: now, sequence: 0 };
        let home = json!({"title": [{"text": {"content": "Playground home"}}]});
        let workspace = json!({"type": "workspace", "workspace": true});
        notion.seed(NOTION_HOME_PAGE.to_owned(), workspace, false, &home, now);
        for (name, status, done, notes, due) in TASKS {
            let values = json!({
                "Name": {"title": [{"text": {"content": name}}]}, "Status": {"select": {"name": status}},
                "Done": {"checkbox": done}, "Notes": {"rich_text": [{"text": {"content": notes}}]},
                "Due": {"date": {"start": due}},
            });
            let parent = json!({"type": "database_id", "database_id": NOTION_TASKS_DATABASE});
            let id = notion.next_id();
            notion.seed(id, parent, true, &values, now);
        }
        notion
    }

    fn seed(&mut self, id: String, parent: Value, is_row: bool, values: &Value, now: i64) {
        if let Ok(properties) = property::properties(values, is_row, property::empty(is_row)) {
            self.pages.push(Page {
                id,
                created: now,
                edited: now,
                parent,
                properties,
                icon: Value::Null,
                cover: Value::Null,
                archived: false,
            });
        }
    }

    pub(crate) fn answer(&mut self, call: &Call<'_>) -> Answer {
        if !call.headers.contains_key("notion-version") {
            let message = "Notion-Version header failed validation: Notion-Version header should be defined, \
                           instead was `undefined`.";
            return Failure(StatusCode::BAD_REQUEST, "missing_version", message.to_owned()).into();
        }
        let (get, post, patch) =
            (call.method == Method::GET, call.method == Method::POST, call.method == Method::PATCH);
        let outcome = match call.segments().as_slice() {
            ["pages"] if post => self.create(call),
            ["pages", id] if get => {
                self.page(id).map(|page| Answer::success(page.render(), format!("page read: {}", page.title())))
            }
            ["pages", id] if patch => self.update(call, id),
            ["databases", id] if get => {
                database(id).map(|_| Answer::success(self.render_database(), "database read: Tasks"))
            }
            ["databases", id, "query"] if post => self.query(call, id),
            ["blocks", id, "children"] if get => self.list_children(call, id),
            ["blocks", id, "children"] if patch => self.append_children(call, id),
            ["users", "me"] if get => Ok(identity()),
            ["search"] if post => self.search(call),
            _ => {
                let message = "Invalid request URL.".to_owned();
                Err(Failure(StatusCode::BAD_REQUEST, "invalid_request_url", message))
            }
        };
        outcome.unwrap_or_else(Answer::from)
    }

    fn create(&mut self, call: &Call<'_>) -> Outcome {
        block::check(call.body, "body")?;
        let parent = call
            .body
            .get("parent")
            .ok_or_else(|| invalid_body("parent should be defined, instead was `undefined`."))?;
        let id = |kind| parent.get(kind).and_then(Value::as_str);
        let (parent, is_row) = match (id("page_id"), id("database_id")) {
            (Some(page), None) => (json!({"type": "page_id", "page_id": self.page(page)?.id}), false),
            (None, Some(named)) => {
                let id = database(named)?;
                (json!({"type": "database_id", "database_id": id}), true)
            }
            (Some(_), Some(_)) | (None, None) => {
                return Err(invalid_body("parent should have either page_id or database_id."));
            }
        };
        let values = call
            .body
            .get("properties")
            .ok_or_else(|| invalid_body("properties should be defined, instead was `undefined`."))?;
        let properties = property::properties(values, is_row, property::empty(is_row))?;
        let blocks = block::read(call.body.get("children").unwrap_or(&json!([])), "children")?;
        let page = Page {
            id: self.next_id(),
            created: call.now,
            edited: call.now,
            parent,
            properties,
            icon: call.body.get("icon").cloned().unwrap_or_default(),
            cover: call.body.get("cover").cloned().unwrap_or_default(),
            archived: false,
        };
        self.add_blocks(&page.id, &json!({"type": "page_id", "page_id": page.id}), blocks, None, call.now)?;
        let answer = Answer::success(page.render(), format!("page created: {}", page.title()));
        self.pages.push(page);
        Ok(answer)
    }

    fn update(&mut self, call: &Call<'_>, id: &str) -> Outcome {
        block::check(call.body, "body")?;
        let page = self.page(id)?;
        let archived = ["archived", "in_trash"]
            .into_iter()
            .filter_map(|name| call.body.get(name))
            .map(|value| value.as_bool().ok_or_else(|| invalid_body("archived should be a boolean.")))
            .next()
            .transpose()?;
        if page.archived && archived != Some(false) {
            return Err(invalid("Can't edit block that is archived. You must unarchive the block before editing."));
        }
        let is_row = page.parent.get("database_id").is_some();
        let properties = match call.body.get("properties") {
            Some(values) => property::properties(values, is_row, page.properties.clone())?,
            None => page.properties.clone(),
        };
        let id = page.id.clone();
        let page = self.pages.iter_mut().find(|page| page.id == id).ok_or_else(|| not_found("page", &id))?;
        page.properties = properties;
        page.archived = archived.unwrap_or(page.archived);
        page.edited = call.now;
        if let Some(icon) = call.body.get("icon") {
            page.icon = icon.clone();
        }
        if let Some(cover) = call.body.get("cover") {
            page.cover = cover.clone();
        }
        Ok(Answer::success(page.render(), format!("page changed: {}", page.title())))
    }

    fn page(&self, given: &str) -> Result<&Page, Failure> {
        let id = identifier(given, "page_id")?;
        self.pages.iter().find(|page| page.id == id).ok_or_else(|| not_found("page", &id))
    }

    fn next_id(&mut self) -> String {
        self.sequence = self.sequence.wrapping_add(1);
        uuid(&format!("notion {}", self.sequence))
    }

    fn render_database(&self) -> Value {
        let mut object = described("database", NOTION_TASKS_DATABASE, self.created, self.created, false);
        let title = json!([{"type": "text", "text": {"content": "Tasks"}}]);
        set(&mut object, "title", property::rich_text(&title, "title").unwrap_or_default());
        set(&mut object, "description", json!([]));
        set(&mut object, "is_inline", false.into());
        set(&mut object, "parent", json!({"type": "page_id", "page_id": NOTION_HOME_PAGE}));
        set(&mut object, "properties", property::schema());
        set(&mut object, "url", url("", NOTION_TASKS_DATABASE));
        object
    }
}

impl Page {
    fn render(&self) -> Value {
        let mut object = described("page", &self.id, self.created, self.edited, self.archived);
        set(&mut object, "icon", self.icon.clone());
        set(&mut object, "cover", self.cover.clone());
        set(&mut object, "parent", self.parent.clone());
        set(&mut object, "properties", self.properties.clone().into());
        set(&mut object, "url", url(&self.title(), &self.id));
        object
    }

    fn title(&self) -> String {
        self.properties
            .values()
            .find(|property| property.get("type").is_some_and(|kind| kind == "title"))
            .map(property::plain_text)
            .unwrap_or_default()
    }
}

fn identity() -> Answer {
    let body = json!({
        "object": "user", "id": bot_id(), "type": "bot", "name": "Overseer", "avatar_url": null,
        "bot": {"owner": owner(), "workspace_name": WORKSPACE}, "request_id": uuid("notion request"),
    });
    Answer::success(body, "bot read")
}

/// The integration's user in the workspace.
pub(crate) fn bot_id() -> String {
    uuid("notion bot")
}

/// The person who authorized the integration.
pub(crate) fn owner() -> Value {
    json!({"type": "user", "user": {
        "object": "user", "id": uuid("notion owner"), "type": "person", "name": "Playground person",
        "avatar_url": null, "person": {"email": ADDRESS},
    }})
}

/// The fields that pages, databases and blocks share.
fn described(object: &str, id: &str, created: i64, edited: i64, archived: bool) -> Value {
    let user = json!({"object": "user", "id": USER});
    let mut described = json!({
        "object": object, "id": id, "created_time": timestamp(created),
        "last_edited_time": timestamp(edited), "created_by": user, "last_edited_by": user,
        "archived": archived, "in_trash": archived,
    });
    if object != "block" {
        for name in ["cover", "icon", "public_url"] {
            set(&mut described, name, Value::Null);
        }
    }
    described
}

fn url(title: &str, id: &str) -> Value {
    let slug: String = title.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    let slug = if slug.is_empty() { slug } else { format!("{slug}-") };
    format!("https://www.notion.so/{slug}{}", id.replace('-', "")).into()
}

fn database(given: &str) -> Result<&'static str, Failure> {
    let id = identifier(given, "database_id")?;
    if id == NOTION_TASKS_DATABASE { Ok(NOTION_TASKS_DATABASE) } else { Err(not_found("database", &id)) }
}

/// An id from a path or body, with or without dashes.
fn identifier(given: &str, name: &str) -> Result<String, Failure> {
    canonical_uuid(given).ok_or_else(|| {
        invalid(format!("path failed validation: path.{name} should be a valid uuid, instead was `\"{given}\"`."))
    })
}

#[cfg(test)]
mod tests;
