//! The module form: a module of code with a class, and what its actions take and give.

use serde_json::{Map, Value};

use super::{Translated, action, begun, kept, of_object, read_value, taken, taken_objects};
use crate::plugin::manifest::{Module, Runtime};

pub(super) const WORDS: &[(&str, &str)] =
    &[("name", "id"), ("display_name", "name"), (".parameters", ".parameters_schema"), (".returns", ".returns_schema")];

pub(super) fn translated(mut document: Map<String, Value>) -> Result<Translated, String> {
    if !document.contains_key("id") {
        // In our own words, which are put into theirs.
        return Err("name: is missing; add the plugin's id, such as my_plugin".to_owned());
    }
    let mut manifest = begun(&mut document, "id", "name");
    let code = kept(Value::Object(document.clone()), &["main_module", "class_name"]);
    let permissions = taken(&mut document, "permissions").unwrap_or_else(|| Value::Array(Vec::new()));
    let permissions = read_value("permissions", permissions)?;
    let dependencies = taken(&mut document, "dependencies");
    let dependencies = dependencies.map(|dependencies| kept(dependencies, &["plugins", "libraries"]));
    manifest.extend(dependencies.map(|dependencies| ("dependencies".to_owned(), dependencies)));

    let mut actions = Vec::new();
    for (_, mut fields) in taken_objects(&mut document, "actions")? {
        let mut action = action(&mut fields);
        let parameters = taken(&mut fields, "parameters_schema").map(of_object);
        action.extend(parameters.map(|schema| ("parameters".to_owned(), schema)));
        let returns = taken(&mut fields, "returns_schema");
        action.extend(returns.map(|schema| ("returns".to_owned(), schema)));
        let streaming = taken(&mut fields, "streaming_supported");
        action.extend(streaming.map(|streaming| ("streaming_supported".to_owned(), streaming)));
        actions.push(Value::Object(action));
    }
    manifest.insert("actions".to_owned(), Value::Array(actions));
    Ok(Translated { manifest, runtime: Runtime::Module(read_value::<Module>("", code)?), permissions })
}
