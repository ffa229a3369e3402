//! Addresses that are written down: nothing is reserved, so nothing can be taken, lost or leaked.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::{Ipam, Request};
use crate::error::{Error, Result};
use crate::model::{self, AttachmentId, Lease, LeasedAddress, Name};

/// The addresses of the configuration, to whoever asks; or those an attachment asks for instead.
#[derive(Debug)]
pub struct Static<'a> {
    config: &'a model::Static,
}

impl<'a> Static<'a> {
    /// Address management as `config` wants it.
    #[must_use]
    pub fn new(config: &'a model::Static) -> Self {
        Self { config }
    }

    /// An address that was asked for, with what the configuration knows about its subnet.
    fn asked(&self, asked: IpNetwork) -> LeasedAddress {
        let is_bare = asked.prefix() == if asked.is_ipv4() { 32 } else { 128 };
        let configured = self.config.addresses.iter().find(|configured| configured.address.contains(asked.ip()));
        let prefix = configured.map(|configured| configured.address.prefix()).filter(|_| is_bare);
        let address = prefix.and_then(|prefix| IpNetwork::new(asked.ip(), prefix).ok()).unwrap_or(asked);
        let gateways = self.config.addresses.iter().filter_map(|configured| configured.gateway);
        LeasedAddress { address, gateway: gateways.chain(self.gateways()).find(|gateway| address.contains(*gateway)) }
    }

    fn gateways(&self) -> impl Iterator<Item = IpAddr> {
        self.config.gateways.iter().copied()
    }
}

impl Ipam for Static<'_> {
    fn allocate(&self, request: &Request<'_>) -> Result<Lease> {
        validate(self.config)?;
        let configured = self.config.addresses.iter().map(|configured| LeasedAddress {
            address: configured.address,
            gateway: configured
                .gateway
                .or_else(|| self.gateways().find(|gateway| configured.address.contains(*gateway))),
        });
        let asked = request.attachment.addresses.iter().map(|asked| self.asked(*asked));
        let addresses: Vec<_> =
            if request.attachment.addresses.is_empty() { configured.collect() } else { asked.collect() };
        if addresses.is_empty() {
            let expected = "a list of at least one address, and none was asked for";
            return Err(Error::invalid("ipam.addresses", "[]", expected));
        }
        let (routes, dns) = (self.config.routes.clone(), self.config.dns.clone());
        Ok(Lease { addresses, routes, dns, namespace: None })
    }

    fn preview(&self, request: &Request<'_>) -> Result<Option<Lease>> {
        self.allocate(request).map(Some)
    }

    fn release(&self, _: &Request<'_>) -> Result<()> {
        Ok(())
    }

    fn check(&self, _: &Request<'_>) -> Result<()> {
        Ok(())
    }

    fn status(&self, _: &Name) -> Result<()> {
        validate(self.config)
    }

    fn gc(&self, _: &Name, _: &[AttachmentId]) -> Result<()> {
        Ok(())
    }
}

/// Whether every gateway can be reached by its address.
pub(super) fn validate(config: &model::Static) -> Result<()> {
    for (position, configured) in config.addresses.iter().enumerate() {
        if let Some(gateway) = configured.gateway
            && gateway.is_ipv4() != configured.address.is_ipv4()
        {
            let expected = format!("of the same family as {}", configured.address);
            return Err(Error::invalid(format!("ipam.addresses[{position}].gateway"), gateway, expected));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::{Attachment, IpamConfig};

    fn lease(section: Value, asked: &[&str]) -> Result<Vec<(String, Option<String>)>> {
        let IpamConfig::Static(config) = IpamConfig::from_json(&section).unwrap() else { panic!("{section}") };
        let mut attachment = Attachment::new("web-1".parse().unwrap(), None);
        attachment.addresses = asked.iter().map(|asked| asked.parse().unwrap()).collect();
        let network = Name::new("web").unwrap();
        let lease =
            Static::new(&config).allocate(&Request { network: &network, attachment: &attachment, lease: None })?;
        let text = |leased: &LeasedAddress| (leased.address.to_string(), leased.gateway.map(|it| it.to_string()));
        Ok(lease.addresses.iter().map(text).collect())
    }

    fn is(address: &str, gateway: Option<&str>) -> (String, Option<String>) {
        (address.to_owned(), gateway.map(str::to_owned))
    }

    #[test]
    fn what_is_written_down_is_what_is_given() {
        let section = json!({"type": "static", "gateways": ["fd00::1", "10.9.0.1"], "addresses":
            [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}, {"address": "fd00::5/64"}]});
        let given = lease(section, &[]).unwrap();
        assert_eq!(given, [is("10.1.0.5/24", Some("10.1.0.1")), is("fd00::5/64", Some("fd00::1"))]);
    }

    #[test]
    fn what_is_asked_for_takes_the_place_of_what_is_written_down() {
        let section = json!({"type": "static", "gateways": ["10.9.0.1"], "addresses":
            [{"address": "10.1.0.5/24", "gateway": "10.1.0.1"}]});
        let given = lease(section, &["10.1.0.9", "10.9.0.7/16", "10.7.0.1/32"]).unwrap();
        let expected =
            [is("10.1.0.9/24", Some("10.1.0.1")), is("10.9.0.7/16", Some("10.9.0.1")), is("10.7.0.1/32", None)];
        assert_eq!(given, expected);
    }

    #[test]
    fn nothing_to_give_and_gateways_of_the_wrong_family_are_refused() {
        let none = lease(json!({"type": "static"}), &[]).unwrap_err().to_string();
        assert!(none.starts_with("ipam.addresses: [] is not a list of at least one"), "{none}");
        let mixed = json!({"type": "static", "addresses": [{"address": "10.1.0.5/24", "gateway": "fd00::1"}]});
        let mixed = lease(mixed, &[]).unwrap_err().to_string();
        assert!(mixed.starts_with("ipam.addresses[0].gateway: fd00::1 is not of the same family"), "{mixed}");
    }
}
