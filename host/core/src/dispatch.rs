//! When commands are taken from their list, and when one is sent: the decisions that keep each machine's commands in order, whatever
//! happens to the lease, the connections and the process.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::lease::{Standing, Tenure};

/// How often the processing list is looked at for what nobody is at work on: a move whose answer was lost, or one that Redis
/// finished after its connection was gone.
const LOOK: Duration = Duration::from_secs(7);

/// What the taking does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait until nothing is under way any more.
    LetGo,
    /// Look at the processing list for what nobody is at work on.
    Look,
    /// Move commands into it.
    Pop,
}

/// What the taking remembers: when it looked last, and in which tenure.
///
/// Invariant: what was taken in a tenure that is over is let go before anything is taken in the next one. What stands in the processing
/// list is then read from its head, so nothing passes what came before it.
#[derive(Debug, Default)]
pub struct Taking {
    looked: Option<(Tenure, Duration)>,
}

impl Taking {
    /// What to do in this tenure; `idle`: nothing is under way.
    #[must_use]
    pub fn next(&self, tenure: Tenure, now: Duration, connected: bool, idle: bool) -> Next {
        match self.looked {
            Some((looked, at)) if looked == tenure => {
                if connected && now < at + LOOK {
                    Next::Pop
                } else {
                    Next::Look
                }
            }
            _ if idle => Next::Look,
            _ => Next::LetGo,
        }
    }

    /// It was looked at.
    pub fn looked(&mut self, tenure: Tenure, now: Duration) {
        self.looked = Some((tenure, now));
    }
}

/// Of what stands in the processing list, what nobody was at work on before it was looked at.
#[must_use]
pub fn strangers<T: Eq + Hash>(mut known: HashMap<T, usize>, standing: Vec<T>) -> Vec<T> {
    standing
        .into_iter()
        .filter(|entry| match known.get_mut(entry) {
            Some(count) if *count > 0 => {
                *count -= 1;
                false
            }
            _ => true,
        })
        .collect()
}

/// What is known of a command at this instant.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The gateway ends.
    pub stopping: bool,
    /// How the tenure stands that it was taken in.
    pub standing: Standing,
    /// The rest of its life; none: it is over.
    pub rest: Option<Duration>,
}

/// What becomes of a command now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// It is left where it stands: with it, all that was taken after it.
    Leave,
    /// Whether it may be sent or judged is not known before Redis answers.
    Wait,
    /// Its life is over.
    Expired,
    /// It may be sent, for so long.
    Send(Duration),
}

