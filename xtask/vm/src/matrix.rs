//! `cargo xtask vm --all`: every driver with every kernel, and the table of modes in docs/drivers.md.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use synmill_lab::{Interrupt, output, workspace};

use crate::guest::{Driver, Row};
use crate::host::{Host, Wish};
use crate::machine::Report;

/// The kernels: the older has no zero-copy for these drivers, the newer has it.
const KERNELS: [&str; 2] = ["6.12", "7"];
/// The test that tries the modes.
const LADDER: &str = "ladder";
/// The page with the table, from the workspace's root.
const PAGE: &str = "docs/drivers.md";
/// The marks before and after the table on that page.
const MARKS: [&str; 2] = ["<!-- cargo xtask vm --all: begin -->", "<!-- cargo xtask vm --all: end -->"];

/// The result of one guest.
#[derive(Debug)]
struct Trial {
    driver: Driver,
    release: String,
    rows: Vec<Row>,
    /// The reason why rows may be missing.
    failure: Option<String>,
}

/// Runs all guests, even after a failure, and writes the table.
pub(crate) fn perform(interrupt: &Interrupt, mirror: Option<&str>) -> Result<()> {
    let wish = |driver| KERNELS.map(|kernel| Wish::simple(driver, kernel, &[LADDER]));
    let host = Host::prepare(interrupt, mirror, Driver::ALL.into_iter().flat_map(wish).collect())?;
    let mut trials = Vec::new();
    for guest in &host.guests {
        let report = host.run(guest);
        interrupt.check()?;
        trials.push(Trial::of(guest.plan.driver, &guest.kernel.release, report));
        println!();
    }
    let mut versions: Vec<&str> = host.guests.iter().map(|guest| guest.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    let date = output(Command::new("date").args(["--utc", "+%F"]))?;
    let table = table(&trials);
    print!("{table}");

    let path = workspace().join(PAGE);
    let page = fs::read_to_string(&path).with_context(|| format!("reading {PAGE}"))?;
    let text = format!("{}, QEMU {}:\n\n{table}", date.trim(), versions.join(" and "));
    fs::write(&path, replaced(&page, &text)?).with_context(|| format!("writing {PAGE}"))?;

    let failed = trials.iter().filter(|trial| trial.failure.is_some()).count();
    println!("\n{} passed, {failed} failed", trials.len() - failed);
    if failed > 0 {
        bail!("{failed} of {} guests failed; the table in {PAGE} says which", trials.len());
    }
    Ok(())
}

impl Trial {
    fn of(driver: Driver, release: &str, report: Result<Report>) -> Self {
        let (rows, failure) = match report {
            Ok(Report { failed: 0, rows, .. }) if rows.is_empty() => {
                (rows, Some("it reported no modes".to_owned()))
            }
            Ok(Report { failed: 0, rows, .. }) => (rows, None),
            Ok(Report { rows, .. }) => (rows, Some(format!("the test `{LADDER}` failed"))),
            Err(error) => (Vec::new(), Some(format!("{error:#}"))),
        };
        if let Some(failure) = &failure {
            eprintln!("error: {failure}");
        }
        Self { driver, release: release.to_owned(), rows, failure }
    }
}

/// Returns the table in Markdown.
fn table(trials: &[Trial]) -> String {
    let mut table = line(["driver", "kernel", "mode", "bound", "native", "zero-copy", "traffic", "errors"]);
    table += &line(["---"; 8]);
    let yes = |is: bool| if is { "yes" } else { "no" };
    for Trial { driver, release, rows, failure } in trials {
        for row in rows {
            let traffic =
                row.connections.map_or_else(|| "-".to_owned(), |connections| connections.to_string());
            let bound = row.bound.as_deref().unwrap_or("refused");
            let (native, zero_copy) = (yes(row.native), yes(row.zero_copy));
            table +=
                &line([driver.name(), release, &row.mode, bound, native, zero_copy, &traffic, &row.errors]);
        }
        if let Some(failure) = failure {
            table += &line([driver.name(), release, "-", "-", "-", "-", "-", &format!("failed: {failure}")]);
        }
    }
    table
}

/// Returns a row of the table, with the cells' own bars and line ends replaced.
fn line(cells: [&str; 8]) -> String {
    let cells = cells.map(|cell| cell.replace('|', "\\|").replace('\n', " "));
    format!("| {} |\n", cells.join(" | "))
}

/// Returns the page with another text between its marks.
fn replaced(page: &str, text: &str) -> Result<String> {
    let [begin, end] = MARKS;
    let marked = page.split_once(begin).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
    let (before, after) = marked.with_context(|| format!("{PAGE} has no `{begin}` before a `{end}`"))?;
    Ok(format!("{before}{begin}\n{}\n{end}{after}", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_line_for_each_mode_and_each_failure() {
        let row = Row {
            mode: "zerocopy".into(),
            bound: None,
            native: true,
            zero_copy: false,
            connections: None,
            errors: "a | b\nc".into(),
        };
        let good = Row {
            mode: "auto".into(),
            bound: Some("copy".into()),
            connections: Some(400),
            errors: String::new(),
            ..row.clone()
        };
        let report = Report { passed: 1, failed: 0, rows: vec![row, good] };
        let trials = [
            Trial::of(Driver::Virtio, "6.12.1", Ok(report)),
            Trial::of(Driver::Igb, "7.2.1", Err(anyhow::anyhow!("the guest hangs"))),
        ];
        assert_eq!(
            table(&trials),
            "| driver | kernel | mode | bound | native | zero-copy | traffic | errors |\n\
             | --- | --- | --- | --- | --- | --- | --- | --- |\n\
             | virtio | 6.12.1 | zerocopy | refused | yes | no | - | a \\| b c |\n\
             | virtio | 6.12.1 | auto | copy | yes | no | 400 |  |\n\
             | igb | 7.2.1 | - | - | - | - | - | failed: the guest hangs |\n"
        );
    }

    #[test]
    fn a_guest_without_modes_has_failed() {
        assert!(Trial::of(Driver::Virtio, "6.12.1", Ok(Report::default())).failure.is_some());
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("# Drivers\n\n{}\nold\n{}\n\nmore\n", MARKS[0], MARKS[1]);
        let new = replaced(&page, "new\n").unwrap();
        assert_eq!(new, page.replace("old", "new"));
        assert_eq!(replaced(&new, "new\n").unwrap(), new);
        assert!(replaced("# Drivers\n", "new").is_err());
    }

    #[test]
    fn the_page_has_its_marks() {
        let page = fs::read_to_string(workspace().join(PAGE)).unwrap();
        assert!(replaced(&page, "new").is_ok());
    }
}
