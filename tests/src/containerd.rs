//! containerd, driven over CRI as a kubelet does it, on a [`Host`] of its own. The few calls and
//! messages that are needed are written out here (kubernetes/cri-api, `runtime/v1/api.proto`).

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use serde_json::{Value, json};

use crate::podman::busybox_rootfs;
use crate::processes::wait_for;
use crate::{Daemon, Host, Netns, Network, binaries};

const HOME: &str = "/run/cri";
const SOCKET: &str = "/run/cri/containerd.sock";
const PATIENCE: Duration = Duration::from_secs(30);

/// A running containerd whose state is in the host's own `/run`.
pub struct Containerd {
    host: Host,
    daemon: Daemon,
    runtime: tokio::runtime::Runtime,
}

/// What containerd said no with.
#[derive(Debug)]
pub struct Status {
    /// The gRPC status code.
    pub code: String,
    /// The message.
    pub message: String,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gRPC status {}: {}", self.code, self.message)
    }
}

/// A pod sandbox to run.
#[derive(Clone, Debug, Default)]
pub struct Pod {
    name: String,
    ports: Vec<PortMapping>,
}

impl Pod {
    /// A pod.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), ports: Vec::new() }
    }

    /// With a `hostPort`, over TCP.
    #[must_use]
    pub fn host_port(mut self, host_port: u16, container_port: u16) -> Self {
        let (host_port, container_port) = (host_port.into(), container_port.into());
        self.ports.push(PortMapping { protocol: 0, container_port, host_port, host_ip: String::new() });
        self
    }
}

impl Containerd {
    /// Why containerd cannot be used here, if it cannot.
    #[must_use]
    pub fn missing() -> Option<String> {
        let programs = ["containerd", "ctr", "runc", "busybox"];
        let program = programs.into_iter().find(|program| !binaries::installed(program))?;
        Some(format!("{program} is not installed"))
    }

    /// Starts one on `host` with `network`.
    ///
    /// # Panics
    /// When it does not come up.
    #[must_use]
    pub fn on(host: &Host, network: &Network) -> Self {
        let (ours, reference) = (binaries::under_test(), binaries::reference());
        host.enter(|| {
            for directory in ["bin", "networks"] {
                fs::create_dir_all(format!("{HOME}/{directory}")).expect("create containerd's directory");
            }
            let link = |path: &std::path::Path, name: &str| symlink(path, format!("{HOME}/bin/{name}"));
            for (name, program) in binaries::PLUGINS {
                link(&ours.join(program), name).expect("link a plugin");
            }
            for name in ["portmap", "host-local", "firewall", "tuning"] {
                if let Some(reference) = &reference {
                    link(&reference.join(name), name).expect("link a reference plugin");
                }
            }
            fs::write(format!("{HOME}/networks/10-test.conflist"), network.conflist()).expect("write the conflist");
            fs::write(format!("{HOME}/config.toml"), CONFIGURATION).expect("write config.toml");
        });
        let mut command = Command::new("containerd");
        let daemon = Daemon::start(host.namespaces(), command.args(["--config", &format!("{HOME}/config.toml")]));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("an async runtime");
        let containerd = Self { host: host.clone(), daemon, runtime };
        wait_for("containerd listens", PATIENCE, || host.enter(|| UnixStream::connect(SOCKET).is_ok()));
        host.run(&pause_image());
        host.run(&format!("ctr -a {SOCKET} -n k8s.io images import {HOME}/pause.tar"));
        wait_for("containerd has read the conflist", PATIENCE, || containerd.network_ready());
        containerd
    }

    /// Puts `network` in the place of the one there is, and waits until it is noticed.
    ///
    /// # Panics
    /// When it is not.
    pub fn change_network(&self, network: &Network) {
        let path = format!("{HOME}/networks/10-test.conflist");
        self.host.enter(|| {
            fs::write(format!("{path}.new"), network.conflist()).expect("write the conflist");
            fs::rename(format!("{path}.new"), &path).expect("move the conflist");
        });
        wait_for("containerd has read the new conflist", PATIENCE, || {
            let status: Result<StatusResponse, Status> = self.call("Status", &StatusRequest { verbose: true });
            status.is_ok_and(|status| {
                let networks = status.info.get("cniconfig").map(String::as_str).unwrap_or_default();
                let networks: Value = serde_json::from_str(networks).unwrap_or_default();
                networks["Networks"].as_array().into_iter().flatten().any(|one| one["Config"]["Name"] == network.name())
            })
        });
    }

