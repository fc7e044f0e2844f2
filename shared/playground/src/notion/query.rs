//! Queries of the database and search: filters, sorts and pages of results.

use serde_json::{Value, json};

use super::{Failure, NOTION_HOME_PAGE, Notion, Outcome, Page, database, invalid, invalid_body, property};
use crate::call::{Answer, Call};

const MOST_RESULTS: u64 = 100;

impl Notion {
    pub(super) fn query(&self, call: &Call<'_>, id: &str) -> Outcome {
        database(id)?;
        let filter = match call.body.get("filter") {
            None => None,
            Some(filter) => Some(Filter::read(filter)?),
        };
        let mut rows: Vec<&Page> = self
            .pages
            .iter()
            .rev()
            .filter(|page| page.parent.get("database_id").is_some() && !page.archived)
            .filter(|page| filter.as_ref().is_none_or(|filter| filter.matches(page)))
            .collect();
        let sorts = call.body.get("sorts").and_then(Value::as_array);
        // Stable sorts by the last criterion first, so the first criterion decides.
        for sort in sorts.into_iter().flatten().rev() {
            self::sort(&mut rows, sort)?;
        }
        let note = format!("query of Tasks: {} rows", rows.len());
        let rows = rows.into_iter().map(Page::render).collect();
        Ok(Answer::success(page_of(rows, call.body)?, note))
    }

    pub(super) fn search(&self, call: &Call<'_>) -> Outcome {
        let words = match call.body.get("query") {
            None => String::new(),
            Some(query) => query.as_str().ok_or_else(|| invalid_body("query should be a string."))?.to_lowercase(),
        };
        let wanted = match call.body.get("filter") {
            None => None,
            Some(filter) => match (filter.get("property").and_then(Value::as_str), filter.get("value")) {
                (Some("object"), Some(Value::String(kind))) if kind == "page" || kind == "database" => {
                    Some(kind.as_str())
                }
                _ => {
                    return Err(invalid_body(
                        "filter should be {\"property\": \"object\", \"value\": \"page\" or \"database\"}.",
                    ));
                }
            },
        };
        let mut found: Vec<(i64, Value)> = Vec::new();
        if wanted != Some("database") {
            let pages = self.pages.iter().filter(|page| !page.archived);
            let named = pages.filter(|page| page.title().to_lowercase().contains(&words));
            found.extend(named.map(|page| (page.edited, page.render())));
        }
        if wanted != Some("page") && "tasks".contains(&words) {
            found.push((self.created, self.render_database()));
        }
        let ascending = call.body.pointer("/sort/direction").is_some_and(|direction| direction == "ascending");
        found.sort_by_key(|(edited, object)| {
            // The home page comes first among the seeded objects.
            let is_home = object.get("id").is_some_and(|id| id == NOTION_HOME_PAGE);
            (if ascending { *edited } else { edited.saturating_neg() }, !is_home)
        });
        let results = found.into_iter().map(|(_, object)| object).collect();
        Ok(Answer::success(page_of(results, call.body)?, format!("search: {words}")))
    }
}

/// One condition on one property.
struct Filter {
    property: &'static str,
    condition: Condition,
}

enum Condition {
    Text { contains: bool, wanted: String },
    Checkbox(bool),
    Select(String),
}

impl Filter {
    fn read(filter: &Value) -> Result<Self, Failure> {
        let unsupported = || {
            invalid(
                "This filter is not supported by the stand-in: use {property, title or rich_text: {equals or contains}} or {property, checkbox or select: {equals}}.",
            )
        };
        let named = filter.get("property").and_then(Value::as_str).ok_or_else(unsupported)?;
        let (property, kind) = property::kind(named)
            .ok_or_else(|| invalid(format!("Could not find property with name or id: {named}")))?;
        let mut fields = filter.as_object().into_iter().flatten().filter(|(name, _)| *name != "property");
        let (Some((given, condition)), None) = (fields.next(), fields.next()) else { return Err(unsupported()) };
        let is_supported = matches!(given.as_str(), "title" | "rich_text" | "checkbox" | "select");
        let mut operators = condition.as_object().into_iter().flatten();
        let (Some((operator, wanted)), None, true) = (operators.next(), operators.next(), is_supported) else {
            return Err(unsupported());
        };
        let matching = given == kind || (kind == "title" && given == "rich_text");
        if !matching {
            return Err(invalid(format!("database property {kind} does not match filter {given}")));
        }
        let condition = match (given.as_str(), operator.as_str(), wanted) {
            ("title" | "rich_text", "equals" | "contains", Value::String(wanted)) => {
                Condition::Text { contains: operator == "contains", wanted: wanted.to_lowercase() }
            }
            ("checkbox", "equals", Value::Bool(wanted)) => Condition::Checkbox(*wanted),
            ("select", "equals", Value::String(wanted)) => Condition::Select(wanted.clone()),
            _ => return Err(unsupported()),
        };
        Ok(Self { property, condition })
    }

