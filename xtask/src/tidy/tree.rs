//! The workspace's modules: their files, the names that they define and bind, and the paths that they use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, Item, ItemMod, ItemUse, Macro, UseTree, Visibility};

/// A path of names, such as `crate::flow::FlowKey`.
pub(super) type Names = Vec<String>;

/// A crate of the workspace: a library, a program, a test, a bench or an example.
#[derive(Clone, Debug)]
pub(super) struct Root {
    /// Its name in paths, if it is a library.
    pub(super) library: Option<String>,
    pub(super) path: PathBuf,
    /// Whether all of it is test code.
    pub(super) is_test: bool,
}

/// A source file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// Lines without those of test modules.
    pub(super) lines: usize,
    pub(super) is_test: bool,
    /// Whether it declares modules of other files, and where else than in `x/mod.rs`.
    pub(super) misplaced: bool,
}

/// A module, in a file of its own or inside of another.
#[derive(Debug)]
pub(super) struct Module {
    /// Index of its crate among the roots.
    pub(super) root: usize,
    /// Names from the crate's root.
    pub(super) names: Names,
    pub(super) parent: Option<usize>,
    pub(super) file: usize,
    pub(super) is_test: bool,
    pub(super) children: BTreeMap<String, usize>,
    /// Names of items that it defines.
    pub(super) items: Vec<String>,
    /// Names that `use` binds, with their paths.
    pub(super) bindings: Vec<(String, Names)>,
    /// Modules whose names `use` binds by a glob.
    pub(super) globs: Vec<Names>,
    pub(super) paths: Vec<UsedPath>,
}

/// A path in a module's code, or in a `use` that is no re-export.
#[derive(Debug)]
pub(super) struct UsedPath {
    pub(super) names: Names,
    pub(super) is_test: bool,
}

/// All modules of the workspace.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) roots: Vec<Root>,
    pub(super) files: Vec<File>,
    pub(super) modules: Vec<Module>,
}

impl Tree {
    /// Reads the modules of all crates.
    pub(super) fn load(roots: Vec<Root>, read: &dyn Fn(&Path) -> Option<String>) -> Result<Self> {
        let mut tree = Self::default();
        for (index, root) in roots.iter().enumerate() {
            let place = Place { root: index, names: Vec::new(), parent: None, is_test: root.is_test };
            let folder = root.path.with_file_name("");
            tree.file(&root.path, &folder, place, read)?;
        }
        tree.roots = roots;
        Ok(tree)
    }

    /// Reads a file as a module whose own modules are in `folder`.
    fn file(
        &mut self,
        path: &Path,
        folder: &Path,
        place: Place,
        read: &dyn Fn(&Path) -> Option<String>,
    ) -> Result<usize> {
        let text = read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("{} is no Rust", path.display()))?;
        let file = self.files.len();
        let tests: usize = parsed.items.iter().map(test_lines).sum();
        let lines = text.lines().count() - tests;
        self.files.push(File { path: path.to_owned(), lines, is_test: place.is_test, misplaced: false });
        self.module(&parsed.items, file, folder, place, read)
    }

    fn module(
        &mut self,
        items: &[Item],
        file: usize,
        folder: &Path,
        place: Place,
        read: &dyn Fn(&Path) -> Option<String>,
    ) -> Result<usize> {
        let index = self.modules.len();
        let mut collector = Collector { in_test: place.is_test, ..Collector::default() };
        items.iter().for_each(|item| collector.top(item));
        let Place { root, names, parent, is_test } = place;
        let Collector { items, bindings, globs, paths, modules, .. } = collector;
        let children = BTreeMap::new();
        let module = Module { root, names, parent, file, is_test, children, items, bindings, globs, paths };
        self.modules.push(module);
        for item in modules {
            let name = item.ident.to_string();
            let own = folder.join(&name);
            let names = [&self.modules[index].names[..], std::slice::from_ref(&name)].concat();
            let is_test = is_test || is_cfg_test(&item.attrs);
            let place = Place { root, names, parent: Some(index), is_test };
            let child = if let Some((_, items)) = &item.content {
                self.module(items, file, &own, place, read)?
            } else {
                let path = &self.files[file].path;
                let is_root = path.parent() == Some(folder) && self.modules[index].parent.is_none();
                self.files[file].misplaced |= !is_root && !path.ends_with("mod.rs");
                let path = [own.with_extension("rs"), own.join("mod.rs")];
                let path = path.into_iter().find(|path| read(path).is_some());
                let path = path.with_context(|| {
                    format!("{} declares `mod {name};` without its file", self.files[file].path.display())
                })?;
                self.file(&path, &own, place, read)?
            };
            self.modules[index].children.insert(name, child);
        }
        Ok(index)
    }
}

