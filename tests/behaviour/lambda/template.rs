//! Compares the templates with the code: the functions with their routes and events, and the table. Linters cannot see a
//! name that is spelled differently in two places.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_dynamodb::types::KeySchemaElement;
use overseer_aws::table::create_table;
use overseer_http::{
    Routes, agents, calls, channels, cron, errors, health, hooks, integrations, intent, keys, mappings, oauth, plugins,
    registry, runs, tasks, webhooks,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::bundle::Bundle;

/// Every function, by the suffix of its name in AWS, with its routes.
fn functions() -> BTreeMap<String, BTreeSet<String>> {
    let all = [
        ("agents", channels::routes().merge(agents::routes()).merge(hooks::routes())),
        ("cron", cron::routes()),
        ("errors", errors::routes()),
        ("integrations", integrations::routes()),
        ("intent", intent::routes().merge(calls::routes())),
        ("keys", keys::routes().merge(webhooks::routes())),
        ("mappings", mappings::routes()),
        ("oauth-callback", oauth::routes()),
        ("plugins", plugins::routes().merge(registry::routes()).merge(health::routes())),
        ("runs", runs::routes()),
        ("tasks", tasks::routes()),
    ];
    all.into_iter().map(|(name, routes)| (name.to_owned(), listed(&routes))).collect()
}

/// The routes of a router, such as `GET /health`. axum lists them only in its debug output; if that changes, the tests that
/// use this fail.
fn listed(routes: &Routes) -> BTreeSet<String> {
    let debug = format!("{routes:?}");
    let (debug, _) = debug.split_once("fallback_router").unwrap();
    let (mut methods, mut paths) = (BTreeMap::new(), BTreeMap::new());
    for part in debug.split("RouteId(").skip(1) {
        let (id, value) = part.split_once("): ").unwrap();
        if let Some(path) = value.strip_prefix('"') {
            paths.insert(id, path.split_once('"').unwrap().0);
        } else {
            let (_, allowed) = value.split_once("allow_header: Bytes(b\"").unwrap();
            methods.insert(id, allowed.split_once('"').unwrap().0);
        }
    }
    let mut all = BTreeSet::new();
    for (id, path) in paths {
        // axum handles HEAD with GET; the API has no HEAD.
        let methods = methods[id].split(',').filter(|method| *method != "HEAD");
        all.extend(methods.map(|method| format!("{method} {path}")));
    }
    all
}

/// The text of a property, without the prefix that it must have.
#[track_caller]
fn after<'a>(properties: &'a Value, name: &str, prefix: &str) -> &'a str {
    let text = properties[name].as_str().unwrap();
    text.strip_prefix(prefix).unwrap_or_else(|| panic!("{name}: {text} does not begin with {prefix}"))
}

#[test]
fn gateway_routes_match_the_functions() {
    let mut routes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for route in Bundle::read().routes() {
        let key = format!("{} {}", route.method, route.path);
        let of_function = routes.entry(route.function.replace('_', "-")).or_default();
        assert!(of_function.insert(key.clone()), "{key} is there twice");
    }
    assert_eq!(routes, functions());
}

