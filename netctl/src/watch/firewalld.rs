//! What firewalld says of itself on the system bus: that it has reloaded, and that it has come back.
//! What it then has forgotten, the kernel does not announce. Without a bus, or without firewalld, there
//! is nothing to hear; both are noticed when they come.

use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::future::{Either, select};
use futures::{Stream, StreamExt};
use zbus::message::Type;
use zbus::{Connection, MatchRule, Message, MessageStream};

const NAME: &str = "org.fedoraproject.FirewallD1";
const BUS: &str = "org.freedesktop.DBus";

/// How often to see whether there is a bus by now.
const PACE: Duration = Duration::from_secs(10);

/// Hears firewalld, once it is listened to.
pub(super) struct Firewalld(UnboundedReceiver<&'static str>);

impl Firewalld {
    /// Listens from now on, or from when there is something to listen to.
    pub(super) fn listen() -> Self {
        let (tell, told) = unbounded();
        tokio::spawn(async move {
            while !tell.is_closed() {
                // Without a bus, or with one that has gone: there may be one later.
                let _ = hear(&tell).await;
                tokio::time::sleep(PACE).await;
            }
        });
        Self(told)
    }

    /// Waits for what may have cost us something, in words.
    pub(super) async fn told(&mut self) -> &'static str {
        match self.0.next().await {
            Some(what) => what,
            None => std::future::pending().await,
        }
    }
}

/// Passes on what is heard, until the bus has gone.
async fn hear(tell: &UnboundedSender<&'static str>) -> zbus::Result<()> {
    let bus = Connection::system().await?;
    // Only from whoever has the name: anybody may call a signal like that.
    let mut reloaded = signals(&bus, MatchRule::builder().sender(NAME).interface(NAME).member("Reloaded")).await?;
    let owners = MatchRule::builder().sender(BUS).interface(BUS).member("NameOwnerChanged").arg(0, NAME);
    let mut owners = signals(&bus, owners).await?;
    // It may have been there, and have said something, before it was listened to.
    let answer = bus.call_method(Some(BUS), "/org/freedesktop/DBus", Some(BUS), "NameHasOwner", &NAME).await?;
    if answer.body().deserialize::<bool>()? {
        let _ = tell.unbounded_send("firewalld is listened to");
    }
    loop {
        let what = match select(reloaded.next(), owners.next()).await {
            Either::Left((Some(Ok(_)), _)) => Some("firewalld was reloaded"),
            Either::Right((Some(Ok(change)), _)) => {
                let (_, _, owner): (String, String, String) = change.body().deserialize()?;
                (!owner.is_empty()).then_some("firewalld has started")
            }
            _ => return Ok(()),
        };
        if what.is_some_and(|what| tell.unbounded_send(what).is_err()) {
            return Ok(());
        }
    }
}

async fn signals(
    bus: &Connection,
    rule: zbus::match_rule::Builder<'_>,
) -> zbus::Result<impl Stream<Item = zbus::Result<Message>> + Unpin> {
    let rule = rule.msg_type(Type::Signal).build()?.to_owned();
    MessageStream::for_match_rule(rule, bus, None).await
}
