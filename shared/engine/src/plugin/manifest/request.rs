//! The HTTP request of an action.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::plugin::template::{Template, Text};

/// An HTTP request. Templates see the parameters by their names and as `parameters`, and `config`, `user` and `now`; on a page
/// also `remaining`, and in `each` also `item`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The method.
    #[serde(default)]
    pub method: Method,
    /// The path, appended to the base URL. Values in it are percent-encoded and cannot leave their segment.
    pub path: Text,
    /// The query. A list gives one pair for each element.
    #[serde(default)]
    pub query: BTreeMap<String, Template>,
    /// Headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Template>,
    /// A JSON body. At most one of `json`, `form` and `raw` is allowed.
    pub json: Option<Template>,
    /// A form body.
    pub form: Option<BTreeMap<String, Template>>,
    /// Any other body.
    pub raw: Option<RawBody>,
}

/// An HTTP method.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// Reads.
    #[default]
    Get,
    /// Creates or executes.
    Post,
    /// Replaces.
    Put,
    /// Changes.
    Patch,
    /// Removes.
    Delete,
}

impl From<Method> for http::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Get => Self::GET,
            Method::Post => Self::POST,
            Method::Put => Self::PUT,
            Method::Patch => Self::PATCH,
            Method::Delete => Self::DELETE,
        }
    }
}

/// A body that is neither JSON nor a form.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RawBody {
    /// Its media type.
    pub content_type: String,
    /// Its text.
    pub text: Text,
}
