//! Compares the options that the pages name with those that the programs have.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _};
use synmill_lab::output;

use super::commands;
use super::page::Page;
use crate::cli::Arguments;

/// The options of each program.
pub(super) struct Usage {
    /// Those of each command of synmill.
    synmill: BTreeMap<&'static str, BTreeSet<String>>,
    /// All of these, and all of xtask's.
    any: BTreeSet<String>,
}

impl Usage {
    /// Asks the binary, and this program itself.
    pub(super) fn of(binary: &Path) -> Result<Self> {
        let mut synmill = BTreeMap::new();
        for command in ["serve", "bench", "conns"] {
            let help = output(Command::new(binary).args([command, "--help"]))?;
            synmill.insert(command, defined(&help));
        }
        let mut usage = Self::new(synmill);
        let own = env::current_exe().context("asking for our own path")?;
        usage.any.extend(defined(&output(Command::new(own).args(["bench", "--help"]))?));
        Ok(usage)
    }

    fn new(synmill: BTreeMap<&'static str, BTreeSet<String>>) -> Self {
        let mut any: BTreeSet<String> = synmill.values().flatten().cloned().collect();
        let mut programs = vec![Arguments::command()];
        while let Some(program) = programs.pop() {
            any.extend(program.get_arguments().filter_map(|a| Some(format!("--{}", a.get_long()?))));
            programs.extend(program.get_subcommands().cloned());
        }
        Self { synmill, any }
    }

    /// Returns a line for each option or command of a page that there is not, and for each that a synopsis leaves out.
    pub(super) fn problems(&self, page: &Page) -> Vec<String> {
        let mut problems = Vec::new();
        let mut add = |line: usize, problem| {
            problems.push(format!("{}:{line}: {problem}", page.path.display()));
        };
        for block in page.blocks.iter().filter(|block| block.language == "text") {
            let Some((command, known)) = self.command(&block.text) else { continue };
            let named: BTreeSet<String> = options(&block.text).collect();
            for option in named.symmetric_difference(known) {
                add(block.line, format!("`synmill {command}` and its synopsis differ in {option}"));
            }
        }
        let commands = commands::of(page);
        for code in page.spans.iter().chain(&commands) {
            let known = match self.command(&code.text) {
                Some((_, known)) => known,
                None if code.text.starts_with("--") => &self.any,
                None => {
                    if let Some(words) = code.text.strip_prefix("cargo xtask ")
                        && let Err(error) = Arguments::try_parse_from(format!("xtask {words}").split(' '))
                        && error.use_stderr()
                    {
                        let reason = error.to_string();
                        let reason = reason.lines().next().unwrap_or_default();
                        add(code.line, format!("`{}` cannot be run: {reason}", code.text));
                    }
                    continue;
                }
            };
            for option in options(&code.text).filter(|option| !known.contains(option)) {
                add(code.line, format!("`{}`: there is no option {option}", code.text));
            }
        }
        problems
    }

    /// Returns the command of synmill that a text begins with, and its options.
    fn command(&self, text: &str) -> Option<(&'static str, &BTreeSet<String>)> {
        let name = text.strip_prefix("synmill ")?.split_whitespace().next()?;
        self.synmill.get_key_value(name).map(|(name, options)| (*name, options))
    }
}

/// Returns the options that a help text explains: a line of each begins with it.
fn defined(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start).filter(|line| line.starts_with("--"));
    lines.filter_map(|line| options(line).next()).collect()
}

/// Returns the options in a text: two dashes and a name. Every program has `--help`.
fn options(text: &str) -> impl Iterator<Item = String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.len() > 2 && word.starts_with("--") && *word != "--help").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let known = ["--listen", "--quiet"].map(str::to_owned).into();
        Usage::new([("serve", known)].into()).problems(&Page::parse(Path::new("docs/x.md"), text))
    }

    #[test]
    fn what_there_is_may_be_named() {
        let text = "`--quiet`, `--listen A:P`, `synmill serve --quiet`, `cargo xtask vm --driver igb`, `cargo xtask vm --help`, `--except-tests`\n\n\
                    ```text\nsynmill serve --listen A:P [--listen ...] [--quiet]\n```\n\n\
                    ```sh\ncargo xtask lab exec -- curl --silent x\n```\n";
        assert!(problems(text).is_empty(), "{:?}", problems(text));
    }

    #[test]
    fn what_there_is_not_is_found() {
        for (text, part) in [
            ("a\n`--silent`", "docs/x.md:2: `--silent`: there is no option --silent"),
            ("`synmill serve --rate 1`", "docs/x.md:1: `synmill serve --rate 1`: there is no option --rate"),
            (
                "```text\nsynmill serve --listen A\n```",
                "docs/x.md:2: `synmill serve` and its synopsis differ in --quiet",
            ),
            (
                "```sh\ncargo xtask rnu\n```",
                "docs/x.md:2: `cargo xtask rnu` cannot be run: error: unrecognized",
            ),
        ] {
            let problems = problems(text);
            assert!(problems.len() == 1 && problems[0].starts_with(part), "{part}: {problems:?}");
        }
    }
}
