//! What a container asks for beside being attached. The same wish can come three ways; of those
//! that say something, `runtimeConfig` beats `args.cni`, which beats `CNI_ARGS`.

use std::collections::BTreeMap;

use ipnetwork::IpNetwork;
use netcore::model::{Attachment, Mac, Target};
use netcore::{Error, Result};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::decode::{decode, shown};
use crate::document::Document;
use crate::environment::Subject;
use crate::ports;

/// The attachment that `subject` and `document` ask for.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn attachment(subject: &Subject, document: &Document) -> Result<Attachment> {
    let arguments = &subject.arguments;
    let wishes = Wishes { document };
    let published = document.capability("portMappings");
    Ok(Attachment {
        publish: published.map_or(Ok(Vec::new()), |list| ports::mappings("runtimeConfig.portMappings", list))?,
        addresses: wishes.addresses()?.unwrap_or_else(|| arguments.addresses.clone()),
        mac: wishes.mac()?.or(arguments.mac),
        aliases: wishes.aliases()?,
        join: wishes.join()?.or_else(|| arguments.join.clone()),
        labels: arguments.labels.clone().into_iter().chain(wishes.labels()?).collect(),
        ..Attachment::new(subject.id.clone(), subject.netns.clone())
    })
}

struct Wishes<'a> {
    document: &'a Document,
}

