//! The structure of the code, read from its syntax: which folder of the engine uses which, and what the house rules out.
//! ARCHITECTURE.md has the same list of folders.

#![expect(clippy::print_stdout, reason = "the counts are worth reading when they are within their limits, too")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{File, FnArg, GenericArgument, Item, Pat, PathArguments, Signature, Type, TypePath, UseTree, Visibility};

/// The folders of the engine from the bottom up. A folder uses itself and the folders before it. `engine` is the facade: it
/// uses all of them, and all of them may name it.
const FOLDERS: [&str; 13] = [
    "core", "ports", "plugin", "storage", "outbound", "access", "events", "registry", "accounts", "invoke", "tasks",
    "agents", "engine",
];
/// The one file of `core` that uses `ports`, whose errors it names.
const ABOVE_PORTS: &str = "core::error";
const MODULES_MAX: usize = 20;
const LAYERS_MAX: usize = 13;
const CIRCLE_MAX: usize = 3;
const LINES_MAX: usize = 500;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn parse(path: &Path) -> File {
    syn::parse_file(&fs::read_to_string(path).unwrap()).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The module of a file, such as `accounts::refresh`; the crate's root is empty.
fn module_of(source: &Path, path: &Path) -> String {
    let relative = path.strip_prefix(source).unwrap().with_extension("");
    let parts: Vec<_> = relative.iter().map(|part| part.to_str().unwrap()).collect();
    let parts = match parts.as_slice() {
        ["lib"] => &[][..],
        [parents @ .., "mod"] => parents,
        all => all,
    };
    parts.join("::")
}

/// The paths that one file names, as written from the crate's root.
#[derive(Default)]
struct Uses {
    module: Vec<String>,
    /// Modules within the file that enclose the current item.
    inline: Vec<String>,
    named: Vec<Vec<String>>,
    /// What the file re-exports, by name.
    exported: BTreeMap<String, Vec<String>>,
}

impl Uses {
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let mut place: Vec<String> = self.module.iter().chain(&self.inline).cloned().collect();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => return Some(rest[1..].to_vec()),
            "self" => rest = &rest[1..],
            "super" => {}
            _ => return None,
        }
        while rest.first().is_some_and(|part| part == "super") {
            place.pop()?;
            rest = &rest[1..];
        }
        Some(place.into_iter().chain(rest.iter().cloned()).collect())
    }

    fn tree(&mut self, prefix: &[String], tree: &UseTree, public: bool) {
        let with = |name: String| prefix.iter().cloned().chain([name]).collect::<Vec<_>>();
        match tree {
            UseTree::Path(path) => self.tree(&with(path.ident.to_string()), &path.tree, public),
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.tree(prefix, tree, public)),
            UseTree::Name(name) => self.leaf(&with(name.ident.to_string()), name.ident.to_string(), public),
            UseTree::Rename(rename) => self.leaf(&with(rename.ident.to_string()), rename.rename.to_string(), public),
            UseTree::Glob(_) => self.leaf(&with("*".to_owned()), "*".to_owned(), public),
        }
    }

    fn leaf(&mut self, path: &[String], name: String, public: bool) {
        // A re-export of a child is written without `self`.
        let place = self.absolute(path).or_else(|| {
            let here: Vec<_> = self.module.iter().cloned().chain(path.iter().cloned()).collect();
            (public && self.inline.is_empty()).then_some(here)
        });
        let Some(mut place) = place else { return };
        if place.last().is_some_and(|last| last == "self") {
            place.pop();
        }
        if public {
            self.exported.insert(name, place);
        } else {
            self.named.push(place);
        }
    }
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        let is_test = item.attrs.iter().any(|attribute| {
            attribute.path().is_ident("cfg")
                && attribute.parse_args::<syn::Path>().is_ok_and(|cfg| cfg.is_ident("test"))
        });
        // A unit test may use items of its parent modules.
        if item.content.is_some() && !is_test {
            self.inline.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.inline.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.tree(&[], &item.tree, !matches!(item.vis, Visibility::Inherited));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.named.extend(self.absolute(&parts));
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        // What a macro is given is not syntax yet: a path in there is found as text.
        let text = called.tokens.to_string().replace(' ', "");
        for found in text.split("crate::").skip(1) {
            let path = found.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':').next().unwrap_or_default();
            self.named.push(path.split("::").filter(|part| !part.is_empty()).map(str::to_owned).collect());
        }
        visit::visit_macro(self, called);
    }
}

