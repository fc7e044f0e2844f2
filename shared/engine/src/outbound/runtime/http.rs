//! The `http` runtime: runs an action that a manifest declares as HTTP requests and templates that read the answers.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use url::Url;

use super::response::{returned, value_of};
use super::{Call, CallError, CallResult, response};
use crate::core::outcome::OutcomeCode;
use crate::core::problem::FieldProblem;
use crate::outbound::host::Host;
use crate::plugin::manifest::{EACH_MAX, Each, IDEMPOTENCY_KEY, Paginate, Request, Response};
use crate::plugin::template::{Context, Template, text_of};

/// The most pages that one intent requests, whatever its limit.
const PAGES_MAX: usize = 100;
/// How many items are listed if the caller gives no limit.
const ITEMS_DEFAULT: usize = 100;
/// How many requests of `each` are in flight at once.
const EACH_AT_ONCE: usize = 4;

/// A request with its templates filled in.
#[derive(Debug)]
pub(crate) struct BuiltRequest {
    pub url: Url,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// One request, and the templates that read its answer.
struct Exchange<'a> {
    request: &'a Request,
    response: &'a Response,
    /// What the request's templates see.
    request_context: &'a Context,
    /// What the response's templates see beside the answer.
    response_context: Context,
    cursor: Option<PageCursor<'a>>,
}

/// The cursor of a page.
#[derive(Clone, Copy)]
struct PageCursor<'a> {
    /// The field of the query, form or JSON body that takes it.
    field: &'a str,
    value: &'a str,
}

/// Runs the action.
pub(crate) async fn run(call: &Call<'_>, host: &Host<'_>) -> CallResult {
    let action = call.action;
    match &action.paginate {
        None => {
            let request_context = &request_context(call);
            let response_context = always(Context::default(), call);
            let (request, response) = (request_of(call)?, &action.response);
            let wanted = Exchange { request, response, request_context, response_context, cursor: None };
            let read = exchange(call, host, wanted).await?;
            returned(call, response, &read)
        }
        Some(paginate) => pages(call, host, paginate).await,
    }
}

/// The first request of an action, as it would be sent.
pub(crate) fn first_request(call: &Call<'_>, base: &Url) -> Result<BuiltRequest, CallError> {
    let context = request_context(call);
    let context = if call.action.paginate.is_some() { context.with("remaining", &limit(call)) } else { context };
    build(request_of(call)?, base, &context, None)
}

/// The request that the action declares. A manifest of this runtime without one is refused.
fn request_of<'a>(call: &Call<'a>) -> Result<&'a Request, CallError> {
    call.action.request.as_ref().ok_or_else(|| CallError::at_fault("the action has no request"))
}

/// How many items the caller wants, at most.
fn limit(call: &Call<'_>) -> usize {
    let wanted = call.parameters.get("limit").and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok());
    wanted.unwrap_or(ITEMS_DEFAULT).min(if call.action.each.is_some() { EACH_MAX } else { usize::MAX })
}

/// What request templates see: the parameters by their names, and what every template sees.
fn request_context(call: &Call<'_>) -> Context {
    let by_name = call.parameters.iter().fold(Context::default(), |context, (name, value)| context.with(name, value));
    // Overseer's own names go last, so that no parameter replaces them.
    match &call.key {
        Some(key) => always(by_name, call).with(IDEMPOTENCY_KEY, &key.text),
        None => always(by_name, call),
    }
}

/// What every template sees.
fn always(context: Context, call: &Call<'_>) -> Context {
    context
        .with("parameters", call.parameters)
        .with("config", call.config)
        .with("user", &json!({ "id": call.user }))
        .with("now", &call.now.to_string())
}

/// Sends one request, and reads its answer: the response's context, with the answer in it.
async fn exchange(call: &Call<'_>, host: &Host<'_>, wanted: Exchange<'_>) -> Result<Context, CallError> {
    let Exchange { request, response, request_context, response_context, cursor } = wanted;
    let BuiltRequest { url, headers, body } = build(request, host.base_url(), request_context, cursor)?;
    let answer = host
        .fetch(request.method.into(), url, headers, body, response.body)
        .await
        .map_err(|error| response::no_answer(call, &error))?;
    response::read(call, response, answer, response_context)
}

