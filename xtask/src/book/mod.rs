//! `cargo xtask book`: builds the documentation, checks it, and runs its commands.

mod commands;
mod links;
mod page;
mod requirements;
mod session;
mod usage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use synmill_lab::{Interrupt, prerequisites, workspace};

use self::links::BOOK;
use self::page::Page;
use self::usage::Usage;

/// The book's table of contents, which has every page of the book.
const SUMMARY: &str = "docs/SUMMARY.md";
/// Pages outside of the book.
const OTHERS: [&str; 2] = ["README.md", "ARCHITECTURE.md"];

/// `cargo xtask book`.
pub(crate) fn run(except_commands: bool) -> Result<()> {
    if !except_commands {
        prerequisites::root("book")?;
    }
    let interrupt = Interrupt::install()?;
    prerequisites::ensure(&interrupt, &[prerequisites::BUILD, prerequisites::LAB, prerequisites::TESTS])?;
    perform(&interrupt, except_commands)
}

/// Checks the pages, builds the book, and runs the commands of the pages in the lab.
pub(crate) fn perform(interrupt: &Interrupt, except_commands: bool) -> Result<()> {
    let binary = crate::build::synmill(interrupt)?;
    let root = workspace();
    let pages = pages(&root)?;
    let usage = Usage::of(&binary)?;
    let mut problems = requirements::missing(&root)?;
    problems.extend(commands::not_elsewhere(&root, &pages));
    problems.extend(unlisted(&root, &pages)?);
    for page in &pages {
        problems.extend(links::dead(&root, page));
        problems.extend(commands::unmarked(page));
        problems.extend(usage.problems(page));
    }
    if !problems.is_empty() {
        bail!("the documentation has to be mended:\n{}", problems.join("\n"));
    }
    prerequisites::ensure_mdbook(interrupt)?;
    interrupt.run(std::process::Command::new("mdbook").args(["build", BOOK]).current_dir(&root))?;
    if except_commands { Ok(()) } else { session::all(interrupt, &pages) }
}

/// Reads the pages: those of the book in its order behind the others.
fn pages(root: &Path) -> Result<Vec<Page>> {
    let summary = Page::read(root, Path::new(SUMMARY))?;
    let listed = summary.links.iter().filter_map(|link| page::beside(&summary.path, &link.text));
    let mut paths: Vec<PathBuf> = OTHERS.iter().map(PathBuf::from).chain(listed).collect();
    // A page that is missing is a dead link of the table of contents.
    paths.retain(|path| root.join(path).is_file());
    let mut pages: Vec<Page> = paths.iter().map(|path| Page::read(root, path)).collect::<Result<_>>()?;
    pages.push(summary);
    Ok(pages)
}

/// Returns a line for each page of the book's folder that its table of contents leaves out.
fn unlisted(root: &Path, pages: &[Page]) -> Result<Vec<String>> {
    let listed: BTreeSet<PathBuf> = pages.iter().map(|page| root.join(&page.path)).collect();
    let mut problems = Vec::new();
    for entry in std::fs::read_dir(root.join(BOOK))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "md") && !listed.contains(&path) {
            problems.push(format!("{SUMMARY} does not list {}", path.display()));
        }
    }
    Ok(problems)
}
