//! The templates, held to what they describe: the functions with their routes and events, and the table. Linters cannot
//! see what is wrong with a name that is spelled the same nowhere else.

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

/// Every function, by what its name in AWS ends with, with its routes.
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

/// The routes of a router, such as `GET /health`. axum lists them only where it is debugged: should that look otherwise
/// one day, the test that uses this fails.
fn listed(routes: &Routes) -> BTreeSet<String> {
    let shown = format!("{routes:?}");
    let (shown, _) = shown.split_once("fallback_router").unwrap();
    let (mut methods, mut paths) = (BTreeMap::new(), BTreeMap::new());
    for part in shown.split("RouteId(").skip(1) {
        let (id, what) = part.split_once("): ").unwrap();
        if let Some(path) = what.strip_prefix('"') {
            paths.insert(id, path.split_once('"').unwrap().0);
        } else {
            let (_, allowed) = what.split_once("allow_header: Bytes(b\"").unwrap();
            methods.insert(id, allowed.split_once('"').unwrap().0);
        }
    }
    let mut all = BTreeSet::new();
    for (id, path) in paths {
        // Where axum takes GET, it takes HEAD, too; the API does not.
        let methods = methods[id].split(',').filter(|method| *method != "HEAD");
        all.extend(methods.map(|method| format!("{method} {path}")));
    }
    all
}

fn read(path: &str) -> String {
    fs::read_to_string(format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A template. Tags such as `!Sub` are passed over: what they stand before stays.
fn template(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap()
}

/// The properties of the resources of one type, by their names.
fn resources<'a>(template: &'a Value, kind: &str) -> BTreeMap<&'a str, &'a Value> {
    let all = template["Resources"].as_object().unwrap().iter();
    let of_kind = all.filter(|(_, resource)| resource["Type"] == kind);
    of_kind.map(|(name, resource)| (name.as_str(), &resource["Properties"])).collect()
}

/// The text of a property, without what it must begin with.
#[track_caller]
fn after<'a>(properties: &'a Value, name: &str, prefix: &str) -> &'a str {
    let text = properties[name].as_str().unwrap();
    text.strip_prefix(prefix).unwrap_or_else(|| panic!("{name}: {text} does not begin with {prefix}"))
}

#[test]
fn gateway_routes_match_the_functions() {
    let template = template("infra/routes.yaml");
    let integrations = resources(&template, "AWS::ApiGatewayV2::Integration");
    let mut routes: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for route in resources(&template, "AWS::ApiGatewayV2::Route").values() {
        let integration = after(route, "Target", "integrations/${").strip_suffix('}').unwrap();
        let uri = integrations[integration]["IntegrationUri"].as_str().unwrap();
        let (_, function) = uri.split_once(":function:${Prefix}-").unwrap();
        let key = route["RouteKey"].as_str().unwrap();
        assert!(routes.entry(function.to_owned()).or_default().insert(key.to_owned()), "{key} is there twice");
    }
    assert_eq!(routes, functions());
}

#[test]
fn functions_have_all_their_resources() {
    let expected: BTreeSet<String> = functions().into_keys().collect();
    let names = |texts: Vec<&str>| -> BTreeSet<String> { texts.into_iter().map(str::to_owned).collect() };

    let main = template("template.yaml");
    let functions = resources(&main, "AWS::Serverless::Function");
    for function in functions.values() {
        let name = after(function, "FunctionName", "${AWS::StackName}-");
        assert!(expected.contains(name), "{name}");
        assert_eq!(function["CodeUri"], json!(format!("target/lambda/{}/", name.replace('-', "_"))));
        assert_eq!(function["LoggingConfig"]["LogGroup"], json!(format!("/aws/lambda/${{AWS::StackName}}-{name}")));
    }
    assert_eq!(functions.len(), expected.len());
    // They are named there, so that they have to be made first.
    let waits_for = main["Resources"]["Routes"]["DependsOn"].as_array().unwrap();
    let waits_for: BTreeSet<&str> = waits_for.iter().map(|name| name.as_str().unwrap()).collect();
    let all: BTreeSet<&str> = functions.keys().copied().collect();
    assert_eq!(waits_for, all);

    let access = template("infra/access.yaml");
    let logs = resources(&access, "AWS::Logs::LogGroup");
    let logs = logs.values().map(|log| after(log, "LogGroupName", "/aws/lambda/${Prefix}-"));
    assert_eq!(names(logs.collect()), expected);

    let routes = template("infra/routes.yaml");
    let permissions = resources(&routes, "AWS::Lambda::Permission");
    let permissions = permissions.values().map(|permission| after(permission, "FunctionName", "${Prefix}-"));
    assert_eq!(names(permissions.collect()), expected);

    let monitoring = template("infra/monitoring.yaml");
    let alarms = resources(&monitoring, "AWS::CloudWatch::Alarm");
    for kind in ["ErrorsAlarm", "ThrottlesAlarm"] {
        let mut watched = Vec::new();
        for alarm in [kind.to_owned(), format!("Administration{kind}")] {
            let metrics = alarms[alarm.as_str()]["Metrics"].as_array().unwrap();
            // The first is their sum, and ten are the most that CloudWatch takes.
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
        let event: Value = serde_json::from_str(&read(&format!("events/{}.json", name.replace('-', "_")))).unwrap();
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

    let main = template("template.yaml");
    let table = resources(&main, "AWS::DynamoDB::Table")["Table"];
    assert_eq!(table["KeySchema"], schema(made.key_schema()));
    let described = table["AttributeDefinitions"].as_array().unwrap().iter();
    let described: BTreeMap<_, _> =
        described.map(|one| (one["AttributeName"].as_str().unwrap(), one["AttributeType"].as_str().unwrap())).collect();
    let attributes = made.attribute_definitions().iter();
    let attributes: BTreeMap<_, _> =
        attributes.map(|one| (one.attribute_name(), one.attribute_type().as_str())).collect();
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

/// A key schema as templates have it.
fn schema(keys: &[KeySchemaElement]) -> Value {
    let keys = keys.iter();
    keys.map(|key| json!({ "AttributeName": key.attribute_name(), "KeyType": key.key_type().as_str() })).collect()
}
