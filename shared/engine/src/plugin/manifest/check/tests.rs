//! Rules that single manifests break.

use crate::core::effect::Effect;
use crate::plugin::manifest::{Auth, Manifest};

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

fn problem(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from}");
    Manifest::parse(&GOOD.replacen(from, to, 1)).unwrap_err().to_string()
}

#[test]
fn small_manifest_is_enough_in_yaml_or_json() {
    let manifest = Manifest::parse(GOOD).unwrap();
    assert_eq!(manifest.name.as_str(), "echo");
    let json = r#"{"name": "j", "version": "0.1.0", "display_name": "J", "description": "d",
            "runtime": {"type": "http", "base_url": "https://j.example"}, "permissions": ["network:j.example"],
            "actions": [{"name": "a", "description": "d", "effect": "unsafe", "request": {"method": "POST", "path": "/"}}]}"#;
    assert_eq!(Manifest::parse(json).unwrap().actions[0].effect, Effect::Unsafe);
}

#[test]
fn manifest_problem_names_its_path() {
    for (from, to, expected) in [
        ("version: 1.0.0", "version: one", "version"),
        ("name: echo", "name: Echo", "small letter"),
        ("display_name: Echo", "displayname: Echo", "displayname"),
        ("type: http", "type: magic", "magic"),
        ("https://echo.example", "http://echo.example", "must be https"),
        ("network:echo.example", "network:other.example", "add network:echo.example"),
        ("network:echo.example", "disk:all", "disk:all"),
        ("effect: read", "effect: maybe", "maybe"),
        ("{ path: /say }", "{ path: \"/{{ a \" }", "template"),
        ("{ path: /say }", "{ path: /say, json: {}, form: {} }", "at most one"),
        ("{ path: /say }", "{ path: /say }\n    aliases: [say]", "used twice"),
        ("{ path: /say }", "{ path: /say }\n    parameters: { type: object, properties: 5 }", "parameters"),
        ("effect: read", "effect: read\n    effect: read", "effect"),
        ("{ path: /say }", "{ path: \"/{{ wrod }}\" }", "refers to wrod"),
        ("{ path: /say }", "{ path: /say, query: { a: \"{{ [1, 2] | minn }}\" } }", "minn"),
        ("{ path: /say }", "{ path: /say }\n    response: { data: { a: \"{{ bdy.a }}\" } }", "refers to bdy"),
        ("{ path: /say }", "{ path: /say }\n    response: { message: \"{{ items }}\" }", "refers to items"),
        (
            "{ path: /say }",
            "{ path: /say }\n    parameters: { type: object, properties: { a: { description: one, two } } }",
            "/properties/a: \"two\"",
        ),
    ] {
        let problem = problem(from, to);
        assert!(problem.contains(expected), "{to}: {problem}");
    }
}

#[test]
fn scope_description_has_at_most_200_characters() {
    let manifest = |description: &str| {
        let auth = format!(
            "auth: {{ type: oauth2, authorization_url: \"https://p.example/a\", token_url: \"https://p.example/t\", \
             scopes: [plain, {{ name: worded, description: \"{description}\" }}] }}\nactions:"
        );
        Manifest::parse(&GOOD.replacen("actions:", &auth, 1))
    };
    let longest = "ä".repeat(200);
    let auth = manifest(&longest).unwrap().auth;
    let Auth::Oauth2(oauth) = auth else { panic!("{auth:?}") };
    assert_eq!(oauth.scopes.names(), ["plain", "worded"]);
    assert_eq!([oauth.scopes.description("plain"), oauth.scopes.description("worded")], [None, Some(&*longest)]);
    assert!(manifest(&"ä".repeat(201)).unwrap_err().to_string().contains("has 201 characters"));
}

#[test]
fn auth_problem_names_its_path() {
    let oauth = |more: &str| {
        format!(
            "auth: {{ type: oauth2, authorization_url: \"https://p.example/a\", token_url: \"https://p.example/t\"{more} }}\nactions:"
        )
    };
    Manifest::parse(&GOOD.replacen("actions:", &oauth(""), 1)).unwrap();
    for (more, expected) in [
        (", scope: [a]", "scope"),
        (", scopes: [\"a b\"]", "is not a scope"),
        (", scopes: [\"a,b\"]", "is not a scope"),
        (", scopes: [{ name: a, description: \"\" }]", "the description of \"a\" has 0 characters; write 1 to 200"),
        (", scopes: [{ name: a, description: \" \" }]", "the description of \"a\" has 0 characters; write 1 to 200"),
        (", scopes: [{ name: a }]", "a scope is its name, or {name, description}"),
        (", scopes: [{ name: a, description: b, title: c }]", "a scope is its name, or {name, description}"),
        (", scope_separator: \";\"", "a space or a comma"),
        (", refresh_margin_s: 3601", "at most 3600"),
        (", refresh_margin_s: -1", "expected u32"),
        (", issuer: \"\"", "issuer"),
        (", authorization_params: { state: x }", "state is set by Overseer"),
        (", scope_parameter: redirect_uri", "redirect_uri is set by Overseer"),
        (", token_params: { client_secret: x }", "client_secret is set by Overseer"),
        (", token_headers: { authorization: x }", "authorization is set by Overseer"),
        (", token_headers: { x-a: \"\\n\" }", "no header can carry"),
        (", token_response: { access_token: answer.token }", "refers to answer"),
        (", token_response: { token: body.token }", "token"),
        (", token_errors_at: answer.status", "token_errors_at: \"answer.status\" refers to answer"),
        (", revocation_url: \"http://p.example/r\"", "revocation_url: must be https"),
        (", revocation_url: \"https://user@p.example/r\"", "revocation_url: must have no user"),
        (", client_authentication: jwt", "jwt"),
        (", test: { request: { path: me } }", "test.request.path"),
        (", test: { request: { path: /me }, account: bdy.name }", "refers to bdy"),
    ] {
        let problem = Manifest::parse(&GOOD.replacen("actions:", &oauth(more), 1)).unwrap_err().to_string();
        assert!(problem.contains(expected), "{more}: {problem}");
    }
    for (auth, expected) in [
        ("{ type: oauth2 }", "authorization_url"),
        (
            "{ type: oauth2, authorization_url: \"https://p.example/a?state=x\", token_url: \"https://p.example/t\" }",
            "authorization_url: state is set by Overseer",
        ),
        ("{ type: client_credentials }", "token_url"),
        ("{ type: client_credentials, token_url: \"http://p.example/t\" }", "token_url: must be https"),
        ("{ type: api_key, header: host }", "host is set by Overseer"),
        ("{ type: api_key, prefix: \"\\n\" }", "prefix"),
        ("{ type: basic, header: x }", "header"),
        ("{ type: magic }", "magic"),
    ] {
        let auth = format!("auth: {auth}\nactions:");
        let problem = Manifest::parse(&GOOD.replacen("actions:", &auth, 1)).unwrap_err().to_string();
        assert!(problem.contains(expected), "{auth}: {problem}");
    }
}

#[test]
fn yaml_1_1_booleans_are_text() {
    let loops = "response: { data: { $for: n, $in: \"[1, 2]\", $do: \"{{ n }}\" } }";
    Manifest::parse(&GOOD.replacen("{ path: /say }", &format!("{{ path: /say }}\n    {loops}"), 1)).unwrap();
}
