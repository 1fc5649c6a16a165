//! What a source file mentions: the names it uses, resolved through its
//! imports, and the keywords a law may forbid.
//!
//! The file is parsed, not searched, so that comments, strings and a
//! function that happens to be called `env` are not taken for the thing
//! itself. Macro arguments are not Rust until the macro has run; they are read
//! as runs of `name::name`.

use std::collections::HashMap;

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, Signature, UseTree};

/// In which grammatical place a name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A path: `std::fs::read`, also the path of an import.
    Path,
    /// An import of everything under a path: `use std::fs::*`.
    Glob,
    /// A macro that is called: `println!`.
    Macro,
    /// A method that is called: `.elapsed()`.
    Method,
    /// An attribute, or a name inside one: `#[ignore]`.
    Attribute,
    /// `async` or `.await`.
    Async,
}

/// Whether the code ships or only runs under `cargo test`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// Part of the library or binary.
    Shipped,
    /// Inside an item marked `#[cfg(test)]`.
    TestOnly,
}

/// One name in a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mention {
    /// Grammatical place.
    pub kind: Kind,
    /// Segments of the name, imports and `crate`/`self`/`super` resolved.
    pub path: Vec<String>,
    /// Line in the file, from 1.
    pub line: usize,
    /// Whether the code ships.
    pub build: Build,
}

/// What one file says.
#[derive(Debug, Default)]
pub struct Mentions {
    /// Every name, in order of appearance.
    pub all: Vec<Mention>,
    /// Modules declared as `#[cfg(test)] mod name;`: their files are tests.
    pub test_modules: Vec<String>,
}

/// Reads `source`, the file of the module `module` (segments below `crate`).
///
/// # Errors
/// When the text is not a Rust file.
pub fn read(source: &str, module: &[String]) -> Result<Mentions, syn::Error> {
    let file = syn::parse_file(source)?;
    let mut imports = Imports::default();
    imports.visit_file(&file);
    let mut reader = Reader {
        aliases: imports.aliases,
        module: module.to_vec(),
        build: Build::Shipped,
        mentions: Mentions::default(),
    };
    reader.visit_file(&file);
    Ok(reader.mentions)
}

/// The names a file imports and the full paths they stand for.
#[derive(Default)]
struct Imports {
    aliases: HashMap<String, Vec<String>>,
}

impl<'ast> Visit<'ast> for Imports {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for leaf in leaves(&item.tree) {
            if let (Some(name), Kind::Path) = (leaf.name, leaf.kind) {
                self.aliases.insert(name, leaf.path);
            }
        }
    }
}

/// One end of an import tree.
struct Leaf {
    path: Vec<String>,
    name: Option<String>,
    kind: Kind,
    line: usize,
}

/// Takes `use a::{b, c::*}` apart into `a::b` and `a::c::*`.
fn leaves(tree: &UseTree) -> Vec<Leaf> {
    let mut found = Vec::new();
    let mut open = vec![(Vec::new(), tree)];
    while let Some((prefix, tree)) = open.pop() {
        let line = tree.span().start().line;
        match tree {
            UseTree::Path(path) => open.push((joined(&prefix, &path.ident), &path.tree)),
            UseTree::Group(group) => {
                open.extend(group.items.iter().rev().map(|item| (prefix.clone(), item)));
            }
            UseTree::Name(name) if name.ident == "self" => found.push(Leaf {
                name: prefix.last().cloned(),
                path: prefix,
                kind: Kind::Path,
                line,
            }),
            UseTree::Name(name) => found.push(Leaf {
                path: joined(&prefix, &name.ident),
                name: Some(name.ident.to_string()),
                kind: Kind::Path,
                line,
            }),
            UseTree::Rename(rename) => found.push(Leaf {
                path: if rename.ident == "self" {
                    prefix
                } else {
                    joined(&prefix, &rename.ident)
                },
                name: Some(rename.rename.to_string()),
                kind: Kind::Path,
                line,
            }),
            UseTree::Glob(_) => found.push(Leaf {
                path: prefix,
                name: None,
                kind: Kind::Glob,
                line,
            }),
        }
    }
    found
}

fn joined(prefix: &[String], last: &syn::Ident) -> Vec<String> {
    let mut path = prefix.to_vec();
    path.push(last.to_string());
    path
}

struct Reader {
    aliases: HashMap<String, Vec<String>>,
    module: Vec<String>,
    build: Build,
    mentions: Mentions,
}

