//! Errors as the runtime reads them: a code, a message and details, as JSON on stdout (CNI spec
//! 1.1.0, "Error").
//!
//! | code | when |
//! |---|---|
//! | 1 | `cniVersion` is none we speak, or too old for the verb |
//! | 2 | the configuration asks for something that is not supported |
//! | 3 | CHECK for an attachment that was never made |
//! | 4 | the environment is incomplete or malformed |
//! | 5 | a file could not be read or written, or a record in one cannot be understood |
//! | 6 | the configuration is not a JSON object |
//! | 7 | a value in the configuration, or in a file of peers, is not acceptable |
//! | 8 | `CNI_NETNS` is not a network namespace, or the plugin's own |
//! | 11 | the same call may succeed later: somebody else kept changing the same thing, or the node has no part of the overlay yet |
//! | 50, 51 | STATUS: ADD cannot be served; 51 if running containers suffer as well |
//! | 100 | no address is free |
//! | 101 | the host port is published already, or a program on the host listens on it |
//! | 102 | the address asked for belongs to somebody else |
//! | 103 | the interface, or the attachment, is there already |
//! | 104 | something that is there, and not ours, contradicts the configuration |
//! | 105 | the kernel refused |
//! | 106 | CHECK: something is missing, or differs |
//! | 999 | a defect of ours |
//!
//! An executed IPAM plugin's own code is passed on.

use std::error::Error as _;
use std::io::Write;

use netcore::Error;
use serde::Serialize;

use crate::versions::Version;

/// What goes to stdout instead of a result.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Failure {
    #[serde(rename = "cniVersion")]
    pub(crate) version: Version,
    pub(crate) code: u32,
    pub(crate) msg: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) details: String,
}

pub(crate) const INCOMPATIBLE_VERSION: u32 = 1;
pub(crate) const UNSUPPORTED: u32 = 2;
pub(crate) const UNKNOWN_CONTAINER: u32 = 3;
pub(crate) const ENVIRONMENT: u32 = 4;
pub(crate) const IO: u32 = 5;
pub(crate) const UNDECODABLE: u32 = 6;
pub(crate) const INVALID: u32 = 7;
pub(crate) const NETNS: u32 = 8;
pub(crate) const TRY_AGAIN: u32 = 11;
pub(crate) const NOT_AVAILABLE: u32 = 50;
pub(crate) const LIMITED_CONNECTIVITY: u32 = 51;
pub(crate) const POOL_EXHAUSTED: u32 = 100;
pub(crate) const PORT_TAKEN: u32 = 101;
pub(crate) const ADDRESS_TAKEN: u32 = 102;
pub(crate) const EXISTS: u32 = 103;
pub(crate) const CONFLICT: u32 = 104;
pub(crate) const KERNEL: u32 = 105;
pub(crate) const DRIFT: u32 = 106;
pub(crate) const INTERNAL: u32 = 999;

impl Failure {
    pub(crate) fn new(code: u32, msg: impl Into<String>) -> Self {
        Self { version: Version::LATEST, code, msg: msg.into(), details: String::new() }
    }

    /// A variable of the environment that is missing or malformed.
    pub(crate) fn environment(variable: &str, value: &str, expected: &str) -> Self {
        Self::new(ENVIRONMENT, format!("{variable}: {value} is not {expected}"))
    }

    /// The same failure, told in the words of `version`.
    pub(crate) fn told_in(self, version: Version) -> Self {
        Self { version, ..self }
    }

    /// The same failure as an answer to STATUS: whatever keeps us from looking keeps ADD from
    /// being served. Faults of the configuration stay what they are.
    pub(crate) fn of_status(self) -> Self {
        let code = match self.code {
            INVALID | UNSUPPORTED | NOT_AVAILABLE | LIMITED_CONNECTIVITY => self.code,
            _ => NOT_AVAILABLE,
        };
        Self { code, ..self }
    }

    pub(crate) fn to_json(&self) -> String {
        // A struct of strings and numbers always serializes.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { details: details(&error), ..Self::new(code(&error), error.to_string()) }
    }
}