impl Wishes<'_> {
    /// A wish of `args.cni`.
    fn argument(&self, name: &str) -> Option<&Value> {
        self.document.keys.get("args")?.get("cni")?.get(name)
    }

    /// A wish that both channels of the configuration may carry.
    fn either<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let said = |value: &&Value| **value != Value::Array(Vec::new()) && **value != Value::String(String::new());
        if let Some(value) = self.document.capability(name).filter(said) {
            return decode(&format!("runtimeConfig.{name}"), value).map(Some);
        }
        self.argument(name).filter(said).map(|value| decode(&format!("args.cni.{name}"), value)).transpose()
    }

    fn addresses(&self) -> Result<Option<Vec<IpNetwork>>> {
        self.either("ips")
    }

    fn mac(&self) -> Result<Option<Mac>> {
        self.either("mac")
    }

    fn join(&self) -> Result<Option<Target>> {
        let said = self.argument("container").filter(|value| **value != Value::String(String::new()));
        said.map(|value| decode("args.cni.container", value)).transpose()
    }

    /// A list, or with podman a list for each network's name.
    fn aliases(&self) -> Result<Vec<String>> {
        const FIELD: &str = "runtimeConfig.aliases";
        match self.document.capability("aliases") {
            None => Ok(Vec::new()),
            Some(Value::Object(networks)) => {
                let name = self.document.keys.get("name").and_then(Value::as_str).unwrap_or_default();
                networks.get(name).map_or(Ok(Vec::new()), |list| decode(&format!("{FIELD}.{name}"), list))
            }
            Some(list @ Value::Array(_)) => decode(FIELD, list),
            Some(other) => Err(Error::invalid(FIELD, shown(other), "a list of names")),
        }
    }

    fn labels(&self) -> Result<BTreeMap<String, String>> {
        #[derive(Deserialize)]
        struct Label {
            key: String,
            value: String,
        }

        let labels: Vec<Label> =
            self.argument("labels").map_or(Ok(Vec::new()), |list| decode("args.cni.labels", list))?;
        Ok(labels.into_iter().map(|Label { key, value }| (key, value)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::Arguments;

    fn subject(arguments: &str) -> Subject {
        Subject {
            id: "web-1".parse().unwrap(),
            netns: Some("/run/netns/web-1".into()),
            arguments: Arguments::parse(arguments).unwrap(),
            own_netns: false,
        }
    }

    fn document(keys: &str) -> Document {
        Document::read(format!(r#"{{"name": "web", {keys}}}"#).as_bytes()).unwrap()
    }

    const DECLARED: &str = r#""capabilities": {"ips": true, "mac": true, "portMappings": true, "aliases": true}"#;
    const ARGS: &str = r#""args": {"cni": {"ips": ["10.0.0.2"], "mac": "0a:00:00:00:00:02", "labels": [{"key": "app", "value": "x"}]}}"#;
    const RUNTIME: &str = r#""runtimeConfig": {"ips": ["10.0.0.3/24", "fd00::3"], "mac": "0a:00:00:00:00:03",
        "portMappings": [{"hostPort": 8080, "containerPort": 80}]}"#;

    #[test]
    fn the_runtime_beats_args_and_args_beat_cni_args() {
        let environment = subject("IP=10.0.0.1;MAC=0a:00:00:00:00:01;K8S_POD_NAME=pod");
        let asked = |keys: &str| {
            let attachment = attachment(&environment, &document(keys)).unwrap();
            (attachment.addresses[0].to_string(), attachment.mac.unwrap().to_string())
        };
        assert_eq!(asked(r#""x": 1"#), ("10.0.0.1/32".into(), "0a:00:00:00:00:01".into()));
        assert_eq!(asked(ARGS), ("10.0.0.2/32".into(), "0a:00:00:00:00:02".into()));
        assert_eq!(
            asked(&format!("{DECLARED}, {ARGS}, {RUNTIME}")),
            ("10.0.0.3/24".into(), "0a:00:00:00:00:03".into())
        );
        let silent = r#""runtimeConfig": {"ips": [], "mac": ""}"#;
        assert_eq!(asked(&format!("{DECLARED}, {ARGS}, {silent}")).0, "10.0.0.2/32");
        // Not declared, not heard.
        assert_eq!(asked(&format!("{ARGS}, {RUNTIME}")).0, "10.0.0.2/32");

        let all = attachment(&environment, &document(&format!("{DECLARED}, {ARGS}, {RUNTIME}"))).unwrap();
        assert_eq!(
            all.labels.into_iter().collect::<Vec<_>>(),
            [("K8S_POD_NAME".to_owned(), "pod".to_owned()), ("app".to_owned(), "x".to_owned())]
        );
        assert_eq!(all.publish[0].to_string(), "8080→80/tcp");
        assert!(attachment(&environment, &document(RUNTIME)).unwrap().publish.is_empty());
    }

    #[test]
    fn aliases_come_as_a_list_or_by_network() {
        let aliases = |value: &str| {
            let keys = format!(r#"{DECLARED}, "runtimeConfig": {{"aliases": {value}}}"#);
            attachment(&subject(""), &document(&keys)).map(|attachment| attachment.aliases)
        };
        assert_eq!(aliases(r#"["db", "primary"]"#).unwrap(), ["db", "primary"]);
        assert_eq!(aliases(r#"{"web": ["db"], "other": ["x"]}"#).unwrap(), ["db"]);
        assert_eq!(aliases("5").unwrap_err().to_string(), "runtimeConfig.aliases: 5 is not a list of names");
    }

    #[test]
    fn a_wish_that_makes_no_sense_is_named() {
        let refusal = |runtime: &str| {
            let keys = format!(r#"{DECLARED}, "runtimeConfig": {runtime}"#);
            attachment(&subject(""), &document(&keys)).unwrap_err().to_string()
        };
        assert_eq!(
            refusal(r#"{"ips": ["10.0.0.1/24", "10.0.0.1/40"]}"#),
            "runtimeConfig.ips[1]: \"10.0.0.1/40\" is not an IP address, with or without a prefix length"
        );
        assert!(
            refusal(r#"{"mac": "ff:ff:ff:ff:ff:ff"}"#)
                .starts_with("runtimeConfig.mac: \"ff:ff:ff:ff:ff:ff\" is not a unicast")
        );
        assert!(
            refusal(r#"{"portMappings": [{"hostPort": 0, "containerPort": 80}]}"#)
                .starts_with("runtimeConfig.portMappings[0].hostPort: 0 is not a port")
        );
    }
}
