//! Tests that hold docs/json.md and the documents against each other.

use std::collections::BTreeSet;

use serde_json::{Value, to_value};

use super::interval::{Busy, Losses};
use super::{bench, serve};
use crate::face::conns;
use synmill_engine::stats::Snapshot;
use synmill_lab::schema;

/// Checks that docs/json.md lists every path of the documents with its type, and that every listed path is in a document.
fn check(name: &str, documents: impl IntoIterator<Item = Value>) {
    let types = schema::documented(name);
    let mut seen = BTreeSet::new();
    for document in documents {
        assert_eq!(document["schema"], name);
        schema::check(&document, &types, &mut seen);
    }
    let missing: Vec<&String> = types.keys().filter(|path| !seen.contains(*path)).collect();
    assert!(missing.is_empty(), "documented, and in no document: {missing:?}");
}

#[test]
fn the_responders_document_is_documented() {
    let mut report = serve::tests::report(&Snapshot { drop_land: 4, ..Snapshot::default() });
    let one = || [("one", 1)].into_iter().collect();
    report.intervals.push(serve::Interval {
        losses: Losses { drops: one(), ring_losses: one(), ..Losses::default() },
        busy: Busy { worker_cpu_percent: vec![1.0], softirq_percent: vec![1.0] },
        ..serve::Interval::default()
    });
    check("synmill-serve/1", [to_value(report).unwrap()]);
}

/// Checks the lines of `synmill conns`, each of which is a document.
#[test]
fn the_lines_of_connections_are_documented() {
    check(conns::SCHEMA, conns::tests::documented_rows().map(|row| to_value(row).unwrap()));
}

#[test]
fn the_generators_document_is_documented() {
    let plain = bench::tests::changed(|_, _| ());
    let empty = bench::BenchReport::new(bench::tests::setup(), bench::Measured::default());
    let reports = [plain, bench::tests::troubled(), empty];
    check("synmill-bench/1", reports.map(|report| to_value(report).unwrap()));
}
