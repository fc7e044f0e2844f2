//! Finds what cannot work in a template before anybody uses it: names that are never there, and filters, tests and
//! functions that do not exist.

use std::collections::{BTreeSet, HashSet};

use minijinja::{Error, ErrorKind};

use super::{EXPRESSIONS, Expression, Template, Text};

/// The names that a template may refer to.
pub(crate) type Names<'a> = BTreeSet<&'a str>;

impl Expression {
    /// What cannot work, given that only `names` are there.
    pub(crate) fn problems(&self, names: &Names<'_>) -> Vec<String> {
        let Ok(compiled) = EXPRESSIONS.compile_expression_owned(self.0.as_str()) else { return Vec::new() };
        let used = compiled.undeclared_variables(false);
        problems_of(&self.0, &used, names, compiled.eval(()).err())
    }
}

impl Text {
    /// What cannot work, given that only `names` are there.
    pub(crate) fn problems(&self, names: &Names<'_>) -> Vec<String> {
        let Ok(compiled) = EXPRESSIONS.template_from_str(&self.0) else { return Vec::new() };
        let used = compiled.undeclared_variables(false);
        problems_of(&self.0, &used, names, compiled.render(()).err())
    }
}

impl Template {
    /// What cannot work, given that only `names` are there.
    pub(crate) fn problems(&self, names: &Names<'_>) -> Vec<String> {
        match self {
            Self::Literal(_) => Vec::new(),
            Self::Expression(expression) => expression.problems(names),
            Self::Text(text) => text.problems(names),
            Self::Array(items) => items.iter().flat_map(|item| item.problems(names)).collect(),
            Self::Object(fields) => fields.iter().flat_map(|(_, value)| value.problems(names)).collect(),
            Self::For { name, list, element } => {
                let mut inside = names.clone();
                inside.insert(name);
                [list.problems(names), element.problems(&inside)].concat()
            }
        }
    }
}

fn problems_of(source: &str, used: &HashSet<String>, names: &Names<'_>, failure: Option<Error>) -> Vec<String> {
    let there =
        |name: &&String| names.contains(name.as_str()) || EXPRESSIONS.globals().any(|(global, _)| global == *name);
    let mut missing: Vec<&String> = used.iter().filter(|name| !there(name)).collect();
    missing.sort();
    let mut problems: Vec<String> =
        missing.iter().map(|name| format!("{source:?} refers to {name}, which is not there")).collect();
    // With nothing there most templates fail; but that a filter does not exist shows all the same.
    problems.extend(failure.filter(is_unknown).map(|error| format!("{source:?} does not work: {error}")));
    problems
}

fn is_unknown(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction)
}
