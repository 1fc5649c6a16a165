//! The example manifests, as the containers in them see them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::page::root;

/// The objects of a folder of examples.
#[derive(Debug, Clone)]
pub(crate) struct Manifests(Vec<Value>);

/// A container, and the pod that it is in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Container<'a> {
    objects: &'a Manifests,
    pod: &'a Value,
    value: &'a Value,
}

/// Every object of a YAML text.
pub(crate) fn objects(text: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(text).unwrap_or_else(|error| panic!("{error} in\n{text}"))
}

pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.into_iter().flatten()
}

impl Manifests {
    /// Those of some files, by their paths in the repository.
    pub(crate) fn read(files: &[&str]) -> Self {
        let objects = files.iter().flat_map(|file| {
            let path = root().join(file);
            let text = fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            objects(&text)
        });
        Self(objects.collect())
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0
            .iter()
            .filter(move |object| text(object, "/kind") == kind)
    }

    /// The pod of that name, or the one that something of that name makes.
    pub(crate) fn pod(&self, name: &str) -> &Value {
        let object = self.0.iter().find(|object| {
            text(object, "/metadata/name") == name && text(object, "/kind") != "Service"
        });
        let object = object.unwrap_or_else(|| panic!("no manifest makes a pod {name}"));
        object.pointer("/spec/template").unwrap_or(object)
    }

    /// Protocols and ports of the Service.
    pub(crate) fn service_ports(&self) -> Vec<(String, u16)> {
        let service = self.of_kind("Service").next().unwrap();
        list(service, "/spec/ports")
            .map(|port| {
                let protocol = port["protocol"].as_str().unwrap_or("TCP").to_lowercase();
                (protocol, port["port"].as_u64().unwrap().try_into().unwrap())
            })
            .collect()
    }

    /// The containers of a pod that start one after the other.
    pub(crate) fn init_containers<'a>(&'a self, pod: &'a Value) -> Vec<Container<'a>> {
        self.containers_at(pod, "/spec/initContainers")
    }

    /// The containers of a pod that stay.
    pub(crate) fn containers<'a>(&'a self, pod: &'a Value) -> Vec<Container<'a>> {
        self.containers_at(pod, "/spec/containers")
    }

    fn containers_at<'a>(&'a self, pod: &'a Value, pointer: &'a str) -> Vec<Container<'a>> {
        list(pod, pointer)
            .map(|value| Container {
                objects: self,
                pod,
                value,
            })
            .collect()
    }

    fn config_map(&self, name: &str) -> &Value {
        let mut maps = self.of_kind("ConfigMap");
        let map = maps.find(|map| text(map, "/metadata/name") == name);
        map.unwrap_or_else(|| panic!("no ConfigMap {name}"))
    }
}

impl Container<'_> {
    pub(crate) fn name(&self) -> &str {
        text(self.value, "/name")
    }

    /// The name of its image, which is that of its program.
    pub(crate) fn image(&self) -> &str {
        let image = text(self.value, "/image");
        image.split_once(':').map_or(image, |(name, _)| name)
    }

    pub(crate) fn arguments(&self) -> Vec<String> {
        list(self.value, "/args")
            .map(|argument| argument.as_str().unwrap().to_owned())
            .collect()
    }

    /// Whether it may change the network of its pod.
    pub(crate) fn is_network_admin(&self) -> bool {
        list(self.value, "/securityContext/capabilities/add").any(|name| name == "NET_ADMIN")
    }

    /// What is written in its environment; `$(NAME)` is looked up in `known`.
    pub(crate) fn environment(&self, known: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut environment = BTreeMap::new();
        for variable in list(self.value, "/env") {
            let reference = "/valueFrom/configMapKeyRef";
            let mut value = match variable.pointer(reference) {
                Some(key) => {
                    let map = self.objects.config_map(text(key, "/name"));
                    text(map, &format!("/data/{}", text(key, "/key"))).to_owned()
                }
                None => text(variable, "/value").to_owned(),
            };
            for (name, found) in known {
                value = value.replace(&format!("$({name})"), found);
            }
            environment.insert(text(variable, "/name").to_owned(), value);
        }
        environment
    }

    /// Folders that are mounted, with the files of their ConfigMaps.
    pub(crate) fn mounts(&self) -> Vec<(String, BTreeMap<String, String>)> {
        list(self.value, "/volumeMounts")
            .map(|mount| {
                let mut volumes = list(self.pod, "/spec/volumes");
                let volume = volumes
                    .find(|volume| volume["name"] == mount["name"])
                    .unwrap();
                let map = self.objects.config_map(text(volume, "/configMap/name"));
                let data = map["data"].as_object().unwrap();
                let files = data
                    .iter()
                    .map(|(name, content)| (name.clone(), content.as_str().unwrap().to_owned()))
                    .collect();
                (text(mount, "/mountPath").to_owned(), files)
            })
            .collect()
    }

    /// Settings of its pod.
    pub(crate) fn sysctls(&self) -> Vec<(String, String)> {
        list(self.pod, "/spec/securityContext/sysctls")
            .map(|sysctl| {
                let name = text(sysctl, "/name").replace('.', "/");
                (name, text(sysctl, "/value").to_owned())
            })
            .collect()
    }
}

/// Whether a path of the repository is a file of manifests or a kustomization.
pub(crate) fn is_there(path: &str) -> bool {
    Path::new(path).starts_with("manifests") && root().join(path).exists()
}
