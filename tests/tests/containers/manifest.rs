//! Objects of a manifest, and what in them the node has to know.

use std::{collections::BTreeSet, fs, path::Path};

use egress_lab::{Protocol, harness::libtest_mimic::Failed};
use serde_json::Value;

/// A text of objects.
pub(crate) struct Manifest {
    text: String,
    objects: Vec<Value>,
}

impl Manifest {
    pub(crate) fn parse(text: String) -> Result<Self, Failed> {
        let objects = serde_saphyr::from_multiple(&text)?;
        Ok(Self { text, objects })
    }

    pub(crate) fn read(file: &Path) -> Result<Self, Failed> {
        let text = fs::read_to_string(file)
            .map_err(|error| format!("reading {}: {error}", file.display()))?;
        Self::parse(text)
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn objects(&self) -> &[Value] {
        &self.objects
    }

    /// The pods that it makes, directly or by a controller.
    pub(crate) fn pods(&self) -> Vec<Pod<'_>> {
        self.objects.iter().filter_map(Pod::of).collect()
    }

    pub(crate) fn services(&self) -> Vec<Service<'_>> {
        let is_service = |object: &&Value| object["kind"] == "Service";
        self.objects
            .iter()
            .filter(is_service)
            .map(Service)
            .collect()
    }

    /// Images of its containers.
    pub(crate) fn images(&self) -> BTreeSet<&str> {
        let pods = self.pods();
        let containers = pods.iter().flat_map(|pod| pod.all_containers());
        containers
            .map(|container| text(&container["image"]))
            .collect()
    }

    /// Sysctls of its pods.
    pub(crate) fn sysctls(&self) -> Vec<(&str, &str)> {
        let pods = self.pods();
        let sysctls = pods
            .iter()
            .flat_map(|pod| array(&pod.template["spec"]["securityContext"]["sysctls"]));
        sysctls
            .map(|sysctl| (text(&sysctl["name"]), text(&sysctl["value"])))
            .collect()
    }
}

/// A pod, or the template of one.
pub(crate) struct Pod<'m> {
    owner: &'m str,
    is_controlled: bool,
    template: &'m Value,
}

impl<'m> Pod<'m> {
    fn of(object: &'m Value) -> Option<Self> {
        let kind = text(&object["kind"]);
        let template = match kind {
            "Pod" => object,
            "Deployment" | "ReplicationController" => &object["spec"]["template"],
            _ => return None,
        };
        Some(Self {
            owner: text(&object["metadata"]["name"]),
            is_controlled: kind != "Pod",
            template,
        })
    }

    /// Whether podman calls it this: a controller's name is the beginning.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        match name.strip_prefix(self.owner) {
            Some("") => !self.is_controlled,
            Some(rest) => self.is_controlled && rest.starts_with("-pod"),
            None => false,
        }
    }

    pub(crate) fn owner(&self) -> &'m str {
        self.owner
    }

    pub(crate) fn containers(&self) -> &'m [Value] {
        array(&self.template["spec"]["containers"])
    }

    fn all_containers(&self) -> impl Iterator<Item = &'m Value> + use<'m> {
        let init = array(&self.template["spec"]["initContainers"]);
        init.iter().chain(self.containers())
    }

    /// Port and path of each readiness probe.
    pub(crate) fn readiness(&self) -> Vec<(u16, &'m str)> {
        let probe = |container: &'m Value| {
            let get = container.get("readinessProbe")?.get("httpGet")?;
            let port = &get["port"];
            let number = port.as_u64().or_else(|| self.port(text(port)))?;
            Some((u16::try_from(number).ok()?, text(&get["path"])))
        };
        self.containers().iter().filter_map(probe).collect()
    }

    /// Number of a port that has a name.
    fn port(&self, name: &str) -> Option<u64> {
        let ports = self
            .containers()
            .iter()
            .flat_map(|container| array(&container["ports"]));
        ports
            .filter(|port| port["name"] == name)
            .find_map(|port| port["containerPort"].as_u64())
    }

    fn has_labels(&self, selector: &Value) -> bool {
        let labels = &self.template["metadata"]["labels"];
        let mut wanted = selector.as_object().into_iter().flatten();
        wanted.all(|(name, value)| labels.get(name) == Some(value))
    }
}

/// A Service.
pub(crate) struct Service<'m>(&'m Value);

impl<'m> Service<'m> {
    pub(crate) fn name(&self) -> &'m str {
        text(&self.0["metadata"]["name"])
    }

    pub(crate) fn selects(&self, pod: &Pod<'_>) -> bool {
        pod.has_labels(&self.0["spec"]["selector"])
    }

    /// Its ports, in front of a pod. The stand-in for kube-proxy keeps the number.
    pub(crate) fn ports(&self, pod: &Pod<'_>) -> Result<Vec<(Protocol, u16)>, Failed> {
        let port = |port: &Value| {
            let number = u16::try_from(port["port"].as_u64()?).ok()?;
            let target = match port.get("targetPort") {
                None => Some(u64::from(number)),
                Some(Value::String(name)) => pod.port(name),
                Some(target) => target.as_u64(),
            };
            let protocol = match port.get("protocol").map(text) {
                None | Some("TCP") => Protocol::Tcp,
                Some("UDP") => Protocol::Udp,
                Some(_) => return None,
            };
            (target == Some(u64::from(number))).then_some((protocol, number))
        };
        let ports = array(&self.0["spec"]["ports"]).iter().map(port);
        ports
            .collect::<Option<_>>()
            .ok_or_else(|| format!("ports of Service {}: {}", self.name(), self.0["spec"]).into())
    }
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(crate) fn array(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}