async fn pages(call: &Call<'_>, host: &Host<'_>, paginate: &Paginate) -> CallResult {
    let action = call.action;
    let limit = limit(call);
    let context = request_context(call);
    let mut items: Vec<Value> = Vec::new();
    let mut cursor: Option<String> = None;
    let mut pages = 0;
    loop {
        pages += 1;
        let wanted = Exchange {
            request: request_of(call)?,
            response: &action.response,
            request_context: &context.clone().with("remaining", &(limit - items.len())),
            response_context: always(Context::default(), call),
            cursor: cursor.as_deref().map(|value| PageCursor { field: &paginate.parameter, value }),
        };
        let read = exchange(call, host, wanted).await?;
        match value_of(call, Some(&paginate.items), &read)? {
            Some(Value::Array(page)) => items.extend(page),
            None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                let message = format!("{} answered with a page that has no list", call.manifest.display_name);
                return Err(CallError::failed(OutcomeCode::Unavailable, message, false));
            }
        }
        let next = value_of(call, Some(&paginate.cursor), &read)?.as_ref().and_then(text_of);
        // A service that repeats the cursor has no further page.
        let next = next.filter(|next| !next.is_empty() && Some(next) != cursor.as_ref());
        if next.is_none() || items.len() >= limit || pages == PAGES_MAX {
            return page_result(call, host, items, limit, next.as_deref(), read).await;
        }
        cursor = next;
    }
}

async fn page_result(
    call: &Call<'_>,
    host: &Host<'_>,
    mut items: Vec<Value>,
    limit: usize,
    cursor: Option<&str>,
    last: Context,
) -> CallResult {
    let cut = items.len() > limit;
    items.truncate(limit);
    if let Some(each) = &call.action.each {
        items = fetch_each(call, host, each, items).await?;
    }
    let mut read = last.with("items", &items).with("more", &(cut || cursor.is_some()));
    // After a cut the cursor would skip the items that were cut off.
    if let Some(cursor) = cursor.filter(|_| !cut) {
        read = read.with("next_cursor", &cursor);
    }
    let mut success = returned(call, &call.action.response, &read)?;
    if call.action.response.data.is_none() {
        let fields = [("items", json!(items)), ("more", json!(cut || cursor.is_some()))].into_iter();
        let next = cursor.filter(|_| !cut).map(|cursor| ("next_cursor", cursor.into()));
        success.data = fields.chain(next).map(|(name, value)| (name.to_owned(), value)).collect();
    }
    Ok(success)
}

async fn fetch_each(call: &Call<'_>, host: &Host<'_>, each: &Each, items: Vec<Value>) -> Result<Vec<Value>, CallError> {
    let context = &request_context(call);
    let fetch = async |item: Value| {
        let wanted = Exchange {
            request: &each.request,
            response: &each.response,
            request_context: &context.clone().with("item", &item),
            response_context: always(Context::default(), call).with("item", &item),
            cursor: None,
        };
        let read = exchange(call, host, wanted).await.map_err(|error| match error {
            // The value that cannot be used came from the service, not from the caller.
            CallError::Parameter(problem) => CallError::at_fault(problem.message),
            failed @ CallError::Failed(_) => failed,
        })?;
        returned(call, &each.response, &read).map(|success| success.data)
    };
    stream::iter(items).map(fetch).buffered(EACH_AT_ONCE).try_collect().await
}

/// Fills in a request's templates.
fn build(
    request: &Request,
    base: &Url,
    context: &Context,
    cursor: Option<PageCursor<'_>>,
) -> Result<BuiltRequest, CallError> {
    let path = request.path.render_path(context)?;
    let dots = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if path.split('/').any(dots) {
        return Err(CallError::Parameter(FieldProblem::new("/context", "a value in the path must not be . or ..")));
    }
    // Text directly after the host could change the host or the port.
    if !path.starts_with('/') {
        return Err(CallError::at_fault("a request's path does not start with /"));
    }
    let url = format!("{}{path}", base.as_str().trim_end_matches('/'));
    let mut url =
        Url::parse(&url).map_err(|error| CallError::at_fault(format_args!("its path does not make a URL: {error}")))?;

    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    for (name, template) in &request.headers {
        let Some(value) = template.evaluate(context)?.as_ref().and_then(text_of) else { continue };
        let name: HeaderName = name.parse().map_err(|_| CallError::at_fault("a header's name is invalid"))?;
        let value = HeaderValue::from_str(&value).map_err(|_| {
            CallError::Parameter(FieldProblem::new(
                "/context",
                format!("a value for the header {name} has characters that a header cannot contain"),
            ))
        })?;
        headers.insert(name, value);
    }

    let mut cursor = cursor;
    let mut body = Bytes::new();
    if let Some(template) = &request.json {
        let mut value = template.evaluate(context)?.unwrap_or(Value::Null);
        if let (Some(fields), Some(cursor)) = (value.as_object_mut(), cursor.take()) {
            fields.insert(cursor.field.to_owned(), cursor.value.into());
        }
        body = serde_json::to_vec(&value).map_err(|_| CallError::at_fault("its JSON body cannot be written"))?.into();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    } else if let Some(form) = &request.form {
        let pairs = pairs(form, context, cursor.take())?;
        body =
            serde_urlencoded::to_string(pairs).map_err(|_| CallError::at_fault("its form cannot be written"))?.into();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    } else if let Some(raw) = &request.raw {
        body = raw.text.render(context)?.into();
        let media_type =
            HeaderValue::from_str(&raw.content_type).map_err(|_| CallError::at_fault("its content_type is invalid"))?;
        headers.insert(CONTENT_TYPE, media_type);
    }
    let query = pairs(&request.query, context, cursor)?;
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(BuiltRequest { url, headers, body })
}

