//! Where jobs go, list by list: direct; behind, while Redis does not take them or the back end does not keep up (what comes goes to
//! the spool, and from there to the list, in order); and direct again once the spool has nothing for it.
//!
//! `now` is the time since any fixed moment, on a clock that never jumps.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::batch::MAX_MESSAGES;
use crate::spooled::Line;

/// How often the length of a list is looked at while the back end is behind.
const LOOK: Duration = Duration::from_secs(1);
/// Low routes are set aside first: from this share of `queues.incoming_max` on.
const LOW_SHARE: u64 = 2;

/// Where a job goes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The list's whole key.
    pub key: Arc<str>,
    /// Of a route with `priority = "low"`.
    pub low: bool,
}

impl Target {
    /// Where its jobs stand in the spool.
    #[must_use]
    pub fn line(&self) -> Line {
        Line::List { key: self.key.clone(), low: self.low }
    }

    /// The list of a record's line.
    #[must_use]
    pub fn of(line: &Line) -> Self {
        match line {
            Line::List { key, low } => Self { key: key.clone(), low: *low },
            Line::Machine { route, .. } => Self { key: route.clone(), low: false },
        }
    }
}

#[derive(Debug)]
struct Behind {
    backoff: Backoff,
    retry: Duration,
    /// The last record that was pushed.
    drained: Option<u64>,
    /// How many records one push carries: halved while it gets no answer, since a job may be what breaks the connection.
    records: usize,
    /// It is the back end that does not keep up: the list is direct again only after its length was seen below the bound.
    long: bool,
}

impl Behind {
    fn new(now: Duration) -> Self {
        Self { backoff: Backoff::for_servers(), retry: now, drained: None, records: MAX_MESSAGES, long: false }
    }
}

/// What is to be pushed next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// What is ready, for lists that are direct.
    Ready,
    /// What the spool has for a list: so many records at the most, behind this number.
    Drain(Target, Option<u64>, usize),
    /// Nothing for now.
    Nothing,
}

/// What an empty line of the spool means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Empty {
    /// The list is direct again.
    Direct,
    /// Its length is to be looked at first.
    Look,
}

/// The lists that are behind.
///
/// Invariant: jobs of one list are pushed in the order in which they came; while one of them is in the spool, none passes it.
#[derive(Debug, Default)]
pub struct Flow {
    behind: HashMap<Target, Behind>,
    /// Lists whose length is bounded (`queues.incoming_max`), with the bound.
    limits: HashMap<Arc<str>, u64>,
    /// Of routes that keep only the newest while the back end is behind: the number of it.
    newest: HashMap<Arc<str>, u64>,
    /// Of those, what is on its way to Redis: nothing supersedes it meanwhile.
    leaving: Vec<(Arc<str>, u64)>,
    /// Whether the last push came from the spool: it and what is ready take turns.
    drained: bool,
}

impl Flow {
    /// `waiting` are those that the spool has records for; `limits` the lists whose length is bounded.
    #[must_use]
    pub fn new(waiting: impl IntoIterator<Item = Target>, limits: HashMap<Arc<str>, u64>) -> Self {
        let behind = waiting.into_iter().map(|target| (target, Behind::new(Duration::ZERO))).collect();
        Self { behind, limits, ..Self::default() }
    }

    /// Other bounds. A list that was too long may not be any more: its length is looked at anew.
    pub fn set_limits(&mut self, limits: HashMap<Arc<str>, u64>, now: Duration) {
        self.limits = limits;
        for (target, behind) in self.behind.iter_mut().filter(|(_, behind)| behind.long) {
            behind.retry = now;
            behind.long = self.limits.contains_key(&target.key);
        }
    }

    /// Whether what comes for it goes to the spool.
    #[must_use]
    pub fn is_behind(&self, target: &Target) -> bool {
        !self.behind.is_empty() && self.behind.contains_key(target)
    }

    /// Whether its length is bounded.
    #[must_use]
    pub fn is_limited(&self, target: &Target) -> bool {
        self.limits.contains_key(&target.key)
    }

    /// How many entries it may have.
    #[must_use]
    pub fn most(&self, target: &Target) -> u64 {
        let most = self.limits.get(&target.key).copied().unwrap_or(u64::MAX);
        if target.low { most / LOW_SHARE } else { most }
    }

    /// What is to be pushed next. `ready`: something is, for lists that are direct; `drain`: the spool may be read.
    #[must_use]
    pub fn next(&mut self, now: Duration, ready: bool, drain: bool) -> Next {
        let due = self.behind.iter().filter(|(_, behind)| drain && behind.retry <= now);
        let due = due.min_by(|(a, x), (b, y)| x.retry.cmp(&y.retry).then_with(|| a.cmp(b)));
        match due {
            Some((target, behind)) if !(ready && self.drained) => {
                Next::Drain(target.clone(), behind.drained, behind.records)
            }
            _ if ready => {
                self.drained = false;
                Next::Ready
            }
            _ => Next::Nothing,
        }
    }

