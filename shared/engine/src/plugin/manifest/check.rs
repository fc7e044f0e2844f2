//! Finds what is wrong with a manifest and what its types cannot say.

use std::collections::BTreeSet;

use serde_json::Value;
use url::{Host, Url};

use super::config::{any_schema_problems, schema_problems};
use super::foreign::Form;
use super::{
    Action, Auth, ConnectionTest, Data, IDEMPOTENCY_KEY, Manifest, Oauth2, Provider, Request, Response, Runtime,
};
use crate::core::effect::Effect;
use crate::plugin::manifest::ATTEMPTS_MAX;
use crate::plugin::template::{NOT_THERE, Names};

/// The longest name of a tool that every maker of models takes; ours are `<plugin>__<action>`.
const TOOL_NAME_MAX: usize = 64;

/// Headers that a request's templates may not set.
const OWN_HEADERS: [&str; 5] = ["authorization", "connection", "content-length", "host", "transfer-encoding"];

impl Manifest {
    /// What is wrong with it, in the words of our own form.
    pub(super) fn problems(&self, form: Form) -> Vec<String> {
        let strict = form == Form::Own;
        let place = if strict { "runtime." } else { "" };
        let too_much = self.limit_problems(place);
        if !too_much.is_empty() {
            return too_much;
        }
        let mut problems = self.runtime_problems(place);
        problems.extend(self.auth.problems().into_iter().map(|problem| format!("auth.{problem}")));
        if self.retry.attempts.is_some_and(|attempts| !(1..=ATTEMPTS_MAX).contains(&attempts)) {
            problems.push(format!("retry.attempts: must be 1 to {ATTEMPTS_MAX}"));
        }
        let breaker = self.breaker.problems().into_iter();
        problems.extend(breaker.map(|(field, problem)| format!("breaker.{field}: {problem}")));
        problems.extend(self.declaring_problems());
        problems.extend(self.hook_problems(url_problem));
        problems.extend(self.config_problems(strict));
        let mut names = BTreeSet::new();
        for action in &self.actions {
            for name in std::iter::once(&action.name).chain(&action.aliases) {
                if !names.insert(name) {
                    problems.push(format!("actions: the name {name} is used twice"));
                }
            }
            if self.name.as_str().len() + action.name.as_str().len() > TOOL_NAME_MAX - 2 {
                let limit = TOOL_NAME_MAX - 2;
                problems.push(format!(
                    "actions.{}: name and the plugin's name together have more than {limit} characters",
                    action.name
                ));
            }
            problems.extend(action.problems(strict));
        }
        problems.extend(self.naming_problems());
        problems
    }

    /// What is wrong with how it runs, and with actions that do not run so. `place` is where the form says how it runs.
    fn runtime_problems(&self, place: &str) -> Vec<String> {
        let mut problems = Vec::new();
        match &self.runtime {
            Runtime::Http { base_url } => {
                let host = base_url.host_str().unwrap_or_default();
                if !self.hosts().any(|permitted| permitted == host) {
                    problems.push(format!("permissions: add network:{host}, where runtime.base_url points"));
                }
                problems.extend(url_problem(base_url).map(|problem| format!("runtime.base_url: {problem}")));
                if base_url.query().is_some() {
                    problems.push("runtime.base_url: must have no query".to_owned());
                }
                if self.actions.is_empty() && self.hooks.is_empty() {
                    problems.push("actions: at least one is needed, or hooks".to_owned());
                }
                for action in self.actions.iter().filter(|action| action.request.is_none()) {
                    problems
                        .push(format!("actions.{}.request: is missing; say what is sent to the service", action.name));
                }
            }
            Runtime::Container(container) => {
                problems.extend(container.problems().into_iter().map(|problem| format!("{place}{problem}")));
                if !self.actions.is_empty() {
                    problems.push("actions: an environment has none; remove them".to_owned());
                }
            }
            Runtime::Native => {
                if !self.actions.is_empty() {
                    problems.push("actions: Overseer has no code for them; remove them".to_owned());
                }
            }
            Runtime::Module(module) => {
                for action in self.actions.iter().filter(|action| action.request.is_some()) {
                    problems.push(format!("actions.{}.request: is for the runtime http only; remove it", action.name));
                }
                let names: BTreeSet<_> = self.actions.iter().map(|action| &action.name).collect();
                for name in module.handlers.keys().filter(|name| !names.contains(name)) {
                    problems.push(format!("{place}handlers.{name}: there is no action of that name; remove it"));
                }
            }
        }
        problems
    }
}

