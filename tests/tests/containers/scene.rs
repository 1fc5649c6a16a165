//! A cluster of one played manifest: the lab, with podman on its first node.

use std::{cell::RefCell, net::IpAddr, time::Duration};

use egress_lab::{
    Answer, Cni, Family, Identity, Lab, Node, Process, Seen, Service, eventually,
    harness::libtest_mimic::Failed,
};
use ipnet::IpNet;

use crate::{
    adaptation,
    client::Client,
    confinement,
    image::StandIn,
    machine::{Container, Machine},
    manifest::{Manifest, Pod},
    site::Site,
};

/// Names of the outside, and which of its servers has them.
const NAMES: [(&str, usize); 7] = [
    ("www.example.com", 0),
    ("internal.example.com", 0),
    ("example.com", 2),
    ("db.example.com", 1),
    ("api.example.net", 1),
    ("foobar.com", 1),
    ("log.example.com", 2),
];

/// A name that no list allows, of a machine on the LAN.
pub(crate) const ELSEWHERE: &str = "elsewhere.example.org";

/// How long a pod may take to get ready, on a busy machine.
const READY: Duration = Duration::from_secs(30);

/// The lab, the node and the outside.
pub(crate) struct Scene {
    pub(crate) machine: Machine,
    sites: Vec<Site>,
    lab: RefCell<Lab>,
    identity: Identity,
}

/// A pod that was played, with its Services.
pub(crate) struct Played {
    pub(crate) address: IpAddr,
    pub(crate) services: Vec<Service>,
    /// Those that are not init containers.
    pub(crate) containers: Vec<Container>,
}

impl Scene {
    /// A cluster whose node gives pods what this manifest asks of the kubelet.
    pub(crate) fn start(manifest: &Manifest) -> Result<Self, Failed> {
        let lab = Lab::builder().families(&[Family::Ipv4]).build()?;
        let names = NAMES.map(|(name, _)| name);
        let identity = Identity::create(&names)?;
        let mut sites = Vec::new();
        for server in 0..3 {
            sites.push(Site::start(lab.outside(server), &identity)?);
        }
        let lan_host = lab.lan_host().address(Family::Ipv4);
        lab.resolver()
            .answer(ELSEWHERE, 30, Answer::Addresses(vec![lan_host]));
        for (name, server) in NAMES {
            let address = lab.outside(server).address(Family::Ipv4);
            lab.resolver()
                .answer(name, 30, Answer::Addresses(vec![address]));
        }
        let IpNet::V4(pods) = Cni::DefaultRoute.pods_of(Node::One, Family::Ipv4) else {
            return Err("the lab's pods have no IPv4 network".into());
        };
        let resolver = lab.resolver_address(Family::Ipv4);
        let sysctls = manifest.sysctls();
        let machine = Machine::start(lab.node(Node::One), pods, resolver, &sysctls)?;
        Ok(Self {
            machine,
            sites,
            lab: RefCell::new(lab),
            identity,
        })
    }

    /// Plays a manifest with one pod, and does for it what podman does not: awaits
    /// that it is ready, and makes its Services.
    pub(crate) fn play(&self, manifest: &Manifest) -> Result<Played, Failed> {
        Ok(self.play_watched(manifest, |_, _| ())?.0)
    }

    /// As [`Scene::play`]; `watch` looks on while the init containers run.
    pub(crate) fn play_watched<T>(
        &self,
        manifest: &Manifest,
        watch: impl FnOnce(&Machine, &Process) -> T,
    ) -> Result<(Played, T), Failed> {
        let pods = manifest.pods();
        let [pod] = pods.as_slice() else {
            return Err(format!("{} pods, and not one", pods.len()).into());
        };
        self.machine.provide(manifest, |name| match name {
            "client" => StandIn::client(self.identity.authority_pem()),
            "pause" => StandIn::pause(),
            _ => Err(format!("nobody here knows the image {name}").into()),
        })?;
        let machine = &self.machine;
        let seen = machine.play(manifest, |podman| watch(machine, podman))?;
        adaptation::tell(manifest, &machine.records()?);
        let containers: Vec<_> = machine
            .containers()?
            .into_iter()
            .filter(|container| pod.is_named(&container.pod) && !container.is_infra())
            .collect();
        let Some(name) = containers.first().map(|container| container.pod.clone()) else {
            return Err(format!("no pod of {} was made", pod.owner()).into());
        };
        // A pod whose containers have ended has no address.
        if let Some(ended) = containers
            .iter()
            .find(|container| container.state != "running")
        {
            let logs = machine.logs();
            return Err(format!("{ended:?} does not run\n{logs}").into());
        }
        let address = machine.address(&name)?;
        self.await_ready(pod, address);
        let services = self.serve(manifest, pod, address)?;
        let played = Played {
            address,
            services,
            containers,
        };
        Ok((played, seen))
    }

    /// What the kubelet does with readiness probes.
    fn await_ready(&self, pod: &Pod<'_>, address: IpAddr) {
        let lab = self.lab.borrow();
        for (port, path) in pod.readiness() {
            let page = (address, port).into();
            eventually(READY, || match lab.node(Node::One).get(page, path) {
                Ok(answer) if answer.status == 200 => Ok(()),
                other => Err(format!("{page}{path}: {other:?}")),
            });
        }
    }

    /// What kube-proxy and the cluster's DNS do with Services.
    fn serve(
        &self,
        manifest: &Manifest,
        pod: &Pod<'_>,
        address: IpAddr,
    ) -> Result<Vec<Service>, Failed> {
        let mut lab = self.lab.borrow_mut();
        let mut services = Vec::new();
        for service in manifest.services() {
            if !service.selects(pod) {
                let (name, owner) = (service.name(), pod.owner());
                return Err(format!("Service {name} does not select the pod of {owner}").into());
            }
            let made = lab.add_service_to(address, &service.ports(pod)?)?;
            let name = format!("{}.default.svc.cluster.local", service.name());
            let cluster_ip = vec![made.address(Family::Ipv4)];
            lab.resolver()
                .answer(&name, 30, Answer::Addresses(cluster_ip));
            services.push(made);
        }
        Ok(services)
    }

    /// Plays a client pod.
    pub(crate) fn client(&self, manifest: &Manifest) -> Result<Client<'_>, Failed> {
        let client = self.play(manifest)?;
        Ok(Client::new(&self.machine, &client.containers[0].name))
    }

    /// Plays a client pod as unprivileged as those of this repository are.
    pub(crate) fn unprivileged_client(&self, manifest: &Manifest) -> Result<Client<'_>, Failed> {
        let client = self.play(manifest)?;
        confinement::is_unprivileged(&self.machine, &client.containers[0])?;
        Ok(Client::new(&self.machine, &client.containers[0].name))
    }

    /// The lab.
    pub(crate) fn lab(&self) -> std::cell::Ref<'_, Lab> {
        self.lab.borrow()
    }

    /// Everybody whom the outside ever saw is this address.
    pub(crate) fn saw_only(&self, source: IpAddr) -> Result<(), Failed> {
        let seen: Vec<Seen> = self.sites.iter().flat_map(Site::seen).collect();
        if seen.is_empty() || seen.iter().any(|seen| seen.client.ip() != source) {
            return Err(format!("the outside saw {seen:?}, not only {source}").into());
        }
        Ok(())
    }
}
