//! The file that a path leads to, through modules, `use` and re-exports.

use super::tree::{Module, Names, Tree};

/// Longest chain of re-exports; a longer one is a circle of globs.
const DEPTH: usize = 16;

/// The end of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A module.
    Module(usize),
    /// An item that this module defines.
    Item(usize),
}

impl Tree {
    /// Returns the end of a path in a module's code; nothing if it leads out of the workspace.
    pub(super) fn resolve(&self, from: usize, names: &[String]) -> Option<Target> {
        self.follow(from, names, DEPTH)
    }

    fn follow(&self, from: usize, names: &[String], depth: usize) -> Option<Target> {
        let (first, mut rest) = names.split_first()?;
        let mut target = match first.as_str() {
            "crate" => Target::Module(self.root_of(from)),
            "self" => Target::Module(from),
            "super" => Target::Module(self.modules[from].parent?),
            name => self.lookup(from, name, depth)?,
        };
        while let (Target::Module(module), Some((name, others))) = (target, rest.split_first()) {
            target = match name.as_str() {
                "super" => Target::Module(self.modules[module].parent?),
                // A macro may define the names that a module seems to lack.
                name => self.member(module, name, depth).unwrap_or(Target::Item(module)),
            };
            rest = others;
        }
        Some(target)
    }

    fn root_of(&self, module: usize) -> usize {
        self.modules[module].parent.map_or(module, |parent| self.root_of(parent))
    }

    /// Finds a name in a module's scope: a member of the module, or a library.
    fn lookup(&self, module: usize, name: &str, depth: usize) -> Option<Target> {
        self.member(module, name, depth).or_else(|| {
            let is_library = |module: &Module| {
                module.parent.is_none() && self.roots[module.root].library.as_deref() == Some(name)
            };
            self.modules.iter().position(is_library).map(Target::Module)
        })
    }

    /// Finds a name that a module defines or binds.
    fn member(&self, index: usize, name: &str, depth: usize) -> Option<Target> {
        let depth = depth.checked_sub(1)?;
        let module = &self.modules[index];
        if let Some(child) = module.children.get(name) {
            return Some(Target::Module(*child));
        }
        if module.items.iter().any(|item| item == name) {
            return Some(Target::Item(index));
        }
        // `use synmill_lab;` binds a name to itself.
        let bound = |(binding, path): &&(String, Names)| binding == name && path[..] != [name];
        if let Some((_, path)) = module.bindings.iter().find(bound) {
            return self.follow(index, path, depth);
        }
        module.globs.iter().find_map(|path| match self.follow(index, path, depth)? {
            Target::Module(module) if module != index => self.member(module, name, depth),
            // The variants of an enum.
            _ => None,
        })
    }
}
