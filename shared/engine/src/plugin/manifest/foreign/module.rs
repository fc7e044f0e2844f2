//! The module form: a module of code with a class, and the schemas of its actions.

use serde_json::{Map, Value};

use super::fields::{
    Translated, common_action_fields, common_fields, object_schema, read_value, retain_keys, take, take_objects,
};
use crate::plugin::manifest::{Module, Runtime};

pub(super) const RENAMED_KEYS: &[(&str, &str)] =
    &[("name", "id"), ("display_name", "name"), (".parameters", ".parameters_schema"), (".returns", ".returns_schema")];

pub(super) fn translate(mut document: Map<String, Value>) -> Result<Translated, String> {
    if !document.contains_key("id") {
        // With the key of Overseer's own form, which the caller replaces with `id`.
        return Err("name: is missing; add the plugin's id, such as my_plugin".to_owned());
    }
    let mut manifest = common_fields(&mut document, "id", "name");
    let code = retain_keys(Value::Object(document.clone()), &["main_module", "class_name"]);
    let permissions = take(&mut document, "permissions").unwrap_or_else(|| Value::Array(Vec::new()));
    let permissions = read_value("permissions", permissions)?;
    let dependencies = take(&mut document, "dependencies");
    let dependencies = dependencies.map(|dependencies| retain_keys(dependencies, &["plugins", "libraries"]));
    manifest.extend(dependencies.map(|dependencies| ("dependencies".to_owned(), dependencies)));

    let mut actions = Vec::new();
    for (_, mut fields) in take_objects(&mut document, "actions")? {
        let mut action = common_action_fields(&mut fields);
        let parameters = take(&mut fields, "parameters_schema").map(object_schema);
        action.extend(parameters.map(|schema| ("parameters".to_owned(), schema)));
        let returns = take(&mut fields, "returns_schema");
        action.extend(returns.map(|schema| ("returns".to_owned(), schema)));
        let streaming = take(&mut fields, "streaming_supported");
        action.extend(streaming.map(|streaming| ("streaming_supported".to_owned(), streaming)));
        actions.push(Value::Object(action));
    }
    manifest.insert("actions".to_owned(), Value::Array(actions));
    Ok(Translated { manifest, runtime: Runtime::Module(read_value::<Module>("", code)?), permissions })
}
