//! Who may send the commands of a processing list: whoever holds the instance's lease. Redis has the lease, with a time to live; this
//! is what one process believes of it.
//!
//! A process asks for the lease at its start, renews it, and asks again once a newer one of its name is gone. Redis answers what is so at that instant; the process may rely on
//! it for the lease's life, counted from before it asked.

pub mod scripts;

use std::time::Duration;

/// How long a lease lives in Redis.
pub const LIFE: Duration = Duration::from_secs(10);
/// How often it is renewed.
pub const RENEW: Duration = Duration::from_secs(3);

/// [`LIFE`], as the scripts take it.
#[must_use]
pub fn life_in_millis() -> u64 {
    u64::try_from(LIFE.as_millis()).unwrap_or(u64::MAX)
}

/// What Redis answers to a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It was held, and is for another life.
    Held,
    /// It had run out, and is held again. Others may have taken over what stood in the processing list.
    Lapsed,
    /// A newer process of the same name has it. Should that one's lease run out, this one may have it again: as after a lapse.
    Superseded,
}

/// A time without a lapse: what was taken in one may be sent in that one alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenure(pub u64);

/// How a tenure stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is in force: what was taken in it may be sent, and judged.
    InForce,
    /// The lease may have run out in Redis: its answer says whether this tenure goes on.
    Unsure,
    /// It is never in force again: what was taken in it is another's, or is to be taken anew.
    Over,
}

/// What a process believes. `now` is the time since any fixed moment, on a clock that never jumps.
#[derive(Debug, Default)]
pub struct Lease {
    valid_until: Duration,
    tenure: u64,
    superseded: bool,
}

impl Lease {
    /// Redis answered to what was asked at `asked`. True: a new tenure begins, and the processing list is to be read again.
    pub fn answered(&mut self, answer: Answer, asked: Duration) -> bool {
        match answer {
            Answer::Held if self.tenure > 0 => {
                self.valid_until = asked + LIFE;
                false
            }
            Answer::Held | Answer::Lapsed => {
                self.valid_until = asked + LIFE;
                self.tenure += 1;
                self.superseded = false;
                true
            }
            Answer::Superseded => {
                self.superseded = true;
                false
            }
        }
    }

    /// The tenure in force; none: nothing may be taken or sent.
    #[must_use]
    pub fn tenure(&self, now: Duration) -> Option<Tenure> {
        (!self.superseded && now < self.valid_until).then_some(Tenure(self.tenure))
    }

    /// How a tenure that this process had stands.
    #[must_use]
    pub fn standing(&self, tenure: Tenure, now: Duration) -> Standing {
        if self.superseded || tenure.0 != self.tenure {
            Standing::Over
        } else if now < self.valid_until {
            Standing::InForce
        } else {
            Standing::Unsure
        }
    }

    /// Whether a newer process of the same name has it: this one then takes and sends nothing, until that one is gone.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.superseded
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// What Redis has: a lease for each of two names, and which commands stand in which list.
    #[derive(Default)]
    struct Redis {
        leases: [Option<(u64, Duration)>; 2],
        starts: [u64; 2],
        outgoing: BTreeSet<u32>,
        processing: [BTreeSet<u32>; 2],
    }

    impl Redis {
        fn holder(&self, name: usize, now: Duration) -> Option<u64> {
            self.leases[name].filter(|(_, until)| now < *until).map(|(start, _)| start)
        }

        fn start(&mut self, name: usize, now: Duration) -> u64 {
            self.starts[name] += 1;
            self.leases[name] = Some((self.starts[name], now + LIFE));
            self.starts[name]
        }

        fn renew(&mut self, name: usize, start: u64, now: Duration) -> Answer {
            if self.starts[name] != start {
                return Answer::Superseded;
            }
            let held = self.holder(name, now).is_some();
            self.leases[name] = Some((start, now + LIFE));
            if held { Answer::Held } else { Answer::Lapsed }
        }

        /// What the script does: only where the lease ran out.
        fn take_over(&mut self, name: usize, now: Duration) {
            if self.holder(name, now).is_none() {
                let mut moved = std::mem::take(&mut self.processing[name]);
                self.outgoing.append(&mut moved);
            }
        }
    }

