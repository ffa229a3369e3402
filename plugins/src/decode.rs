//! From JSON values to types, with errors that name the field, its value and what would be
//! accepted.

use netcore::{Error, Result};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

/// Removes what is written as `null`: the reference plugins read it as absent.
pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, member| !member.is_null());
            members.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Decodes `value`, which is the configuration's field `at`; an empty `at` is the configuration
/// itself.
///
/// # Errors
/// [`Error::Invalid`].
pub(crate) fn decode<T: DeserializeOwned>(at: &str, value: &Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let mut field = join(at, error.path());
        let message = error.inner().to_string();
        if let Some(missing) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
            if !field.is_empty() {
                field.push('.');
            }
            field.push_str(missing);
            return Error::invalid(&field, "a missing value", accepted(&field, "optional"));
        }
        let found = found(value, error.path());
        Error::invalid(&field, found, accepted(&field, &message))
    })
}

/// A value as messages show it: as JSON, and not all of a long one.
pub(crate) fn shown(value: &Value) -> String {
    const MOST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn join(at: &str, path: &Path) -> String {
    let inner = path.to_string();
    match (at, inner.as_str()) {
        (_, ".") => at.to_owned(),
        ("", _) => inner,
        (_, list) if list.starts_with('[') => format!("{at}{list}"),
        _ => format!("{at}.{inner}"),
    }
}

fn found(value: &Value, path: &Path) -> String {
    let reached = path.iter().try_fold(value, |value, segment| match segment {
        Segment::Seq { index } => value.get(index),
        Segment::Map { key } => value.get(key),
        _ => None,
    });
    shown(reached.unwrap_or(value))
}

/// What `field` takes: by its name where the decoder's own words do not help, and otherwise what
/// the decoder expected.
fn accepted(field: &str, message: &str) -> String {
    let name = field.rsplit('.').next().unwrap_or(field);
    let name = name.split('[').next().unwrap_or(name);
    match name {
        "dst" => return "a destination like 10.20.0.0/16".to_owned(),
        "address" | "ip" => return "an address with prefix length, like 10.20.0.2/16".to_owned(),
        "ips" => return "an IP address, with or without a prefix length".to_owned(),
        "gateway" | "gw" => return "an IP address".to_owned(),
        _ => {}
    }
    let words = message.split_once(", expected ").or_else(|| message.split_once(" is not "));
    match words.map_or(message, |(_, expected)| expected) {
        "u16" | "u32" | "u64" => "a whole number from 0".to_owned(),
        "i64" => "a whole number".to_owned(),
        other => other.to_owned(),
    }
}

/// `value` with the first letter of each key small. A runtime written in Go names a field as its
/// program does (`HostPort`) where nobody said otherwise, and takes both spellings itself.
pub(crate) fn decapitalised(value: &Value) -> Value {
    let small = |key: &str| {
        let mut letters = key.chars();
        letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect::<String>()
    };
    match value {
        Value::Array(items) => Value::Array(items.iter().map(decapitalised).collect()),
        Value::Object(keys) => keys.iter().map(|(key, value)| (small(key), decapitalised(value))).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use netcore::model::{BridgeConfig, Lease};
    use serde_json::json;

    use super::*;

    fn refusal<T: DeserializeOwned>(at: &str, value: &Value) -> String {
        decode::<T>(at, value).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn the_field_is_named_however_deep() {
        let lease = json!({"addresses": [{"address": "10.0.0.2/24"}, {"address": "10.1.0.2/33"}]});
        assert_eq!(
            refusal::<Lease>("lease", &lease),
            "lease.addresses[1].address: \"10.1.0.2/33\" is not an address with prefix length, like 10.20.0.2/16"
        );
        assert_eq!(
            refusal::<Lease>("lease", &json!({"routes": [{"gw": "10.1.0.1"}]})),
            "lease.routes[0].dst: a missing value is not a destination like 10.20.0.0/16"
        );
        assert_eq!(refusal::<BridgeConfig>("", &json!({"isGateway": "yes"})), "isGateway: \"yes\" is not a boolean");
        assert_eq!(refusal::<BridgeConfig>("", &json!({"mtu": -1})), "mtu: -1 is not a whole number from 0");
        assert!(
            refusal::<BridgeConfig>("", &json!({"bridge": "a/b"})).starts_with("bridge: \"a/b\" is not an interface")
        );
        assert!(
            refusal::<BridgeConfig>("", &json!({"mac": "ff:ff:ff:ff:ff:ff"})).contains("is not a unicast MAC address")
        );
    }

    #[test]
    fn null_is_absent() {
        let mut value = json!({"mtu": null, "bridge": "cni0", "list": [{"a": null}]});
        drop_nulls(&mut value);
        assert_eq!(value, json!({"bridge": "cni0", "list": [{}]}));
    }
}
