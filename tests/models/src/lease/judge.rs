//! A node with a lease, and one that judges it.

use super::{CLIENT_FIRST, NO_CONDEMNED, NO_LATE_WRITE, ONE_MASTER, Times};
use stateright::{Model, Property};

/// By what the judge gets at the node's locks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    /// D of silence.
    Wait,
    /// A reservation keeps its writes from the disk; its clients are not touched.
    Pr,
    /// It is switched off.
    Agent,
    /// As `Wait`; the node is prompt, but the disk may stall for everyone and the judge for itself.
    Stall,
}

/// What of the node is looked at, besides its mastership and its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Of {
    Nothing,
    /// A record write on its way to the disk.
    Record,
    /// A promise on its way to the client.
    Promise,
}

pub(super) struct JudgeModel {
    pub(super) times: Times,
    pub(super) method: Method,
    pub(super) subject: Of,
    pub(super) without: Option<&'static str>,
}

/// A turn of the node's heartbeat thread; ages count from the start of the write.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Beat {
    Idle,
    Writing { age: u32, landed: bool },
    Reading { age: u32 },
}

/// The node that is judged: master, and host of a client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Node {
    beat: Beat,
    /// Since the start of the last good beat: the age of the lease.
    lease: u32,
    /// A view stands behind the lease; its loss is latched.
    confirmed: bool,
    /// It has not heard of its exclusion.
    master: bool,
    /// A record write on its way, since its issue.
    record: Option<u32>,
    /// A promise on its way to the client: the age of the lease that it rests on.
    promise: Option<u32>,
    /// The client takes the lock for its own.
    holds: bool,
    /// Switched off, or cut off from the disk.
    is_off: bool,
    is_cut_off: bool,
}

/// A read of the judge's.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Read {
    /// Whether the pulse had been seen for long enough when the read was issued.
    is_late: bool,
    age: u32,
    /// The pulse that it picked up: 0 is the one on disk.
    sampled: Option<u8>,
}

/// How far the judge is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Stage {
    Watching,
    /// It has passed its last check; the view that excludes the node is not committed yet.
    Judged,
    /// Master; the node's locks still stand.
    Master,
    /// The node's locks are given away.
    GivenAway,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
struct Judge {
    read: Option<Read>,
    /// The pulse that it has seen last: 0 is the one on disk.
    seen: u8,
    /// Since then, on the judge's clock from the end of that read.
    since: u32,
    /// Since its last read ended.
    last_end: u32,
    stage: Stage,
    /// A read that was issued after the fence had succeeded has shown the pulse.
    looked_again: bool,
}

/// The whole.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct State {
    /// Units of their clocks in one tick.
    node_rate: u32,
    judge_rate: u32,
    node: Node,
    judge: Judge,
    stalled: bool,
    stalls_left: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Action {
    Tick,
    BeatBegins,
    HeartbeatLands,
    HeartbeatIsLost,
    HeartbeatEnds,
    /// The node's own read has ended, and the core is told.
    BeatEnds,
    RecordIssued,
    RecordLands,
    PromiseMade,
    PromiseArrives,
    /// A view of after the loss confirms the node.
    Confirmed,
    /// The node, which knows that it was excluded, is admitted under a new incarnation.
    Readmitted,
    ReadIssued,
    ReadSamples,
    ReadEnds,
    FenceSucceeds,
    ExclusionCommitted,
    LocksGivenAway,
    DiskStalls,
    DiskGoesOn,
}

impl JudgeModel {
    fn keeps(&self, rule: &str) -> bool {
        self.without != Some(rule)
    }

    /// A node's units in one tick of a slow clock.
    fn unit(&self) -> u32 {
        self.times.drift
    }

    /// D, in units.
    fn dead(&self) -> u32 {
        let Times { renew, lease, grace, drift } = self.times;
        let renew = if self.keeps("renew") { renew } else { 0 };
        let grace = if self.keeps("grace") { grace } else { 0 };
        (lease + grace + renew) * if self.keeps("drift") { drift + 1 } else { drift }
    }

    /// No age matters beyond it.
    fn cap(&self) -> u32 {
        self.times.lease + self.times.grace + self.times.renew + 3
    }

