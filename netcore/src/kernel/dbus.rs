//! As much of D-Bus as it takes to call a method on the system bus and read its answer: a socket,
//! the handshake, and messages whose arguments are text and numbers (D-Bus specification 0.43). It
//! blocks, knows no signals, properties only by calling for them, and starts no service.

use std::env;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the system bus listens unless the environment says otherwise ("Well-known Message Bus
/// Instances").
const DEFAULT_SOCKET: &str = "/run/dbus/system_bus_socket";
/// The most we read; a service that sends more is none of those we know.
const LARGEST: usize = 1 << 20;

/// A connection to the system bus.
pub(super) struct Bus {
    stream: BufReader<UnixStream>,
    serial: u32,
}

/// A method of an object of a service.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method<'a> {
    pub(super) service: &'a str,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) name: &'a str,
}

/// An argument of a call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Argument<'a> {
    Text(&'a str),
    Number(i32),
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Nobody offers the service.
    NoService,
    /// The service refuses: the error's name and its words.
    Error { name: String, message: String },
    /// The bus cannot be talked to.
    Io(io::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoService => f.write_str("it is not running"),
            Self::Error { message, .. } if !message.is_empty() => f.write_str(message),
            Self::Error { name, .. } => f.write_str(name),
            Self::Io(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                f.write_str("no answer in time")
            }
            Self::Io(error) => write!(f, "D-Bus: {error}"),
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Bus {
    /// Connects to the system bus; nothing without one. No answer may take longer than `patience`.
    pub(super) fn system(patience: Duration) -> io::Result<Option<Self>> {
        let Some(socket) = socket(env::var("DBUS_SYSTEM_BUS_ADDRESS").ok().as_deref()) else {
            let reason = "DBUS_SYSTEM_BUS_ADDRESS names no socket of the file system (unix:path=…)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        };
        Self::at(&socket, patience)
    }

    fn at(socket: &Path, patience: Duration) -> io::Result<Option<Self>> {
        let stream = match UnixStream::connect(socket) {
            Ok(stream) => stream,
            // Nobody listens, or there is no such socket.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let mut bus = Self { stream: BufReader::new(stream), serial: 0 };
        bus.introduce()?;
        Ok(Some(bus))
    }

    /// The handshake: who we are is what the kernel says of the socket's other end.
    fn introduce(&mut self) -> io::Result<()> {
        let user = rustix::process::geteuid().as_raw().to_string();
        let user: String = user.bytes().map(|digit| format!("{digit:02x}")).collect();
        self.send(format!("\0AUTH EXTERNAL {user}\r\n").as_bytes())?;
        let mut answer = String::new();
        self.stream.by_ref().take(512).read_line(&mut answer)?;
        if !answer.starts_with("OK ") {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "the bus does not know us"));
        }
        self.send(b"BEGIN\r\n")?;
        let hello = Method {
            service: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            name: "Hello",
        };
        match self.call(hello, &[]) {
            Ok(_) => Ok(()),
            Err(Refusal::Io(error)) => Err(error),
            Err(refusal) => Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal.to_string())),
        }
    }

    /// Calls `method` and waits for its answer: the first value of it as text, if there is one.
    pub(super) fn call(&mut self, method: Method<'_>, arguments: &[Argument<'_>]) -> Result<Option<String>, Refusal> {
        self.serial += 1;
        self.send(&message(self.serial, method, arguments))?;
        loop {
            let answer = Answer::read(&mut self.stream)?;
            if answer.to != Some(self.serial) {
                // A signal, or the answer to a call that was given up.
                continue;
            }
            let text = answer.first_text();
            return match answer.kind {
                METHOD_RETURN => Ok(text),
                _ if is_absence(&answer.error) => Err(Refusal::NoService),
                _ => Err(Refusal::Error { name: answer.error, message: text.unwrap_or_default() }),
            };
        }
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }
}

/// The socket of the bus at `address`, a list of which the first that is a path counts ("Server
/// Addresses").
fn socket(address: Option<&str>) -> Option<PathBuf> {
    let Some(address) = address else { return Some(DEFAULT_SOCKET.into()) };
    let of_one = |one: &str| {
        let keys = one.strip_prefix("unix:")?;
        keys.split(',').find_map(|key| key.strip_prefix("path=")).map(PathBuf::from)
    };
    address.split(';').find_map(of_one)
}

fn is_absence(error: &str) -> bool {
    let error = error.strip_prefix("org.freedesktop.DBus.Error.").unwrap_or_default();
    matches!(error, "ServiceUnknown" | "NameHasNoOwner")
}

// "Message Protocol": types, flags and header fields.
const METHOD_CALL: u8 = 1;
const METHOD_RETURN: u8 = 2;
const NO_AUTO_START: u8 = 2;
const PATH: u8 = 1;
const INTERFACE: u8 = 2;
const MEMBER: u8 = 3;
const ERROR_NAME: u8 = 4;
const REPLY_SERIAL: u8 = 5;
const DESTINATION: u8 = 6;
const SIGNATURE: u8 = 8;

