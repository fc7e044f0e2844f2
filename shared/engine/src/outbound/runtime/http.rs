//! The `http` runtime: runs an action that a manifest declares as requests and the reading of their answers.

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

/// Pages that are asked for in one intent, whatever the limit.
const PAGES_MAX: usize = 100;
/// Items that are gathered where the caller gives no limit.
const ITEMS_DEFAULT: usize = 100;
/// Requests of `each` that are under way at once.
const EACH_AT_ONCE: usize = 4;

/// Runs the action.
pub(crate) async fn run(call: &Call<'_>, host: &Host<'_>) -> CallResult {
    let action = call.action;
    match &action.paginate {
        None => {
            let context = request_context(call);
            let reading = always(Context::default(), call);
            let read = exchange(call, host, (request_of(call)?, &action.response), (&context, reading), None).await?;
            returned(call, &action.response, &read)
        }
        Some(paginate) => pages(call, host, paginate).await,
    }
}

/// The request that an action begins with.
pub(crate) fn first_request(call: &Call<'_>, base: &Url) -> Result<(Url, HeaderMap, Bytes), CallError> {
    let context = request_context(call);
    let context = if call.action.paginate.is_some() { context.with("remaining", &limit(call)) } else { context };
    build(request_of(call)?, base, &context, None)
}

/// What is sent for the action. A manifest of this runtime without it was refused.
fn request_of<'a>(call: &Call<'a>) -> Result<&'a Request, CallError> {
    call.action.request.as_ref().ok_or_else(|| CallError::at_fault("the action has no request"))
}

/// How many items are wanted.
fn limit(call: &Call<'_>) -> usize {
    let wanted = call.parameters.get("limit").and_then(Value::as_u64).and_then(|limit| usize::try_from(limit).ok());
    wanted.unwrap_or(ITEMS_DEFAULT).min(if call.action.each.is_some() { EACH_MAX } else { usize::MAX })
}

/// What request templates see: the parameters by their names, and what is always there.
fn request_context(call: &Call<'_>) -> Context {
    let by_name = call.parameters.iter().fold(Context::default(), |context, (name, value)| context.with(name, value));
    // No parameter takes the place of what is ours.
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

/// A cursor for a page, and the field that takes it.
type PageCursor<'a> = Option<(&'a str, &'a str)>;

/// One request and the reading of its answer, each with what its templates see; what was read comes back with the
/// latter.
async fn exchange(
    call: &Call<'_>,
    host: &Host<'_>,
    (request, response): (&Request, &Response),
    (asking, reading): (&Context, Context),
    cursor: PageCursor<'_>,
) -> Result<Context, CallError> {
    let (url, headers, body) = build(request, host.base_url(), asking, cursor)?;
    let answer = host
        .fetch(request.method.into(), url, headers, body, response.body)
        .await
        .map_err(|error| response::no_answer(call, &error))?;
    response::read(call, response, answer, reading)
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
        let context = context.clone().with("remaining", &(limit - items.len()));
        let at = cursor.as_deref().map(|cursor| (paginate.parameter.as_str(), cursor));
        let reading = always(Context::default(), call);
        let read = exchange(call, host, (request_of(call)?, &action.response), (&context, reading), at).await?;
        match value_of(call, Some(&paginate.items), &read)? {
            Some(Value::Array(page)) => items.extend(page),
            None | Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                let message = format!("{} answered with a page that has no list", call.manifest.display_name);
                return Err(CallError::failed(OutcomeCode::Unavailable, message, false));
            }
        }
        let next = value_of(call, Some(&paginate.cursor), &read)?.as_ref().and_then(text_of);
        // A service that gives the same cursor again has no more to give.
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
    // After a cut the cursor would skip what was cut off.
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
    let one = async |item: Value| {
        let asking = context.clone().with("item", &item);
        let reading = always(Context::default(), call).with("item", &item);
        let read = exchange(call, host, (&each.request, &each.response), (&asking, reading), None).await;
        let read = read.map_err(|stopped| match stopped {
            // What cannot be used here came from the service, not from the caller.
            CallError::Parameter(problem) => CallError::at_fault(problem.message),
            failed @ CallError::Failed(_) => failed,
        })?;
        returned(call, &each.response, &read).map(|success| success.data)
    };
    stream::iter(items).map(one).buffered(EACH_AT_ONCE).try_collect().await
}

