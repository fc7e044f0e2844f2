//! Suggestions for misspelled names.

/// Up to three of `names` that are similar to `wanted`, the most similar first.
pub(crate) fn nearest<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    // The time grows with the length of the input, and an empty text is contained in every name.
    if wanted.is_empty() || wanted.len() > 64 {
        return Vec::new();
    }
    let wanted = wanted.to_lowercase();
    let mut scored: Vec<(f64, &str)> = names
        .map(|name| (name.to_lowercase(), name))
        .map(|(lower, name)| (strsim::jaro_winkler(&wanted, &lower), lower, name))
        .filter(|(score, lower, _)| {
            *score > 0.75 || lower.contains(&wanted) || (wanted.contains(lower.as_str()) && !lower.is_empty())
        })
        .map(|(score, _, name)| (score, name))
        .collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}
