//! Real packets: servers and clients that live in a namespace of their own each.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};

use crate::{Host, Namespaces, Netns};

/// How long a client waits for an answer that should come.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a client waits for an answer that should not come.
const SUSPICION: Duration = Duration::from_millis(400);
const TICK: Duration = Duration::from_millis(20);

/// Anywhere that packets are sent from or received.
pub trait Place {
    /// Its namespaces.
    fn place(&self) -> &Namespaces;
}

impl Place for Host {
    fn place(&self) -> &Namespaces {
        self.namespaces()
    }
}

impl Place for Netns {
    fn place(&self) -> &Namespaces {
        self.namespaces()
    }
}

/// A server that tells everybody its name and who they are, on one port over TCP and UDP and
/// both IP versions, until it is dropped.
pub struct Server {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// Serves `port` in `place` as `name`.
///
/// # Panics
/// When the port is taken.
#[must_use]
pub fn serve(place: &impl Place, name: &str, port: u16) -> Server {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)); // IPv4 included
    let (tcp, udp) = place.place().enter(|| {
        let tcp = TcpListener::bind(any).unwrap_or_else(|error| panic!("{name}: listen on tcp port {port}: {error}"));
        let udp = UdpSocket::bind(any).unwrap_or_else(|error| panic!("{name}: listen on udp port {port}: {error}"));
        (tcp, udp)
    });
    set_socket_timeout(&tcp, Timeout::Recv, Some(TICK)).expect("a timeout for accept");
    udp.set_read_timeout(Some(TICK)).expect("a timeout for recv");
    let over = Arc::new(AtomicBool::new(false));
    let answer = {
        let name = name.to_owned();
        move |peer: SocketAddr| format!("{name} {}", SocketAddr::new(peer.ip().to_canonical(), peer.port()))
    };
    let (tcp_over, tcp_answer) = (Arc::clone(&over), answer.clone());
    let udp_over = Arc::clone(&over);
    let tcp = move || {
        while !tcp_over.load(Ordering::Relaxed) {
            if let Ok((mut stream, peer)) = tcp.accept() {
                // A client that has left already is its own loss.
                let _ = stream.write_all(tcp_answer(peer).as_bytes());
            }
        }
    };
    let udp = move || {
        while !udp_over.load(Ordering::Relaxed) {
            if let Ok((_, peer)) = udp.recv_from(&mut [0; 64]) {
                let _ = udp.send_to(answer(peer).as_bytes(), peer);
            }
        }
    };
    Server { over, threads: vec![std::thread::spawn(tcp), std::thread::spawn(udp)] }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The server's name.
    pub server: String,
    /// Who the server saw.
    pub client: SocketAddr,
}

impl Answer {
    fn parse(text: &str) -> io::Result<Self> {
        let parsed = text
            .split_once(' ')
            .and_then(|(server, client)| Some(Self { server: server.to_owned(), client: client.parse().ok()? }));
        parsed.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("answer {text:?}")))
    }
}

/// Fetches the answer over TCP of the server at `address` and `port`.
///
/// # Errors
/// When there is none.
pub fn fetch(from: &impl Place, address: impl Into<IpAddr>, port: u16) -> io::Result<Answer> {
    fetch_within(from, SocketAddr::new(address.into(), port), PATIENCE)
}

/// The name of the server that answers over TCP.
///
/// # Panics
/// When none does.
#[track_caller]
pub fn who_answers(from: &impl Place, address: impl Into<IpAddr>, port: u16) -> String {
    let address = address.into();
    match fetch(from, address, port) {
        Ok(answer) => answer.server,
        Err(error) => panic!("nobody answers at {address} port {port}/tcp: {error}"),
    }
}

/// Fails when somebody answers over TCP.
///
/// # Panics
/// Then.
#[track_caller]
pub fn nobody_answers(from: &impl Place, address: impl Into<IpAddr>, port: u16) {
    let address = SocketAddr::new(address.into(), port);
    if let Ok(answer) = fetch_within(from, address, SUSPICION) {
        panic!("{} answers at {address}/tcp", answer.server);
    }
}

fn fetch_within(from: &impl Place, address: SocketAddr, patience: Duration) -> io::Result<Answer> {
    from.place().enter(|| {
        let mut stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Answer::parse(&answer)
    })
}

/// A UDP client that keeps its port, as a resolver or a phone does.
pub struct Udp(UdpSocket);

impl Udp {
    /// Opens one in `place`, for IPv4 or IPv6.
    ///
    /// # Panics
    /// When there is no port left.
    #[must_use]
    pub fn open(place: &impl Place, ipv6: bool) -> Self {
        let any: IpAddr = if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
        let socket = place.place().enter(|| UdpSocket::bind((any, 0))).expect("a UDP socket");
        Self(socket)
    }