/// The pairs of a query or a form: a list gives one pair for each element, an object becomes JSON, and an absent or null value
/// is left out. The cursor replaces the field of its name.
fn pairs<'a>(
    fields: impl IntoIterator<Item = (&'a String, &'a Template)>,
    context: &Context,
    cursor: Option<PageCursor<'_>>,
) -> Result<Vec<(String, String)>, CallError> {
    let mut pairs = Vec::new();
    for (name, template) in fields.into_iter().filter(|(name, _)| cursor.is_none_or(|cursor| cursor.field != *name)) {
        let values = match template.evaluate(context)? {
            None => continue,
            Some(Value::Array(items)) => items,
            Some(value) => vec![value],
        };
        for value in values {
            match value {
                Value::Object(_) | Value::Array(_) => pairs.push((name.clone(), value.to_string())),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                    pairs.extend(text_of(&value).map(|text| (name.clone(), text)));
                }
            }
        }
    }
    pairs.extend(cursor.map(|cursor| (cursor.field.to_owned(), cursor.value.to_owned())));
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(
        request: Value,
        parameters: Value,
        cursor: Option<PageCursor<'_>>,
    ) -> Result<(Url, HeaderMap, Bytes), CallError> {
        let request: Request = serde_json::from_value(request).unwrap();
        let Value::Object(parameters) = parameters else { panic!("not an object") };
        let context = parameters.iter().fold(Context::default(), |context, (name, value)| context.with(name, value));
        build(&request, &"https://api.example/v1/".parse().unwrap(), &context, cursor)
            .map(|BuiltRequest { url, headers, body }| (url, headers, body))
    }

    #[test]
    fn request_has_its_templates_filled_in() {
        let (url, headers, body) = built(
            json!({"method": "POST", "path": "/c/{{ id }}", "headers": {"x-a": "{{ a }}", "x-b": "{{ b }}"},
                   "query": {"q": "{{ q }}", "list": "{{ list }}", "gone": "{{ gone }}", "flag": true},
                   "json": {"n": "{{ n }}", "gone": "{{ gone }}"}}),
            json!({"id": "a/b", "a": "1", "q": "x&y", "list": [1, "2"], "n": 5}),
            None,
        )
        .unwrap();
        assert_eq!(url.as_str(), "https://api.example/v1/c/a%2Fb?flag=true&list=1&list=2&q=x%26y");
        assert_eq!((headers.get("x-a").unwrap().to_str().unwrap(), headers.get("x-b")), ("1", None));
        assert_eq!(body, r#"{"n":5}"#);
    }

    #[test]
    fn cursor_goes_where_the_other_fields_are() {
        let cursor = Some(PageCursor { field: "cursor", value: "c&2" });
        let (url, _, _) =
            built(json!({"path": "/", "query": {"cursor": "{{ c }}", "n": 1}}), json!({"c": "1"}), cursor).unwrap();
        assert_eq!(url.query(), Some("n=1&cursor=c%262"));
        let (url, _, body) = built(json!({"path": "/", "json": {"cursor": "1"}}), json!({}), cursor).unwrap();
        assert_eq!((url.query(), body.as_ref()), (None, br#"{"cursor":"c&2"}"#.as_slice()));
        let (_, headers, body) = built(json!({"path": "/", "form": {"a": {"b": 1}}}), json!({}), cursor).unwrap();
        assert_eq!(body, "a=%7B%22b%22%3A1%7D&cursor=c%262");
        assert_eq!(headers.get(CONTENT_TYPE).unwrap(), "application/x-www-form-urlencoded");
    }

    #[test]
    fn path_value_cannot_climb() {
        for id in [".", "..", "%2e%2E"] {
            // An encoded percent sign stays one; only plain dots could climb.
            let built = built(json!({"path": "/c/{{ id }}"}), json!({"id": id}), None);
            assert_eq!(built.is_err(), !id.contains('%'), "{id}");
        }
    }

    #[test]
    fn header_value_cannot_split_the_headers() {
        let split = built(json!({"path": "/", "headers": {"x-a": "{{ a }}"}}), json!({"a": "1\r\nx-b: 2"}), None);
        assert!(matches!(split, Err(CallError::Parameter(_))));
    }
}
