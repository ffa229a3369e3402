//! Drivers: one file a mode. A driver is a pure function from what a user asked for to the
//! objects the kernel should hold for it; it decides nothing about how they come to be, or go.

mod admission;
mod bridge;
mod container;
mod host;
mod inside;
mod macvlan;
mod none;
mod overlay;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::model::{
    Attachment, Backend, BridgeConfig, ContainerConfig, FirewallBackend, HostConfig, Lease, MacvlanConfig, Mode,
    Network, NoneConfig, Object, OverlayConfig,
};

pub use bridge::BridgeNetwork;
pub use overlay::{anywhere, located, tunnel, ways};

/// What the kernel should hold for one attachment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Desired {
    /// What attachments of several networks share.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub host: Vec<Object>,
    /// What the network's attachments share.
    pub network: Vec<Object>,
    /// What is this attachment's own.
    pub attachment: Vec<Object>,
}

impl Desired {
    /// What is not the attachment's alone, what is shared most first.
    pub fn shared(&self) -> impl Iterator<Item = &Object> {
        self.host.iter().chain(&self.network)
    }

    /// Keeps only what `is_meant`.
    pub fn retain(&mut self, is_meant: impl Fn(&Object) -> bool) {
        for part in [&mut self.host, &mut self.network, &mut self.attachment] {
            part.retain(&is_meant);
        }
    }

    /// The same where `backend` is the firewall, for a container that has `lease`.
    #[must_use]
    pub fn under(self, backend: Backend, lease: &Lease) -> Self {
        if backend.is_nftables() {
            return self;
        }
        // Who has no address of ours may have others.
        let families: Vec<bool> =
            [false, true].into_iter().filter(|v6| lease.has(*v6) || lease.addresses.is_empty()).collect();
        let under = |objects: Vec<Object>| objects.into_iter().flat_map(|object| object.under(backend, &families));
        let [host, network, attachment] =
            [self.host, self.network, self.attachment].map(|objects| under(objects).collect());
        Self { host, network, attachment }
    }

    /// All of it, what is shared first.
    #[must_use]
    pub fn all(&self) -> Vec<Object> {
        self.shared().chain(&self.attachment).cloned().collect()
    }
}

/// A mode as a plugin binary names it.
pub trait Driver {
    /// The mode's name, and the binary's.
    const TYPE: &'static str;
    /// The mode's own keys in a CNI network configuration.
    type Config: DeserializeOwned + Into<Mode>;
    /// What becomes of a sandbox that is the plugin's own namespace, the host's.
    const HOST_NAMESPACE: HostNamespace = HostNamespace::Refused;
}

/// What a mode makes of a sandbox that is the host's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostNamespace {
    /// It is an error: what is done for a container would be done to the host.
    Refused,
    /// It is an error unless another network has put the container there.
    Tolerated,
    /// It is what the mode is for.
    Expected,
}

/// A Linux bridge and a veth pair for each container.
#[derive(Clone, Copy, Debug)]
pub struct Bridge;

impl Driver for Bridge {
    const TYPE: &'static str = "bridge";
    type Config = BridgeConfig;
}

/// A share of a link of the host's for each container.
#[derive(Clone, Copy, Debug)]
pub struct Macvlan;

impl Driver for Macvlan {
    const TYPE: &'static str = "macvlan";
    type Config = MacvlanConfig;
}

/// Nothing but the container's own loopback.
#[derive(Clone, Copy, Debug)]
pub struct None;

impl Driver for None {
    const TYPE: &'static str = "none";
    type Config = NoneConfig;
    // containerd calls `loopback` beside every network, at the same time, `host` included.
    const HOST_NAMESPACE: HostNamespace = HostNamespace::Tolerated;
}

/// The host's own namespace.
#[derive(Clone, Copy, Debug)]
pub struct Host;

impl Driver for Host {
    const TYPE: &'static str = "host";
    type Config = HostConfig;
    const HOST_NAMESPACE: HostNamespace = HostNamespace::Expected;
}

