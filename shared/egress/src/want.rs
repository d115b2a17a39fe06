//! What this process or its machine is short of: descriptors, ports, memory for sockets. No receiver has failed
//! by that, and no attempt is counted.

use std::error::Error;
use std::io;
use std::net::{SocketAddr, UdpSocket};

const EADDRNOTAVAIL: i32 = rustix::io::Errno::ADDRNOTAVAIL.raw_os_error();

/// No port is left for a connection to that address.
#[derive(Debug, thiserror::Error)]
#[error("no local port is left for a connection there")]
struct NoPort;

/// Whether an error, or one that it wraps, is such a want.
pub(crate) fn is(error: &io::Error) -> bool {
    use rustix::io::Errno;
    const WANTS: [i32; 4] = [
        Errno::MFILE.raw_os_error(),
        Errno::NFILE.raw_os_error(),
        Errno::NOBUFS.raw_os_error(),
        Errno::NOMEM.raw_os_error(),
    ];
    error.raw_os_error().is_some_and(|code| WANTS.contains(&code))
        || error.get_ref().is_some_and(<dyn Error + Send + Sync>::is::<NoPort>)
}

/// Whether such a want is among an error's causes.
pub(crate) fn is_cause_of(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(cause) = next {
        if cause.downcast_ref::<io::Error>().is_some_and(is) {
            return true;
        }
        next = super::chain::within(cause);
    }
    false
}

/// Tells whether it is ports that a failed connection lacked. The system has the same error for a machine that
/// has no address of the receiver's family, which is no want that passes; it fails a datagram socket too, which
/// needs no port of TCP.
pub(super) fn of_ports(error: io::Error, address: SocketAddr) -> io::Error {
    if error.raw_os_error() != Some(EADDRNOTAVAIL) {
        return error;
    }
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let could_be_reached = UdpSocket::bind(any).and_then(|socket| socket.connect(address));
    match could_be_reached {
        Ok(()) => io::Error::new(io::ErrorKind::AddrNotAvailable, NoPort),
        Err(_) => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_side_lacks_is_a_want() {
        for code in [24, 23, 105, 12] {
            assert!(is(&io::Error::from_raw_os_error(code)), "{code}");
        }
        assert!(!is(&io::Error::from_raw_os_error(EADDRNOTAVAIL)));
        assert!(!is(&io::ErrorKind::ConnectionRefused.into()));
    }

    #[test]
    fn an_address_that_could_be_reached_lacked_a_port() {
        let error = |address: &str| of_ports(io::Error::from_raw_os_error(EADDRNOTAVAIL), address.parse().unwrap());
        assert!(is(&error("127.0.0.1:80")));
        assert!(!is(&of_ports(
            io::ErrorKind::ConnectionRefused.into(),
            "127.0.0.1:80".parse().unwrap()
        )));
    }
}
