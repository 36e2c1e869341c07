//! The graph of which source file of a crate uses which. `layers.rs` searches it for circles.
//!
//! There is an edge from file A to file B if A names an item that B *defines*. A path through re-exports (`pub use
//! child::Item` in `mod.rs`) counts as a path to the file of the definition. So a declaration of a child (`mod child;`)
//! or a re-export of its items is no edge. A child that imports a sibling through `super::Item` has an edge to the
//! sibling and not to `mod.rs`.
//!
//! There is no edge from a file to the `mod.rs` of a folder that contains it. If `mod.rs` has a type whose methods are
//! in several files of the folder, then these files are parts of one unit, and only `mod.rs` knows all of them. This
//! exception does not apply to siblings.
//!
//! The graph ignores method calls, because a method has no path. It also ignores test modules.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// A module's path from the root of the crate, or a path in the source.
type Names = Vec<String>;

/// Maps each file to the files that it uses, with the names that it uses there.
pub type Graph = BTreeMap<PathBuf, BTreeMap<PathBuf, BTreeSet<String>>>;

#[derive(Default)]
struct Module {
    file: PathBuf,
    defined: BTreeSet<String>,
    /// Names that `use` imports, also inside functions of the module.
    imported: BTreeMap<String, Names>,
    globs: Vec<Names>,
    /// Paths that the code names, with imports and without re-exports.
    named: BTreeSet<Names>,
}

enum Target {
    Module,
    Item(PathBuf),
}

#[derive(Default)]
struct Crate {
    modules: BTreeMap<Names, Module>,
}

/// Reads the crate from its `lib.rs` and `main.rs`.
pub fn read(source: &Path, name: &str) -> Graph {
    let mut all = Crate::default();
    all.read_file(&source.join("lib.rs"), Names::new());
    let main = "bin main".to_owned();
    all.read_file(&source.join("main.rs"), vec![main.clone()]);
    let mut graph = Graph::new();
    for (module, content) in &all.modules {
        for path in &content.named {
            // `main.rs` sees the library as another crate.
            let (from, path) = match path.split_first() {
                Some((first, rest)) if first == name && module[..] == [main.clone()] => (&Names::new(), rest),
                _ => (module, &path[..]),
            };
            if let Some(Target::Item(file)) = all.resolve(from, path, 0)
                && file != content.file
                && !(file.ends_with("mod.rs") && content.file.starts_with(file.parent().unwrap()))
            {
                let uses = graph.entry(content.file.clone()).or_default().entry(file).or_default();
                uses.insert(path.join("::"));
            }
        }
    }
    graph
}

impl Crate {
    fn read_file(&mut self, file: &Path, module: Names) {
        let text = fs::read_to_string(file).unwrap();
        let parsed = syn::parse_file(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let is_root = module.is_empty() || file.ends_with("main.rs") || file.ends_with("mod.rs");
        let folder = if is_root { file.parent().unwrap().to_owned() } else { file.with_extension("") };
        let content = Module { file: file.to_owned(), ..Module::default() };
        self.modules.insert(module.clone(), content);
        Reader { all: self, module, folder }.visit_file(&parsed);
    }

    /// Finds the target of a path in `module`. `None` if it is not in this crate.
    fn resolve(&self, module: &[String], path: &[String], depth: u32) -> Option<Target> {
        // The limit ends a recursion, because globs may import each other.
        if depth > 20 {
            return None;
        }
        let content = self.modules.get(module)?;
        let Some((first, rest)) = path.split_first() else { return Some(Target::Module) };
        match first.as_str() {
            "crate" => return self.resolve(&[], rest, depth + 1),
            "self" => return self.resolve(module, rest, depth + 1),
            "super" => return self.resolve(&module[..module.len().checked_sub(1)?], rest, depth + 1),
            _ => {}
        }
        let child: Names = module.iter().chain([first]).cloned().collect();
        if self.modules.contains_key(&child) {
            return self.resolve(&child, rest, depth + 1);
        }
        if content.defined.contains(first) {
            return Some(Target::Item(content.file.clone()));
        }
        if let Some(imported) = content.imported.get(first) {
            // `use name;` of an external crate would refer to itself.
            if imported.first() == Some(first) {
                return None;
            }
            let path: Names = imported.iter().chain(rest).cloned().collect();
            return self.resolve(module, &path, depth + 1);
        }
        content.globs.iter().find_map(|glob| {
            let path: Names = glob.iter().chain(path).cloned().collect();
            self.resolve(module, &path, depth + 1)
        })
    }
}

struct Reader<'a> {
    all: &'a mut Crate,
    module: Names,
    /// The folder with the files of child modules.
    folder: PathBuf,
}