/// A new module's place in the tree.
struct Place {
    root: usize,
    names: Names,
    parent: Option<usize>,
    is_test: bool,
}

/// Whether attributes contain `#[cfg(test)]` or another condition that holds in tests only.
fn is_cfg_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let names = attribute.meta.require_list().map(|list| names_of(&list.tokens)).unwrap_or_default();
        attribute.path().is_ident("cfg")
            && names.iter().any(|name| name == &["test"])
            && !names.iter().any(|name| name == &["not"])
    })
}

/// Returns the lines of an item that is a test module.
fn test_lines(item: &Item) -> usize {
    match item {
        Item::Mod(ItemMod { attrs, content: Some((brace, _)), .. }) if is_cfg_test(attrs) => {
            brace.span.close().end().line - attrs[0].pound_token.span.start().line + 1
        }
        _ => 0,
    }
}

/// Returns the paths among tokens, except for the names of fields and methods.
fn names_of(tokens: &TokenStream) -> Vec<Names> {
    let mut paths: Vec<Names> = Vec::new();
    // Punctuation since the last identifier.
    let mut between = String::new();
    for token in tokens.clone() {
        match token {
            TokenTree::Ident(ident) => {
                let name = ident.to_string();
                match paths.last_mut() {
                    Some(path) if between == "::" => path.push(name),
                    _ if between.ends_with('.') && !between.ends_with("..") => {}
                    _ => paths.push(vec![name]),
                }
                between.clear();
            }
            TokenTree::Punct(punct) => between.push(punct.as_char()),
            TokenTree::Group(group) => {
                paths.extend(names_of(&group.stream()));
                between = ",".to_owned();
            }
            TokenTree::Literal(_) => between = ",".to_owned(),
        }
    }
    paths
}

/// The names and paths of a module.
#[derive(Default)]
struct Collector<'a> {
    in_test: bool,
    items: Vec<String>,
    bindings: Vec<(String, Names)>,
    globs: Vec<Names>,
    paths: Vec<UsedPath>,
    modules: Vec<&'a ItemMod>,
}

impl<'a> Collector<'a> {
    /// Visits an item of the module itself.
    fn top(&mut self, item: &'a Item) {
        let (ident, attributes): (Option<&Ident>, &[Attribute]) = match item {
            Item::Mod(module) => return self.modules.push(module),
            Item::Const(item) => (Some(&item.ident), &item.attrs),
            Item::Enum(item) => (Some(&item.ident), &item.attrs),
            Item::Fn(item) => (Some(&item.sig.ident), &item.attrs),
            Item::Impl(item) => (None, &item.attrs),
            Item::Macro(item) => (item.ident.as_ref(), &item.attrs),
            Item::Static(item) => (Some(&item.ident), &item.attrs),
            Item::Struct(item) => (Some(&item.ident), &item.attrs),
            Item::Trait(item) => (Some(&item.ident), &item.attrs),
            Item::Type(item) => (Some(&item.ident), &item.attrs),
            Item::Union(item) => (Some(&item.ident), &item.attrs),
            Item::Use(item) => (None, &item.attrs),
            _ => (None, &[]),
        };
        self.items.extend(ident.map(Ident::to_string));
        let before = self.in_test;
        self.in_test |= is_cfg_test(attributes);
        self.visit_item(item);
        self.in_test = before;
    }

    fn uses(&mut self, names: Names) {
        self.paths.push(UsedPath { names, is_test: self.in_test });
    }

    fn use_tree(&mut self, mut before: Names, tree: &UseTree, is_export: bool) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.use_tree(before, &path.tree, is_export);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.use_tree(before.clone(), tree, is_export);
                }
            }
            UseTree::Glob(_) => self.globs.push(before),
            UseTree::Name(name) => self.bind(before, &name.ident, &name.ident, is_export),
            UseTree::Rename(rename) => self.bind(before, &rename.ident, &rename.rename, is_export),
        }
    }

    fn bind(&mut self, mut path: Names, ident: &Ident, bound: &Ident, is_export: bool) {
        let mut bound = bound.to_string();
        if ident == "self" {
            if bound == "self" {
                bound = path.last().cloned().unwrap_or_default();
            }
        } else {
            path.push(ident.to_string());
        }
        if !is_export {
            self.uses(path.clone());
        }
        self.bindings.push((bound, path));
    }
}

impl<'ast> Visit<'ast> for Collector<'_> {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_export = !matches!(item.vis, Visibility::Inherited);
        self.use_tree(Vec::new(), &item.tree, is_export);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.uses(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.visit_path(&item.path);
        for names in names_of(&item.tokens) {
            self.uses(names);
        }
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}
