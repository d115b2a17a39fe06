//! What a receiver can do with a request: answer it, well or badly, or not.

use super::{Busy, Wire};
use std::fmt::Write as _;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

/// How long a dripping receiver waits after each byte.
const DRIP: Duration = Duration::from_millis(50);

/// One answer; made by a script for each request.
#[derive(Debug, Clone)]
pub struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    declared_length: Option<usize>,
    delay: Duration,
    gate: Option<Gate>,
    pub(super) manner: Manner,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    AtOnce,
    DripHead,
    DripBody,
    Hang,
    Freeze,
    Reset,
    Refuse,
    WantHttp1,
    Close,
    EndlessHeaders,
    EndlessInterim,
    EndlessBody,
}

/// What becomes of the connection.
pub(super) enum After {
    NextRequest,
    Close,
    Reset,
    Freeze,
}

impl Answer {
    /// 200 without a body.
    pub fn ok() -> Self {
        Self::status(200)
    }

    /// Any status, without a body.
    pub fn status(status: u16) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: Vec::new(),
            declared_length: None,
            delay: Duration::ZERO,
            gate: None,
            manner: Manner::AtOnce,
        }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives the answer a body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// With a `Content-Length` that need not be true; the connection is closed after the body.
    #[must_use]
    pub fn declaring(mut self, length: usize) -> Self {
        self.declared_length = Some(length);
        self
    }

    /// Gives the answer only after that time.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Once the gate is open.
    #[must_use]
    pub fn behind(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.clone());
        self
    }

    /// Status line and headers byte by byte, so slowly that no deadline is kept.
    #[must_use]
    pub fn dripping(self) -> Self {
        Self {
            manner: Manner::DripHead,
            ..self
        }
    }

    /// The head at once, the body byte by byte.
    #[must_use]
    pub fn dripping_body(self) -> Self {
        Self {
            manner: Manner::DripBody,
            ..self
        }
    }

    /// No answer, and the connection stays open until the other side has enough.
    pub fn hang() -> Self {
        Self {
            manner: Manner::Hang,
            ..Self::ok()
        }
    }

    /// No answer but a TCP reset.
    pub fn reset() -> Self {
        Self {
            manner: Manner::Reset,
            ..Self::ok()
        }
    }

    /// No answer but an orderly close.
    pub fn close() -> Self {
        Self {
            manner: Manner::Close,
            ..Self::ok()
        }
    }

    /// The connection stays open, and nothing is read or written any more, pings of HTTP/2 included.
    pub fn freeze() -> Self {
        Self {
            manner: Manner::Freeze,
            ..Self::ok()
        }
    }

    /// Over HTTP/2, that nothing was done with the request; else a reset.
    pub fn refuse() -> Self {
        Self {
            manner: Manner::Refuse,
            ..Self::ok()
        }
    }

    /// Over HTTP/2, that HTTP/1.1 is wanted; else 200.
    pub fn want_http1() -> Self {
        Self {
            manner: Manner::WantHttp1,
            ..Self::ok()
        }
    }

    /// 200, and then headers without end; over HTTP/2 a great many.
    pub fn endless_headers() -> Self {
        Self {
            manner: Manner::EndlessHeaders,
            ..Self::ok()
        }
    }

    /// Interim answers (103 Early Hints) without end.
    pub fn endless_interim() -> Self {
        Self {
            manner: Manner::EndlessInterim,
            ..Self::ok()
        }
    }

    /// That status, and then a body without end.
    pub fn endless_body(status: u16) -> Self {
        Self {
            manner: Manner::EndlessBody,
            ..Self::status(status)
        }
    }

    /// Gives the answer. `busy` ends before the first byte that could let the other side think that
    /// the request is over, so that a count of requests in flight is never too high.
    pub(super) async fn give(self, wire: &mut impl Wire, busy: Busy) -> io::Result<After> {
        self.until_due().await;
        match self.manner {
            Manner::Freeze => Ok(After::Freeze),
            Manner::Hang => {
                // Ends when the other side closes; what it might still send is passed over.
                let mut ignored = [0; 1024];
                while wire.read(&mut ignored).await? > 0 {}
                drop(busy);
                Ok(After::Close)
            }
            Manner::Reset | Manner::Refuse => Ok(After::Reset),
            Manner::Close => Ok(After::Close),
            Manner::EndlessHeaders => {
                wire.write_all(b"HTTP/1.1 200 OK\r\n").await?;
                loop {
                    wire.write_all(b"x-filling: 0123456789012345678901234567890123456789\r\n")
                        .await?;
                }
            }
            Manner::EndlessInterim => loop {
                wire.write_all(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n")
                    .await?;
                wire.flush().await?;
            },
            Manner::EndlessBody => {
                let head = format!(
                    "HTTP/1.1 {} Scripted\r\ntransfer-encoding: chunked\r\n\r\n",
                    self.status
                );
                wire.write_all(head.as_bytes()).await?;
                loop {
                    wire.write_all(b"10\r\n0123456789abcdef\r\n").await?;
                }
            }
            Manner::AtOnce | Manner::WantHttp1 | Manner::DripHead | Manner::DripBody => self.respond(wire, busy).await,
        }
    }

    /// Waits until it is time for the answer.
    pub(super) async fn until_due(&self) {
        if let Some(gate) = &self.gate {
            gate.passed().await;
        }
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
    }

    async fn respond(self, wire: &mut impl Wire, busy: Busy) -> io::Result<After> {
        let head = self.head();
        if matches!(self.manner, Manner::AtOnce | Manner::WantHttp1) {
            drop(busy);
            // One write for all: a head alone would wait for the other side's delayed acknowledgement.
            let whole = [head.as_bytes(), &self.body].concat();
            wire.write_all(&whole).await?;
        } else {
            let drips_head = self.manner == Manner::DripHead;
            write(wire, head.as_bytes(), drips_head).await?;
            write(wire, &self.body, true).await?;
        }
        wire.flush().await?;
        let lies = self.declared_length.is_some_and(|declared| declared != self.body.len());
        Ok(if lies { After::Close } else { After::NextRequest })
    }

    fn head(&self) -> String {
        let length = self.declared_length.unwrap_or(self.body.len());
        let mut head = format!("HTTP/1.1 {} Scripted\r\ncontent-length: {length}\r\n", self.status);
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").expect("writing to a String cannot fail");
        }
        head.push_str("\r\n");
        head
    }
}

async fn write(wire: &mut impl Wire, bytes: &[u8], dripping: bool) -> io::Result<()> {
    if !dripping {
        return wire.write_all(bytes).await;
    }
    for byte in bytes.chunks(1) {
        wire.write_all(byte).await?;
        wire.flush().await?;
        tokio::time::sleep(DRIP).await;
    }
    Ok(())
}

/// A gate that a test opens when it has seen what it wanted to see before the answers go out.
#[derive(Debug, Clone)]
pub struct Gate(watch::Sender<bool>);

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Gate {
    /// Lets everybody through from now on.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        // The sender is `self`, so it cannot be gone.
        drop(self.0.subscribe().wait_for(|open| *open).await);
    }
}