/// Invariant: once a command is left, every later one of this process and tenure is left too, so none passes it.
#[must_use]
pub fn turn(now: Now) -> Turn {
    match (now.standing, now.rest) {
        (Standing::Over, _) => Turn::Leave,
        _ if now.stopping => Turn::Leave,
        (Standing::Unsure, _) => Turn::Wait,
        (Standing::InForce, None) => Turn::Expired,
        (Standing::InForce, Some(rest)) => Turn::Send(rest),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;
    use crate::order::Lanes;

    const MACHINES: u32 = 2;

    #[test]
    fn only_what_nobody_is_at_work_on_is_taken_again() {
        let standing = vec!["a", "a", "a", "b", "c"];
        assert_eq!(strangers(HashMap::from([("a", 2), ("b", 1)]), standing.clone()), ["a", "c"]);
        assert_eq!(strangers(HashMap::new(), standing.clone()), standing);
    }

    #[test]
    fn what_another_may_have_is_not_judged() {
        let life = Some(Duration::from_secs(1));
        let decide = |stopping, standing, rest| turn(Now { stopping, standing, rest });
        assert_eq!(decide(false, Standing::InForce, life), Turn::Send(Duration::from_secs(1)));
        assert_eq!(decide(false, Standing::InForce, None), Turn::Expired);
        assert_eq!(decide(false, Standing::Unsure, None), Turn::Wait);
        assert_eq!(decide(false, Standing::Over, None), Turn::Leave);
        assert_eq!(decide(true, Standing::InForce, life), Turn::Leave);
        assert_eq!(decide(true, Standing::Unsure, None), Turn::Leave);
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// The back end pushes a command.
        Push,
        /// The lease runs out, as far as the process knows.
        RunOut,
        /// Redis answers: the lease was held all the time.
        Held,
        /// Redis answers: it had run out.
        Lapsed,
        /// The taking does what is next.
        Take,
        /// What was moved reaches the worker, or its answer is lost with the connection.
        Moved(bool),
        /// It is the turn of a machine's command; its life may be over.
        Turn(u32, bool),
        /// The broker answers to what is sent: delivered, or nobody knows.
        Answered(u32, bool),
        /// The oldest outcome is written down.
        Settle,
        /// The gateway is told to end.
        Stop,
        /// It is gone, and another process starts.
        Restart,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let machine = 0..MACHINES;
        prop::collection::vec(
            prop_oneof![
                4 => Just(Step::Push),
                1 => Just(Step::RunOut),
                2 => Just(Step::Held),
                2 => Just(Step::Lapsed),
                6 => Just(Step::Take),
                5 => prop::bool::weighted(0.8).prop_map(Step::Moved),
                6 => (machine.clone(), prop::bool::weighted(0.1)).prop_map(|(machine, over)| Step::Turn(machine, over)),
                6 => (machine, any::<bool>()).prop_map(|(machine, known)| Step::Answered(machine, known)),
                4 => Just(Step::Settle),
                1 => Just(Step::Stop),
                1 => Just(Step::Restart),
            ],
            0..150,
        )
    }

    /// One process, as far as it has to do with commands.
    #[derive(Default)]
    struct Process {
        tenure: u64,
        sure: bool,
        stopping: bool,
        connected: bool,
        taking: Taking,
        /// Moved, and not handed on yet.
        moved: Option<(Tenure, Vec<u32>)>,
        lanes: Lanes<u32, (u32, Tenure)>,
        first: HashMap<u32, (u32, Tenure)>,
        sent: BTreeSet<u32>,
        outcomes: VecDeque<u32>,
        under_way: HashMap<u32, usize>,
    }

    impl Process {
        fn new() -> Self {
            Self { tenure: 1, sure: true, ..Self::default() }
        }

        fn hand_on(&mut self, tenure: Tenure, commands: Vec<u32>) {
            for command in commands {
                *self.under_way.entry(command).or_default() += 1;
                let machine = command % MACHINES;
                if let Some(first) = self.lanes.enter(machine, (command, tenure)) {
                    self.first.insert(machine, first);
                }
            }
        }

        fn let_go(&mut self, command: u32) {
            if let Some(count) = self.under_way.get_mut(&command) {
                *count -= 1;
                if *count == 0 {
                    self.under_way.remove(&command);
                }
            }
        }

        fn done(&mut self, machine: u32) {
            self.first.remove(&machine);
            if let Some(next) = self.lanes.leave(&machine) {
                self.first.insert(machine, next);
            }
        }

        fn turn(&self, tenure: Tenure, over: bool) -> Turn {
            let standing = match (tenure.0 == self.tenure, self.sure) {
                (false, _) => Standing::Over,
                (true, true) => Standing::InForce,
                (true, false) => Standing::Unsure,
            };
            turn(Now { stopping: self.stopping, standing, rest: (!over).then_some(LOOK) })
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// One gateway, whatever happens to it: no command is sent for the first time before an earlier one of its machine was sent, or is
        /// dead. What nobody settled stands in the processing list.
        #[test]
        fn no_command_passes_an_earlier_one(steps in steps()) {
            let (mut outgoing, mut processing) = (VecDeque::new(), Vec::new());
            let (mut pushed, mut settled) = (0_u32, BTreeSet::new());
            let mut over: BTreeSet<u32> = BTreeSet::new();
            let mut now = Duration::ZERO;
            let mut process = Process::new();
            for step in steps {
                now += Duration::from_millis(500);
                match step {
                    Step::Push => {
                        outgoing.push_back(pushed);
                        pushed += 1;
                    }
                    Step::RunOut => process.sure = false,
                    Step::Held => process.sure = true,
                    Step::Lapsed if process.sure => {}
                    Step::Lapsed => {
                        process.sure = true;
                        process.tenure += 1;
                    }
                    Step::Take if process.moved.is_some() || !process.sure || process.stopping => {}
                    Step::Take => {
                        let tenure = Tenure(process.tenure);
                        let idle = process.under_way.is_empty();
                        match process.taking.next(tenure, now, process.connected, idle) {
                            Next::LetGo => {}
                            Next::Look => {
                                let found = strangers(process.under_way.clone(), processing.clone());
                                process.connected = true;
                                process.taking.looked(tenure, now);
                                process.hand_on(tenure, found);
                            }
                            Next::Pop => {
                                let moved: Vec<u32> = outgoing.drain(..outgoing.len().min(2)).collect();
                                processing.extend(&moved);
                                process.moved = Some((tenure, moved));
                            }
                        }
                    }
                    Step::Moved(arrives) => {
                        if let Some((tenure, moved)) = process.moved.take() {
                            if arrives {
                                process.hand_on(tenure, moved);
                            } else {
                                process.connected = false;
                            }
                        }
                    }
                    Step::Turn(machine, late) => {
                        if let Some((command, tenure)) = process.first.get(&machine).copied()
                            && !process.sent.contains(&command)
                        {
                            match process.turn(tenure, late) {
                                Turn::Wait => {}
                                Turn::Leave => {
                                    process.let_go(command);
                                    process.done(machine);
                                }
                                Turn::Expired => {
                                    over.insert(command);
                                    process.outcomes.push_back(command);
                                    process.done(machine);
                                }
                                Turn::Send(_) => {
                                    let passed = (0..command).find(|one| one % MACHINES == machine && !over.contains(one));
                                    prop_assert_eq!(passed, None, "passed by {}", command);
                                    over.insert(command);
                                    process.sent.insert(command);
                                }
                            }
                        }
                    }
                    Step::Answered(machine, known) => {
                        if let Some((command, _)) = process.first.get(&machine).copied()
                            && process.sent.remove(&command)
                            && known
                        {
                            process.outcomes.push_back(command);
                            process.done(machine);
                        }
                    }
                    Step::Settle => {
                        if let Some(command) = process.outcomes.pop_front() {
                            settled.insert(command);
                            if let Some(place) = processing.iter().position(|one| *one == command) {
                                processing.remove(place);
                            }
                            process.let_go(command);
                        }
                    }
                    Step::Stop => process.stopping = true,
                    Step::Restart => process = Process::new(),
                }
                let mut known = vec![false; pushed as usize];
                outgoing.iter().chain(&processing).chain(&settled).for_each(|command| known[*command as usize] = true);
                prop_assert_eq!(known.iter().position(|known| !known), None, "it is nowhere");
            }
        }
    }
}
