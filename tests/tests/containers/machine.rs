//! The node that runs containers: podman in the network namespace of a node of
//! the lab, with mounts and processes of its own.
//!
//! Its first process dies with the test, and with it, by the kernel, all that
//! it started; its files are in a tmpfs of its mount namespace. Nothing has to
//! be cleaned up, and nothing of the machine's own podman is seen or touched.

use std::{
    collections::HashSet,
    env,
    fmt::Write,
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
    time::Duration,
};

use egress_lab::{Command, Host, Output, Process, harness::libtest_mimic::Failed};
use serde_json::Value;

use crate::{
    image::{self, StandIn},
    manifest::{Manifest, text},
    requirements::{CNI_PLUGINS, PATH},
    runtime,
};

/// All of the node's state.
const STATE: &str = "/run/node";

/// What the first process does before it waits for its children. `$1` is this
/// test program: it may lie in a folder that is covered here.
const BOOT: &str = r#"
set -eu
cd /
mount -t tmpfs -o mode=755 node /run
mkdir -p /run/netns /run/lock /run/node/containers /run/node/net.d /run/node/.config/containers
touch /run/node/oci-runtime
mount --bind "$1" /run/node/oci-runtime
mount -t tmpfs -o mode=1777 node /dev/shm
mount -t tmpfs -o mode=755 node /var/lib
mkdir /var/lib/cni
# Podman finds cgroups that are only files, runc finds none: see runtime.rs.
while umount -R /sys/fs/cgroup 2>/dev/null; do :; done
mount -t tmpfs -o mode=755 node /sys/fs/cgroup
echo ready
exec catatonit -P
"#;

/// Pods get addresses that the lab gives to none of its own.
const POD_RANGE: (u8, u8) = (100, 200);

/// How long anything that podman does may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A node with podman.
pub(crate) struct Machine {
    host: Host,
    first: Process,
    images: Mutex<HashSet<String>>,
}

/// A container that is there.
#[derive(Debug)]
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) pod: String,
    /// Process id on the node; 0 when it does not run.
    pub(crate) pid: i64,
    pub(crate) state: String,
    id: String,
    is_infra: bool,
}

impl Container {
    /// Whether it only holds the pod's network.
    pub(crate) fn is_infra(&self) -> bool {
        self.is_infra
    }
}

impl Machine {
    /// Starts podman's node on `host`, whose pods are on the bridge `cni0` and
    /// ask `name_server`; every pod gets these sysctls.
    pub(crate) fn start(
        host: &Host,
        bridge_network: ipnet::Ipv4Net,
        name_server: IpAddr,
        sysctls: &[(&str, &str)],
    ) -> Result<Self, Failed> {
        let first = host
            .command("/bin/sh")
            .env("PATH", PATH)
            .arg("-c")
            .arg(BOOT)
            .arg("boot")
            .arg(env::current_exe()?.display().to_string())
            .own_pid_namespace()
            .spawn()?;
        first.await_stdout("ready", DEADLINE)?;
        let machine = Self {
            host: host.clone(),
            first,
            images: Mutex::default(),
        };
        machine.configure(bridge_network, name_server, sysctls)?;
        Ok(machine)
    }

