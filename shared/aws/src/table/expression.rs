//! Expressions with their names and values. Every attribute is written as `#name`, since DynamoDB reserves some 570 words.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use overseer_engine::ports::table::Condition;

use super::row::{number, text};

/// Holds for an item that has not expired, and where there is no item.
pub(super) const NOT_EXPIRED: &str = "(attribute_not_exists(#expires_at) OR #expires_at > :now)";
/// Holds where there is no item, or an expired one.
pub(super) const ABSENT: &str = "(attribute_not_exists(#partition) OR #expires_at <= :now)";

/// The values of an expression, by their placeholders.
pub(super) type Values = HashMap<String, AttributeValue>;

/// The condition of a write. Without an expression it always holds.
#[derive(Debug, Clone, Default)]
pub(super) struct ConditionExpr {
    pub(super) expression: Option<String>,
    pub(super) names: Option<HashMap<String, String>>,
    pub(super) values: Option<Values>,
}

impl ConditionExpr {
    /// The condition for a write at `now_s`.
    pub(super) fn of(condition: &Condition, now_s: i64) -> Self {
        let (expression, version) = match condition {
            Condition::Any => return Self::default(),
            Condition::Absent => (ABSENT.to_owned(), None),
            Condition::Version(version) => (format!("#version = :version AND {NOT_EXPIRED}"), Some(version)),
        };
        let mut all = values([(":now", number(now_s))]);
        all.extend(version.map(|version| (":version".to_owned(), text(version.0.as_str()))));
        Self { names: Some(names(&[&expression])), values: Some(all), expression: Some(expression) }
    }
}

/// The attributes that these expressions name as `#name`. DynamoDB refuses a name that no expression uses.
pub(super) fn names(expressions: &[&str]) -> HashMap<String, String> {
    let references = expressions.iter().flat_map(|expression| expression.split('#').skip(1));
    references
        .map(|part| {
            let end = part.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_').unwrap_or(part.len());
            let name = part.get(..end).unwrap_or(part);
            (format!("#{name}"), name.to_owned())
        })
        .collect()
}

/// Values by their placeholders.
pub(super) fn values<const N: usize>(pairs: [(&str, AttributeValue); N]) -> Values {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_anywhere_in_an_expression() {
        let found = names(&["SET #a = if_not_exists(#a, :b), #c_d=:e", "#f>:g", "no name"]);
        let mut found: Vec<_> = found.iter().map(|(key, name)| (key.as_str(), name.as_str())).collect();
        found.sort_unstable();
        assert_eq!(found, [("#a", "a"), ("#c_d", "c_d"), ("#f", "f")]);
    }
}
