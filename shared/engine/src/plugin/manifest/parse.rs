//! Reads a manifest's text, in our own form or in one of the older ones, with limits on what the text may cost.

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_saphyr::Error as YamlError;
use serde_saphyr::budget::BudgetBreach;

use super::foreign::Form;
use super::{Manifest, Runtime, foreign};
use crate::plugin::manifest::problems::ManifestError;

/// The largest manifest, in bytes.
pub const MANIFEST_MAX_BYTES: usize = 256 * 1024;
/// How deep lists and objects of a manifest may stand in each other; the document itself is the first.
pub const MANIFEST_DEPTH_MAX: usize = 64;
/// The most aliases (`*name`) in a manifest.
const ALIASES_MAX: usize = 100;
/// The most bytes of texts in a manifest, with those that aliases stand for.
const TEXTS_MAX_BYTES: usize = 1024 * 1024;
/// The most problems that are listed.
const PROBLEMS_MAX: usize = 100;
/// The most pieces of YAML that aliases may stand for, all together.
const REPEATED_MAX: usize = 10_000;

impl Manifest {
    /// Reads a manifest, as YAML or as JSON, and checks what its types cannot say. The three older forms are read, too;
    /// what they have beside what is known of them is passed over. The error names every problem that was found, each with
    /// its place and what to do.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        if text.len() > MANIFEST_MAX_BYTES {
            return Err(ManifestError::one(format!(
                "the manifest has {} bytes, more than the {MANIFEST_MAX_BYTES} allowed; shorten it",
                text.len()
            )));
        }
        // Most are in our own form, and reading is most of a cold start: others are read twice.
        let problem = match yaml::<Self>(text) {
            Ok(manifest) => return manifest.checked(Form::Own),
            Err(problem) => problem,
        };
        let Value::Object(document) = yaml(text).map_err(ManifestError::one)? else {
            return Err(ManifestError::one(problem));
        };
        let form = Form::of(&document);
        match foreign::read(form, document) {
            Some(read) => read?.checked(form),
            None => Err(ManifestError::one(problem)),
        }
    }

    /// Reads a manifest that does not come with Overseer, and so does not run in its code.
    pub fn parse_brought(text: &str) -> Result<Self, ManifestError> {
        let manifest = Self::parse(text)?;
        if matches!(manifest.runtime, Runtime::Native) {
            return Err(ManifestError::one("runtime: native is for plugins that come with Overseer; choose http"));
        }
        Ok(manifest)
    }

    fn checked(self, form: Form) -> Result<Self, ManifestError> {
        let problems = self.problems(form);
        if problems.is_empty() {
            return Ok(self.with_permissions_of_hooks());
        }
        let more = problems.len().saturating_sub(PROBLEMS_MAX);
        let said = problems.into_iter().take(PROBLEMS_MAX).map(|problem| form.in_its_words(problem));
        let more = (more > 0).then(|| format!("and {more} more problems; mend these first"));
        Err(ManifestError(said.chain(more).collect()))
    }
}

/// Reads YAML 1.2 (of which JSON is a part): n and yes are text.
fn yaml<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            max_depth: MANIFEST_DEPTH_MAX,
            max_documents: 1,
            max_aliases: ALIASES_MAX,
            max_total_scalar_bytes: TEXTS_MAX_BYTES,
            // There are limits on what they stand for.
            enforce_alias_anchor_ratio: false,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: REPEATED_MAX },
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| said(&error))
}

