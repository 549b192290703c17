//! A TCP proxy that does what networks do: connections are cut, delayed, or swallow all that is sent. It keeps its own port
//! whatever stands behind it.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// The most that is read before it is passed on.
const CHUNK: usize = 64 << 10;

/// Passes connections on to a port of this machine.
pub struct Proxy {
    /// Where it listens.
    pub port: u16,
    weather: watch::Sender<Weather>,
    /// Ends when this is dropped.
    _accepting: JoinSet<()>,
}

/// What becomes of connections; they have numbers, in the order in which they were made.
#[derive(Debug, Clone, Copy)]
struct Weather {
    target: u16,
    /// The number of the next connection.
    next: u64,
    /// Those with a lower number are cut.
    cut: u64,
    /// Those with a lower number stand, and nothing passes.
    held: u64,
    /// What is sent to the server does not pass.
    requests_held: bool,
    /// What the server sends does not pass.
    answers_held: bool,
    delay: Duration,
}

/// A direction.
#[derive(Debug, Clone, Copy)]
enum Way {
    Request,
    Answer,
}

impl Weather {
    fn passes(&self, number: u64, way: Way) -> bool {
        let held = match way {
            Way::Request => self.requests_held,
            Way::Answer => self.answers_held,
        };
        self.held <= number && !held
    }
}

impl Proxy {
    /// To this port.
    ///
    /// # Panics
    /// Where it cannot listen.
    pub async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let weather = watch::Sender::new(Weather {
            target,
            next: 0,
            cut: 0,
            held: 0,
            requests_held: false,
            answers_held: false,
            delay: Duration::ZERO,
        });
        let changing = weather.clone();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let mut number = 0;
                changing.send_modify(|weather| {
                    number = weather.next;
                    weather.next += 1;
                });
                connections.spawn(pass(near, number, changing.subscribe()));
                // Those that ended are taken out.
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, weather, _accepting: accepting }
    }

    /// Cuts every connection that stands now; new ones pass.
    pub fn cut(&self) {
        self.weather.send_modify(|weather| weather.cut = weather.next);
    }

    /// New connections go to this port.
    pub fn lead_to(&self, target: u16) {
        self.weather.send_modify(|weather| weather.target = target);
    }

    /// Whatever is passed on from now on takes so long.
    pub fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// A black hole: connections stand and are taken, and nothing comes through, not even their end.
    pub fn hold(&self) {
        self.weather.send_modify(|weather| weather.held = u64::MAX);
    }

    /// A black hole for the connections that stand now; new ones pass.
    pub fn hold_standing(&self) {
        self.weather.send_modify(|weather| weather.held = weather.next);
    }

    /// Holds back what is sent to the server from now on, or lets it pass.
    pub fn hold_requests(&self, hold: bool) {
        self.weather.send_modify(|weather| weather.requests_held = hold);
    }

    /// Holds back what the server sends from now on, or lets it pass.
    pub fn hold_answers(&self, hold: bool) {
        self.weather.send_modify(|weather| weather.answers_held = hold);
    }

    /// What was held comes through.
    pub fn release(&self) {
        self.weather.send_modify(|weather| weather.held = 0);
    }
}

async fn pass(near: TcpStream, number: u64, weather: watch::Receiver<Weather>) {
    let mut cut = weather.clone();
    let passing = async {
        let target = {
            let mut weather = weather.clone();
            let Ok(weather) = weather.wait_for(|weather| weather.held <= number).await else { return };
            weather.target
        };
        let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
        let _ = (near.set_nodelay(true), far.set_nodelay(true));
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        // Where one way has failed the other is of no use; where one has ended, the other goes on.
        let _ = tokio::try_join!(
            one_way(near_in, far_out, Way::Request, number, weather.clone()),
            one_way(far_in, near_out, Way::Answer, number, weather.clone())
        );
    };
    tokio::select! {
        // What was held when it is cut does not pass.
        biased;
        _ = cut.wait_for(|weather| weather.cut > number) => {}
        () = passing => {}
    }
}

async fn one_way(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    way: Way,
    number: u64,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let count = from.read(&mut chunk).await?;
        let delay = match weather.wait_for(|weather| weather.passes(number, way)).await {
            Ok(weather) => weather.delay,
            Err(_) => return Ok(()),
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&chunk[..count]).await?;
    }
}
