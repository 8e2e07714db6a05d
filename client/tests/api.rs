//! The public API of the client, in `api.txt`, so that a change of it shows in a review. After a change, `UPDATE=1`
//! writes it again:
//!
//! ```sh
//! UPDATE=1 cargo test --release -p ropewalk-client --test api
//! ```
//!
//! The listing is made from the source, since rustdoc gives types only to nightly tools. It has the items that
//! `lib.rs` exports, with their public fields and functions and the traits they implement by hand or by derive. It
//! lacks traits that the compiler implements, such as `Send`, and items that a macro defines.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::{Attribute, Block, Fields, ImplItem, Item, TraitItem, Type, UseTree, Visibility};

const ABOUT: &str = "\
// The public API of ropewalk-client, from tests/api.rs. Private fields and bodies are left out.
// UPDATE=1 cargo test --release -p ropewalk-client --test api

";

/// Attributes that callers depend on.
const SHOWN_ATTRIBUTES: [&str; 4] = ["cfg", "derive", "must_use", "non_exhaustive"];

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files of a folder and of its folders, in order.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable entry").path();
        match path.is_dir() {
            true => found.extend(sources(&path)),
            false => {
                found.extend(Some(path).filter(|it| it.extension().is_some_and(|it| it == "rs")))
            }
        }
    }
    found.sort();
    found
}

fn parse(file: &Path) -> Vec<Item> {
    let text = fs::read_to_string(file).expect("a readable file");
    let parsed = syn::parse_file(&text);
    parsed
        .unwrap_or_else(|error| panic!("{}: {error}", file.display()))
        .items
}

/// Items of a file and of its inline modules, without its tests.
fn all(items: Vec<Item>) -> Vec<Item> {
    let mut found = Vec::new();
    for item in items {
        match item {
            Item::Mod(module) if module.attrs.iter().any(|it| it.path().is_ident("cfg")) => {}
            Item::Mod(module) => found.extend(all(module.content.map_or(Vec::new(), |it| it.1))),
            other => found.push(other),
        }
    }
    found
}

/// Paths of a `use`.
fn paths(tree: &UseTree, before: &str) -> Vec<String> {
    match tree {
        UseTree::Path(path) => paths(&path.tree, &format!("{before}{}::", path.ident)),
        UseTree::Name(name) => vec![format!("{before}{}", name.ident)],
        UseTree::Group(group) => group
            .items
            .iter()
            .flat_map(|it| paths(it, before))
            .collect(),
        UseTree::Rename(_) | UseTree::Glob(_) => {
            panic!("lib.rs exports {before} by another name or whole: list the names")
        }
    }
}

fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn bare(attributes: &mut Vec<Attribute>) {
    attributes.retain(|it| SHOWN_ATTRIBUTES.iter().any(|name| it.path().is_ident(name)));
}

fn no_body() -> Block {
    syn::parse_quote!({})
}

/// Leaves out private fields; of a tuple, all of them if one is private.
fn bare_fields(fields: &mut Fields) {
    match fields {
        Fields::Named(named) => {
            let all = std::mem::take(&mut named.named);
            let public = all.into_iter().filter(|it| is_public(&it.vis));
            named.named = public.collect();
        }
        Fields::Unnamed(unnamed) if !unnamed.unnamed.iter().all(|it| is_public(&it.vis)) => {
            *fields = Fields::Unit;
        }
        Fields::Unnamed(_) | Fields::Unit => {}
    }
    fields.iter_mut().for_each(|it| bare(&mut it.attrs));
}

fn bare_variants(item: &mut syn::ItemEnum) {
    for variant in &mut item.variants {
        bare(&mut variant.attrs);
        let fields = variant.fields.iter_mut();
        fields.for_each(|field| bare(&mut field.attrs));
    }
}

fn bare_trait(item: &mut syn::ItemTrait) {
    for member in &mut item.items {
        if let TraitItem::Fn(function) = member {
            bare(&mut function.attrs);
            function.default = function.default.as_ref().map(|_| no_body());
        }
    }
}

/// Leaves the public functions and constants of a type, and of a trait only its name.
fn bare_impl(item: &mut syn::ItemImpl) {
    item.items.retain(|member| match member {
        _ if item.trait_.is_some() => false,
        ImplItem::Fn(function) => is_public(&function.vis),
        ImplItem::Const(constant) => is_public(&constant.vis),
        _ => false,
    });
    for member in &mut item.items {
        match member {
            ImplItem::Fn(function) => {
                bare(&mut function.attrs);
                function.block = no_body();
            }
            ImplItem::Const(constant) => bare(&mut constant.attrs),
            _ => {}
        }
    }
}

/// Name of the type that an `impl` is of.
fn name_of(of: &Type) -> Option<String> {
    match of {
        Type::Path(path) => Some(path.path.segments.last()?.ident.to_string()),
        _ => None,
    }
}

