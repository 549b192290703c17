//! The thread that commands are worked on, since it runs guests: one machine's commands one after another, many machines' at once.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::attempt::Bench;
use super::lease::Held;
use super::settle::Told;
use super::take::{Taken, UnderWay};
use crate::live::Current;
use crate::mqtt::publish::Publisher;
use crate::recent::Recent;
use crate::thread::Thread;

/// The thread that works commands.
pub struct Worker(Thread);

/// What a command is worked with.
#[derive(Clone)]
pub struct Tools {
    /// The validator and the topic.
    pub current: Current,
    /// Where commands are noted for builds to come.
    pub recent: Arc<Recent>,
    /// To the broker.
    pub publisher: Publisher,
    /// To the settling.
    pub told: mpsc::Sender<Told>,
    /// The lease.
    pub held: Arc<Held>,
    /// What is under way.
    pub under_way: Arc<UnderWay>,
    /// The gateway ends: what is not sent yet is left where it stands.
    pub stop: CancellationToken,
}

impl Worker {
    /// Starts the thread; it ends when every sender of `taken` is gone and what was taken is settled, or at `abandon`: what
    /// is not settled then stands in the processing list.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn spawn(taken: mpsc::Receiver<Taken>, tools: Tools, abandon: CancellationToken) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let thread = Thread::spawn("commands", move || {
            runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = abandon.cancelled() => {}
                    () = run(taken, tools) => {}
                }
            });
        })?;
        Ok(Self(thread))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// What it said when it panicked.
    pub async fn join(self) -> Result<(), String> {
        self.0.join().await
    }
}

enum Event {
    /// A command was taken.
    Came(Box<Taken>),
    /// No more are taken.
    NoMore,
    /// The command of this machine that was under way is done, or left.
    Done(String),
}

async fn run(mut taken: mpsc::Receiver<Taken>, tools: Tools) {
    let bench = Rc::new(Bench::new(tools));
    let mut under_way = FuturesUnordered::new();
    let mut number = 0;
    let mut open = true;
    loop {
        let event = tokio::select! {
            // As in a lane of messages: what is taken comes right after a validator that ran for a whole tick, before that one goes on.
            biased;
            Some(target) = under_way.next() => Event::Done(target),
            next = taken.recv(), if open => next.map_or(Event::NoMore, |taken| Event::Came(Box::new(taken))),
            else => return,
        };
        let next = match event {
            Event::NoMore => {
                open = false;
                None
            }
            Event::Done(target) => bench.machines().leave(&target),
            Event::Came(taken) => {
                bench.serve_what_is_live(&mut number);
                bench.machines().enter(*taken)
            }
        };
        under_way.extend(next.map(|taken| bench.clone().work(taken)));
    }
}