/// What is wrong with the text, with the remedy where the library does not say it.
fn said(error: &YamlError) -> String {
    // What is wrong within what an alias stands for is wrapped.
    if let YamlError::AliasError { error, .. } = error {
        return said(error);
    }
    let problem = if let YamlError::DuplicateMappingKey { key, .. } = error {
        format!("the key {} is there twice; remove one", key.as_deref().unwrap_or("of a mapping"))
    } else if let YamlError::Budget { breach: BudgetBreach::Depth { .. }, .. } = error {
        format!("lists and objects stand in each other deeper than {MANIFEST_DEPTH_MAX}; make it flatter")
    } else if let YamlError::Budget { breach: BudgetBreach::Documents { .. }, .. } = error {
        "there is more than one document; write one manifest only, without ---".to_owned()
    } else if matches!(error, YamlError::Budget { .. } | YamlError::AliasReplayLimitExceeded { .. }) {
        "its aliases (*name) stand for too much, or there are too many; write out what they stand for".to_owned()
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

    /// A manifest in which lists and objects stand in each other so deep.
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
    fn a_manifest_is_as_large_as_it_may_be_and_no_larger() {
        let padded = |bytes: usize| format!("{GOOD}#{}", "x".repeat(bytes - GOOD.len() - 1));
        Manifest::parse(&padded(MANIFEST_MAX_BYTES)).unwrap();
        assert!(
            refused(&padded(MANIFEST_MAX_BYTES + 1)).contains("262145 bytes, more than the 262144 allowed; shorten it")
        );
    }

    #[test]
    fn a_manifest_is_as_deep_as_it_may_be_and_no_deeper() {
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
    fn an_alias_bomb_is_refused_at_once() {
        let line = |level: u32| format!("a{level}: &a{level} [{}]\n", vec![format!("*a{}", level - 1); 9].join(", "));
        let bomb = format!("a0: &a0 [x]\n{}", (1..30).map(line).collect::<String>());
        // Where nothing else is wrong before it, and in an older form.
        let within = format!("{GOOD}config_schema: {{ type: object, x-bomb: {{{}}} }}\n", bomb.replace('\n', ", "));
        let older = format!("name: a\nversion: 1.0.0\nimage: {{ name: x }}\n{bomb}");
        for bomb in [bomb, within, older] {
            let problem = refused(&bomb);
            assert!(problem.contains("stand for too much") && problem.contains("line"), "{problem}");
        }
    }

    #[test]
    fn as_many_aliases_as_there_may_be() {
        let with = |aliases: usize| {
            let list = vec!["*a"; aliases].join(", ");
            format!("{GOOD}config_schema: {{ type: object, x-a: &a {{ b: c }}, x-b: [{list}] }}\n")
        };
        Manifest::parse(&with(ALIASES_MAX)).unwrap();
        assert!(refused(&with(ALIASES_MAX + 1)).contains("too many"));
        // Aliases of one long text.
        let long = |length: usize| {
            let aliases = ["*a"; 4].join(", ");
            format!("{GOOD}config_schema: {{ type: object, x-a: &a {}, x-b: [{aliases}] }}\n", "x".repeat(length))
        };
        Manifest::parse(&long(200_000)).unwrap();
        assert!(refused(&long(220_000)).contains("stand for too much"));
        // Few aliases of much.
        let large = |pieces: usize| {
            let much = vec!["x"; pieces].join(", ");
            format!("{GOOD}config_schema: {{ type: object, x-a: &a [{much}], x-b: [{}] }}\n", ["*a"; 10].join(", "))
        };
        Manifest::parse(&large(990)).unwrap();
        assert!(refused(&large(1_010)).contains("stand for too much"));
    }

    #[test]
    fn a_key_that_is_there_twice_is_refused_in_every_form() {
        let json = r#"{"name": "j", "version": "0.1.0", "display_name": "J", "description": "d",
            "runtime": {"type": "http", "base_url": "https://j.example"}, "permissions": ["network:j.example"],
            "config_schema": {"type": "object", "properties": {"a": {}, "b": {}}},
            "actions": [{"name": "a", "description": "d", "effect": "read", "request": {"path": "/"}}]}"#;
        Manifest::parse(json).unwrap();
        Manifest::parse(&json.replace("            ", "\t")).unwrap();
        let problem = refused(&json.replace(r#""b": {}"#, r#""a": {}"#));
        assert!(problem.contains("the key a is there twice; remove one at line 3"), "{problem}");
        for (text, said) in [
            (GOOD.replace("display_name", "name: b\ndisplay_name"), "name"),
            (GOOD.replace("effect: read", "effect: read\n    effect: read"), "effect"),
            ("name: a\nimage: { name: x, name: y }\n".to_owned(), "name"),
            ("{\"id\": \"a\", \"main_module\": \"a.py\", \"x\": {\"a\": 1, \"a\": 2}}".to_owned(), "the key a"),
            ("name: a\nfunctions:\n  - parameters: { b: {}, b: {} }\n".to_owned(), "the key b"),
        ] {
            let problem = refused(&text);
            assert!(problem.contains(said) && problem.contains("twice") || problem.contains("duplicate"), "{problem}");
        }
    }

    #[test]
    fn what_is_not_one_manifest_is_refused() {
        for text in ["", "~", "[]", "text", "a: [", "{\"name\": ", "\t", "- a\n- b", "!!binary x", "a: *b"] {
            assert!(!refused(text).is_empty(), "{text}");
        }
        assert!(refused(&format!("{GOOD}---\n{GOOD}")).contains("document"));
    }
}
