//! A section of a user's configuration, read key by key, so that a refusal names the key, its
//! value and what would be accepted (serde alone says "invalid type" and forgets where).
//!
//! As in every CNI plugin, `null` and an empty text are as good as no key at all, and keys that
//! nobody knows are left alone.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// One JSON object and where it stands in the configuration.
pub(super) struct Section<'a> {
    path: String,
    keys: &'a Map<String, Value>,
}

impl<'a> Section<'a> {
    /// The object `value`, which the user knows as `path`.
    pub(super) fn new(path: impl Into<String>, value: &'a Value) -> Result<Self> {
        let path = path.into();
        match value {
            Value::Object(keys) => Ok(Self { path, keys }),
            other => Err(Error::invalid(path, other, "an object")),
        }
    }

    /// The full name of `key`.
    pub(super) fn field(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.keys.get(key).filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    /// Whether `key` is there and says something.
    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn read<T>(&self, key: &str, expected: &str, parse: impl Fn(&'a str) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_str().and_then(parse) {
            Some(read) => Ok(Some(read)),
            None => Err(Error::invalid(self.field(key), value, expected)),
        }
    }

    /// A text.
    pub(super) fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.read(key, "a text", Some)
    }

    /// An IP address; an IPv4 address in IPv6 clothes (RFC 4291, 2.5.5.2) counts as IPv4.
    pub(super) fn address(&self, key: &str) -> Result<Option<IpAddr>> {
        self.read(key, "an IP address", |text| text.parse().ok().map(|address: IpAddr| address.to_canonical()))
    }

    /// An address with its prefix length.
    pub(super) fn network(&self, key: &str) -> Result<Option<IpNetwork>> {
        let expected = "an address with a prefix length of at most 32 for IPv4 and 128 for IPv6, such as 10.20.0.0/16";
        self.read(key, expected, |text| if text.contains('/') { text.parse().ok() } else { None })
    }

    /// Anything that knows how to read itself.
    pub(super) fn value<T: DeserializeOwned + Default>(&self, key: &str, expected: &str) -> Result<T> {
        self.get(key).map_or_else(|| Ok(T::default()), |value| whole(&self.field(key), value, expected))
    }

    /// A list whose items `read` understands, given their path; empty when absent.
    pub(super) fn list<T>(&self, key: &str, read: impl Fn(&str, &'a Value) -> Result<T>) -> Result<Vec<T>> {
        self.get(key).map_or_else(|| Ok(Vec::new()), |value| list(&self.field(key), value, read))
    }
}

/// The items of the list at `path`, as `read` understands them.
pub(super) fn list<'a, T>(path: &str, value: &'a Value, read: impl Fn(&str, &'a Value) -> Result<T>) -> Result<Vec<T>> {
    let Value::Array(items) = value else { return Err(Error::invalid(path, value, "a list")) };
    items.iter().enumerate().map(|(position, item)| read(&format!("{path}[{position}]"), item)).collect()
}

/// The value at `path`, as serde understands it.
pub(super) fn whole<T: DeserializeOwned>(path: &str, value: &Value, expected: &str) -> Result<T> {
    T::deserialize(value).map_err(|fault| Error::invalid(path, value, format!("{expected} ({fault})")))
}