    /// `RunPodSandbox`: its id.
    ///
    /// # Errors
    /// What containerd says; a failing ADD is in it.
    pub fn run(&self, pod: &Pod) -> Result<String, Status> {
        let config = config_of(pod);
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        let response: RunPodSandboxResponse = self.call("RunPodSandbox", &request)?;
        Ok(response.pod_sandbox_id)
    }

    /// `StopPodSandbox`.
    ///
    /// # Errors
    /// What containerd says; a failing DEL is in it.
    pub fn stop(&self, id: &str) -> Result<(), Status> {
        self.call::<Nothing>("StopPodSandbox", &PodSandboxRequest { pod_sandbox_id: id.to_owned() }).map(drop)
    }

    /// `RemovePodSandbox`.
    ///
    /// # Errors
    /// What containerd says; a failing DEL is in it.
    pub fn remove(&self, id: &str) -> Result<(), Status> {
        self.call::<Nothing>("RemovePodSandbox", &PodSandboxRequest { pod_sandbox_id: id.to_owned() }).map(drop)
    }

    /// The addresses and the network namespace of a running pod.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn inspect(&self, id: &str) -> (Vec<std::net::IpAddr>, Netns) {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let response: PodSandboxStatusResponse = self.call("PodSandboxStatus", &request).expect("the pod's status");
        let network = response.status.and_then(|status| status.network).expect("the pod has a network");
        let more = network.additional_ips.iter().map(|ip| ip.ip.clone());
        let addresses = std::iter::once(network.ip).chain(more).filter_map(|ip| ip.parse().ok()).collect();
        let info: Value = serde_json::from_str(&response.info["info"]).expect("verbose information is JSON");
        let namespaces = info["runtimeSpec"]["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
        let network = namespaces.iter().find(|namespace| namespace["type"] == "network").expect("a network namespace");
        let path = network["path"].as_str().unwrap_or_default();
        (addresses, self.host.adopt(path.rsplit('/').next().unwrap_or_default()))
    }

