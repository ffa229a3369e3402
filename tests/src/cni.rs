//! A runtime, as libcni is one: it hands each plugin of a list its configuration with `name`,
//! `cniVersion`, `prevResult` and the capabilities it declared, in order for ADD and CHECK and
//! backwards for DEL, and remembers results.

use std::fmt;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use crate::{Failure, Host, Netns, Plugin};

/// A network configuration list.
#[derive(Clone, Debug)]
pub struct Network {
    name: String,
    version: String,
    plugins: Vec<Value>,
}

impl Network {
    /// A network of one plugin.
    #[must_use]
    pub fn new(name: &str, plugin: Value) -> Self {
        Self { name: name.to_owned(), version: "1.0.0".to_owned(), plugins: vec![plugin] }
    }

    /// A bridge with an address range for each of `subnets`: gateway, masquerade, default routes,
    /// hairpin, and published ports, which the bridge takes itself unless `NETCORE_PORTMAP` asks
    /// for the reference `portmap` behind it.
    #[must_use]
    pub fn bridge(name: &str, subnets: &[&str]) -> Self {
        let ranges: Vec<Value> = subnets.iter().map(|subnet| json!([{ "subnet": subnet }])).collect();
        let default = |subnet: &&str| if subnet.contains(':') { "::/0" } else { "0.0.0.0/0" };
        let routes: Vec<Value> = subnets.iter().map(|subnet| json!({ "dst": default(subnet) })).collect();
        let bridge = json!({
            "type": "bridge", "bridge": name, "isGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": { "type": "host-local", "ranges": ranges, "routes": routes },
        });
        let publishes = json!({ "portMappings": true });
        if std::env::var_os("NETCORE_PORTMAP").is_some() {
            return Self::new(name, bridge).then(json!({ "type": "portmap", "capabilities": publishes }));
        }
        // podman puts `ips` in the place of all capabilities of a plugin that does not declare it.
        Self::new(name, bridge).with("capabilities", json!({ "portMappings": true, "ips": true }))
    }

    /// With one key of the first plugin set.
    #[must_use]
    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.plugins[0][key] = value;
        self
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A list as it is on disk.
    #[must_use]
    pub fn from_conflist(text: &str) -> Self {
        let list: Value = serde_json::from_str(text).expect("a conflist is JSON");
        let text = |key: &str| list[key].as_str().expect("a conflist has a name and a cniVersion").to_owned();
        Self {
            name: text("name"),
            version: text("cniVersion"),
            plugins: list["plugins"].as_array().cloned().unwrap_or_default(),
        }
    }

    /// With another plugin chained behind.
    #[must_use]
    pub fn then(mut self, plugin: Value) -> Self {
        self.plugins.push(plugin);
        self
    }

    /// In another version of the specification; 1.0.0 otherwise.
    #[must_use]
    pub fn version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.version);
        self
    }

    /// The list as text, for engines.
    #[must_use]
    pub fn conflist(&self) -> String {
        json!({ "cniVersion": self.version, "name": self.name, "plugins": self.plugins }).to_string()
    }
}

/// A [`Network`] on a [`Host`].
#[derive(Clone)]
pub struct Cni {
    host: Host,
    network: Network,
}

impl Cni {
    pub(crate) fn new(host: Host, network: Network) -> Self {
        Self { host, network }
    }

    /// An attachment, not made yet: container `NAME of netns`, interface `eth0`.
    #[must_use]
    pub fn attachment(&self, netns: &Netns) -> Attachment {
        Attachment {
            cni: self.clone(),
            container: netns.name().to_owned(),
            netns: Some(netns.path().to_owned()),
            interface: "eth0".to_owned(),
            args: String::new(),
            runtime: Map::new(),
            result: None,
        }
    }

    /// `GC` with these survivors. Specification 1.1.0.
    ///
    /// # Errors
    /// What the first plugin that failed said; the others have been called all the same.
    pub fn gc(&self, survivors: &[&Attachment]) -> Result<(), Failure> {
        let valid: Vec<Value> = survivors
            .iter()
            .map(|attachment| json!({ "containerID": attachment.container, "ifname": attachment.interface }))
            .collect();
        let extra = json!({ "cni.dev/valid-attachments": valid });
        self.every_plugin("GC", extra)
    }

