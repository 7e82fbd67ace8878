//! Collects the commands of the documentation, and knows what runs each of them.

use std::fs;
use std::path::Path;

use super::page::{Block, Located, Page};

/// The interface of examples for a real NIC. The lab has none of this name.
pub(super) const NIC: &str = "eth1";

/// The languages that a code block may have. Commands stand in the first two.
const LANGUAGES: [&str; 4] = [SHELL, CONSOLE, "text", "json"];
const SHELL: &str = "sh";
/// Commands behind a `$`, and what they print.
const CONSOLE: &str = "console";

/// A command that another step of CI runs, and the text of a file that shows it.
struct Elsewhere {
    command: &'static str,
    file: &'static str,
    text: &'static str,
}

const CI: &str = ".ci/run";

/// The commands that [`Way::Elsewhere`] is for.
const ELSEWHERE: &[Elsewhere] = &[
    Elsewhere { command: "cargo xtask run", file: CI, text: "\nstep cargo xtask run\n" },
    Elsewhere { command: "cargo xtask test", file: CI, text: "\nstep cargo xtask test\n" },
    Elsewhere { command: "cargo xtask ci", file: CI, text: "\nstep cargo xtask ci --except-tests\n" },
    Elsewhere { command: "cargo xtask bench lab", file: CI, text: "\nstep cargo xtask bench lab " },
    Elsewhere { command: "cargo xtask vm", file: "xtask/src/ci.rs", text: "vm::continuous(" },
    Elsewhere { command: "cargo xtask ebpf", file: "xtask/src/ci.rs", text: "ebpf::write(" },
    Elsewhere { command: "cargo xtask book", file: "xtask/src/ci.rs", text: "book::perform(" },
];

/// A package list: one line, which `.ci/run` has word for word.
const INSTALL: &str = "apt-get install ";

/// What runs a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// Another step of CI.
    Elsewhere,
    /// `cargo xtask book`, where the NIC is missing: the command has to get as far as to say so.
    Refused,
    /// `cargo xtask book`, in the background: it serves until the next one does or the page ends.
    Serve,
    /// `cargo xtask book`, to its end.
    Once,
}

/// Returns what runs a command.
pub(super) fn way(command: &str) -> Way {
    let words: Vec<&str> = command.split_whitespace().collect();
    let serves = words.windows(2).any(|pair| pair[0].ends_with("synmill") && pair[1] == "serve");
    if command.starts_with(INSTALL) || ELSEWHERE.iter().any(|elsewhere| elsewhere.command == command) {
        Way::Elsewhere
    } else if words.contains(&NIC) {
        Way::Refused
    } else if serves && !words.contains(&"--duration") {
        Way::Serve
    } else {
        Way::Once
    }
}

/// Returns the commands of a page in their order, without comments.
pub(super) fn of(page: &Page) -> Vec<Located> {
    page.blocks.iter().flat_map(of_block).collect()
}

fn of_block(block: &Block) -> Vec<Located> {
    let mut commands = Vec::new();
    let mut lines = block.text.lines().zip(block.line..);
    while let Some((first, line)) = lines.next() {
        let first = match block.language.as_str() {
            SHELL => Some(first),
            CONSOLE => first.strip_prefix("$ "),
            _ => None,
        };
        let Some(first) = first else { continue };
        let mut text = first.to_owned();
        while let Some(start) = text.strip_suffix('\\') {
            let next = lines.next().map_or("", |(next, _)| next.trim_start());
            text = format!("{}{next}", start.trim_end().to_owned() + " ");
        }
        let without_comment = text.split(" #").next().unwrap_or_default().trim();
        if !without_comment.is_empty() && !without_comment.starts_with('#') {
            commands.push(Located { line, text: without_comment.to_owned() });
        }
    }
    commands
}

