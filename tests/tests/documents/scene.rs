//! A cluster in which the example manifests of a mode were applied: their
//! programs run in the lab, with the environment, files and capabilities that
//! the manifests give them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use egress_lab::harness::libtest_mimic::Failed;
use egress_lab::{
    Answer, Capability, Cni, Command, Family, Host, Lab, Node, Origin, Output, Pod, Process,
    Protocol, Server, Volume, eventually, program,
};

use crate::manifest::{Container, Manifests};

/// What runs in the router's pods.
pub(crate) const PROGRAMS: [&str; 3] = [
    "egress-router-init",
    "egress-http-proxy",
    "egress-dns-proxy",
];

/// How long a program may take to get ready, or to log what it did.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// The name of the pod, and of what makes it, in every example.
pub(crate) const POD: &str = "egress-1";

/// The pod of a client.
pub(crate) const CLIENT: &str = "client-1";

/// Which examples were applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Setting {
    /// Redirects that an init container sets up.
    Redirect,
    /// Redirects of a router that stays.
    Stay,
    /// The HTTP proxy.
    HttpProxy,
    /// The DNS proxy.
    DnsProxy,
}

impl Setting {
    const ALL: [Self; 4] = [Self::Redirect, Self::Stay, Self::HttpProxy, Self::DnsProxy];

    /// The manifests: the pod, what it reads, its Service, and a client.
    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Redirect => &[
                "manifests/examples/redirect/pod.yaml",
                "manifests/examples/redirect/service.yaml",
            ],
            Self::Stay => &[
                "manifests/examples/redirect/live-reload.yaml",
                "manifests/examples/redirect/configmap.yaml",
                "manifests/examples/redirect/service.yaml",
            ],
            Self::HttpProxy => &[
                "manifests/examples/http-proxy/pod.yaml",
                "manifests/examples/http-proxy/service.yaml",
                "manifests/examples/http-proxy/client-pod.yaml",
            ],
            Self::DnsProxy => &[
                "manifests/examples/dns-proxy/pod.yaml",
                "manifests/examples/dns-proxy/service.yaml",
            ],
        }
    }

    /// The one that a file belongs to.
    pub(crate) fn of_file(file: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|setting| setting.files()[0] == file)
    }

    /// The one whose pod has such a container besides the router.
    pub(crate) fn of_container(name: &str) -> Option<Self> {
        match name {
            "wait" => Some(Self::Redirect),
            "http-proxy" => Some(Self::HttpProxy),
            "dns-proxy" => Some(Self::DnsProxy),
            _ => None,
        }
    }
}

/// The running cluster.
#[derive(Debug)]
pub(crate) struct Scene {
    manifests: Manifests,
    pod: Pod,
    client: Pod,
    volumes: Vec<(String, Volume)>,
    /// What the containers that have ended wrote.
    logs: BTreeMap<String, String>,
    processes: BTreeMap<String, Process>,
    _servers: Vec<Server>,
    _origins: Vec<Origin>,
    lab: Lab,
}

impl Scene {
    /// Applies the examples, and waits until the pod is ready. Arguments for
    /// the init container replace its own; a pod of which it only asks
    /// something is not set up.
    pub(crate) fn build(setting: Setting, init: Option<&[String]>) -> Result<Self, Failed> {
        let lab = Lab::builder()
            .cni(Cni::DefaultRoute)
            .families(&[Family::Ipv4])
            .outside_servers(3)
            .build()?;
        let (pod, client) = (lab.router_pod().clone(), lab.client(Node::Two).clone());
        let mut scene = Self {
            manifests: Manifests::read(setting.files()),
            pod,
            client,
            volumes: Vec::new(),
            logs: BTreeMap::new(),
            processes: BTreeMap::new(),
            _servers: Vec::new(),
            _origins: Vec::new(),
            lab,
        };
        scene.serve()?;
        scene.start(init)?;
        Ok(scene)
    }

    /// Names, the Service, and what answers outside.
    fn serve(&mut self) -> Result<(), Failed> {
        for (name, server) in [
            ("www.example.com", 0),
            ("log.example.com", 0),
            ("internal.example.com", 1),
            ("db.example.com", 1),
            ("api.example.net", 1),
        ] {
            let address = self.lab.outside(server).address(Family::Ipv4);
            let answer = Answer::Addresses(vec![address]);
            self.lab.resolver().answer(name, 60, answer);
        }
        // A host that no list names.
        let elsewhere = Answer::Addresses(vec![[198, 51, 100, 7].into()]);
        self.lab.resolver().answer("www.example.org", 60, elsewhere);
        let pod = self.pod.clone();
        let ports: Vec<_> = self
            .manifests
            .service_ports()
            .into_iter()
            .map(|(protocol, port)| (protocol.parse().unwrap(), port))
            .collect();
        let service = self.lab.add_service(&pod, &ports)?;
        self.lab.resolver().answer(
            "egress-1.default.svc.cluster.local",
            60,
            Answer::Addresses(vec![service.address(Family::Ipv4)]),
        );
        let open = [
            (Protocol::Tcp, 443),
            (Protocol::Tcp, 5432),
            (Protocol::Udp, 514),
        ];
        for index in 0..3 {
            let server = self.lab.outside(index).clone();
            let web = server.socket(Family::Ipv4, 80);
            self._origins.push(Origin::start(server.netns(), &[web])?);
            self._servers.push(server.serve(&open)?);
        }
        Ok(())
    }

