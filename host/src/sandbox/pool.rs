//! The warm instances of one lane: an instance lives for many calls, since a fresh one costs ten times a call. How many there may be
//! of a build is counted over all lanes (`Generation::places`); who finds no place waits for one, or for an instance of its lane that is done:
//! busy is no failure.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluicegate_core::fault::Fault;
use sluicegate_core::message::{Failure, GuestCommand, Message, Output};
use sluicegate_core::state::Committed;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::generation::Generation;
use super::instance::Instance;
use super::share::of_this_thread;
use super::state::{RUNS, Session};

/// How many instances of a build are kept while they are idle: they hold places of the engine, which other plugins may need. More than
/// one is only used at once where guests take longer than a tick.
const MAX_IDLE: usize = 2;

/// Instances in a row that a lane hands to those of its own that wait. Then a place goes to whoever waits for longest, in whatever lane.
const HANDED_ON: u32 = 64;

/// Runs after which a call ends that would keep more keys than it may.
const FULL_RUNS: u32 = 8;

/// Before a call is run again for the fourth time and more, so that somebody comes first.
const AGAIN: Duration = Duration::from_millis(1);

/// Whether a call's answer counts.
#[derive(PartialEq)]
enum Concluded {
    Stands,
    /// The call is to be run again.
    Again,
}

struct Warm {
    idle: Vec<Instance>,
    /// Calls that found neither an instance nor a place. Were each to wait for a place alone, it would start an instance while warm ones are thrown
    /// away, and be the slower for it, so that more would wait.
    waiting: VecDeque<oneshot::Sender<Instance>>,
    /// Instances in a row that were handed to those.
    handed_on: u32,
    generation: Arc<Generation>,
}

impl Warm {
    fn none_of(generation: &Arc<Generation>) -> Self {
        Self { idle: Vec::new(), waiting: VecDeque::new(), handed_on: 0, generation: generation.clone() }
    }

    /// One more waits.
    fn wait(&mut self) -> oneshot::Receiver<Instance> {
        // Those that had a place meanwhile.
        while self.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            self.waiting.pop_front();
        }
        let (giver, handed) = oneshot::channel();
        self.waiting.push_back(giver);
        handed
    }

    /// Hands an instance to who waits for longest; gives it back where nobody does, or it is others' turn.
    fn hand_on(&mut self, mut instance: Instance) -> Option<Instance> {
        if self.handed_on < HANDED_ON {
            while let Some(giver) = self.waiting.pop_front() {
                match giver.send(instance) {
                    Ok(()) => {
                        self.handed_on += 1;
                        return None;
                    }
                    Err(unwanted) => instance = unwanted,
                }
            }
        }
        self.handed_on = 0;
        Some(instance)
    }
}

/// The warm instances of one lane. One lane owns it: no lock.
#[derive(Default)]
pub struct Pool {
    warm: RefCell<HashMap<u64, Warm>>,
    /// Its calls are no messages: they are not counted as such, and there is nothing behind what a build was granted.
    uncounted: bool,
}

impl Pool {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty one, for trying: its calls are not counted, and reach nobody.
    #[must_use]
    pub fn uncounted() -> Self {
        Self { uncounted: true, ..Self::default() }
    }

    /// Whether its calls are the messages' own: for metrics, usage, breakers, and how well a build does.
    #[must_use]
    pub fn counts(&self) -> bool {
        !self.uncounted
    }

    /// Hands a message to a handler.
    ///
    /// # Errors
    /// [`Fault`], where the call gave no answer.
    ///
    /// # Cancel safety
    /// Dropped, the instance goes with the call.
    pub async fn handle(
        &self,
        generation: &Arc<Generation>,
        message: &Message,
    ) -> Result<Result<Vec<Output>, Failure>, Fault> {
        self.handle_if(generation, message, &Cell::new(false), |_| true).await
    }

