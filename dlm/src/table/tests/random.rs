//! Long random sequences: the table against the naive model, and promises about how everything ends.

use super::model::{Item, Model};
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeSet;

/// Lock ids in play; small, so that the same ones meet again and again.
const IDS: u64 = 9;
const NAMES: [&str; 2] = ["r", "s"];

/// Locks of three sessions.
fn id(lock: u64) -> LockId {
    LockId { session: mxlock_format::SessionId(1 + lock % 3), seq: lock }
}

#[derive(Clone, Debug)]
enum Op {
    Request { lock: u64, name: usize, mode: Mode, flags: LockFlags, range: ByteRange, back: u64 },
    Convert { lock: u64, mode: Mode, flags: LockFlags, back: u64, lvb: LvbUpdate },
    Unlock { lock: u64, lvb: LvbUpdate },
    Cancel { lock: u64 },
    Rebast { lock: u64 },
    Doubt { lock: u64 },
    Settle { lock: u64, orphan: bool, granted_what_it_wanted: bool },
}

/// What the sequences of a test may contain.
#[derive(Clone, Copy)]
struct Shape {
    flags: &'static [LockFlags],
    ranges: bool,
    doubts: bool,
}

const ALL_FLAGS: &[LockFlags] = &[
    LockFlags::NOQUEUE,
    LockFlags::NOQUEUEBAST,
    LockFlags::QUECVT,
    LockFlags::CONVDEADLK,
    LockFlags::NODLCKWT,
    LockFlags::NOORDER,
    LockFlags::EXPEDITE,
    LockFlags::HEADQUE,
    LockFlags::ALTPR,
    LockFlags::ALTCW,
    LockFlags::OWN,
];

fn modes() -> impl Strategy<Value = Mode> {
    prop::sample::select(Mode::ALL.to_vec())
}

fn flags(choice: &'static [LockFlags]) -> impl Strategy<Value = LockFlags> {
    let pick = vec(prop::bool::weighted(0.12), choice.len());
    pick.prop_map(|picks| {
        let chosen = choice.iter().zip(picks).filter(|(_, picked)| *picked);
        chosen.fold(LockFlags::NONE, |all, (flag, _)| all | *flag)
    })
}

/// QUECVT, CONVDEADLK and EXPEDITE are refused on the wrong kind of request; keep some of that, not much.
fn mostly_allowed(flags: LockFlags, odd: bool, wrong: &[LockFlags]) -> LockFlags {
    if odd { flags } else { LockFlags(flags.0 & !wrong.iter().fold(0, |all, flag| all | flag.0)) }
}

fn ranges(any: bool) -> impl Strategy<Value = ByteRange> {
    let some = (0u64..20, 0u64..12).prop_map(|(start, len)| ByteRange::new(start, start + len).unwrap());
    let weight = if any { 3 } else { 0 };
    prop_oneof![1 => Just(ByteRange::ALL), weight => some]
}

fn lvbs() -> impl Strategy<Value = LvbUpdate> {
    prop_oneof![
        2 => Just(LvbUpdate::Keep),
        1 => vec(any::<u8>(), 1..4).prop_map(LvbUpdate::Write),
        1 => Just(LvbUpdate::Invalidate),
    ]
}

/// How far back in the queue's history a position lies; mostly not at all.
fn backs() -> impl Strategy<Value = u64> {
    prop_oneof![6 => Just(0), 1 => 1u64..20]
}

fn ops(shape: Shape) -> impl Strategy<Value = Op> {
    let lock = || 0..IDS;
    let odd = || prop::bool::weighted(0.05);
    let request = (lock(), 0..NAMES.len(), modes(), flags(shape.flags), ranges(shape.ranges), backs(), odd()).prop_map(
        |(lock, name, mode, flags, range, back, odd)| {
            let flags = mostly_allowed(flags, odd, &[LockFlags::QUECVT, LockFlags::CONVDEADLK]);
            let flags = if mode == Mode::NL { flags } else { mostly_allowed(flags, odd, &[LockFlags::EXPEDITE]) };
            Op::Request { lock, name, mode, flags, range, back }
        },
    );
    let convert = (lock(), modes(), flags(shape.flags), backs(), lvbs(), odd()).prop_map(
        |(lock, mode, flags, back, lvb, odd)| {
            let flags = mostly_allowed(flags, odd, &[LockFlags::EXPEDITE, LockFlags::OWN]);
            Op::Convert { lock, mode, flags, back, lvb }
        },
    );
    let doubt = if shape.doubts { 1 } else { 0 };
    prop_oneof![
        8 => request,
        8 => convert,
        3 => (lock(), lvbs()).prop_map(|(lock, lvb)| Op::Unlock { lock, lvb }),
        1 => lock().prop_map(|lock| Op::Cancel { lock }),
        1 => lock().prop_map(|lock| Op::Rebast { lock }),
        doubt => lock().prop_map(|lock| Op::Doubt { lock }),
        doubt * 2 => (lock(), any::<bool>(), any::<bool>())
            .prop_map(|(lock, orphan, granted_what_it_wanted)| Op::Settle { lock, orphan, granted_what_it_wanted }),
    ]
}

