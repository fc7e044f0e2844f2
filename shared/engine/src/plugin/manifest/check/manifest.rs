//! The rules for a manifest as a whole.

use std::collections::BTreeSet;

use url::Url;

use super::values::url_problem;
use crate::plugin::manifest::foreign::Form;
use crate::plugin::manifest::{ATTEMPTS_MAX, Container, Manifest, Module, Runtime};

/// The longest tool name that all model providers accept, in characters. Overseer's are `<plugin>__<action>`.
const TOOL_NAME_MAX: usize = 64;
/// The separator of plugin and action in a tool name, in characters.
const TOOL_SEPARATOR: usize = 2;

impl Manifest {
    /// Every problem of the manifest, in the keys of Overseer's own form.
    pub(in crate::plugin::manifest) fn problems(&self, form: Form) -> Vec<String> {
        // Authors of the older forms use keywords and keys that Overseer does not know.
        let strict = form == Form::Own;
        let runtime_path = if strict { "runtime." } else { "" };
        let exceeded = self.limit_problems(runtime_path);
        if !exceeded.is_empty() {
            return exceeded;
        }
        let mut problems = self.runtime_problems(runtime_path);
        problems.extend(self.auth.problems().into_iter().map(|problem| format!("auth.{problem}")));
        if self.retry.attempts.is_some_and(|attempts| !(1..=ATTEMPTS_MAX).contains(&attempts)) {
            problems.push(format!("retry.attempts: must be 1 to {ATTEMPTS_MAX}"));
        }
        let breaker = self.breaker.problems().into_iter();
        problems.extend(breaker.map(|(field, problem)| format!("breaker.{field}: {problem}")));
        problems.extend(self.declaration_problems());
        problems.extend(self.hook_problems(url_problem));
        problems.extend(self.config_problems(strict));
        problems.extend(self.action_problems(strict));
        problems.extend(self.name_problems());
        problems
    }

    /// The problems of its actions and their names.
    fn action_problems(&self, strict: bool) -> Vec<String> {
        let mut problems = Vec::new();
        let mut names = BTreeSet::new();
        for action in &self.actions {
            for name in std::iter::once(&action.name).chain(&action.aliases) {
                if !names.insert(name) {
                    problems.push(format!("actions: the name {name} is used twice"));
                }
            }
            let limit = TOOL_NAME_MAX - TOOL_SEPARATOR;
            if self.name.as_str().len() + action.name.as_str().len() > limit {
                problems.push(format!(
                    "actions.{}: name and the plugin's name together have more than {limit} characters",
                    action.name
                ));
            }
            problems.extend(action.problems(strict));
        }
        problems
    }

    /// The problems of its runtime, and of actions that the runtime does not allow. `path` is the path of the runtime in the
    /// author's form, with its dot.
    fn runtime_problems(&self, path: &str) -> Vec<String> {
        match &self.runtime {
            Runtime::Http { base_url } => self.http_problems(base_url),
            Runtime::Container(container) => self.container_problems(container, path),
            Runtime::Native if self.actions.is_empty() => Vec::new(),
            Runtime::Native => vec!["actions: Overseer has no code for them; remove them".to_owned()],
            Runtime::Module(module) => self.module_problems(module, path),
        }
    }

    fn http_problems(&self, base_url: &Url) -> Vec<String> {
        let mut problems = Vec::new();
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
            problems.push(format!("actions.{}.request: is missing; add the request to the service", action.name));
        }
        problems
    }

    fn container_problems(&self, container: &Container, path: &str) -> Vec<String> {
        let mut problems: Vec<String> =
            container.problems().into_iter().map(|problem| format!("{path}{problem}")).collect();
        if !self.actions.is_empty() {
            problems.push("actions: an environment has none; remove them".to_owned());
        }
        problems
    }

    fn module_problems(&self, module: &Module, path: &str) -> Vec<String> {
        let mut problems = Vec::new();
        for action in self.actions.iter().filter(|action| action.request.is_some()) {
            problems.push(format!("actions.{}.request: is for the runtime http only; remove it", action.name));
        }
        let names: BTreeSet<_> = self.actions.iter().map(|action| &action.name).collect();
        for name in module.handlers.keys().filter(|name| !names.contains(name)) {
            problems.push(format!("{path}handlers.{name}: there is no action of that name; remove it"));
        }
        problems
    }
}
