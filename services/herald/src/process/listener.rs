//! Where the process listens, and why it cannot.

use anyhow::Context;
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::net::TcpListener;

/// How many connections may wait to be accepted; the system has a bound of its own.
const BACKLOG: i32 = 1024;

/// Listens there. `[::]` means every address of both families, whatever the system's default is; on a machine
/// without IPv6 it means those of IPv4.
pub(crate) fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = match listen(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && has_no_ipv6(&error) => {
            tracing::warn!(%error, "this machine has no IPv6; listening on every address of IPv4");
            listen((Ipv4Addr::UNSPECIFIED, address.port()).into())
        }
        bound => bound,
    };
    let hint = hint(&bound);
    bound.with_context(|| format!("cannot listen on {address}{hint}"))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if address.ip() == Ipv6Addr::UNSPECIFIED {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// The first where the system was built or started without it, the second where no interface has it.
fn has_no_ipv6(error: &io::Error) -> bool {
    let number = Errno::from_io_error(error);
    number == Some(Errno::AFNOSUPPORT) || number == Some(Errno::ADDRNOTAVAIL)
}

fn hint(bound: &io::Result<TcpListener>) -> &'static str {
    match bound.as_ref().map_err(io::Error::kind) {
        Err(ErrorKind::AddrInUse) => ", where another process does already; give --listen another port",
        Err(ErrorKind::AddrNotAvailable) => ", which is no address of this machine; [::]:PORT is every one",
        Err(ErrorKind::PermissionDenied) => "; a port below 1024 needs the right to it, another does not",
        _ => "",
    }
}

/// Where a listener can be reached from its own machine: one that takes every address is not at the one that means
/// so. `[::]` takes both families, of which a machine may have one alone.
pub(crate) fn reachable(listen: SocketAddr) -> Vec<SocketAddr> {
    let addresses: Vec<IpAddr> = match listen.ip() {
        IpAddr::V4(address) if address.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into()],
        IpAddr::V6(address) if address.is_unspecified() => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
        address => vec![address],
    };
    let at_port = |address| SocketAddr::new(address, listen.port());
    addresses.into_iter().map(at_port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpStream;

    #[test]
    fn a_listener_on_every_address_is_asked_at_loopback() {
        for (listen, asked) in [
            ("0.0.0.0:8080", vec!["127.0.0.1:8080"]),
            ("[::]:8080", vec!["127.0.0.1:8080", "[::1]:8080"]),
            ("10.1.2.3:80", vec!["10.1.2.3:80"]),
        ] {
            let asked: Vec<SocketAddr> = asked.iter().map(|address| address.parse().unwrap()).collect();
            assert_eq!(reachable(listen.parse().unwrap()), asked);
        }
    }

    #[tokio::test]
    async fn every_address_is_those_of_both_families() {
        let listener = bind("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        // Where the machine has IPv6 at all.
        if Socket::new(Domain::IPV6, Type::STREAM, None).is_ok() && listener.local_addr().unwrap().is_ipv6() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_cannot_be_is_told_with_the_way_out() {
        let told = |address: SocketAddr| format!("{:#}", bind(address).unwrap_err());
        let taken = bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = taken.local_addr().unwrap();
        let error = told(address);
        assert!(
            error.contains(&address.to_string()) && error.contains("another port"),
            "{error}"
        );
        let error = told("192.0.2.1:18700".parse().unwrap());
        assert!(error.contains("no address of this machine"), "{error}");
    }
}
