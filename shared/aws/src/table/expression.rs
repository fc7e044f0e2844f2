//! Expressions, and the names and values that belong to them. Every attribute is written as `#name`, since DynamoDB keeps
//! some 570 words for itself.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;
use overseer_engine::ports::table::Condition;

use super::row::{number, text};

/// Holds for what stands there and has not expired, and for what does not stand there.
pub(super) const NOT_EXPIRED: &str = "(attribute_not_exists(#expires_at) OR #expires_at > :now)";
/// Holds for what counts as absent.
pub(super) const ABSENT: &str = "(attribute_not_exists(#partition) OR #expires_at <= :now)";

/// The values of an expression, by their placeholders.
pub(super) type Values = HashMap<String, AttributeValue>;

/// What must hold for a write.
#[derive(Debug, Clone, Default)]
pub(super) struct ConditionExpr {
    pub(super) expression: Option<String>,
    pub(super) names: Option<HashMap<String, String>>,
    pub(super) values: Option<Values>,
}

impl ConditionExpr {
    /// In that second.
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

/// The attributes that stand in these expressions as `#name`. DynamoDB refuses a name that none of them has.
pub(super) fn names(expressions: &[&str]) -> HashMap<String, String> {
    let parts = expressions.iter().flat_map(|expression| expression.split('#').skip(1));
    parts
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
    fn names_are_found_wherever_they_stand() {
        let found = names(&["SET #a = if_not_exists(#a, :b), #c_d=:e", "#f>:g", "no name"]);
        let mut found: Vec<_> = found.iter().map(|(key, name)| (key.as_str(), name.as_str())).collect();
        found.sort_unstable();
        assert_eq!(found, [("#a", "a"), ("#c_d", "c_d"), ("#f", "f")]);
    }
}
