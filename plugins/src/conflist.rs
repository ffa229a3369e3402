//! Configuration lists as they lie in `/etc/cni/net.d`, for those who want to know what they
//! would lead to without being called by a runtime.

use netcore::driver::{Bridge, Container, Driver, Host, Macvlan, None as NoNetwork, Overlay};
use netcore::model::Network;
use netcore::{Error, Result};
use serde_json::{Map, Value};

use crate::arguments::Arguments;
use crate::configuration;
use crate::document::Document;

/// One plugin of a list.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// The plugin, as its file is called.
    pub plugin: String,
    /// The network it attaches to, if the plugin is one of ours; whatever else is in the list is
    /// somebody else's program.
    pub network: Option<Network>,
    /// Whether it takes the published ports.
    pub publishes: bool,
}

/// The plugins of the list in `text`, in order; a single configuration is a list of one.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::Unsupported`], naming the field, its value and what is accepted.
pub fn read(text: &[u8]) -> Result<Vec<Member>> {
    let list = Document::read(text).map_err(|failure| Error::invalid("conflist", "this", failure.msg))?.keys;
    let Some(plugins) = list.get("plugins") else { return Ok(vec![member(list)?]) };
    let Value::Array(plugins) = plugins else {
        return Err(Error::invalid("plugins", "what is there", "a list of configurations"));
    };
    let with_name = |plugin: &Value| {
        let mut keys = plugin.as_object().cloned().unwrap_or_default();
        for shared in ["name", "cniVersion"] {
            if let Some(value) = list.get(shared) {
                keys.insert(shared.to_owned(), value.clone());
            }
        }
        member(keys)
    };
    plugins.iter().map(with_name).collect()
}

fn member(keys: Map<String, Value>) -> Result<Member> {
    let Some(plugin) = keys.get("type").and_then(Value::as_str).map(str::to_owned) else {
        return Err(Error::invalid("type", "a missing value", "the plugin's name"));
    };
    let publishes =
        keys.get("capabilities").and_then(|declared| declared.get("portMappings")) == Some(&Value::Bool(true));
    let network = match plugin.as_str() {
        Bridge::TYPE => Some(network::<Bridge>(keys)?),
        Macvlan::TYPE => Some(network::<Macvlan>(keys)?),
        Host::TYPE => Some(network::<Host>(keys)?),
        Container::TYPE => Some(network::<Container>(keys)?),
        Overlay::TYPE => Some(network::<Overlay>(keys)?),
        NoNetwork::TYPE | "loopback" => Some(network::<NoNetwork>(keys)?),
        _ => None,
    };
    Ok(Member { plugin, network, publishes })
}

fn network<D: Driver>(keys: Map<String, Value>) -> Result<Network> {
    let text = Value::Object(keys).to_string();
    let document =
        Document::read(text.as_bytes()).map_err(|failure| Error::invalid("conflist", "this", failure.msg))?;
    configuration::network::<D>(&document, &Arguments::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_plugin_by_plugin_and_a_single_configuration_is_a_list_of_one() {
        let list = br#"{"cniVersion": "1.0.0", "name": "web", "plugins": [
            {"type": "bridge", "bridge": "web0", "capabilities": {"portMappings": true}},
            {"type": "tuning"}]}"#;
        let members = read(list).unwrap();
        assert_eq!(members.iter().map(|member| &*member.plugin).collect::<Vec<_>>(), ["bridge", "tuning"]);
        assert_eq!(members[0].network.as_ref().map(|network| network.name.as_str()), Some("web"));
        assert!(members[0].publishes && members[1].network.is_none());
        let single = read(br#"{"cniVersion": "1.0.0", "name": "lo", "type": "loopback"}"#).unwrap();
        assert_eq!(single.len(), 1);
    }

    #[test]
    fn what_is_wrong_with_a_list_is_said() {
        let refused = |text: &str| read(text.as_bytes()).unwrap_err().to_string();
        assert!(refused("[]").contains("not a JSON object"), "{}", refused("[]"));
        assert!(refused(r#"{"name": "web", "plugins": [{}]}"#).starts_with("type: "));
        assert!(refused(r#"{"name": "web", "plugins": [{"type": "bridge", "mtu": 1}]}"#).starts_with("mtu: 1 is not"));
    }
}