impl Reader<'_> {
    fn content(&mut self) -> &mut Module {
        self.all.modules.get_mut(&self.module).unwrap()
    }

    fn import(&mut self, tree: &syn::UseTree, mut path: Names, reexport: bool) {
        match tree {
            syn::UseTree::Path(more) => {
                path.push(more.ident.to_string());
                self.import(&more.tree, path, reexport);
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|tree| self.import(tree, path.clone(), reexport));
            }
            syn::UseTree::Glob(_) => self.content().globs.push(path),
            syn::UseTree::Name(name) => {
                let as_name = match name.ident == "self" {
                    true => path.last().unwrap().clone(),
                    false => name.ident.to_string(),
                };
                path.extend((name.ident != "self").then(|| name.ident.to_string()));
                self.import_as(as_name, path, reexport);
            }
            syn::UseTree::Rename(name) => {
                path.push(name.ident.to_string());
                self.import_as(name.rename.to_string(), path, reexport);
            }
        }
    }

    fn import_as(&mut self, name: String, path: Names, reexport: bool) {
        let content = self.content();
        if !reexport {
            content.named.insert(path.clone());
        }
        content.imported.insert(name, path);
    }
}

fn only_for_tests(attributes: &[syn::Attribute]) -> bool {
    let condition = |a: &syn::Attribute| match &a.meta {
        syn::Meta::List(list) if list.path.is_ident("cfg") => list.tokens.to_string(),
        _ => String::new(),
    };
    attributes.iter().any(|a| condition(a).split(|c: char| !c.is_alphanumeric()).any(|word| word == "test"))
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Mod(i) => &i.attrs,
        syn::Item::Fn(i) => &i.attrs,
        syn::Item::Use(i) => &i.attrs,
        syn::Item::Impl(i) => &i.attrs,
        _ => &[],
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if only_for_tests(attributes(item)) {
            return;
        }
        let defined = match item {
            syn::Item::Const(i) => Some(&i.ident),
            syn::Item::Enum(i) => Some(&i.ident),
            syn::Item::Fn(i) => Some(&i.sig.ident),
            syn::Item::Static(i) => Some(&i.ident),
            syn::Item::Struct(i) => Some(&i.ident),
            syn::Item::Trait(i) => Some(&i.ident),
            syn::Item::Type(i) => Some(&i.ident),
            _ => None,
        };
        if let Some(name) = defined {
            self.content().defined.insert(name.to_string());
        }
        visit::visit_item(self, item);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let name = item.ident.to_string();
        let module: Names = self.module.iter().chain([&name]).cloned().collect();
        if item.content.is_some() {
            let content = Module { file: self.content().file.clone(), ..Module::default() };
            self.all.modules.insert(module.clone(), content);
            let folder = self.folder.join(&name);
            visit::visit_item_mod(&mut Reader { all: self.all, module, folder }, item);
        } else {
            let [file, in_folder] =
                [self.folder.join(format!("{name}.rs")), self.folder.join(&name).join("mod.rs")];
            self.all.read_file(if file.exists() { &file } else { &in_folder }, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let reexport = !matches!(item.vis, syn::Visibility::Inherited);
        self.import(&item.tree, Names::new(), reexport);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|s| s.ident.to_string()).collect();
        self.content().named.insert(names);
        visit::visit_path(self, path);
    }

    /// A macro's arguments are not parsed, so every path among their tokens counts.
    fn visit_macro(&mut self, item: &'ast syn::Macro) {
        let tokens = item.tokens.to_string();
        let paths = regex::Regex::new(r"\b[A-Za-z_]\w*(?:\s*::\s*[A-Za-z_]\w*)+").unwrap();
        for path in paths.find_iter(&tokens) {
            let names = path.as_str().split("::").map(|name| name.trim().to_owned()).collect();
            self.content().named.insert(names);
        }
        visit::visit_macro(self, item);
    }
}

/// Returns the files that `from` reaches over one or more edges.
fn reached<'a>(graph: &'a Graph, from: &'a PathBuf) -> BTreeSet<&'a PathBuf> {
    let (mut seen, mut left) = (BTreeSet::new(), vec![from]);
    while let Some(file) = left.pop() {
        left.extend(graph.get(file).into_iter().flat_map(|uses| uses.keys()).filter(|f| seen.insert(*f)));
    }
    seen
}

/// Returns the files of each circle, which are the files that reach each other.
pub fn circles(graph: &Graph) -> Vec<BTreeSet<PathBuf>> {
    let reaches: BTreeMap<_, _> = graph.keys().map(|file| (file, reached(graph, file))).collect();
    let circle = |from: &PathBuf| -> BTreeSet<PathBuf> {
        let back = |to: &&&PathBuf| reaches.get(**to).is_some_and(|there| there.contains(from));
        reaches[from].iter().filter(back).map(|file| (*file).clone()).collect()
    };
    let mut found: Vec<_> = graph.keys().map(circle).filter(|circle| !circle.is_empty()).collect();
    found.sort();
    found.dedup();
    found
}