    /// `STATUS`. Specification 1.1.0.
    ///
    /// # Errors
    /// What the first plugin that failed said.
    pub fn status(&self) -> Result<(), Failure> {
        self.every_plugin("STATUS", json!({}))
    }

    fn every_plugin(&self, verb: &str, extra: Value) -> Result<(), Failure> {
        let mut first = Ok(());
        for plugin in &self.network.plugins {
            let mut configuration = self.configuration(plugin);
            merge(&mut configuration, extra.clone());
            let outcome = self.call(plugin, &configuration).run(verb).map(drop);
            first = first.and(outcome);
        }
        first
    }

    fn configuration(&self, plugin: &Value) -> Value {
        let mut configuration = plugin.clone();
        merge(&mut configuration, json!({ "name": self.network.name, "cniVersion": self.network.version }));
        configuration
    }

    fn call(&self, plugin: &Value, configuration: &Value) -> Plugin {
        let name = plugin["type"].as_str().expect("every plugin of a list has a type");
        Plugin::new(self.host.clone(), name).stdin(configuration.to_string())
    }
}

/// One container's interface on a network.
#[derive(Clone)]
pub struct Attachment {
    cni: Cni,
    container: String,
    netns: Option<String>,
    interface: String,
    args: String,
    runtime: Map<String, Value>,
    result: Option<Value>,
}

/// A port to publish, as `runtimeConfig.portMappings` writes it.
#[derive(Clone, Debug)]
pub struct Publish(Value);

impl Publish {
    /// `host_port` on every address.
    #[must_use]
    pub fn tcp(host_port: u16, container_port: u16) -> Self {
        Self(json!({ "hostPort": host_port, "containerPort": container_port, "protocol": "tcp" }))
    }

    /// The same over UDP.
    #[must_use]
    pub fn udp(host_port: u16, container_port: u16) -> Self {
        Self::tcp(host_port, container_port).protocol("udp")
    }

    /// Over another protocol.
    #[must_use]
    pub fn protocol(mut self, protocol: &str) -> Self {
        self.0["protocol"] = json!(protocol);
        self
    }

    /// On one host address only.
    #[must_use]
    pub fn on(mut self, address: impl fmt::Display) -> Self {
        self.0["hostIP"] = json!(address.to_string());
        self
    }
}

impl Attachment {
    /// By another interface name.
    #[must_use]
    pub fn interface(mut self, name: &str) -> Self {
        name.clone_into(&mut self.interface);
        self
    }

    /// As another container.
    #[must_use]
    pub fn container(mut self, id: &str) -> Self {
        id.clone_into(&mut self.container);
        self
    }

    /// Without its namespace, as runtimes call DEL once it is gone.
    #[must_use]
    pub fn without_netns(mut self) -> Self {
        self.netns = None;
        self
    }

    /// Without what ADD returned, as runtimes call DEL that have lost their cache.
    #[must_use]
    pub fn without_result(mut self) -> Self {
        self.result = None;
        self
    }

    /// With `CNI_ARGS`.
    #[must_use]
    pub fn args(mut self, args: &str) -> Self {
        args.clone_into(&mut self.args);
        self
    }

    /// With a key of `runtimeConfig`; plugins see it if they declare the capability.
    #[must_use]
    pub fn runtime(mut self, capability: &str, value: Value) -> Self {
        self.runtime.insert(capability.to_owned(), value);
        self
    }

    /// With one more published port.
    #[must_use]
    pub fn publish(mut self, port: Publish) -> Self {
        let ports = self.runtime.entry("portMappings").or_insert_with(|| json!([]));
        if let Value::Array(ports) = ports {
            ports.push(port.0);
        }
        self
    }

    /// ADD; remembers the result. As runtimes do, whoever fails has to call DEL.
    ///
    /// # Errors
    /// What the plugin that failed said.
    pub fn add(&mut self) -> Result<Value, Failure> {
        self.add_by(|plugin| plugin.run("ADD"))
    }

