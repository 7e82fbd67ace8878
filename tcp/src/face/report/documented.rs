//! docs/json.md and the documents, each held against the other.

use std::collections::BTreeSet;

use serde_json::{Value, to_value};
use synmill_lab::schema;

use super::{bench, serve};
use crate::face::conns;
use synmill_engine::stats::Snapshot;

/// Every path of the documents is documented with its type, and every documented path is in one of them.
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
        drops: one(),
        ring_losses: one(),
        worker_cpu_percent: vec![1.0],
        softirq_percent: vec![1.0],
        ..serve::Interval::default()
    });
    check("synmill-serve/1", [to_value(report).unwrap()]);
}

/// Lines of documents of their own, each of a connection.
#[test]
fn the_lines_of_connections_are_documented() {
    check(conns::SCHEMA, conns::documented_rows().map(|row| to_value(row).unwrap()));
}

#[test]
fn the_generators_document_is_documented() {
    let plain = bench::BenchReport::new(bench::tests::setup(), bench::tests::measured());
    let empty = bench::BenchReport::new(bench::tests::setup(), bench::Measured::default());
    let reports = [plain, bench::tests::troubled(), empty];
    check("synmill-bench/1", reports.map(|report| to_value(report).unwrap()));
}
