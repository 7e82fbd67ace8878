//! Instructions of a part of this program, by valgrind's callgrind.

use std::collections::HashMap;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::scratch::Folder;

/// Instructions of a case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Those of this program.
    pub own: u64,
    /// Those of its libraries.
    pub others: u64,
    /// The number of connections or requests, which the case prints.
    pub done: u64,
}

/// Runs this program with `variable` set to `case`, and counts while it is in functions that fit `pattern`.
///
/// # Errors
/// Valgrind is missing or failed, or the program was in no such function.
pub fn count(variable: &str, case: &str, pattern: &str) -> Result<Counts> {
    let program = std::env::current_exe().context("finding this program")?;
    let folder = Folder::new("callgrind")?;
    let file = folder.file("costs");
    let output = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--collect-atstart=no"])
        .arg(format!("--toggle-collect={pattern}"))
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(&program)
        .env(variable, case)
        .stderr(Stdio::inherit())
        .output()
        .context("valgrind, of the package of this name")?;
    ensure!(output.status.success(), "`{case}` under valgrind: {}", output.status);
    let said = String::from_utf8_lossy(&output.stdout);
    let done = said.trim().parse().with_context(|| format!("the output of `{case}`: {said}"))?;
    let costs = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    let (own, others) = add_up(&costs, &program.display().to_string()).context("callgrind's file")?;
    ensure!(own > 0, "`{case}` was never in `{pattern}`");
    Ok(Counts { own, others, done })
}

/// Adds up the costs of an object's functions, without those of the functions that they call, and the costs of all other objects. The
/// format: <https://valgrind.org/docs/manual/cl-format.html>.
fn add_up(costs: &str, object: &str) -> Option<(u64, u64)> {
    let mut names = HashMap::new();
    let (mut is_own, mut is_call) = (false, false);
    let (mut own, mut others) = (0, 0);
    for line in costs.lines() {
        if let Some(name) = line.strip_prefix("ob=") {
            is_own = full_name(&mut names, name) == object;
        } else if let Some(name) = line.strip_prefix("cob=") {
            full_name(&mut names, name);
        } else if line.starts_with("calls=") {
            // The next line has the inclusive cost of the called function.
            is_call = true;
        } else if line.starts_with(|first: char| first.is_ascii_digit() || "+-*".contains(first)) {
            // A position and a cost; without a cost, it is 0.
            let cost: u64 = line.split(' ').nth(1).map_or(Some(0), |cost| cost.parse().ok())?;
            if !std::mem::take(&mut is_call) {
                *(if is_own { &mut own } else { &mut others }) += cost;
            }
        }
    }
    Some((own, others))
}

/// Resolves a name: `(3) name` defines number 3, and `(3)` refers to it.
fn full_name<'a>(names: &mut HashMap<&'a str, &'a str>, text: &'a str) -> &'a str {
    match text.split_once(' ') {
        Some((number, name)) => {
            names.insert(number, name);
            name
        }
        None => names.get(text).copied().unwrap_or(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_of_the_object_whose_code_it_is() {
        let costs = "\
version: 1
positions: line
events: Ir

ob=(1) /a/program
fl=(1) a.rs
fn=(1) turn
10 5
+2 7
cob=(2) /lib/libc.so.6
cfn=(2) memcpy
calls=3 20
12 300
-1 1
* 2

ob=(2)
fn=(2)
20 90

ob=(1)
fn=(3) answer
30 4
totals: 109
";
        assert_eq!(add_up(costs, "/a/program"), Some((19, 90)));
        assert_eq!(add_up("ob=(1) /a/program\n10 many\n", "/a/program"), None);
    }
}
