//! `overlay status` and `overlay peers`: who is in an overlay, as this node knows it, and as its
//! source has it.

use std::collections::BTreeSet;

use netcore::Engine;
use netcore::engine::RepairOptions;
use netcore::model::{Name, Peer, PeerSource};
use netcore::peers::{File, Keys, Registry, Roll, Said, Source};
use serde::Serialize;

use super::Overlay;
use super::etcd::{Member, list_all};
use super::state::{self, State};
use crate::exit::{Exit, Failure};
use crate::output::{self, Cell, Tone, plain};

/// One network, as this node knows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    network: Name,
    node: Name,
    /// The agent, if one is at work.
    agent: Option<State>,
    peers: Vec<Peer>,
    /// What is not as it should be in the kernel.
    drift: Vec<String>,
    faults: Vec<String>,
}

/// Shows every overlay that this host is in, or `network`.
pub(crate) async fn status(engine: &Engine, network: Option<&Name>, json: bool) -> Result<Exit, Failure> {
    let mut networks = engine.snapshots().networks()?;
    networks.retain(|known| network.is_none_or(|wanted| known == wanted));
    if networks.is_empty() {
        let what = network.map_or_else(|| "no overlay".to_owned(), |name| format!("no overlay {name}"));
        let message =
            format!("{what} is known here: `netctl overlay agent` or `join`, or the first container, begins it");
        return Err(Failure { exit: Exit::Drift, message });
    }
    let mut all = Vec::new();
    for network in networks {
        let Some(snapshot) = engine.snapshots().load(&network)? else { continue };
        let options = RepairOptions { network: Some(network.clone()), check: true };
        let report = engine.repair(&options).await?;
        let drift = report.objects.iter().map(|object| format!("{}: {}", object.object, object.found)).collect();
        let agent = state::of(&network);
        let mut faults = report.faults;
        faults.extend(agent.iter().flat_map(|agent| agent.faults.iter().chain(&agent.trouble).cloned()));
        all.push(Status { network, node: snapshot.node, agent, peers: snapshot.peers, drift, faults });
    }
    if json {
        output::json(&all)?;
    } else {
        all.iter().try_for_each(print)?;
    }
    let well = |status: &Status| status.drift.is_empty() && status.faults.is_empty();
    Ok(if all.iter().all(well) { Exit::Done } else { Exit::Drift })
}

fn print(status: &Status) -> std::io::Result<()> {
    let name = || plain(&status.network);
    let mut rows: Vec<Vec<Cell>> = status.peers.iter().map(|peer| row(&status.network, peer)).collect();
    for (row, _) in rows.iter_mut().zip(&status.peers).filter(|(_, peer)| peer.node == status.node) {
        row.push(plain("this node"));
    }
    output::table(&rows)?;
    let source = match &status.agent {
        None => vec![name(), plain("agent"), ("is not at work: changes are not followed".to_owned(), Tone::Plain)],
        Some(agent) => {
            let heard = match agent.silence() {
                Some(seconds) => format!("last heard {seconds} s ago"),
                None => "not heard yet".to_owned(),
            };
            let tone = if agent.connected { Tone::Good } else { Tone::Bad };
            let how = if agent.connected { "followed" } else { "away" };
            vec![name(), plain(&agent.source), (how.to_owned(), tone), plain(heard)]
        }
    };
    let mut rows = vec![source];
    rows.extend(status.drift.iter().map(|drift| vec![name(), plain("drift"), (drift.clone(), Tone::Bad)]));
    rows.extend(status.faults.iter().map(|fault| vec![name(), plain("fault"), (fault.clone(), Tone::Bad)]));
    if status.drift.is_empty() && status.faults.is_empty() {
        rows.push(vec![name(), plain("ways"), ("intact".to_owned(), Tone::Good)]);
    }
    output::table(&rows)
}

fn row(network: &Name, peer: &Peer) -> Vec<Cell> {
    let subnets: Vec<String> = peer.subnets.iter().map(ToString::to_string).collect();
    let tunnel = format!("vtep {}", peer.mac);
    vec![plain(network), plain(&peer.node), plain(subnets.join(" ")), plain(peer.underlay), plain(tunnel)]
}

/// A node, as the source has it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    #[serde(flatten)]
    peer: Peer,
    /// Whether its agent is at work; only a registry knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    alive: Option<bool>,
}

/// Shows what the source of `overlay` has.
pub(crate) async fn peers(overlay: &Overlay, json: bool) -> Result<Exit, Failure> {
    let (peers, alive, mut faults) = match &overlay.config.source {
        PeerSource::File(path) => {
            let reading = File::new(path).read(&overlay.config)?;
            (reading.peers, None, Vec::new())
        }
        PeerSource::Etcd(source) => {
            let failed = |reason: String| Failure { exit: Exit::Nothing, message: reason };
            let mut member = Member::any(source).await.map_err(failed)?;
            let keys = Keys::new(source.prefix.as_str());
            let (entries, _) = list_all(&mut member, &keys).await.map_err(failed)?;
            let mut registry = Registry::new(keys.clone());
            registry.replace(entries);
            let (mut peers, mut faults) = (Vec::new(), Vec::new());
            for node in registry.nodes() {
                match registry.said(node) {
                    Said::Peer(peer) => peers.push(peer),
                    Said::Unreadable(fault) | Said::Dispossessed(fault) => faults.push(fault.to_string()),
                    Said::Nothing => {}
                }
            }
            let beginning = keys.all_alive();
            let (alive, _) =
                member.list(&beginning, &format!("{}0", beginning.trim_end_matches('/'))).await.map_err(failed)?;
            let alive: BTreeSet<String> =
                alive.iter().filter_map(|entry| Some(entry.key.strip_prefix(&beginning)?.to_owned())).collect();
            (peers, Some(alive), faults)
        }
    };
    let mut roll = Roll::new(overlay.config.clone(), overlay.node.clone());
    let claimed = peers.len();
    roll.replace(peers);
    if claimed > roll.len() + roll.faults().count() {
        faults.push("a node is named more than once".to_owned());
    }
    faults.extend(roll.faults().map(ToString::to_string));
    let is_alive = |peer: &Peer| alive.as_ref().map(|alive| alive.contains(peer.node.as_str()));
    let listed: Vec<Listed> =
        roll.believed().map(|peer| Listed { alive: is_alive(peer), peer: peer.clone() }).collect();
    if json {
        #[derive(Serialize)]
        struct All<'a> {
            peers: &'a [Listed],
            faults: &'a [String],
        }
        output::json(&All { peers: &listed, faults: &faults })?;
    } else {
        let name = &overlay.network.name;
        let mut rows = Vec::new();
        for one in &listed {
            let mut cells = row(name, &one.peer);
            cells.extend(one.alive.map(|alive| match alive {
                true => ("alive".to_owned(), Tone::Good),
                false => ("silent".to_owned(), Tone::Plain),
            }));
            rows.push(cells);
        }
        output::table(&rows)?;
        let faults = faults.iter().map(|fault| vec![plain(name), plain("fault"), (fault.clone(), Tone::Bad)]);
        output::table(&faults.collect::<Vec<_>>())?;
    }
    Ok(if faults.is_empty() { Exit::Done } else { Exit::Drift })
}
