//! Which items are public, under which names, and what is implemented for them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use syn::{Attribute, Ident, Item, Meta, Type, UseTree, Visibility};

use crate::print::{shown, shown_impl, tidy};

pub(crate) fn list(root: &Path) -> String {
    let mut tree = Tree::default();
    tree.read(&root.join("src"), &root.join("src/lib.rs"), &[], &[]);
    tree.publish(&[], "");
    tree.collect_impls();
    let mut text = String::new();
    for (name, Listed { lines, impls, .. }) in &tree.listed {
        text.push_str(&format!("{name}\n"));
        lines
            .iter()
            .for_each(|line| text.push_str(&format!("    {line}\n")));
        for (header, members) in impls {
            text.push_str(&format!("    {header}\n"));
            members
                .iter()
                .for_each(|line| text.push_str(&format!("        {line}\n")));
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

/// The path of a module or of an item in it, without the crate's name.
type Place = Vec<String>;

struct Module {
    items: Vec<Item>,
    /// What it depends on, its parents' conditions included.
    conditions: Vec<String>,
}

struct Listed {
    place: Place,
    lines: Vec<String>,
    /// By header, so that several blocks with one header are one.
    impls: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Default)]
struct Tree {
    modules: BTreeMap<Place, Module>,
    listed: BTreeMap<String, Listed>,
}

impl Tree {
    /// Reads a file, and the modules in it: those in blocks, and those in files under `folder`.
    fn read(&mut self, folder: &Path, file: &Path, place: &[String], conditions: &[String]) {
        let text = fs::read_to_string(file).unwrap();
        let items = syn::parse_file(&text).unwrap().items;
        self.add(folder, items, place, conditions);
    }

    fn add(&mut self, folder: &Path, items: Vec<Item>, place: &[String], conditions: &[String]) {
        let items: Vec<Item> = items
            .into_iter()
            .flat_map(expanded)
            .filter(|item| is_there(attributes(item)))
            .collect();
        for item in &items {
            let Item::Mod(module) = item else { continue };
            let name = module.ident.to_string();
            let place = join(place, &name);
            let conditions = with_conditions(conditions, &module.attrs);
            match &module.content {
                Some((_, items)) => {
                    self.add(&folder.join(&name), items.clone(), &place, &conditions);
                }
                None => {
                    let own = folder.join(&name);
                    let files = [own.with_extension("rs"), own.join("mod.rs")];
                    let file = files.iter().find(|file| file.exists()).unwrap();
                    self.read(&own, file, &place, &conditions);
                }
            }
        }
        self.modules.insert(
            place.to_vec(),
            Module {
                items,
                conditions: conditions.to_vec(),
            },
        );
    }

    /// Lists what a public module holds, under the name by which users know it.
    fn publish(&mut self, place: &[String], public: &str) {
        let module = &self.modules[place];
        let mut found: Vec<(String, Place, Vec<String>)> = Vec::new();
        for item in &module.items {
            let conditions = with_conditions(&module.conditions, attributes(item));
            match item {
                Item::Use(import) if is_public(&import.vis) => {
                    for (name, path) in imports(&import.tree) {
                        found.push((
                            name,
                            self.resolve(place, &path).unwrap(),
                            conditions.clone(),
                        ));
                    }
                }
                // A macro is exported from the root, wherever it stands.
                Item::Macro(_) => {}
                item if parts(item).is_some_and(|(_, visibility, _)| is_public(visibility)) => {
                    let name = name(item).unwrap();
                    found.push((name.clone(), join(place, &name), conditions));
                }
                _ => {}
            }
        }
        for (name, place, conditions) in found {
            let public = format!("{public}{name}");
            if self.modules.contains_key(&place) {
                self.list(
                    &public,
                    place.clone(),
                    vec![with(&conditions, format!("pub mod {name}"))],
                );
                self.publish(&place, &format!("{public}::"));
                continue;
            }
            let item = self.item(&place).unwrap_or_else(|| panic!("{place:?}"));
            let line = with(&conditions, tidy(&shown(item)));
            self.list(&public, place, vec![line]);
        }
        if place.is_empty() {
            self.publish_macros();
        }
    }

    fn publish_macros(&mut self) {
        let items = self
            .modules
            .iter()
            .flat_map(|(place, module)| module.items.iter().map(move |item| (place, item)));
        let macros: Vec<(Place, String, String)> = items
            .filter_map(|(place, item)| match item {
                Item::Macro(item)
                    if item
                        .attrs
                        .iter()
                        .any(|attr| attr.path().is_ident("macro_export")) =>
                {
                    let name = item.ident.as_ref()?.to_string();
                    // What it takes is told by the part in front of each arrow.
                    let body = item.mac.tokens.to_string();
                    let takes: Vec<_> = body.split(" => ").step_by(2).collect();
                    let line = format!("macro_rules! {name} {}", takes.join("; "));
                    Some((join(place, &name), name, line))
                }
                _ => None,
            })
            .collect();
        for (place, name, line) in macros {
            self.list(&format!("{name}!"), place, vec![line]);
        }
    }

    fn list(&mut self, public: &str, place: Place, lines: Vec<String>) {
        let twice = self.listed.insert(
            public.to_owned(),
            Listed {
                place,
                lines,
                impls: BTreeMap::new(),
            },
        );
        assert!(twice.is_none(), "{public} is there twice");
    }

    fn item(&self, place: &[String]) -> Option<&Item> {
        let (own, module) = place.split_last()?;
        let items = &self.modules.get(module)?.items;
        items.iter().find(|item| name(item).as_ref() == Some(own))
    }

    /// Where that which `path` means within `module` is defined, if that is in this crate.
    fn resolve(&self, module: &[String], path: &[String]) -> Option<Place> {
        let (first, rest) = path.split_first()?;
        let mut place = match first.as_str() {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module.split_last()?.1.to_vec(),
            name => {
                let own = join(module, name);
                if self.modules.contains_key(&own) || self.item(&own).is_some() {
                    own
                } else {
                    let items = self.modules.get(module)?.items.iter();
                    let imported = items
                        .filter_map(|item| match item {
                            Item::Use(import) => Some(imports(&import.tree)),
                            _ => None,
                        })
                        .flatten()
                        .find(|(own, path)| own == name && path[0] != *name)?;
                    self.resolve(module, &imported.1)?
                }
            }
        };
        for name in rest {
            place = match name.as_str() {
                "super" => place.split_last()?.1.to_vec(),
                name => self.resolve(&place, &[name.to_owned()])?,
            };
        }
        Some(place)
    }

    /// Puts every `impl` under its type, or under its trait if it is for any type.
    fn collect_impls(&mut self) {
        let mut found = Vec::new();
        for (place, module) in &self.modules {
            for item in &module.items {
                let Item::Impl(block) = item else { continue };
                let own_trait = block
                    .trait_
                    .as_ref()
                    .map(|(path, _)| self.resolve(place, &segments(path)));
                let public_trait = own_trait
                    .clone()
                    .flatten()
                    .map(|own| self.names_of(&own).next().is_some());
                if public_trait == Some(false) {
                    continue;
                }
                let of = match &*block.self_ty {
                    Type::Path(path) => self.resolve(place, &segments(&path.path)),
                    _ => None,
                };
                let Some(of) = of.or(own_trait.flatten()) else {
                    continue;
                };
                let conditions = with_conditions(&module.conditions, &block.attrs);
                for name in self.names_of(&of) {
                    let (header, members) = shown_impl(block);
                    found.push((
                        name.clone(),
                        with(&conditions, header),
                        members,
                        block.trait_.is_none(),
                    ));
                }
            }
        }
        for (name, header, members, inherent) in found {
            // A block of private functions is nobody's business.
            if !inherent || !members.is_empty() {
                self.listed
                    .get_mut(&name)
                    .unwrap()
                    .impls
                    .entry(header)
                    .or_default()
                    .extend(members);
            }
        }
    }

    fn names_of<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = &'a String> {
        self.listed
            .iter()
            .filter(move |(_, listed)| listed.place == *place)
            .map(|(name, _)| name)
    }
}

fn join(place: &[String], name: &str) -> Place {
    place.iter().cloned().chain([name.to_owned()]).collect()
}

fn segments(path: &syn::Path) -> Vec<String> {
    path.segments
        .iter()
        .map(|segment| segment.ident.to_string())
        .collect()
}

/// Each name that a `use` brings in, and the path it stands for.
fn imports(tree: &UseTree) -> Vec<(String, Vec<String>)> {
    let below = |ident: String, tree| {
        let add =
            |(name, path): (String, Vec<String>)| (name, [vec![ident.clone()], path].concat());
        imports(tree).into_iter().map(add).collect()
    };
    match tree {
        UseTree::Path(path) => below(path.ident.to_string(), &path.tree),
        UseTree::Name(name) => vec![(name.ident.to_string(), vec![name.ident.to_string()])],
        UseTree::Rename(rename) => {
            vec![(rename.rename.to_string(), vec![rename.ident.to_string()])]
        }
        UseTree::Group(group) => group.items.iter().flat_map(imports).collect(),
        UseTree::Glob(_) => Vec::new(),
    }
}

/// `pin_project!` stands around an ordinary item.
fn expanded(item: Item) -> Vec<Item> {
    match item {
        Item::Macro(item) if item.mac.path.is_ident("pin_project") => {
            let items: syn::File = syn::parse2(item.mac.tokens).unwrap();
            items.items
        }
        item => vec![item],
    }
}

macro_rules! parts {
    ($item:expr, $($kind:ident)*) => {
        match $item {
            $(Item::$kind(item) => Some((&item.attrs[..], &item.vis, &item.ident)),)*
            Item::Fn(item) => Some((&item.attrs[..], &item.vis, &item.sig.ident)),
            _ => None,
        }
    };
}

/// What every item has that can be public by itself.
fn parts(item: &Item) -> Option<(&[Attribute], &Visibility, &Ident)> {
    parts!(item, Const Enum Mod Static Struct Trait Type)
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        item => parts(item).map_or(&[], |(attributes, ..)| attributes),
    }
}

