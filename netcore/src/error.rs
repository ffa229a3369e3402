//! Everything that can go wrong, in one enum. A variant names the object, the operation, the
//! source, and where there is one, the way out; nothing is flattened into a string before the
//! caller has had the chance to look at it.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::PathBuf;

use crate::model::{InterfaceName, InvalidName, Listener, Mark, Protocol};

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value in a configuration or an argument is not acceptable.
    #[error("{field}: {value} is not {expected}")]
    Invalid {
        /// The field as the user writes it (`ipam.ranges[0][0].subnet`).
        field: String,
        /// The refused value.
        value: String,
        /// What would be accepted.
        expected: String,
    },
    /// A configuration asks for something this version does not do.
    #[error("{field}: {value} is not supported{}", hint(.way_out))]
    Unsupported {
        /// The field as the user writes it.
        field: String,
        /// Its value.
        value: String,
        /// What to do instead; may be empty.
        way_out: String,
    },
    /// A path that should be a network namespace is not, or is one that may not be used.
    #[error("network namespace {}: {reason}", .path.display())]
    Netns {
        /// The path as given.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// The system's word on it, if it was asked.
        #[source]
        source: Option<io::Error>,
    },
    /// The interface to be made is there already.
    #[error("interface {name} exists already in {place}: detach it first, or ask for another name")]
    InterfaceExists {
        /// The interface.
        name: InterfaceName,
        /// Where.
        place: String,
    },
    /// The attachment is in place already.
    #[error("{network}: {attachment} is attached already: detach it first")]
    AlreadyAttached {
        /// The network.
        network: String,
        /// Container and interface.
        attachment: String,
    },
    /// There is no such attachment.
    #[error("{network}: {attachment} is not attached (no record of it in {})", .records.display())]
    NotAttached {
        /// The network.
        network: String,
        /// Container and interface.
        attachment: String,
        /// Where the record would be.
        records: PathBuf,
    },
    /// Something that is there, and not ours to change, contradicts what is wanted.
    #[error("{object}: {found}{}", hint(.way_out))]
    Conflict {
        /// What is wanted.
        object: String,
        /// What is there instead.
        found: String,
        /// How to get past it.
        way_out: String,
    },
    /// A host port is published already.
    #[error("host port {port}/{protocol}{} is already published{}", on(.address), by(.holder))]
    PortTaken {
        /// The host address asked for, if one.
        address: Option<std::net::IpAddr>,
        /// The port.
        port: u16,
        /// The protocol.
        protocol: Protocol,
        /// Who holds it, if the kernel could tell.
        holder: Option<Mark>,
    },
    /// A program on the host listens on a port that a container in its namespace is to have.
    #[error("host port {}/{} is in use: {} listens on {}: stop it, or use another port",
        .0.address.port(), .0.protocol, listening(.0), .0.address)]
    PortInUse(Box<Listener>),
    /// The kernel refused.
    #[error("{operation} {object}: {}", kernel_words(.source, .detail))]
    Kernel {
        /// What was attempted: "create", "remove", "read".
        operation: &'static str,
        /// On what.
        object: String,
        /// The error code.
        #[source]
        source: io::Error,
        /// The kernel's own explanation (extended ack), where it gave one.
        detail: Option<String>,
    },
    /// firewalld, or the bus it listens on, did not do what it was asked for.
    #[error("firewalld: {operation} {object}: {reason}{}", hint(.way_out))]
    Firewalld {
        /// What was attempted: "bind", "unbind".
        operation: &'static str,
        /// On what.
        object: String,
        /// Its words.
        reason: String,
        /// How to get past it; may be empty.
        way_out: String,
    },
    /// A file of ours could not be read or written.
    #[error("{operation} {}: {source}", .path.display())]
    File {
        /// What was attempted.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word on it.
        #[source]
        source: io::Error,
    },
    /// A record on disk cannot be understood. It is left in place.
    #[error("record {}: {reason}", .path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// This node has no part of an overlay yet; it may have one later.
    #[error("network {network}: {reason}")]
    NoSubnet {
        /// The network.
        network: String,
        /// What is missing, and how it comes about.
        reason: String,
    },
    /// What a source says about the nodes of an overlay makes no sense.
    #[error("{origin}: {reason}")]
    Peers {
        /// The source.
        origin: String,
        /// What is wrong with it.
        reason: String,
    },
    /// No address is free.
    #[error("network {network}: no free address in {ranges}: detach a container, or widen the range")]
    PoolExhausted {
        /// The network.
        network: String,
        /// The ranges that were tried.
        ranges: String,
    },
    /// An address that was asked for belongs to somebody else.
    #[error("network {network}: address {address} is reserved for {holder}")]
    AddressTaken {
        /// The network.
        network: String,
        /// The address.
        address: std::net::IpAddr,
        /// Who has it: container and interface.
        holder: String,
    },
    /// An executed IPAM plugin failed, in its own words.
    #[error("IPAM plugin {plugin}: {message}{}", in_brackets(.details))]
    Delegate {
        /// The plugin.
        plugin: String,
        /// Its CNI error code; 999 when it gave none.
        code: u32,
        /// Its message.
        message: String,
        /// Its details; may be empty.
        details: String,
    },
    /// What should be there is not, or differs; every single thing is listed.
    #[error("{}", list(.0))]
    Drift(Vec<crate::plan::Drift>),
    /// Several things went wrong while everything else was done.
    #[error("{}", list(.0))]
    Several(Vec<Error>),
    /// Somebody else kept changing the same thing; the same call may succeed later.
    #[error("{object}: changed by others {attempts} times while it was being changed; try again")]
    Busy {
        /// What was being changed.
        object: String,
        /// How often it was tried.
        attempts: u32,
    },
}