    fn configure(
        &self,
        network: ipnet::Ipv4Net,
        name_server: IpAddr,
        sysctls: &[(&str, &str)],
    ) -> Result<(), Failed> {
        let mut default_sysctls = String::new();
        for (name, value) in sysctls {
            write!(default_sysctls, "\"{name}={value}\",")?;
        }
        let engine = format!(
            r#"[containers]
log_driver = "k8s-file"
default_sysctls = [{default_sysctls}]
dns_servers = ["{name_server}"]
dns_searches = ["default.svc.cluster.local", "svc.cluster.local", "cluster.local"]
dns_options = ["ndots:5"]
[network]
network_backend = "cni"
cni_plugin_dirs = {CNI_PLUGINS:?}
network_config_dir = "{STATE}/net.d"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "node"
[engine.runtimes]
node = ["{STATE}/runtime"]
"#
        );
        let octets = network.addr().octets();
        let address = |last| IpAddr::from([octets[0], octets[1], octets[2], last]);
        let (first, last) = POD_RANGE;
        let cni = serde_json::json!({
            "cniVersion": "0.4.0",
            "name": "node",
            "plugins": [{
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "ranges": [[{
                        "subnet": network.trunc(),
                        "gateway": address(1),
                        "rangeStart": address(first),
                        "rangeEnd": address(last),
                    }]],
                },
            }],
        });
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        let command = runtime::COMMAND;
        let wrapper = format!("#!/bin/sh\nexec {STATE}/oci-runtime {command} \"$@\"\n");
        self.write("containers.conf", &engine)?;
        self.write("net.d/node.conflist", &cni.to_string())?;
        self.write(".config/containers/policy.json", policy)?;
        self.write("registries.conf", "")?;
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{STATE}/storage\"\n\
             runroot = \"{STATE}/runroot\"\n"
        );
        self.write("storage.conf", &storage)?;
        self.write("runtime", &wrapper)?;
        let runtime = self.state().join("runtime");
        Ok(fs::set_permissions(
            runtime,
            fs::Permissions::from_mode(0o755),
        )?)
    }

    /// The node's root, as seen from outside.
    pub(crate) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.first.pid()))
    }

    /// The node's `/proc` of a process of it.
    pub(crate) fn process(&self, pid: i64) -> PathBuf {
        self.root().join("proc").join(pid.to_string())
    }

    fn state(&self) -> PathBuf {
        self.root().join(STATE.trim_start_matches('/'))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), Failed> {
        Ok(fs::write(self.state().join(name), text)?)
    }

    fn podman(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.host.netns(), "/usr/bin/nsenter")
            .env("PATH", PATH)
            .env("HOME", STATE)
            .env("TMPDIR", STATE)
            .env("CONTAINERS_CONF", format!("{STATE}/containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", format!("{STATE}/storage.conf"))
            .env(
                "CONTAINERS_REGISTRIES_CONF",
                format!("{STATE}/registries.conf"),
            )
            .deadline(DEADLINE);
        let target = self.first.pid().to_string();
        let root = format!("{STATE}/storage");
        let run_root = format!("{STATE}/runroot");
        let temporary = format!("{STATE}/tmp");
        let enter = [
            "--target", &target, "--mount", "--pid", "--root", "--wd", "podman",
        ];
        let global = [
            "--storage-driver",
            "vfs",
            "--root",
            &root,
            "--runroot",
            &run_root,
            "--tmpdir",
            &temporary,
        ];
        for argument in enter.iter().chain(&global).chain(arguments) {
            command = command.arg(*argument);
        }
        command
    }

    /// What podman prints.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Result<String, Failed> {
        let output = self.podman(arguments).run()?;
        match output.code {
            0 => Ok(output.stdout),
            _ => Err(self.failed(arguments, &output)),
        }
    }

    fn failed(&self, arguments: &[&str], output: &Output) -> Failed {
        format!(
            "podman {}: exit code {}\n{}{}",
            arguments.join(" "),
            output.code,
            output.stderr,
            self.logs()
        )
        .into()
    }

    /// Everything that containers wrote, those that are gone too.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        let records = self.root().join(runtime::RECORDS.trim_start_matches('/'));
        for entry in fs::read_dir(records).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "log") {
                let log = fs::read_to_string(&path).unwrap_or_default();
                let record = Record::read(&path.with_extension("json"));
                let arguments = record.map(|record| record.arguments().join(" "));
                let _ = write!(text, "--- {}\n{log}", arguments.unwrap_or_default());
            }
        }
        text
    }

    /// Brings the images of a manifest to the node, those that are not ours by
    /// `stand_in`.
    pub(crate) fn provide(
        &self,
        manifest: &Manifest,
        stand_in: impl Fn(&str) -> Result<StandIn, Failed>,
    ) -> Result<(), Failed> {
        for reference in manifest.images() {
            if !self.images.lock().unwrap().insert(reference.to_owned()) {
                continue;
            }
            let name = reference
                .strip_prefix("localhost/")
                .and_then(|name| name.split(':').next())
                .ok_or_else(|| format!("image {reference} is not replaced"))?;
            let tar = format!("{STATE}/{name}.tar");
            let copy = self.state().join(format!("{name}.tar"));
            if image::ARCHIVES.contains(&name) {
                fs::copy(image::archive(name), &copy)?;
                self.ask(&["load", "--quiet", "--input", &tar])?;
                self.ask(&["image", "exists", reference])?;
            } else {
                let image = stand_in(name)?;
                fs::copy(&image.root, &copy)?;
                let mut arguments = vec!["import", "--quiet"];
                for change in image.changes {
                    arguments.extend(["--change", change]);
                }
                arguments.extend([tar.as_str(), reference]);
                self.ask(&arguments)?;
            }
            fs::remove_file(copy)?;
        }
        Ok(())
    }

    /// `podman kube play`; returns when init containers are done and the others
    /// started. `watch` looks on meanwhile.
    pub(crate) fn play<T>(
        &self,
        manifest: &Manifest,
        watch: impl FnOnce(&Process) -> T,
    ) -> Result<T, Failed> {
        self.write("manifest.yaml", manifest.text())?;
        let file = format!("{STATE}/manifest.yaml");
        let arguments = ["kube", "play", "--quiet", "--network", "node", &file];
        let process = self.podman(&arguments).spawn()?;
        let seen = watch(&process);
        let output = process.wait()?;
        match output.code {
            0 => Ok(seen),
            _ => Err(self.failed(&arguments, &output)),
        }
    }

    /// Containers of the pods that podman made, running or not.
    pub(crate) fn containers(&self) -> Result<Vec<Container>, Failed> {
        let listed: Value =
            serde_json::from_str(&self.ask(&["ps", "--all", "--pod", "--format", "json"])?)?;
        let containers = listed.as_array().ok_or("podman ps lists nothing")?.iter();
        Ok(containers
            .map(|container| Container {
                name: text(&container["Names"][0]).to_owned(),
                pod: text(&container["PodName"]).to_owned(),
                pid: container["Pid"].as_i64().unwrap_or_default(),
                state: text(&container["State"]).to_owned(),
                id: text(&container["Id"]).to_owned(),
                is_infra: container["IsInfra"] == true,
            })
            .collect())
    }

    /// Address of a pod.
    pub(crate) fn address(&self, pod: &str) -> Result<IpAddr, Failed> {
        let containers = self.containers()?;
        let infra = containers
            .iter()
            .find(|container| container.is_infra && container.pod == pod)
            .ok_or_else(|| format!("pod {pod} has no network: {containers:?}"))?;
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = self.ask(&["inspect", "--format", format, &infra.id])?;
        Ok(address.trim().parse()?)
    }

    /// Folder of a played `ConfigMap`.
    pub(crate) fn config_map(&self, name: &str) -> PathBuf {
        self.state()
            .join("storage/volumes")
            .join(name)
            .join("_data")
    }

    /// What the runtime was asked for, of each container so far.
    pub(crate) fn records(&self) -> Result<Vec<Record>, Failed> {
        let folder = self.root().join(runtime::RECORDS.trim_start_matches('/'));
        let mut records = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "json")
            {
                records.push(Record::read(&path)?);
            }
        }
        Ok(records)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{}", self.logs());
        }
    }
}

/// The OCI configuration of a container as podman asked for it.
pub(crate) struct Record(pub(crate) Value);

impl Record {
    fn read(path: &Path) -> Result<Self, Failed> {
        Ok(Self(serde_json::from_slice(&fs::read(path)?)?))
    }

    pub(crate) fn arguments(&self) -> Vec<&str> {
        crate::manifest::array(&self.0["process"]["args"])
            .iter()
            .map(text)
            .collect()
    }
}
