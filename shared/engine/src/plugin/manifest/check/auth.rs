//! The rules for how calls authenticate.

use super::values::{header_problem, is_header_value, is_scope, url_problem};
use crate::plugin::manifest::{ApiKey, Auth, ConnectionTest, Oauth2, Provider};
use crate::plugin::template::Names;

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

/// Parameters of a token request that Overseer sets itself.
const OWN_TOKEN_PARAMETERS: [&str; 8] =
    ["client_id", "client_secret", "code", "code_verifier", "grant_type", "redirect_uri", "refresh_token", "scope"];

/// The longest [`Provider::refresh_margin_s`]: an hour, the lifetime of most tokens.
const REFRESH_MARGIN_MAX_S: u32 = 3600;

impl Auth {
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.test().into_iter().flat_map(ConnectionTest::problems).collect();
        for scope in self.scopes() {
            if !is_scope(scope) {
                problems.push(format!("scopes: {scope:?} is not a scope (RFC 6749, 3.3)"));
            }
        }
        problems.extend(self.provider().into_iter().flat_map(Provider::problems));
        match self {
            Self::None | Self::Basic(_) => {}
            Self::ClientCredentials(client) => problems.extend(client.scopes.problems()),
            Self::Oauth2(oauth) => {
                problems.extend(oauth.scopes.problems());
                problems.extend(oauth.problems());
            }
            Self::ApiKey(key) => problems.extend(key.problems()),
        }
        problems
    }
}

impl ApiKey {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !self.header.eq_ignore_ascii_case("authorization") {
            problems.extend(header_problem(&self.header).map(|problem| format!("header: {problem}")));
        }
        if !is_header_value(&self.prefix) {
            problems.push("prefix: has characters that no header can carry".to_owned());
        }
        problems
    }
}

impl Oauth2 {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(url_problem(&self.authorization_url).map(|problem| format!("authorization_url: {problem}")));
        let custom_scope = Some(&self.scope_parameter).filter(|name| *name != "scope");
        for name in self.authorization_params.keys().chain(custom_scope) {
            if OWN_PARAMETERS.contains(&name.as_str()) {
                problems.push(format!("authorization_params: {name} is set by Overseer"));
            }
        }
        for (name, _) in self.authorization_url.query_pairs() {
            if OWN_PARAMETERS.contains(&name.as_ref()) || name == self.scope_parameter.as_str() {
                problems.push(format!("authorization_url: {name} is set by Overseer"));
            }
        }
        if self.issuer.as_ref().is_some_and(String::is_empty) {
            problems.push("issuer: is empty; leave it out if the provider sends no iss".to_owned());
        }
        problems
    }
}

impl Provider {
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, url) in [("token_url", Some(&self.token_url)), ("revocation_url", self.revocation_url.as_ref())] {
            problems.extend(url.and_then(url_problem).map(|problem| format!("{name}: {problem}")));
        }
        for name in self.token_params.keys().filter(|name| OWN_TOKEN_PARAMETERS.contains(&name.as_str())) {
            problems.push(format!("token_params: {name} is set by Overseer"));
        }
        for (name, value) in &self.token_headers {
            let value_problem =
                (!is_header_value(value)).then(|| format!("{name} has a value that no header can carry"));
            let problem = header_problem(name).or(value_problem);
            problems.extend(problem.map(|problem| format!("token_headers: {problem}")));
        }
        if !matches!(self.scope_separator.as_str(), " " | ",") {
            problems.push("scope_separator: must be a space or a comma".to_owned());
        }
        if self.refresh_margin_s > REFRESH_MARGIN_MAX_S {
            problems.push(format!("refresh_margin_s: must be at most {REFRESH_MARGIN_MAX_S}"));
        }
        let response = &self.token_response;
        let expressions =
            [&response.access_token, &response.refresh_token, &response.expires_in, &response.scope, &response.account];
        for expression in expressions.into_iter().flatten() {
            let expression_problems = expression.problems(&Names::from(["body"])).into_iter();
            problems.extend(expression_problems.map(|problem| format!("token_response: {problem}")));
        }
        let own_code = self.token_errors_at.iter().flat_map(|expression| expression.problems(&Names::from(["body"])));
        problems.extend(own_code.map(|problem| format!("token_errors_at: {problem}")));
        problems
    }
}

impl ConnectionTest {
    fn problems(&self) -> Vec<String> {
        let Some(action) = self.action() else { return Vec::new() };
        let prefix = format!("actions.{}.", action.name);
        action.problems(true).into_iter().map(|problem| problem.replacen(&prefix, "test.", 1)).collect()
    }
}
