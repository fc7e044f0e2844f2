//! The resources of `template.yaml` and of the templates in `infra/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::gateway::Route;

/// The resources of all templates.
pub struct Bundle {
    /// By the file's name and their own: `routes/Intent`, `template/Table`.
    resources: BTreeMap<String, Value>,
}

impl Bundle {
    /// Reads the templates. The short tags of `CloudFormation` (`!Ref`) are dropped, their text stays.
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let nested = fs::read_dir(root.join("infra")).unwrap().map(|entry| entry.unwrap().path());
        let mut resources = BTreeMap::new();
        for file in
            nested.filter(|file| file.extension().is_some_and(|end| end == "yaml")).chain([root.join("template.yaml")])
        {
            let text = fs::read_to_string(&file).unwrap();
            let template: Value =
                serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let name = file.file_stem().unwrap().to_str().unwrap();
            for (id, resource) in template["Resources"].as_object().into_iter().flatten() {
                resources.insert(format!("{name}/{id}"), resource.clone());
            }
        }
        Self { resources }
    }

    /// The resource of that name in a file, such as `Table` in `template`.
    pub fn resource(&self, file: &str, name: &str) -> &Value {
        &self.resources[&format!("{file}/{name}")]
    }

    /// The properties of the resources of one type in a file, by their names.
    pub fn of_type(&self, file: &str, kind: &str) -> BTreeMap<&str, &Value> {
        let in_file = self.resources.iter().filter_map(|(id, resource)| {
            let name = id.strip_prefix(file)?.strip_prefix('/')?;
            (resource["Type"] == kind).then_some((name, &resource["Properties"]))
        });
        in_file.collect()
    }

    /// The properties of the function of that name.
    pub fn function(&self, name: &str) -> &Value {
        let code = format!("target/lambda/{name}/");
        let mut functions = self.of_type("template", "AWS::Serverless::Function").into_values();
        functions.find(|properties| properties["CodeUri"] == code).unwrap()
    }

    /// Those of `variables` that a function has in its environment: only some functions have the operator's secret ones.
    pub fn environment(&self, function: &str, variables: &[(String, String)]) -> Vec<(String, String)> {
        let own = &self.function(function)["Environment"]["Variables"];
        let has = |name: &str| name != "OVERSEER_SETTINGS" || own[name].is_string();
        variables.iter().filter(|(name, _)| has(name)).cloned().collect()
    }

    /// The routes of the HTTP API, each with its function.
    pub fn routes(&self) -> Vec<Route> {
        let route = |properties: &Value| {
            let (method, path) = properties["RouteKey"].as_str().unwrap().split_once(' ').unwrap();
            let target = properties["Target"].as_str().unwrap();
            let integration = target.strip_prefix("integrations/${").unwrap().strip_suffix('}').unwrap();
            let uri = &self.resource("routes", integration)["Properties"]["IntegrationUri"];
            let (_, function) = uri.as_str().unwrap().split_once(":function:${Prefix}-").unwrap();
            Route { method: method.to_owned(), path: path.to_owned(), function: function.replace('-', "_") }
        };
        self.of_type("routes", "AWS::ApiGatewayV2::Route").into_values().map(route).collect()
    }

    /// The actions that the role of a function allows with this kind of vault, in the form of
    /// [`super::gateway::Call::needs`].
    pub fn allowed(&self, function: &str, vault: &str) -> BTreeSet<String> {
        let (_, role) = self.function(function)["Role"].as_str().unwrap().rsplit_once('.').unwrap();
        let role = &self.resource("access", role)["Properties"];
        let managed = role["ManagedPolicyArns"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|policy| &self.resource("access", policy.as_str().unwrap())["Properties"]["PolicyDocument"]);
        let own = role["Policies"].as_array().unwrap().iter().map(|policy| &policy["PolicyDocument"]);
        let statements = managed.chain(own).flat_map(|document| document["Statement"].as_array().unwrap());
        let holds = |condition: &str| match condition {
            "InSecretsManager" => vault == "secrets-manager",
            "InTable" => vault == "envelope",
            other => panic!("unknown condition: {other}"),
        };
        // `!If [condition, this, that]` is a list here.
        let chosen = |value: &Value| match value.as_array().map(Vec::as_slice) {
            Some([Value::String(condition), this, that]) if condition.starts_with("In") => {
                if holds(condition) {
                    this.clone()
                } else {
                    that.clone()
                }
            }
            _ => value.clone(),
        };
        let mut allowed = BTreeSet::new();
        for statement in statements.map(chosen).filter(Value::is_object) {
            let on = match statement["Resource"].as_str().unwrap() {
                "TableArn" => "table",
                "${TableArn}/index/list" => "table/index/list",
                "${TableArn}/index/due" => "table/index/due",
                "AccountSecretsArn" => "accounts",
                "SettingsArn" => "settings",
                "KeyArn" => "key",
                "QueueArn" => "queue",
                "EventBusArn" => "bus",
                "ScheduleRole.Arn" => "schedule role",
                schedules if schedules.contains(":schedule/${ScheduleGroup}/*") => "schedules",
                log if log.ends_with("Log.Arn") => continue,
                other => panic!("unknown resource: {other}"),
            };
            let actions = chosen(&statement["Action"]);
            let actions = actions.as_array().cloned().unwrap_or_else(|| vec![actions.clone()]);
            allowed.extend(actions.iter().map(|action| format!("{} {on}", action.as_str().unwrap())));
        }
        allowed
    }
}
