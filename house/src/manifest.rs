//! Kubernetes manifests as values: what a file holds, what a kustomization
//! renders to, and what a container in them finds in its environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// One Kubernetes object and the file it was written in.
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
    let values: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("parse {}", file.display()))?;
    Ok(values
        .into_iter()
        .map(|value| Object {
            file: file.to_owned(),
            value,
        })
        .collect())
}

/// Renders the kustomization in `folder`: its resources, theirs, those of its
/// components, and all their patches applied.
///
/// Knows the fields that our kustomizations use and refuses any other, so that
/// a check of the result is not a check of something else than what is applied.
///
/// # Errors
/// When a file is missing, a field is unknown, or a patch does not apply.
pub fn render(folder: &Path) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    accumulate(folder, "Kustomization", &mut objects)?;
    Ok(objects)
}

/// Adds the resources of the kustomization in `folder` to `objects`, then
/// applies its components and patches to all of them, in this order whatever
/// the order of the fields, as kustomize does.
fn accumulate(folder: &Path, kind: &str, objects: &mut Vec<Object>) -> Result<()> {
    let path = folder.join("kustomization.yaml");
    let [kustomization] = <[Object; 1]>::try_from(read(&path)?)
        .map_err(|objects| anyhow::anyhow!("{} holds {} objects", path.display(), objects.len()))?;
    if kustomization.kind() != kind {
        bail!(
            "{} is a {:?}, not a {kind}",
            path.display(),
            kustomization.kind()
        );
    }
    for (field, _) in kustomization.value.as_object().into_iter().flatten() {
        match field.as_str() {
            "resources" | "components" | "patches" => {}
            // Labels, namespace and tags change no meaning that is checked.
            "apiVersion" | "kind" | "namespace" | "labels" | "images" => {}
            other => bail!("{}: unknown field {other}", path.display()),
        }
    }
    for resource in kustomization.list("/resources") {
        let resource = folder.join(resource.as_str().context("resource is no path")?);
        objects.extend(if resource.is_dir() {
            render(&resource)?
        } else {
            read(&resource)?
        });
    }
    for component in kustomization.list("/components") {
        let component = component.as_str().context("component is no path")?;
        accumulate(&folder.join(component), "Component", objects)?;
    }
    for patch in kustomization.list("/patches") {
        let file = patch.pointer("/path").and_then(Value::as_str);
        let file = folder.join(file.context("patch without a path")?);
        apply(objects, &file, patch).with_context(|| format!("apply {}", file.display()))?;
    }
    Ok(())
}

/// Applies a patch to every object of its target, of which there must be one:
/// kustomize would leave out a patch without a target in silence.
fn apply(objects: &mut [Object], file: &Path, patch: &Value) -> Result<()> {
    let fits = |field: &str, found: &str| {
        let wanted = patch.pointer(&format!("/target/{field}"));
        wanted.is_none_or(|wanted| wanted == found)
    };
    let text = std::fs::read_to_string(file)?;
    let operations: json_patch::Patch = serde_json::from_value(serde_saphyr::from_str(&text)?)?;
    let mut is_used = false;
    for object in objects
        .iter_mut()
        .filter(|object| fits("kind", object.kind()) && fits("name", object.name()))
    {
        json_patch::patch(&mut object.value, &operations)?;
        is_used = true;
    }
    if !is_used {
        bail!("no resource is its target");
    }
    Ok(())
}

impl Object {
    /// The file the object was written in.
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
    use serde_json::json;

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

    const PATCH: &str = "
- op: add
  path: /metadata/annotations
  value: {a: \"true\"}
";

    const RESOURCES: &str = "kind: Kustomization\nresources: [pod.yaml]\n";

    fn kustomization(target: &str) -> String {
        format!("{RESOURCES}patches: [{{path: patch.yaml, target: {target}}}]\n")
    }

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

    #[test]
    fn a_kustomization_is_rendered() {
        let folder = folder(&[
            ("kustomization.yaml", &kustomization("{kind: Pod, name: p}")),
            ("pod.yaml", POD),
            ("patch.yaml", PATCH),
        ]);
        let objects = render(folder.path()).unwrap();
        assert_eq!(objects.len(), 2);
        assert_eq!(
            objects[0].at("/metadata/annotations"),
            Some(&json!({"a": "true"}))
        );
        assert_eq!(objects[1].at("/metadata/annotations"), None);
    }

    #[test]
    fn a_component_patches_what_includes_it() {
        let folder = folder(&[
            (
                "kustomization.yaml",
                &format!("components: [component]\n{RESOURCES}"),
            ),
            ("pod.yaml", POD),
        ]);
        let component = folder.path().join("component");
        std::fs::create_dir(&component).unwrap();
        for (name, text) in [
            (
                "kustomization.yaml",
                "kind: Component\nresources: [other.yaml]\npatches: [{path: patch.yaml, target: {kind: Pod}}]\n",
            ),
            ("other.yaml", "kind: Pod\nmetadata: {name: other}\n"),
            ("patch.yaml", PATCH),
        ] {
            std::fs::write(component.join(name), text).unwrap();
        }
        let objects = render(folder.path()).unwrap();
        let patched: Vec<_> = objects
            .iter()
            .filter(|object| object.at("/metadata/annotations").is_some())
            .map(Object::name)
            .collect();
        assert_eq!(patched, ["p", "other"]);
        assert!(render(&component).is_err(), "a component alone is nothing");
    }

    #[test]
    fn what_cannot_be_rendered_is_an_error() {
        for files in [
            vec![(
                "kustomization.yaml",
                "kind: Kustomization\nresources: [absent.yaml]",
            )],
            vec![(
                "kustomization.yaml",
                "kind: Kustomization\ncomponents: [absent]",
            )],
            vec![(
                "kustomization.yaml",
                "kind: Kustomization\nconfigMapGenerator: []",
            )],
            vec![("kustomization.yaml", "resources: []")],
            vec![
                (
                    "kustomization.yaml",
                    kustomization("{kind: Pod, name: q}").as_str(),
                ),
                ("pod.yaml", POD),
                ("patch.yaml", PATCH),
            ],
            vec![
                ("kustomization.yaml", kustomization("{kind: Pod}").as_str()),
                ("pod.yaml", POD),
                (
                    "patch.yaml",
                    "- {op: replace, path: /spec/absent, value: 1}",
                ),
            ],
        ] {
            assert!(render(folder(&files).path()).is_err(), "{files:?}");
        }
    }
}
