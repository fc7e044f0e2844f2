//! The variables that templates see, and their shared work budget.

use std::collections::BTreeMap;
use std::sync::Arc;

use minijinja::value::Serde;
use serde_json::Value;

use super::language::{Path, Shape};
use super::work::{BUDGET, WorkBudget};

/// The variables that a template may refer to. A context and its clones share one work budget.
#[derive(Debug, Clone, Default)]
pub struct Context {
    variables: BTreeMap<String, minijinja::Value>,
    pub(super) work: Arc<WorkBudget>,
}

impl Context {
    /// This context with another variable, which replaces one of the same name.
    #[must_use]
    pub fn with(mut self, name: &str, value: &impl serde::Serialize) -> Self {
        self.variables.insert(name.to_owned(), minijinja::Value::from(Serde(value)));
        self
    }

    /// The variable of that name, as JSON.
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        serde_json::to_value(self.variables.get(name)?).ok()
    }

    /// The variables and the budget as a value for minijinja.
    pub(super) fn value(&self) -> minijinja::Value {
        let work = (BUDGET, minijinja::Value::from_dyn_object(Arc::clone(&self.work)));
        let variables = self.variables.iter().map(|(name, value)| (name.as_str(), value.clone()));
        minijinja::Value::from_pairs(variables.chain([work]))
    }

    /// Charges for an evaluation before it starts: its fixed cost, and the values that its operators copy or compare.
    pub(super) fn charge_evaluation(&self, source: &str, shape: &Shape) -> Result<(), minijinja::Error> {
        self.work.charge_evaluation(source)?;
        shape.copied.iter().filter_map(|path| self.at(path)).try_for_each(|value| self.work.charge_scan(&value))
    }

    /// The value at a path, if there is one.
    fn at(&self, path: &Path) -> Option<minijinja::Value> {
        let (name, attributes) = path.split_first()?;
        let value = self.variables.get(name)?.clone();
        attributes.iter().try_fold(value, |value, attribute| value.get_attr(attribute).ok())
    }
}
