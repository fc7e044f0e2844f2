//! Finds what cannot work in a template before anybody uses it: names that are never there, and filters and tests that
//! do not exist. Nothing of the template is evaluated for that: what it could build has no bounds yet.

use std::collections::{BTreeSet, HashSet};

use minijinja::ErrorKind;

use super::{EXPRESSIONS, Expression, Template, Text};

/// How the problem of a missing name ends.
pub(crate) const NOT_THERE: &str = "which is not there";

/// The names that a template may refer to.
pub(crate) type Names<'a> = BTreeSet<&'a str>;

impl Expression {
    /// What cannot work, given that only `names` are there.
    pub(crate) fn problems(&self, names: &Names<'_>) -> Vec<String> {
        let used = EXPRESSIONS.compile_expression_owned(self.0.as_str()).map(|made| made.undeclared_variables(false));
        problems_of(&self.0, std::iter::once(self.0.as_str()), &used.unwrap_or_default(), names)
    }
}

impl Text {
    /// What cannot work, given that only `names` are there.
    pub(crate) fn problems(&self, names: &Names<'_>) -> Vec<String> {
        let used = EXPRESSIONS.template_from_str(&self.0).map(|made| made.undeclared_variables(false));
        problems_of(&self.0, self.pieces().map(|(_, code)| code), &used.unwrap_or_default(), names)
    }

    /// What stands in the text whatever the values are.
    pub(crate) fn literal(&self) -> String {
        self.pieces().map(|(literal, _)| literal).collect()
    }

    /// The text in pieces: what stands there, and the code behind it.
    fn pieces(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut rest = Some(self.0.as_str());
        std::iter::from_fn(move || {
            let text = rest.take()?;
            let opened = ["{{", "{%", "{#"].iter().filter_map(|open| text.split_once(open));
            let Some((literal, inside)) = opened.min_by_key(|(before, _)| before.len()) else {
                return Some((text, ""));
            };
            let closed = ["}}", "%}", "#}"].iter().filter_map(|close| inside.split_once(close));
            let (code, after) = closed.min_by_key(|(before, _)| before.len()).unwrap_or((inside, ""));
            rest = Some(after);
            Some((literal, code))
        })
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

fn problems_of<'a>(
    source: &str,
    code: impl Iterator<Item = &'a str>,
    used: &HashSet<String>,
    names: &Names<'_>,
) -> Vec<String> {
    let there = |name: &str| {
        let known = names.contains(name) || EXPRESSIONS.globals().any(|(global, _)| global == name);
        // What is set within a condition counts as undeclared all the same.
        known || source.contains(&format!("set {name}"))
    };
    let missing: BTreeSet<&str> = used.iter().map(String::as_str).filter(|name| !there(name)).collect();
    let mut problems: Vec<String> =
        missing.iter().map(|name| format!("{source:?} refers to {name}, {NOT_THERE}")).collect();
    for (kind, name) in code.flat_map(filters_and_tests) {
        if !exists(kind, name) {
            problems.push(format!("{source:?} uses the {} {name}, which does not exist", kind.name()));
        }
    }
    problems
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Filter,
    Test,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Test => "test",
        }
    }
}

/// The filters (`… | name`) and tests (`… is name`) in a piece of code.
fn filters_and_tests(code: &str) -> Vec<(Kind, &str)> {
    let mut found = Vec::new();
    let mut expected = None;
    for token in tokens(code) {
        expected = match (token, expected) {
            ("|", _) => Some(Kind::Filter),
            ("is", _) | ("not", Some(Kind::Test)) => Some(Kind::Test),
            (word, Some(kind)) if word.starts_with(|first: char| first.is_alphabetic() || first == '_') => {
                found.push((kind, word));
                None
            }
            _ => None,
        };
    }
    found
}

/// Words and single characters, without spaces; a quoted text is one token.
fn tokens(code: &str) -> impl Iterator<Item = &str> {
    let mut rest = code;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        let first = rest.chars().next()?;
        let length = if matches!(first, '"' | '\'') {
            let mut escaped = false;
            let end = rest.char_indices().skip(1).find(|(_, character)| {
                let ends = *character == first && !escaped;
                escaped = *character == '\\' && !escaped;
                ends
            });
            end.map_or(rest.len(), |(at, _)| at + 1)
        } else {
            let word = |character: char| character.is_alphanumeric() || character == '_';
            let end = rest.find(|character| !word(character)).unwrap_or(rest.len());
            if end == 0 { first.len_utf8() } else { end }
        };
        let (token, after) = rest.split_at(length);
        rest = after;
        Some(token)
    })
}

/// Whether there is such a filter or test, by using it on nothing.
fn exists(kind: Kind, name: &str) -> bool {
    let source = match kind {
        Kind::Filter => format!("nothing|{name}"),
        Kind::Test => format!("nothing is {name}"),
    };
    let used = EXPRESSIONS.compile_expression_owned(source).and_then(|made| made.eval(()));
    !used.is_err_and(|error| matches!(error.kind(), ErrorKind::UnknownFilter | ErrorKind::UnknownTest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_and_tests_are_found_wherever_they_stand() {
        let code = r#"(b | nofilter(1)) if b is not none and c is x else "a | b \" is c" | upper|lower"#;
        let found: Vec<_> = filters_and_tests(code).into_iter().map(|(_, name)| name).collect();
        assert_eq!(found, ["nofilter", "none", "x", "upper", "lower"]);
        assert!(exists(Kind::Filter, "base64url") && exists(Kind::Filter, "min") && exists(Kind::Test, "mapping"));
        assert!(!exists(Kind::Filter, "nofilter") && !exists(Kind::Test, "x"));
    }

    #[test]
    fn a_template_is_not_evaluated_to_be_checked() {
        for source in
            ["'x' | indent(9223372036854775807)", "[1] | slice(9999999999999)", "'%999999999999d' | format(1)"]
        {
            let expression = Expression::try_from(source.to_owned()).unwrap();
            assert_eq!(expression.problems(&Names::new()), Vec::<String>::new());
        }
        let text = Text::try_from("| {% if b %}{% set c = b | nofilter %}{% endif %}{{ c }} | x".to_owned()).unwrap();
        let problems = text.problems(&Names::from(["b"]));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(text.literal(), "|  | x");
    }
}
