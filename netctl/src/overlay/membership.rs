//! Being one of an overlay's nodes: who this one is, and how it comes by its subnets.

use std::net::IpAddr;

use netcore::Engine;
use netcore::kernel::{Kernel, Linux};
use netcore::model::{InterfaceName, Name, Network, OverlayConfig, Peer, Place};
use netcore::peers::{Keys, Registry};

use super::etcd::{Member, Point, Reason, list_all};

/// How often a subnet is tried for that somebody else takes at the same moment.
const ATTEMPTS: usize = 64;

/// What a node is before it has a subnet.
#[derive(Clone, Debug)]
pub(crate) struct Applicant {
    /// Its name.
    pub(crate) node: Name,
    /// Its address among the nodes, or the interface that has it; the link of the default route
    /// without.
    pub(crate) underlay: Option<String>,
}

impl Applicant {
    /// What it would have the others know, but for subnets.
    pub(crate) async fn wish(&self, engine: &Engine, network: &Name, config: &OverlayConfig) -> Result<Peer, Reason> {
        let key = config.encryption.map(|_| engine.node_key(network)).transpose().map_err(|error| error.to_string())?;
        Ok(Peer {
            node: self.node.clone(),
            subnets: Vec::new(),
            underlay: self.address().await?,
            mac: Peer::endpoint_mac(&self.node, config.vni),
            vni: config.vni,
            port: config.port,
            generation: 0,
            public_key: key.map(|key| key.public),
        })
    }

    async fn address(&self) -> Result<IpAddr, Reason> {
        let kernel = Linux::host();
        let link: InterfaceName = match self.underlay.as_deref() {
            Some(text) => match text.parse::<IpAddr>() {
                Ok(address) => return Ok(address.to_canonical()),
                Err(_) => text.parse().map_err(|_| format!("{text:?} is neither an address nor an interface"))?,
            },
            None => {
                let link = kernel.default_link(Place::Host).await.map_err(|error| error.to_string())?;
                link.ok_or("there is no default route to tell by which address other nodes reach this one: --underlay")?
            }
        };
        let addresses = kernel.host_addresses(&link).await.map_err(|error| error.to_string())?;
        let first = addresses.iter().find(|address| address.is_ipv4()).or(addresses.first());
        first.copied().ok_or(format!("{link} has no address that other nodes could send to: --underlay"))
    }
}

/// A node with its subnets, and all there was when it had them.
pub(crate) struct Joined {
    pub(crate) registry: Registry,
    pub(crate) at: Point,
    pub(crate) own: Peer,
}

/// Makes the node that `wish` describes one of `network`, which it may be already.
pub(crate) async fn register(
    member: &mut Member,
    engine: &Engine,
    network: &Network,
    config: &OverlayConfig,
    wish: Peer,
) -> Result<Joined, Reason> {
    let netcore::model::PeerSource::Etcd(source) = &config.source else {
        return Err("the source is no registry".to_owned());
    };
    let keys = Keys::new(source.prefix.as_str());
    let last = engine.snapshots().load(&network.name).map_err(|error| error.to_string())?;
    let before = last.filter(|last| last.node == wish.node).and_then(|last| last.own().cloned());
    let before = before.map(|own| own.subnets).unwrap_or_default();
    let mut registry = Registry::new(keys.clone());
    for _ in 0..ATTEMPTS {
        let (entries, at) = list_all(member, &keys).await?;
        registry.replace(entries);
        let (alive, _) = member.get(&keys.alive(&wish.node)).await?;
        let registration = registry
            .registration(&network.name, config, wish.clone(), &before, alive.as_deref())
            .map_err(|error| error.to_string())?;
        let own = registration.peer.clone();
        if own.subnets != before && !before.is_empty() {
            hold_on(engine, network, &registry, &own, &before)?;
        }
        if registration.is_complete() {
            return Ok(Joined { registry, at, own });
        }
        // Done or overtaken, the next look tells.
        member.register(&registration).await?;
    }
    Err(format!("other nodes took {ATTEMPTS} subnets at the moment that this one chose them"))
}

/// Containers keep the addresses they have: their node cannot take another subnet meanwhile.
fn hold_on(
    engine: &Engine,
    network: &Network,
    registry: &Registry,
    own: &Peer,
    before: &[ipnetwork::IpNetwork],
) -> Result<(), Reason> {
    let (records, _) = engine.attachments(Some(&network.name)).map_err(|error| error.to_string())?;
    if records.is_empty() {
        return Ok(());
    }
    let lost = before.iter().find(|subnet| !own.subnets.contains(subnet));
    let Some(lost) = lost else { return Ok(()) };
    let holder = registry.holder(lost).unwrap_or("nobody");
    Err(format!(
        "{lost} is {holder}'s by now, and {} containers of this node have addresses of it: detach them, and it takes \
         another; what was good last stays until then",
        records.len()
    ))
}
