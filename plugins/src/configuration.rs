//! The network that a configuration describes.

use netcore::driver::Driver;
use netcore::model::{Dns, IpamConfig, Name, Network};
use netcore::{Error, Result, driver, ipam};
use serde::Deserialize;
use serde_json::Value;

use crate::arguments::Arguments;
use crate::decode::{decapitalised, decode, shown};
use crate::document::Document;

/// The network of `document`, as it takes to attach to it.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::Unsupported`], naming the field, its value and what is accepted.
pub(crate) fn network<D: Driver>(document: &Document, arguments: &Arguments) -> Result<Network> {
    let mut network = network_to_leave::<D>(document)?;
    if let Some(IpamConfig::Static(section)) = &mut network.ipam {
        section.gateways.extend(&arguments.gateways);
    }
    driver::validate(&network)?;
    network.ipam.as_ref().map_or(Ok(()), ipam::validate)?;
    Ok(network)
}

/// The network of `document`, as far as it takes to take attachments off it. What
/// [`network`] would refuse as a whole is let pass: a configuration that was edited since must
/// not keep containers from going.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn network_to_leave<D: Driver>(document: &Document) -> Result<Network> {
    let Some(name) = document.keys.get("name") else {
        return Err(Error::invalid("name", "a missing value", "the network's name"));
    };
    let name: Name = decode("name", name)?;
    let config: D::Config = decode("", &Value::Object(document.keys.clone()))?;
    Ok(Network { name, mode: config.into(), ipam: addresses(document)?, dns: dns(document)? })
}

fn addresses(document: &Document) -> Result<Option<IpamConfig>> {
    let Some(section) = document.keys.get("ipam") else { return Ok(None) };
    let Value::Object(keys) = section else {
        return Err(Error::invalid("ipam", shown(section), "an object with a type"));
    };
    // Neither is how a network without addresses is written.
    if keys.is_empty() || keys.get("type").is_some_and(|kind| kind == "") {
        return Ok(None);
    }
    let mut config = IpamConfig::from_json(section)?;
    if let (IpamConfig::HostLocal(section), Some(ranges)) = (&mut config, document.capability("ipRanges")) {
        section.take_ip_ranges(ranges)?;
    }
    Ok(Some(config))
}

fn dns(document: &Document) -> Result<Dns> {
    /// The runtime's spelling (CNI conventions, "dns").
    #[derive(Deserialize)]
    struct Resolver {
        #[serde(default)]
        servers: Vec<String>,
        #[serde(default)]
        searches: Vec<String>,
        #[serde(default)]
        options: Vec<String>,
    }

    if let Some(resolver) = document.capability("dns") {
        let Resolver { servers, searches, options } = decode("runtimeConfig.dns", &decapitalised(resolver))?;
        return Ok(Dns { nameservers: servers, domain: None, search: searches, options });
    }
    document.keys.get("dns").map_or(Ok(Dns::default()), |section| decode("dns", section))
}

#[cfg(test)]
mod tests {
    use netcore::driver::{Bridge, None as NoNetwork};
    use netcore::model::{Delegated, Isolation, Mode};

    use super::*;

    fn document(text: &str) -> Document {
        Document::read(text.as_bytes()).unwrap()
    }

    fn bridge(text: &str) -> Result<Network> {
        network::<Bridge>(&document(text), &Arguments::default())
    }

    fn refusal(keys: &str) -> String {
        bridge(&format!(r#"{{"name": "web", {keys}}}"#)).unwrap_err().to_string()
    }

    #[test]
    fn a_configuration_for_the_reference_plugin_is_understood() {
        let network = bridge(
            r#"{
                "cniVersion": "1.0.0", "name": "mynet", "type": "bridge", "bridge": "mynet0",
                "isDefaultGateway": true, "forceAddress": false, "ipMasq": true, "hairpinMode": true,
                "mtu": null, "preserveDefaultVlan": false, "vlan": 0, "somethingElse": [1],
                "ipam": {
                    "type": "host-local", "subnet": "10.10.0.0/16", "dataDir": "",
                    "routes": [{"dst": "0.0.0.0/0"}]
                }
            }"#,
        );
        let network = network.unwrap();
        let Mode::Bridge(config) = &network.mode else { panic!("not a bridge") };
        assert_eq!(config.bridge().as_str(), "mynet0");
        assert!(config.is_gateway() && config.ip_masq && config.hairpin_mode);
        let Some(IpamConfig::HostLocal(ipam)) = network.ipam else { panic!("not host-local") };
        assert_eq!(ipam.range.unwrap().subnet.to_string(), "10.10.0.0/16");
        assert_eq!((ipam.routes.len(), ipam.data_dir), (1, None));
    }

    #[test]
    fn the_runtimes_ranges_are_taken_along() {
        let network = bridge(
            r#"{"name": "web", "capabilities": {"ipRanges": true},
                "runtimeConfig": {"ipRanges": [[{"subnet": "10.3.0.0/24"}]]},
                "ipam": {"type": "host-local", "subnet": "10.1.0.0/24", "ranges": [[{"subnet": "10.2.0.0/24"}]]}}"#,
        );
        let Some(IpamConfig::HostLocal(ipam)) = network.unwrap().ipam else { panic!("not host-local") };
        let brought: Vec<_> = ipam.ip_ranges.iter().map(|set| set[0].subnet.to_string()).collect();
        assert_eq!(brought, ["10.3.0.0/24"]);
        assert_eq!((ipam.ranges.len(), ipam.range.is_some()), (1, true));
    }

