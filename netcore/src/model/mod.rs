//! Plain data: what a user asks for ([`Network`], [`Attachment`]), what is promised to them
//! ([`Lease`], [`PortMapping`]), and what the kernel should hold for it ([`Object`] and its
//! kinds). Nothing here reads or writes anything; every other room builds on these values.

mod address;
mod attachment;
mod etcd;
mod firewalld;
mod flow;
mod guard;
mod ipam;
mod iptables;
mod isolation;
mod key;
mod lease;
mod link;
mod listener;
mod mac;
mod macvlan;
mod name;
mod namespace;
mod nat;
mod network;
mod object;
mod overlay;
mod owner;
mod peer;
mod route;
pub mod rules;
mod scene;
mod section;
pub mod vlan;
mod wireguard;

pub use address::{Address, Rivals};
pub use attachment::{Attachment, PortMapping, Protocol};
pub use etcd::{EtcdSource, EtcdTls, Password};
pub use firewalld::{ForwardPort, ZoneBinding};
pub use flow::{End, Flow, InvalidFlow};
pub use guard::{Check, Source, Table, link_local};
pub use ipam::{Delegated, HostLocal, IpamConfig, Range, Static, StaticAddress};
pub use iptables::{Admission, Backend, Iptables, Variant, program};
pub use isolation::{Barrier, FirewallBackend, IngressPolicy, InvalidFirewallBackend, Isolation};
pub use key::{InvalidKey, PrivateKey, PublicKey};
pub use lease::{Dns, Lease, LeasedAddress, RouteSpec};
pub use link::{Bridge, Link, LinkKind, Port, Veth, Vxlan};
pub use listener::{Listener, Process};
pub use mac::{InvalidMac, Mac};
pub use macvlan::{InvalidMacvlanMode, Macvlan, MacvlanConfig, MacvlanMode, Vlan};
pub use name::{InterfaceName, InvalidName, Name};
pub use namespace::{Binding, InvalidTarget, NamespaceId, SharedNamespace, Target};
pub use nat::NatRule;
pub use network::{BridgeConfig, ContainerConfig, HostConfig, Mode, Network, NoneConfig, VlanTrunk};
pub use object::{Key, Object, Phase, Place, State, Sysctl};
pub use overlay::{Encryption, LocalNode, NodeKey, OverlayConfig, PeerSource, Underlay};
pub use owner::{AttachmentId, Mark};
pub use peer::Peer;
pub use route::{FdbEntry, Neighbour, Route};
pub use rules::Rules;
pub use scene::{Interface, KnownNeighbour, Refused, RouteQuestion, Scene, Tracked, Way};
pub use vlan::{PortVlans, Vlans};
pub use wireguard::{Wireguard, WireguardPeer};

/// A 64-bit FNV-1a hash: names and addresses that must come out the same in every process and
/// every release are derived from it, so it may never change.
pub(crate) const fn fingerprint(mut bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    while let [byte, rest @ ..] = bytes {
        hash = (hash ^ *byte as u64).wrapping_mul(0x0100_0000_01b3);
        bytes = rest;
    }
    hash
}
