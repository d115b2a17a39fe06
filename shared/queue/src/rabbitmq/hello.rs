//! Which version the server is: it says so in its greeting, which the client reads and keeps to itself.

use futures_util::{AsyncReadExt, AsyncWriteExt};
use lapin::protocol::{AMQPClass, connection, parse_class};
use lapin::tcp::{AMQPUriTcpExt, OwnedTLSConfig};
use lapin::types::AMQPValue;
use lapin::uri::AMQPUri;
use std::io;

const HEADER: [u8; 8] = *b"AMQP\0\0\x09\x01";
const FRAME_HEADER: usize = 7;
/// A greeting has some hundred bytes.
const MAX_GREETING: usize = 64 * 1024;

/// The server's major version, if it is a RabbitMQ that says one.
pub(super) async fn major_version(uri: &AMQPUri, tls: &OwnedTLSConfig) -> io::Result<Option<u32>> {
    let runtime = lapin::runtime::default_runtime().map_err(io::Error::other)?;
    let mut stream = uri.connect_with_config_async(tls.as_ref(), &runtime).await?;
    stream.write_all(&HEADER).await?;
    stream.flush().await?;
    let mut frame = [0; FRAME_HEADER];
    stream.read_exact(&mut frame).await?;
    let [.., a, b, c, d] = frame;
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length > MAX_GREETING {
        return Err(io::Error::other("the server does not speak AMQP 0-9-1"));
    }
    let mut greeting = vec![0; length];
    stream.read_exact(&mut greeting).await?;
    Ok(read(&greeting))
}

fn read(greeting: &[u8]) -> Option<u32> {
    let Ok((_, AMQPClass::Connection(connection::AMQPMethod::Start(start)))) = parse_class(greeting) else {
        return None;
    };
    let AMQPValue::LongString(version) = start.server_properties.inner().get("version")? else {
        return None;
    };
    major(std::str::from_utf8(version.as_bytes()).ok()?)
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_begins_with_its_major_one() {
        assert_eq!(major("3.10.8"), Some(3));
        assert_eq!(major("4.1.0-rc.1"), Some(4));
        assert_eq!(major("tulip"), None);
        assert_eq!(read(b"nonsense"), None);
    }
}
