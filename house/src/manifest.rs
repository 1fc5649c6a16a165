//! Kubernetes manifests as values: what a file holds, what a kustomization
//! renders to, and what a container in them finds in its environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::kustomize;

/// One Kubernetes object, and the file or the kustomization it is from.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    file: PathBuf,
    value: Value,
}

/// A container of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    /// Whether it runs before the others.
    pub role: Role,
    pod: &'a Value,
    value: &'a Value,
}

/// When a container runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Before the others, to its end.
    Init,
    /// As long as the pod.
    Main,
}

/// What a container finds when it starts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Environment variables.
    pub variables: BTreeMap<String, String>,
    /// Mounted files and their content.
    pub files: BTreeMap<String, String>,
}

/// Reads every object of a YAML file.
///
/// # Errors
/// When the file cannot be read or is not YAML.
pub fn read(file: &Path) -> Result<Vec<Object>> {
    let text = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    parse(file, &text)
}

/// Renders the kustomization in `folder`; every object then says that it is
/// from there.
///
/// # Errors
/// When kustomize is not installed or refuses, or prints no YAML.
pub fn render(folder: &Path) -> Result<Vec<Object>> {
    parse(folder, &kustomize::build(folder)?)
}

/// Reads every object of a YAML text.
///
/// # Errors
/// When it is not YAML.
pub fn parse(file: &Path, text: &str) -> Result<Vec<Object>> {
    let values: Vec<Value> =
        serde_saphyr::from_multiple(text).with_context(|| format!("parse {}", file.display()))?;
    Ok(values
        .into_iter()
        .map(|value| Object {
            file: file.to_owned(),
            value,
        })
        .collect())
}

impl Object {
    /// The file the object was written in, or the folder of the kustomization
    /// that it was rendered from.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The text at a JSON pointer, empty when there is none.
    #[must_use]
    pub fn text(&self, pointer: &str) -> &str {
        self.at(pointer).and_then(Value::as_str).unwrap_or("")
    }

    /// The value at a JSON pointer.
    #[must_use]
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        self.value.pointer(pointer)
    }

    /// The elements of the list at a JSON pointer, none when there is no list.
    #[must_use]
    pub fn list(&self, pointer: &str) -> Vec<&Value> {
        list(&self.value, pointer)
    }

    /// `Pod`, `Service`, ...
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    /// The name in the metadata.
    #[must_use]
    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    /// The pod that this object is or makes: `metadata` and `spec`.
    #[must_use]
    pub fn pod(&self) -> Option<&Value> {
        match self.kind() {
            "Pod" => Some(&self.value),
            _ => self.at("/spec/template"),
        }
    }

    /// The containers of the pod, in the order in which they start.
    #[must_use]
    pub fn containers(&self) -> Vec<Container<'_>> {
        let Some(pod) = self.pod() else {
            return Vec::new();
        };
        let of = |role, pointer| {
            list(pod, pointer)
                .into_iter()
                .map(move |value| Container { role, pod, value })
        };
        of(Role::Init, "/spec/initContainers")
            .chain(of(Role::Main, "/spec/containers"))
            .collect()
    }
}

impl Container<'_> {
    /// The value at a JSON pointer.
    #[must_use]
    pub fn at(&self, pointer: &str) -> Option<&Value> {
        self.value.pointer(pointer)
    }

    /// The strings of the list at a JSON pointer.
    #[must_use]
    pub fn strings(&self, pointer: &str) -> Vec<&str> {
        let values = list(self.value, pointer);
        values.into_iter().filter_map(Value::as_str).collect()
    }

    /// Whether a field of the security context is true.
    #[must_use]
    pub fn is_secured(&self, field: &str) -> bool {
        self.at(&format!("/securityContext/{field}")) == Some(&Value::Bool(true))
    }

    /// What the container finds when the config maps among `objects` exist.
    ///
    /// # Errors
    /// When a variable is not text, or a config map, key or volume is missing.
    pub fn surroundings(&self, objects: &[Object]) -> Result<Surroundings> {
        let mut found = Surroundings::default();
        for variable in list(self.value, "/env") {
            let name = text(variable, "/name")?;
            let value = match variable.pointer("/valueFrom/configMapKeyRef") {
                Some(reference) => {
                    let map = config_map(objects, text(reference, "/name")?)?;
                    map.get(text(reference, "/key")?)
                        .with_context(|| format!("{name}: the config map has no such key"))?
                        .to_owned()
                }
                None => text(variable, "/value")
                    .with_context(|| format!("{name}: Kubernetes wants text; quote it"))?
                    .to_owned(),
            };
            found.variables.insert(name.to_owned(), value);
        }
        for mount in list(self.value, "/volumeMounts") {
            let name = text(mount, "/name")?;
            let volume = list(self.pod, "/spec/volumes")
                .into_iter()
                .find(|volume| text(volume, "/name").is_ok_and(|found| found == name))
                .with_context(|| format!("there is no volume {name}"))?;
            let folder = text(mount, "/mountPath")?;
            for (key, content) in config_map(objects, text(volume, "/configMap/name")?)? {
                found.files.insert(format!("{folder}/{key}"), content);
            }
        }
        Ok(found)
    }
}

fn config_map(objects: &[Object], name: &str) -> Result<BTreeMap<String, String>> {
    let map = objects
        .iter()
        .find(|object| object.kind() == "ConfigMap" && object.name() == name)
        .with_context(|| format!("there is no config map {name}"))?;
    let data = map.at("/data").and_then(Value::as_object);
    data.with_context(|| format!("config map {name} holds no data"))?
        .iter()
        .map(|(key, value)| {
            let value = value
                .as_str()
                .with_context(|| format!("{key} is not text"))?;
            Ok((key.clone(), value.to_owned()))
        })
        .collect()
}

fn list<'a>(value: &'a Value, pointer: &str) -> Vec<&'a Value> {
    let found = value.pointer(pointer).and_then(Value::as_array);
    found.into_iter().flatten().collect()
}

fn text<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    let found = value.pointer(pointer).and_then(Value::as_str);
    found.with_context(|| format!("no text at {pointer}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    const POD: &str = "
kind: Pod
metadata:
  name: p
spec:
  containers:
    - env:
        - name: A
          valueFrom: {configMapKeyRef: {name: m, key: k}}
        - name: B
          value: \"off\"
      volumeMounts:
        - {name: v, mountPath: /etc/x}
  volumes:
    - {name: v, configMap: {name: m}}
---
kind: ConfigMap
metadata: {name: m}
data:
  k: |
    one
    two
";

    #[test]
    fn a_container_finds_variables_and_files() {
        let folder = folder(&[("pod.yaml", POD)]);
        let objects = read(&folder.path().join("pod.yaml")).unwrap();
        let containers = objects[0].containers();
        let found = containers[0].surroundings(&objects).unwrap();
        assert_eq!(found.variables["A"], "one\ntwo\n");
        assert_eq!(found.variables["B"], "off");
        assert_eq!(found.files["/etc/x/k"], "one\ntwo\n");
        let error = containers[0].surroundings(&objects[..1]).unwrap_err();
        assert_eq!(error.to_string(), "there is no config map m");
    }

    #[test]
    fn a_value_that_is_not_text_is_refused() {
        let text = "kind: Pod\nspec: {containers: [{env: [{name: A, value: 1}]}]}";
        let folder = folder(&[("pod.yaml", text)]);
        let objects = read(&folder.path().join("pod.yaml")).unwrap();
        assert!(objects[0].containers()[0].surroundings(&objects).is_err());
    }
}