/// Another container's namespace.
#[derive(Clone, Copy, Debug)]
pub struct Container;

impl Driver for Container {
    const TYPE: &'static str = "container";
    type Config = ContainerConfig;
}

/// A bridge on every node, and a tunnel between them.
#[derive(Clone, Copy, Debug)]
pub struct Overlay;

impl Driver for Overlay {
    const TYPE: &'static str = "overlay";
    type Config = OverlayConfig;
}

/// Whether the settings of `network` make sense together.
///
/// # Errors
/// [`Error::Invalid`] and [`Error::Unsupported`], naming the setting.
pub fn validate(network: &Network) -> Result<()> {
    match &network.mode {
        Mode::Bridge(config) => bridge::validate(config, network),
        Mode::Macvlan(config) => macvlan::validate(config),
        Mode::None(_) => none::validate(network),
        Mode::Host(_) => host::validate(network),
        Mode::Container(_) => container::validate(network),
        Mode::Overlay(config) => overlay::validate(config, network),
    }
}

/// What the network itself adds to a lease that address management gave: gateways and default
/// routes that its settings promise.
#[must_use]
pub fn complete(network: &Network, mut lease: Lease) -> Lease {
    match &network.mode {
        Mode::Bridge(config) => bridge::complete(config, &mut lease),
        Mode::Macvlan(_) | Mode::None(_) | Mode::Host(_) | Mode::Container(_) => {}
        Mode::Overlay(config) => overlay::complete(config, network, &mut lease),
    }
    lease
}

/// The firewall that `network` asks for by name.
#[must_use]
pub fn firewall(network: &Network) -> Option<FirewallBackend> {
    let named = |config: &BridgeConfig| config.backend().and_then(|(_, name)| name.parse().ok());
    match &network.mode {
        Mode::Bridge(config) => named(config),
        Mode::Overlay(config) => named(&config.bridge(&network.name)),
        // They need none.
        Mode::Macvlan(_) | Mode::None(_) | Mode::Host(_) | Mode::Container(_) => Some(FirewallBackend::Nftables),
    }
}

/// Whether what attachments of `network` share goes with the last of them.
#[must_use]
pub fn is_shared_for_a_time(network: &Network) -> bool {
    match &network.mode {
        Mode::Bridge(config) => config.remove_empty_bridge,
        Mode::Macvlan(_) => true,
        Mode::Overlay(config) => config.remove_empty_bridge,
        Mode::None(_) | Mode::Host(_) | Mode::Container(_) => false,
    }
}

/// Takes from `attachment` what it asks for and `network` does not give, although it can be
/// attached; says of each why not.
pub fn curtail(network: &Network, attachment: &mut Attachment) -> Vec<String> {
    match &network.mode {
        Mode::Bridge(config) => bridge::curtail(config, network, attachment),
        Mode::Overlay(config) => bridge::curtail(&config.bridge(&network.name), network, attachment),
        Mode::Macvlan(_) | Mode::None(_) | Mode::Host(_) | Mode::Container(_) => Vec::new(),
    }
}

/// What the kernel should hold for `attachment`, to which the
/// [complete](complete()) `lease` was given.
///
/// # Errors
/// [`Error::Invalid`] when the wishes cannot be fulfilled with that lease, a port published on an
/// IPv6 address of a container that has none, for instance.
pub fn desired(network: &Network, attachment: &Attachment, lease: &Lease) -> Result<Desired> {
    for mapping in &attachment.publish {
        if let Some((field, value, expected)) = mapping.fault() {
            return Err(Error::invalid(format!("portMappings.{field}"), value, expected));
        }
    }
    match &network.mode {
        Mode::Bridge(config) => bridge::desired(config, network, attachment, lease),
        Mode::Macvlan(config) => macvlan::desired(config, network, attachment, lease),
        Mode::None(_) => Ok(none::desired()),
        Mode::Host(_) => Ok(host::desired(attachment, lease)),
        Mode::Container(_) => container::desired(attachment, lease),
        Mode::Overlay(config) => overlay::desired(config, network, attachment, lease),
    }
}