    /// One process.
    struct Process {
        name: usize,
        start: u64,
        lease: Lease,
        /// Commands in its memory, with the tenure that they were taken in.
        held: Vec<(u32, Tenure)>,
        /// What it asked and has not heard of: when, and what Redis answered.
        asked: Option<(Duration, Answer)>,
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Pass(u64),
        /// A process asks; Redis answers at once, and the process hears of it later.
        Ask(usize),
        Hear(usize),
        Pop(usize),
        Publish(usize),
        TakeOver(usize),
        /// Another process of a name starts, whether or not the one before still lives.
        Start(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let process = 0..6_usize;
        prop::collection::vec(
            prop_oneof![
                4 => (0..6_000_u64).prop_map(Step::Pass),
                4 => process.clone().prop_map(Step::Ask),
                4 => process.clone().prop_map(Step::Hear),
                3 => process.clone().prop_map(Step::Pop),
                4 => process.prop_map(Step::Publish),
                2 => (0..2_usize).prop_map(Step::TakeOver),
                1 => (0..2_usize).prop_map(Step::Start),
            ],
            0..120,
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Whoever is paused, for however long and wherever: what was taken over is never sent by the one that lost it, and of two
        /// processes with one name only the newer sends, from one lease's life after its start on.
        #[test]
        fn nobody_sends_what_was_taken_over(steps in steps()) {
            let mut redis = Redis { outgoing: (0..1_000).collect(), ..Redis::default() };
            let mut processes: Vec<Process> = Vec::new();
            let mut now = Duration::ZERO;
            let mut started = [Duration::ZERO; 2];
            for step in steps {
                match step {
                    Step::Pass(millis) => now += Duration::from_millis(millis),
                    Step::Start(name) => {
                        let start = redis.start(name, now);
                        started[name] = now;
                        let mut lease = Lease::default();
                        lease.answered(Answer::Held, now);
                        processes.push(Process { name, start, lease, held: Vec::new(), asked: None });
                    }
                    Step::Ask(index) => {
                        if let Some(process) = processes.get_mut(index)
                            && process.asked.is_none()
                            && !process.lease.is_superseded()
                        {
                            process.asked = Some((now, redis.renew(process.name, process.start, now)));
                        }
                    }
                    Step::Hear(index) => {
                        if let Some(process) = processes.get_mut(index)
                            && let Some((asked, answer)) = process.asked.take()
                            && process.lease.answered(answer, asked)
                        {
                            process.held.clear();
                        }
                    }
                    Step::Pop(index) => {
                        if let Some(process) = processes.get_mut(index)
                            && let Some(tenure) = process.lease.tenure(now)
                            && let Some(command) = redis.outgoing.pop_first()
                        {
                            redis.processing[process.name].insert(command);
                            process.held.push((command, tenure));
                        }
                    }
                    Step::Publish(index) => {
                        if let Some(process) = processes.get_mut(index)
                            && let Some((command, taken)) = process.held.pop()
                            && process.lease.standing(taken, now) == Standing::InForce
                        {
                            let stands = redis.processing[process.name].contains(&command);
                            let newest = process.start == redis.starts[process.name];
                            let late = now >= started[process.name] + LIFE;
                            prop_assert!(newest || !late, "an older process sends after the newer one's lease");
                            if newest {
                                prop_assert!(stands, "it was taken over, and is sent all the same");
                            }
                        }
                    }
                    Step::TakeOver(name) => redis.take_over(name, now),
                }
            }
        }
    }

    #[test]
    fn a_tenure_ends_with_the_life_of_the_lease() {
        let mut lease = Lease::default();
        let at = Duration::from_secs;
        assert_eq!(lease.tenure(at(0)), None);
        assert!(lease.answered(Answer::Held, at(1)));
        assert_eq!(lease.tenure(at(10)), Some(Tenure(1)));
        assert_eq!(lease.standing(Tenure(1), at(10)), Standing::InForce);
        assert_eq!(lease.tenure(at(11)), None);
        assert_eq!(lease.standing(Tenure(1), at(11)), Standing::Unsure);
        assert!(!lease.answered(Answer::Held, at(9)));
        assert_eq!(lease.tenure(at(18)), Some(Tenure(1)));
        assert!(lease.answered(Answer::Lapsed, at(30)));
        assert_eq!(lease.tenure(at(31)), Some(Tenure(2)));
        assert_eq!(lease.standing(Tenure(1), at(31)), Standing::Over);
        assert!(!lease.answered(Answer::Superseded, at(32)));
        assert_eq!(lease.tenure(at(33)), None);
        assert_eq!(lease.standing(Tenure(2), at(33)), Standing::Over);
        assert!(lease.is_superseded());
    }
}
