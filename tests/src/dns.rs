//! A name server on a loopback port that answers as it is told, or not at all.
//!
//! It speaks as much of RFC 1035 as a stub resolver needs: one question over UDP, answered with addresses
//! that may not be remembered.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

/// What is said of a name.
#[derive(Debug, Clone)]
pub enum NameAnswer {
    /// These addresses, not to be remembered.
    Addresses(Vec<Ipv4Addr>),
    /// These addresses, and nothing to questions for IPv6 addresses.
    OnlyIpv4(Vec<Ipv4Addr>),
    /// There is no such name.
    NoSuchName,
    /// The server never answers.
    Silence,
}

/// The questions for IPv4 addresses, by number from 1, and their answers.
type Script = Arc<dyn Fn(usize) -> NameAnswer + Send + Sync>;

/// The name server; it ends when dropped.
#[derive(Debug)]
pub struct NameServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    answering: JoinHandle<()>,
}

#[derive(Default)]
struct Shared(Mutex<HashMap<String, Zone>>);

#[derive(Default)]
struct Zone {
    script: Option<Script>,
    asked: usize,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

const A: u16 = 1;

impl NameServer {
    /// Starts one that knows no name.
    pub async fn start() -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = socket.local_addr().expect("a bound socket has an address");
        let shared = Arc::<Shared>::default();
        let answering = tokio::spawn(answer_all(socket, Arc::clone(&shared)));
        Self {
            address,
            shared,
            answering,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Answers questions for a name by what `script` says of each, counted from 1.
    pub fn script(&self, name: &str, script: impl Fn(usize) -> NameAnswer + Send + Sync + 'static) {
        let mut zones = self.shared.zones();
        zones.entry(name.to_owned()).or_default().script = Some(Arc::new(script));
    }

    /// How often IPv4 addresses of a name have been asked for.
    pub fn asked(&self, name: &str) -> usize {
        self.shared.zones().get(name).map_or(0, |zone| zone.asked)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

impl Shared {
    fn zones(&self) -> MutexGuard<'_, HashMap<String, Zone>> {
        // A script that panicked has failed its own test.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, name: &str, kind: u16) -> NameAnswer {
        let mut zones = self.zones();
        let zone = zones.entry(name.to_owned()).or_default();
        zone.asked += usize::from(kind == A);
        let asked = zone.asked;
        let script = zone.script.clone();
        drop(zones);
        match script.map(|script| script(asked.max(1))) {
            None => NameAnswer::NoSuchName,
            // Of other kinds than A there are none.
            Some(NameAnswer::Addresses(_)) if kind != A => NameAnswer::Addresses(Vec::new()),
            Some(NameAnswer::OnlyIpv4(_)) if kind != A => NameAnswer::Silence,
            Some(answer) => answer,
        }
    }
}

async fn answer_all(socket: UdpSocket, shared: Arc<Shared>) {
    let mut packet = [0; 1500];
    while let Ok((length, asker)) = socket.recv_from(&mut packet).await {
        let Some(question) = packet.get(..length).and_then(Question::read) else {
            continue;
        };
        let reply = match shared.answer(&question.name, question.kind) {
            NameAnswer::Silence => continue,
            NameAnswer::NoSuchName => question.reply(3, &[]),
            NameAnswer::Addresses(addresses) | NameAnswer::OnlyIpv4(addresses) => question.reply(0, &addresses),
        };
        // Whoever asked may have given up.
        drop(socket.send_to(&reply, asker).await);
    }
}

/// RFC 1035, 4.1: the header is 12 bytes, then comes the question.
struct Question<'a> {
    id: &'a [u8],
    bytes: &'a [u8],
    name: String,
    kind: u16,
}

impl<'a> Question<'a> {
    fn read(packet: &'a [u8]) -> Option<Self> {
        let id = packet.get(..2)?;
        let after_header = packet.get(12..)?;
        let (mut labels, mut at) = (Vec::new(), 0);
        loop {
            let length = usize::from(*after_header.get(at)?);
            at += 1;
            if length == 0 {
                break;
            }
            let label = after_header.get(at..at + length)?;
            labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
            at += length;
        }
        let kind = u16::from_be_bytes(after_header.get(at..at + 2)?.try_into().ok()?);
        Some(Self {
            id,
            bytes: after_header.get(..at + 4)?,
            name: labels.join("."),
            kind,
        })
    }

    fn reply(&self, code: u8, addresses: &[Ipv4Addr]) -> Vec<u8> {
        let count = u8::try_from(addresses.len()).expect("few addresses");
        let mut reply = self.id.to_vec();
        // A response to a recursive query; one question, so many answers.
        reply.extend([0x81, 0x80 | code, 0, 1, 0, count, 0, 0, 0, 0]);
        reply.extend(self.bytes);
        for address in addresses {
            // The name of the question, A, IN, a time to live of nothing, four bytes.
            reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
            reply.extend(address.octets());
        }
        reply
    }
}