    /// When [`Flow::next`] may have something to drain; none: no list is behind.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        self.behind.values().map(|behind| behind.retry).min()
    }

    /// Records of the spool are on their way to their list: nothing supersedes them until it is known that they did not get there.
    pub fn draining(&mut self, target: &Target, numbers: &[u64]) {
        self.drained = true;
        self.leaving.clear();
        if target.low && !self.newest.is_empty() {
            let leaving = self.newest.extract_if(|_, number| numbers.binary_search(number).is_ok());
            self.leaving.extend(leaving);
        }
    }

    /// They did not get there. One that is not the newest any more is kept too: it was on its way when the other came.
    fn stay(&mut self) {
        for (latest, number) in self.leaving.drain(..) {
            self.newest.entry(latest).or_insert(number);
        }
    }

    /// The spool has nothing for it.
    pub fn empty(&mut self, target: &Target) -> Empty {
        if self.behind.get(target).is_some_and(|behind| behind.long) {
            return Empty::Look;
        }
        self.behind.remove(target);
        Empty::Direct
    }

    /// Its length was looked at, and it may have more. What is left in the spool is drained; where nothing is, it is direct. True: the
    /// back end was behind, and has caught up.
    pub fn short(&mut self, target: &Target, now: Duration) -> bool {
        let Some(behind) = self.behind.get_mut(target) else { return false };
        behind.retry = now;
        std::mem::replace(&mut behind.long, false)
    }

    /// What is for it goes to the spool.
    pub fn fell_behind(&mut self, target: &Target, now: Duration) {
        self.entry(target, now);
    }

    fn entry(&mut self, target: &Target, now: Duration) -> &mut Behind {
        self.behind.entry(target.clone()).or_insert_with(|| Behind::new(now))
    }

    /// Redis took records up to a number; the list has so many entries now. True: that is too many.
    #[must_use]
    pub fn took(&mut self, target: &Target, number: u64, length: u64, now: Duration) -> bool {
        self.leaving.clear();
        if let Some(behind) = self.behind.get_mut(target) {
            behind.drained = Some(number.max(behind.drained.unwrap_or(0)));
            behind.backoff.reset();
            behind.retry = now;
            behind.records = (behind.records * 2).min(MAX_MESSAGES);
        }
        self.is_limited(target) && length >= self.most(target)
    }

    /// Redis answered with a no; or, not `answered`, the node of a cluster that has the list was silent while others were not.
    pub fn refused(&mut self, target: &Target, answered: bool, now: Duration, chance: u32) {
        self.stay();
        let behind = self.entry(target, now);
        behind.retry = now + behind.backoff.next(chance);
        if !answered {
            behind.records = (behind.records / 2).max(1);
        }
    }

    /// There was no answer; it is not tried before so long.
    pub fn unanswered(&mut self, target: &Target, now: Duration, delay: Duration) {
        let behind = self.entry(target, now);
        behind.retry = now + delay;
        behind.records = (behind.records / 2).max(1);
    }

    /// The back end does not keep up: it has as many entries as it may have.
    pub fn too_long(&mut self, target: &Target, now: Duration) {
        self.stay();
        let behind = self.entry(target, now);
        behind.retry = now + LOOK;
        behind.long = true;
    }

    /// A record of a machine and route of which only the newest is kept while the back end is behind was put into the spool: the
    /// number of the one that it supersedes.
    pub fn newest(&mut self, target: &Target, latest: &Arc<str>, number: u64) -> Option<u64> {
        if !self.behind.get(target).is_some_and(|behind| behind.long) {
            return None;
        }
        self.newest.insert(latest.clone(), number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const MOST: u64 = 8;

    fn targets() -> [Target; 3] {
        let target = |key: &str, low| Target { key: key.into(), low };
        [target("free", false), target("bounded", false), target("bounded", true)]
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        /// A job comes for one of the targets.
        Arrive(usize),
        /// The push that is under way ends.
        Answer(Said),
        /// The back end takes entries of a list.
        Pop(bool, usize),
        /// Time passes, in milliseconds.
        Pass(u64),
    }

    #[derive(Debug, Clone, Copy)]
    enum Said {
        Yes,
        No,
        Nothing,
    }

    /// What is under way to Redis.
    #[derive(Debug)]
    enum Push {
        Ready(Vec<(usize, u64)>),
        Drain(usize, Vec<u64>),
        Look(usize),
    }

    /// A sink with its spool, as `uplink/sink` drives it, and Redis behind it.
    struct Sink {
        flow: Flow,
        targets: [Target; 3],
        ready: VecDeque<(usize, u64)>,
        spool: [VecDeque<u64>; 3],
        under_way: Option<Push>,
        lengths: HashMap<Arc<str>, u64>,
        arrived: [Vec<u64>; 3],
        pushed: [Vec<u64>; 3],
        now: Duration,
        number: u64,
    }

    impl Sink {
        fn new() -> Self {
            Self {
                flow: Flow::new([], HashMap::from([("bounded".into(), MOST)])),
                targets: targets(),
                ready: VecDeque::new(),
                spool: Default::default(),
                under_way: None,
                lengths: HashMap::new(),
                arrived: Default::default(),
                pushed: Default::default(),
                now: Duration::ZERO,
                number: 0,
            }
        }

        fn step(&mut self, step: Step) {
            match step {
                Step::Arrive(at) => {
                    self.number += 1;
                    self.arrived[at].push(self.number);
                    if self.flow.is_behind(&self.targets[at]) {
                        self.spool[at].push_back(self.number);
                    } else {
                        self.ready.push_back((at, self.number));
                    }
                }
                Step::Answer(said) => self.answer(said),
                Step::Pop(bounded, count) => {
                    let key: Arc<str> = if bounded { "bounded" } else { "free" }.into();
                    let length = self.lengths.entry(key).or_default();
                    *length = length.saturating_sub(count as u64);
                }
                Step::Pass(millis) => self.now += Duration::from_millis(millis),
            }
            if self.under_way.is_none() {
                self.begin();
            }
        }

        fn begin(&mut self) {
            loop {
                match self.flow.next(self.now, !self.ready.is_empty(), true) {
                    Next::Nothing => return,
                    Next::Ready => {
                        // Part of what is ready, as a batch takes it.
                        let count = self.ready.len().min(3);
                        self.under_way = Some(Push::Ready(self.ready.drain(..count).collect()));
                        return;
                    }
                    Next::Drain(target, behind, most) => {
                        let at = self.targets.iter().position(|other| *other == target).expect("a target");
                        let after = behind.unwrap_or(0);
                        let records: Vec<u64> =
                            self.spool[at].iter().copied().filter(|number| *number > after).take(most.min(4)).collect();
                        if records.is_empty() {
                            match self.flow.empty(&target) {
                                Empty::Direct => continue,
                                Empty::Look => self.under_way = Some(Push::Look(at)),
                            }
                        } else {
                            self.flow.draining(&target, &records);
                            self.under_way = Some(Push::Drain(at, records));
                        }
                        return;
                    }
                }
            }
        }

        fn answer(&mut self, said: Said) {
            let Some(push) = self.under_way.take() else { return };
            let (mut parts, looked): (Vec<(usize, Vec<u64>)>, bool) = match push {
                Push::Ready(items) => {
                    let mut parts: Vec<(usize, Vec<u64>)> = Vec::new();
                    for (at, number) in items {
                        match parts.iter_mut().find(|(other, _)| *other == at) {
                            Some((_, numbers)) => numbers.push(number),
                            None => parts.push((at, vec![number])),
                        }
                    }
                    (parts, false)
                }
                Push::Drain(at, numbers) => (vec![(at, numbers)], self.flow.is_limited(&self.targets[at])),
                Push::Look(at) => (vec![(at, Vec::new())], true),
            };
            for (at, numbers) in parts.drain(..) {
                let target = self.targets[at].clone();
                let length = self.lengths.entry(target.key.clone()).or_default();
                match said {
                    Said::Yes if looked && *length >= self.flow.most(&target) => {
                        self.flow.too_long(&target, self.now);
                        self.keep(at, &numbers);
                    }
                    Said::Yes if numbers.is_empty() => assert!(self.flow.short(&target, self.now)),
                    Said::Yes => {
                        *length += numbers.len() as u64;
                        let length = *length;
                        let last = numbers[numbers.len() - 1];
                        self.spool[at].retain(|number| !numbers.contains(number));
                        self.pushed[at].extend(&numbers);
                        if self.flow.took(&target, last, length, self.now) {
                            self.flow.too_long(&target, self.now);
                        }
                    }
                    Said::No => {
                        self.flow.refused(&target, true, self.now, u32::MAX / 2);
                        self.keep(at, &numbers);
                    }
                    Said::Nothing => {
                        self.flow.unanswered(&target, self.now, Duration::from_millis(300));
                        self.keep(at, &numbers);
                    }
                }
            }
            // What was ready for a list that has fallen behind goes behind its spooled ones.
            for (at, number) in std::mem::take(&mut self.ready) {
                if self.flow.is_behind(&self.targets[at]) {
                    self.spool[at].push_back(number);
                } else {
                    self.ready.push_back((at, number));
                }
            }
        }

        fn keep(&mut self, at: usize, numbers: &[u64]) {
            self.spool[at]
                .extend(numbers.iter().filter(|number| !self.spool[at].contains(number)).copied().collect::<Vec<_>>());
            self.spool[at].make_contiguous().sort_unstable();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        /// Whatever Redis answers and however slow the back end is: everything is pushed once and in order, nothing stalls, and a
        /// list whose length is bounded stays within its bound and one push.
        #[test]
        fn everything_is_pushed_once_in_order_and_nothing_stalls(steps in prop::collection::vec(prop_oneof![
            6 => (0_usize..3).prop_map(Step::Arrive),
            3 => Just(Step::Answer(Said::Yes)),
            1 => Just(Step::Answer(Said::No)),
            1 => Just(Step::Answer(Said::Nothing)),
            1 => (any::<bool>(), 0_usize..6).prop_map(|(bounded, count)| Step::Pop(bounded, count)),
            2 => (0_u64..2_000).prop_map(Step::Pass),
        ], 0..120)) {
            let mut sink = Sink::new();
            for step in steps {
                sink.step(step);
                let length = sink.lengths.get("bounded").copied().unwrap_or(0);
                prop_assert!(length < MOST + 2 * 4, "{length} entries");
            }
            // All is well from here on: every job is pushed within a bounded number of steps.
            for _ in 0..8 * sink.number + 64 {
                sink.step(Step::Pop(true, 4));
                sink.step(Step::Pass(60_000));
                sink.step(Step::Answer(Said::Yes));
            }
            prop_assert_eq!(&sink.pushed, &sink.arrived);
            prop_assert!(sink.targets.iter().all(|target| !sink.flow.is_behind(target)), "all are direct again");
        }
    }

    #[test]
    fn what_is_ready_is_pushed_where_a_line_turns_out_to_be_empty() {
        let [free, bounded, _] = targets();
        let mut flow = Flow::new([bounded.clone()], HashMap::new());
        let now = Duration::from_secs(1);
        assert_eq!(flow.next(now, true, true), Next::Drain(bounded.clone(), None, MAX_MESSAGES));
        assert_eq!(flow.empty(&bounded), Empty::Direct);
        assert_eq!(flow.next(now, true, true), Next::Ready);
        assert!(!flow.is_behind(&free) && !flow.is_behind(&bounded));
    }

    #[test]
    fn only_the_newest_is_kept_however_often_the_length_is_looked_at() {
        let [_, _, low] = targets();
        let mut flow = Flow::new([], HashMap::from([(low.key.clone(), MOST)]));
        let (now, latest): (_, Arc<str>) = (Duration::from_secs(1), "M-1".into());
        flow.too_long(&low, now);
        assert_eq!(flow.newest(&low, &latest, 1), None);
        for number in 2..5 {
            // The list is looked at, and is too long still.
            flow.draining(&low, &[number - 1]);
            flow.too_long(&low, now);
            assert_eq!(flow.newest(&low, &latest, number), Some(number - 1));
        }
        flow.draining(&low, &[4]);
        assert!(!flow.took(&low, 4, 1, now));
        assert_eq!(flow.newest(&low, &latest, 5), None, "what was pushed is superseded by nothing");
    }

    #[test]
    fn a_list_that_was_too_long_is_direct_again_only_after_its_length_was_seen() {
        let [_, bounded, _] = targets();
        let mut flow = Flow::new([], HashMap::from([(bounded.key.clone(), MOST)]));
        let now = Duration::from_secs(1);
        assert!(flow.took(&bounded, 1, MOST, now));
        flow.too_long(&bounded, now);
        assert_eq!(flow.next(now, false, true), Next::Nothing);
        assert_eq!(flow.empty(&bounded), Empty::Look);
        assert!(flow.is_behind(&bounded));
        assert!(flow.short(&bounded, now));
        assert_eq!(flow.empty(&bounded), Empty::Direct);
        assert!(!flow.is_behind(&bounded));
    }

    #[test]
    fn other_bounds_hold_from_then_on() {
        let [free, bounded, _] = targets();
        let mut flow = Flow::new([], HashMap::from([(bounded.key.clone(), MOST)]));
        let now = Duration::from_secs(1);
        flow.too_long(&bounded, now);
        // Without a bound nobody asks for its length any more, so it must not wait for that.
        flow.set_limits(HashMap::from([(free.key.clone(), MOST)]), now);
        assert!(matches!(flow.next(now, false, true), Next::Drain(target, ..) if target == bounded));
        assert_eq!(flow.empty(&bounded), Empty::Direct);
        assert!(!flow.took(&bounded, 1, MOST, now) && flow.took(&free, 1, MOST, now));
        // A higher one: its length is looked at anew, at once.
        flow.too_long(&free, now);
        flow.set_limits(HashMap::from([(free.key.clone(), 2 * MOST)]), now);
        assert!(matches!(flow.next(now, false, true), Next::Drain(target, ..) if target == free));
        assert_eq!(flow.empty(&free), Empty::Look);
    }
}