/// Returns a line for each code block of a page whose commands could not be seen: it is indented, or names no language.
pub(super) fn unmarked(page: &Page) -> Vec<String> {
    let unmarked = page.blocks.iter().filter(|block| !LANGUAGES.contains(&block.language.as_str()));
    let line = |block: &Block| {
        let known = LANGUAGES.join(", ");
        format!("{}:{}: mark this code block as one of {known}", page.path.display(), block.line)
    };
    unmarked.map(line).collect()
}

/// Returns a line for each command that is said to run elsewhere and does not, or that no page has.
pub(super) fn not_elsewhere(root: &Path, pages: &[Page]) -> Vec<String> {
    let commands: Vec<Located> = pages.iter().flat_map(of).collect();
    let has = |file: &str, text: &str| {
        // Long lines of the script go on below.
        fs::read_to_string(root.join(file)).is_ok_and(|found| unfolded(&found).contains(text))
    };
    let mut problems = Vec::new();
    for Elsewhere { command, file, text } in ELSEWHERE {
        if !has(file, text) {
            problems.push(format!("{file} does not run `{command}`: it has no `{}`", text.trim()));
        }
        if !commands.iter().any(|found| found.text == *command) {
            problems
                .push(format!("no page has the command `{command}`: remove it from the list of commands"));
        }
    }
    let installs = commands.iter().filter(|command| command.text.starts_with(INSTALL));
    let missing = installs.filter(|install| !has(CI, &install.text));
    problems.extend(missing.map(|install| format!("{CI} does not run `{}`", install.text)));
    problems
}

/// Joins the lines of a script that end in a backslash with the next.
fn unfolded(script: &str) -> String {
    let mut parts = script.split("\\\n");
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        whole = format!("{} {}", whole.trim_end_matches(' '), part.trim_start());
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
```sh
cargo xtask lab up
# Nothing of this line is run.
apt-get install one \\
    two    # both

synmill serve --interface eth1 --listen '198.18.0.2:80=http:1#'
```

```console
$ cargo xtask lab exec -- curl http://198.18.0.2/
{ an answer }
$ cargo xtask run
```

```text
synmill serve [--quiet]
```
";

    #[test]
    fn commands_are_collected_with_their_lines() {
        let page = Page::parse(Path::new("docs/x.md"), TEXT);
        let found = of(&page);
        let commands: Vec<(usize, &str)> = found.iter().map(|one| (one.line, one.text.as_str())).collect();
        let expected = [
            (2, "cargo xtask lab up"),
            (4, "apt-get install one two"),
            (7, "synmill serve --interface eth1 --listen '198.18.0.2:80=http:1#'"),
            (11, "cargo xtask lab exec -- curl http://198.18.0.2/"),
            (13, "cargo xtask run"),
        ];
        assert_eq!(commands, expected);
        assert!(unmarked(&page).is_empty());
    }

    #[test]
    fn a_block_without_a_language_is_named() {
        for text in
            ["a\n\n```\ncargo xtask run\n```\n", "a\n\n    cargo xtask run\n", "a\n\n```bash\nx\n```\n"]
        {
            let problems = unmarked(&Page::parse(Path::new("README.md"), text));
            assert!(problems.len() == 1 && problems[0].starts_with("README.md:"), "{problems:?}");
        }
    }

    #[test]
    fn each_command_has_a_way_to_be_run() {
        for (command, expected) in [
            ("cargo xtask test", Way::Elsewhere),
            ("apt-get install clang", Way::Elsewhere),
            ("cargo xtask run --interface eth1 --listen 198.18.0.2:80", Way::Refused),
            ("cargo xtask lab exec --server -- target/release/synmill serve --interface sms0", Way::Serve),
            ("cargo xtask lab exec --server -- target/release/synmill serve --duration 1s", Way::Once),
            ("cargo xtask lab down", Way::Once),
        ] {
            assert_eq!(way(command), expected, "{command}");
        }
    }

    #[test]
    fn a_long_line_of_a_script_is_one() {
        assert_eq!(unfolded("a \\\n  b \\\n  c\nd\n"), "a b c\nd\n");
    }
}
