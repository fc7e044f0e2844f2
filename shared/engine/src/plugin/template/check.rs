//! Finds names in a template that never exist, without evaluating it. (`language` refuses syntax that is not allowed.)

use std::collections::BTreeSet;

use super::{Expression, Template, Text, language};
use crate::plugin::template::error::shortened;

/// The end of the message about a name that does not exist.
pub(crate) const UNKNOWN_NAME: &str = "which does not exist";

/// The names that a template may refer to.
pub(crate) type Names<'a> = BTreeSet<&'a str>;

impl Expression {
    /// The names that it refers to and that are not among `names`, each as a problem.
    pub(crate) fn problems(&self, names: &Names<'_>) -> Vec<String> {
        problems_of(&self.source, &self.shape.names, names)
    }
}

impl Text {
    /// The names that it refers to and that are not among `names`, each as a problem.
    pub(crate) fn problems(&self, names: &Names<'_>) -> Vec<String> {
        problems_of(&self.source, &self.shape.names, names)
    }

    /// The parts of the text that do not depend on values.
    pub(crate) fn literal(&self) -> String {
        language::literal(&self.source)
    }
}

impl Template {
    /// The names that it refers to and that are not among `names`, each as a problem.
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

fn problems_of(source: &str, used: &BTreeSet<String>, names: &Names<'_>) -> Vec<String> {
    let unknown = used.iter().filter(|name| !names.contains(name.as_str()));
    unknown.map(|name| format!("{:?} refers to {}, {UNKNOWN_NAME}", shortened(source), shortened(name))).collect()
}
