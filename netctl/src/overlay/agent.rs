//! `overlay agent`: keeps what a node knows of the others, and its ways to them, as the source has
//! it, for as long as it runs. What it cannot hear, it leaves as it is.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use netcore::Engine;
use netcore::engine::{Follower, Heard};
use netcore::kernel::Notices;
use netcore::model::{EtcdSource, Name, OverlayConfig, Peer, PeerSource};
use netcore::peers::Said;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::Overlay;
use super::file::Watch;
use super::membership::Applicant;
use super::session::{self, Word};
use super::state::{Seat, State};
use crate::exit::{Exit, Failure};
use crate::stop::Stop;
use crate::supervisor::Supervisor;

/// How long to wait, after something was found broken, for the rest of it.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// How often everything is looked at without a reason: a notice may have been lost.
const ROUND: Duration = Duration::from_secs(300);

/// Follows the source until it is told to stop.
pub(crate) async fn run(engine: &Engine, overlay: &Overlay, underlay: Option<String>) -> Result<Exit, Failure> {
    let seat = Seat::take(&overlay.network.name)?;
    let follower = engine.follow(&overlay.network, overlay.node.clone())?;
    let bridge = overlay.config.bridge(&overlay.network.name).bridge().clone();
    let notices = Notices::open(overlay.config.device(), bridge).await?;
    let state = State { pid: std::process::id(), node: overlay.node.to_string(), ..State::default() };
    let agent = Agent {
        name: &overlay.network.name,
        follower,
        notices,
        seat,
        state,
        unreadable: BTreeMap::new(),
        due: Instant::now() + ROUND,
        ready: false,
        supervisor: Supervisor::of_environment(),
    };
    match &overlay.config.source {
        PeerSource::File(path) => agent.follow_file(path).await,
        PeerSource::Etcd(source) => agent.follow_etcd(engine, overlay, &overlay.config, source, underlay).await,
    }
}

struct Agent<'a> {
    name: &'a Name,
    follower: Follower<'a>,
    notices: Notices,
    seat: Seat,
    state: State,
    /// What nodes say that cannot be made out.
    unreadable: BTreeMap<Name, String>,
    /// When to look at everything again.
    due: Instant,
    ready: bool,
    supervisor: Supervisor,
}

