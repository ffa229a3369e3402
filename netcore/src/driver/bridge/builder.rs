//! A bridge network written as the sentence a program's author would say.

use std::ops::Deref;

use ipnetwork::IpNetwork;

use crate::error::{Error, Result};
use crate::model::{self, BridgeConfig, HostLocal, InterfaceName, IpamConfig, Isolation, Mode, Name, Range};

/// A bridge network for programs that embed the crate.
///
/// ```
/// use netcore::bridge::Network;
///
/// let web = Network::new("web")?.subnet("10.20.0.0/24")?.masquerade();
/// assert_eq!(web.name.as_str(), "web");
/// # Ok::<(), netcore::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Network {
    network: model::Network,
    config: BridgeConfig,
}

impl Network {
    /// A network whose bridge is the containers' default gateway, and goes with the last of
    /// them. It needs a [`subnet`](Self::subnet) to have addresses.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `name` is not a network name.
    pub fn new(name: &str) -> Result<Self> {
        let name = Name::new(name)?;
        let bridge = InterfaceName::for_bridge_of(&name);
        let config = BridgeConfig {
            bridge: Some(bridge),
            is_default_gateway: true,
            remove_empty_bridge: true,
            ..BridgeConfig::default()
        };
        let mode = Mode::Bridge(config.clone());
        Ok(Self { network: model::Network { name, mode, ipam: None, dns: model::Dns::default() }, config })
    }

    /// Hands out addresses of `subnet`. Called once more with a subnet of the other family, each
    /// container gets one of both.
    ///
    /// # Errors
    /// [`Error::Invalid`] when `subnet` is not written as address/prefix.
    pub fn subnet(mut self, subnet: &str) -> Result<Self> {
        let parsed: IpNetwork = subnet.parse().map_err(|_| {
            Error::invalid("subnet", format!("{subnet:?}"), "an address and prefix length like 10.20.0.0/24")
        })?;
        let set = vec![Range { subnet: parsed, range_start: None, range_end: None, gateway: None }];
        match &mut self.network.ipam {
            Some(IpamConfig::HostLocal(host_local)) => host_local.ranges.push(set),
            ipam => *ipam = Some(IpamConfig::HostLocal(HostLocal { ranges: vec![set], ..HostLocal::default() })),
        }
        Ok(self)
    }

    /// Gives traffic that leaves the host the host's address.
    #[must_use]
    pub fn masquerade(self) -> Self {
        self.configure(|config| config.ip_masq = true)
    }

    /// Says from where the containers are reached; everywhere unless it is said.
    #[must_use]
    pub fn isolation(self, isolation: Isolation) -> Self {
        self.configure(|config| config.isolation = Some(isolation))
    }

    /// Keeps the containers to themselves and the host: there is no way out, nor in.
    #[must_use]
    pub fn internal(self) -> Self {
        self.configure(|config| config.internal = true)
    }

    /// Sets the containers' MTU, in bytes.
    #[must_use]
    pub fn mtu(self, mtu: u32) -> Self {
        self.configure(|config| config.mtu = mtu)
    }

    /// Changes how addresses are handed out, where [`subnet`](Self::subnet) has said from what.
    #[must_use]
    pub fn configure_ipam(mut self, change: impl FnOnce(&mut IpamConfig)) -> Self {
        self.network.ipam.as_mut().map(change);
        self
    }

    /// Changes any other setting of the mode.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut BridgeConfig)) -> Self {
        change(&mut self.config);
        self.network.mode = Mode::Bridge(self.config.clone());
        self
    }
}

impl Deref for Network {
    type Target = model::Network;

    fn deref(&self) -> &model::Network {
        &self.network
    }
}