    /// Hands a message to a handler; what it writes to its state counts where `good` says that its answer does. `kept` becomes true when that
    /// is written, and false again where nothing was.
    ///
    /// # Errors
    /// [`Fault`], where the call gave no answer.
    ///
    /// # Cancel safety
    /// Dropped, the instance goes with the call; while `kept` is true, what it would write may be written.
    pub fn handle_if<'a>(
        &'a self,
        generation: &'a Arc<Generation>,
        message: &'a Message,
        kept: &'a Cell<bool>,
        mut good: impl FnMut(&[Output]) -> bool + 'a,
    ) -> impl Future<Output = Result<Result<Vec<Output>, Failure>, Fault>> + 'a {
        let good = move |outputs: &Vec<Output>| good(outputs);
        self.run(generation, kept, good, async move |one, again| one.handle(message, again).await)
    }

    /// Hands a command to a validator.
    ///
    /// # Errors
    /// [`Fault`], where the call gave no answer.
    ///
    /// # Cancel safety
    /// Dropped, the instance goes with the call.
    pub async fn validate(
        &self,
        generation: &Arc<Generation>,
        command: &GuestCommand,
    ) -> Result<Result<Bytes, Failure>, Fault> {
        let kept = Cell::new(false);
        self.run(generation, &kept, |_| true, async move |one, again| one.validate(command, again).await).await
    }

    /// Calls until what the call keeps is written, or is nothing; see [`Self::handle_if`].
    async fn run<T>(
        &self,
        generation: &Arc<Generation>,
        kept: &Cell<bool>,
        mut good: impl FnMut(&T) -> bool,
        work: impl AsyncFn(&mut Instance, bool) -> Result<Result<T, Failure>, Fault>,
    ) -> Result<Result<T, Failure>, Fault> {
        let mut runs = 0;
        loop {
            let again = runs > 0;
            let mut session = None;
            let (answer, took) = self.call(generation, &mut session, async |one| work(one, again).await).await;
            if self.counts() && !matches!(&answer, Err(fault) if fault.is_nobodys()) {
                generation.did(!matches!(answer, Ok(Ok(_))), took);
            }
            let counts = matches!(&answer, Ok(Ok(answer)) if good(answer));
            let writes = |session: &Session| counts && self.counts() && session.writes();
            let Some(session) = session.filter(writes) else { return answer };
            let before = kept.replace(true);
            let concluded = conclude(generation, session, &mut runs).await;
            if !matches!(concluded, Ok(Concluded::Stands)) {
                kept.set(before);
            }
            if concluded? == Concluded::Stands {
                return answer;
            }
        }
    }

    /// The answer, and how long the call took.
    async fn call<T>(
        &self,
        generation: &Arc<Generation>,
        session: &mut Option<Session>,
        work: impl AsyncFnOnce(&mut Instance) -> Result<Result<T, Failure>, Fault>,
    ) -> (Result<Result<T, Failure>, Fault>, Duration) {
        if self.counts() {
            // Before anything is taken: who waits for its share holds neither a place nor the lane.
            generation.share.wait().await;
        }
        let mut began = Instant::now();
        let answer = {
            let called = pin!(async {
                // Taken out for the call: dropped or failed, it does not come back.
                let mut instance = self.take(generation, &mut began).await?;
                let answer = work(&mut instance).await;
                *session = instance.take_session();
                let answer = answer?;
                self.put(generation, instance);
                Ok(answer)
            });
            if self.counts() { busy(generation, called).await } else { called.await }
        };
        let took = began.elapsed();
        let answer = unless_away(answer, session.as_mut());
        if self.counts() {
            count(generation, took, &answer);
        }
        (answer, took)
    }

    /// Drops the warm instances of builds that are not kept.
    pub fn retain(&self, keep: impl Fn(&Generation) -> bool) {
        self.warm.borrow_mut().retain(|_, warm| keep(&warm.generation));
    }

    /// `began` becomes when an instance or a place was had: waiting for it is no part of the call.
    async fn take(&self, generation: &Arc<Generation>, began: &mut Instant) -> Result<Instance, Fault> {
        let place = {
            let mut all = self.warm.borrow_mut();
            let warm = all.entry(generation.id).or_insert_with(|| Warm::none_of(generation));
            match warm.idle.pop() {
                Some(instance) => return Ok(instance),
                None => generation.free_place(self.uncounted).ok_or_else(|| warm.wait()),
            }
        };
        let place = match place {
            Ok(place) => place,
            Err(handed) => tokio::select! {
                biased;
                Ok(instance) = handed => {
                    *began = Instant::now();
                    return Ok(instance);
                }
                place = generation.place(self.uncounted) => place,
            },
        };
        *began = Instant::now();
        let state = match &generation.state {
            Some(access) if self.uncounted => Some(access.in_shadow()),
            access => access.clone(),
        };
        Instance::start(generation, generation.settings.clone(), state, place, self.uncounted).await
    }

    fn put(&self, generation: &Generation, instance: Instance) {
        let mut all = self.warm.borrow_mut();
        // A message that began on it came late: nothing is left warm behind it.
        if generation.is_retired() {
            all.remove(&generation.id);
        } else if let Some(warm) = all.get_mut(&generation.id)
            && instance.calls < generation.limits.calls
            && let Some(instance) = warm.hand_on(instance)
            && warm.idle.len() < MAX_IDLE
            // The last place goes round: kept idle in a quiet lane, it would be lost to the others.
            && (self.uncounted || generation.places.available_permits() > 0)
        {
            warm.idle.push(instance);
        }
    }

    #[cfg(test)]
    pub(super) fn builds(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.warm.borrow().values().map(|warm| warm.generation.number()).collect();
        numbers.sort_unstable();
        numbers
    }
}