    fn start(&mut self, init: Option<&[String]>) -> Result<(), Failed> {
        let manifests = self.manifests.clone();
        let pod = manifests.pod(POD);
        for container in manifests.init_containers(pod) {
            let arguments = init.map_or_else(|| container.arguments(), <[String]>::to_vec);
            let output = self
                .command(&container, container.image(), &arguments)?
                .run()?
                .expect(0);
            let log = format!("{}{}", output.stdout, output.stderr);
            self.logs.insert(container.name().to_owned(), log);
        }
        if init.is_some() {
            return Ok(());
        }
        for container in manifests.containers(pod) {
            for (name, value) in container.sysctls() {
                self.pod.netns().sysctl(&[(&name, &value)])?;
            }
            let command = self.command(&container, container.image(), &container.arguments())?;
            let process = command.spawn()?;
            if container.name() == "wait" {
                let _ = process.await_stderr("waiting for SIGTERM", DEADLINE)?;
            } else {
                let admin = SocketAddr::from(([127, 0, 0, 1], 9090));
                eventually(DEADLINE, || match self.pod.get(admin, "/readyz") {
                    Ok(page) if page.status == 200 => Ok(()),
                    Ok(page) => Err(page.body),
                    Err(error) => Err(error.to_string()),
                });
            }
            self.processes.insert(container.name().to_owned(), process);
        }
        Ok(())
    }

    /// A program in a container of the pod.
    fn command(
        &mut self,
        container: &Container<'_>,
        name: &str,
        arguments: &[String],
    ) -> Result<Command, Failed> {
        let mut environment = container.environment(&BTreeMap::new());
        for (folder, files) in container.mounts() {
            if !self.volumes.iter().any(|(mounted, _)| *mounted == folder) {
                let files: Vec<_> = files
                    .iter()
                    .map(|(name, text)| (name.as_str(), text.as_str()))
                    .collect();
                self.volumes.push((folder.clone(), Volume::new(&files)?));
            }
        }
        for value in environment.values_mut() {
            for (folder, volume) in &self.volumes {
                if let Some(file) = value.strip_prefix(&format!("{folder}/")) {
                    *value = volume.file(file).display().to_string();
                }
            }
        }
        // Lines of one worker are in their order.
        environment.insert("EGRESS_THREADS".to_owned(), "1".to_owned());
        if name == "egress-router-init" {
            environment.remove("EGRESS_THREADS");
        }
        let capabilities: &[Capability] = if container.is_network_admin() {
            &[Capability::NET_ADMIN, Capability::NET_RAW]
        } else {
            &[]
        };
        let command = self.pod.command(program(name)?).envs(environment);
        let command = arguments.iter().fold(command, Command::arg);
        Ok(command.capabilities(capabilities).read_only_proc_sys())
    }

    /// `kubectl exec`: a program in a container that runs, with its exit code.
    pub(crate) fn exec(
        &mut self,
        container: Option<&str>,
        name: &str,
        arguments: &[String],
    ) -> Result<Output, Failed> {
        let manifests = self.manifests.clone();
        let running = manifests.containers(manifests.pod(POD));
        let found = match container {
            Some(name) => running.iter().find(|container| container.name() == name),
            None => running.first(),
        };
        let found = found.ok_or_else(|| format!("no container {container:?} runs"))?;
        let name = name
            .strip_prefix('/')
            .ok_or("an image has no search path")?;
        assert_eq!(name, found.image(), "an image holds one program");
        Ok(self.command(found, name, arguments)?.run()?)
    }

    /// The same in the pod of a client, which has the programs of this machine.
    pub(crate) fn exec_in_client(
        &self,
        name: &str,
        arguments: &[String],
    ) -> Result<Output, Failed> {
        let mut command = self.client.command(PathBuf::from("/usr/bin").join(name));
        if self.has_proxy_clients() {
            let pod = self.manifests.pod(CLIENT);
            let known = [("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned())];
            for container in self.manifests.containers(pod) {
                command = command.envs(container.environment(&known.clone().into()));
            }
        }
        Ok(arguments.iter().fold(command, Command::arg).run()?)
    }

    fn has_proxy_clients(&self) -> bool {
        self.manifests.service_ports() == [("tcp".to_owned(), 8080)]
    }

    /// `kubectl logs`: what a container has written so far.
    pub(crate) fn logs(&self, container: Option<&str>) -> Result<String, Failed> {
        let first = self.processes.keys().next();
        let name = container
            .or(first.map(String::as_str))
            .ok_or("no container runs")?;
        if let Some(log) = self.logs.get(name) {
            return Ok(log.clone());
        }
        let process = self.processes.get(name);
        let process = process.ok_or_else(|| format!("no container {name}"))?;
        Ok(process.await_stderr("", DEADLINE)?)
    }

    /// `kubectl get --raw` through the API server: a page of the pod.
    pub(crate) fn page(&self, port: u16, path: &str) -> Result<egress_lab::Page, Failed> {
        let node: &Host = self.lab.node(Node::One);
        Ok(node.get(self.pod.socket(Family::Ipv4, port), path)?)
    }

    /// `kubectl debug --profile=netadmin`: a program of this machine in the
    /// pod's network, as root.
    pub(crate) fn debug(&self, name: &str, arguments: &[String]) -> Result<Output, Failed> {
        let command = self.pod.command(PathBuf::from("/usr/sbin").join(name));
        Ok(arguments.iter().fold(command, Command::arg).run()?)
    }

    /// The pod, to look at its metrics.
    pub(crate) fn metrics(&self) -> Result<String, Failed> {
        Ok(self.page(9090, "/metrics")?.body)
    }
}
