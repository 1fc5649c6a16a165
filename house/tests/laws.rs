//! Keeps the laws of `src/laws.rs`, and shows of each that it can fail.

#![expect(
    clippy::unwrap_used,
    reason = "whatever cannot be read fails the test that reads it"
)]

use std::collections::BTreeSet;
use std::sync::LazyLock;

use egress_house_rules::dependencies::{self, Dependencies};
use egress_house_rules::laws::{LAWS, MAY_DEPEND, NEVER_LINKED, SHIPPED};
use egress_house_rules::tree::{self, SourceFile};

static DEPENDENCIES: LazyLock<Dependencies> = LazyLock::new(|| {
    Dependencies::read(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap()
});

static SOURCES: LazyLock<Vec<SourceFile>> =
    LazyLock::new(|| tree::read(DEPENDENCIES.root(), &DEPENDENCIES.folders()).unwrap());

#[test]
fn the_sources_keep_every_law() {
    let mut broken = String::new();
    for law in LAWS {
        let breaches: Vec<_> = SOURCES
            .iter()
            .flat_map(|file| law.breaches(file).unwrap())
            .map(|breach| format!("  {breach}\n"))
            .collect();
        if !breaches.is_empty() {
            broken += &format!("{}: {}\n{}", law.name, law.reason, breaches.concat());
        }
    }
    assert!(broken.is_empty(), "\n{broken}");
}

/// A glob that matches no file governs nothing: a renamed module must take its
/// law along.
#[test]
fn every_law_governs_a_file_and_its_own_breach_is_found() {
    for law in LAWS {
        let governed = SOURCES
            .iter()
            .find(|file| law.governs(file.path()).unwrap())
            .unwrap_or_else(|| panic!("no file is governed by: {}", law.name));
        assert!(
            !law.breaches.is_empty(),
            "no breach is shown of: {}",
            law.name
        );
        for breach in law.breaches {
            let broken = SourceFile::parse(governed.path(), breach).unwrap();
            assert!(
                !law.breaches(&broken).unwrap().is_empty(),
                "{breach:?} does not break: {}",
                law.name
            );
        }
    }
}

#[test]
fn packages_depend_only_on_what_they_may() {
    for (package, needed) in DEPENDENCIES.inside() {
        let (_, allowed) = MAY_DEPEND
            .iter()
            .find(|(name, _)| *name == package)
            .unwrap_or_else(|| panic!("laws.rs does not say what {package} may depend on"));
        let allowed: BTreeSet<String> = allowed.iter().map(ToString::to_string).collect();
        let forbidden: Vec<_> = needed.difference(&allowed).collect();
        assert!(forbidden.is_empty(), "{package} depends on {forbidden:?}");
    }
}

#[test]
fn nothing_is_linked_that_must_not_be() {
    for (package, never, reason) in NEVER_LINKED {
        let linked = DEPENDENCIES.linked_into(package).unwrap();
        for name in *never {
            assert!(
                !linked.contains_key(*name),
                "{package} links {name}: {reason}"
            );
        }
    }
}

#[test]
fn no_image_holds_code_under_a_gpl() {
    for package in SHIPPED {
        for (name, licence) in DEPENDENCIES.linked_into(package).unwrap() {
            let licence = licence.unwrap_or_else(|| panic!("{name} states no licence"));
            assert!(
                dependencies::free_of_gpl(&licence).unwrap(),
                "{package} links {name}, which is under {licence}"
            );
        }
    }
}