/// Which file of the engine uses which, by their modules.
fn arrows(source: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut files = BTreeMap::new();
    for path in rust_files(source) {
        let module = module_of(source, &path);
        let mut uses = Uses { module: module.split("::").map(str::to_owned).collect(), ..Uses::default() };
        uses.module.retain(|part| !part.is_empty());
        uses.visit_file(&parse(&path));
        files.insert(module, uses);
    }
    let resolve = |path: &[String]| -> Option<String> {
        let mut path = path.to_vec();
        for _ in 0..8 {
            let module = (0..=path.len()).rev().map(|end| path[..end].join("::")).find(|it| files.contains_key(it))?;
            let depth = module.split("::").filter(|part| !part.is_empty()).count();
            match path.get(depth).and_then(|name| files[&module].exported.get(name)) {
                Some(place) => path = place.iter().chain(&path[depth + 1..]).cloned().collect(),
                None => return Some(module),
            }
        }
        None
    };
    let targets = |module: &String, uses: &Uses| {
        let used = uses.named.iter().filter_map(|path| resolve(path));
        used.filter(|target| target != module && !target.is_empty()).collect()
    };
    files.iter().filter(|(module, _)| !module.is_empty()).map(|(it, uses)| (it.clone(), targets(it, uses))).collect()
}

