//! Keys that the reference plugin of a name knows, and ours does not do: asked for, they are an
//! error, since keys that nobody knows are ignored and the wish would be lost without a word.

use netcore::{Error, Result};
use serde_json::{Map, Value};

/// Refuses what the plugin `kind` cannot do yet.
///
/// # Errors
/// [`Error::Unsupported`] naming the key.
pub(crate) fn refuse(kind: &str, keys: &Map<String, Value>) -> Result<()> {
    // `preserveDefaultVlan` only says what becomes of VLAN 1 when there are others.
    let unsupported: &[&str] = if kind == "bridge" { &["vlan", "vlanTrunk", "macspoofchk"] } else { &[] };
    let asked = |key| keys.get(key).filter(|value| !is_default(value)).map(|value| (key, value));
    match unsupported.iter().copied().find_map(asked) {
        None => Ok(()),
        Some((key, value)) => Err(Error::Unsupported {
            field: key.into(),
            value: value.to_string(),
            way_out: "leave it out, or use the reference bridge plugin for this network".to_owned(),
        }),
    }
}

fn is_default(value: &Value) -> bool {
    match value {
        Value::Bool(on) => !on,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
