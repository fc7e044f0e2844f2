//! Blocks: the size limits of requests, and the children of pages and blocks.

use serde_json::{Value, json};

use super::{Failure, Notion, Outcome, described, identifier, invalid, invalid_body, not_found, property, query};
use crate::call::{Answer, Call, set};

const MOST_CHILDREN: usize = 100;
const MOST_CHARACTERS: usize = 2000;
const KINDS: [&str; 22] = [
    "audio",
    "bookmark",
    "bulleted_list_item",
    "callout",
    "code",
    "column",
    "column_list",
    "divider",
    "embed",
    "equation",
    "file",
    "heading_1",
    "heading_2",
    "heading_3",
    "image",
    "numbered_list_item",
    "paragraph",
    "quote",
    "table",
    "table_row",
    "to_do",
    "toggle",
];

/// A parsed block: its type, its content and its children.
pub(super) struct Block {
    kind: &'static str,
    content: Value,
    children: Vec<Block>,
}

/// Checks Notion's limits on the length of strings and arrays, at any depth.
pub(super) fn check(value: &Value, path: &str) -> Result<(), Failure> {
    match value {
        Value::Array(items) => {
            let named = ["children", "rich_text", "title"].iter().any(|name| path.ends_with(name));
            if named && items.len() > MOST_CHILDREN {
                return Err(too_long(path, MOST_CHILDREN, items.len()));
            }
            items.iter().enumerate().try_for_each(|(position, item)| check(item, &format!("{path}[{position}]")))
        }
        Value::Object(fields) => fields.iter().try_for_each(|(name, field)| check(field, &format!("{path}.{name}"))),
        Value::String(text) => {
            let length = text.chars().count();
            if path.ends_with(".text.content") && length > MOST_CHARACTERS {
                return Err(too_long(path, MOST_CHARACTERS, length));
            }
            Ok(())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn too_long(path: &str, most: usize, length: usize) -> Failure {
    invalid(format!("body failed validation: {path}.length should be ≤ `{most}`, instead was `{length}`."))
}

pub(super) fn read(blocks: &Value, path: &str) -> Result<Vec<Block>, Failure> {
    let blocks = blocks.as_array().ok_or_else(|| invalid_body(format!("{path} should be an array.")))?;
    blocks.iter().enumerate().map(|(position, block)| read_one(block, &format!("{path}[{position}]"))).collect()
}

fn read_one(block: &Value, path: &str) -> Result<Block, Failure> {
    let stated = block.get("type").and_then(Value::as_str);
    let kind = KINDS
        .into_iter()
        .find(|kind| stated.map_or_else(|| block.get(*kind).is_some(), |stated| stated == *kind))
        .ok_or_else(|| invalid_body(format!("{path} should have the content of a known block type.")))?;
    let mut content = block
        .get(kind)
        .filter(|content| content.is_object())
        .cloned()
        .ok_or_else(|| invalid_body(format!("{path}.{kind} should be defined, instead was `undefined`.")))?;
    if let Some(items) = content.get("rich_text") {
        let written = property::rich_text(items, &format!("{path}.{kind}.rich_text"))?;
        set(&mut content, "rich_text", written);
        if kind != "code" && content.get("color").is_none() {
            set(&mut content, "color", "default".into());
        }
    }
    let nested = content.as_object_mut().and_then(|fields| fields.remove("children"));
    let nested = nested.or_else(|| block.get("children").cloned()).unwrap_or_else(|| json!([]));
    let children = read(&nested, &format!("{path}.{kind}.children"))?;
    Ok(Block { kind, content, children })
}

impl Notion {
    /// Adds blocks at the end, or after a named block, and returns them.
    pub(super) fn add_blocks(
        &mut self,
        holder: &str,
        parent: &Value,
        blocks: Vec<Block>,
        after: Option<&str>,
        now: i64,
    ) -> Result<Vec<Value>, Failure> {
        let known = self.children.get(holder);
        let count = known.map_or(0, Vec::len);
        let start = match after {
            None => count,
            Some(after) => known
                .and_then(|blocks| blocks.iter().position(|block| block_id(block) == after))
                .map(|position| position.saturating_add(1))
                .ok_or_else(|| {
                    invalid(format!("Block to append children after: {after} is not a child of the parent."))
                })?,
        };
        let mut added = Vec::new();
        for Block { kind, content, children } in blocks {
            let id = self.next_id();
            let mut block = described("block", &id, now, now, false);
            set(&mut block, "parent", parent.clone());
            set(&mut block, "has_children", (!children.is_empty()).into());
            set(&mut block, "type", kind.into());
            set(&mut block, kind, content);
            if !children.is_empty() {
                self.add_blocks(&id, &json!({"type": "block_id", "block_id": id}), children, None, now)?;
            }
            added.push(block);
        }
        let known = self.children.entry(holder.to_owned()).or_default();
        known.splice(start.min(known.len())..start.min(known.len()), added.iter().cloned());
        Ok(added)
    }

    pub(super) fn append_children(&mut self, call: &Call<'_>, given: &str) -> Outcome {
        check(call.body, "body")?;
        let (id, is_page) = self.holder(given)?;
        let children = call
            .body
            .get("children")
            .ok_or_else(|| invalid_body("children should be defined, instead was `undefined`."))?;
        let blocks = read(children, "children")?;
        let after = match call.body.get("after").and_then(Value::as_str) {
            None => None,
            Some(after) => Some(identifier(after, "after")?),
        };
        let kind = if is_page { "page_id" } else { "block_id" };
        let added = self.add_blocks(&id, &json!({"type": kind, kind: id}), blocks, after.as_deref(), call.now)?;
        for block in self.children.values_mut().flatten().filter(|block| block_id(block) == id) {
            set(block, "has_children", true.into());
        }
        let parent = self.pages.iter_mut().find(|page| page.id == id).map_or_else(
            || "a block".to_owned(),
            |page| {
                page.edited = call.now;
                page.title()
            },
        );
        let note = format!("{} blocks added to {parent}", added.len());
        Ok(Answer::success(
            json!({
                "object": "list", "results": added, "next_cursor": null, "has_more": false, "type": "block",
                "block": {},
            }),
            note,
        ))
    }

    pub(super) fn list_children(&self, call: &Call<'_>, given: &str) -> Outcome {
        let (id, _) = self.holder(given)?;
        let size = match call.parameter("page_size") {
            None => None,
            Some(given) => Some(given.parse().map_err(|_| invalid("page_size should be a number."))?),
        };
        let blocks = self.children.get(&id).cloned().unwrap_or_default();
        let note = format!("{} blocks read", blocks.len());
        let list = query::list(blocks, "block", call.parameter("start_cursor"), size)?;
        Ok(Answer::success(list, note))
    }

    /// The id of the page or block that holds children, and whether it is a page.
    fn holder(&self, given: &str) -> Result<(String, bool), Failure> {
        let id = identifier(given, "block_id")?;
        if let Some(page) = self.pages.iter().find(|page| page.id == id) {
            if page.archived {
                return Err(invalid("Can't edit block that is archived. You must unarchive the block before editing."));
            }
            return Ok((id, true));
        }
        let found = self.children.values().flatten().any(|block| block_id(block) == id);
        if found { Ok((id, false)) } else { Err(not_found("block", &id)) }
    }
}

fn block_id(block: &Value) -> &str {
    block.get("id").and_then(Value::as_str).unwrap_or_default()
}
