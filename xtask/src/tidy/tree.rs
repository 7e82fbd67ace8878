//! The workspace's modules: their files, the names that they define and bind, and the paths that they use.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Ident, Item, ItemMod, ItemUse, Macro, UseTree, Visibility};

/// A path of names, such as `crate::flow::FlowKey`.
pub(super) type Names = Vec<String>;

/// A reader of source files; it returns nothing for a missing file.
type Read<'a> = &'a dyn Fn(&Path) -> Option<String>;

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
    /// Whether it declares modules of other files and is neither a `mod.rs` nor a crate's root.
    pub(super) misplaced: bool,
}

/// A module, in a file of its own or inside of another.
#[derive(Debug, Default)]
pub(super) struct Module {
    /// Index of its crate among the roots.
    pub(super) root: usize,
    /// Names from the crate's root.
    pub(super) names: Names,
    pub(super) parent: Option<usize>,
    pub(super) file: usize,
    /// Whether it is under `#[cfg(test)]` or in a test's crate.
    pub(super) is_test: bool,
    pub(super) children: BTreeMap<String, usize>,
    /// Names of items that it defines.
    pub(super) items: Vec<String>,
    /// Names that `use` binds, with their paths.
    pub(super) bindings: Vec<(String, Names)>,
    /// Modules whose names `use` binds by a glob.
    pub(super) globs: Vec<Names>,
    /// Paths in its code, and in each `use` that is no re-export.
    pub(super) paths: Vec<Names>,
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
    pub(super) fn load(roots: Vec<Root>, read: Read<'_>) -> Result<Self> {
        let mut tree = Self::default();
        for (index, Root { path, is_test, .. }) in roots.iter().enumerate() {
            let module = Module { root: index, is_test: *is_test, ..Module::default() };
            tree.file(module, path, &path.with_file_name(""), read)?;
        }
        tree.roots = roots;
        Ok(tree)
    }

    /// Reads a module from its file; the files of its own modules are in `folder`.
    fn file(&mut self, mut module: Module, path: &Path, folder: &Path, read: Read<'_>) -> Result<usize> {
        let text = read(path).with_context(|| format!("cannot read {}", path.display()))?;
        let parsed = syn::parse_file(&text).with_context(|| format!("{} is no Rust", path.display()))?;
        let lines = text.lines().count() - parsed.items.iter().map(test_lines).sum::<usize>();
        module.file = self.files.len();
        self.files.push(File { path: path.to_owned(), lines, is_test: module.is_test, misplaced: false });
        self.module(module, &parsed.items, folder, read)
    }

    fn module(&mut self, mut module: Module, items: &[Item], folder: &Path, read: Read<'_>) -> Result<usize> {
        let mut modules = Vec::new();
        for item in items {
            if let Item::Mod(item) = item {
                modules.push(item);
            } else {
                module.items.extend(name_of(item));
                module.visit_item(item);
            }
        }
        let (index, file, is_root) = (self.modules.len(), module.file, module.parent.is_none());
        self.modules.push(module);
        for item in modules {
            let name = item.ident.to_string();
            let own = folder.join(&name);
            let Module { root, names, is_test, .. } = &self.modules[index];
            let module = Module {
                root: *root,
                names: [&names[..], std::slice::from_ref(&name)].concat(),
                parent: Some(index),
                file,
                is_test: *is_test || is_cfg_test(&item.attrs),
                ..Module::default()
            };
            let child = if let Some((_, items)) = &item.content {
                self.module(module, items, &own, read)?
            } else {
                let File { path, misplaced, .. } = &mut self.files[file];
                *misplaced |= !is_root && !path.ends_with("mod.rs");
                let files = [own.with_extension("rs"), own.join("mod.rs")];
                let child = files.into_iter().find(|file| read(file).is_some());
                let child = child.with_context(|| format!("{}: `{name}` has no file", path.display()))?;
                self.file(module, &child, &own, read)?
            };
            self.modules[index].children.insert(name, child);
        }
        Ok(index)
    }
}

/// Returns the name that an item defines.
fn name_of(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Returns whether attributes contain `#[cfg(test)]`, or another condition that holds in tests only.
fn is_cfg_test(attributes: &[Attribute]) -> bool {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).any(|attribute| {
        let names = attribute.meta.require_list().map(|list| names_of(&list.tokens)).unwrap_or_default();
        names.contains(&vec!["test".to_owned()]) && !names.contains(&vec!["not".to_owned()])
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

impl Module {
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
        if ident != "self" {
            path.push(ident.to_string());
        }
        let bound = if bound == "self" { path.last().cloned() } else { Some(bound.to_string()) };
        if !is_export {
            self.paths.push(path.clone());
        }
        self.bindings.extend(bound.map(|bound| (bound, path)));
    }
}

impl<'ast> Visit<'ast> for Module {
    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_export = !matches!(item.vis, Visibility::Inherited);
        self.use_tree(Vec::new(), &item.tree, is_export);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.paths.push(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.visit_path(&item.path);
        self.paths.extend(names_of(&item.tokens));
    }

    fn visit_attribute(&mut self, _: &'ast Attribute) {}

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}
