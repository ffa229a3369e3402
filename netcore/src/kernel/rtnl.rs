//! A connection to rtnetlink in one namespace: one request and its answers, and what a refusal says.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use netlink_packet_core::{NLM_F_DUMP, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use rustix::io::Errno;

use super::netns::Netns;
use super::requests::Requests;
use crate::error::{Error, Result};

/// How often a dump is started over because the table changed while it was read.
const DUMP_ATTEMPTS: u32 = 8;

/// An rtnetlink socket. Its functions are asynchronous for what may come to be waited for; today
/// nothing is: the kernel does what it is asked while it is being asked, and its answer is there at once.
#[derive(Clone, Debug)]
pub(super) struct Rtnl {
    socket: Arc<Mutex<Requests>>,
}

impl Rtnl {
    /// Opens a socket in `netns`, or in the caller's namespace.
    pub(super) fn open(netns: Option<&Netns>) -> Result<Self> {
        let connect = || {
            let mut socket = Requests::open(NETLINK_ROUTE)?;
            // Kernels before 4.20 send more than was asked for; every reader compares again.
            socket.ask_strictly();
            io::Result::Ok(socket)
        };
        let connected = match netns {
            Some(netns) => netns.visit(connect)?,
            None => connect(),
        };
        let socket = connected.map_err(|source| Refusal::from(source).error("open", "rtnetlink socket"))?;
        Ok(Self { socket: Arc::new(Mutex::new(socket)) })
    }

    /// Asks the kernel to do something; `flags` beside request and acknowledgement.
    pub(super) async fn change(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Refusal> {
        self.with(|socket| socket.change(&encode(message, flags)))
    }

    /// Asks for one object.
    pub(super) async fn get(&self, message: RouteNetlinkMessage) -> Result<Option<RouteNetlinkMessage>, Refusal> {
        self.get_with(message, decode).await
    }

    /// As [`get`](Self::get), but only what `read` makes of the bytes of the answer is kept.
    pub(super) async fn get_with<T>(
        &self,
        message: RouteNetlinkMessage,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let mut answer = None;
        self.with(|socket| socket.ask(&encode(message, 0), |bytes| answer = read(bytes)))?;
        Ok(answer)
    }

    /// Asks for every object that `message` describes.
    pub(super) async fn dump(&self, message: RouteNetlinkMessage) -> Result<Vec<RouteNetlinkMessage>, Refusal> {
        self.dump_with(message, decode).await
    }

    /// As [`dump`](Self::dump), but only what `read` makes of the bytes of each answer is kept.
    pub(super) async fn dump_with<T>(
        &self,
        message: RouteNetlinkMessage,
        read: impl Fn(&[u8]) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        let request = encode(message, NLM_F_DUMP);
        for _ in 0..DUMP_ATTEMPTS {
            let mut answers = Vec::new();
            let interrupted = self.with(|socket| socket.ask(&request, |bytes| answers.extend(read(bytes))))?;
            if !interrupted {
                return Ok(answers);
            }
        }
        Err(Refusal { source: Errno::AGAIN.into(), detail: Some("the table kept changing while it was read".into()) })
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut Requests) -> T) -> T {
        use_it(&mut self.socket.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The bytes of a request.
pub(super) fn encode(message: RouteNetlinkMessage, flags: u16) -> Vec<u8> {
    let mut request = NetlinkMessage::new(Default::default(), NetlinkPayload::from(message));
    request.header.flags = flags;
    request.finalize();
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    bytes
}

/// The message in `bytes`, header included. One that is not understood is from a newer kernel, about
/// something that we do not know and have no use for.
pub(super) fn decode(bytes: &[u8]) -> Option<RouteNetlinkMessage> {
    match NetlinkMessage::deserialize(bytes).ok()?.payload {
        NetlinkPayload::InnerMessage(message) => Some(message),
        _ => None,
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

/// Makes a success of the refusals in `codes`.
pub(super) fn forgive(outcome: Result<(), Refusal>, codes: &[Errno]) -> Result<(), Refusal> {
    match outcome {
        Err(refusal) if refusal.is(codes) => Ok(()),
        other => other,
    }
}