impl Error {
    /// An [`Error::Invalid`].
    pub fn invalid(field: impl Into<String>, value: impl fmt::Display, expected: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), value: value.to_string(), expected: expected.into() }
    }

    /// The kernel cannot encrypt.
    pub(crate) fn no_wireguard() -> Self {
        Self::Unsupported {
            field: "encryption".to_owned(),
            value: "wireguard".to_owned(),
            way_out: "this kernel has no WireGuard: install or load its module `wireguard` (part of Linux since 5.6), \
                      or leave `encryption` out on every node"
                .to_owned(),
        }
    }

    /// One error for a list of them: `Ok` for none, the error itself for one.
    pub(crate) fn from_list(errors: Vec<Error>) -> Result<()> {
        if errors.is_empty() { Ok(()) } else { Err(Self::several(errors)) }
    }

    /// One error for the failures of something that has failed: the first alone, or all.
    pub(crate) fn several(mut errors: Vec<Error>) -> Self {
        if errors.len() == 1 { errors.remove(0) } else { Self::Several(errors) }
    }

    /// Wraps an I/O error on a file of ours.
    pub(crate) fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { operation, path, source }
    }
}

impl From<InvalidName> for Error {
    fn from(name: InvalidName) -> Self {
        Self::invalid("name", format!("{:?}", name.value), name.expected)
    }
}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

fn hint(way_out: &str) -> String {
    if way_out.is_empty() { String::new() } else { format!("; {way_out}") }
}

fn on(address: &Option<std::net::IpAddr>) -> String {
    address.map(|address| format!(" on {address}")).unwrap_or_default()
}

fn by(holder: &Option<Mark>) -> String {
    match holder {
        Some(mark) => format!(" by {}: publish another port, or detach that one", mark.who()),
        None => ": publish another port".to_owned(),
    }
}

fn listening(listener: &Listener) -> String {
    listener.process.as_ref().map_or_else(|| "somebody".to_owned(), ToString::to_string)
}

fn kernel_words(source: &io::Error, detail: &Option<String>) -> String {
    match detail {
        Some(detail) => format!("{detail} ({source})"),
        None => source.to_string(),
    }
}

fn in_brackets(details: &str) -> String {
    if details.is_empty() { String::new() } else { format!(" ({details})") }
}

fn list<T: fmt::Display>(items: &[T]) -> String {
    items.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}
