//! Whether a plugin is for this version of Overseer, and the problems of what it declares to need.

use std::collections::BTreeSet;

use semver::{Prerelease, Version};

use super::Manifest;

impl Manifest {
    /// Whether the plugin works with this version of Overseer.
    pub fn is_compatible(&self) -> bool {
        // The version always parses; a test checks it.
        Version::parse(env!("CARGO_PKG_VERSION")).is_ok_and(|own| self.is_compatible_with(&own))
    }

    /// Whether the plugin works with that version of Overseer. A pre-release of Overseer counts as the release, since it is
    /// there to test it.
    pub(super) fn is_compatible_with(&self, overseer: &Version) -> bool {
        let release = Version { pre: Prerelease::EMPTY, ..overseer.clone() };
        self.compatible_versions.as_ref().is_none_or(|range| range.allows(overseer) || range.allows(&release))
    }

    /// Every problem of its dependencies and data adapters.
    pub(super) fn declaration_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.dependencies.plugins.contains_key(&self.name) {
            problems.push(format!("dependencies.plugins.{}: a plugin cannot depend on itself; remove it", self.name));
        }
        let mut names = BTreeSet::new();
        for adapter in self.data_adapters.iter().filter(|adapter| !names.insert(&adapter.name)) {
            problems.push(format!("data_adapters: the name {} is used twice; choose another", adapter.name));
        }
        problems
    }
}
