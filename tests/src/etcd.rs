//! A real etcd, each of its members on a host of its own, with certificates or users.

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cluster::Wire;
use crate::mesh::PATIENCE;
use crate::{Daemon, Host};

/// What the keys of the cluster begin with.
pub const PREFIX: &str = "/netcore/mesh";

/// Where it, and every node, has its certificates.
pub(crate) const PKI: &str = "/run/pki";

/// How often to ask whether it is up.
const PACE: Duration = Duration::from_millis(50);

/// How etcd and those who ask it know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// They do not.
    None,
    /// By certificates, both ways.
    Certificates,
    /// By the user `agent` and its password.
    Password,
}

/// etcd, with what it stores.
pub struct Etcd {
    pub(crate) trust: Trust,
    wire: Wire,
    members: Vec<Member>,
}

struct Member {
    host: Host,
    daemon: Option<Daemon>,
}

impl Etcd {
    /// Starts a member on each of `hosts`, which have their addresses.
    pub(crate) fn new(hosts: Vec<Host>, wire: Wire, trust: Trust) -> Self {
        let members = hosts.into_iter().map(|host| Member { host, daemon: None }).collect();
        let mut etcd = Self { trust: Trust::None, wire, members };
        if trust == Trust::Certificates {
            etcd.host().run(&format!(
                "mkdir -p {PKI} && cd {PKI}
                 key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
                 openssl req -x509 $key -keyout ca.key -out ca.pem -subj /CN=authority -days 2 2>/dev/null
                 for who in etcd node; do
                     openssl req $key -keyout $who.key -out $who.csr -subj /CN=$who 2>/dev/null
                     echo 'subjectAltName=IP:{}' >ext
                     openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out $who.pem -days 2 \
                         -extfile ext 2>/dev/null
                 done",
                wire.registry(0)
            ));
            etcd.trust = trust;
        }
        etcd.start();
        if trust == Trust::Password {
            etcd.ctl("user add root:secret");
            etcd.ctl("role add mesh");
            etcd.ctl(&format!("role grant-permission mesh --prefix=true readwrite {PREFIX}"));
            etcd.ctl("user add agent:word");
            etcd.ctl("user grant-role agent mesh");
            etcd.ctl("auth enable");
            etcd.trust = trust;
        }
        etcd
    }

    /// Starts all of it, with what it stored before.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(&mut self) {
        (0..self.members.len()).for_each(|member| self.launch(member));
        self.await_members();
    }

    /// Starts one member, with what it stored before.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_member(&mut self, member: usize) {
        self.launch(member);
        self.await_members();
    }

    fn launch(&mut self, number: usize) {
        let url = self.endpoint(number);
        // Alone, it talks to nobody.
        let alone = self.members.len() == 1;
        let peer = |member: usize| match alone {
            true => "http://127.0.0.1:2380".to_owned(),
            false => format!("http://{}", SocketAddr::new(self.wire.registry(member), 2380)),
        };
        let all: Vec<String> = (0..self.members.len()).map(|other| format!("m{other}={}", peer(other))).collect();
        let mut command = Command::new("etcd");
        command.args(["--name", &format!("m{number}"), "--data-dir", "/run/etcd", "--log-level", "error"]);
        command.args(["--listen-peer-urls", &peer(number), "--initial-advertise-peer-urls", &peer(number)]);
        command.args(["--initial-cluster", &all.join(",")]);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
        if self.trust == Trust::Certificates {
            let path = |name: &str| format!("{PKI}/{name}");
            command.args(["--cert-file", &path("etcd.pem"), "--key-file", &path("etcd.key")]);
            command.args(["--client-cert-auth", "--trusted-ca-file", &path("ca.pem")]);
        }
        let member = &mut self.members[number];
        member.daemon = Some(Daemon::start(member.host.namespaces(), &mut command));
    }

    /// Waits for those that were started. One that gives up meanwhile is started again, as a service manager
    /// would.
    fn await_members(&mut self) {
        let start = Instant::now();
        for member in 0..self.members.len() {
            while self.members[member].daemon.is_some() && self.try_ctl(&self.endpoint(member), "get /").is_none() {
                assert!(start.elapsed() < PATIENCE, "etcd is not up within {PATIENCE:?}:\n{}", self.said());
                for other in 0..self.members.len() {
                    if self.members[other].daemon.as_mut().is_some_and(|daemon| daemon.ended().is_some()) {
                        eprintln!("etcd has ended, and is started again:\n{}", self.said());
                        self.launch(other);
                    }
                }
                std::thread::sleep(PACE);
            }
        }
    }

    /// What its members have said.
    fn said(&self) -> String {
        let said =
            |(number, member): (usize, &Member)| Some(format!("m{number}: {}\n", member.daemon.as_ref()?.said()));
        self.members.iter().enumerate().filter_map(said).collect()
    }

    /// Kills all of it.
    pub fn kill(&mut self) {
        (0..self.members.len()).for_each(|member| self.kill_member(member));
    }

    /// Kills one member.
    pub fn kill_member(&mut self, member: usize) {
        self.members[member].daemon = None;
    }

    /// Forgets everything it stored. It must not be up.
    pub fn forget(&self) {
        self.members.iter().for_each(|member| drop(member.host.run("rm -rf /run/etcd")));
    }

    /// The host of its first member.
    pub(crate) fn host(&self) -> &Host {
        &self.members[0].host
    }

    /// Where a member, counted from 0, is asked.
    #[must_use]
    pub fn endpoint(&self, member: usize) -> String {
        format!("{}://{}", self.scheme(), SocketAddr::new(self.wire.registry(member), 2379))
    }

    /// What `etcdctl` says to `arguments`.
    ///
    /// # Panics
    /// When it fails.
    pub fn ctl(&self, arguments: &str) -> String {
        let up = self.members.iter().position(|member| member.daemon.is_some()).unwrap_or(0);
        self.try_ctl(&self.endpoint(up), arguments).unwrap_or_else(|| panic!("etcdctl {arguments}"))
    }

    fn try_ctl(&self, endpoint: &str, arguments: &str) -> Option<String> {
        let proof = match self.trust {
            Trust::None => String::new(),
            Trust::Certificates => format!("--cacert {PKI}/ca.pem --cert {PKI}/node.pem --key {PKI}/node.key"),
            Trust::Password => "--user root:secret".to_owned(),
        };
        let command =
            format!("ETCDCTL_API=3 etcdctl --endpoints {endpoint} --dial-timeout 1s {proof} {arguments} 2>&1");
        let output = self.host().try_run(&command);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What a network's configuration says about it.
    #[must_use]
    pub fn source(&self) -> Value {
        // A member that is not there comes first.
        let nobody = (self.trust == Trust::Certificates).then(|| self.endpoint(self.members.len()));
        let members = (0..self.members.len()).map(|member| self.endpoint(member));
        let endpoints: Vec<String> = nobody.into_iter().chain(members).collect();
        let mut etcd = json!({ "endpoints": endpoints, "prefix": PREFIX });
        match self.trust {
            Trust::None => {}
            Trust::Certificates => {
                let path = |name: &str| format!("{PKI}/{name}");
                etcd["tls"] = json!({ "ca": path("ca.pem"), "cert": path("node.pem"), "key": path("node.key") });
            }
            Trust::Password => {
                etcd["user"] = json!("agent");
                etcd["password"] = json!("word");
            }
        }
        json!({ "etcd": etcd })
    }

    fn scheme(&self) -> &'static str {
        if self.trust == Trust::Certificates { "https" } else { "http" }
    }
}
