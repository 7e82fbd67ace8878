//! `cargo xtask tidy`: the order of the source tree.
//!
//! It reads every module of the workspace, and fails on each of these:
//! - Two files import each other, or files import each other in a longer circle. File A imports file B if A's code names an item that
//!   B defines, through any `use` and re-export, or if A has a `use` of it. A `mod` or a `pub use` alone is no import, and neither is
//!   the call of a method.
//! - An import runs up: it leads from a module to one on a higher floor of [`floors::ALL`]. Tests may import from all floors.
//! - A file other than `mod.rs` or a crate's root declares modules of other files.
//! - A file has more than [`MOST_LINES`] lines, without those of its tests.
//!
//! Test code (`#[cfg(test)]` and `tests/`) counts as a file of its own, so a test may import the code that it tests.

mod floors;
mod names;
mod tree;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use synmill_lab::{cargo, output, workspace};

use self::floors::Floors;
use self::names::Target;
use self::tree::{Module, Root, Tree};

/// Most lines of a file, without those of its tests.
const MOST_LINES: usize = 500;

/// Checks the workspace, and names all violations.
pub(crate) fn run() -> Result<()> {
    let folder = workspace();
    let read = |path: &Path| fs::read_to_string(folder.join(path)).ok();
    let tree = Tree::load(roots(&folder)?, &read)?;
    let violations = check(&tree, floors::ALL);
    for violation in &violations {
        eprintln!("{violation}");
    }
    ensure!(violations.is_empty(), "the tree has {} violations", violations.len());
    println!("{} files are tidy", tree.files.len());
    Ok(())
}

/// Returns all crates of the workspace, with paths from its folder.
fn roots(folder: &Path) -> Result<Vec<Root>> {
    let said = output(&mut cargo(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&said).context("`cargo metadata`")?;
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    let mut roots = Vec::new();
    for package in list(&metadata, "packages") {
        for target in list(&package, "targets") {
            let kind = target["kind"][0].as_str().unwrap_or_default();
            let path = PathBuf::from(text(&target, "src_path"));
            roots.push(Root {
                package: text(&package, "name"),
                library: (kind == "lib").then(|| text(&target, "name").replace('-', "_")),
                path: path.strip_prefix(folder).unwrap_or(&path).to_owned(),
                is_test: kind == "test",
            });
        }
    }
    Ok(roots)
}

/// A file's code, or its tests.
type Node = (usize, bool);

/// The files that each file imports, with the name of an imported item.
type Imports = BTreeMap<Node, BTreeMap<Node, String>>;

/// Returns all violations, sorted.
fn check(tree: &Tree, floors: &[Floors]) -> BTreeSet<String> {
    let mut violations = BTreeSet::new();
    for file in &tree.files {
        let path = file.path.display();
        if file.misplaced {
            violations.insert(format!("{path}: it declares modules of other files, so it must be x/mod.rs"));
        }
        if !file.is_test && file.lines > MOST_LINES {
            violations.insert(format!("{path}: {} lines, and {MOST_LINES} are the most", file.lines));
        }
    }
    let mut imports = Imports::new();
    for (index, module) in tree.modules.iter().enumerate() {
        let floors = floors.iter().find(|floors| floors.package == tree.roots[module.root].package);
        let own_floor = floors.and_then(|floors| floor(floors, module));
        if floors.is_some() && own_floor.is_none() && !module.is_test {
            violations.insert(format!(
                "{}: `{}` is on no floor",
                name(tree, module.file),
                module.names.join("::")
            ));
        }
        for path in &module.paths {
            let Some(target) = tree.resolve(index, &path.names) else { continue };
            let target = match target {
                // A single name is a variable, not the module of that name.
                Target::Module(_) if path.names.len() == 1 => continue,
                Target::Module(target) | Target::Item(target) => &tree.modules[target],
            };
            let (from, to) = ((module.file, path.is_test), (target.file, target.is_test));
            if from.0 == to.0 {
                continue;
            }
            let words = path.names.join("::");
            let is_up = target.root == module.root
                && floors.and_then(|floors| floor(floors, target)) > own_floor
                && own_floor.is_some();
            if is_up && !path.is_test {
                violations.insert(format!(
                    "{}: `{words}` runs up to {}",
                    name(tree, from.0),
                    name(tree, to.0)
                ));
            }
            imports.entry(from).or_default().entry(to).or_insert(words);
        }
    }
    violations.extend(circles(tree, imports));
    violations
}

/// Returns the number of a module's floor: the root's is the highest.
fn floor(floors: &Floors, module: &Module) -> Option<usize> {
    if module.names.is_empty() {
        return Some(floors.floors.len());
    }
    // The longest prefix of its path that has a line.
    (1..=module.names.len()).rev().find_map(|length| {
        let prefix = module.names[..length].join("::");
        floors.floors.iter().position(|line| line.split(' ').any(|known| known == prefix))
    })
}

fn name(tree: &Tree, file: usize) -> String {
    tree.files[file].path.display().to_string()
}

/// Returns every pair of files that import each other, and of the longer circles a shortest one for each file.
fn circles(tree: &Tree, mut imports: Imports) -> BTreeSet<String> {
    let mut circles = BTreeSet::new();
    let mut pairs = Vec::new();
    for (&from, others) in &imports {
        for (&to, there) in others.range(from..) {
            if let Some(back) = imports.get(&to).and_then(|others| others.get(&from)) {
                let (from_name, to_name) = (name(tree, from.0), name(tree, to.0));
                circles.insert(format!(
                    "{from_name}: it imports `{there}` from {to_name}, which imports `{back}` from it"
                ));
                pairs.push((from, to));
            }
        }
    }
    for (one, other) in pairs {
        for (from, to) in [(one, other), (other, one)] {
            imports.entry(from).or_default().remove(&to);
        }
    }
    for &start in imports.keys() {
        let Some(circle) = shortest_circle(&imports, start) else { continue };
        // Each circle is told once, from its first file.
        if circle.iter().min() == Some(&start) {
            let names: Vec<String> = circle.iter().map(|node| name(tree, node.0)).collect();
            circles.insert(format!("{}: a circle of imports: {}", names[0], names.join(", ")));
        }
    }
    circles
}

/// Returns the files of a shortest circle of imports from a file back to it.
fn shortest_circle(imports: &Imports, start: Node) -> Option<Vec<Node>> {
    let mut before: BTreeMap<Node, Node> = BTreeMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front() {
        for &next in imports.get(&node).into_iter().flat_map(BTreeMap::keys) {
            if next == start {
                let back = std::iter::successors(Some(node), |node| before.get(node).copied());
                let mut circle: Vec<Node> = back.collect();
                circle.reverse();
                return Some(circle);
            }
            if let std::collections::btree_map::Entry::Vacant(entry) = before.entry(next) {
                entry.insert(node);
                queue.push_back(next);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
