//! The configuration as it arrives on stdin: one JSON object of limited size, of a version we
//! speak. What its keys mean is for [`configuration`](crate::configuration) and
//! [`wishes`](crate::wishes).

use std::io::Read;

use netcore::model::AttachmentId;
use netcore::{Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::decode::{decode, drop_nulls, shown};
use crate::failure::{Failure, INCOMPATIBLE_VERSION, IO, UNDECODABLE};
use crate::result::Success;
use crate::versions::Version;

/// The most we read: a thousand times a large configuration.
const LIMIT: usize = 1 << 20;

/// The survivors of GC: the spec's key, and the one libcni 1.2 sent by mistake.
const SURVIVORS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

/// A configuration, decoded as far as to JSON.
#[derive(Debug)]
pub(crate) struct Document {
    /// What was read, to the byte: executed plugins get the same.
    pub(crate) raw: Vec<u8>,
    pub(crate) version: Version,
    pub(crate) keys: Map<String, Value>,
}

impl Document {
    /// Reads all of `input`, but never much more than 1 MiB.
    ///
    /// # Errors
    /// A [`Failure`] of code 5 when reading fails, 6 when it is too large or not a JSON object,
    /// 1 when it is of a version we do not speak.
    pub(crate) fn read(input: impl Read) -> Result<Self, Failure> {
        let refused = |reason: String| Failure::new(UNDECODABLE, format!("configuration: {reason}"));
        let mut raw = Vec::new();
        let read = input.take(LIMIT as u64 + 1).read_to_end(&mut raw);
        read.map_err(|error| Failure::new(IO, format!("configuration: read stdin: {error}")))?;
        if raw.len() > LIMIT {
            return Err(refused(format!("more than {LIMIT} bytes (1 MiB), which is the limit")));
        }
        let text = std::str::from_utf8(&raw).map_err(|error| refused(format!("not UTF-8: {error}")))?;
        if text.trim_ascii().is_empty() {
            return Err(refused("nothing on stdin; expected a JSON object".to_owned()));
        }
        let mut value: Value = serde_json::from_str(text).map_err(|error| refused(format!("not JSON: {error}")))?;
        for key in SURVIVORS {
            // Go writes an empty list as null.
            if let Some(list) = value.get_mut(key).filter(|list| list.is_null()) {
                *list = Value::Array(Vec::new());
            }
        }
        drop_nulls(&mut value);
        match value {
            Value::Object(keys) => Ok(Self { version: version(&keys)?, raw, keys }),
            other => Err(refused(format!("{} is not a JSON object", shown(&other)))),
        }
    }

    /// What the runtime says for a capability that the configuration declares.
    pub(crate) fn capability(&self, name: &str) -> Option<&Value> {
        let declared = self.keys.get("capabilities")?.get(name)?.as_bool()?;
        self.keys.get("runtimeConfig")?.get(name).filter(|_| declared)
    }

    /// The result of the plugins before this one.
    ///
    /// # Errors
    /// A [`Failure`] of code 7 when it is no result, 1 when it is of an unknown version.
    pub(crate) fn previous(&self) -> Result<Option<Success>, Failure> {
        self.keys.get("prevResult").map(|value| Success::parse("prevResult", value, self.version)).transpose()
    }

    /// The attachments that GC must leave alone.
    ///
    /// # Errors
    /// [`Error::Invalid`] when there is no list, or something in it is no attachment: then
    /// nothing is collected.
    pub(crate) fn survivors(&self) -> Result<Vec<AttachmentId>> {
        #[derive(Deserialize)]
        struct Survivor {
            #[serde(rename = "containerID")]
            container: netcore::model::Name,
            #[serde(rename = "ifname")]
            interface: netcore::model::InterfaceName,
        }

        let found = SURVIVORS.iter().find_map(|key| Some((key, self.keys.get(*key)?)));
        let Some((key, list)) = found else {
            let expected = "a list of {\"containerID\", \"ifname\"}: GC removes everything that is not in it";
            return Err(Error::invalid(SURVIVORS[0], "a missing value", expected));
        };
        let survivors: Vec<Survivor> = decode(key, list)?;
        let ids = survivors.into_iter();
        Ok(ids.map(|Survivor { container, interface }| AttachmentId { container, interface }).collect())
    }
}

fn version(keys: &Map<String, Value>) -> Result<Version, Failure> {
    match keys.get("cniVersion") {
        None => Ok(Version::V0_1_0),
        Some(Value::String(text)) => Version::parse(text).ok_or_else(|| unknown_version("cniVersion", text)),
        Some(other) => {
            Err(Failure::new(UNDECODABLE, format!("cniVersion: {} is not a string like \"1.1.0\"", shown(other))))
        }
    }
}

/// The refusal of a version that is none of ours.
pub(crate) fn unknown_version(field: &str, text: &str) -> Failure {
    Failure::new(INCOMPATIBLE_VERSION, format!("{field}: {text:?} is not one of {}", Version::list()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(input: &[u8]) -> (u32, String) {
        let failure = Document::read(input).unwrap_err();
        (failure.code, failure.msg)
    }

    #[test]
    fn what_is_not_a_json_object_is_undecodable() {
        let message = |input: &[u8]| {
            let (code, message) = refusal(input);
            assert_eq!(code, 6, "{message}");
            message
        };
        assert_eq!(message(b""), "configuration: nothing on stdin; expected a JSON object");
        assert_eq!(message(b" \n"), "configuration: nothing on stdin; expected a JSON object");
        assert_eq!(message(b"[1, 2]"), "configuration: [1,2] is not a JSON object");
        assert_eq!(message(b"null"), "configuration: null is not a JSON object");
        assert!(message(b"{\"name\": ").starts_with("configuration: not JSON: EOF while parsing"));
        assert!(message(b"{} {}").starts_with("configuration: not JSON: trailing characters"));
        assert!(message(b"{\"name\": \"w\xffb\"}").starts_with("configuration: not UTF-8"));
        assert!(message(&b"[".repeat(100_000)).contains("recursion limit"));
        assert_eq!(message(br#"{"cniVersion": 1}"#), "cniVersion: 1 is not a string like \"1.1.0\"");
    }

    #[test]
    fn ten_mebibytes_are_refused_without_being_read() {
        let mut input = std::io::repeat(b' ').take(10 << 20);
        let failure = Document::read(&mut input).unwrap_err();
        assert_eq!(failure.code, 6);
        assert_eq!(failure.msg, "configuration: more than 1048576 bytes (1 MiB), which is the limit");
        assert!(input.limit() > 8 << 20, "{} bytes left", input.limit());
    }

    #[test]
    fn the_version_decides() {
        assert_eq!(Document::read(&b"{}"[..]).unwrap().version, Version::V0_1_0);
        assert_eq!(Document::read(&br#"{"cniVersion":""}"#[..]).unwrap().version, Version::V0_1_0);
        assert_eq!(Document::read(&br#"{"cniVersion":"0.4.0"}"#[..]).unwrap().version, Version::V0_4_0);
        let (code, message) = refusal(br#"{"cniVersion":"2.0.0"}"#);
        assert_eq!(code, 1);
        assert_eq!(message, "cniVersion: \"2.0.0\" is not one of 0.1.0, 0.2.0, 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0");
    }

    #[test]
    fn what_the_runtime_says_counts_only_if_declared() {
        let declared = |text: &str| {
            let document = Document::read(text.as_bytes()).unwrap();
            document.capability("mac").map(ToString::to_string)
        };
        let runtime = r#""runtimeConfig": {"mac": "0a:58:0a:14:00:02"}"#;
        assert!(declared(&format!(r#"{{"capabilities": {{"mac": true}}, {runtime}}}"#)).is_some());
        assert!(declared(&format!(r#"{{"capabilities": {{"mac": false}}, {runtime}}}"#)).is_none());
        assert!(declared(&format!("{{{runtime}}}")).is_none());
    }

    #[test]
    fn survivors_come_under_either_key_and_must_be_there() {
        let survivors = |text: &str| Document::read(text.as_bytes()).unwrap().survivors();
        for key in SURVIVORS {
            let two = format!(
                r#"{{"{key}": [{{"containerID": "a", "ifname": "eth0"}}, {{"containerID": "b", "ifname": "net1"}}]}}"#
            );
            assert_eq!(survivors(&two).unwrap(), ["a/eth0".parse().unwrap(), "b/net1".parse().unwrap()]);
            assert_eq!(survivors(&format!(r#"{{"{key}": []}}"#)).unwrap(), []);
            assert_eq!(survivors(&format!(r#"{{"{key}": null}}"#)).unwrap(), []);
        }
        let refusal = survivors("{}").unwrap_err().to_string();
        assert!(refusal.starts_with("cni.dev/valid-attachments: a missing value is not a list"), "{refusal}");
        let refusal = survivors(r#"{"cni.dev/valid-attachments": [{"containerID": "../a", "ifname": "eth0"}]}"#);
        let refusal = refusal.unwrap_err().to_string();
        assert!(refusal.starts_with("cni.dev/valid-attachments[0].containerID: \"../a\" is not a name"), "{refusal}");
    }
}
