//! Every public item of the crate, as `docs/public-api.txt` lists it: who changes the API changes
//! that file on purpose. To write it anew:
//!
//! ```text
//! UPDATE_PUBLIC_API=1 cargo test --all-features --test public_api
//! ```
//!
//! The list is read off the source text, so it does not depend on a compiler's version. It holds
//! what is written there: derives by name, and not what the compiler implements by itself (`Send`).

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::Path,
};

use syn::{
    Attribute, Fields, ImplItem, Item, ItemImpl, Meta, Type, UseTree, Visibility,
    visit_mut::{self, VisitMut},
};

const UPDATE: &str = "UPDATE_PUBLIC_API";

#[test]
fn the_public_api_is_the_listed_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let file = root.join("docs/public-api.txt");
    let actual = list(root);
    if env::var_os(UPDATE).is_some() {
        fs::write(&file, actual).unwrap();
        return;
    }
    let listed = fs::read_to_string(&file).unwrap();
    let (before, after) = (in_context(&listed), in_context(&actual));
    let gone = before.difference(&after).map(|line| format!("- {line}\n"));
    let new = after.difference(&before).map(|line| format!("+ {line}\n"));
    let difference: String = gone.chain(new).collect();
    assert!(
        listed == actual,
        "the public API is not what {} lists:\n\n{difference}\n\
         If that is meant: {UPDATE}=1 cargo test --all-features --test public_api",
        file.display()
    );
}

/// Each line behind those that it is indented under.
fn in_context(list: &str) -> BTreeSet<String> {
    let mut above: Vec<(usize, &str)> = Vec::new();
    let mut lines = BTreeSet::new();
    for line in list.lines().filter(|line| !line.is_empty()) {
        let indent = line.len() - line.trim_start().len();
        above.retain(|(other, _)| *other < indent);
        above.push((indent, line.trim_start()));
        lines.insert(above.iter().map(|(_, line)| *line).collect::<Vec<_>>().join(" | "));
    }
    lines
}

fn list(root: &Path) -> String {
    let mut tree = Tree::default();
    tree.read(&root.join("src"), &root.join("src/lib.rs"), &[], &[]);
    tree.publish(&[], "");
    tree.collect_impls();
    let mut text = String::new();
    for (name, Listed { lines, impls, .. }) in &tree.listed {
        text.push_str(&format!("{name}\n"));
        lines.iter().for_each(|line| text.push_str(&format!("    {line}\n")));
        for (header, members) in impls {
            text.push_str(&format!("    {header}\n"));
            members.iter().for_each(|line| text.push_str(&format!("        {line}\n")));
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
        let items: Vec<Item> = items.into_iter().flat_map(expanded).filter(|item| is_there(attributes(item))).collect();
        for item in &items {
            let Item::Mod(module) = item else { continue };
            let name = module.ident.to_string();
            let place = join(place, &name);
            let conditions = with_conditions(conditions, &module.attrs);
            match &module.content {
                Some((_, items)) => self.add(&folder.join(&name), items.clone(), &place, &conditions),
                None => {
                    let own = folder.join(&name);
                    let files = [own.with_extension("rs"), own.join("mod.rs")];
                    let file = files.iter().find(|file| file.exists()).unwrap();
                    self.read(&own, file, &place, &conditions);
                }
            }
        }
        self.modules.insert(place.to_vec(), Module { items, conditions: conditions.to_vec() });
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
                        found.push((name, self.resolve(place, &path).unwrap(), conditions.clone()));
                    }
                }
                // A macro is exported from the root, wherever it stands.
                Item::Macro(_) => {}
                item if visibility(item).is_some_and(is_public) => {
                    let name = name(item).unwrap();
                    found.push((name.clone(), join(place, &name), conditions));
                }
                _ => {}
            }
        }
        for (name, place, conditions) in found {
            let public = format!("{public}{name}");
            if self.modules.contains_key(&place) {
                self.list(&public, place.clone(), vec![with(&conditions, format!("pub mod {name}"))]);
                self.publish(&place, &format!("{public}::"));
                continue;
            }
            let item = self.item(&place).unwrap_or_else(|| panic!("{place:?}"));
            let line = with(&conditions, shown(item));
            self.list(&public, place, vec![line]);
        }
        if place.is_empty() {
            self.publish_macros();
        }
    }

    fn publish_macros(&mut self) {
        let items = self.modules.iter().flat_map(|(place, module)| module.items.iter().map(move |item| (place, item)));
        let macros: Vec<(Place, String, String)> = items
            .filter_map(|(place, item)| match item {
                Item::Macro(item) if item.attrs.iter().any(|attr| attr.path().is_ident("macro_export")) => {
                    let name = item.ident.as_ref()?.to_string();
                    // What it takes is told by the part in front of each arrow.
                    let body = item.mac.tokens.to_string();
                    let takes: Vec<_> = body.split(" => ").step_by(2).collect();
                    Some((join(place, &name), name, format!("macro_rules! {}", takes.join("; "))))
                }
                _ => None,
            })
            .collect();
        for (place, name, line) in macros {
            self.list(&format!("{name}!"), place, vec![line]);
        }
    }

    fn list(&mut self, public: &str, place: Place, lines: Vec<String>) {
        let twice = self.listed.insert(public.to_owned(), Listed { place, lines, impls: BTreeMap::new() });
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
                let own_trait = block.trait_.as_ref().map(|(path, _)| self.resolve(place, &segments(path)));
                let public_trait = own_trait.clone().flatten().map(|own| self.names_of(&own).next().is_some());
                if public_trait == Some(false) {
                    continue;
                }
                let of = match &*block.self_ty {
                    Type::Path(path) => self.resolve(place, &segments(&path.path)),
                    _ => None,
                };
                let Some(of) = of.or(own_trait.flatten()) else { continue };
                let conditions = with_conditions(&module.conditions, &block.attrs);
                for name in self.names_of(&of) {
                    let (header, members) = shown_impl(block);
                    found.push((name.clone(), with(&conditions, header), members, block.trait_.is_none()));
                }
            }
        }
        for (name, header, members, inherent) in found {
            // A block of private functions is nobody's business.
            if !inherent || !members.is_empty() {
                self.listed.get_mut(&name).unwrap().impls.entry(header).or_default().extend(members);
            }
        }
    }

    fn names_of<'a>(&'a self, place: &'a Place) -> impl Iterator<Item = &'a String> {
        self.listed.iter().filter(move |(_, listed)| listed.place == *place).map(|(name, _)| name)
    }
}