fn message(serial: u32, method: Method<'_>, arguments: &[Argument<'_>]) -> Vec<u8> {
    let mut body = Writer::default();
    let mut signature = String::new();
    for argument in arguments {
        match argument {
            Argument::Text(text) => {
                signature.push('s');
                body.text(text);
            }
            Argument::Number(number) => {
                signature.push('i');
                body.word(*number as u32);
            }
        }
    }
    let mut fields = Writer::default();
    for (code, kind, value) in [
        (PATH, "o", method.path),
        (INTERFACE, "s", method.interface),
        (MEMBER, "s", method.name),
        (DESTINATION, "s", method.service),
    ] {
        fields.align(8);
        fields.0.push(code);
        fields.signature(kind);
        fields.text(value);
    }
    if !signature.is_empty() {
        fields.align(8);
        fields.0.push(SIGNATURE);
        fields.signature("g");
        fields.signature(&signature);
    }
    let order = if cfg!(target_endian = "big") { b'B' } else { b'l' };
    let mut whole = Writer(vec![order, METHOD_CALL, NO_AUTO_START, 1]);
    whole.word(body.0.len() as u32);
    whole.word(serial);
    // The fields begin at a multiple of eight, so that they are aligned here as they were there.
    whole.word(fields.0.len() as u32);
    whole.0.extend(fields.0);
    whole.align(8);
    whole.0.extend(body.0);
    whole.0
}

/// Values one after the other, each aligned by its type ("Marshaling").
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn word(&mut self, word: u32) {
        self.align(4);
        self.0.extend(word.to_ne_bytes());
    }

    fn text(&mut self, text: &str) {
        self.word(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, signature: &str) {
        self.0.push(signature.len() as u8);
        self.0.extend(signature.as_bytes());
        self.0.push(0);
    }
}

/// A message from the bus, as far as we look into it.
#[derive(Debug, Default)]
struct Answer {
    kind: u8,
    /// The serial of the call it answers.
    to: Option<u32>,
    error: String,
    signature: String,
    big_endian: bool,
    body: Vec<u8>,
}