/// Parameters of an authorization request that Overseer sets itself.
const OWN_PARAMETERS: [&str; 8] = [
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "redirect_uri",
    "response_mode",
    "response_type",
    "scope",
    "state",
];

/// Parameters of a request for tokens that Overseer sets itself.
const OWN_TOKEN_PARAMETERS: [&str; 8] =
    ["client_id", "client_secret", "code", "code_verifier", "grant_type", "redirect_uri", "refresh_token", "scope"];

impl Auth {
    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.test().into_iter().flat_map(ConnectionTest::problems).collect();
        for scope in self.scopes() {
            if !is_scope(scope) {
                problems.push(format!("scopes: {scope:?} is not a scope (RFC 6749, 3.3)"));
            }
        }
        problems.extend(self.provider().into_iter().flat_map(Provider::problems));
        match self {
            Self::None | Self::Basic(_) | Self::ClientCredentials(_) => {}
            Self::Oauth2(oauth) => problems.extend(oauth.problems()),
            Self::ApiKey(key) => {
                if !key.header.eq_ignore_ascii_case("authorization") {
                    problems.extend(header_problem(&key.header).map(|problem| format!("header: {problem}")));
                }
                if http::HeaderValue::from_str(&key.prefix).is_err() {
                    problems.push("prefix: has characters that no header can carry".to_owned());
                }
            }
        }
        problems
    }
}

impl Oauth2 {
    fn problems(&self) -> Vec<String> {
        let url = url_problem(&self.authorization_url).map(|problem| format!("authorization_url: {problem}"));
        let scope = Some(&self.scope_parameter).filter(|name| *name != "scope");
        let set_twice = self.authorization_params.keys().chain(scope);
        let set_twice = set_twice.filter(|name| OWN_PARAMETERS.contains(&name.as_str()));
        let set_twice = set_twice.map(|name| format!("authorization_params: {name} is set by Overseer"));
        let query = self.authorization_url.query_pairs().map(|(name, _)| name.into_owned());
        let query = query.filter(|name| OWN_PARAMETERS.contains(&name.as_str()) || *name == self.scope_parameter);
        let query = query.map(|name| format!("authorization_url: {name} is set by Overseer"));
        let empty = self.issuer.as_ref().is_some_and(String::is_empty);
        let empty = empty.then(|| "issuer: is empty; leave it out where the provider sends no iss".to_owned());
        url.into_iter().chain(set_twice).chain(query).chain(empty).collect()
    }
}

impl Provider {
    fn problems(&self) -> Vec<String> {
        let urls = [("token_url", Some(&self.token_url)), ("revocation_url", self.revocation_url.as_ref())];
        let urls = urls.into_iter().filter_map(|(name, url)| Some(format!("{name}: {}", url_problem(url?)?)));
        let set_twice = self.token_params.keys().filter(|name| OWN_TOKEN_PARAMETERS.contains(&name.as_str()));
        let set_twice = set_twice.map(|name| format!("token_params: {name} is set by Overseer"));
        let separator = !matches!(self.scope_separator.as_str(), " " | ",");
        let separator = separator.then(|| "scope_separator: must be a space or a comma".to_owned());
        let margin = (self.refresh_margin_s > REFRESH_MARGIN_MAX_S)
            .then(|| format!("refresh_margin_s: must be at most {REFRESH_MARGIN_MAX_S}"));
        let answer = &self.token_response;
        let expressions =
            [&answer.access_token, &answer.refresh_token, &answer.expires_in, &answer.scope, &answer.account];
        let names = Names::from(["body"]);
        let expressions = expressions.into_iter().flatten().flat_map(|expression| expression.problems(&names));
        let expressions = expressions.map(|problem| format!("token_response: {problem}"));
        let headers = self.token_headers.iter().filter_map(|(name, value)| {
            let wrong = http::HeaderValue::from_str(value).is_err();
            let wrong = wrong.then(|| format!("{name} has a value that no header can carry"));
            header_problem(name).or(wrong).map(|problem| format!("token_headers: {problem}"))
        });
        urls.chain(set_twice).chain(headers).chain(separator).chain(margin).chain(expressions).collect()
    }
}

impl ConnectionTest {
    fn problems(&self) -> Vec<String> {
        let Some(action) = self.action() else { return Vec::new() };
        let prefix = format!("actions.{}.", action.name);
        action.problems(true).into_iter().map(|problem| problem.replacen(&prefix, "test.", 1)).collect()
    }
}

