//! The rules for an action.

use super::values::{header_problem, is_header_value};
use crate::plugin::manifest::config::{any_schema_problems, schema_problems};
use crate::plugin::manifest::{Action, Request};

impl Action {
    /// Every problem of the action. With `strict`, unknown keywords of its schemas are problems.
    pub(super) fn problems(&self, strict: bool) -> Vec<String> {
        let path = |name: &str| format!("actions.{}.{name}", self.name);
        let mut problems = schema_problems(&path("parameters"), &self.parameters, strict);
        problems.extend(self.returns.iter().flat_map(|schema| any_schema_problems(&path("returns"), schema, strict)));
        problems.extend(self.template_problems().into_iter().map(|problem| path(&problem)));
        let each = self.each.as_ref().map(|each| ("each.request", &each.request));
        for (name, request) in self.request.iter().map(|request| ("request", request)).chain(each) {
            problems.extend(request.problems().into_iter().map(|problem| path(&format!("{name}{problem}"))));
        }
        if (self.each.is_some() || self.paginate.is_some()) && !self.effect.is_repeatable() {
            problems.push(path("effect: must be read or idempotent, since paginate and each call several times"));
        }
        if self.each.is_some() && self.paginate.is_none() {
            problems.push(path("each: needs paginate, which says where the items are"));
        }
        problems
    }
}

impl Request {
    /// Every problem of the request, each beginning with the rest of its path.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let bodies = [self.json.is_some(), self.form.is_some(), self.raw.is_some()];
        if bodies.into_iter().filter(|present| *present).count() > 1 {
            problems.push(": at most one of json, form and raw".to_owned());
        }
        for problem in self.headers.keys().filter_map(|header| header_problem(header)) {
            problems.push(format!(".headers: {problem}"));
        }
        if self.raw.as_ref().is_some_and(|raw| !is_header_value(&raw.content_type)) {
            problems.push(".raw.content_type: has characters that no header can carry".to_owned());
        }
        let path = self.path.literal();
        if !path.starts_with('/') || path.contains(['?', '#']) {
            problems.push(".path: must begin with / and contain neither ? nor #; put parameters into query".to_owned());
        }
        problems
    }
}
