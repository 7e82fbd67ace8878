//! docs/json.md and the documents, each held against the other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::Value;

use super::{bench, serve};
use crate::stats::Snapshot;

/// The types of one schema's paths, from the table under its heading.
fn documented(schema: &str) -> BTreeMap<String, String> {
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

/// The type of a value, as the tables have it.
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

/// Checks a value and all within it, and notes which paths there are. A path that is null is no proof of what it is
/// else.
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

/// Every path of the documents is documented with its type, and every documented path is in one of them.
fn check(schema: &str, documents: &[String]) {
    let types = documented(schema);
    let mut seen = BTreeSet::new();
    for document in documents {
        let document: Value = serde_json::from_str(document).unwrap();
        assert_eq!(document["schema"], schema);
        for (name, member) in document.as_object().unwrap() {
            walk(name, member, &types, &mut seen);
        }
    }
    let missing: Vec<&String> = types.keys().filter(|path| !seen.contains(*path)).collect();
    assert!(missing.is_empty(), "documented, and in no document: {missing:?}");
}

#[test]
fn the_responders_document_is_documented() {
    let mut report = serve::tests::report(&Snapshot { drop_land: 4, ..Snapshot::default() });
    let one = || [("one", 1)].into_iter().collect();
    report.intervals.push(serve::Interval {
        drops: one(),
        ring_losses: one(),
        worker_cpu_percent: vec![1.0],
        softirq_percent: vec![1.0],
        ..serve::Interval::default()
    });
    check("synmill-serve/1", &[report.json().unwrap()]);
}

#[test]
fn the_generators_document_is_documented() {
    let plain = bench::BenchReport::new(bench::tests::setup(), bench::tests::measured());
    let empty = bench::BenchReport::new(bench::tests::setup(), bench::Measured::default());
    let reports = [plain, bench::tests::troubled(), empty];
    check("synmill-bench/1", &reports.map(|report| report.json().unwrap()));
}
