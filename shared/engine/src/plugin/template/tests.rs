//! Evaluation and limits of templates.

use serde_json::{Value, json};

use super::*;

fn evaluate(template: Value, parameters: Value) -> Result<Option<Value>, TemplateError> {
    let mut context = Context::default();
    if let Value::Object(parameters) = parameters {
        for (name, value) in parameters {
            context = context.with(&name, &value);
        }
    }
    Template::try_from(template)?.evaluate(&context)
}

#[test]
fn single_expression_keeps_its_type() {
    let template = json!({
        "n": "{{ n }}", "list": "{{ list }}", "gone": "{{ missing }}", "deep": "{{ missing.deeper }}",
        "null": "{{ nothing }}", "text": "n is {{ n }}", "two": "{{ n }}{{ n }}",
        "map": "{{ {'a': {'b': n}} }}", "kept": [1, "{{ missing }}", true]
    });
    let made = evaluate(template, json!({"n": 3, "list": [1, {"a": null}], "nothing": null})).unwrap();
    assert_eq!(
        made.unwrap(),
        json!({"n": 3, "list": [1, {"a": null}], "null": null, "text": "n is 3", "two": "33",
            "map": {"a": {"b": 3}}, "kept": [1, true]})
    );
}

#[test]
fn values_are_never_parsed_as_templates() {
    let made = evaluate(json!("{{ text }}"), json!({"text": "{{ 1 + 1 }}"})).unwrap();
    assert_eq!(made, Some(json!("{{ 1 + 1 }}")));
}

#[test]
fn loop_returns_a_list() {
    let template = json!({"$for": "word", "$in": "words", "$do": {"text": "{{ word }}"}});
    let made = evaluate(template.clone(), json!({"words": ["a", "b"]})).unwrap();
    assert_eq!(made, Some(json!([{"text": "a"}, {"text": "b"}])));
    assert_eq!(evaluate(template.clone(), json!({})).unwrap(), None);
    assert!(evaluate(template, json!({"words": "ab"})).is_err());
    assert!(evaluate(json!({"$for": "x", "$in": "y"}), json!({})).is_err());
}

#[test]
fn absent_value_in_text_is_an_error() {
    assert!(evaluate(json!("hello {{ missing }}"), json!({})).is_err());
    assert_eq!(evaluate(json!("hello {{ missing|default('you') }}"), json!({})).unwrap(), Some(json!("hello you")));
}

#[test]
fn syntax_error_is_found_when_the_template_is_read() {
    assert!(Template::try_from(json!("{{ 1 + }}")).is_err());
    assert!(Template::try_from(json!("a {% for %}")).is_err());
    assert!(Expression::try_from("a b".to_owned()).is_err());
}

#[test]
fn path_value_stays_in_its_segment() {
    let path = Text::try_from("/pages/{{ id }}/x".to_owned()).unwrap();
    let context = Context::default().with("id", &"../a?b#c d/é");
    assert_eq!(path.render_path(&context).unwrap(), "/pages/..%2Fa%3Fb%23c%20d%2F%C3%A9/x");
    assert!(path.render_path(&Context::default()).is_err());
}

/// The error of reading a template.
fn refused(template: &str) -> String {
    match Template::try_from(json!(template)) {
        Ok(_) => panic!("{template} was accepted"),
        Err(error) => error.to_string(),
    }
}

/// The length of the template's text, or its error.
fn outcome(template: &str, parameters: Value) -> Result<usize, String> {
    let value = evaluate(json!(template), parameters).map_err(|error| error.to_string())?;
    Ok(value.unwrap().as_str().unwrap().len())
}

