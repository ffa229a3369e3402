//! Who owns what: the identity of an attachment, and the mark it leaves on kernel objects.
//!
//! The mark is the interface alias of a link and the comment of an nftables element. It is what
//! lets a later process, which may know nothing else, tell ours from everybody else's: what does
//! not carry it is never changed or removed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{InterfaceName, InvalidName, Name, fingerprint};

/// One attachment of a network: an interface in a container (CNI spec 1.1.0: the container id
/// and `CNI_IFNAME` identify it within its network).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachmentId {
    /// The container, as the runtime names it.
    pub container: Name,
    /// The interface inside the container.
    pub interface: InterfaceName,
}

impl AttachmentId {
    /// The interface an attachment has when nobody says otherwise.
    pub const DEFAULT_INTERFACE: &'static str = "eth0";

    /// Checks both names.
    ///
    /// # Errors
    /// [`InvalidName`] when either is not a name of its kind.
    pub fn new(container: &str, interface: &str) -> Result<Self, InvalidName> {
        Ok(Self { container: container.parse()?, interface: interface.parse()? })
    }

    /// The mark this attachment of `network` leaves on what is its own.
    #[must_use]
    pub fn mark(&self, network: &Name) -> Mark {
        Mark(format!(
            "{PREFIX}{}/{}/{}",
            shorten(network.as_str(), NETWORK_BYTES),
            shorten(self.container.as_str(), CONTAINER_BYTES),
            self.interface
        ))
    }

    /// A name for the host's end of this attachment's link on `network`: always the same, so
    /// that it can be found again without any state, and different from every other's.
    #[must_use]
    pub fn host_interface(&self, network: &Name) -> InterfaceName {
        let identity = format!("{network}/{}/{}", self.container, self.interface);
        let hash = fingerprint(identity.as_bytes());
        InterfaceName::numbered("veth", hash)
    }
}

impl fmt::Display for AttachmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.container, self.interface)
    }
}

/// `"web-1"` is the attachment of container `web-1` by its `eth0`; `"web-1/net1"` names the
/// interface too.
impl FromStr for AttachmentId {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        let (container, interface) = text.split_once('/').unwrap_or((text, Self::DEFAULT_INTERFACE));
        Self::new(container, interface)
    }
}

impl TryFrom<&str> for AttachmentId {
    type Error = InvalidName;
    fn try_from(text: &str) -> Result<Self, InvalidName> {
        text.parse()
    }
}

impl From<&AttachmentId> for AttachmentId {
    fn from(id: &AttachmentId) -> Self {
        id.clone()
    }
}

const PREFIX: &str = "netcore:";
// `netcore:` + network + `/` + container + `/` + interface stays within 127 bytes: nft takes
// comments of at most 128 (NFTNL_UDATA_COMMENT_MAXLEN), the kernel aliases of 255 (IFALIASZ).
const NETWORK_BYTES: usize = 38;
const CONTAINER_BYTES: usize = 64;

/// A mark on a kernel object: `netcore:NETWORK/CONTAINER/INTERFACE` for what belongs to one
/// attachment, `netcore:NETWORK` for what the network's attachments share. Names that are too
/// long are cut and end in `~` and a hash, so marks stay distinct.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mark(String);

impl Mark {
    /// The mark on what all attachments of `network` share.
    #[must_use]
    pub fn of_network(network: &Name) -> Self {
        Self(format!("{PREFIX}{}", shorten(network.as_str(), NETWORK_BYTES)))
    }

    /// The mark on what attachments of several networks share, which is nobody's alone: no
    /// network is called `*`.
    #[must_use]
    pub fn of_host() -> Self {
        Self(format!("{PREFIX}*"))
    }

    /// A name for a link that carries this mark in the moment before it gets its own: always the
    /// same, so that a link that was left with it is found.
    #[must_use]
    pub(crate) fn birth_name(&self) -> InterfaceName {
        InterfaceName::numbered("mvb", fingerprint(self.0.as_bytes()))
    }

    /// The mark in an alias or comment read from the kernel, if it is one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.starts_with(PREFIX).then(|| Self(text.to_owned()))
    }

    /// Whether this marks something of `network`, shared or not.
    #[must_use]
    pub fn is_of(&self, network: &Name) -> bool {
        let shared = Self::of_network(network);
        self.0.strip_prefix(&shared.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The attachment this mark names, if it names one and in full.
    #[must_use]
    pub fn attachment(&self) -> Option<AttachmentId> {
        let mut parts = self.0.strip_prefix(PREFIX)?.split('/');
        let (_network, container, interface) = (parts.next()?, parts.next()?, parts.next()?);
        AttachmentId::new(container, interface).ok()
    }

    /// Whether both marks are of attachments of one container.
    #[must_use]
    pub fn is_of_same_container(&self, other: &Self) -> bool {
        let container = |mark: &Self| mark.0.strip_prefix(PREFIX)?.split('/').nth(1).map(str::to_owned);
        container(self).is_some_and(|name| container(other) == Some(name))
    }

    /// `network/container/interface`, for messages.
    #[must_use]
    pub fn who(&self) -> &str {
        self.0.strip_prefix(PREFIX).unwrap_or(&self.0)
    }

    /// The mark as the kernel stores it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn shorten(name: &str, most: usize) -> String {
    if name.len() <= most {
        return name.to_owned();
    }
    // Names are ASCII ([A-Za-z0-9_.-]), so any byte is a character boundary.
    format!("{}~{:016x}", &name[..most - 17], fingerprint(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(container: &str) -> AttachmentId {
        container.parse().unwrap()
    }

    #[test]
    fn a_mark_names_its_owner() {
        let web = Name::new("web").unwrap();
        let mark = id("web-1").mark(&web);
        assert_eq!(mark.as_str(), "netcore:web/web-1/eth0");
        assert_eq!(mark.attachment(), Some(id("web-1")));
        assert!(mark.is_of(&web));
        assert!(!mark.is_of(&Name::new("we").unwrap()));
        assert!(Mark::of_network(&web).is_of(&web));
        assert!(!Mark::of_network(&Name::new("web2").unwrap()).is_of(&web));
    }

    #[test]
    fn marks_of_one_container_are_recognised_across_networks() {
        let (web, db) = (Name::new("web").unwrap(), Name::new("db").unwrap());
        assert!(id("a").mark(&web).is_of_same_container(&id("a/eth1").mark(&db)));
        assert!(!id("a").mark(&web).is_of_same_container(&id("b").mark(&web)));
        assert!(!Mark::of_network(&web).is_of_same_container(&Mark::of_network(&web)));
    }

    #[test]
    fn long_names_fit_an_nft_comment_and_stay_distinct() {
        let network = Name::new("n".repeat(200)).unwrap();
        let one = AttachmentId::new(&format!("{}1", "c".repeat(199)), "fifteen_bytes15").unwrap();
        let two = AttachmentId::new(&format!("{}2", "c".repeat(199)), "fifteen_bytes15").unwrap();
        assert!(one.mark(&network).as_str().len() <= 127);
        assert_ne!(one.mark(&network), two.mark(&network));
        assert!(one.mark(&network).is_of(&network));
    }

    #[test]
    fn host_interfaces_are_stable_and_distinct() {
        let web = Name::new("web").unwrap();
        assert_eq!(id("a").host_interface(&web), id("a").host_interface(&web));
        assert_ne!(id("a").host_interface(&web), id("b").host_interface(&web));
        assert_ne!(id("a").host_interface(&web), id("a/net1").host_interface(&web));
    }
}