fn code(error: &Error) -> u32 {
    match error {
        Error::Invalid { .. } | Error::Peers { .. } => INVALID,
        Error::Unsupported { .. } => UNSUPPORTED,
        Error::Netns { .. } => NETNS,
        Error::InterfaceExists { .. } | Error::AlreadyAttached { .. } => EXISTS,
        Error::NotAttached { .. } => UNKNOWN_CONTAINER,
        Error::Conflict { .. } => CONFLICT,
        Error::PortTaken { .. } | Error::PortInUse(_) => PORT_TAKEN,
        Error::Kernel { .. } | Error::Firewalld { .. } => KERNEL,
        Error::File { .. } | Error::Record { .. } => IO,
        Error::PoolExhausted { .. } => POOL_EXHAUSTED,
        Error::AddressTaken { .. } => ADDRESS_TAKEN,
        Error::Delegate { code: 0, .. } => INTERNAL,
        Error::Delegate { code, .. } => *code,
        Error::Drift(_) => DRIFT,
        Error::Several(errors) => errors.first().map_or(INTERNAL, code),
        Error::Busy { .. } | Error::NoSubnet { .. } => TRY_AGAIN,
        _ => INTERNAL,
    }
}

/// What lies behind an error: an executed plugin's details, or the chain of sources.
fn details(error: &Error) -> String {
    match error {
        Error::Delegate { details, .. } => details.clone(),
        Error::Several(errors) => {
            errors.iter().map(details_of_one).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ")
        }
        _ => details_of_one(error),
    }
}

fn details_of_one(error: &Error) -> String {
    std::iter::successors(error.source(), |source| (*source).source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Makes a panic an answer too: the runtime reads stdout, and nothing else would be there.
pub(crate) fn answer_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let failure =
            Failure { details: panic.to_string(), ..Failure::new(INTERNAL, "internal error: this is a defect") };
        let _ = writeln!(std::io::stdout(), "{}", failure.to_json());
        eprintln!("{panic}");
        std::process::exit(1);
    }));
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn told(error: Error) -> Failure {
        Failure::from(error)
    }

    #[test]
    fn every_error_has_its_code() {
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        let cases = [
            (Error::invalid("mtu", -1, "a number"), 7),
            (Error::Unsupported { field: "vlan".into(), value: "5".into(), way_out: String::new() }, 2),
            (Error::Netns { path: "/x".into(), reason: "not there".into(), source: None }, 8),
            (Error::NotAttached { network: "web".into(), attachment: "a/eth0".into(), records: "/run".into() }, 3),
            (Error::AlreadyAttached { network: "web".into(), attachment: "a/eth0".into() }, 103),
            (Error::InterfaceExists { name: "eth0".parse().unwrap(), place: "container".into() }, 103),
            (Error::Conflict { object: "cni0".into(), found: "a veth".into(), way_out: String::new() }, 104),
            (Error::Kernel { operation: "create", object: "cni0".into(), source: denied(), detail: None }, 105),
            (Error::File { operation: "read", path: "/x".into(), source: denied() }, 5),
            (Error::Record { path: "/x".into(), reason: "empty".into() }, 5),
            (Error::PoolExhausted { network: "web".into(), ranges: "10.0.0.0/30".into() }, 100),
            (Error::Busy { object: "table".into(), attempts: 9 }, 11),
            (Error::NoSubnet { network: "mesh".into(), reason: "no agent".into() }, 11),
            (Error::Peers { origin: "/x".into(), reason: "empty".into() }, 7),
            (Error::Drift(Vec::new()), 106),
            (Error::Delegate { plugin: "dhcp".into(), code: 0, message: String::new(), details: String::new() }, 999),
            (Error::Delegate { plugin: "dhcp".into(), code: 42, message: String::new(), details: String::new() }, 42),
            (Error::Several(vec![Error::Busy { object: "table".into(), attempts: 9 }, Error::Drift(Vec::new())]), 11),
        ];
        for (error, code) in cases {
            let words = error.to_string();
            let failure = told(error);
            assert_eq!((failure.code, failure.msg), (code, words));
        }
    }

    #[test]
    fn details_are_what_lies_behind() {
        let source = io::Error::from_raw_os_error(1);
        let failure = told(Error::File { operation: "write", path: "/run/netcore/web".into(), source });
        assert_eq!(
            failure.to_json(),
            r#"{"cniVersion":"1.1.0","code":5,"msg":"write /run/netcore/web: Operation not permitted (os error 1)","details":"Operation not permitted (os error 1)"}"#
        );
    }

    #[test]
    fn status_says_fifty_unless_it_knows_better() {
        let full = || told(Error::PoolExhausted { network: "web".into(), ranges: "10.0.0.0/30".into() });
        assert_eq!(full().of_status().code, 50);
        let early = told(Error::NoSubnet { network: "mesh".into(), reason: "no agent".into() });
        assert_eq!(early.of_status().code, 50);
        assert_eq!(Failure::new(51, "").of_status().code, 51);
        assert_eq!(told(Error::invalid("mtu", -1, "a number")).of_status().code, 7);
    }
}
