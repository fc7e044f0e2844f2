//! Reads a manifest's text, in Overseer's own form or in an older one, with limits on what reading may cost.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::Error as YamlError;
use serde_saphyr::budget::BudgetBreach;

use super::foreign::Form;
use super::{Manifest, Runtime, foreign};
use crate::plugin::manifest::ManifestError;

/// The largest manifest, in bytes.
pub const MANIFEST_MAX_BYTES: usize = 256 * 1024;
/// The deepest nesting of lists and objects in a manifest; the document itself is level 1.
pub const MANIFEST_DEPTH_MAX: usize = 64;
/// The most aliases (`*name`) in a manifest.
const ALIASES_MAX: usize = 100;
/// The most bytes of text in a manifest, with aliases expanded.
const TEXTS_MAX_BYTES: usize = 1024 * 1024;
/// The most problems that an error lists.
const PROBLEMS_MAX: usize = 100;
/// The most YAML events that all aliases together may expand to.
const ALIAS_EVENTS_MAX: usize = 10_000;

impl Manifest {
    /// Reads a manifest in YAML or JSON and checks the rules that its types cannot express. The three older forms are read as
    /// well; their unknown keys are ignored. The error lists every problem, each with its path and the remedy.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MANIFEST_MAX_BYTES {
            return Err(ManifestError::one(format!(
                "the manifest has {} bytes, more than the {MANIFEST_MAX_BYTES} allowed; shorten it",
                text.len()
            )));
        }
        // Most manifests are in Overseer's own form, and reading them takes most of a cold start: only the others are read twice.
        let own_form_problem = match yaml::<Self>(text) {
            Ok(manifest) => return manifest.checked(Form::Own),
            Err(problem) => problem,
        };
        let Value::Object(document) = yaml(text).map_err(ManifestError::one)? else {
            return Err(ManifestError::one(own_form_problem));
        };
        let form = Form::of(&document);
        match foreign::read(form, document) {
            Some(manifest) => manifest?.checked(form),
            None => Err(ManifestError::one(own_form_problem)),
        }
    }

    /// Reads a manifest that is not part of Overseer. The runtime `native`, Overseer's own code, is refused.
    pub fn parse_external(text: &str) -> Result<Self, ManifestError> {
        let manifest = Self::parse(text)?;
        if matches!(manifest.runtime, Runtime::Native) {
            return Err(ManifestError::one("runtime: native is for plugins that come with Overseer; choose http"));
        }
        Ok(manifest)
    }

    /// The manifest, if it breaks no rule; with the permissions that its hooks need.
    fn checked(self, form: Form) -> Result<Self, ManifestError> {
        let problems = self.problems(form);
        if problems.is_empty() {
            return Ok(self.with_hook_permissions());
        }
        let unlisted = problems.len().saturating_sub(PROBLEMS_MAX);
        let listed = problems.into_iter().take(PROBLEMS_MAX).map(|problem| form.with_author_keys(problem));
        let note = (unlisted > 0).then(|| format!("and {unlisted} more problems; fix these first"));
        Err(ManifestError(listed.chain(note).collect()))
    }
}

/// Reads YAML 1.2, which includes JSON: `n` and `yes` are text.
fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: MANIFEST_DEPTH_MAX,
            max_documents: 1,
            max_aliases: ALIASES_MAX,
            max_total_scalar_bytes: TEXTS_MAX_BYTES,
            // ALIAS_EVENTS_MAX and TEXTS_MAX_BYTES limit what aliases expand to.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: ALIAS_EVENTS_MAX },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| describe(&error))
}