/// Counts the time of the processor that it takes, each time it is its turn: what it waits for is not its work, nor is another thread's.
///
/// The work stands where the caller has it: by value, each layer of a call would hold all within it twice, and copy it.
async fn busy<F: Future>(generation: &Generation, mut work: Pin<&mut F>) -> F::Output {
    poll_fn(|context| {
        let before = of_this_thread();
        let polled = work.as_mut().poll(context);
        generation.busy(of_this_thread().saturating_sub(before));
        polled
    })
    .await
}

/// Makes what a call that succeeded would write to its plugin's state. What is tried in shadow never comes here.
async fn conclude(generation: &Generation, session: Session, runs: &mut u32) -> Result<Concluded, Fault> {
    let reason = match session.commit().await {
        Ok(Committed::Done) => return Ok(Concluded::Stands),
        // Run again it is told so, and may do without the key. It does not.
        Ok(Committed::Full) if *runs >= FULL_RUNS => {
            generation.metrics.fault(Fault::TooManyKeys.kind());
            return Err(Fault::TooManyKeys);
        }
        Ok(Committed::Changed | Committed::Full) if *runs < RUNS => {
            *runs += 1;
            generation.metrics.state_rerun();
            // Where other gateways are at the same keys, whoever is slower would always come too late.
            sleep(AGAIN * (*runs / 4)).await;
            return Ok(Concluded::Again);
        }
        Ok(_) => format!("others changed what it had read, {RUNS} times"),
        Err(reason) => reason,
    };
    let fault = Fault::State(reason);
    generation.metrics.fault(fault.kind());
    Err(fault)
}

/// A call that could not have its state and did not succeed: it is neither the message that is wrong nor the plugin.
fn unless_away<T>(
    answer: Result<Result<T, Failure>, Fault>,
    session: Option<&mut Session>,
) -> Result<Result<T, Failure>, Fault> {
    match (answer, session.and_then(|session| session.away.take())) {
        (Ok(Err(Failure::Retry(_))) | Err(_), Some(reason)) => Err(Fault::State(reason)),
        (answer, _) => answer,
    }
}

fn count<T>(generation: &Generation, took: Duration, answer: &Result<T, Fault>) {
    // What Redis does not answer is no fault of the plugin's; the metric has it by its kind.
    generation.usage().called(matches!(answer, Err(fault) if !fault.is_nobodys()));
    generation.metrics.called(took);
    if let Err(fault) = answer {
        generation.metrics.fault(fault.kind());
    }
}