#[test]
fn repeating_or_multiplying_syntax_is_refused() {
    for (template, expected) in [
        ("a {% for x in list %}x{% endfor %}", "{% for %} is not allowed; use $for"),
        ("{% set a = a ~ a %}{{ a }}", "{% set %}"),
        ("{% set a %}{{ a }}{% endset %}", "{% set %}"),
        ("{% with b = a %}{{ b }}{% endwith %}", "{% with %}"),
        ("{% filter upper %}a{% endfilter %}", "{% filter %}"),
        ("{% autoescape true %}a{% endautoescape %}", "{% autoescape %}"),
        ("{% do dict() %}", "{% do %}"),
        ("{% macro a() %}{% endmacro %}", "unknown"),
        ("{% include 'a' %}", "unknown"),
        ("{% if a %}{% for x in list %}{% endfor %}{% endif %}", "{% for %}"),
        // Constants would be evaluated at compile time.
        ("{{ 'x' * 100000000 }}", "* and ** are for numbers only"),
        ("{{ 100000000 * 'x' }}", "* and ** are for numbers only"),
        ("{{ [1] * 100000000 }}", "* and ** are for numbers only"),
        ("{{ n * 2 }}", "* and ** are for numbers only"),
        ("{{ n ** 2 }}", "* and ** are for numbers only"),
        ("a {{ \"}}\" * 100000000 }} b", "* and ** are for numbers only"),
        ("{{ 'x' | indent(8000000000) }}", "the filter indent, which does not exist"),
        ("{{ '%9999999999d' | format(1) }}", "the filter format,"),
        ("{{ [1] | slice(9999999999) }}", "the filter slice,"),
        ("{{ [1] | batch(9999999999, 1) }}", "the filter batch,"),
        ("{{ list | sum }}", "the filter sum,"),
        ("{{ a | nofilter }}", "the filter nofilter,"),
        ("{{ a if a is nothing }}", "the test nothing,"),
        ("{{ range(10000) }}", "calls an unknown function; dict is the only one"),
        ("{{ debug() }}", "calls an unknown function"),
        ("{{ namespace() }}", "calls an unknown function"),
        ("{{ a.upper() }}", "calls an unknown function"),
        ("{{ dict(**a) }}", "before an argument"),
        ("{{ [[a] ~ '', a] ~ '' }}", "~ joins texts"),
        ("{{ (a | list) ~ '' }}", "~ joins texts"),
        ("{{ ([a] | first) ~ '' }}", "~ joins texts"),
        ("{{ (a | default([a])) ~ '' }}", "~ joins texts"),
    ] {
        let problem = refused(template);
        assert!(problem.contains(expected), "{template}: {problem}");
    }
    for good in [
        "{{ (n | int) * 1000 }}",
        "{{ -((n | length) + 1) * 2 }}",
        "{{ dict(a or {}, b=1) }}",
        "{{ a.b ~ ' at ' ~ (a.c | default('')) ~ (a.d | join(', ')) }}",
        "{% if a == 'b' %}{{ a }}{% elif a in ['c', 'd'] %}{% else %}{% raw %}{{ {% for %}{% endraw %}{% endif %}",
        "{{ list | map(attribute='id') | select('defined') | unique | join }}",
        "{{ list | selectattr('type', 'equalto', 'title') | first }}",
    ] {
        Template::try_from(json!(good)).unwrap();
    }
}

#[test]
fn template_is_limited_in_length() {
    let text = |length: usize| format!("{}{{{{ a }}}}", "x".repeat(length - 7));
    Template::try_from(json!(text(TEMPLATE_MAX_BYTES))).unwrap();
    assert!(refused(&text(TEMPLATE_MAX_BYTES + 1)).contains("32769 bytes, more than the 32768 allowed; shorten it"));
    // Each part but the first has two tokens.
    let deep = |signs: usize| format!("{{{{ a{} }}}}", ".b".repeat((signs - 1) / 2));
    Template::try_from(json!(deep(499))).unwrap();
    let problem = refused(&deep(501));
    assert!(problem.contains("more than 500 words and signs") && problem.len() < 1_000, "{problem}");
    let chain = |signs: usize| format!("{{{{ a{} }}}}", "-1".repeat((signs - 1) / 2));
    Template::try_from(json!(chain(499))).unwrap();
    // Code that is nested too deep is refused before it becomes a tree.
    for part in ["-1", "|first", ".a", "[0]", " or a", " if a else a"] {
        assert!(refused(&format!("{{{{ a{} }}}}", part.repeat(2_000))).contains("words and signs"), "{part}");
    }
    let elif = "{% elif a %}".repeat(2_000);
    assert!(refused(&format!("{{% if a %}}{elif}{{% endif %}}")).contains("words and signs"));
    for nested in ["{{ not ", "{{ -", "{{ (", "{{ [", "{{ {1:"] {
        let inside = nested.trim_start_matches("{{ ");
        assert!(Template::try_from(json!(format!("{nested}{}", inside.repeat(480)))).is_err(), "{nested}");
    }
    let heavy = |count: usize| format!("{{{{ a{} }}}}", " ~ a".repeat(count));
    Template::try_from(json!(heavy(20))).unwrap();
    assert!(refused(&heavy(21)).contains("more than 20 of ~"));
}