fn folder(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

/// The height of a module: between `ports` and `plugin` for the one file that is above its folder.
fn height(module: &str) -> Option<usize> {
    let at = |folder: &str| FOLDERS.iter().position(|it| *it == folder).map(|index| index * 2);
    if module == ABOVE_PORTS { at("ports").map(|ports| ports + 1) } else { at(folder(module)) }
}

/// Everything that `from` reaches, over arrows that do not end in the facade.
fn reached<'a>(arrows: &'a BTreeMap<String, BTreeSet<String>>, from: &'a str) -> BTreeSet<&'a str> {
    let (mut seen, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(module) = open.pop() {
        for target in arrows.get(module).into_iter().flatten().filter(|target| *target != "engine") {
            if seen.insert(target.as_str()) {
                open.push(target);
            }
        }
    }
    seen
}

/// The circles: modules that reach each other.
fn circles(arrows: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<BTreeSet<&str>> {
    let reach: BTreeMap<&str, BTreeSet<&str>> = arrows.keys().map(|it| (it.as_str(), reached(arrows, it))).collect();
    let circle = |module: &&str| -> BTreeSet<&str> {
        reach[module]
            .iter()
            .filter(|other| reach.get(*other).is_some_and(|back| back.contains(module)))
            .copied()
            .collect()
    };
    reach.keys().map(circle).filter(|circle| circle.len() > 1).collect()
}

/// The number of layers in which the modules stand. The modules of one circle share a layer.
fn layers(arrows: &BTreeMap<String, BTreeSet<String>>) -> usize {
    let circles = circles(arrows);
    let alone = |module: &str| circles.iter().find(|circle| circle.contains(module)).cloned();
    let mut levels: BTreeMap<&str, usize> = arrows.keys().map(|module| (module.as_str(), 1)).collect();
    // Each pass is right for one more layer.
    for _ in 0..arrows.len() {
        for module in arrows.keys() {
            let group = alone(module).unwrap_or_else(|| BTreeSet::from([module.as_str()]));
            let below = group.iter().flat_map(|member| &arrows[*member]);
            let below = below.filter(|it| *it != "engine" && !group.contains(it.as_str()));
            let level = 1 + below.filter_map(|it| levels.get(it.as_str())).max().copied().unwrap_or(0);
            levels.insert(module, level);
        }
    }
    levels.values().max().copied().unwrap_or(0)
}

/// What a new reader would stumble over in one file.
#[derive(Default)]
struct Shape {
    tuple_parameters: Vec<String>,
    nested_results: usize,
    types: Vec<String>,
}

fn is_tuple(pattern: &Pat) -> bool {
    if let Pat::Reference(reference) = pattern { is_tuple(&reference.pat) } else { matches!(pattern, Pat::Tuple(_)) }
}

fn result_within(path: &syn::Path) -> Option<&syn::Path> {
    let last = path.segments.last().filter(|last| last.ident == "Result")?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    let Some(GenericArgument::Type(Type::Path(first))) = arguments.args.first() else { return None };
    first.path.segments.last().filter(|last| last.ident == "Result").map(|_| &first.path)
}

impl<'ast> Visit<'ast> for Shape {
    fn visit_signature(&mut self, signature: &'ast Signature) {
        let tuples =
            signature.inputs.iter().filter(|input| matches!(input, FnArg::Typed(typed) if is_tuple(&typed.pat)));
        self.tuple_parameters.extend(tuples.map(|_| signature.ident.to_string()));
        visit::visit_signature(self, signature);
    }

    fn visit_type_path(&mut self, path: &'ast TypePath) {
        self.nested_results += usize::from(result_within(&path.path).is_some());
        visit::visit_type_path(self, path);
    }

    fn visit_item(&mut self, item: &'ast Item) {
        #[expect(clippy::wildcard_enum_match_arm, reason = "no other item declares a type")]
        let name = match item {
            Item::Struct(item) => Some(&item.ident),
            Item::Enum(item) => Some(&item.ident),
            Item::Trait(item) => Some(&item.ident),
            Item::Type(item) => Some(&item.ident),
            _ => None,
        };
        self.types.extend(name.map(ToString::to_string));
        visit::visit_item(self, item);
    }
}

fn shape_of(path: &Path) -> Shape {
    let mut shape = Shape::default();
    shape.visit_file(&parse(path));
    shape
}

/// The engine's source. Another tree can be counted, to compare: `OVERSEER_LAYOUT_OF=path/to/src`.
fn engine_source() -> PathBuf {
    std::env::var_os("OVERSEER_LAYOUT_OF").map_or_else(|| workspace().join("shared/engine/src"), PathBuf::from)
}

#[test]
fn engine_folders_use_only_those_below() {
    let arrows = arrows(&engine_source());
    let mut folders: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (module, targets) in &arrows {
        let of = folders.entry(folder(module).to_owned()).or_default();
        of.extend(targets.iter().map(|target| folder(target).to_owned()).filter(|target| target != folder(module)));
    }
    let all = arrows.iter().flat_map(|(from, targets)| targets.iter().map(move |to| (from, to)));
    let upward: Vec<_> = all
        .filter(|(from, to)| *to != "engine" && height(to) > height(from))
        .map(|(from, to)| format!("{from} -> {to}"))
        .collect();
    let circles = circles(&arrows);
    let largest = circles.iter().map(BTreeSet::len).max().unwrap_or(0);
    println!(
        "top-level modules: {}; layers: {}; dependencies between files: {}; upward: {}; largest circle: {largest} files",
        folders.len(),
        layers(&folders),
        arrows.values().map(BTreeSet::len).sum::<usize>(),
        upward.len(),
    );
    assert!(upward.is_empty(), "dependencies that point up:\n{}", upward.join("\n"));
    assert!(largest <= CIRCLE_MAX, "circles of files: {circles:#?}");
    assert!(folders.len() <= MODULES_MAX, "{} top-level modules: {:?}", folders.len(), folders.keys());
    assert!(layers(&folders) <= LAYERS_MAX, "{} layers", layers(&folders));
    let unlisted: Vec<_> = folders.keys().filter(|folder| !FOLDERS.contains(&folder.as_str())).collect();
    assert!(unlisted.is_empty(), "folders that are not in FOLDERS: {unlisted:?}");
}

#[test]
fn architecture_lists_the_folders_in_their_order() {
    let page = fs::read_to_string(workspace().join("ARCHITECTURE.md")).unwrap();
    let (_, listed) =
        page.split_once("<!-- folders of the engine -->").expect("ARCHITECTURE.md has the list of folders");
    let listed = listed.split("```").nth(1).unwrap();
    let names: Vec<_> = listed
        .lines()
        .filter(|line| line.starts_with(char::is_alphabetic))
        .filter_map(|line| line.split_whitespace().next())
        .map(|name| name.trim_end_matches('/').trim_end_matches(".rs"))
        .collect();
    let expected: Vec<_> = FOLDERS.iter().rev().copied().collect();
    assert_eq!(names, expected);
}

#[test]
fn shared_code_has_no_shapes_that_hide_names() {
    let source = engine_source();
    let shared = source.parent().and_then(Path::parent).unwrap();
    let files: Vec<_> = rust_files(shared).into_iter().filter(|path| !path.ends_with("build.rs")).collect();
    let (mut tuples, mut nested, mut long) = (Vec::new(), Vec::new(), Vec::new());
    let mut types: BTreeMap<String, usize> = BTreeMap::new();
    for path in &files {
        let shape = shape_of(path);
        let name = path.strip_prefix(shared).unwrap().display();
        tuples.extend(shape.tuple_parameters.iter().map(|function| format!("{name}: {function}")));
        nested.extend((shape.nested_results > 0).then(|| format!("{name}: {}", shape.nested_results)));
        let lines = fs::read_to_string(path).unwrap().lines().count();
        long.extend((lines > LINES_MAX).then(|| format!("{name}: {lines}")));
        if path.starts_with(&source) {
            shape.types.into_iter().for_each(|name| *types.entry(name).or_default() += 1);
        }
    }
    let repeated: Vec<_> = types.into_iter().filter(|(_, count)| *count > 1).collect();
    println!(
        "tuple-pattern parameters: {}; files with nested results: {}; repeated type names: {}; files over {LINES_MAX} \
         lines: {}",
        tuples.len(),
        nested.len(),
        repeated.len(),
        long.len(),
    );
    assert!(tuples.is_empty(), "parameters that are tuple patterns:\n{}", tuples.join("\n"));
    assert!(nested.is_empty(), "results within results:\n{}", nested.join("\n"));
    assert!(repeated.is_empty(), "names that several types of the engine have: {repeated:?}");
    assert!(long.is_empty(), "files that are too long:\n{}", long.join("\n"));
}
