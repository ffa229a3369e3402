//! A real etcd on a host of its own, with certificates or users.

use std::process::Command;

use serde_json::{Value, json};

use crate::mesh::PATIENCE;
use crate::{Daemon, Host, wait_for};

/// What the keys of the cluster begin with.
pub const PREFIX: &str = "/netcore/mesh";

/// Where it is.
pub(crate) const ADDRESS: &str = "192.0.2.100";
/// Where it, and every node, has its certificates.
pub(crate) const PKI: &str = "/run/pki";

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
    pub(crate) host: Host,
    pub(crate) trust: Trust,
    daemon: Option<Daemon>,
}

impl Etcd {
    /// Starts it on `host`, which has its address.
    pub(crate) fn new(host: Host, trust: Trust) -> Self {
        let mut etcd = Self { host, trust: Trust::None, daemon: None };
        if trust == Trust::Certificates {
            etcd.host.run(&format!(
                "mkdir -p {PKI} && cd {PKI}
                 key='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
                 openssl req -x509 $key -keyout ca.key -out ca.pem -subj /CN=authority -days 2 2>/dev/null
                 for who in etcd node; do
                     openssl req $key -keyout $who.key -out $who.csr -subj /CN=$who 2>/dev/null
                     echo 'subjectAltName=IP:{ADDRESS}' >ext
                     openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out $who.pem -days 2 \
                         -extfile ext 2>/dev/null
                 done"
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

    /// Starts it, with what it stored before.
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start(&mut self) {
        let scheme = self.scheme();
        let url = format!("{scheme}://{ADDRESS}:2379");
        let mut command = Command::new("etcd");
        command.args(["--data-dir", "/run/etcd", "--listen-peer-urls", "http://127.0.0.1:2380"]);
        command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--log-level", "error"]);
        if self.trust == Trust::Certificates {
            let path = |name: &str| format!("{PKI}/{name}");
            command.args(["--cert-file", &path("etcd.pem"), "--key-file", &path("etcd.key")]);
            command.args(["--client-cert-auth", "--trusted-ca-file", &path("ca.pem")]);
        }
        self.daemon = Some(Daemon::start(self.host.namespaces(), &mut command));
        wait_for("etcd is up", PATIENCE, || self.try_ctl("get /").is_some());
    }

    /// Kills it.
    pub fn kill(&mut self) {
        self.daemon = None;
    }

    /// Forgets everything it stored. It must not be up.
    pub fn forget(&self) {
        self.host.run("rm -rf /run/etcd");
    }

    /// What `etcdctl` says to `arguments`.
    ///
    /// # Panics
    /// When it fails.
    pub fn ctl(&self, arguments: &str) -> String {
        self.try_ctl(arguments).unwrap_or_else(|| panic!("etcdctl {arguments}"))
    }

    fn try_ctl(&self, arguments: &str) -> Option<String> {
        let proof = match self.trust {
            Trust::None => String::new(),
            Trust::Certificates => format!("--cacert {PKI}/ca.pem --cert {PKI}/node.pem --key {PKI}/node.key"),
            Trust::Password => "--user root:secret".to_owned(),
        };
        let endpoint = format!("{}://{ADDRESS}:2379", self.scheme());
        let command =
            format!("ETCDCTL_API=3 etcdctl --endpoints {endpoint} --dial-timeout 1s {proof} {arguments} 2>&1");
        let output = self.host.try_run(&command);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// What a network's configuration says about it.
    #[must_use]
    pub fn source(&self) -> Value {
        // A member that is not there comes first.
        let scheme = self.scheme();
        let endpoints = [format!("{scheme}://192.0.2.99:2379"), format!("{scheme}://{ADDRESS}:2379")];
        let endpoints = if self.trust == Trust::Certificates { &endpoints[..] } else { &endpoints[1..] };
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