/// The two tables, and what the last operation did in both.
#[derive(Default)]
struct Pair {
    table: Table<()>,
    model: Model,
    /// Operations so far: part of each position, so that no two requests ever have the same.
    steps: u64,
}

impl Pair {
    /// Applies `op` to both and compares; returns the effects.
    fn apply(&mut self, op: &Op) -> Vec<Effect> {
        self.steps += 1;
        let place = |back: u64| (1 << 32) + ((self.steps.saturating_sub(back)) << 16) + self.steps;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        match op.clone() {
            Op::Request { lock, name, mode, flags, range, back } => {
                let (lock, name, position) = (id(lock), NAMES[name], place(back));
                let request = Request { lock, resource: resource(name), mode, flags, range, position, payload: () };
                let expected = self.model.request(request.clone(), name, &mut theirs);
                let outcome = self.table.request(request, &mut ours);
                assert_eq!(plain(outcome), plain(expected));
            }
            Op::Convert { lock, mode, flags, back, lvb } => {
                let position = place(back);
                let expected = self.model.convert(id(lock), mode, flags, position, lvb.clone(), &mut theirs);
                let outcome = self.table.convert(id(lock), mode, flags, position, lvb, &mut ours);
                assert_eq!(plain(outcome), plain(expected));
            }
            Op::Unlock { lock, lvb } => {
                let expected = self.model.unlock(id(lock), lvb.clone(), &mut theirs);
                let outcome = self.table.unlock(id(lock), lvb, &mut ours).map(|removed| removed.lvb);
                assert_eq!(outcome, expected);
            }
            Op::Cancel { lock } => {
                let expected = self.model.cancel(id(lock), &mut theirs);
                let outcome = self.table.cancel(id(lock), &mut ours).map(|cancelled| match cancelled {
                    Cancelled::NotWaiting => None,
                    Cancelled::Reverted { mode } => Some(Some(mode)),
                    Cancelled::Removed(_) => Some(None),
                });
                assert_eq!(outcome, expected);
            }
            Op::Rebast { lock } => {
                let expected = self.model.rebast(id(lock), &mut theirs);
                assert_eq!(self.table.rebast(id(lock), &mut ours), expected);
            }
            Op::Doubt { lock } => {
                let view = self.table.get(id(lock)).map(|view| (view.granted, view.wanted));
                let (granted, wanted) = view.unwrap_or_default();
                let expected = self.model.restate(id(lock), granted, wanted, Standing::Possible, &mut theirs);
                assert_eq!(self.table.set_standing(id(lock), Standing::Possible, &mut ours), expected);
            }
            Op::Settle { lock, orphan, granted_what_it_wanted } => {
                let view = self.table.get(id(lock)).map(|view| (view.granted, view.wanted, view.standing));
                let (mut granted, mut wanted, was) = view.unwrap_or((None, None, Standing::Possible));
                // What the record calls waiting may have been granted before the failover, if nobody else was in the way.
                let clear = self.is_clear(lock, wanted);
                if granted_what_it_wanted && clear && was == Standing::Possible && wanted.is_some() {
                    (granted, wanted) = (wanted, None);
                }
                let standing = if orphan { Standing::Orphan } else { Standing::Confirmed };
                let expected = self.model.restate(id(lock), granted, wanted, standing, &mut theirs);
                assert_eq!(self.table.restate(id(lock), granted, wanted, standing, &mut ours), expected);
            }
        }
        self.table.check_invariants().unwrap();
        assert_eq!(split(&ours), split(&theirs), "effects");
        self.compare();
        ours
    }

    /// Whether nobody else holds what conflicts with `mode` on the bytes of `lock`.
    fn is_clear(&self, lock: u64, mode: Option<Mode>) -> bool {
        let (Some(me), Some(mode)) = (self.table.get(id(lock)), mode) else { return false };
        self.table.locks_on(me.resource).filter(|other| other.lock != me.lock).all(|other| {
            let own = other.lock.session == me.lock.session;
            let compatible = own || other.granted.is_none_or(|held| held.compatible(mode));
            compatible || !other.range.overlaps(me.range)
        })
    }