    /// What containerd has logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.daemon.said()
    }

    fn network_ready(&self) -> bool {
        let status: Result<StatusResponse, Status> = self.call("Status", &Nothing {});
        let conditions =
            status.ok().and_then(|status| status.status).map(|status| status.conditions).unwrap_or_default();
        conditions.iter().any(|condition| condition.r#type == "NetworkReady" && condition.status)
    }

    /// One gRPC call (grpc/doc/PROTOCOL-HTTP2.md): a POST of one message with its length.
    fn call<Response: Message + Default>(&self, method: &str, request: &impl Message) -> Result<Response, Status> {
        let stream = self.host.enter(|| UnixStream::connect(SOCKET)).expect("connect to containerd");
        stream.set_nonblocking(true).expect("a non-blocking socket");
        let body = framed(request);
        let exchange = async {
            let stream = tokio::net::UnixStream::from_std(stream).map_err(|error| h2_error(&error))?;
            let (mut client, connection) = h2::client::handshake(stream).await.map_err(|error| h2_error(&error))?;
            tokio::spawn(connection);
            let head = http::Request::post(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .body(())
                .expect("a request");
            let (response, mut send) = client.send_request(head, false).map_err(|error| h2_error(&error))?;
            send.send_data(body, true).map_err(|error| h2_error(&error))?;
            let (head, mut body) = response.await.map_err(|error| h2_error(&error))?.into_parts();
            let mut received = BytesMut::new();
            while let Some(chunk) = body.data().await {
                let chunk = chunk.map_err(|error| h2_error(&error))?;
                let _ = body.flow_control().release_capacity(chunk.len());
                received.extend_from_slice(&chunk);
            }
            let trailers = body.trailers().await.map_err(|error| h2_error(&error))?.unwrap_or(head.headers);
            let text =
                |name: &str| trailers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
            match text("grpc-status").as_str() {
                "0" => Response::decode(received.get(5..).unwrap_or_default()).map_err(|error| h2_error(&error)),
                code => Err(Status { code: code.to_owned(), message: text("grpc-message") }),
            }
        };
        let timed = async { tokio::time::timeout(PATIENCE, exchange).await };
        self.runtime
            .block_on(timed)
            .unwrap_or_else(|_| panic!("{method}: no answer within {PATIENCE:?}:\n{}", self.log()))
    }
}

fn h2_error(error: &dyn fmt::Display) -> Status {
    Status { code: "transport".to_owned(), message: error.to_string() }
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(0); // not compressed
    frame.put_u32(u32::try_from(length).expect("a small message"));
    message.encode(&mut frame).expect("room for the message");
    frame.freeze()
}

fn config_of(pod: &Pod) -> PodSandboxConfig {
    let name = pod.name.clone();
    PodSandboxConfig {
        metadata: Some(Metadata { uid: name.clone(), namespace: "default".to_owned(), name, attempt: 0 }),
        hostname: String::new(),
        log_directory: String::new(),
        port_mappings: pod.ports.clone(),
    }
}

const CONFIGURATION: &str = r#"
version = 2
root = "/run/cri/root"
state = "/run/cri/state"
[grpc]
  address = "/run/cri/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  disable_apparmor = true
  disable_cgroup = true
  restrict_oom_score_adj = true
  sandbox_image = "localhost/pause:1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/run/cri/bin"
    conf_dir = "/run/cri/networks"
"#;

/// Commands that make an image that sleeps, in the format of `docker save`.
fn pause_image() -> String {
    let image = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": { "Entrypoint": ["/bin/sleep", "1000000"] },
        "rootfs": { "type": "layers", "diff_ids": ["sha256:DIGEST"] },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["localhost/pause:1"], "Layers": ["rootfs.tar"] }]);
    let rootfs = busybox_rootfs("/run/cri/image/rootfs");
    format!(
        "mkdir -p {HOME}/image
         {rootfs}
         cd {HOME}/image
         digest=$(sha256sum rootfs.tar | cut -d' ' -f1)
         echo '{image}' | sed s/DIGEST/$digest/ > config.json
         echo '{manifest}' > manifest.json
         tar -cf {HOME}/pause.tar manifest.json config.json rootfs.tar"
    )
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
    #[prost(string, tag = "2")]
    runtime_handler: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    metadata: Option<Metadata>,
    #[prost(string, tag = "2")]
    hostname: String,
    #[prost(string, tag = "3")]
    log_directory: String,
    #[prost(message, repeated, tag = "5")]
    port_mappings: Vec<PortMapping>,
}

#[derive(Clone, PartialEq, Message)]
struct Metadata {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(string, tag = "3")]
    namespace: String,
    #[prost(uint32, tag = "4")]
    attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
struct PortMapping {
    #[prost(int32, tag = "1")]
    protocol: i32,
    #[prost(int32, tag = "2")]
    container_port: i32,
    #[prost(int32, tag = "3")]
    host_port: i32,
    #[prost(string, tag = "4")]
    host_ip: String,
}

#[derive(Clone, PartialEq, Message)]
struct RunPodSandboxResponse {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
}

/// `StopPodSandboxRequest` and `RemovePodSandboxRequest`.
#[derive(Clone, PartialEq, Message)]
struct PodSandboxRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatusRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(bool, tag = "2")]
    verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<PodSandboxStatus>,
    #[prost(map = "string, string", tag = "2")]
    info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxStatus {
    #[prost(message, optional, tag = "5")]
    network: Option<PodSandboxNetworkStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct PodSandboxNetworkStatus {
    #[prost(string, tag = "1")]
    ip: String,
    #[prost(message, repeated, tag = "2")]
    additional_ips: Vec<PodIp>,
}

#[derive(Clone, PartialEq, Message)]
struct PodIp {
    #[prost(string, tag = "1")]
    ip: String,
}

#[derive(Clone, PartialEq, Message)]
struct StatusRequest {
    #[prost(bool, tag = "1")]
    verbose: bool,
}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RuntimeStatus>,
    #[prost(map = "string, string", tag = "2")]
    info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<RuntimeCondition>,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeCondition {
    #[prost(string, tag = "1")]
    r#type: String,
    #[prost(bool, tag = "2")]
    status: bool,
}

/// Any message nothing is taken from.
#[derive(Clone, PartialEq, Message)]
struct Nothing {}
