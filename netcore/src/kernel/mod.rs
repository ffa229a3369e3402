//! The kernel, behind a small trait. [`Linux`] is the real thing and the only place in the crate
//! that talks to it, one file an interface; [`Memory`] is one that tests can look into, and make
//! fail.

use std::net::IpAddr;
use std::path::Path;

use ipnetwork::IpNetwork;

use crate::error::Result;
use crate::model::{
    Backend, FirewallBackend, InterfaceName, Listener, Name, NamespaceId, Object, Place, PortMapping, State, Sysctl,
    Underlay,
};

mod address;
mod announce;
mod batch;
mod binding;
mod bound;
mod conntrack;
mod dbus;
mod event_loop;
mod events;
mod extack;
mod firewall;
mod firewalld;
mod forward_port;
mod forwarding;
mod inspect;
mod interfaces;
mod iptables;
mod legacy;
mod link;
mod linux;
mod listener;
mod macvlan;
mod memory;
mod neighbour;
mod netns;
mod news;
pub mod nft;
mod notices;
mod raw;
mod requests;
mod route;
mod rtnl;
mod seen;
mod settle;
mod sysctl;
#[cfg(test)]
mod tests;
mod underlay;
mod verified;
mod vlan;
mod vxlan;
mod wireguard;

pub use events::{Culprit, Events, Losses, Scope};
pub use inspect::Inspect;
pub use linux::Linux;
pub use memory::Memory;
pub use netns::Netns;
pub use notices::{Notice, Notices};
pub use route::PROTOCOL as ROUTE_PROTOCOL;

/// What the engine asks of a kernel.
///
/// An implementation stands on two network namespaces: the host's, which is the caller's own,
/// and the sandbox, if one was entered.
#[allow(async_fn_in_trait, reason = "the engine is generic over the kernel; nobody boxes these futures")]
pub trait Kernel: Sized {
    /// This kernel with the namespace at `netns` as the sandbox, or without one.
    ///
    /// # Errors
    /// [`Error::Netns`](crate::Error::Netns) when the path is not a network namespace.
    async fn enter(&self, netns: Option<&Path>) -> Result<Self>;

    /// This kernel without a sandbox, to look at what so many attachments stand on. If they are many, that
    /// look begins here and now, beside the caller: the first to [`observe`](Self::observe) them all is told
    /// what was there between now and then.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the kernel does not answer.
    async fn survey(&self, attachments: usize) -> Result<Self> {
        let _ = attachments;
        self.enter(None).await
    }

    /// Which of `wanted` are there, and what they look like. Looks at nothing else, but for
    /// what stands in their way, or below them: a sandbox interface of a wanted veth's peer
    /// name, other addresses on the link of a wanted address whose rivals matter, the parents of
    /// wanted macvlan and VLAN links.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the kernel does not answer.
    async fn observe(&self, wanted: &[Object]) -> Result<State>;

    /// As [`observe`](Self::observe), for those who made `wanted` through this kernel: an interface
    /// that was looked at since it was entered may be told as it was then.
    ///
    /// # Errors
    /// As [`observe`](Self::observe).
    async fn recall(&self, wanted: &[Object]) -> Result<State> {
        self.observe(wanted).await
    }

    /// Makes `objects`, which are all of one phase. Those of the firewall are made in one
    /// transaction; the ways to other nodes many at a time, up to one that fails; other phases are
    /// handed over one by one.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel), [`Error::PortTaken`](crate::Error::PortTaken).
    async fn create(&self, objects: &[Object]) -> Result<()>;

    /// Turns `was` into `object`; both have the same key.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel).
    async fn update(&self, was: &Object, object: &Object) -> Result<()>;

    /// Removes `objects`, which are all of one phase. What is gone already is a success.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel).
    async fn remove(&self, objects: &[Object]) -> Result<()>;

    /// Waits until what was made among `objects` can be used (a bridge port forwards, an
    /// address has passed duplicate address detection) and announces new addresses to the
    /// neighbours (gratuitous ARP, RFC 5227; unsolicited neighbour advertisement, RFC 4861).
    ///
    /// # Errors
    /// [`Error::Conflict`](crate::Error::Conflict) when an address turns out to be a duplicate.
    async fn settle(&self, objects: &[Object]) -> Result<()>;

    /// The link that the default route leaves by, in `place`; that of IPv4 if there are both.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the kernel does not answer.
    async fn default_link(&self, place: Place) -> Result<Option<InterfaceName>>;

    /// The forwarding switches of the whole host and of every single interface but `lo`, as they are;
    /// without those that are being thrown.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) when they cannot be listed.
    fn forwarding_switches(&self, ipv6: bool) -> Result<Vec<Sysctl>>;

    /// The settings, as they are, of the interfaces that have a default route from a router's
    /// advertisement, that say whether it stays when the host forwards.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) when the kernel does not say.
    fn advertised_ways_out(&self) -> Result<Vec<Sysctl>>;

    /// The addresses of the host on `link` that others use: neither link-local nor passing ones.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the kernel does not answer.
    async fn host_addresses(&self, link: &InterfaceName) -> Result<Vec<IpAddr>>;

    /// Every way of ours to the other nodes of an overlay: the neighbours and the forwarding
    /// entries, or the peers, of its tunnel `device`, and the routes into `ranges`, over whatever they lead.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the kernel does not answer.
    async fn ways(&self, device: &InterfaceName, ranges: &[IpNetwork]) -> Result<State>;

    /// The interface of the host that has `address`, if one has.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the kernel does not answer.
    async fn underlay(&self, address: IpAddr) -> Result<Option<Underlay>>;

    /// Whether there are encrypted tunnels; loads the module that makes them where there is one.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the kernel does not answer.
    fn has_wireguard(&self) -> Result<bool>;

    /// Everything on the host and in the sandbox that carries a mark of `network`. Reads whole tables: for
    /// garbage collection, never on the way in.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the kernel does not answer.
    async fn marked(&self, network: &Name) -> Result<Vec<Object>>;

    /// What others go on doing for links of ours that are gone, with the marks of their networks:
    /// firewalld, where it was not there to be told.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel), [`Error::File`](crate::Error::File) when it cannot be told.
    async fn left_behind(&self) -> Result<Vec<Object>> {
        Ok(Vec::new())
    }

    /// Which namespace is at `netns`; the host's without one.
    ///
    /// # Errors
    /// [`Error::Netns`](crate::Error::Netns) when it is not a network namespace.
    fn identify(&self, netns: Option<&Path>) -> Result<NamespaceId>;

    /// Every interface of `place`, each followed by its addresses: those that lead to the world
    /// first, without loopback and the links of our own attachments. Reads whole tables: for modes
    /// that share a namespace.
    ///
    /// # Errors
    /// [`Error::Kernel`](crate::Error::Kernel) when the kernel does not answer.
    async fn interfaces(&self, place: Place) -> Result<Vec<Object>>;

    /// What the firewall's share of a new attachment is to be written in: `asked`, or nf_tables, or
    /// iptables where the kernel does not have that.
    ///
    /// # Errors
    /// [`Error::Conflict`](crate::Error::Conflict) when iptables was asked for and is not installed.
    fn backend(&self, asked: Option<FirewallBackend>) -> Result<Backend>;

    /// Somebody who listens on the host where one of `published` would have a container listen.
    ///
    /// # Errors
    /// [`Error::File`](crate::Error::File) when the kernel does not say.
    fn listener(&self, published: &[PortMapping]) -> Result<Option<Listener>>;
}
