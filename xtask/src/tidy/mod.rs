//! `cargo xtask tidy`: the order of the source tree.
//!
//! It reads every module of the workspace, and fails on each of these:
//! - Two files import each other, or files do so in a longer circle. File A imports file B if A's code names an item that
//!   B defines, through any `use` and re-export, or if A has a `use` of it. A `mod` or a `pub use` alone is no import, and neither is
//!   the call of a method.
//! - An import runs up: it leads from a module to one on a higher floor of [`floors::ALL`]. Tests may import from all floors.
//! - A file other than `mod.rs` or a crate's root declares modules of other files.
//! - A file has more than [`MOST_LINES`] lines, without those of its tests.
//!
//! Test code (modules under `#[cfg(test)]`, and `tests/`) counts as a file of its own, so a test may import the code that it tests.

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
    for floors in floors::ALL {
        let is_known = tree.roots.iter().any(|root| root.path == Path::new(floors.root));
        ensure!(is_known, "{} has floors, and is no crate's root", floors.root);
    }
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
        let root = &tree.roots[module.root];
        let floors = floors.iter().find(|floors| Path::new(floors.root) == root.path);
        let floor_of = |module| floors.and_then(|floors| floor(floors, module));
        let own_floor = floor_of(module);
        if floors.is_some() && own_floor.is_none() && !module.is_test {
            let names = module.names.join("::");
            violations.insert(format!("{}: `{names}` is on no floor", name(tree, module.file)));
        }
        for path in &module.paths {
            let target = match tree.resolve(index, path) {
                Some(Target::Module(target)) if path.len() > 1 => &tree.modules[target],
                Some(Target::Item(target)) => &tree.modules[target],
                // A single name is a variable, not the module of that name.
                _ => continue,
            };
            let (from, to) = ((module.file, module.is_test), (target.file, target.is_test));
            if from.0 == to.0 {
                continue;
            }
            let words = path.join("::");
            let is_up = own_floor.is_some() && target.root == module.root && floor_of(target) > own_floor;
            if is_up && !module.is_test {
                let (from, to) = (name(tree, from.0), name(tree, to.0));
                violations.insert(format!("{from}: `{words}` runs up to {to}"));
            }
            imports.entry(from).or_default().entry(to).or_insert(words);
        }
    }
    violations.extend(circles(tree, &imports));
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

/// Returns the shortest circle through each import that is part of one: two files that import each other, or a longer circle.
fn circles(tree: &Tree, imports: &Imports) -> BTreeSet<String> {
    let mut circles = BTreeSet::new();
    for (&from, others) in imports {
        for &to in others.keys() {
            let Some(mut circle) = shortest_way(imports, to, from) else { continue };
            // A circle is found from each of its files, and named once.
            let first = circle.iter().enumerate().min_by_key(|(_, node)| **node).map_or(0, |(at, _)| at);
            circle.rotate_left(first);
            let nexts = circle.iter().cycle().skip(1);
            let steps = circle
                .iter()
                .zip(nexts)
                .map(|(from, to)| format!(" imports `{}` from {}", imports[from][to], name(tree, to.0)));
            let steps: Vec<String> = steps.collect();
            circles.insert(format!("{}: it{}", name(tree, circle[0].0), steps.join(", which")));
        }
    }
    circles
}

/// Returns the files of the shortest chain of imports from a file to another.
fn shortest_way(imports: &Imports, from: Node, to: Node) -> Option<Vec<Node>> {
    let mut before = BTreeMap::from([(from, from)]);
    let mut queue = VecDeque::from([from]);
    while let Some(node) = queue.pop_front() {
        if node == to {
            let back = std::iter::successors(Some(to), |node| (*node != from).then(|| before[node]));
            let mut way: Vec<Node> = back.collect();
            way.reverse();
            return Some(way);
        }
        for &next in imports.get(&node).into_iter().flat_map(BTreeMap::keys) {
            before.entry(next).or_insert_with(|| {
                queue.push_back(next);
                node
            });
        }
    }
    None
}

#[cfg(test)]
mod tests;