/// The longest [`Provider::refresh_margin_s`]: an hour, which is how long most tokens live.
const REFRESH_MARGIN_MAX_S: u32 = 3600;

/// Whether a text is one scope (RFC 6749, 3.3) without a comma, which some providers put between two.
pub(crate) fn is_scope(text: &str) -> bool {
    (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'"' | b'\\' | b','))
}

/// What is wrong with a URL that a credential is sent to, if anything.
fn url_problem(url: &Url) -> Option<&'static str> {
    let here = matches!(url.host(), Some(Host::Ipv4(ip)) if ip.is_loopback());
    if url.scheme() != "https" && !(url.scheme() == "http" && here) {
        return Some("must be https");
    }
    let user = !url.username().is_empty() || url.password().is_some();
    (url.fragment().is_some() || user).then_some("must have no user and no fragment")
}

impl Action {
    /// Names that are never there, and filters that do not exist.
    fn template_problems(&self) -> Vec<String> {
        let always = ["parameters", "config", "user", "now"];
        // Which parameters there are is known only where others are refused.
        let closed = self.parameters.get("additionalProperties") == Some(&Value::Bool(false))
            && self.parameters.get("patternProperties").is_none();
        let own = self.parameters.get("properties").and_then(Value::as_object).into_iter().flatten();
        let mut asking: Names<'_> = always.into_iter().chain(own.map(|(name, _)| name.as_str())).collect();
        let reading: Names<'_> = always.into_iter().chain(["status", "headers", "body"]).collect();
        let mut problems: Vec<String> = self.key_problem(&asking).into_iter().collect();
        asking.insert(IDEMPOTENCY_KEY);
        if let Some(each) = &self.each {
            let (mut asking, mut reading) = (asking.clone(), reading.clone());
            asking.insert("item");
            reading.insert("item");
            problems.extend(each.request.template_problems(&asking, closed));
            problems.extend(each.response.template_problems(&reading, &reading));
        }
        let mut giving = reading.clone();
        if let Some(paginate) = &self.paginate {
            asking.insert("remaining");
            giving.extend(["items", "more", "next_cursor"]);
            problems.extend(paginate.cursor.problems(&reading));
            problems.extend(paginate.items.problems(&reading));
        }
        problems.extend(self.request.iter().flat_map(|request| request.template_problems(&asking, closed)));
        problems.extend(self.response.template_problems(&reading, &giving));
        problems
    }

    /// What is wrong with how its requests use the key by which the service knows a repetition, if anything. `asking` are
    /// the names that are there without it.
    fn key_problem(&self, asking: &Names<'_>) -> Option<String> {
        let request = self.request.as_ref()?;
        let keyed = self.effect == Effect::Keyed;
        if asking.contains(IDEMPOTENCY_KEY) {
            return keyed.then(|| format!("parameters: {IDEMPOTENCY_KEY} is Overseer's own in a keyed action"));
        }
        let mut with_key = asking.clone();
        with_key.insert(IDEMPOTENCY_KEY);
        let has_key = |request: &Request| {
            request.template_problems(asking, true).len() > request.template_problems(&with_key, true).len()
        };
        let used = has_key(request) || self.each.as_ref().is_some_and(|each| has_key(&each.request));
        match (keyed, used) {
            (true, true) | (false, false) => None,
            (true, false) => {
                let remedy = "such as headers: { Idempotency-Key: \"{{ idempotency_key }}\" }";
                Some(format!("effect: keyed needs {IDEMPOTENCY_KEY} somewhere in the request, {remedy}"))
            }
            (false, true) => Some(format!("effect: {IDEMPOTENCY_KEY} is there in keyed actions only")),
        }
    }