    fn matches(&self, page: &Page) -> bool {
        let Some(property) = page.properties.get(self.property) else { return false };
        match &self.condition {
            Condition::Text { contains, wanted } => {
                let text = property::plain_text(property).to_lowercase();
                if *contains { text.contains(wanted) } else { text == *wanted }
            }
            Condition::Checkbox(wanted) => property.get("checkbox").and_then(Value::as_bool) == Some(*wanted),
            Condition::Select(wanted) => property.pointer("/select/name").is_some_and(|name| name == wanted),
        }
    }
}

/// The key that rows are compared by.
type Key = dyn Fn(&Page) -> (i64, Option<String>);

fn sort(rows: &mut [&Page], sort: &Value) -> Result<(), Failure> {
    let text = |name: &str| sort.get(name).and_then(Value::as_str);
    let descending = match text("direction") {
        Some("descending") => true,
        Some("ascending") => false,
        _ => return Err(invalid_body("sorts direction should be `\"ascending\"` or `\"descending\"`.")),
    };
    let key: Box<Key> = match (text("property"), text("timestamp")) {
        (Some(named), None) => {
            let (property, _) = property::kind(named)
                .ok_or_else(|| invalid(format!("Could not find sort property with name or id: {named}")))?;
            Box::new(move |page| (0, page.properties.get(property).map(sort_key)))
        }
        (None, Some("created_time")) => Box::new(|page| (page.created, None)),
        (None, Some("last_edited_time")) => Box::new(|page| (page.edited, None)),
        _ => return Err(invalid_body("sorts should each have a property or a timestamp.")),
    };
    rows.sort_by(|left, right| {
        let order = key(left).cmp(&key(right));
        if descending { order.reverse() } else { order }
    });
    Ok(())
}

fn sort_key(property: &Value) -> String {
    let text = ["/date/start", "/select/name"].into_iter().find_map(|pointer| property.pointer(pointer)?.as_str());
    match (text, property.get("checkbox").and_then(Value::as_bool)) {
        (Some(text), _) => text.to_owned(),
        (None, Some(checked)) => checked.to_string(),
        (None, None) => property::plain_text(property).to_lowercase(),
    }
}

fn page_of(items: Vec<Value>, body: &Value) -> Result<Value, Failure> {
    let size = match body.get("page_size") {
        None => None,
        Some(size) => Some(size.as_u64().ok_or_else(|| invalid_body("page_size should be a number."))?),
    };
    list(items, "page_or_database", body.get("start_cursor").and_then(Value::as_str), size)
}

/// One page of a list. As at Notion, the cursor is the id of the first item of the next page.
pub(super) fn list(items: Vec<Value>, kind: &str, cursor: Option<&str>, size: Option<u64>) -> Result<Value, Failure> {
    let size = size.unwrap_or(MOST_RESULTS);
    if size == 0 || size > MOST_RESULTS {
        let bound = if size == 0 { "≥ `1`" } else { "≤ `100`" };
        return Err(invalid_body(format!("page_size should be {bound}, instead was `{size}`.")));
    }
    let start = match cursor {
        None => 0,
        Some(cursor) => items
            .iter()
            .position(|item| item.get("id").is_some_and(|id| id == cursor))
            .ok_or_else(|| invalid(format!("The start_cursor provided is invalid: {cursor}")))?,
    };
    let mut rest = items.into_iter().skip(start);
    let results: Vec<Value> = rest.by_ref().take(usize::try_from(size).unwrap_or(usize::MAX)).collect();
    let next = rest.next().and_then(|item| item.get("id").cloned());
    Ok(json!({
        "object": "list", "results": results, "next_cursor": next, "has_more": next.is_some(), "type": kind,
        kind: {},
    }))
}
