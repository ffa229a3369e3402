//! Published ports as forward-ports of firewalld, where it is told to let through no others
//! (`StrictForwardPorts=yes`, since firewalld 2.3). It compares the port that a connection was first
//! sent to with the forward-ports it has, of whatever zone; the translation itself is ours, which
//! comes before its own.
//!
//! They are rich rules of our zone, for one address of the host: a plain forward-port of a zone
//! would translate whatever containers send to that port, wherever it is.

use std::sync::atomic::Ordering;

use super::dbus::{Argument, Method, Refusal};
use super::firewalld::{Firewalld, PERMANENT, PERMANENT_PATH, SERVICE, runtime, settled};
use crate::error::Result;
use crate::model::{ForwardPort, Object, ZoneBinding};

impl Firewalld {
    /// What is there of `wanted`. Where nobody asks for forward-ports, everything is as it should
    /// be; and where nobody answers, as far as anybody knows. (That is said of the zone.)
    pub(super) fn observe_ports(&self, wanted: &[&ForwardPort]) -> Vec<Object> {
        if wanted.is_empty() {
            return Vec::new();
        }
        let is_strict = matches!(self.is_strict(), Ok(true));
        let seen = wanted.iter().filter(|port| !is_strict || self.has(port));
        seen.map(|port| Object::ForwardPort((*port).clone())).collect()
    }

    /// Has firewalld let the port through until its next reload.
    pub(super) fn forward(&self, port: &ForwardPort) -> Result<()> {
        let rule = rich_rule(port);
        let arguments = [Argument::Text(ZoneBinding::ZONE), Argument::Text(&rule), Argument::Number(NO_TIMEOUT)];
        let done = self.call(runtime("addRichRule"), &arguments).map(drop);
        settled("let through", || port.to_string(), &["ALREADY_ENABLED"], done)
    }

    /// Takes that back.
    pub(super) fn withdraw(&self, port: &ForwardPort) -> Result<()> {
        // What was asked for while firewalld was strict went with the reload that it ceased to be
        // so by.
        if !self.strict.load(Ordering::Relaxed) {
            return Ok(());
        }
        let rule = rich_rule(port);
        let arguments = [Argument::Text(ZoneBinding::ZONE), Argument::Text(&rule)];
        let done = self.call(runtime("removeRichRule"), &arguments).map(drop);
        settled("withdraw", || port.to_string(), &["NOT_ENABLED"], done)
    }

    fn has(&self, port: &ForwardPort) -> bool {
        let rule = rich_rule(port);
        let arguments = [Argument::Text(ZoneBinding::ZONE), Argument::Text(&rule)];
        matches!(self.call(runtime("queryRichRule"), &arguments), Ok(Some(answer)) if answer == "true")
    }

    fn is_strict(&self) -> Result<bool, Refusal> {
        let get = Method {
            service: SERVICE,
            path: PERMANENT_PATH,
            interface: "org.freedesktop.DBus.Properties",
            name: "Get",
        };
        let strict = match self.call(get, &[Argument::Text(PERMANENT), Argument::Text("StrictForwardPorts")]) {
            Ok(value) => value.as_deref() == Some("yes"),
            // Older releases have no such setting.
            Err(Refusal::Error { .. }) => false,
            Err(refusal) => return Err(refusal),
        };
        self.strict.store(strict, Ordering::Relaxed);
        Ok(strict)
    }
}

/// In seconds; 0 for none.
const NO_TIMEOUT: i32 = 0;

/// The rule in firewalld's rich language (firewalld.richlanguage(5)).
fn rich_rule(port: &ForwardPort) -> String {
    let ForwardPort { destination, protocol, host_port, to, .. } = port;
    let family = if to.is_ipv6() { "ipv6" } else { "ipv4" };
    format!(
        "rule family=\"{family}\" destination address=\"{destination}\" forward-port port=\"{host_port}\" \
         protocol=\"{protocol}\" to-port=\"{}\" to-addr=\"{}\"",
        to.port(),
        to.ip()
    )
}