    fn lease_runs(&self, state: &State, age: u32) -> bool {
        age * state.node_rate < self.times.lease * self.unit()
    }

    fn acts_as_master(&self, state: &State) -> bool {
        let node = &state.node;
        node.master && node.confirmed && !node.is_off && self.lease_runs(state, node.lease)
    }

    /// What the client needs to end counts as if it still acted.
    fn client_acts(&self, state: &State) -> bool {
        let node = &state.node;
        let in_time = node.lease * state.node_rate < (self.times.lease + self.times.grace) * self.unit();
        node.holds && !node.is_off && (in_time || !self.keeps("page"))
    }

    /// The silence that the judge's next step needs, in units.
    fn needed(&self) -> u32 {
        match self.method {
            Method::Wait | Method::Stall => self.dead(),
            Method::Pr | Method::Agent => self.suspect(),
        }
    }

    fn is_silent_for_long(&self, state: &State) -> bool {
        let by_now = state.judge.since * state.judge_rate >= self.needed();
        state.judge.read.is_some_and(|read| if self.keeps("silence-to-issue") { read.is_late } else { by_now })
    }

    fn read_ends(&self, state: &mut State) {
        let is_late = self.is_silent_for_long(state);
        let Some(Read { age, sampled: Some(sampled), .. }) = state.judge.read.take() else { return };
        let limit = 2 * self.times.renew * self.unit();
        // Without it more nodes are condemned: where that is not what is asked, it is left out.
        let gap = self.method == Method::Stall
            && (age * state.judge_rate > limit || state.judge.last_end * state.judge_rate > limit);
        let judge = &mut state.judge;
        let is_same = judge.seen == sampled && !(gap && self.keeps("own-gap"));
        judge.last_end = 0;
        judge.looked_again |= judge.stage == Stage::Master;
        if !is_same {
            judge.seen = sampled;
            judge.since = if self.keeps("silence-from-end") { 0 } else { age };
            return;
        }
        if is_late && matches!(self.method, Method::Wait | Method::Stall) && judge.stage == Stage::Watching {
            judge.stage = Stage::Judged;
            (judge.seen, judge.since, judge.last_end) = (0, 0, 0);
        }
    }

    fn needs_age_of_reads(&self) -> bool {
        self.method == Method::Stall || !self.keeps("silence-from-end")
    }

    /// What a fence needs before it is tried, in units.
    fn suspect(&self) -> u32 {
        if self.keeps("suspect") { (self.times.lease + self.times.grace) * self.unit() } else { 0 }
    }

    /// Where the node is prompt: whether it has something to do now.
    fn is_due(&self, state: &State) -> bool {
        match state.node.beat {
            Beat::Idle => state.node.lease >= self.times.renew,
            Beat::Writing { landed, .. } => landed || !state.stalled,
            Beat::Reading { .. } => !state.stalled,
        }
    }

    fn tick(&self, state: &mut State) {
        let cap = self.cap();
        let older = |age: &mut u32| *age = (*age + 1).min(cap);
        match &mut state.node.beat {
            Beat::Idle => {}
            Beat::Writing { age, .. } | Beat::Reading { age } => older(age),
        }
        older(&mut state.node.lease);
        state.node.record.iter_mut().for_each(older);
        state.node.promise.iter_mut().for_each(older);
        older(&mut state.judge.since);
        if self.method == Method::Stall {
            older(&mut state.judge.last_end);
        }
        if let Some(read) = state.judge.read.as_mut().filter(|_| self.needs_age_of_reads()) {
            older(&mut read.age);
        }
        if state.judge.stage != Stage::Watching && self.method != Method::Pr {
            state.judge.since = 0;
        }
        self.see_clock(state);
    }

    /// Deadlines that have come.
    fn see_clock(&self, state: &mut State) {
        if !self.lease_runs(state, state.node.lease) && self.keeps("latch") {
            state.node.confirmed = false;
        }
        state.node.holds = self.client_acts(state);
    }

    /// The pulses that are about, renamed: 0 is the one on disk.
    fn new_pulse(&self, state: &mut State) {
        if state.judge.stage != Stage::Watching && !(self.method == Method::Pr && state.judge.stage == Stage::Master) {
            return;
        }
        let sampled = state.judge.read.and_then(|read| read.sampled);
        let same = sampled == Some(state.judge.seen);
        if let Some(Read { sampled: Some(sampled), .. }) = &mut state.judge.read {
            *sampled = 1;
        }
        state.judge.seen = if same { 1 } else { 2 };
    }
}

