//! Property values of pages: validation, and the form in which Notion returns them.

use serde_json::{Map, Value, json};

use super::{Failure, invalid, invalid_body};
use crate::call::set;
use crate::identifier::hexadecimal;

/// The Tasks database: name, id and type of each property.
const TASKS: [(&str, &str, &str); 5] = [
    ("Name", "title", "title"),
    ("Status", "Stat", "select"),
    ("Done", "Done", "checkbox"),
    ("Notes", "Note", "rich_text"),
    ("Due", "DueD", "date"),
];
/// A page outside of a database has only a title.
const PAGE: [(&str, &str, &str); 1] = [("title", "title", "title")];
const STATUSES: [&str; 3] = ["To do", "In progress", "Done"];

fn known(is_row: bool) -> &'static [(&'static str, &'static str, &'static str)] {
    if is_row { &TASKS } else { &PAGE }
}

/// The type of a property of the Tasks database, by its name or id.
pub(super) fn kind(name: &str) -> Option<(&'static str, &'static str)> {
    let found = TASKS.into_iter().find(|(known, id, _)| *known == name || *id == name);
    found.map(|(name, _, kind)| (name, kind))
}

/// The properties of an empty page.
pub(super) fn empty(is_row: bool) -> Map<String, Value> {
    let blank = |kind: &str| match kind {
        "title" | "rich_text" => json!([]),
        "checkbox" => json!(false),
        _ => Value::Null,
    };
    let described = |(name, id, kind): &(&str, &str, &str)| {
        ((*name).to_owned(), json!({"id": id, "type": kind, *kind: blank(kind)}))
    };
    known(is_row).iter().map(described).collect()
}

/// Overwrites properties with `values`.
pub(super) fn properties(
    values: &Value,
    is_row: bool,
    mut properties: Map<String, Value>,
) -> Result<Map<String, Value>, Failure> {
    let values = values.as_object().ok_or_else(|| invalid_body("properties should be an object."))?;
    for (given, value) in values {
        let (name, id, kind) = known(is_row)
            .iter()
            .find(|(name, id, _)| name == given || id == given)
            .ok_or_else(|| invalid(format!("{given} is not a property that exists.")))?;
        let shorthand = value.is_array() && *kind == "title";
        let content = if shorthand { Some(value) } else { value.get(kind) };
        let content = content.ok_or_else(|| invalid(format!("{name} is expected to be {kind}.")))?;
        let content = match *kind {
            "title" | "rich_text" => rich_text(content, &format!("properties.{name}.{kind}"))?,
            "select" => option(content, name)?,
            "checkbox" if !content.is_boolean() => {
                return Err(invalid_body(format!("properties.{name}.checkbox should be a boolean.")));
            }
            "date" => date(content, name)?,
            _ => content.clone(),
        };
        properties.insert((*name).to_owned(), json!({"id": id, "type": kind, *kind: content}));
    }
    Ok(properties)
}

/// Rich text in Notion's form: with annotations, plain text and link.
pub(super) fn rich_text(items: &Value, path: &str) -> Result<Value, Failure> {
    let items = items.as_array().ok_or_else(|| invalid_body(format!("{path} should be an array.")))?;
    let mut written = Vec::new();
    for (position, item) in items.iter().enumerate() {
        let kind = item.get("type").and_then(Value::as_str).unwrap_or("text");
        let content = item
            .get(kind)
            .filter(|content| content.is_object())
            .ok_or_else(|| invalid_body(format!("{path}[{position}].{kind} should be defined.")))?;
        let text = content.get("content").and_then(Value::as_str);
        if kind == "text" && text.is_none() {
            return Err(invalid_body(format!("{path}[{position}].text.content should be a string.")));
        }
        let text = text.or_else(|| content.get("expression").and_then(Value::as_str)).unwrap_or_default();
        let mut annotations = json!({
            "bold": false, "italic": false, "strikethrough": false, "underline": false, "code": false,
            "color": "default",
        });
        for (name, value) in item.get("annotations").and_then(Value::as_object).into_iter().flatten() {
            set(&mut annotations, name, value.clone());
        }
        let link = content.pointer("/link/url").cloned().unwrap_or_default();
        let mut content = content.clone();
        if kind == "text" && link.is_null() {
            set(&mut content, "link", Value::Null);
        }
        written.push(json!({
            "type": kind, kind: content, "annotations": annotations, "plain_text": text, "href": link,
        }));
    }
    Ok(written.into())
}

/// The plain text of a property or block that holds rich text.
pub(super) fn plain_text(property: &Value) -> String {
    let items = ["title", "rich_text"].into_iter().find_map(|kind| property.get(kind)?.as_array());
    let texts = items.into_iter().flatten().filter_map(|item| item.get("plain_text")?.as_str());
    texts.collect()
}

/// The properties of the Tasks database, described.
pub(super) fn schema() -> Value {
    let describe = |(name, id, kind): (&str, &str, &str)| {
        let settings = match kind {
            "select" => {
                let options = STATUSES.map(|status| option(&json!({"name": status}), name).unwrap_or_default());
                json!({"options": options})
            }
            _ => json!({}),
        };
        (name.to_owned(), json!({"id": id, "name": name, "type": kind, kind: settings}))
    };
    TASKS.into_iter().map(describe).collect::<Map<_, _>>().into()
}

fn option(content: &Value, name: &str) -> Result<Value, Failure> {
    if content.is_null() {
        return Ok(Value::Null);
    }
    let choice = content
        .get("name")
        .and_then(Value::as_str)
        .filter(|choice| !choice.is_empty() && !choice.contains(','))
        .ok_or_else(|| invalid_body(format!("properties.{name}.select.name should be a text without commas.")))?;
    Ok(json!({"id": hexadecimal(choice, 8), "name": choice, "color": "default"}))
}

fn date(content: &Value, name: &str) -> Result<Value, Failure> {
    if content.is_null() {
        return Ok(Value::Null);
    }
    let start = content
        .get("start")
        .and_then(Value::as_str)
        .filter(|start| start.parse::<jiff::civil::Date>().is_ok())
        .ok_or_else(|| invalid_body(format!("properties.{name}.date.start should be a valid ISO 8601 date string.")))?;
    let other = |name: &str| content.get(name).cloned().unwrap_or_default();
    Ok(json!({"start": start, "end": other("end"), "time_zone": other("time_zone")}))
}