    fn problems(&self, strict: bool) -> Vec<String> {
        let place = |name: &str| format!("actions.{}.{name}", self.name);
        let mut problems = schema_problems(&place("parameters"), &self.parameters, strict);
        problems.extend(self.returns.iter().flat_map(|schema| any_schema_problems(&place("returns"), schema, strict)));
        let mut problem = |text: String| problems.push(format!("actions.{}.{text}", self.name));
        for wrong in self.template_problems() {
            problem(wrong);
        }
        let each = self.each.as_ref().map(|each| ("each.request", &each.request));
        for (name, request) in self.request.iter().map(|request| ("request", request)).chain(each) {
            let bodies = [request.json.is_some(), request.form.is_some(), request.raw.is_some()];
            if bodies.into_iter().filter(|there| *there).count() > 1 {
                problem(format!("{name}: at most one of json, form and raw"));
            }
            for wrong in request.headers.keys().filter_map(|header| header_problem(header)) {
                problem(format!("{name}.headers: {wrong}"));
            }
            let media_type = request.raw.as_ref().map(|raw| raw.content_type.as_str());
            if media_type.is_some_and(|text| http::HeaderValue::from_str(text).is_err()) {
                problem(format!("{name}.raw.content_type: has characters that no header can carry"));
            }
            let path = request.path.literal();
            if !path.starts_with('/') || path.contains(['?', '#']) {
                problem(format!("{name}.path: must begin with / and hold neither ? nor #; query has its own place"));
            }
        }
        if (self.each.is_some() || self.paginate.is_some()) && !self.effect.is_repeatable() {
            problem("effect: paginate and each call several times, so that it must be read or idempotent".to_owned());
        }
        if self.each.is_some() && self.paginate.is_none() {
            problem("each: needs paginate, which says where the items are".to_owned());
        }
        problems
    }
}

impl Request {
    /// `closed` says whether `names` are all that can be there.
    fn template_problems(&self, names: &Names<'_>, closed: bool) -> Vec<String> {
        let fields =
            self.query.values().chain(self.headers.values()).chain(self.form.iter().flat_map(|form| form.values()));
        let mut problems: Vec<String> =
            fields.chain(&self.json).flat_map(|template| template.problems(names)).collect();
        problems.extend(self.path.problems(names));
        problems.extend(self.raw.iter().flat_map(|raw| raw.text.problems(names)));
        problems.retain(|problem| closed || !problem.ends_with(NOT_THERE));
        problems
    }
}

impl Response {
    /// `reading` is there when the answer is judged, `giving` when what the action returns is made of it.
    fn template_problems(&self, reading: &Names<'_>, giving: &Names<'_>) -> Vec<String> {
        let judging = [&self.failed_when, &self.error.code, &self.error.message].into_iter().flatten();
        let mut problems: Vec<String> = judging.flat_map(|expression| expression.problems(reading)).collect();
        problems.extend(self.external_id.iter().flat_map(|expression| expression.problems(giving)));
        problems.extend(self.message.iter().flat_map(|text| text.problems(giving)));
        problems.extend(match &self.data {
            None => Vec::new(),
            Some(Data::Expression(expression)) => expression.problems(giving),
            Some(Data::Template(template)) => template.problems(giving),
        });
        problems
    }
}