    /// The queues in order, the holders as a set, the value blocks.
    fn compare(&self) {
        let mut seen = 0;
        for (name, node) in &self.model.nodes {
            let row = |item: &Item| (item.id, item.granted, item.wanted);
            let views: Vec<_> = self.table.locks_on(&resource(name)).collect();
            seen += views.len();
            let ours = |phase| {
                let in_phase = views.iter().filter(|view| {
                    let holds = view.standing == Standing::Possible || view.phase() == Phase::Granted;
                    if phase == Phase::Granted { holds } else { !holds && view.phase() == phase }
                });
                in_phase.map(|view| (view.lock, view.granted, view.wanted)).collect::<Vec<_>>()
            };
            assert_eq!(ours(Phase::Converting), node.converting.iter().map(row).collect::<Vec<_>>());
            assert_eq!(ours(Phase::Waiting), node.waiting.iter().map(row).collect::<Vec<_>>());
            let holders: BTreeSet<_> = ours(Phase::Granted).into_iter().collect();
            assert_eq!(holders, node.holders.iter().map(row).collect());
            let lvb = self.table.lvb(&resource(name)).map(|lvb| (lvb.bytes.clone(), lvb.valid, lvb.sequence.n));
            assert_eq!(lvb, node.lvb);
        }
        assert_eq!(seen, self.table.len());
        assert_eq!(self.table.resource_count(), self.model.nodes.len());
    }
}

/// The rule in words is for people; the model does not know it.
fn plain(outcome: Result<Outcome, TableError>) -> Result<Outcome, TableError> {
    outcome.map_err(|error| match error {
        TableError::Flags { flags, .. } => TableError::Flags { flags, rule: "" },
        other => other,
    })
}

/// Grants and the like in order; notices as a set, since their order among each other means nothing.
fn split(effects: &[Effect]) -> (Vec<Effect>, BTreeSet<(LockId, Mode)>) {
    let mut notices = BTreeSet::new();
    let mut rest = Vec::new();
    for effect in effects {
        match *effect {
            Effect::Bast { holder, wanted } => assert!(notices.insert((holder, wanted)), "{effect:?} twice"),
            other => rest.push(other),
        }
    }
    (rest, notices)
}

/// What a failover has to preserve of a lock; its position if it waits.
type Row = (LockId, Option<Mode>, Option<Mode>, Standing, Option<u64>);

fn picture(table: &Table<()>) -> Vec<Row> {
    let mut names: Vec<_> = table.resources().cloned().collect();
    names.sort();
    let mut rows = Vec::new();
    for name in names {
        let (mut holders, queued): (Vec<_>, Vec<_>) = table
            .locks_on(&name)
            .map(|v| (v.lock, v.granted, v.wanted, v.standing, v.wanted.map(|_| v.position)))
            .partition(|row| row.2.is_none() || row.3 == Standing::Possible);
        holders.sort_by_key(|row| row.0);
        rows.extend(holders);
        rows.extend(queued);
    }
    rows
}

fn rebuilt(table: &Table<()>, order: &[usize]) -> (Table<()>, Vec<Effect>) {
    let mut reports: Vec<_> = table.locks().collect();
    order.iter().enumerate().for_each(|(a, b)| {
        let len = reports.len();
        if len > 0 {
            reports.swap(a % len, b % len);
        }
    });
    let mut new = Table::new();
    for view in reports {
        let LockView { lock, granted, wanted, standing, position, range, flags, .. } = view;
        let lvb = table.lvb(view.resource).cloned();
        let resource = view.resource.clone();
        let report = Restored { lock, resource, granted, wanted, standing, position, range, flags, lvb, payload: () };
        new.restore(report).unwrap();
    }
    let mut effects = Vec::new();
    new.resume_all(&mut effects);
    new.check_invariants().unwrap();
    (new, effects)
}