/// An item as callers see it, and the name that it belongs to; `None` if they can't see it.
fn seen(mut item: Item) -> Option<(String, Item)> {
    let (name, attributes) = match &mut item {
        Item::Struct(it) if is_public(&it.vis) => {
            bare_fields(&mut it.fields);
            (it.ident.to_string(), &mut it.attrs)
        }
        Item::Enum(it) if is_public(&it.vis) => {
            bare_variants(it);
            (it.ident.to_string(), &mut it.attrs)
        }
        Item::Trait(it) if is_public(&it.vis) => {
            bare_trait(it);
            (it.ident.to_string(), &mut it.attrs)
        }
        Item::Fn(it) if is_public(&it.vis) => {
            *it.block = no_body();
            (it.sig.ident.to_string(), &mut it.attrs)
        }
        Item::Type(it) if is_public(&it.vis) => (it.ident.to_string(), &mut it.attrs),
        Item::Const(it) if is_public(&it.vis) => (it.ident.to_string(), &mut it.attrs),
        Item::Impl(it) => {
            bare_impl(it);
            if it.trait_.is_none() && it.items.is_empty() {
                return None;
            }
            (name_of(&it.self_ty)?, &mut it.attrs)
        }
        _ => return None,
    };
    bare(attributes);
    Some((name, item))
}

/// The exports of `lib.rs`.
#[derive(Default)]
struct Exports {
    /// Names of the crate's own items, and the module at the root that exports each.
    own: BTreeMap<String, String>,
    /// Paths to items of other crates.
    others: BTreeSet<String>,
}

fn exports() -> Exports {
    let items = parse(&package().join("src/lib.rs"));
    let mut modules = BTreeSet::new();
    for item in &items {
        if let Item::Mod(module) = item {
            let name = module.ident.to_string();
            assert!(!is_public(&module.vis), "list what module {name} exports");
            modules.insert(name);
        }
    }
    let mut exports = Exports::default();
    for path in public_uses(&items) {
        let first = path.split("::").next().unwrap_or_default().to_owned();
        if modules.contains(&first) {
            exports.own.insert(last(&path), first);
        } else {
            exports.others.insert(path);
        }
    }
    exports
}

/// Paths of all public `use`s.
fn public_uses(items: &[Item]) -> Vec<String> {
    let uses = items.iter().filter_map(|item| match item {
        Item::Use(item) if is_public(&item.vis) => Some(paths(&item.tree, "")),
        _ => None,
    });
    uses.flatten().collect()
}

fn last(path: &str) -> String {
    path.rsplit("::").next().unwrap_or_default().to_owned()
}

/// Module at the root that a file belongs to.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(package().join("src"));
    let inside = inside.expect("a file of the crate").with_extension("");
    let first = inside.iter().next().unwrap_or_default();
    first.to_string_lossy().into_owned()
}

fn listing() -> String {
    let Exports { own, mut others } = exports();
    let mut by_name: BTreeMap<String, Vec<Item>> = BTreeMap::new();
    for file in sources(&package().join("src")) {
        let module = module_of(&file);
        let items = all(parse(&file));
        // An own module may export an item of another crate.
        let uses = public_uses(&items).into_iter();
        others.extend(
            uses.filter(|it| it.starts_with("ropewalk_") && own.get(&last(it)) == Some(&module)),
        );
        for (name, item) in items.into_iter().filter_map(seen) {
            let Some(exported_by) = own.get(&name) else {
                continue;
            };
            // Another module may have a private item of the same name, or functions of this one.
            if matches!(item, Item::Impl(_)) || *exported_by == module {
                by_name.entry(name).or_default().push(item);
            }
        }
    }
    let mut text = String::from(ABOUT);
    for path in &others {
        text.push_str(&format!("pub use {path};\n"));
    }
    for name in own.keys() {
        let mut items = by_name.remove(name).unwrap_or_default();
        // The definition, then its functions, then its traits.
        items.sort_by_key(|item| match item {
            Item::Impl(it) => 1 + u8::from(it.trait_.is_some()),
            _ => 0,
        });
        let is_elsewhere = others.iter().any(|path| last(path) == *name);
        let defined = items.iter().filter(|it| !matches!(it, Item::Impl(_)));
        assert_eq!(
            defined.count(),
            usize::from(!is_elsewhere),
            "definitions of {name} that this test finds"
        );
        let file = syn::File {
            shebang: None,
            attrs: Vec::new(),
            items,
        };
        text.push('\n');
        text.push_str(&prettyplease::unparse(&file));
    }
    text
}

#[test]
fn the_public_api_is_the_one_that_was_reviewed() {
    let file = package().join("api.txt");
    let listing = listing();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&file, &listing).expect("a file that can be written");
    }
    let reviewed = fs::read_to_string(&file).unwrap_or_default();
    let known: BTreeSet<&str> = reviewed.lines().collect();
    let new = listing.lines().filter(|line| !known.contains(line));
    assert!(
        reviewed == listing,
        "{} is not the API of this source: run this test with UPDATE=1, and review the change. New lines:\n{}",
        file.display(),
        new.collect::<Vec<_>>().join("\n")
    );
}