/// What is wrong with the name of a header that a manifest sets, if anything.
fn header_problem(header: &str) -> Option<String> {
    match header.parse::<http::HeaderName>() {
        Err(_) => Some(format!("{header:?} is not a header name")),
        Ok(name) if OWN_HEADERS.contains(&name.as_str()) => Some(format!("{header} is set by Overseer")),
        Ok(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::effect::Effect;

    const GOOD: &str = r#"
name: echo
version: 1.0.0
display_name: Echo
description: Says it again.
runtime: { type: http, base_url: "https://echo.example" }
permissions: ["network:echo.example"]
actions:
  - name: say
    description: Says it.
    effect: read
    request: { path: /say }
"#;

    fn problem(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        Manifest::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string()
    }

    #[test]
    fn a_small_manifest_is_enough_and_json_is_yaml() {
        let manifest = Manifest::parse(GOOD).unwrap();
        assert_eq!(manifest.name.as_str(), "echo");
        let json = r#"{"name": "j", "version": "0.1.0", "display_name": "J", "description": "d",
            "runtime": {"type": "http", "base_url": "https://j.example"}, "permissions": ["network:j.example"],
            "actions": [{"name": "a", "description": "d", "effect": "unsafe", "request": {"method": "POST", "path": "/"}}]}"#;
        assert_eq!(Manifest::parse(json).unwrap().actions[0].effect, Effect::Unsafe);
    }

    #[test]
    fn a_wrong_manifest_says_what_and_where() {
        for (from, to, said) in [
            ("version: 1.0.0", "version: one", "version"),
            ("name: echo", "name: Echo", "small letter"),
            ("display_name: Echo", "displayname: Echo", "displayname"),
            ("type: http", "type: magic", "magic"),
            ("https://echo.example", "http://echo.example", "must be https"),
            ("network:echo.example", "network:other.example", "add network:echo.example"),
            ("network:echo.example", "disk:all", "disk:all"),
            ("effect: read", "effect: maybe", "maybe"),
            ("{ path: /say }", "{ path: \"/{{ a \" }", "template"),
            ("{ path: /say }", "{ path: /say, json: {}, form: {} }", "at most one"),
            ("{ path: /say }", "{ path: /say }\n    aliases: [say]", "used twice"),
            ("{ path: /say }", "{ path: /say }\n    parameters: { type: object, properties: 5 }", "parameters"),
            ("effect: read", "effect: read\n    effect: read", "effect"),
            ("{ path: /say }", "{ path: \"/{{ wrod }}\" }", "refers to wrod"),
            ("{ path: /say }", "{ path: /say, query: { a: \"{{ [1, 2] | minn }}\" } }", "minn"),
            ("{ path: /say }", "{ path: /say }\n    response: { data: { a: \"{{ bdy.a }}\" } }", "refers to bdy"),
            ("{ path: /say }", "{ path: /say }\n    response: { message: \"{{ items }}\" }", "refers to items"),
            (
                "{ path: /say }",
                "{ path: /say }\n    parameters: { type: object, properties: { a: { description: one, two } } }",
                "/properties/a: \"two\"",
            ),
        ] {
            let problem = problem(from, to);
            assert!(problem.contains(said), "{to}: {problem}");
        }
    }

    #[test]
    fn a_wrong_sign_in_says_what_and_where() {
        let oauth = |more: &str| {
            format!(
                "auth: {{ type: oauth2, authorization_url: \"https://p.example/a\", token_url: \"https://p.example/t\"{more} }}\nactions:"
            )
        };
        Manifest::parse(&GOOD.replacen("actions:", &oauth(""), 1)).unwrap();
        for (more, said) in [
            (", scope: [a]", "scope"),
            (", scopes: [\"a b\"]", "is not a scope"),
            (", scopes: [\"a,b\"]", "is not a scope"),
            (", scope_separator: \";\"", "a space or a comma"),
            (", refresh_margin_s: 3601", "at most 3600"),
            (", refresh_margin_s: -1", "expected u32"),
            (", issuer: \"\"", "issuer"),
            (", authorization_params: { state: x }", "state is set by Overseer"),
            (", scope_parameter: redirect_uri", "redirect_uri is set by Overseer"),
            (", token_params: { client_secret: x }", "client_secret is set by Overseer"),
            (", token_headers: { authorization: x }", "authorization is set by Overseer"),
            (", token_headers: { x-a: \"\\n\" }", "no header can carry"),
            (", token_response: { access_token: answer.token }", "refers to answer"),
            (", token_response: { token: body.token }", "token"),
            (", revocation_url: \"http://p.example/r\"", "revocation_url: must be https"),
            (", revocation_url: \"https://user@p.example/r\"", "revocation_url: must have no user"),
            (", client_authentication: jwt", "jwt"),
            (", test: { request: { path: me } }", "test.request.path"),
            (", test: { request: { path: /me }, account: bdy.name }", "refers to bdy"),
        ] {
            let problem = Manifest::parse(&GOOD.replacen("actions:", &oauth(more), 1)).unwrap_err().to_string();
            assert!(problem.contains(said), "{more}: {problem}");
        }
        for (auth, said) in [
            ("{ type: oauth2 }", "authorization_url"),
            (
                "{ type: oauth2, authorization_url: \"https://p.example/a?state=x\", token_url: \"https://p.example/t\" }",
                "authorization_url: state is set by Overseer",
            ),
            ("{ type: client_credentials }", "token_url"),
            ("{ type: client_credentials, token_url: \"http://p.example/t\" }", "token_url: must be https"),
            ("{ type: api_key, header: host }", "host is set by Overseer"),
            ("{ type: api_key, prefix: \"\\n\" }", "prefix"),
            ("{ type: basic, header: x }", "header"),
            ("{ type: magic }", "magic"),
        ] {
            let auth = format!("auth: {auth}\nactions:");
            let problem = Manifest::parse(&GOOD.replacen("actions:", &auth, 1)).unwrap_err().to_string();
            assert!(problem.contains(said), "{auth}: {problem}");
        }
    }

    #[test]
    fn words_that_once_were_booleans_are_text() {
        let loops = "response: { data: { $for: n, $in: \"[1, 2]\", $do: \"{{ n }}\" } }";
        Manifest::parse(&GOOD.replacen("{ path: /say }", &format!("{{ path: /say }}\n    {loops}"), 1)).unwrap();
    }
}
