//! A connection to rtnetlink in one namespace: the socket with its options, one request and its
//! answers, and what a refusal says.

use std::fmt;
use std::io;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use netlink_packet_core::{
    ErrorMessage, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{AsyncSocket, SocketAddr};
use rtnetlink::{Handle, MulticastGroup};
use rustix::io::Errno;
use tokio::runtime;
use tokio::task::AbortHandle;

use super::extack;
use super::netns::Netns;
use crate::error::{Error, Result};

/// How long the kernel may take over one request. It answers within microseconds, or, for the
/// removal of a link, tens of milliseconds; an answer that cannot be decoded is dropped below
/// us, and must not be waited for forever.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often a dump is started over because the table changed while it was read.
const DUMP_ATTEMPTS: u32 = 8;

/// `struct nlmsghdr` of the request, which a capped acknowledgement repeats before the
/// attributes of the extended one.
const REQUEST_HEADER: usize = 16;

/// Messages from the multicast groups a connection has joined.
pub(super) type Notifications = UnboundedReceiver<(NetlinkMessage<RouteNetlinkMessage>, SocketAddr)>;

/// An rtnetlink socket, driven by a task of the runtime it was opened on.
#[derive(Clone, Debug)]
pub(super) struct Rtnl {
    handle: Handle,
    task: AbortHandle,
    runtime: runtime::Id,
}

impl Rtnl {
    /// Opens a socket in `netns`, or in the caller's namespace.
    pub(super) fn open(netns: Option<&Netns>) -> Result<Self> {
        Self::subscribed(netns, &[]).map(|(rtnl, _)| rtnl)
    }

    /// As [`Rtnl::open`], and joins `groups`.
    pub(super) fn subscribed(netns: Option<&Netns>, groups: &[MulticastGroup]) -> Result<(Self, Notifications)> {
        let failed = |source| Refusal::from(source).error("open", "rtnetlink socket");
        let runtime = runtime::Handle::try_current().map_err(|error| failed(io::Error::other(error)))?;
        let connect = || {
            // A thread that stands in the other namespace may have no runtime of its own.
            let _entered = runtime.enter();
            let (mut connection, handle, notifications) = rtnetlink::new_multicast_connection(groups)?;
            connection.set_forward_done(true);
            let socket = connection.socket_mut().socket_mut();
            socket.set_ext_ack(true)?;
            socket.set_cap_ack(true)?;
            // Kernels before 4.20 send more than was asked for; every reader compares again.
            let _ = socket.set_netlink_get_strict_chk(true);
            io::Result::Ok((connection, handle, notifications))
        };
        let connected = match netns {
            Some(netns) => netns.visit(connect)?,
            None => connect(),
        };
        let (connection, handle, notifications) = connected.map_err(failed)?;
        let task = runtime.spawn(connection).abort_handle();
        Ok((Self { handle, task, runtime: runtime.id() }, notifications))
    }

    /// Whether this connection can still be used from here: it lives on the runtime it was
    /// opened on.
    pub(super) fn is_usable(&self) -> bool {
        !self.task.is_finished() && runtime::Handle::try_current().is_ok_and(|current| current.id() == self.runtime)
    }

    /// Asks the kernel to do something; `flags` beside request and acknowledgement.
    pub(super) async fn change(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Refusal> {
        self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags).await.map(drop)
    }

    /// Asks for one object.
    pub(super) async fn get(&self, message: RouteNetlinkMessage) -> Result<Option<RouteNetlinkMessage>, Refusal> {
        let (mut answers, _) = self.exchange(message, NLM_F_REQUEST).await?;
        Ok(if answers.is_empty() { None } else { Some(answers.swap_remove(0)) })
    }

    /// Asks for every object that `message` describes.
    pub(super) async fn dump(&self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
        for _ in 0..DUMP_ATTEMPTS {
            let (answers, interrupted) = self.exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP).await?;
            if !interrupted {
                return Ok(answers);
            }
        }
        Err(Refusal { source: Errno::AGAIN.into(), detail: Some("the table kept changing while it was read".into()) })
    }

    async fn exchange(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<(Vec<RouteNetlinkMessage>, bool), Refusal> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = flags;
        let closed = || Refusal::from(io::Error::from(io::ErrorKind::ConnectionAborted));
        let mut stream = self.handle.clone().request(request).map_err(|_| closed())?;
        let collect = async {
            let (mut answers, mut interrupted) = (Vec::new(), false);
            while let Some(answer) = stream.next().await {
                interrupted |= answer.header.flags & NLM_F_DUMP_INTR != 0;
                match answer.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    NetlinkPayload::Error(error) if error.code.is_some() => return Err(error.into()),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(Refusal {
                            source: io::Error::from_raw_os_error(-done.code),
                            detail: extack::message(&done.extended_ack),
                        });
                    }
                    _ => {}
                }
            }
            Ok((answers, interrupted))
        };
        let (answers, interrupted) =
            tokio::time::timeout(PATIENCE, collect).await.map_err(|_| Refusal::from(Errno::TIMEDOUT))??;
        // A connection whose task is gone closes the stream without a word.
        if self.task.is_finished() { Err(closed()) } else { Ok((answers, interrupted)) }
    }
}

/// The kernel's refusal of a request.
#[derive(Debug)]
pub(super) struct Refusal {
    /// The error code.
    source: io::Error,
    /// The extended acknowledgement, where there was one.
    detail: Option<String>,
}

impl Refusal {
    pub(super) fn new(source: io::Error, detail: Option<String>) -> Self {
        Self { source, detail }
    }

    /// Whether the error code is one of `codes`.
    pub(super) fn is(&self, codes: &[Errno]) -> bool {
        Errno::from_io_error(&self.source).is_some_and(|code| codes.contains(&code))
    }

    /// As an error that says what was attempted on what.
    pub(super) fn error(self, operation: &'static str, object: impl fmt::Display) -> Error {
        Error::Kernel { operation, object: object.to_string(), source: self.source, detail: self.detail }
    }
}

impl From<io::Error> for Refusal {
    fn from(source: io::Error) -> Self {
        Self { source, detail: None }
    }
}

impl From<Errno> for Refusal {
    fn from(code: Errno) -> Self {
        Self { source: code.into(), detail: None }
    }
}

impl From<ErrorMessage> for Refusal {
    fn from(error: ErrorMessage) -> Self {
        let detail = error.header.get(REQUEST_HEADER..).and_then(extack::message);
        Self { source: error.to_io(), detail }
    }
}

/// Makes a success of the refusals in `codes`.
pub(super) fn forgive(outcome: Result<(), Refusal>, codes: &[Errno]) -> Result<(), Refusal> {
    match outcome {
        Err(refusal) if refusal.is(codes) => Ok(()),
        other => other,
    }
}
