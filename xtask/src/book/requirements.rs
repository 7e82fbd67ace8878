//! Checks that the tests which docs/rfc9293.md names are in the tree.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The page, from the workspace's root on.
pub(super) const PAGE: &str = "docs/rfc9293.md";

/// Returns a line for each test, and for each label of a test's table, that the page names and the tree does not have.
pub(super) fn missing(root: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(root.join(PAGE)).with_context(|| format!("reading {PAGE}"))?;
    let folders = folders(&text);
    let mut sources = BTreeMap::new();
    for folder in folders.values().flatten() {
        if !sources.contains_key(folder) {
            sources.insert(folder.clone(), source(&root.join(folder))?);
        }
    }
    let known = folders.into_iter().map(|(prefix, folders)| {
        let of = |folder| sources.get(folder).map_or("", String::as_str);
        (prefix, folders.iter().map(of).collect())
    });
    Ok(check(&text, &known.collect()))
}

/// Reads the page's table of prefixes: where the tests are whose names begin so.
fn folders(text: &str) -> BTreeMap<String, Vec<PathBuf>> {
    let rows = text.lines().skip_while(|line| *line != "| prefix | where |").skip(2);
    let code =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut folders = BTreeMap::new();
    for row in rows.take_while(|line| line.starts_with('|')) {
        let Some((prefixes, paths)) = row.trim_matches('|').split_once(" | ") else { continue };
        let paths: Vec<PathBuf> = code(paths).iter().map(PathBuf::from).collect();
        folders.extend(code(prefixes).into_iter().map(|prefix| (prefix, paths.clone())));
    }
    folders
}

/// Reads a file, or all of a folder, in a form in which a text may be searched for: one that a string has on two lines is on one.
fn source(path: &Path) -> Result<String> {
    let mut whole = String::new();
    let mut paths = vec![path.to_owned()];
    while let Some(path) = paths.pop() {
        let context = || format!("{PAGE} says that tests are in {}", path.display());
        if path.is_dir() {
            for entry in fs::read_dir(&path).with_context(context)? {
                paths.push(entry?.path());
            }
        } else {
            whole.push_str(&fs::read_to_string(&path).with_context(context)?.replace("\\\n", ""));
        }
    }
    Ok(words(&whole))
}

/// Puts one space between words.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Checks each code span that begins with a known prefix, and the quoted texts behind it, which are labels of its table.
fn check(text: &str, sources: &BTreeMap<String, String>) -> Vec<String> {
    let mut problems = Vec::new();
    let mut line = 1;
    let mut test: Option<(&str, &str)> = None;
    for (number, part) in text.split('`').enumerate() {
        if number % 2 == 1 {
            let prefix = part.split([':', '/']).next().unwrap_or_default();
            let source = sources.get(prefix).filter(|_| part.len() > prefix.len());
            test = source.map(|source| (part, source.as_str()));
            if let Some((_, source)) = test
                && let Some((_, function)) = part.rsplit_once("::")
                && function != "*"
                && !source.contains(&format!("fn {function}("))
            {
                problems.push(format!("{PAGE}:{line}: there is no test `{part}`"));
            }
        } else if let Some((name, source)) = test {
            // Its cell ends there, or its paragraph.
            let cell =
                part.split(['|', '*']).next().unwrap_or_default().split("\n\n").next().unwrap_or_default();
            for label in cell.split('"').skip(1).step_by(2).map(words) {
                if !source.contains(&format!("\"{label}\"")) {
                    problems.push(format!("{PAGE}:{line}: `{name}` has no \"{label}\""));
                }
            }
        }
        line += part.matches('\n').count();
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
| prefix | where |
|---|---|
| `closing`, `random` | `tcp/a/`, `tcp/b.rs` |
| `e2e` | `tcp/e2e/` |

| MUST-1 | \"no label\" | `closing::four_way` \"FIN\" to \"last ACK\"; `e2e/loss` |
| MUST-2 | done `other::thing` | `closing::*`; `random::any` |
";

    #[test]
    fn prefixes_have_their_folders() {
        let both: Vec<PathBuf> = vec!["tcp/a/".into(), "tcp/b.rs".into()];
        let expected = [("closing", both.clone()), ("e2e", vec!["tcp/e2e/".into()]), ("random", both)];
        assert_eq!(folders(TEXT), expected.map(|(prefix, paths)| (prefix.to_owned(), paths)).into());
    }

    #[test]
    fn what_is_missing_is_named() {
        let source = |closing: &str| -> BTreeMap<String, String> {
            [("closing", closing), ("random", "fn any()"), ("e2e", "")]
                .map(|(prefix, text)| (prefix.to_owned(), text.to_owned()))
                .into()
        };
        let whole = "fn four_way() { \"FIN\" \"last ACK\" }";
        assert!(check(TEXT, &source(whole)).is_empty(), "{:?}", check(TEXT, &source(whole)));
        assert_eq!(
            check(TEXT, &source("fn four_ways() { \"FIN\" }")),
            [
                "docs/rfc9293.md:6: there is no test `closing::four_way`",
                "docs/rfc9293.md:6: `closing::four_way` has no \"last ACK\""
            ]
        );
    }
}
