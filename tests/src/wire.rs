//! MQTT 3.1.1 as a machine speaks it: a few packets, by hand, so that what is sent again is known to the last packet and the
//! gateway's own library is not its only witness.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What the broker sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// The session is there.
    Connected,
    /// A publish of this machine is the broker's now.
    Acknowledged(u16),
    /// A subscription stands.
    Subscribed,
    /// A publish to this machine: its packet identifier where it wants an acknowledgement, and its payload.
    Publish(Option<u16>, Vec<u8>),
    /// Anything else.
    Other,
}

/// A connection to the broker.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    unread: Vec<u8>,
    unsent: Vec<u8>,
}

impl Wire {
    /// Connects with a session that the broker keeps.
    pub(crate) async fn connect(port: u16, client: &str) -> io::Result<Self> {
        Self::begin(TcpStream::connect(("127.0.0.1", port)).await?, client, 0, None).await
    }

    /// Connects as a machine, whose user name is its client id, with its token or none; nothing is kept of the session.
    pub(crate) async fn login(address: &str, machine: &str, token: Option<&str>) -> io::Result<Self> {
        Self::begin(TcpStream::connect(address).await?, machine, 0x02, token).await
    }

    async fn begin(stream: TcpStream, client: &str, mut flags: u8, token: Option<&str>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let mut wire = Self { stream, unread: Vec::new(), unsent: Vec::new() };
        if token.is_some() {
            flags |= 0xc0;
        }
        // Protocol level 4, flags (clean session, user name and password), no keep-alive [MQTT 3.1.1, 3.1].
        let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, flags, 0, 0];
        put_text(&mut body, client);
        if let Some(token) = token {
            put_text(&mut body, client);
            put_text(&mut body, token);
        }
        wire.send(0x10, &body).await?;
        match wire.next().await? {
            Packet::Connected => Ok(wire),
            packet => Err(io::Error::other(format!("not connected: {packet:?}"))),
        }
    }

    /// Publishes at QoS 1; `again` sets the DUP flag.
    pub(crate) async fn publish(&mut self, id: u16, topic: &str, payload: &[u8], again: bool) -> io::Result<()> {
        self.queue(id, topic, payload, again);
        self.flush().await
    }

    /// As [`Self::publish`], with the next [`Self::flush`].
    pub(crate) fn queue(&mut self, id: u16, topic: &str, payload: &[u8], again: bool) {
        self.head(0x32 | (u8::from(again) << 3), topic.len() + payload.len() + 4);
        put_text(&mut self.unsent, topic);
        self.unsent.extend(id.to_be_bytes());
        self.unsent.extend(payload);
    }

    /// Sends what is queued.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.unsent).await?;
        self.unsent.clear();
        Ok(())
    }

    /// Subscribes at QoS 1.
    pub(crate) async fn subscribe(&mut self, filter: &str) -> io::Result<()> {
        let mut body = vec![0, 1];
        put_text(&mut body, filter);
        body.push(1);
        self.send(0x82, &body).await
    }

    /// Takes the responsibility for a publish.
    pub(crate) async fn acknowledge(&mut self, id: u16) -> io::Result<()> {
        self.send(0x40, &id.to_be_bytes()).await
    }

    async fn send(&mut self, head: u8, body: &[u8]) -> io::Result<()> {
        self.head(head, body.len());
        self.unsent.extend(body);
        self.flush().await
    }

    /// A packet's first byte and its remaining length [MQTT 3.1.1, 2.2.3].
    fn head(&mut self, head: u8, mut rest: usize) {
        self.unsent.push(head);
        loop {
            let more = if rest > 127 { 0x80 } else { 0 };
            self.unsent.push((rest % 128) as u8 | more);
            rest /= 128;
            if rest == 0 {
                break;
            }
        }
    }

    /// The next packet.
    ///
    /// # Cancel safety
    /// Dropped, nothing that was read is lost.
    pub(crate) async fn next(&mut self) -> io::Result<Packet> {
        loop {
            if let Some((head, body, end)) = split(&self.unread) {
                let packet = read(head, body);
                self.unread.drain(..end);
                return packet;
            }
            if self.stream.read_buf(&mut self.unread).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend(text.as_bytes());
}

/// The first packet, where it is whole: its first byte, what it carries, and where it ends.
fn split(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let (mut length, mut at) = (0_usize, 1);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some((bytes[0], bytes.get(at..at + length)?, at + length))
}

fn read(head: u8, body: &[u8]) -> io::Result<Packet> {
    let short = || io::Error::other("a short packet");
    let number = |at: usize| -> io::Result<u16> {
        Ok(u16::from_be_bytes(body.get(at..at + 2).ok_or_else(short)?.try_into().map_err(io::Error::other)?))
    };
    Ok(match head >> 4 {
        2 => match body {
            [_, 0] => Packet::Connected,
            _ => return Err(io::Error::other("the broker refuses the connection")),
        },
        4 => Packet::Acknowledged(number(0)?),
        9 => Packet::Subscribed,
        3 => {
            let topic_end = 2 + usize::from(number(0)?);
            let id = if head & 0x06 == 0 { None } else { Some(number(topic_end)?) };
            let payload = topic_end + if id.is_some() { 2 } else { 0 };
            Packet::Publish(id, body.get(payload..).ok_or_else(short)?.to_vec())
        }
        _ => Packet::Other,
    })
}
