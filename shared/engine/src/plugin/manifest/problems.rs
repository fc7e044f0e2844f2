//! The problems of a manifest.

/// What is wrong with a manifest: each problem with its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("; "))]
pub struct ManifestError(pub Vec<String>);

impl ManifestError {
    pub(crate) fn one(problem: impl Into<String>) -> Self {
        Self(vec![problem.into()])
    }
}
