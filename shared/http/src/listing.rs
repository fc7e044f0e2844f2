//! Lists: the query parameters and the JSON of a page.

use overseer_engine::core::error::Error;
use overseer_engine::ports::table::{Cursor, Page};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Serialize, Serializer};

/// The most entries of a page.
pub(crate) const PAGE_MAX: usize = 100;
/// The entries of a page where the caller sets no limit.
pub(crate) const PAGE_DEFAULT: usize = 20;

/// The query of a list without filters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PageQuery {
    pub(crate) limit: Option<usize>,
    pub(crate) cursor: Option<Cursor>,
}

/// The entries of a page: [`PAGE_DEFAULT`] where the caller sets no limit. An error for a limit outside 1 to [`PAGE_MAX`].
pub(crate) fn page_size(limit: Option<usize>) -> Result<usize, Error> {
    match limit {
        None => Ok(PAGE_DEFAULT),
        Some(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(limit),
        Some(_) => Err(Error::field("/limit", format!("must be 1 to {PAGE_MAX}"))),
    }
}

/// The JSON of a list: the entries under the name that its route gives them, and the cursor of the next page, if there may
/// be one.
pub(crate) struct Listing<T> {
    name: &'static str,
    cursor_name: &'static str,
    page: Page<T>,
}

impl<T> Listing<T> {
    /// A page on a route whose keys are in `snake_case`: `/api/v1` and `/plugins`.
    pub(crate) fn snake_case(name: &'static str, page: Page<T>) -> Self {
        Self { name, cursor_name: "next_cursor", page }
    }

    /// A page on a route whose keys are in `camelCase`: `/api/plugin-engine`.
    pub(crate) fn camel_case(name: &'static str, page: Page<T>) -> Self {
        Self { name, cursor_name: "nextCursor", page }
    }

    /// A list that has no pages.
    pub(crate) fn complete(name: &'static str, entries: Vec<T>) -> Self {
        Self::snake_case(name, Page { entries, next: None })
    }
}

impl<T: Serialize> Serialize for Listing<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry(self.name, &self.page.entries)?;
        if let Some(next) = &self.page.next {
            map.serialize_entry(self.cursor_name, next)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_has_the_entries_before_the_cursor() {
        let page = || Page { entries: vec![1, 2], next: Some(Cursor("c".to_owned())) };
        for (listing, expected) in [
            (Listing::snake_case("keys", page()), r#"{"keys":[1,2],"next_cursor":"c"}"#),
            (Listing::camel_case("runs", page()), r#"{"runs":[1,2],"nextCursor":"c"}"#),
            (Listing::complete("webhooks", Vec::new()), r#"{"webhooks":[]}"#),
        ] {
            assert_eq!(serde_json::to_string(&listing).unwrap(), expected);
        }
    }
}