    #[test]
    fn other_ipam_plugins_are_named_and_none_is_layer_two() {
        let ipam = |section: &str| bridge(&format!(r#"{{"name": "web", "ipam": {section}}}"#)).unwrap().ipam;
        assert_eq!(ipam(r#"{"type": "dhcp"}"#), Some(IpamConfig::Delegate(Delegated { plugin: "dhcp".into() })));
        assert_eq!(ipam("{}"), None);
        assert_eq!(ipam(r#"{"type": ""}"#), None);
        assert_eq!(bridge(r#"{"name": "web"}"#).unwrap().ipam, None);
    }

    #[test]
    fn resolver_settings_come_from_the_runtime_if_declared() {
        let network = bridge(
            r#"{"name": "web", "dns": {"nameservers": ["1.1.1.1"]}, "capabilities": {"dns": true},
                "runtimeConfig": {"dns": {"servers": ["10.0.0.10"], "searches": ["svc.local"]}}}"#,
        );
        let dns = network.unwrap().dns;
        assert_eq!((dns.nameservers, dns.search), (vec!["10.0.0.10".into()], vec!["svc.local".into()]));
        let network = bridge(r#"{"name": "web", "dns": {"nameservers": ["1.1.1.1"], "domain": "x"}}"#).unwrap();
        assert_eq!(network.dns.nameservers, ["1.1.1.1"]);
    }

    #[test]
    fn refusals_name_the_field_the_value_and_what_is_accepted() {
        assert_eq!(bridge("{}").unwrap_err().to_string(), "name: a missing value is not the network's name");
        for bad in ["", "a/b", "..", "a b"] {
            let refusal = bridge(&format!(r#"{{"name": "{bad}"}}"#)).unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("name: {bad:?} is not a name of letters")), "{refusal}");
        }
        assert!(
            refusal(r#""bridge": "sixteen_bytes_16""#).starts_with("bridge: \"sixteen_bytes_16\" is not an interface")
        );
        for (keys, words) in [
            (r#""mtu": 67"#, "mtu: 67 is not 0 or a number of bytes"),
            (r#""mtu": -1"#, "mtu: -1 is not a whole number"),
            (r#""isGateway": "yes""#, "isGateway: \"yes\" is not a boolean"),
            (r#""ipMasqBackend": "pf""#, "ipMasqBackend: \"pf\" is not"),
            (r#""firewallBackend": "pf""#, "firewallBackend: \"pf\" is not"),
            (r#""isolation": "tight""#, "isolation: \"tight\" is not one of `open`, `network`, `strict`"),
            (r#""isolation": true"#, "isolation: true is not"),
            (r#""ingressPolicy": "closed""#, "ingressPolicy: \"closed\" is not one of"),
            (r#""internal": "no""#, "internal: \"no\" is not a boolean"),
            (r#""promiscMode": true, "hairpinMode": true"#, "promiscMode: true is not compatible with hairpinMode"),
            (r#""dns": {"nameservers": "1.1.1.1"}"#, "dns.nameservers: \"1.1.1.1\" is not a sequence"),
            (r#""ipam": {"type": "host-local", "subnet": "10.0.0.0/33"}"#, "ipam.subnet: \"10.0.0.0/33\" is not"),
            (
                r#""ipam": {"type": "static", "addresses": [{"address": "10.0.0.1/64"}]}"#,
                "ipam.addresses[0].address: \"10.0.0.1/64\" is not an address",
            ),
            (r#""ipam": {"type": "../../tmp/evil"}"#, "ipam.type: ../../tmp/evil is not a plugin's file name"),
        ] {
            assert!(refusal(keys).starts_with(words), "{}", refusal(keys));
        }
        for section in [r#"{"type": ".."}"#, r#"{"type": 5}"#, r#"{"subnet": "10.0.0.0/24"}"#, "[]"] {
            assert!(refusal(&format!(r#""ipam": {section}"#)).starts_with("ipam"), "{section}");
        }
    }

    #[test]
    fn the_stricter_of_two_words_for_isolation_holds() {
        let isolation = |keys: &str| {
            let network = bridge(&format!(r#"{{"name": "web", {keys}}}"#)).unwrap();
            let Mode::Bridge(config) = network.mode else { panic!("not a bridge") };
            (config.isolation(), config.isolates_ports())
        };
        assert_eq!(isolation(r#""mtu": 0"#), (Isolation::Open, false));
        assert_eq!(isolation(r#""ingressPolicy": "", "isolation": null"#), (Isolation::Open, false));
        assert_eq!(isolation(r#""isolation": "network""#), (Isolation::Network, false));
        assert_eq!(isolation(r#""ingressPolicy": "same-bridge""#), (Isolation::Network, false));
        assert_eq!(isolation(r#""ingressPolicy": "isolated""#), (Isolation::Network, true));
        assert_eq!(isolation(r#""ingressPolicy": "open", "isolation": "strict""#), (Isolation::Strict, false));
        assert_eq!(isolation(r#""ingressPolicy": "same-bridge", "isolation": "strict""#), (Isolation::Strict, false));
    }

    #[test]
    fn vlans_that_cannot_be_are_refused_by_name_and_may_be_left() {
        for (keys, words) in [
            (r#""vlan": 4095"#, "vlan: 4095 is not a VLAN id from 1 to 4094, or 0 for none"),
            (r#""vlan": -1"#, "vlan: -1 is not a whole number from 0"),
            (r#""vlanTrunk": [{"id": 0}]"#, "vlanTrunk[0].id: 0 is not a VLAN id from 1 to 4094"),
            (r#""vlanTrunk": [{"id": 4095}]"#, "vlanTrunk[0].id: 4095 is not"),
            (r#""vlanTrunk": [{"id": 5}, {"minID": 0, "maxID": 9}]"#, "vlanTrunk[1].minID: 0 is not"),
            (
                r#""vlanTrunk": [{"minID": 20, "maxID": 10}]"#,
                "vlanTrunk[0].minID: 20 is not at most maxID, which is 10",
            ),
            (r#""vlanTrunk": [{"minID": 20}]"#, "vlanTrunk[0].maxID: a missing value"),
            (r#""vlanTrunk": [{"maxID": 20}]"#, "vlanTrunk[0].minID: a missing value"),
            (r#""vlanTrunk": [{}]"#, "vlanTrunk[0]: an entry without VLANs"),
            (r#""vlanTrunk": [{"id": 5, "minID": 1, "maxID": 9}]"#, "vlanTrunk[0].id: 5 is not outside of 1-9"),
            (
                r#""vlanTrunk": [{"minID": 10, "maxID": 20}, {"id": 3}, {"minID": 20, "maxID": 30}]"#,
                "vlanTrunk[2]: 20-30 is not without those named before: it overlaps 10-20",
            ),
            (r#""vlan": 5, "vlanTrunk": [{"id": 6}]"#, "vlanTrunk: a list is not absent when vlan is set"),
            (r#""vlan": 5, "promiscMode": true"#, "promiscMode: true is not compatible with vlan"),
            (r#""vlanTrunk": [{"id": 6}], "promiscMode": true"#, "promiscMode: true is not compatible with vlan"),
            (
                r#""vlan": 1000, "bridge": "mybridge001", "isGateway": true"#,
                "bridge: \"mybridge001\" is not short enough",
            ),
            (r#""ipspoofchk": true"#, "ipspoofchk: true is not compatible with a network without ipam"),
            (r#""macspoofchk": "yes""#, "macspoofchk: \"yes\" is not a boolean"),
        ] {
            assert!(refusal(keys).starts_with(words), "{}", refusal(keys));
        }
        // Whoever was let in before must be let out.
        assert!(network_to_leave::<Bridge>(&document(r#"{"name": "web", "vlan": 4095}"#)).is_ok());
        for keys in [
            r#""vlan": 0, "vlanTrunk": [], "macspoofchk": false, "preserveDefaultVlan": true"#,
            r#""vlan": 4094, "preserveDefaultVlan": false, "macspoofchk": true"#,
            r#""vlanTrunk": [{"id": 1}, {"minID": 100, "maxID": 199}, {"id": 200, "minID": 300, "maxID": 300}]"#,
        ] {
            assert!(bridge(&format!(r#"{{"name": "web", {keys}}}"#)).is_ok(), "{keys}");
        }
    }

    #[test]
    fn none_takes_any_configuration_with_a_name() {
        let network =
            network::<NoNetwork>(&document(r#"{"name": "lo", "type": "loopback"}"#), &Arguments::default()).unwrap();
        assert_eq!(network.mode, Mode::None(netcore::model::NoneConfig {}));
    }
}