    /// Asks the server at `address` and `port`, once: a lost packet is a lost answer.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn ask(&self, address: impl Into<IpAddr>, port: u16) -> io::Result<Answer> {
        self.ask_within(SocketAddr::new(address.into(), port), PATIENCE)
    }

    /// The same where no answer is expected; waits less.
    ///
    /// # Errors
    /// When no answer comes.
    pub fn probe(&self, address: impl Into<IpAddr>, port: u16) -> io::Result<Answer> {
        self.ask_within(SocketAddr::new(address.into(), port), SUSPICION)
    }

    fn ask_within(&self, address: SocketAddr, patience: Duration) -> io::Result<Answer> {
        let mut answer = [0; 256];
        // What has arrived by now answers an earlier question.
        self.0.set_nonblocking(true)?;
        while self.0.recv_from(&mut answer).is_ok() {}
        self.0.set_nonblocking(false)?;
        self.0.set_read_timeout(Some(patience))?;
        self.0.send_to(b"?", address)?;
        let (length, _) = self.0.recv_from(&mut answer)?;
        Answer::parse(&String::from_utf8_lossy(&answer[..length]))
    }
}

/// Whether `from` reaches `to` with an ICMP echo.
///
/// # Panics
/// When it does not, with what `ping` said.
#[track_caller]
pub fn ping(from: &impl Place, to: impl Into<IpAddr>) {
    let to = to.into();
    let output =
        from.place().enter(|| std::process::Command::new("ping").args(["-n", "-c1", "-W3", &to.to_string()]).output());
    let output = output.expect("start ping");
    assert!(output.status.success(), "no answer from {to}:\n{}", String::from_utf8_lossy(&output.stdout));
}

/// Whether the kernel can follow SCTP, so that its ports can be translated.
#[must_use]
pub fn kernel_tracks_sctp(host: &Host) -> bool {
    host.try_run("sysctl -n net.netfilter.nf_conntrack_sctp_timeout_established").status.success()
}

/// Advertises a default router (RFC 4861, section 4.2) from `from` over `interface`, once.
///
/// # Errors
/// When it cannot be sent.
pub fn advertise_router(from: &impl Place, interface: u32) -> io::Result<()> {
    use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, sockopt};
    // Type 134, code 0, room for the checksum, hop limit, flags, 1800 seconds, two timers left open.
    const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    from.place().enter(|| {
        let socket = rustix::net::socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6))?;
        sockopt::set_ipv6_multicast_hops(&socket, 255)?;
        let to = std::net::SocketAddrV6::new(all_nodes, 0, 0, interface);
        sendto(&socket, &ADVERTISEMENT, SendFlags::empty(), &to).map(drop)?;
        Ok(())
    })
}

/// Sends the first packet of an SCTP association (RFC 9260, section 3.3.2) from `from` to
/// `address` and `port`, and gives back the port it arrives at in `to`. The packet is made by
/// hand: the kernel need not speak SCTP itself.
///
/// # Errors
/// When it does not arrive.
pub fn sctp_init(from: &impl Place, to: &impl Place, address: IpAddr, port: u16) -> io::Result<u16> {
    let raw = || {
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::RAW,
            Some(rustix::net::ipproto::SCTP),
        )?;
        set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
        io::Result::Ok(UdpSocket::from(socket))
    };
    let (sender, receiver) = (from.place().enter(raw)?, to.place().enter(raw)?);
    const INIT: [u8; 20] = [1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1];
    let mut packet = Vec::from(40_000_u16.to_be_bytes());
    packet.extend(port.to_be_bytes());
    packet.extend([0; 8]); // verification tag 0 in an INIT, and room for the checksum
    packet.extend(INIT);
    let checksum = crc32c(&packet);
    packet[8..12].copy_from_slice(&checksum.to_le_bytes());
    sender.send_to(&packet, SocketAddr::new(address, 0))?;
    let mut arrived = [0; 256];
    let length = receiver.recv(&mut arrived)?;
    let header = usize::from(arrived[0] & 0x0f) * 4; // raw IPv4 sockets get the IP header too
    match arrived.get(header + 2..length.min(header + 4)) {
        Some(&[high, low]) => Ok(u16::from_be_bytes([high, low])),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a packet without an SCTP header")),
    }
}

/// RFC 9260, appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc32c_of_the_digits() {
        assert_eq!(super::crc32c(b"123456789"), 0xe306_9283);
    }
}