    /// ADD, with each plugin of the list called by `run`.
    ///
    /// # Errors
    /// What `run` gave back for the plugin that failed.
    pub fn add_by(&mut self, mut run: impl FnMut(Plugin) -> Result<Value, Failure>) -> Result<Value, Failure> {
        let mut result = None;
        for plugin in &self.cni.network.plugins {
            result = Some(run(self.call(plugin, result.as_ref()))?);
        }
        self.result.clone_from(&result);
        Ok(result.expect("a list has a plugin"))
    }

    /// ADD that is expected to work.
    ///
    /// # Panics
    /// When it does not.
    #[must_use]
    #[track_caller]
    pub fn added(mut self) -> Self {
        if let Err(failure) = self.add() {
            panic!("ADD {}: {failure}", self.container);
        }
        self
    }

    /// CHECK, as often as there are plugins.
    ///
    /// # Errors
    /// What the first plugin that failed said.
    pub fn check(&self) -> Result<(), Failure> {
        for plugin in &self.cni.network.plugins {
            self.call(plugin, self.result.as_ref()).run("CHECK")?;
        }
        Ok(())
    }

    /// DEL, backwards through the list, stopping at an error as libcni does.
    ///
    /// # Errors
    /// What the plugin that failed said.
    pub fn del(&self) -> Result<(), Failure> {
        self.del_by(|plugin| plugin.run("DEL"))
    }

    /// DEL, with each plugin of the list called by `run`.
    ///
    /// # Errors
    /// What `run` gave back for the plugin that failed.
    pub fn del_by(&self, mut run: impl FnMut(Plugin) -> Result<Value, Failure>) -> Result<(), Failure> {
        for plugin in self.cni.network.plugins.iter().rev() {
            run(self.call(plugin, self.result.as_ref()))?;
        }
        Ok(())
    }

    /// The call of the first plugin for this attachment, to be made by hand.
    #[must_use]
    pub fn first_plugin(&self) -> Plugin {
        self.call(&self.cni.network.plugins[0], None)
    }

    /// What ADD returned.
    ///
    /// # Panics
    /// Before ADD.
    #[must_use]
    pub fn result(&self) -> &Value {
        self.result.as_ref().expect("ADD comes first")
    }

    /// Its addresses, without prefix lengths.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let ips = self.result()["ips"].as_array().cloned().unwrap_or_default();
        let bare = |ip: &Value| ip["address"].as_str()?.split('/').next()?.parse().ok();
        ips.iter().filter_map(bare).collect()
    }

    /// Its first address.
    ///
    /// # Panics
    /// When it has none.
    #[must_use]
    pub fn address(&self) -> IpAddr {
        *self.addresses().first().expect("an address")
    }

    /// The name of the host's end of its link.
    ///
    /// # Panics
    /// When the result names none.
    #[must_use]
    pub fn host_interface(&self) -> String {
        let interfaces = self.result()["interfaces"].as_array().cloned().unwrap_or_default();
        let on_host = |interface: &&Value| {
            let name = interface["name"].as_str().unwrap_or_default();
            interface["sandbox"].as_str().unwrap_or_default().is_empty() && name.starts_with("veth")
        };
        let found = interfaces.iter().find(on_host).expect("the result names the host's end");
        found["name"].as_str().expect("an interface has a name").to_owned()
    }

    fn call(&self, plugin: &Value, previous: Option<&Value>) -> Plugin {
        let mut configuration = self.cni.configuration(plugin);
        if let Some(previous) = previous {
            configuration["prevResult"] = previous.clone();
        }
        let declared = |capability: &String| plugin["capabilities"][capability] == true;
        let runtime: Map<String, Value> = self
            .runtime
            .iter()
            .filter(|(key, _)| declared(key))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if !runtime.is_empty() {
            configuration["runtimeConfig"] = Value::Object(runtime);
        }
        let mut call = self.cni.call(plugin, &configuration).env("CNI_CONTAINERID", &self.container);
        call = call.env("CNI_IFNAME", &self.interface);
        if let Some(netns) = &self.netns {
            call = call.env("CNI_NETNS", netns);
        }
        if self.args.is_empty() { call } else { call.env("CNI_ARGS", &self.args) }
    }
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}
