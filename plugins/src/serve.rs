//! One call, from its environment to its answer.

use std::ffi::OsString;
use std::io::{self, Read};

use netcore::driver::{Driver, HostNamespace};
use netcore::engine::Changed;
use netcore::model::{IpamConfig, Network};
use netcore::{Error, Result};

use crate::configuration::{network, network_to_leave};
use crate::delegate::Delegate;
use crate::document::Document;
use crate::environment::{Command, Environment, Subject};
use crate::failure::{Failure, INCOMPATIBLE_VERSION};
use crate::namespace;
use crate::result::Success;
use crate::verbs::Verbs;
use crate::versions::Version;
use crate::wishes;

/// What a call leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// What there was to say was told.
    Done,
    /// Nobody asked for anything: a person wants to know what this is.
    Introduce,
}

/// Answers the call that `lookup` (the environment) and `input` (stdin) make up, and has what is
/// for stdout told by `tell`. The kernel is reached through `open`, and only once everything that
/// can be checked without it has been.
///
/// # Errors
/// The [`Failure`] to print instead.
pub(crate) fn serve<D: Driver, V: Verbs>(
    lookup: impl Fn(&str) -> Option<OsString>,
    input: impl Read,
    tell: impl FnOnce(&str) -> io::Result<()>,
    open: impl FnOnce(Option<Delegate>) -> Result<V>,
) -> Result<Answer, Failure> {
    let tell = |text: &str| tell(text).map_err(untold);
    let Some(environment) = Environment::read(lookup)? else { return Ok(Answer::Introduce) };
    if environment.command == Command::Version {
        let version = Document::read(input).map_or(Version::LATEST, |document| document.version);
        return Ok(tell(&version.report()).map(|()| Answer::Done)?);
    }
    let document = Document::read(input)?;
    let call = Call { environment: &environment, document: &document };
    call.answer::<D, V>(tell, open).map_err(|failure| failure.told_in(document.version))
}

/// A result that nobody hears is no success.
fn untold(source: io::Error) -> Error {
    Error::File { operation: "write the result to", path: "stdout".into(), source }
}

struct Call<'a> {
    environment: &'a Environment,
    document: &'a Document,
}