#[test]
fn functions_have_all_their_resources() {
    let expected: BTreeSet<String> = functions().into_keys().collect();
    let names = |texts: Vec<&str>| -> BTreeSet<String> { texts.into_iter().map(str::to_owned).collect() };

    let bundle = Bundle::read();
    let functions = bundle.of_type("template", "AWS::Serverless::Function");
    for function in functions.values() {
        let name = after(function, "FunctionName", "${AWS::StackName}-");
        assert!(expected.contains(name), "{name}");
        assert_eq!(function["CodeUri"], json!(format!("target/lambda/{}/", name.replace('-', "_"))));
        assert_eq!(function["LoggingConfig"]["LogGroup"], json!(format!("/aws/lambda/${{AWS::StackName}}-{name}")));
    }
    assert_eq!(functions.len(), expected.len());
    // The routes name the functions, so the functions must be created first.
    let dependencies = bundle.resource("template", "Routes")["DependsOn"].as_array().unwrap();
    let dependencies: BTreeSet<&str> = dependencies.iter().map(|name| name.as_str().unwrap()).collect();
    let all: BTreeSet<&str> = functions.keys().copied().collect();
    assert_eq!(dependencies, all);

    let logs = bundle.of_type("access", "AWS::Logs::LogGroup");
    let logs = logs.values().map(|log| after(log, "LogGroupName", "/aws/lambda/${Prefix}-"));
    assert_eq!(names(logs.collect()), expected);

    let permissions = bundle.of_type("routes", "AWS::Lambda::Permission");
    let permissions = permissions.values().map(|permission| after(permission, "FunctionName", "${Prefix}-"));
    assert_eq!(names(permissions.collect()), expected);

    let alarms = bundle.of_type("monitoring", "AWS::CloudWatch::Alarm");
    for kind in ["ErrorsAlarm", "ThrottlesAlarm"] {
        let mut watched = Vec::new();
        for alarm in [kind.to_owned(), format!("Administration{kind}")] {
            let metrics = alarms[alarm.as_str()]["Metrics"].as_array().unwrap();
            // The first is their sum, and CloudWatch accepts ten besides it.
            assert!(metrics.len() <= 11, "{alarm}");
            let dimensions = metrics.iter().skip(1).map(|metric| &metric["MetricStat"]["Metric"]["Dimensions"][0]);
            watched.extend(dimensions.map(|dimension| after(dimension, "Value", "${Prefix}-")));
        }
        assert_eq!(watched.len(), expected.len(), "{kind}");
        assert_eq!(names(watched), expected, "{kind}");
    }
}

#[test]
fn functions_have_an_event_of_one_of_their_routes() {
    for (name, routes) in functions() {
        let path = format!("{}/../events/{}.json", env!("CARGO_MANIFEST_DIR"), name.replace('-', "_"));
        let event: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let route = event["routeKey"].as_str().unwrap();
        assert!(routes.contains(route), "{name}: {route}");
        assert_eq!(event["requestContext"]["routeKey"], route, "{name}");
        let length = event["headers"]["content-length"].as_str().unwrap_or("0");
        assert_eq!(length, event["body"].as_str().unwrap_or_default().len().to_string(), "{name}");
    }
}

#[tokio::test]
async fn template_table_matches_the_created_one() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(dynoxide::server::serve_on(listener, dynoxide::Database::memory().unwrap()));
    let config = Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .credentials_provider(Credentials::new("test", "test", None, None, "a test"))
        .endpoint_url(format!("http://{address}"))
        .build();
    let client = Client::from_conf(config);
    create_table(&client, "overseer").await.unwrap();
    let made = client.describe_table().table_name("overseer").send().await.unwrap().table.unwrap();

    let bundle = Bundle::read();
    let table = &bundle.resource("template", "Table")["Properties"];
    assert_eq!(table["KeySchema"], schema(made.key_schema()));
    let described = table["AttributeDefinitions"].as_array().unwrap().iter();
    let described: BTreeMap<_, _> = described
        .map(|each| (each["AttributeName"].as_str().unwrap(), each["AttributeType"].as_str().unwrap()))
        .collect();
    let attributes = made.attribute_definitions().iter();
    let attributes: BTreeMap<_, _> =
        attributes.map(|each| (each.attribute_name(), each.attribute_type().as_str())).collect();
    assert_eq!(described, attributes);
    let described = table["GlobalSecondaryIndexes"].as_array().unwrap().iter();
    let described: BTreeMap<_, _> =
        described.map(|index| (index["IndexName"].as_str().unwrap(), index.clone())).collect();
    let indexes = made.global_secondary_indexes().iter().map(|index| {
        let (name, projection) = (index.index_name().unwrap(), index.projection().unwrap());
        let projected = projection.projection_type().unwrap().as_str();
        let keys = schema(index.key_schema());
        (name, json!({ "IndexName": name, "KeySchema": keys, "Projection": { "ProjectionType": projected } }))
    });
    let indexes: BTreeMap<_, _> = indexes.collect();
    assert_eq!(described, indexes);
    let expiry = client.describe_time_to_live().table_name("overseer").send().await.unwrap();
    let expiry = expiry.time_to_live_description.unwrap().attribute_name;
    assert_eq!(table["TimeToLiveSpecification"], json!({ "AttributeName": expiry, "Enabled": true }));
}

/// A key schema in the form of templates.
fn schema(keys: &[KeySchemaElement]) -> Value {
    let keys = keys.iter();
    keys.map(|key| json!({ "AttributeName": key.attribute_name(), "KeyType": key.key_type().as_str() })).collect()
}
