//! Checks documents against the tables of docs/json.md. The end-to-end tests check the files of real runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

/// Reads the types of a schema's paths from the table under its heading.
pub(crate) fn documented(schema: &str) -> BTreeMap<String, String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/json.md");
    let text = fs::read_to_string(path).unwrap();
    let heading = format!("## {schema}");
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    let rows = lines.take_while(|line| !line.starts_with("## ")).filter_map(|line| line.strip_prefix("| `"));
    let mut types = BTreeMap::new();
    for row in rows {
        let [path, kind, meaning] = row.splitn(3, " | ").collect::<Vec<_>>()[..] else { panic!("{row}") };
        let path = path.strip_suffix('`').unwrap_or_else(|| panic!("{row}"));
        assert!(meaning.ends_with('|'), "{row}");
        let before = types.insert(path.to_owned(), kind.to_owned());
        assert!(before.is_none(), "{path} is there twice");
    }
    types
}

/// Returns the type of a value by its name in the tables.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_u64() => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Checks a value and all values in it, and adds their paths to `seen`. A null does not count: it does not show the other type.
fn walk(path: &str, value: &Value, types: &BTreeMap<String, String>, seen: &mut BTreeSet<String>) {
    let documented = types.get(path).unwrap_or_else(|| panic!("{path} is not documented"));
    let is_map = documented == "map";
    let is = if is_map && value.is_object() { "map" } else { kind(value) };
    let allowed = match documented.split_once(" or ") {
        Some((one, other)) => vec![one, other],
        None => vec![documented.as_str()],
    };
    assert!(allowed.contains(&is), "{path} is documented as {documented}, and is {is}");
    if is != "null" {
        seen.insert(path.to_owned());
    }
    match value {
        Value::Array(elements) => {
            elements.iter().for_each(|element| walk(&format!("{path}[]"), element, types, seen));
        }
        Value::Object(members) => {
            for (name, member) in members {
                let name = if is_map { "*" } else { name };
                walk(&format!("{path}.{name}"), member, types, seen);
            }
        }
        _ => {}
    }
}

/// Checks a document against the types of its schema's paths, and adds its paths to `seen`.
pub(crate) fn check(document: &Value, types: &BTreeMap<String, String>, seen: &mut BTreeSet<String>) {
    for (name, member) in document.as_object().expect("a document is an object") {
        walk(name, member, types, seen);
    }
}