impl Answer {
    fn read(stream: &mut impl Read) -> io::Result<Self> {
        let garbled = || io::Error::new(io::ErrorKind::InvalidData, "a message that makes no sense");
        let mut start = [0; 16];
        stream.read_exact(&mut start)?;
        let mut answer = Self { kind: start[1], big_endian: start[0] == b'B', ..Self::default() };
        let head = Reader { bytes: &start, at: 4, big_endian: answer.big_endian };
        let [body_bytes, _serial, field_bytes] = head.words().ok_or_else(garbled)?;
        let (body_bytes, field_bytes) = (body_bytes as usize, field_bytes as usize);
        if body_bytes > LARGEST || field_bytes > LARGEST {
            return Err(garbled());
        }
        let mut fields = vec![0; field_bytes.next_multiple_of(8)];
        stream.read_exact(&mut fields)?;
        fields.truncate(field_bytes);
        answer.read_fields(&fields).ok_or_else(garbled)?;
        answer.body = vec![0; body_bytes];
        stream.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    fn read_fields(&mut self, fields: &[u8]) -> Option<()> {
        let mut reader = Reader { bytes: fields, at: 0, big_endian: self.big_endian };
        while reader.at < fields.len() {
            reader.align(8);
            let code = reader.byte()?;
            match reader.signature()? {
                "u" => {
                    let word = reader.word()?;
                    if code == REPLY_SERIAL {
                        self.to = Some(word);
                    }
                }
                "s" | "o" => {
                    let text = reader.text()?;
                    if code == ERROR_NAME {
                        text.clone_into(&mut self.error);
                    }
                }
                "g" => {
                    let text = reader.signature()?;
                    if code == SIGNATURE {
                        text.clone_into(&mut self.signature);
                    }
                }
                _ => return None,
            }
        }
        Some(())
    }

    /// The first value as text, if it is text, a path, a truth value, or one of these in a variant.
    fn first_text(&self) -> Option<String> {
        let mut reader = Reader { bytes: &self.body, at: 0, big_endian: self.big_endian };
        let mut signature = self.signature.as_str();
        if signature.starts_with('v') {
            signature = reader.signature()?;
        }
        match signature.as_bytes().first()? {
            b's' | b'o' => reader.text().map(str::to_owned),
            b'b' => Some((reader.word()? != 0).to_string()),
            _ => None,
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    big_endian: bool,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.bytes.get(self.at..self.at.checked_add(length)?)?;
        self.at += length;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    fn word(&mut self) -> Option<u32> {
        self.align(4);
        let bytes = *self.take(4)?.first_chunk()?;
        Some(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn words(mut self) -> Option<[u32; 3]> {
        Some([self.word()?, self.word()?, self.word()?])
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.word()? as usize;
        let text = self.take(length)?;
        self.byte()?;
        std::str::from_utf8(text).ok()
    }

    fn signature(&mut self) -> Option<&'a str> {
        let length = self.byte()? as usize;
        let text = self.take(length)?;
        self.byte()?;
        std::str::from_utf8(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    const METHOD: Method<'_> =
        Method { service: "org.example.One", path: "/org/example", interface: "org.example.One.zone", name: "add" };

    #[test]
    fn a_call_is_laid_out_as_the_specification_says() {
        let bytes = message(7, METHOD, &[Argument::Text("netcore"), Argument::Number(-1)]);
        assert_eq!(bytes[1..4], [1, 2, 1]);
        let fields = u32::from_ne_bytes(bytes[12..16].try_into().unwrap()) as usize;
        let body = (16 + fields).next_multiple_of(8);
        assert_eq!(u32::from_ne_bytes(bytes[4..8].try_into().unwrap()) as usize, bytes.len() - body);
        assert_eq!(bytes[body + 4..body + 12], *b"netcore\0");
        assert_eq!(bytes[body + 12..], (-1i32).to_ne_bytes());
        // What is written is read back alike.
        let mut read = Answer { big_endian: cfg!(target_endian = "big"), ..Answer::default() };
        read.read_fields(&bytes[16..16 + fields]).unwrap();
        assert_eq!(read.signature, "si");
    }

    #[test]
    fn an_answer_is_read_in_either_byte_order_and_a_garbled_one_refused() {
        let answer = |order: u8, word: fn(u32) -> [u8; 4], body: &[u8], signature: &str| {
            let mut fields = vec![REPLY_SERIAL, 1, b'u', 0];
            fields.extend(word(9));
            fields.extend([SIGNATURE, 1, b'g', 0, signature.len() as u8]);
            fields.extend(signature.as_bytes());
            fields.push(0);
            let mut bytes = vec![order, METHOD_RETURN, 0, 1];
            for number in [body.len() as u32, 1, fields.len() as u32] {
                bytes.extend(word(number));
            }
            bytes.extend(&fields);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
            bytes.extend(body);
            bytes
        };
        for (order, word) in [(b'l', u32::to_le_bytes as fn(u32) -> [u8; 4]), (b'B', u32::to_be_bytes)] {
            let text = [&word(3)[..], b"web\0"].concat();
            let read = Answer::read(&mut &answer(order, word, &text, "s")[..]).unwrap();
            assert_eq!((read.to, read.first_text().as_deref()), (Some(9), Some("web")));
            let truth = [&[1, b'b', 0, 0][..], &word(1)].concat();
            let read = Answer::read(&mut &answer(order, word, &truth, "v")[..]).unwrap();
            assert_eq!(read.first_text().as_deref(), Some("true"));
            // Longer than it is.
            let cut_off = [&word(4000)[..], b"web\0"].concat();
            assert_eq!(Answer::read(&mut &answer(order, word, &cut_off, "s")[..]).unwrap().first_text(), None);
        }
        let whole = answer(b'l', u32::to_le_bytes, b"", "");
        for length in 0..whole.len() {
            assert!(Answer::read(&mut &whole[..length]).is_err(), "{length}");
        }
        assert!(Answer::read(&mut &[0xff; 64][..]).is_err());
    }

    #[test]
    fn nobody_waits_for_a_bus_that_is_not_there_nor_forever_for_one_that_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("bus");
        assert!(Bus::at(&socket, Duration::from_secs(9)).unwrap().is_none());
        let listener = UnixListener::bind(&socket).unwrap();
        let mute = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            stream.write_all(b"OK 0123\r\n").unwrap();
            // Reads until the other end has given up, and says nothing.
            std::io::copy(&mut stream, &mut std::io::sink()).unwrap()
        });
        let Err(error) = Bus::at(&socket, Duration::from_millis(50)) else { panic!("it has answered") };
        assert_eq!(Refusal::from(error).to_string(), "no answer in time");
        assert!(mute.join().unwrap() > 100);
        assert!(Bus::at(&socket, Duration::from_secs(9)).unwrap().is_none(), "nobody listens any more");
    }

    #[test]
    fn the_bus_is_where_the_environment_says() {
        let path = |address| socket(address).map(|path| path.display().to_string());
        assert_eq!(path(None).as_deref(), Some(DEFAULT_SOCKET));
        assert_eq!(path(Some("unix:guid=1,path=/run/bus;unix:path=/x")).as_deref(), Some("/run/bus"));
        assert_eq!(path(Some("tcp:host=localhost;unix:path=/x")).as_deref(), Some("/x"));
        assert_eq!(path(Some("unix:abstract=/x")), None);
    }
}