const EVERYTHING: Shape = Shape { flags: ALL_FLAGS, ranges: false, doubts: false };
const WITH_RANGES: Shape = Shape { ranges: true, ..EVERYTHING };
const WITH_DOUBTS: Shape = Shape { ranges: true, doubts: true, ..EVERYTHING };
const NO_FLAGS: Shape = Shape { flags: &[], ..EVERYTHING };

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Section 7: outcomes, effects, queues and value blocks are the model's, with every flag.
    #[test]
    fn agrees_with_the_model(ops in vec(ops(EVERYTHING), 1..150)) {
        let mut pair = Pair::default();
        ops.iter().for_each(|op| drop(pair.apply(op)));
    }

    /// The same without flags, where queues get longer.
    #[test]
    fn agrees_with_the_model_without_flags(ops in vec(ops(NO_FLAGS), 1..150)) {
        let mut pair = Pair::default();
        ops.iter().for_each(|op| drop(pair.apply(op)));
    }

    /// The same with byte ranges.
    #[test]
    fn agrees_with_the_model_on_ranges(ops in vec(ops(WITH_RANGES), 1..150)) {
        let mut pair = Pair::default();
        ops.iter().for_each(|op| drop(pair.apply(op)));
    }

    /// The same with possible holders and orphans that come and go (section 6.4).
    #[test]
    fn agrees_with_the_model_on_possible_holders(ops in vec(ops(WITH_DOUBTS), 1..150)) {
        let mut pair = Pair::default();
        ops.iter().for_each(|op| drop(pair.apply(op)));
    }

    /// I8: a table rebuilt from reports, in whatever order they come, has the same queues, and nobody is granted anything
    /// that was not due before.
    #[test]
    fn failover_keeps_the_order(ops in vec(ops(WITH_DOUBTS), 1..100), order in vec(0usize..64, 0..20)) {
        let mut pair = Pair::default();
        ops.iter().for_each(|op| drop(pair.apply(op)));
        // Where many requests went ahead of one, there may be no place left between two: then they share one, and the
        // order of these two is not kept.
        let mut places = BTreeSet::new();
        let mut queued = pair.table.locks().filter(|view| view.wanted.is_some());
        prop_assume!(queued.all(|view| places.insert((view.resource.clone(), view.phase() as u8, view.position))));
        let (new, effects) = rebuilt(&pair.table, &order);
        let (rest, _) = split(&effects);
        prop_assert_eq!(rest, []);
        prop_assert_eq!(picture(&new), picture(&pair.table));
        for name in NAMES {
            prop_assert_eq!(new.lvb(&resource(name)), pair.table.lvb(&resource(name)));
        }
    }

    /// I7: when everybody who holds lets go, everybody who waits is served, exactly once; I8: and in order, except for
    /// those who asked otherwise.
    #[test]
    fn everybody_is_served(ops in vec(ops(WITH_RANGES), 1..100)) {
        let mut pair = Pair::default();
        ops.iter().for_each(|op| drop(pair.apply(op)));
        let waiting: Vec<_> = NAMES
            .iter()
            .flat_map(|name| pair.table.locks_on(&resource(name)).collect::<Vec<_>>())
            .filter(|view| view.wanted.is_some())
            .map(|view| (view.lock, view.resource.clone(), view.phase(), view.range, view.flags))
            .collect();
        let mut served = Vec::new();
        while !pair.table.is_empty() {
            let granted = pair.table.locks().find(|view| view.phase() == Phase::Granted).map(|view| view.lock.seq);
            // Nobody simply holds: those who convert block each other, which they do by their own wish only.
            let effects = match granted {
                Some(lock) => pair.apply(&Op::Unlock { lock, lvb: LvbUpdate::Keep }),
                None => {
                    let view = pair.table.locks().find(|v| v.flags.contains(LockFlags::NODLCKWT)).unwrap();
                    let lock = view.lock.seq;
                    served.push(view.lock);
                    pair.apply(&Op::Cancel { lock })
                }
            };
            served.extend(effects.iter().filter_map(|e| if let Effect::Granted(g) = e { Some(g.lock) } else { None }));
        }
        let all: BTreeSet<_> = waiting.iter().map(|w| w.0).collect();
        prop_assert_eq!(served.iter().copied().collect::<BTreeSet<_>>(), all);
        prop_assert_eq!(served.len(), waiting.len(), "each once");
        let turn = |lock| served.iter().position(|s| *s == lock).unwrap();
        let plain = |flags: LockFlags| flags == LockFlags(flags.0 & !(LockFlags::NOORDER.0 | LockFlags::NODLCKWT.0));
        for (n, a) in waiting.iter().enumerate() {
            for b in &waiting[n + 1..] {
                let meet = a.1 == b.1 && a.2 == b.2 && a.3.overlaps(b.3);
                if meet && plain(b.4) && a.4 != a.4 | LockFlags::NODLCKWT {
                    prop_assert!(turn(a.0) < turn(b.0), "{} before {}", a.0, b.0);
                }
            }
        }
    }
}
