//! firewalld, asked over D-Bus to let our bridges' traffic pass. Where it does not run there is
//! nothing to ask for, and nothing is waited for: one attempt to connect to the bus, or one
//! question that the bus itself answers.
//!
//! The packaged policy lets everything through to our zone, since firewalld cannot tell what we
//! publish from what we do not; so [`Linux`](super::Linux) has our own table close the bridge to the
//! outside before it is bound, and open it only after it was taken out.

use std::fmt;
use std::io;
use std::mem;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::bound;
use super::dbus::{Argument, Bus, Method, Refusal};
use crate::error::{Error, Result};
use crate::model::{InterfaceName, Object, ZoneBinding};

/// How long an answer may take. firewalld does one thing at a time, and a reload takes seconds.
const PATIENCE: Duration = Duration::from_secs(15);

pub(super) const SERVICE: &str = "org.fedoraproject.FirewallD1";
const PATH: &str = "/org/fedoraproject/FirewallD1";
pub(super) const PERMANENT_PATH: &str = "/org/fedoraproject/FirewallD1/config";
/// What is done until the next reload.
const RUNTIME: &str = "org.fedoraproject.FirewallD1.zone";
/// What is done from then on.
pub(super) const PERMANENT: &str = "org.fedoraproject.FirewallD1.config";
const PERMANENT_ZONE: &str = "org.fedoraproject.FirewallD1.config.zone";

/// What every service answers as soon as it has time ("Standard Interfaces").
const PING: Method<'static> =
    Method { service: SERVICE, path: PATH, interface: "org.freedesktop.DBus.Peer", name: "Ping" };

/// The conversation with firewalld, begun when it is first needed and then kept.
#[derive(Default)]
pub(super) struct Firewalld {
    conversation: Mutex<Conversation>,
    /// Whether `StrictForwardPorts` was found to be set when it was last looked at.
    pub(super) strict: AtomicBool,
}

#[derive(Default)]
enum Conversation {
    #[default]
    NotBegun,
    Open(Bus),
    /// It has broken off, and is not begun again before the next look at the host.
    Broken(io::ErrorKind, String),
}

impl Firewalld {
    /// Whether firewalld runs. Waits until it has time to say so, as long as for any answer; one that
    /// says nothing may have more to say to those who want something of it.
    pub(super) fn is_there(&self) -> bool {
        self.begin_anew();
        !matches!(self.call(PING, &[]), Err(Refusal::NoService))
    }

    /// What is there of `wanted`. Where firewalld does not run, everything is as it should be; where
    /// it does not answer, nothing is, and whoever asks for it is told why.
    pub(super) fn observe(
        &self,
        wanted: &[&ZoneBinding],
        is_closed: impl Fn(&ZoneBinding) -> Result<bool>,
    ) -> Result<Vec<Object>> {
        self.begin_anew();
        let mut seen = Vec::new();
        for binding in wanted {
            let binding = match self.look(&binding.link) {
                Ok((None, None)) => continue,
                Ok((runtime, permanent)) => {
                    let closed = is_closed(binding)?;
                    let mut found = ZoneBinding { runtime, permanent, closed, ..(*binding).clone() };
                    // What somebody else has bound is theirs.
                    if found.elsewhere().is_some() {
                        found.mark = None;
                    }
                    found
                }
                Err(Refusal::NoService) => (*binding).clone(),
                Err(_) => continue,
            };
            seen.push(Object::Zone(binding));
        }
        Ok(seen)
    }

    /// Has the interface in our zone, now and after a reload. The one is tried whatever becomes of
    /// the other.
    pub(super) fn bind(&self, binding: &ZoneBinding) -> Result<()> {
        let link = binding.link.as_str();
        let remembered = binding.mark.as_ref().map_or(Ok(()), |mark| bound::remember(&binding.link, mark));
        let zone = [Argument::Text(ZoneBinding::ZONE), Argument::Text(link)];
        let now = self.call(runtime("addInterface"), &zone).map(drop);
        let later = self
            .permanent_zone()
            .and_then(|zone| self.call(permanent_zone(&zone, "addInterface"), &[Argument::Text(link)]).map(drop));
        let done =
            outcome("bind", binding, &["ALREADY_ENABLED", "ZONE_ALREADY_SET"], [("", now), (" permanently", later)]);
        Error::from_list([remembered, done].into_iter().filter_map(Result::err).collect())
    }

    /// Takes the interface out of our zone, now and for good. Where firewalld does not run, it is
    /// still remembered.
    pub(super) fn unbind(&self, binding: &ZoneBinding) -> Result<()> {
        let link = binding.link.as_str();
        let zone = [Argument::Text(ZoneBinding::ZONE), Argument::Text(link)];
        let now = self.call(runtime("removeInterface"), &zone).map(drop);
        let later = self
            .permanent_zone()
            .and_then(|zone| self.call(permanent_zone(&zone, "removeInterface"), &[Argument::Text(link)]).map(drop));
        let told = !matches!(later, Err(Refusal::NoService));
        outcome("unbind", binding, &["NOT_ENABLED", "UNKNOWN_INTERFACE"], [("", now), (" permanently", later)])?;
        if told { bound::forget(&binding.link) } else { Ok(()) }
    }

    /// Whether the interface is in our zone, now or after a reload; nothing where firewalld does not
    /// answer.
    pub(super) fn has_bound(&self, link: &InterfaceName) -> Option<bool> {
        let (now, later) = self.look(link).ok()?;
        Some([now, later].into_iter().flatten().any(|zone| zone == ZoneBinding::ZONE))
    }

