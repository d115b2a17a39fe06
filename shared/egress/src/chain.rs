//! Errors that wrap one another.

use hickory_resolver::net::NetError;
use std::error::Error;
use std::io;

/// The error that one wraps. An `io::Error` hides it, its source is that one's source; an `h2::Error` and a
/// look-up's have no source at all.
pub(super) fn within<'a>(cause: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    if let Some(wrapped) = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        return Some(wrapped);
    }
    if let Some(io) = cause.downcast_ref::<h2::Error>().and_then(h2::Error::get_io) {
        return Some(io);
    }
    if let Some(NetError::Io(io)) = cause.downcast_ref::<NetError>() {
        return Some(&**io);
    }
    cause.source()
}