impl Model for JudgeModel {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let slow = self.times.drift;
        let rates = [(slow, slow + 1), (slow + 1, slow), (slow, slow)];
        let node = Node {
            beat: Beat::Idle,
            lease: 0,
            confirmed: true,
            master: true,
            record: None,
            promise: None,
            holds: true,
            is_off: false,
            is_cut_off: false,
        };
        let judge = Judge { read: None, seen: 2, since: 0, last_end: 0, stage: Stage::Watching, looked_again: false };
        let state =
            |(node_rate, judge_rate)| State { node_rate, judge_rate, node, judge, stalled: false, stalls_left: 1 };
        rates.into_iter().map(state).collect()
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let State { node, judge, stalled, .. } = state;
        let landing = self.times.landing();
        let must_land = |age: u32| age >= landing && !node.is_cut_off;
        let unlanded = matches!(node.beat, Beat::Writing { age, landed: false } if must_land(age));
        let prompt = self.method == Method::Stall;
        if prompt && !self.is_due(state) || !prompt && !unlanded && !node.record.is_some_and(must_land) {
            actions.push(Action::Tick);
        }
        let alive = !node.is_off;
        match node.beat {
            Beat::Idle if alive && (!prompt || node.lease >= self.times.renew) => actions.push(Action::BeatBegins),
            Beat::Writing { landed: false, .. } if !stalled => {
                if !node.is_cut_off {
                    actions.push(Action::HeartbeatLands);
                }
                if !prompt {
                    actions.push(Action::HeartbeatIsLost);
                }
            }
            Beat::Writing { landed: true, .. } if alive => actions.push(Action::HeartbeatEnds),
            Beat::Reading { .. } if alive && !stalled => actions.push(Action::BeatEnds),
            _ => {}
        }
        if !prompt {
            let may_write = self.acts_as_master(state) || !self.keeps("write-within-lease") && node.master && alive;
            if self.subject == Of::Record && may_write && node.record.is_none() && !node.is_cut_off {
                actions.push(Action::RecordIssued);
            }
            if node.record.is_some() {
                actions.push(Action::RecordLands);
            }
            if self.subject == Of::Promise && self.acts_as_master(state) && node.promise.is_none() && !node.holds {
                actions.push(Action::PromiseMade);
            }
            if node.promise.is_some() && alive {
                actions.push(Action::PromiseArrives);
            }
            let renewed = alive && self.lease_runs(state, node.lease) && !node.confirmed;
            if renewed && node.master && judge.stage == Stage::Watching && judge.seen == 0 {
                actions.push(Action::Confirmed);
            }
            if renewed && !node.master {
                actions.push(Action::Readmitted);
            }
        } else if self.method == Method::Stall {
            match (*stalled, state.stalls_left) {
                (true, _) => actions.push(Action::DiskGoesOn),
                (false, 0) => {}
                (false, _) => actions.push(Action::DiskStalls),
            }
        }
        let looks_again = self.method == Method::Pr && judge.stage == Stage::Master && !judge.looked_again;
        match judge.read {
            None if judge.stage == Stage::Watching || looks_again => actions.push(Action::ReadIssued),
            Some(Read { sampled: None, .. }) if !stalled => actions.push(Action::ReadSamples),
            Some(Read { sampled: Some(_), .. }) => actions.push(Action::ReadEnds),
            _ => {}
        }
        let fences = matches!(self.method, Method::Pr | Method::Agent);
        let silent = judge.read.is_some_and(|read| read.sampled == Some(judge.seen));
        if fences && judge.stage == Stage::Watching && silent && self.is_silent_for_long(state) {
            actions.push(Action::FenceSucceeds);
        }
        if judge.stage == Stage::Judged {
            actions.push(Action::ExclusionCommitted);
        }
        let pr_wait = (self.times.lease + self.times.grace) * (self.times.drift + 1);
        let is_pr = self.method == Method::Pr;
        let waited = !is_pr || judge.since * state.judge_rate >= pr_wait || !self.keeps("pr-waits");
        let looked = !is_pr || judge.looked_again || !self.keeps("pr-looks-again");
        if judge.stage == Stage::Master && waited && looked && judge.read.is_none() {
            actions.push(Action::LocksGivenAway);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = *last;
        let node = &mut state.node;
        match action {
            Action::Tick => self.tick(&mut state),
            Action::BeatBegins => node.beat = Beat::Writing { age: 0, landed: false },
            Action::HeartbeatLands => {
                if let Beat::Writing { landed, .. } = &mut node.beat {
                    *landed = true;
                }
                self.new_pulse(&mut state);
            }
            Action::HeartbeatIsLost => node.beat = Beat::Idle,
            Action::HeartbeatEnds => {
                if let Beat::Writing { age, .. } = node.beat {
                    node.beat = Beat::Reading { age: if self.keeps("from-start") { age } else { 0 } };
                }
            }
            Action::BeatEnds => {
                // A core that slept loses its lease before it believes anything else.
                self.see_clock(&mut state);
                let node = &mut state.node;
                if let Beat::Reading { age } = std::mem::replace(&mut node.beat, Beat::Idle) {
                    node.lease = age;
                }
                if matches!(state.judge.stage, Stage::Master | Stage::GivenAway) {
                    // It reads the view that excludes it: a new incarnation, which holds nothing.
                    (state.node.master, state.node.confirmed, state.node.holds) = (false, false, false);
                }
                self.see_clock(&mut state);
            }
            Action::RecordIssued => node.record = Some(0),
            Action::RecordLands => node.record = None,
            Action::PromiseMade => node.promise = Some(node.lease),
            Action::PromiseArrives => {
                let base = node.promise.take()?;
                if self.lease_runs(last, base) || !self.keeps("valid-until") {
                    node.holds = true;
                }
                self.see_clock(&mut state);
            }
            Action::Confirmed | Action::Readmitted => node.confirmed = true,
            Action::ReadIssued => {
                let is_late = state.judge.since * state.judge_rate >= self.needed();
                state.judge.read = Some(Read { is_late, age: 0, sampled: None });
            }
            Action::ReadSamples => {
                if let Some(read) = &mut state.judge.read {
                    read.sampled = Some(0);
                }
            }
            Action::ReadEnds => self.read_ends(&mut state),
            Action::FenceSucceeds => {
                state.judge.read = None;
                state.judge.stage = Stage::Master;
                let (on_its_way, settles) = match self.method {
                    Method::Pr => {
                        node.is_cut_off = true;
                        (&mut node.record, self.keeps("pr-aborts"))
                    }
                    _ => {
                        node.is_off = true;
                        (&mut node.record, self.keeps("agent-settles"))
                    }
                };
                if settles {
                    *on_its_way = None;
                }
                if let (true, Beat::Writing { landed: false, .. }) = (settles, node.beat) {
                    node.beat = Beat::Idle;
                }
            }
            Action::ExclusionCommitted => state.judge.stage = Stage::Master,
            Action::LocksGivenAway => state.judge.stage = Stage::GivenAway,
            Action::DiskStalls => (state.stalled, state.stalls_left) = (true, state.stalls_left - 1),
            Action::DiskGoesOn => state.stalled = false,
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        if self.method == Method::Stall {
            return vec![Property::always(NO_CONDEMNED, |_, state: &State| state.judge.stage == Stage::Watching)];
        }
        vec![
            Property::always(ONE_MASTER, |model: &JudgeModel, state: &State| {
                !(is_taken_over(state) && model.acts_as_master(state))
            }),
            Property::always(CLIENT_FIRST, |model: &JudgeModel, state: &State| {
                !(state.judge.stage == Stage::GivenAway && model.client_acts(state))
            }),
            Property::always(NO_LATE_WRITE, |_, state: &State| !(is_taken_over(state) && state.node.record.is_some())),
            Property::sometimes("locks are given away", |_, state: &State| state.judge.stage == Stage::GivenAway),
            Property::sometimes("a lost lease is regained", |model: &JudgeModel, state: &State| {
                model.acts_as_master(state) && !state.node.holds
            }),
        ]
    }
}

fn is_taken_over(state: &State) -> bool {
    matches!(state.judge.stage, Stage::Master | Stage::GivenAway)
}