/// The problem of the text, with a remedy for errors that the library explains poorly.
fn describe(error: &YamlError) -> String {
    // The library wraps an error in the expansion of an alias.
    if let YamlError::AliasError { error, .. } = error {
        return describe(error);
    }
    let problem = if let YamlError::DuplicateMappingKey { key, .. } = error {
        format!("the key {} is set twice; remove one", key.as_deref().unwrap_or("of a mapping"))
    } else if let YamlError::Budget { breach: BudgetBreach::Depth { .. }, .. } = error {
        format!("lists and objects are nested deeper than {MANIFEST_DEPTH_MAX}; make it flatter")
    } else if let YamlError::Budget { breach: BudgetBreach::Documents { .. }, .. } = error {
        "the text has more than one document; write one manifest only, without ---".to_owned()
    } else if matches!(error, YamlError::Budget { .. } | YamlError::AliasReplayLimitExceeded { .. }) {
        "its aliases (*name) expand to too much, or there are too many; write out what they stand for".to_owned()
    } else {
        return error.to_string();
    };
    match error.location() {
        Some(location) => format!("{problem} at line {}, column {}", location.line(), location.column()),
        None => problem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
name: echo
version: 1.0.0
display_name: Echo
description: Says it again.
runtime: { type: http, base_url: "https://echo.example" }
permissions: ["network:echo.example"]
actions:
  - name: say
    description: Says it.
    effect: read
    request: { path: /say }
"#;

    fn refused(text: &str) -> String {
        Manifest::parse(text).unwrap_err().to_string()
    }

    /// A manifest whose lists and objects are nested `depth` levels deep.
    fn nested(depth: usize, open: &str, close: &str) -> String {
        // The document, actions, an action, parameters: 4.
        let inside = depth - 4;
        let deep = format!("{}1{}", open.repeat(inside), close.repeat(inside));
        GOOD.replacen(
            "{ path: /say }",
            &format!("{{ path: /say }}\n    parameters: {{ type: object, x-deep: {deep} }}"),
            1,
        )
    }

    #[test]
    fn manifest_is_limited_in_bytes() {
        let padded = |bytes: usize| format!("{GOOD}#{}", "x".repeat(bytes - GOOD.len() - 1));
        Manifest::parse(&padded(MANIFEST_MAX_BYTES)).unwrap();
        assert!(
            refused(&padded(MANIFEST_MAX_BYTES + 1)).contains("262145 bytes, more than the 262144 allowed; shorten it")
        );
    }

    #[test]
    fn manifest_is_limited_in_depth() {
        for (open, close) in [("[", "]"), ("{a: ", "}")] {
            Manifest::parse(&nested(MANIFEST_DEPTH_MAX, open, close)).unwrap();
            let problem = refused(&nested(MANIFEST_DEPTH_MAX + 1, open, close));
            assert!(problem.contains("deeper than 64; make it flatter at line 13"), "{problem}");
        }
        for far in ["[".repeat(100_000), "{\"a\":".repeat(40_000), "- ".repeat(100_000), "? ".repeat(100_000)] {
            refused(&far);
        }
    }

    #[test]
    fn alias_bomb_is_refused() {
        let line = |level: u32| format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", "));
        let bomb = format!("a0: &a0 [x]\n{}", (1..30).map(line).collect::<String>());
        // At the top, within a valid manifest, and in an older form.
        let within = format!("{GOOD}config_schema: {{ type: object, x-bomb: {{{}}} }}\n", bomb.replace('\n', ", "));
        let older = format!("name: a\nversion: 1.0.0\nimage: {{ name: x }}\n{bomb}");
        for bomb in [bomb, within, older] {
            let problem = refused(&bomb);
            assert!(problem.contains("expand to too much") && problem.contains("line"), "{problem}");
        }
    }

    #[test]
    fn document_has_a_limited_number_of_aliases() {
        let with = |aliases: usize| {
            let list = vec!["*a"; aliases].join(", ");
            format!("{GOOD}config_schema: {{ type: object, x-a: &a {{ b: c }}, x-b: [{list}] }}\n")
        };
        Manifest::parse(&with(ALIASES_MAX)).unwrap();
        assert!(refused(&with(ALIASES_MAX + 1)).contains("too many"));
    }

    #[test]
    fn aliases_of_a_long_text_are_limited() {
        let long = |length: usize| {
            let aliases = ["*a"; 4].join(", ");
            format!("{GOOD}config_schema: {{ type: object, x-a: &a {}, x-b: [{aliases}] }}\n", "x".repeat(length))
        };
        Manifest::parse(&long(200_000)).unwrap();
        assert!(refused(&long(220_000)).contains("expand to too much"));
    }

    #[test]
    fn aliases_of_a_large_list_are_limited() {
        let large = |pieces: usize| {
            let much = vec!["x"; pieces].join(", ");
            format!("{GOOD}config_schema: {{ type: object, x-a: &a [{much}], x-b: [{}] }}\n", ["*a"; 10].join(", "))
        };
        Manifest::parse(&large(990)).unwrap();
        assert!(refused(&large(1_010)).contains("expand to too much"));
    }

    #[test]
    fn duplicate_key_is_refused_in_every_form() {
        let json = r#"{"name": "j", "version": "0.1.0", "display_name": "J", "description": "d",
            "runtime": {"type": "http", "base_url": "https://j.example"}, "permissions": ["network:j.example"],
            "config_schema": {"type": "object", "properties": {"a": {}, "b": {}}},
            "actions": [{"name": "a", "description": "d", "effect": "read", "request": {"path": "/"}}]}"#;
        Manifest::parse(json).unwrap();
        Manifest::parse(&json.replace("            ", "\t")).unwrap();
        let problem = refused(&json.replace(r#""b": {}"#, r#""a": {}"#));
        assert!(problem.contains("the key a is set twice; remove one at line 3"), "{problem}");
        for (text, expected) in [
            (GOOD.replace("display_name", "name: b\ndisplay_name"), "name"),
            (GOOD.replace("effect: read", "effect: read\n    effect: read"), "effect"),
            ("name: a\nimage: { name: x, name: y }\n".to_owned(), "name"),
            ("{\"id\": \"a\", \"main_module\": \"a.py\", \"x\": {\"a\": 1, \"a\": 2}}".to_owned(), "the key a"),
            ("name: a\nfunctions:\n  - parameters: { b: {}, b: {} }\n".to_owned(), "the key b"),
        ] {
            let problem = refused(&text);
            assert!(
                problem.contains(expected) && problem.contains("twice") || problem.contains("duplicate"),
                "{problem}"
            );
        }
    }

    #[test]
    fn text_that_is_not_one_manifest_is_refused() {
        for text in ["", "~", "[]", "text", "a: [", "{\"name\": ", "\t", "- a\n- b", "!!binary x", "a: *b"] {
            assert!(!refused(text).is_empty(), "{text}");
        }
        assert!(refused(&format!("{GOOD}---\n{GOOD}")).contains("document"));
    }
}
