//! `overlay join` and `overlay leave`: a subnet for a node, and taking it back.

use netcore::Engine;
use netcore::model::{EtcdSource, PeerSource};
use netcore::peers::{Keys, Registry, Said};
use serde::Serialize;

use super::Overlay;
use super::etcd::{Member, list_all};
use super::membership::{Applicant, register};
use super::state::Seat;
use crate::exit::{Exit, Failure};
use crate::output;

/// What became of a node.
#[derive(Serialize)]
struct Outcome<'a> {
    network: &'a str,
    node: &'a str,
    subnets: Vec<String>,
}

/// Makes this node one of `overlay`, so that containers can be attached, without following it.
pub(crate) async fn join(
    engine: &Engine,
    overlay: &Overlay,
    underlay: Option<String>,
    json: bool,
) -> Result<Exit, Failure> {
    let source = registry_of(overlay, "joins by being written there")?;
    let _seat = Seat::take(&overlay.network.name)?;
    let mut member = Member::any(source).await.map_err(failed)?;
    let applicant = Applicant { node: overlay.node.clone(), underlay };
    let wish = applicant.wish(engine, &overlay.network.name, &overlay.config).await.map_err(failed)?;
    let joined = register(&mut member, engine, &overlay.network, &overlay.config, wish).await.map_err(failed)?;
    let said = |node| match joined.registry.said(node) {
        Said::Peer(peer) => Some(peer),
        _ => None,
    };
    let peers = joined.registry.nodes().filter_map(said).collect();
    engine.follow(&overlay.network, overlay.node.clone())?.hear_all(peers).await?;
    let subnets: Vec<String> = joined.own.subnets.iter().map(ToString::to_string).collect();
    tell(overlay, subnets, "has", json)
}

/// Takes the node of `overlay` out of it, with its subnets; `force` also when somebody relies on
/// it.
pub(crate) async fn leave(engine: &Engine, overlay: &Overlay, force: bool, json: bool) -> Result<Exit, Failure> {
    let source = registry_of(overlay, "leaves by being struck out there")?;
    let (name, node) = (&overlay.network.name, &overlay.node);
    let own = engine.snapshots().load(name)?.is_some_and(|snapshot| snapshot.node == *node);
    let _seat = if own { Some(Seat::take(name)?) } else { None };
    let attached = engine.attachments(Some(name))?.0.len();
    if own && attached > 0 && !force {
        return Err(failed(format!(
            "{name}: {attached} containers of this node have addresses of its subnet: detach them first, or --force"
        )));
    }
    let mut member = Member::any(source).await.map_err(failed)?;
    let keys = Keys::new(source.prefix.as_str());
    let (alive, _) = member.get(&keys.alive(node)).await.map_err(failed)?;
    if let Some(address) = alive
        && !force
    {
        return Err(failed(format!(
            "{name}: the agent of {node} is at work at {address}, or was a minute ago: stop it first, or --force"
        )));
    }
    let (entries, _) = list_all(&mut member, &keys).await.map_err(failed)?;
    let mut registry = Registry::new(keys);
    registry.replace(entries);
    let subnets = match registry.said(node) {
        Said::Peer(peer) => peer.subnets.iter().map(ToString::to_string).collect(),
        _ => Vec::new(),
    };
    let withdrawn = registry.withdrawal(node);
    if !withdrawn.is_empty() {
        member.remove(&withdrawn).await.map_err(failed)?;
    }
    if own {
        let _lock = engine.snapshots().lock(name)?;
        engine.snapshots().remove(name)?;
    }
    tell(overlay, subnets, "gave back", json)
}

fn registry_of<'a>(overlay: &'a Overlay, otherwise: &str) -> Result<&'a EtcdSource, Failure> {
    match &overlay.config.source {
        PeerSource::Etcd(source) => Ok(source),
        PeerSource::File(path) => Err(Failure::usage(format!("the source is {}: a node {otherwise}", path.display()))),
    }
}

fn failed(reason: String) -> Failure {
    Failure { exit: Exit::Nothing, message: reason }
}

fn tell(overlay: &Overlay, subnets: Vec<String>, verb: &str, json: bool) -> Result<Exit, Failure> {
    let (network, node) = (overlay.network.name.as_str(), overlay.node.as_str());
    if json {
        output::json(&Outcome { network, node, subnets })?;
    } else if subnets.is_empty() {
        println!("{network}: {node} has no subnet");
    } else {
        println!("{network}: {node} {verb} {}", subnets.join(" and "));
    }
    Ok(Exit::Done)
}