/// Fills in a request's templates.
fn build(
    request: &Request,
    base: &Url,
    context: &Context,
    cursor: PageCursor<'_>,
) -> Result<(Url, HeaderMap, Bytes), CallError> {
    let path = request.path.render_path(context)?;
    let dots = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if path.split('/').any(dots) {
        return Err(CallError::Parameter(FieldProblem::new("/context", "a value in the path may not be . or ..")));
    }
    // What stands right behind the host could change it, or its port.
    if !path.starts_with('/') {
        return Err(CallError::at_fault("a request's path does not begin with /"));
    }
    let url = format!("{}{path}", base.as_str().trim_end_matches('/'));
    let mut url =
        Url::parse(&url).map_err(|error| CallError::at_fault(format_args!("its path gives no URL: {error}")))?;

    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    for (name, template) in &request.headers {
        let Some(value) = template.evaluate(context)?.as_ref().and_then(text_of) else { continue };
        let name: HeaderName = name.parse().map_err(|_| CallError::at_fault("a header's name"))?;
        let value = HeaderValue::from_str(&value).map_err(|_| {
            CallError::Parameter(FieldProblem::new(
                "/context",
                format!("a value for the header {name} has characters that no header can carry"),
            ))
        })?;
        headers.insert(name, value);
    }

    let mut cursor = cursor;
    let mut body = Bytes::new();
    if let Some(template) = &request.json {
        let mut value = template.evaluate(context)?.unwrap_or(Value::Null);
        if let (Some(fields), Some((name, at))) = (value.as_object_mut(), cursor.take()) {
            fields.insert(name.to_owned(), at.into());
        }
        body = serde_json::to_vec(&value).map_err(|_| CallError::at_fault("its JSON body"))?.into();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    } else if let Some(form) = &request.form {
        let pairs = pairs(form, context, cursor.take())?;
        body = serde_urlencoded::to_string(pairs).map_err(|_| CallError::at_fault("its form"))?.into();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    } else if let Some(raw) = &request.raw {
        body = raw.text.render(context)?.into();
        let media_type =
            HeaderValue::from_str(&raw.content_type).map_err(|_| CallError::at_fault("its content_type"))?;
        headers.insert(CONTENT_TYPE, media_type);
    }
    let query = pairs(&request.query, context, cursor)?;
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok((url, headers, body))
}

/// The pairs of a query or a form: a list gives one for each element, an object goes as JSON, an absent or null value
/// drops out. A cursor takes the place of the field of its name.
fn pairs<'a>(
    fields: impl IntoIterator<Item = (&'a String, &'a Template)>,
    context: &Context,
    cursor: PageCursor<'_>,
) -> Result<Vec<(String, String)>, CallError> {
    let mut pairs = Vec::new();
    for (name, template) in fields.into_iter().filter(|(name, _)| cursor.is_none_or(|(field, _)| field != *name)) {
        let values = match template.evaluate(context)? {
            None => continue,
            Some(Value::Array(items)) => items,
            Some(one) => vec![one],
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
    pairs.extend(cursor.map(|(field, at)| (field.to_owned(), at.to_owned())));
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn built(request: Value, parameters: Value, cursor: PageCursor<'_>) -> Result<(Url, HeaderMap, Bytes), CallError> {
        let request: Request = serde_json::from_value(request).unwrap();
        let Value::Object(parameters) = parameters else { panic!("not an object") };
        let context = parameters.iter().fold(Context::default(), |context, (name, value)| context.with(name, value));
        build(&request, &"https://api.example/v1/".parse().unwrap(), &context, cursor)
    }

    #[test]
    fn a_request_is_filled_in() {
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
    fn a_cursor_goes_where_the_other_fields_are() {
        let at = Some(("cursor", "c&2"));
        let (url, _, _) =
            built(json!({"path": "/", "query": {"cursor": "{{ c }}", "n": 1}}), json!({"c": "1"}), at).unwrap();
        assert_eq!(url.query(), Some("n=1&cursor=c%262"));
        let (url, _, body) = built(json!({"path": "/", "json": {"cursor": "1"}}), json!({}), at).unwrap();
        assert_eq!((url.query(), body.as_ref()), (None, br#"{"cursor":"c&2"}"#.as_slice()));
        let (_, headers, body) = built(json!({"path": "/", "form": {"a": {"b": 1}}}), json!({}), at).unwrap();
        assert_eq!(body, "a=%7B%22b%22%3A1%7D&cursor=c%262");
        assert_eq!(headers.get(CONTENT_TYPE).unwrap(), "application/x-www-form-urlencoded");
    }

    #[test]
    fn values_cannot_leave_their_place() {
        for id in [".", "..", "%2e%2E"] {
            // An encoded percent sign stays one; only plain dots could climb.
            let built = built(json!({"path": "/c/{{ id }}"}), json!({"id": id}), None);
            assert_eq!(built.is_err(), !id.contains('%'), "{id}");
        }
        let split = built(json!({"path": "/", "headers": {"x-a": "{{ a }}"}}), json!({"a": "1\r\nx-b: 2"}), None);
        assert!(matches!(split, Err(CallError::Parameter(_))));
    }
}