impl Call<'_> {
    fn answer<D: Driver, V: Verbs>(
        &self,
        tell: impl FnOnce(&str) -> Result<()>,
        open: impl FnOnce(Option<Delegate>) -> Result<V>,
    ) -> Result<Answer, Failure> {
        let open = |network: &Network| open(self.delegate(network));
        match &self.environment.command {
            Command::Add(subject) => self.add::<D, V>(subject, tell, open),
            Command::Del(subject) => {
                let network = network_to_leave::<D>(self.document)?;
                let verbs = open(&network)?;
                self.expect_foreign::<D, V>(subject, &verbs)?;
                verbs.detach(&network, &subject.id, subject.netns.as_deref())?;
                Ok(Answer::Done)
            }
            Command::Check(subject) => {
                self.expect_version("CHECK", Version::V0_4_0)?;
                let network = network::<D>(self.document, &subject.arguments)?;
                let changed = self.changed(subject)?;
                self.expect_sandbox(subject)?;
                let verbs = open(&network)?;
                self.expect_foreign::<D, V>(subject, &verbs)?;
                verbs.check(&network, &subject.id, &changed)?;
                Ok(Answer::Done)
            }
            Command::Gc => {
                self.expect_version("GC", Version::V1_1_0)?;
                let network = network_to_leave::<D>(self.document)?;
                let survivors = self.document.survivors()?;
                open(&network)?.gc(&network, &survivors)?;
                Ok(Answer::Done)
            }
            Command::Status => {
                self.expect_version("STATUS", Version::V1_1_0)?;
                let network = network::<D>(self.document, &crate::arguments::Arguments::default())?;
                let status = open(&network).and_then(|verbs| verbs.status(&network));
                status.map_err(|error| Failure::from(error).of_status())?;
                Ok(Answer::Done)
            }
            // Answered before, without a document.
            Command::Version => Ok(Answer::Done),
        }
    }

    fn add<D: Driver, V: Verbs>(
        &self,
        subject: &Subject,
        tell: impl FnOnce(&str) -> Result<()>,
        open: impl FnOnce(&Network) -> Result<V>,
    ) -> Result<Answer, Failure> {
        let network = network::<D>(self.document, &subject.arguments)?;
        let attachment = wishes::attachment(subject, self.document)?;
        let previous = self.document.previous()?;
        self.expect_sandbox(subject)?;
        if let Some(delegate) = self.delegate(&network) {
            delegate.find()?;
        }
        let verbs = open(&network)?;
        self.expect_foreign::<D, V>(subject, &verbs)?;
        let attached = verbs.attach(&network, attachment)?;
        for warning in &attached.warnings {
            // Not an error, so not for stdout.
            eprintln!("{}: {warning}", network.name);
        }
        let own = Success::of(attached, &network.mode);
        let success = match previous {
            // There is nothing that a loopback could add to a chain's result.
            Some(previous) if matches!(network.mode, netcore::model::Mode::None(_)) => previous,
            Some(previous) => previous.followed_by(own),
            None => own,
        };
        let told = success.to_json(self.document.version).and_then(|text| tell(&text));
        told.map(|()| Answer::Done).map_err(|error| {
            // An answer that cannot be told is a failure, and a failed ADD leaves nothing behind.
            match verbs.detach(&network, &subject.id, subject.netns.as_deref()) {
                Ok(()) => error.into(),
                Err(left) => Error::Several(vec![error, left]).into(),
            }
        })
    }

    /// What the chain says about the container's interface now: a plugin behind us may have
    /// given it another MAC address or MTU.
    fn changed(&self, subject: &Subject) -> Result<Changed, Failure> {
        let Some(previous) = self.document.previous()? else {
            let expected = "the result of ADD: CHECK compares with it";
            return Err(Error::invalid("prevResult", "a missing value", expected).into());
        };
        let interface = previous.sandbox_interface(subject.id.interface.as_str());
        Ok(Changed {
            mac: interface.and_then(|interface| interface.mac.parse().ok()),
            mtu: interface.and_then(|interface| interface.mtu),
        })
    }

    fn delegate(&self, network: &Network) -> Option<Delegate> {
        let Some(IpamConfig::Delegate(delegated)) = &network.ipam else { return None };
        Some(Delegate {
            plugin: delegated.plugin.clone(),
            path: self.environment.path.clone(),
            configuration: self.document.raw.clone(),
            version: self.document.version,
        })
    }

    fn expect_sandbox(&self, subject: &Subject) -> Result<(), Failure> {
        match &subject.netns {
            Some(netns) => Ok(namespace::expect(netns)?),
            None => Ok(()),
        }
    }

    /// Refuses our own namespace, unless the mode has a use for it.
    fn expect_foreign<D: Driver, V: Verbs>(&self, subject: &Subject, verbs: &V) -> Result<(), Failure> {
        let Some(netns) = subject.netns.as_ref().filter(|_| !subject.own_netns) else { return Ok(()) };
        match (D::HOST_NAMESPACE, namespace::expect_foreign(netns)) {
            (HostNamespace::Expected, _) | (_, Ok(())) => Ok(()),
            (HostNamespace::Tolerated, Err(_)) if verbs.is_on_host(&subject.id.container)? => Ok(()),
            (_, Err(refusal)) => Err(refusal.into()),
        }
    }

    fn expect_version(&self, verb: &str, least: Version) -> Result<(), Failure> {
        let version = self.document.version;
        if version >= least {
            return Ok(());
        }
        let message = format!("cniVersion: {version} does not know {verb}, which came with {least}");
        Err(Failure::new(INCOMPATIBLE_VERSION, message))
    }
}

#[cfg(test)]
mod tests;
