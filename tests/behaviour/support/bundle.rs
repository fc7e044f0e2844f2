//! What `template.yaml` and the templates in `infra/` say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::gateway::Route;

/// The resources of all templates.
pub struct Bundle {
    /// By their names, which are told apart by the file: `routes/Intent`, `template/Table`.
    resources: BTreeMap<String, Value>,
}

impl Bundle {
    /// Reads them. A short tag of `CloudFormation` (`!Ref`) is dropped, and its text stays.
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

    fn of_type(&self, wanted: &str) -> impl Iterator<Item = (&String, &Value)> {
        self.resources
            .iter()
            .filter(move |(_, resource)| resource["Type"] == wanted)
            .map(|(id, of)| (id, &of["Properties"]))
    }

    /// What the template says of the function of that name.
    pub fn function(&self, name: &str) -> &Value {
        let wanted = format!("target/lambda/{name}/");
        let mut functions = self.of_type("AWS::Serverless::Function").map(|(_, properties)| properties);
        functions.find(|properties| properties["CodeUri"] == wanted).unwrap()
    }

    /// Those of `variables` that a function is told: the operator's secret ones are for some only.
    pub fn told(&self, function: &str, variables: &[(String, String)]) -> Vec<(String, String)> {
        let own = &self.function(function)["Environment"]["Variables"];
        let told = |name: &str| name != "OVERSEER_SETTINGS" || own[name].is_string();
        variables.iter().filter(|(name, _)| told(name)).cloned().collect()
    }

    /// The routes of the HTTP API, each with its function.
    pub fn routes(&self) -> Vec<Route> {
        let route = |properties: &Value| {
            let (method, path) = properties["RouteKey"].as_str().unwrap().split_once(' ').unwrap();
            let target = properties["Target"].as_str().unwrap();
            let integration = target.strip_prefix("integrations/${").unwrap().strip_suffix('}').unwrap();
            let uri = &self.resources[&format!("routes/{integration}")]["Properties"]["IntegrationUri"];
            let (_, function) = uri.as_str().unwrap().rsplit_once("function:${Prefix}-").unwrap();
            Route { method: method.to_owned(), path: path.to_owned(), function: function.replace('-', "_") }
        };
        self.of_type("AWS::ApiGatewayV2::Route").map(|(_, properties)| route(properties)).collect()
    }

    /// What the role of a function allows, as [`super::gateway::Call::needs`] has it, where `vault` is where secrets are.
    pub fn allowed(&self, function: &str, vault: &str) -> BTreeSet<String> {
        let (_, role) = self.function(function)["Role"].as_str().unwrap().rsplit_once('.').unwrap();
        let role = &self.resources[&format!("access/{role}")]["Properties"];
        let managed = role["ManagedPolicyArns"].as_array().into_iter().flatten().map(|policy| {
            &self.resources[&format!("access/{}", policy.as_str().unwrap())]["Properties"]["PolicyDocument"]
        });
        let own = role["Policies"].as_array().unwrap().iter().map(|policy| &policy["PolicyDocument"]);
        let statements = managed.chain(own).flat_map(|document| document["Statement"].as_array().unwrap());
        let holds = |condition: &str| match condition {
            "InSecretsManager" => vault == "secrets-manager",
            "InTable" => vault == "envelope",
            other => panic!("a condition that is not known: {other}"),
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
                other => panic!("a resource that is not known: {other}"),
            };
            let actions = chosen(&statement["Action"]);
            let actions = actions.as_array().cloned().unwrap_or_else(|| vec![actions.clone()]);
            allowed.extend(actions.iter().map(|action| format!("{} {on}", action.as_str().unwrap())));
        }
        allowed
    }
}