impl Agent<'_> {
    async fn follow_etcd(
        mut self,
        engine: &Engine,
        overlay: &Overlay,
        config: &OverlayConfig,
        source: &EtcdSource,
        underlay: Option<String>,
    ) -> Result<Exit, Failure> {
        let (words, mut heard) = mpsc::channel(16);
        let applicant = Applicant { node: overlay.node.clone(), underlay };
        let session =
            session::Follower { engine, network: &overlay.network, config, source, applicant, words }.follow();
        let mut session = std::pin::pin!(session);
        let mut stop = Stop::on_signals()?;
        self.state.source = format!("etcd {}", source.endpoints.join(" "));
        loop {
            self.supervisor.alive();
            tokio::select! {
                () = &mut session => {}
                Some(word) = heard.recv() => self.take(word).await,
                notice = self.notices.next() => self.notice(notice)?,
                () = sleep_until(self.due) => self.mend().await,
                () = self.supervisor.tick() => {}
                () = stop.told() => break,
            }
        }
        self.supervisor.stopping();
        drop(heard);
        // What keeps others from waiting a minute is not worth more than a few seconds.
        let _ = tokio::time::timeout(Duration::from_secs(3), session).await;
        Ok(Exit::Done)
    }

    async fn follow_file(mut self, path: &Path) -> Result<Exit, Failure> {
        let mut stop = Stop::on_signals()?;
        let mut watch = Watch::of(path)?;
        self.state.source = format!("file {}", path.display());
        self.reread(path).await;
        loop {
            self.supervisor.alive();
            tokio::select! {
                changed = watch.changed() => {
                    changed?;
                    self.reread(path).await;
                }
                notice = self.notices.next() => self.notice(notice)?,
                () = sleep_until(self.due) => self.mend().await,
                () = self.supervisor.tick() => {}
                () = stop.told() => break,
            }
        }
        self.supervisor.stopping();
        Ok(Exit::Done)
    }

    /// Does what follows from what the source said.
    async fn take(&mut self, word: Word) {
        let outcome = match word {
            Word::All { said, forgetful } => self.take_all(said, forgetful).await,
            Word::News(said) => {
                let news = said.into_iter().filter_map(|(node, said)| {
                    let peer = self.understand(&node, said);
                    peer.map(|peer| (node, peer))
                });
                let news = news.collect();
                self.follower.hear(news).await
            }
            Word::Contact { endpoint } => {
                if !self.state.connected {
                    eprintln!("{}: {endpoint}: followed", self.name);
                }
                self.state.source = format!("etcd {endpoint}");
                self.state.connected = true;
                self.state.heard();
                self.state.trouble = None;
                Ok(Heard::default())
            }
            Word::Away { reason, pause } => {
                if self.state.trouble.as_ref() != Some(&reason) {
                    eprintln!(
                        "{}: {reason}; what was known stays, and the next attempt is in {:.1} s",
                        self.name,
                        pause.as_secs_f32()
                    );
                }
                self.state.connected = false;
                self.state.trouble = Some(reason);
                Ok(Heard::default())
            }
        };
        self.report(outcome);
    }

    async fn take_all(&mut self, said: Vec<(Name, Said)>, forgetful: bool) -> netcore::Result<Heard> {
        self.unreadable.clear();
        let mut peers: BTreeMap<Name, Peer> = BTreeMap::new();
        if forgetful {
            let message = "the registry knows less than it did; nodes that are missing in it stay until they withdraw";
            eprintln!("{}: {message}", self.name);
            peers.extend(self.follower.peers().map(|peer| (peer.node.clone(), peer.clone())));
        }
        for (node, said) in said {
            match self.understand(&node, said) {
                Some(Some(peer)) => drop(peers.insert(node, peer)),
                Some(None) => drop(peers.remove(&node)),
                None => peers.extend(self.follower.peer(&node).cloned().map(|peer| (node, peer))),
            }
        }
        self.follower.hear_all(peers.into_values().collect()).await
    }

    /// What a node is by what is said, which may be nothing any more; nothing new when it cannot be
    /// made out.
    fn understand(&mut self, node: &Name, said: Said) -> Option<Option<Peer>> {
        self.unreadable.remove(node);
        match said {
            Said::Nothing => Some(None),
            Said::Peer(peer) => Some(Some(peer)),
            Said::Dispossessed(fault) => {
                self.unreadable.insert(node.clone(), fault.to_string());
                Some(None)
            }
            Said::Unreadable(fault) => {
                self.unreadable.insert(node.clone(), fault.to_string());
                None
            }
        }
    }

    async fn reread(&mut self, path: &Path) {
        let outcome = match self.follower.reread().await {
            Ok((heard, warnings)) => {
                self.state.connected = warnings.is_empty();
                if warnings.is_empty() {
                    self.state.heard();
                }
                for warning in &warnings {
                    eprintln!("{}: {warning}", self.name);
                }
                self.state.trouble = (!warnings.is_empty()).then(|| warnings.join("; "));
                Ok(heard)
            }
            Err(error) => {
                self.state.connected = false;
                self.state.trouble = Some(error.to_string());
                eprintln!("{}: {error}; it is read again when {} changes", self.name, path.display());
                Ok(Heard::default())
            }
        };
        self.report(outcome);
    }

    fn notice(&mut self, notice: Option<netcore::kernel::Notice>) -> Result<(), Failure> {
        let Some(notice) = notice else {
            let message = format!("{}: the kernel has stopped to say what happens", self.name);
            return Err(Failure { exit: Exit::Nothing, message });
        };
        if self.follower.minds(&notice) {
            self.due = self.due.min(Instant::now() + DEBOUNCE);
        }
        Ok(())
    }

    async fn mend(&mut self) {
        self.due = Instant::now() + ROUND;
        match self.follower.mend().await {
            Ok(repair) => {
                for object in &repair.objects {
                    eprintln!("{}: {}: {}: {}", self.name, object.object, object.found, object.outcome);
                }
                repair.faults.iter().for_each(|fault| eprintln!("{}: {fault}", self.name));
            }
            Err(error) => eprintln!("{}: {error}; it is tried again in {} s", self.name, ROUND.as_secs()),
        }
    }

    /// Says what was done, to whoever reads the log, asks for the status, or started this.
    fn report(&mut self, outcome: netcore::Result<Heard>) {
        match outcome {
            Ok(heard) => {
                let is_in = |peers: &[Peer], node: &Name| peers.iter().any(|peer| peer.node == *node);
                for peer in &heard.change.come {
                    let verb = if is_in(&heard.change.gone, &peer.node) { "changed" } else { "came" };
                    eprintln!("{}: node {} {verb}: {}", self.name, peer.node, describe(peer));
                }
                for peer in heard.change.gone.iter().filter(|gone| !is_in(&heard.change.come, &gone.node)) {
                    eprintln!("{}: node {} went: {}", self.name, peer.node, describe(peer));
                }
            }
            Err(error) => {
                eprintln!("{}: {error}; everything is looked at again", self.name);
                self.due = self.due.min(Instant::now() + Duration::from_secs(1));
            }
        }
        let refused = self.follower.faults().map(ToString::to_string);
        let faults: Vec<String> = refused.chain(self.unreadable.values().cloned()).collect();
        for fault in faults.iter().filter(|fault| !self.state.faults.contains(fault)) {
            eprintln!("{}: {fault}; it is left out", self.name);
        }
        self.state.faults = faults;
        self.seat.tell(&self.state);
        let known = self.follower.peers().count();
        self.supervisor.status(&match &self.state.trouble {
            None => format!("{known} nodes are known"),
            Some(trouble) => format!("{known} nodes are known; {trouble}"),
        });
        if !self.ready {
            self.supervisor.ready();
            self.ready = true;
        }
    }
}

fn describe(peer: &Peer) -> String {
    let subnets: Vec<String> = peer.subnets.iter().map(ToString::to_string).collect();
    format!("{} at {}", subnets.join(" and "), peer.underlay)
}
