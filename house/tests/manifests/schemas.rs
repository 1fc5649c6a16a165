//! Everything that is shipped is what the API servers take.

use egress_house_rules::{kustomize, validator};

use crate::unit::{UNITS, WATCHED, entries};

/// Strictly, against the oldest and the newest version of Kubernetes that the
/// validator knows; what it refuses is shown beside it.
#[test]
fn every_manifest_is_valid() {
    let mut text = String::new();
    let mut objects = 0;
    for unit in UNITS.iter().chain(WATCHED.iter()) {
        text += &format!("---\n{}", unit.text);
        objects += unit.objects.len();
    }
    // By themselves, should somebody build on them.
    for base in entries("base") {
        text += &format!("---\n{}", kustomize::build(&base).unwrap());
    }
    let verdict = validator::validate(&text).unwrap();
    assert!(verdict.errors.is_empty(), "\n{}", verdict.errors.join("\n"));
    // Three modes of three objects each, and the namespace.
    assert_eq!(verdict.objects, objects + 10);
}

/// A component that no overlay is rendered with would not be looked at.
#[test]
fn every_component_is_rendered() {
    let found: Vec<_> = entries("components")
        .into_iter()
        .flat_map(|folder| match folder.ends_with("networkpolicy") {
            true => entries(folder),
            false => vec![folder],
        })
        .map(|folder| {
            let components = folder.components();
            let names = components.skip_while(|name| name.as_os_str() != "components");
            names
                .skip(1)
                .map(|name| name.as_os_str().to_str().unwrap())
                .collect::<Vec<_>>()
                .join("/")
        })
        .collect();
    assert!(found.len() > 8, "{found:?}");
    for component in found {
        // Those of platforms are in the overlays' own kustomizations.
        let named = UNITS
            .iter()
            .chain(WATCHED.iter())
            .any(|unit| unit.name.contains(&component));
        assert!(named, "{component}");
    }
}