fn join(place: &[String], name: &str) -> Place {
    place.iter().cloned().chain([name.to_owned()]).collect()
}

fn segments(path: &syn::Path) -> Vec<String> {
    path.segments.iter().map(|segment| segment.ident.to_string()).collect()
}

/// Each name that a `use` brings in, and the path it stands for.
fn imports(tree: &UseTree) -> Vec<(String, Vec<String>)> {
    let below = |ident: String, tree| {
        let add = |(name, path): (String, Vec<String>)| (name, [vec![ident.clone()], path].concat());
        imports(tree).into_iter().map(add).collect()
    };
    match tree {
        UseTree::Path(path) => below(path.ident.to_string(), &path.tree),
        UseTree::Name(name) => vec![(name.ident.to_string(), vec![name.ident.to_string()])],
        UseTree::Rename(rename) => vec![(rename.rename.to_string(), vec![rename.ident.to_string()])],
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

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn visibility(item: &Item) -> Option<&Visibility> {
    Some(match item {
        Item::Const(item) => &item.vis,
        Item::Enum(item) => &item.vis,
        Item::Fn(item) => &item.vis,
        Item::Mod(item) => &item.vis,
        Item::Static(item) => &item.vis,
        Item::Struct(item) => &item.vis,
        Item::Trait(item) => &item.vis,
        Item::Type(item) => &item.vis,
        _ => return None,
    })
}

fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Mod(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn condition(attribute: &Attribute) -> Option<String> {
    let Meta::List(list) = &attribute.meta else { return None };
    list.path.is_ident("cfg").then(|| list.tokens.to_string())
}

/// Whether users ever see it.
fn is_there(attributes: &[Attribute]) -> bool {
    let hidden = |attribute: &Attribute| match &attribute.meta {
        Meta::List(list) => list.path.is_ident("doc") && list.tokens.to_string() == "hidden",
        _ => false,
    };
    let absent = |condition: String| {
        let words: Vec<_> = condition.split(|char: char| char != '_' && !char.is_alphanumeric()).collect();
        !words.contains(&"not") && ["test", "doc", "doctest", "axum_sse_loom"].iter().any(|word| words.contains(word))
    };
    !attributes.iter().any(hidden) && !attributes.iter().filter_map(condition).any(absent)
}

fn with_conditions(before: &[String], attributes: &[Attribute]) -> Vec<String> {
    let mut conditions = before.to_vec();
    for condition in attributes.iter().filter_map(condition) {
        if !conditions.contains(&condition) {
            conditions.push(condition);
        }
    }
    conditions
}

fn with(conditions: &[String], text: String) -> String {
    conditions.iter().rev().fold(text, |text, condition| format!("#[cfg({condition})] {text}"))
}

/// Takes away what is nobody's business: documentation, lints, bodies.
struct Bare;

impl VisitMut for Bare {
    fn visit_attributes_mut(&mut self, attributes: &mut Vec<Attribute>) {
        let kept = ["derive", "non_exhaustive", "must_use", "deprecated", "default"];
        attributes.retain(|attribute| kept.iter().any(|kept| attribute.path().is_ident(kept)));
        for attribute in attributes {
            // The reason is prose.
            if attribute.path().is_ident("must_use") {
                *attribute = syn::parse_quote!(#[must_use]);
            }
        }
    }

    fn visit_block_mut(&mut self, block: &mut syn::Block) {
        block.stmts.clear();
    }

    fn visit_item_struct_mut(&mut self, item: &mut syn::ItemStruct) {
        match &mut item.fields {
            Fields::Named(fields) => {
                let all = std::mem::take(&mut fields.named);
                fields.named = all.into_iter().filter(|field| is_public(&field.vis)).collect();
            }
            Fields::Unnamed(fields) => {
                let private = fields.unnamed.iter_mut().filter(|field| !is_public(&field.vis));
                private.for_each(|field| field.ty = syn::parse_quote!(_));
            }
            Fields::Unit => {}
        }
        visit_mut::visit_item_struct_mut(self, item);
    }
}

fn shown(item: &Item) -> String {
    let mut item = item.clone();
    if let Item::Trait(item) = &mut item {
        item.items.retain(|member| match member {
            syn::TraitItem::Fn(function) => is_there(&function.attrs),
            _ => true,
        });
    }
    Bare.visit_item_mut(&mut item);
    let mut file = syn::parse_file("").unwrap();
    file.items.push(item);
    on_one_line(&prettyplease::unparse(&file))
}

/// The line that begins it, and those of its members that are public: of a trait's, the types.
fn shown_impl(block: &ItemImpl) -> (String, BTreeSet<String>) {
    let mut header = block.clone();
    header.attrs.clear();
    header.items.clear();
    let header = shown(&Item::Impl(header));
    let of_trait = block.trait_.is_some();
    let members = block.items.iter().filter_map(|member| {
        let (attributes, public) = match member {
            ImplItem::Fn(item) => (&item.attrs, is_public(&item.vis)),
            ImplItem::Const(item) => (&item.attrs, of_trait || is_public(&item.vis)),
            ImplItem::Type(item) => (&item.attrs, of_trait),
            _ => return None,
        };
        if !public || !is_there(attributes) {
            return None;
        }
        let mut alone = block.clone();
        alone.attrs.clear();
        alone.items = vec![member.clone()];
        let text = shown(&Item::Impl(alone));
        let member = text.strip_prefix(header.trim_end_matches('}')).unwrap_or(&text);
        let conditions = with_conditions(&[], attributes);
        Some(with(&conditions, tidy(member.trim_end_matches('}').trim_end().trim_end_matches("{ "))))
    });
    (tidy(&header), members.collect())
}

/// Without the empty block that stands for what is left out.
fn tidy(text: &str) -> String {
    text.trim_end_matches("{}").trim().to_owned()
}

/// Joins the lines of a formatter, without the commas that it puts at their ends.
fn on_one_line(text: &str) -> String {
    let mut line = String::new();
    for part in text.lines().map(str::trim) {
        if part.starts_with([')', '>', ']']) {
            line.truncate(line.trim_end_matches(',').len());
        } else if !line.is_empty() && !line.ends_with(['(', '<', '[']) {
            line.push(' ');
        }
        line.push_str(part);
    }
    line
}
