//! Who depends on whom, as Cargo sees it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};

/// The packages of the workspace and what they lead to.
#[derive(Debug)]
pub struct Dependencies {
    metadata: Metadata,
}

impl Dependencies {
    /// Asks Cargo about the workspace that holds `manifest`.
    ///
    /// # Errors
    /// When Cargo cannot answer.
    pub fn read(manifest: &str) -> Result<Self> {
        let metadata = MetadataCommand::new()
            .manifest_path(manifest)
            .other_options(["--locked".to_owned()])
            .exec()
            .context("ask cargo for the dependency graph")?;
        Ok(Self { metadata })
    }

    /// The folder that holds the workspace.
    #[must_use]
    pub fn root(&self) -> &std::path::Path {
        self.metadata.workspace_root.as_std_path()
    }

    /// The folders of the workspace's packages, from its root.
    #[must_use]
    pub fn folders(&self) -> Vec<String> {
        self.metadata
            .workspace_packages()
            .into_iter()
            .filter_map(|package| package.manifest_path.parent())
            .filter_map(|folder| folder.strip_prefix(&self.metadata.workspace_root).ok())
            .map(ToString::to_string)
            .collect()
    }

    /// For each package of the workspace, the others it needs to run: its
    /// dependencies, without those of its tests.
    #[must_use]
    pub fn inside(&self) -> BTreeMap<String, BTreeSet<String>> {
        let packages = self.metadata.workspace_packages();
        let members: BTreeSet<&str> = packages.iter().map(|p| p.name.as_str()).collect();
        packages
            .iter()
            .map(|package| {
                let needed = package
                    .dependencies
                    .iter()
                    .filter(|dependency| dependency.kind != DependencyKind::Development)
                    .map(|dependency| dependency.name.as_str())
                    .filter(|name| members.contains(name))
                    .map(ToOwned::to_owned)
                    .collect();
                (package.name.to_string(), needed)
            })
            .collect()
    }

    /// Names and licences of everything that is linked into `package`.
    ///
    /// # Errors
    /// When the workspace has no such package, or one it needs is not in the graph.
    pub fn linked_into(&self, package: &str) -> Result<BTreeMap<String, Option<String>>> {
        let start = self
            .metadata
            .workspace_packages()
            .into_iter()
            .find(|found| found.name == package)
            .with_context(|| format!("the workspace has no package {package}"))?;
        let resolve = self
            .metadata
            .resolve
            .as_ref()
            .context("cargo gave no dependency graph")?;
        let nodes: BTreeMap<&PackageId, _> =
            resolve.nodes.iter().map(|node| (&node.id, node)).collect();
        let mut seen = BTreeSet::new();
        let mut open = vec![&start.id];
        while let Some(id) = open.pop() {
            if !seen.insert(id) {
                continue;
            }
            let node = nodes
                .get(id)
                .with_context(|| format!("{id} is not in the dependency graph"))?;
            open.extend(
                node.deps
                    .iter()
                    .filter(|dep| {
                        dep.dep_kinds
                            .iter()
                            .any(|kind| kind.kind == DependencyKind::Normal)
                    })
                    .map(|dep| &dep.pkg),
            );
        }
        Ok(self
            .metadata
            .packages
            .iter()
            .filter(|found| seen.contains(&found.id))
            .map(|Package { name, license, .. }| (name.to_string(), license.clone()))
            .collect())
    }
}

/// Whether a licence expression can be met without accepting a GPL.
///
/// # Errors
/// When the text is not an SPDX expression.
pub fn free_of_gpl(licence: &str) -> Result<bool> {
    let expression = spdx::Expression::parse_mode(licence, spdx::ParseMode::LAX)
        .with_context(|| format!("licence {licence}"))?;
    Ok(expression.evaluate(|requirement| !requirement.license.to_string().contains("GPL")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_with_a_way_around_the_gpl_is_free_of_it() {
        for (licence, expected) in [
            ("MIT", true),
            ("MIT/Apache-2.0", true),
            ("MIT OR GPL-2.0-only", true),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("GPL-3.0-or-later", false),
            ("LGPL-2.1-only", false),
            ("AGPL-3.0-only", false),
            ("MIT AND GPL-2.0-only", false),
        ] {
            assert_eq!(free_of_gpl(licence).unwrap(), expected, "{licence}");
        }
        assert!(free_of_gpl("no such licence").is_err());
    }
}
