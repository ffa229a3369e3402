//! Where an overlay's registry is, and how its agents prove who they are.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where the agent finds etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EtcdSource {
    /// The members' URLs.
    pub endpoints: Vec<String>,
    /// What the network's keys start with.
    pub prefix: String,
    /// How members prove who they are, and this node to them, over `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<EtcdTls>,
    /// The user, where etcd asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's password. Records do not repeat it: only agents have a use for it.
    #[serde(default, skip_serializing)]
    pub password: Option<Password>,
    /// A file with the password in it, read at every connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
}

/// Certificates and keys, as files in PEM.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EtcdTls {
    /// The authorities that may vouch for a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// This node's certificate, where members ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// A password, which is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

impl EtcdSource {
    /// The setting that makes no sense, as (key below `source.etcd`, value, what is expected).
    #[must_use]
    pub fn fault(&self) -> Option<(&'static str, String, &'static str)> {
        let nothing = || "nothing".to_owned();
        if self.endpoints.is_empty() {
            return Some(("endpoints", nothing(), "a list of URLs"));
        }
        let is_url = |url: &&String| ["http://", "https://"].iter().any(|scheme| has_host(url, scheme));
        if let Some(url) = self.endpoints.iter().find(|url| !is_url(url)) {
            return Some(("endpoints", format!("{url:?}"), "a URL like https://192.0.2.1:2379"));
        }
        if !self.prefix.starts_with('/') || self.prefix.ends_with('/') {
            return Some(("prefix", format!("{:?}", self.prefix), "a key's beginning like /netcore/mesh"));
        }
        if let Some(tls) = &self.tls {
            if let Some(url) = self.endpoints.iter().find(|url| !url.starts_with("https://")) {
                return Some(("endpoints", format!("{url:?}"), "an https URL, as `tls` is there"));
            }
            if tls.cert.is_some() != tls.key.is_some() {
                return Some(("tls", "half a pair".to_owned(), "with both `cert` and `key`, or neither"));
            }
            if let Some(path) = [&tls.ca, &tls.cert, &tls.key].into_iter().flatten().find(|path| !path.is_absolute()) {
                return Some(("tls", path.display().to_string(), "an absolute path"));
            }
        }
        if let Some(path) = self.password_file.as_ref().filter(|path| !path.is_absolute()) {
            return Some(("passwordFile", path.display().to_string(), "an absolute path"));
        }
        if self.password.is_some() && self.password_file.is_some() {
            return Some(("passwordFile", "what is there".to_owned(), "absent where `password` is given"));
        }
        if self.user.is_none() && (self.password.is_some() || self.password_file.is_some()) {
            return Some(("user", nothing(), "given where there is a password"));
        }
        None
    }
}

fn has_host(url: &str, scheme: &str) -> bool {
    url.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty() && !rest.starts_with([':', '/']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(changes: &str) -> Option<String> {
        let text = format!(r#"{{"endpoints": ["https://192.0.2.1:2379"], "prefix": "/mesh"{changes}}}"#);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        let source: EtcdSource = serde_json::from_value(value).unwrap();
        source.fault().map(|(key, value, expected)| format!("{key}: {value} is not {expected}"))
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        assert_eq!(fault(""), None);
        assert_eq!(fault(r#", "tls": {"ca": "/ca.pem"}, "user": "a", "passwordFile": "/p""#), None);
        let faults = [
            (r#", "endpoints": []"#, "endpoints: nothing is not a list of URLs"),
            (r#", "endpoints": ["192.0.2.1:2379"]"#, "endpoints: \"192.0.2.1:2379\" is not a URL"),
            (r#", "endpoints": ["https://"]"#, "endpoints: \"https://\" is not a URL"),
            (r#", "endpoints": ["http://a:1"], "tls": {}"#, "endpoints: \"http://a:1\" is not an https URL"),
            (r#", "prefix": "mesh""#, "prefix: \"mesh\" is not"),
            (r#", "prefix": "/mesh/""#, "prefix: \"/mesh/\" is not"),
            (r#", "tls": {"cert": "/c.pem"}"#, "tls: half a pair is not with both"),
            (r#", "tls": {"ca": "ca.pem"}"#, "tls: ca.pem is not an absolute path"),
            (r#", "password": "x""#, "user: nothing is not given"),
            (r#", "user": "a", "password": "x", "passwordFile": "/p""#, "passwordFile: what is there is not absent"),
            (r#", "user": "a", "passwordFile": "p""#, "passwordFile: p is not an absolute path"),
        ];
        for (changes, words) in faults {
            let said = fault(changes).unwrap_or_default();
            assert!(said.starts_with(words), "{changes}: {said}");
        }
        let slip = r#"{"endpoints": ["https://a:1"], "prefix": "/mesh", "pasword": "x"}"#;
        assert!(serde_json::from_str::<EtcdSource>(slip).unwrap_err().to_string().contains("pasword"));
    }

    #[test]
    fn a_password_is_neither_printed_nor_kept() {
        let text = r#"{"endpoints": ["https://a:1"], "prefix": "/mesh", "user": "a", "password": "secret"}"#;
        let source: EtcdSource = serde_json::from_str(text).unwrap();
        assert_eq!(source.password, Some(Password("secret".to_owned())));
        assert!(!format!("{source:?}").contains("secret"));
        assert!(!serde_json::to_string(&source).unwrap().contains("secret"));
    }
}