fn name(item: &Item) -> Option<String> {
    parts(item).map(|(_, _, ident)| ident.to_string())
}

pub(crate) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn condition(attribute: &Attribute) -> Option<String> {
    let Meta::List(list) = &attribute.meta else {
        return None;
    };
    list.path.is_ident("cfg").then(|| list.tokens.to_string())
}

/// Whether users ever see it.
pub(crate) fn is_there(attributes: &[Attribute]) -> bool {
    let hidden = |attribute: &Attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("doc") && list.tokens.to_string() == "hidden",
        _ => false,
    };
    let absent = |condition: String| {
        let words: Vec<_> = condition
            .split(|char: char| char != '_' && !char.is_alphanumeric())
            .collect();
        !words.contains(&"not")
            && ["test", "doc", "doctest", "axum_sse_loom"]
                .iter()
                .any(|word| words.contains(word))
    };
    !attributes.iter().any(hidden) && !attributes.iter().filter_map(condition).any(absent)
}

pub(crate) fn with_conditions(before: &[String], attributes: &[Attribute]) -> Vec<String> {
    let mut conditions = before.to_vec();
    for condition in attributes.iter().filter_map(condition) {
        if !conditions.contains(&condition) {
            conditions.push(condition);
        }
    }
    conditions
}

pub(crate) fn with(conditions: &[String], text: String) -> String {
    conditions.iter().rev().fold(text, |text, condition| {
        format!("#[cfg({condition})] {text}")
    })
}
