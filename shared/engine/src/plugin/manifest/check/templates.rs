//! Checks the names that an action's templates refer to.

use serde_json::Value;

use crate::core::effect::Effect;
use crate::plugin::manifest::{Action, Data, IDEMPOTENCY_KEY, Request, Response};
use crate::plugin::template::{Names, UNKNOWN_NAME};

/// The variables of every template.
const COMMON_NAMES: [&str; 4] = ["parameters", "config", "user", "now"];

impl Action {
    /// The names in its templates that never exist.
    pub(super) fn template_problems(&self) -> Vec<String> {
        let closed = self.has_closed_parameters();
        let own = self.parameters.get("properties").and_then(Value::as_object).into_iter().flatten();
        let mut request_names: Names<'_> = COMMON_NAMES.into_iter().chain(own.map(|(name, _)| name.as_str())).collect();
        let response_names: Names<'_> = COMMON_NAMES.into_iter().chain(["status", "headers", "body"]).collect();
        let mut problems: Vec<String> = self.key_problem(&request_names).into_iter().collect();
        request_names.insert(IDEMPOTENCY_KEY);
        if let Some(each) = &self.each {
            let (mut request_names, mut response_names) = (request_names.clone(), response_names.clone());
            request_names.insert("item");
            response_names.insert("item");
            problems.extend(each.request.template_problems(&request_names, closed));
            problems.extend(each.response.template_problems(&response_names, &response_names));
        }
        let mut result_names = response_names.clone();
        if let Some(paginate) = &self.paginate {
            request_names.insert("remaining");
            result_names.extend(["items", "more", "next_cursor"]);
            problems.extend(paginate.cursor.problems(&response_names));
            problems.extend(paginate.items.problems(&response_names));
        }
        problems.extend(self.request.iter().flat_map(|request| request.template_problems(&request_names, closed)));
        problems.extend(self.response.template_problems(&response_names, &result_names));
        problems
    }

    /// Whether its schema lists all parameters, so that a template's use of another one is an error.
    fn has_closed_parameters(&self) -> bool {
        self.parameters.get("additionalProperties") == Some(&Value::Bool(false))
            && self.parameters.get("patternProperties").is_none()
    }

    /// What is wrong with its use of the idempotency key, if anything. `names` are the request's other names.
    fn key_problem(&self, names: &Names<'_>) -> Option<String> {
        let request = self.request.as_ref()?;
        let keyed = self.effect == Effect::Keyed;
        if names.contains(IDEMPOTENCY_KEY) {
            return keyed.then(|| format!("parameters: {IDEMPOTENCY_KEY} is reserved in keyed actions; rename yours"));
        }
        let mut with_key = names.clone();
        with_key.insert(IDEMPOTENCY_KEY);
        let uses_key = |request: &Request| {
            request.template_problems(names, true).len() > request.template_problems(&with_key, true).len()
        };
        let used = uses_key(request) || self.each.as_ref().is_some_and(|each| uses_key(&each.request));
        match (keyed, used) {
            (true, true) | (false, false) => None,
            (true, false) => {
                let remedy = "such as headers: { Idempotency-Key: \"{{ idempotency_key }}\" }";
                Some(format!("effect: keyed needs {IDEMPOTENCY_KEY} somewhere in the request, {remedy}"))
            }
            (false, true) => Some(format!("effect: {IDEMPOTENCY_KEY} exists in keyed actions only")),
        }
    }
}

impl Request {
    /// The names in its templates that are not among `names`; none if others may exist too, which `closed` denies.
    fn template_problems(&self, names: &Names<'_>, closed: bool) -> Vec<String> {
        let fields =
            self.query.values().chain(self.headers.values()).chain(self.form.iter().flat_map(|form| form.values()));
        let mut problems: Vec<String> =
            fields.chain(&self.json).flat_map(|template| template.problems(names)).collect();
        problems.extend(self.path.problems(names));
        problems.extend(self.raw.iter().flat_map(|raw| raw.text.problems(names)));
        problems.retain(|problem| closed || !problem.ends_with(UNKNOWN_NAME));
        problems
    }
}

impl Response {
    /// The unknown names in its templates. `response_names` exist while the response is judged, `result_names` while the
    /// action's result is made from it.
    fn template_problems(&self, response_names: &Names<'_>, result_names: &Names<'_>) -> Vec<String> {
        let judging = [&self.failed_when, &self.error.code, &self.error.message].into_iter().flatten();
        let mut problems: Vec<String> = judging.flat_map(|expression| expression.problems(response_names)).collect();
        problems.extend(self.external_id.iter().flat_map(|expression| expression.problems(result_names)));
        problems.extend(self.message.iter().flat_map(|text| text.problems(result_names)));
        problems.extend(match &self.data {
            None => Vec::new(),
            Some(Data::Expression(expression)) => expression.problems(result_names),
            Some(Data::Template(template)) => template.problems(result_names),
        });
        problems
    }
}
