//! What a run of synmill left: its exit status, its output and its report.

use std::process::ExitStatus;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A run of synmill that has ended.
#[derive(Debug)]
pub struct Run {
    /// The exit status.
    pub status: ExitStatus,
    /// The lines of both outputs.
    pub said: String,
    /// The document that `--json` wrote; null without one.
    pub report: Value,
}

impl Run {
    /// Returns a value of the report by its path (`/connections/started`), or a counter or drop by its name (`in_segs`).
    ///
    /// # Errors
    /// The report has no such value.
    pub fn at(&self, path: &str) -> Result<&Value> {
        let value = if path.starts_with('/') {
            self.report.pointer(path)
        } else {
            self.report["counters"].get(path).or_else(|| self.report["drops"].get(path))
        };
        value.with_context(|| format!("the report has no {path}: {}\n{}", self.report, self.said))
    }

    /// Returns a count of the report, found as by [`Run::at`].
    ///
    /// # Errors
    /// The report has no such count.
    pub fn count(&self, path: &str) -> Result<u64> {
        self.at(path)?.as_u64().with_context(|| format!("{path} is no count: {}", self.report))
    }

    /// Returns a text of the report, found as by [`Run::at`].
    ///
    /// # Errors
    /// The report has no such text.
    pub fn text(&self, path: &str) -> Result<&str> {
        self.at(path)?.as_str().with_context(|| format!("{path} is no text: {}", self.report))
    }

    /// Fails unless the run was as asked, apart from its rate, which a busy machine may miss.
    ///
    /// # Errors
    /// The verdict names another problem, or the exit status does not match the verdict.
    pub fn fulfilled(self) -> Result<Self> {
        ensure!(!self.report.is_null(), "{}, without a report:\n{}", self.status, self.said);
        let problems: Vec<&Value> = self
            .report
            .pointer("/verdict/problems")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .collect();
        let is_rate = |problem: &Value| {
            problem.as_str().is_some_and(|text| text.contains(" connections/s were established "))
        };
        ensure!(problems.iter().all(|problem| is_rate(problem)), "{problems:?}:\n{}", self.said);
        let expected = if problems.is_empty() { 0 } else { 3 };
        ensure!(self.status.code() == Some(expected), "{} for {problems:?}:\n{}", self.status, self.said);
        Ok(self)
    }
}

/// Returns the last line that is a JSON object: the counts that a peer prints at its end.
///
/// # Errors
/// There is no such line.
pub fn last_json(said: &str) -> Result<Value> {
    let line = said.lines().rev().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("no counts in the output: {said}"))?;
    serde_json::from_str(line).with_context(|| format!("counts that are no JSON: {line}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;

    use serde_json::json;

    use super::*;

    fn run(code: i32, problems: &[&str]) -> Run {
        let report = json!({
            "verdict": {"problems": problems},
            "mode": "copy",
            "connections": {"started": 7},
            "counters": {"in_segs": 8},
            "drops": {"drop_land": 9},
        });
        // A wait status holds the exit code in its second byte.
        Run { status: ExitStatus::from_raw(code << 8), said: String::new(), report }
    }

    #[test]
    fn values_are_found_by_path_and_by_name() {
        let run = run(0, &[]);
        for (path, count) in [("/connections/started", 7), ("in_segs", 8), ("drop_land", 9)] {
            assert_eq!(run.count(path).unwrap(), count);
        }
        assert_eq!(run.text("/mode").unwrap(), "copy");
        for path in ["/mode", "/started", "started"] {
            assert!(run.count(path).unwrap_err().to_string().contains(path));
        }
    }

    #[test]
    fn only_its_rate_may_be_missed() {
        let rate = "only 90 of 100 connections/s were established in time";
        for (code, problems, good) in [
            (0, &[][..], true),
            (3, &[rate], true),
            (3, &[], false),
            (0, &[rate], false),
            (1, &[], false),
            (3, &[rate, "7 connections failed"], false),
        ] {
            assert_eq!(run(code, problems).fulfilled().is_ok(), good, "{code} {problems:?}");
        }
        let silent = Run { report: Value::Null, ..run(0, &[]) };
        assert!(silent.fulfilled().is_err());
    }

    #[test]
    fn the_last_line_with_counts_is_found() {
        let said = "ready: 198.18.0.2:80\n{\"accepted\":1}\n{\"accepted\":7,\"errors\":0}\nbye";
        assert_eq!(last_json(said).unwrap()["accepted"], 7);
        assert!(last_json("ready").unwrap_err().to_string().contains("ready"));
        assert!(last_json("{accepted}").is_err());
    }
}