#[test]
fn rendered_text_is_limited_in_length() {
    let half = "x".repeat(TEXT_MAX / 2);
    assert_eq!(outcome("{{ a }}{{ a }}", json!({ "a": half })), Ok(TEXT_MAX));
    assert!(outcome("{{ a }}{{ a }}.", json!({ "a": half })).unwrap_err().contains("longer than 4 MiB"));
    let path = Text::try_from("/{{ a }}".to_owned()).unwrap();
    let spaces = Context::default().with("a", &" ".repeat(TEXT_MAX / 2));
    assert!(path.render_path(&spaces).unwrap_err().to_string().contains("longer than 4 MiB"));
    for (filter, fits) in [
        ("[a, a] | join", true),
        ("[a, a, 'x'] | join", false),
        ("[a, a] | join('x')", false),
        ("a | replace('x', 'yy')", true),
        ("a | replace('x', 'yyy')", false),
        ("a | base64", true),
        ("a | base64 | base64 | base64", false),
        ("a | tojson", true),
        ("[a, a] | tojson", false),
        ("[a] | string", true),
        ("[a, a] | string", false),
        ("[a, a] | upper", false),
        ("[a, a] | base64", false),
    ] {
        let made = outcome(&format!("{{{{ {filter} }}}}"), json!({ "a": half }));
        assert_eq!(made.is_ok(), fits, "{filter}: {:?}", made.err());
    }
}

#[test]
fn pieces_of_a_text_are_limited_in_number() {
    for filter in ["list", "split('x')", "split", "lines", "chunks(1)", "sort", "map('upper')", "unique", "reverse"] {
        let template = json!(format!("{{{{ a | {filter} | length }}}}"));
        let fits = json!({ "a": "x\n".repeat(49_999) });
        evaluate(template.clone(), fits).unwrap();
        let error = evaluate(template, json!({ "a": "x\nx ".repeat(100_000) })).unwrap_err().to_string();
        assert!(error.contains("more than 100000 pieces"), "{filter}: {error}");
    }
}

#[test]
fn work_is_charged_before_it_is_done() {
    let large = "x".repeat(TEXT_MAX);
    let many: Vec<usize> = (0..1_000).collect();
    for template in [
        // One step for each element, over a large value.
        json!("{{ many | map(attribute='none', default=a) | map('upper') | list }}"),
        json!("{{ many | select('in', a) | list }}"),
        json!("{{ many | map('replace', '9', a) | list }}"),
        json!({ "$for": "n", "$in": "many", "$do": "{{ a | length }}" }),
        json!({ "$for": "n", "$in": "many", "$do": "{{ a == b }}" }),
        json!({ "$for": "n", "$in": "many", "$do": "{{ n in a }}" }),
        json!({ "$for": "n", "$in": "many", "$do": "{{ (a ~ n)[0] }}" }),
        json!({ "$for": "n", "$in": "many", "$do": "{{ a }}" }),
        json!({ "$for": "n", "$in": "many", "$do": "{{ a }}{{ n }}" }),
        json!({ "$for": "n", "$in": "many", "$do": "y".repeat(TEMPLATE_MAX_BYTES * 3) }),
        json!({ "$for": "n", "$in": "many", "$do": { "$for": "m", "$in": "many", "$do": "{{ m }}" } }),
        // The same value again and again.
        json!(format!("{{{{ a | length{} }}}}", " + (a | length)".repeat(20))),
        json!(vec!["{{ a | upper }}"; 20]),
        json!(format!("{{{{ [{}] }}}}", vec!["a"; 100].join(","))),
    ] {
        let error =
            evaluate(template.clone(), json!({ "a": large, "b": large, "many": many })).unwrap_err().to_string();
        let shown: String = template.to_string().chars().take(100).collect();
        let too_much = ["too much work", "more than 24 MiB", "longer than 4 MiB"];
        assert!(too_much.iter().any(|limit| error.contains(limit)), "{shown}: {error}");
    }
}

#[test]
fn large_action_stays_below_the_limits() {
    let items: Vec<Value> = (0..1_000).map(|n| json!({ "id": n, "name": "a name", "more": "x".repeat(500) })).collect();
    let template = json!({ "$for": "item", "$in": "items", "$do": {
        "id": "{{ item.id }}", "name": "{{ '#' ~ item.name }}", "is": "{{ item.name == 'a name' }}",
        "text": "{{ item.more | upper }} of {{ item.id }}" } });
    let context = Context::default().with("items", &items).with("body", &"x".repeat(TEXT_MAX));
    let made = Template::try_from(template).unwrap().evaluate(&context).unwrap().unwrap();
    assert_eq!(made[999]["name"], "#a name");
}

#[test]
fn long_number_weighs_its_digits() {
    let numbers: Vec<f64> = vec![1e300; 200_000];
    let context = Context::default().with("a", &numbers);
    for template in ["{{ a | length }}", "{{ a.b ~ (a ~ '') }}"] {
        let error = Template::try_from(json!(template)).unwrap().evaluate(&context).unwrap_err().to_string();
        assert!(error.contains("too much work"), "{error}");
    }
}
