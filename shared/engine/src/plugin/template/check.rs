//! Finds names in a template that are never there, before anybody uses it. What it may not say at all is refused when it is
//! read (`language`). Nothing of the template is evaluated for that.

use std::collections::BTreeSet;

use super::{Expression, Template, Text, language};
use crate::plugin::template::error::shortened;

/// How the problem of a missing name ends.
pub(crate) const NOT_THERE: &str = "which is not there";

/// The names that a template may refer to.
pub(crate) type Names<'a> = BTreeSet<&'a str>;

impl Expression {
    /// What cannot work, given that only `names` are there.
    pub(crate) fn problems(&self, names: &Names<'_>) -> Vec<String> {
        problems_of(&self.source, &self.shape.names, names)
    }
}

impl Text {
    /// What cannot work, given that only `names` are there.
    pub(crate) fn problems(&self, names: &Names<'_>) -> Vec<String> {
        problems_of(&self.source, &self.shape.names, names)
    }

    /// What stands in the text whatever the values are.
    pub(crate) fn literal(&self) -> String {
        language::literal(&self.source)
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

fn problems_of(source: &str, used: &BTreeSet<String>, names: &Names<'_>) -> Vec<String> {
    let missing = used.iter().filter(|name| !names.contains(name.as_str()));
    missing.map(|name| format!("{:?} refers to {}, {NOT_THERE}", shortened(source), shortened(name))).collect()
}