    /// The zones the interface is in, now and after a reload.
    fn look(&self, link: &InterfaceName) -> Result<(Option<String>, Option<String>), Refusal> {
        let link = [Argument::Text(link.as_str())];
        let named = |zone: Option<String>| zone.filter(|zone| !zone.is_empty());
        let now = named(self.call(runtime("getZoneOfInterface"), &link)?);
        let later = named(self.call(permanent("getZoneOfInterface"), &link)?);
        Ok((now, later))
    }

    /// The object that stands for our zone as it is on disk.
    fn permanent_zone(&self) -> Result<String, Refusal> {
        let zone = self.call(permanent("getZoneByName"), &[Argument::Text(ZoneBinding::ZONE)])?;
        zone.ok_or_else(|| Refusal::Io(io::ErrorKind::InvalidData.into()))
    }

    /// Has a conversation that broke off begun again, by the next question.
    pub(super) fn begin_anew(&self) {
        let mut conversation = self.conversation.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*conversation, Conversation::Broken(..)) {
            *conversation = Conversation::NotBegun;
        }
    }

    pub(super) fn call(&self, method: Method<'_>, arguments: &[Argument<'_>]) -> Result<Option<String>, Refusal> {
        let mut conversation = self.conversation.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut bus, is_new) = match mem::take(&mut *conversation) {
            Conversation::Open(bus) => (bus, false),
            Conversation::NotBegun => match Bus::system(PATIENCE) {
                Ok(Some(bus)) => (bus, true),
                Ok(None) => return Err(Refusal::NoService),
                Err(error) => return Err(broken(&mut conversation, error)),
            },
            Conversation::Broken(kind, reason) => {
                return Err(broken(&mut conversation, io::Error::new(kind, reason)));
            }
        };
        let mut answer = bus.call(method, arguments);
        // The bus was started anew since it was last asked.
        if matches!(&answer, Err(Refusal::Io(error)) if !is_new && is_hang_up(error)) {
            bus = match Bus::system(PATIENCE) {
                Ok(Some(bus)) => bus,
                Ok(None) => return Err(Refusal::NoService),
                Err(error) => return Err(broken(&mut conversation, error)),
            };
            answer = bus.call(method, arguments);
        }
        match answer {
            Err(Refusal::Io(error)) => Err(broken(&mut conversation, error)),
            answer => {
                *conversation = Conversation::Open(bus);
                answer
            }
        }
    }
}

fn broken(conversation: &mut Conversation, error: io::Error) -> Refusal {
    *conversation = Conversation::Broken(error.kind(), error.to_string());
    Refusal::Io(error)
}

fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

impl fmt::Debug for Firewalld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Firewalld").finish_non_exhaustive()
    }
}

pub(super) fn runtime(name: &str) -> Method<'_> {
    Method { service: SERVICE, path: PATH, interface: RUNTIME, name }
}

fn permanent(name: &str) -> Method<'_> {
    Method { service: SERVICE, path: PERMANENT_PATH, interface: PERMANENT, name }
}

fn permanent_zone<'a>(path: &'a str, name: &'a str) -> Method<'a> {
    Method { service: SERVICE, path, interface: PERMANENT_ZONE, name }
}

/// What became of the two halves of an operation.
fn outcome(
    operation: &'static str,
    binding: &ZoneBinding,
    was_done: &[&str],
    halves: [(&str, Result<(), Refusal>); 2],
) -> Result<()> {
    let preposition = if operation == "bind" { "to" } else { "from" };
    let object = |manner| format!("{}{manner} {preposition} zone {}", binding.link, ZoneBinding::ZONE);
    let halves = halves.map(|(manner, done)| settled(operation, || object(manner), was_done, done));
    Error::from_list(halves.into_iter().filter_map(Result::err).collect())
}

/// What became of an `operation`. One that `was_done` before is a success, and so is one on a
/// firewalld that has gone meanwhile.
pub(super) fn settled(
    operation: &'static str,
    object: impl FnOnce() -> String,
    was_done: &[&str],
    done: Result<(), Refusal>,
) -> Result<()> {
    let refusal = match done {
        Ok(()) | Err(Refusal::NoService) => return Ok(()),
        Err(Refusal::Error { message, .. }) if was_done.iter().any(|code| message.starts_with(code)) => return Ok(()),
        Err(refusal) => refusal,
    };
    let (reason, way_out) = (refusal.to_string(), way_out(&refusal).to_owned());
    Err(Error::Firewalld { operation, object: object(), reason, way_out })
}

fn way_out(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Error { message, .. } if message.starts_with("INVALID_ZONE") => {
            "firewalld does not know it: see that /usr/lib/firewalld/zones/netcore.xml is installed, and call \
             firewall-cmd --reload"
        }
        Refusal::Error { message, .. } if message.starts_with("ACCESS_DENIED") => {
            "firewalld is locked down: allow it in /etc/firewalld/lockdown-whitelist.xml"
        }
        Refusal::Error { name, .. } if name.contains("NotAuthorized") || name.contains("AccessDenied") => {
            "the bus or polkit does not allow it: run as root"
        }
        Refusal::Io(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            "see what firewalld is doing, then call netctl repair-chains"
        }
        _ => "netctl repair-chains tries again",
    }
}