impl Reader {
    fn record(&mut self, kind: Kind, path: Vec<String>, line: usize) {
        let build = self.build;
        self.mentions.all.push(Mention {
            kind,
            path,
            line,
            build,
        });
    }

    /// The path a reader of the file would understand: an imported first
    /// segment becomes what was imported, `self` and `super` become `crate`.
    fn resolve(&self, path: Vec<String>) -> Vec<String> {
        let path = match path.split_first() {
            Some((first, rest)) => match self.aliases.get(first) {
                Some(full) => full.iter().chain(rest).cloned().collect(),
                None => path,
            },
            None => path,
        };
        let above = path
            .iter()
            .take_while(|segment| *segment == "super")
            .count();
        let skipped = match path.first().map(String::as_str) {
            Some("self") => 1,
            Some("super") => above,
            _ => return path,
        };
        let kept = self.module.len().saturating_sub(above);
        std::iter::once("crate".to_owned())
            .chain(self.module.iter().take(kept).cloned())
            .chain(path.into_iter().skip(skipped))
            .collect()
    }

    /// Reads tokens that are not parsed, such as the arguments of a macro.
    fn tokens(&mut self, tokens: TokenStream, kind: Kind) {
        let mut run: Vec<String> = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(name) if name == "async" || name == "await" => {
                    self.finish(&mut run, kind, line);
                    self.record(
                        Kind::Async,
                        vec![name.to_string()],
                        name.span().start().line,
                    );
                }
                TokenTree::Ident(name) => {
                    if colons != 2 {
                        self.finish(&mut run, kind, line);
                        line = name.span().start().line;
                    }
                    run.push(name.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                TokenTree::Punct(punct) if punct.as_char() == '!' && !run.is_empty() => {
                    let path = self.resolve(std::mem::take(&mut run));
                    self.record(Kind::Macro, path, line);
                    colons = 0;
                }
                TokenTree::Group(group) => {
                    self.finish(&mut run, kind, line);
                    colons = 0;
                    self.tokens(group.stream(), kind);
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => {
                    self.finish(&mut run, kind, line);
                    colons = 0;
                }
            }
        }
        self.finish(&mut run, kind, line);
    }

    fn finish(&mut self, run: &mut Vec<String>, kind: Kind, line: usize) {
        if !run.is_empty() {
            let path = self.resolve(std::mem::take(run));
            self.record(kind, path, line);
        }
    }

    fn asynchronous(&mut self, signature: &Signature) {
        if let Some(keyword) = signature.asyncness {
            self.record(
                Kind::Async,
                vec!["async".to_owned()],
                keyword.span.start().line,
            );
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let before = self.build;
        if attributes(item).iter().any(only_for_tests) {
            self.build = Build::TestOnly;
            if let Item::Mod(module) = item
                && module.content.is_none()
            {
                self.mentions.test_modules.push(module.ident.to_string());
            }
        }
        visit::visit_item(self, item);
        self.build = before;
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        for leaf in leaves(&item.tree) {
            let path = self.resolve(leaf.path);
            self.record(leaf.kind, path, leaf.line);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let line = path.span().start().line;
        let segments = path.segments.iter().map(|s| s.ident.to_string()).collect();
        let resolved = self.resolve(segments);
        self.record(Kind::Path, resolved, line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        let line = call.path.span().start().line;
        let segments = call
            .path
            .segments
            .iter()
            .map(|s| s.ident.to_string())
            .collect();
        let resolved = self.resolve(segments);
        self.record(Kind::Macro, resolved, line);
        self.tokens(call.tokens.clone(), Kind::Path);
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let line = attribute.span().start().line;
        let segments = attribute
            .path()
            .segments
            .iter()
            .map(|s| s.ident.to_string())
            .collect();
        self.record(Kind::Attribute, segments, line);
        if let Meta::List(list) = &attribute.meta {
            self.tokens(list.tokens.clone(), Kind::Attribute);
        }
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        let line = call.method.span().start().line;
        self.record(Kind::Method, vec![call.method.to_string()], line);
        visit::visit_expr_method_call(self, call);
    }

    fn visit_signature(&mut self, signature: &'ast Signature) {
        self.asynchronous(signature);
        visit::visit_signature(self, signature);
    }

    fn visit_expr_async(&mut self, block: &'ast syn::ExprAsync) {
        let line = block.async_token.span.start().line;
        self.record(Kind::Async, vec!["async".to_owned()], line);
        visit::visit_expr_async(self, block);
    }

    fn visit_expr_closure(&mut self, closure: &'ast syn::ExprClosure) {
        if let Some(keyword) = closure.asyncness {
            let line = keyword.span.start().line;
            self.record(Kind::Async, vec!["async".to_owned()], line);
        }
        visit::visit_expr_closure(self, closure);
    }

    fn visit_expr_await(&mut self, wait: &'ast syn::ExprAwait) {
        let line = wait.await_token.span.start().line;
        self.record(Kind::Async, vec!["await".to_owned()], line);
        visit::visit_expr_await(self, wait);
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// `#[cfg(test)]`, and nothing looser: `cfg(any(test, ...))` also ships.
fn only_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute
            .parse_args::<syn::Path>()
            .is_ok_and(|path| path.is_ident("test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str, kind: Kind) -> Vec<String> {
        read(source, &["plan".to_owned(), "route".to_owned()])
            .unwrap()
            .all
            .into_iter()
            .filter(|mention| mention.kind == kind)
            .map(|mention| mention.path.join("::"))
            .collect()
    }

    #[test]
    fn imports_are_taken_apart() {
        assert_eq!(
            paths(
                "use std::{env, fs::{self, File as F}, io as terminal};",
                Kind::Path
            ),
            ["std::env", "std::fs", "std::fs::File", "std::io"]
        );
        assert_eq!(paths("use std::fs::*;", Kind::Glob), ["std::fs"]);
    }

    #[test]
    fn a_name_means_what_was_imported() {
        let source = "use std::process as p; fn f() { p::exit(1) }";
        assert_eq!(
            paths(source, Kind::Path),
            ["std::process", "std::process::exit"]
        );
    }

    #[test]
    fn relative_paths_start_at_the_crate() {
        let source = "use super::rule::Rule; fn f(_: self::Metric) {}";
        assert_eq!(
            paths(source, Kind::Path),
            ["crate::plan::rule::Rule", "crate::plan::route::Metric"]
        );
    }

    #[test]
    fn macro_arguments_are_read() {
        let source = r#"fn f() { format!("{}", g(std::fs::read("x"), todo!())); }"#;
        let found = paths(source, Kind::Path);
        assert!(found.contains(&"std::fs::read".to_owned()), "{found:?}");
        assert_eq!(paths(source, Kind::Macro), ["format", "todo"]);
        let source = "fn f() { select! { x = async { y.await } => {} } }";
        assert_eq!(paths(source, Kind::Async), ["async", "await"]);
    }

    #[test]
    fn comments_strings_and_local_names_are_not_mentions() {
        let source = r#"
            //! std::fs::read
            fn fs() -> &'static str { /* std::env::var */ "std::process::exit" }
        "#;
        assert_eq!(paths(source, Kind::Path), ["str"]);
    }

    #[test]
    fn keywords_methods_and_attributes_are_mentions() {
        let source = "#[test] #[cfg_attr(x, ignore)] async fn f() { t.elapsed().await }";
        assert_eq!(paths(source, Kind::Async), ["async", "await"]);
        assert_eq!(paths(source, Kind::Method), ["elapsed"]);
        assert_eq!(
            paths(source, Kind::Attribute),
            ["test", "cfg_attr", "x", "ignore"]
        );
    }

    #[test]
    fn test_code_is_told_from_shipped_code() {
        let source = "use a::b; #[cfg(test)] mod tests { use std::fs; } #[cfg(test)] mod golden; fn f() { c::d() }";
        let read = read(source, &[]).unwrap();
        let shipped: Vec<_> = read
            .all
            .iter()
            .filter(|mention| mention.build == Build::Shipped && mention.kind == Kind::Path)
            .map(|mention| mention.path.join("::"))
            .collect();
        assert_eq!(shipped, ["a::b", "c::d"]);
        assert_eq!(read.test_modules, ["golden"]);
    }

    #[test]
    fn lines_are_those_of_the_file() {
        let read = read("\n\nuse std::fs;\nfn f() {\n    x!(y::z);\n}\n", &[]).unwrap();
        let lines: Vec<_> = read.all.iter().map(|mention| mention.line).collect();
        assert_eq!(lines, [3, 5, 5]);
    }
}
