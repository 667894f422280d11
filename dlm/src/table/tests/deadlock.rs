//! Deadlocks over several resources (section 7, "Deadlock"): by example, and against a search that looks at every edge.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// The transaction of a lock.
#[derive(Debug)]
struct Tx(u64);

impl Payload for Tx {
    fn transaction(&self) -> u64 {
        self.0
    }
}

struct Yard {
    table: Table<Tx>,
    position: u64,
}

impl Yard {
    fn new() -> Yard {
        Yard { table: Table::new(), position: 1 << 32 }
    }

    /// Session `session` asks with its lock `seq`; what came of it.
    fn ask(&mut self, session: u64, seq: u64, name: &str, mode: Mode, flags: LockFlags, tx: u64) -> Outcome {
        self.ask_range(session, seq, name, mode, flags, tx, ByteRange::ALL)
    }

    #[allow(clippy::too_many_arguments)]
    fn ask_range(
        &mut self,
        session: u64,
        seq: u64,
        name: &str,
        mode: Mode,
        flags: LockFlags,
        tx: u64,
        range: ByteRange,
    ) -> Outcome {
        self.position += 16;
        let (lock, resource) = (lock(session, seq), resource(name));
        let request = Request { lock, resource, mode, flags, range, position: self.position, payload: Tx(tx) };
        self.table.request(request, &mut Vec::new()).unwrap()
    }

    fn ex(&mut self, session: u64, seq: u64, name: &str) -> Outcome {
        self.ask(session, seq, name, Mode::EX, LockFlags::NONE, 0)
    }

    /// The sequence numbers of a cycle through the owner of a lock, in ascending order.
    fn cycle(&self, session: u64, seq: u64) -> Option<Vec<u64>> {
        let mut found: Vec<u64> = self.table.find_cycle(lock(session, seq))?.iter().map(|lock| lock.seq).collect();
        found.sort();
        Some(found)
    }
}

fn lock(session: u64, seq: u64) -> LockId {
    LockId { session: SessionId(session), seq }
}

/// Two sessions, two resources, crosswise: found when it closes, not before.
#[test]
fn two_sessions_crosswise() {
    let mut yard = Yard::new();
    yard.ex(1, 1, "a");
    yard.ex(2, 2, "b");
    yard.ex(1, 3, "b");
    assert_eq!(yard.cycle(1, 3), None);
    yard.ex(2, 4, "a");
    assert_eq!(yard.cycle(2, 4), Some(vec![3, 4]));
    yard.table.cancel(lock(2, 4), &mut Vec::new()).unwrap();
    assert_eq!(yard.cycle(1, 3), None);
}

/// The queue's order is an edge: 3 is compatible with the holder, but waits behind 2, which waits for it.
#[test]
fn order_in_a_queue_is_an_edge() {
    let mut yard = Yard::new();
    yard.ask(1, 1, "a", Mode::PR, LockFlags::NONE, 0);
    yard.ex(3, 2, "b");
    yard.ex(2, 3, "a");
    yard.ask(3, 4, "a", Mode::PR, LockFlags::NONE, 0);
    yard.ex(1, 5, "b");
    assert_eq!(yard.cycle(1, 5), Some(vec![4, 5]));
    // With NOORDER it would not have waited.
    let mut yard = Yard::new();
    yard.ask(1, 1, "a", Mode::PR, LockFlags::NONE, 0);
    yard.ex(3, 2, "b");
    yard.ex(2, 3, "a");
    assert!(matches!(yard.ask(3, 4, "a", Mode::PR, LockFlags::NOORDER, 0), Outcome::Granted(_)));
    yard.ex(1, 5, "b");
    assert_eq!(yard.cycle(1, 5), None);
}

/// A session does not wait for itself; a transaction does, over all its sessions.
#[test]
fn owners_are_transactions_where_given() {
    let mut yard = Yard::new();
    yard.ex(1, 1, "a");
    yard.ex(1, 2, "a");
    assert_eq!(yard.cycle(1, 2), None);
    let mut yard = Yard::new();
    yard.ask(1, 1, "a", Mode::EX, LockFlags::NONE, 9);
    yard.ask(1, 2, "a", Mode::EX, LockFlags::NONE, 9);
    assert_eq!(yard.cycle(1, 2), Some(vec![2]));
    // Two sessions of one transaction against a third one: no session by itself is in a cycle.
    let mut yard = Yard::new();
    yard.ask(1, 1, "a", Mode::EX, LockFlags::NONE, 9);
    yard.ex(3, 2, "b");
    yard.ask(2, 3, "b", Mode::EX, LockFlags::NONE, 9);
    yard.ex(3, 4, "a");
    assert_eq!(yard.cycle(3, 4), Some(vec![3, 4]));
}

/// NODLCKWT: the waiting request keeps nobody from anything. NODLCKBLK: the lock goes anyway.
#[test]
fn requests_and_locks_can_be_left_out() {
    for (waiting, blocking) in [(LockFlags::NODLCKWT, LockFlags::NONE), (LockFlags::NONE, LockFlags::NODLCKBLK)] {
        let mut yard = Yard::new();
        yard.ask(1, 1, "a", Mode::EX, blocking, 0);
        yard.ex(2, 2, "b");
        yard.ask(1, 3, "b", Mode::EX, waiting, 0);
        yard.ex(2, 4, "a");
        assert_eq!(yard.cycle(2, 4), None);
        assert_eq!(yard.cycle(1, 3), None);
    }
}

/// Byte ranges that do not meet are in nobody's way.
#[test]
fn ranges_that_do_not_meet_are_no_edges() {
    let range = |start, end| ByteRange::new(start, end).unwrap();
    for (theirs, closed) in [(range(50, 99), true), (range(100, 150), false)] {
        let mut yard = Yard::new();
        yard.ask_range(1, 1, "a", Mode::EX, LockFlags::NONE, 0, range(0, 99));
        yard.ex(2, 2, "b");
        yard.ex(1, 3, "b");
        yard.ask_range(2, 4, "a", Mode::EX, LockFlags::NONE, 0, theirs);
        assert_eq!(yard.cycle(1, 3).is_some(), closed);
    }
}

/// A conversion waits for the holders that its new mode conflicts with, wherever they wait.
#[test]
fn conversions_are_edges() {
    let mut yard = Yard::new();
    yard.ask(1, 1, "a", Mode::PR, LockFlags::NONE, 0);
    yard.ask(2, 2, "a", Mode::PR, LockFlags::NONE, 0);
    yard.ex(1, 3, "b");
    yard.ex(2, 4, "b");
    let convert = |yard: &mut Yard, id| {
        yard.position += 16;
        yard.table.convert(id, Mode::EX, LockFlags::NONE, yard.position, LvbUpdate::Keep, &mut Vec::new()).unwrap()
    };
    assert!(matches!(convert(&mut yard, lock(1, 1)), Outcome::Queued { .. }));
    assert_eq!(yard.cycle(1, 1), Some(vec![1, 4]));
}

/// A request ahead that is compatible is only to be served, not to be released: 3 waits behind 1 for what 4 holds, and 1
/// for 3 elsewhere. When 4 goes, both are served here.
#[test]
fn a_compatible_request_ahead_is_no_edge_by_itself() {
    for (mode, closed) in [(Mode::PR, false), (Mode::EX, true)] {
        let mut yard = Yard::new();
        yard.ex(4, 1, "a");
        yard.ex(3, 2, "b");
        yard.ask(1, 3, "a", mode, LockFlags::NONE, 0);
        yard.ask(3, 4, "a", Mode::PR, LockFlags::NONE, 0);
        yard.ex(1, 5, "b");
        assert_eq!(yard.cycle(1, 5).is_some(), closed);
    }
}

/// A herd on one resource: nobody has a second lock, so nobody looks at the queue.
#[test]
fn a_herd_is_cheap_and_in_no_cycle() {
    let mut yard = Yard::new();
    for session in 1..2_000 {
        yard.ex(session, 1, "a");
        assert_eq!(yard.cycle(session, 1), None);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ask { session: u64, name: usize, mode: Mode, flags: LockFlags, tx: u64, range: ByteRange },
    Convert { lock: usize, mode: Mode, flags: LockFlags },
    Unlock { lock: usize },
    Cancel { lock: usize },
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn steps() -> impl Strategy<Value = Step> {
    let mode = || prop::sample::select(Mode::ALL.to_vec());
    let flags = || {
        let plain = LockFlags::NONE;
        let odd = [LockFlags::NODLCKWT, LockFlags::NODLCKBLK, LockFlags::NOORDER, LockFlags::HEADQUE, LockFlags::OWN];
        prop_oneof![6 => Just(plain), 2 => prop::sample::select(odd.to_vec())]
    };
    let range = prop_oneof![
        8 => Just(ByteRange::ALL),
        1 => (0u64..20, 0u64..9).prop_map(|(start, len)| ByteRange::new(start, start + len).unwrap()),
    ];
    let tx = prop_oneof![4 => Just(0u64), 1 => 1u64..4];
    prop_oneof![
        6 => (1u64..7, 0..NAMES.len(), mode(), flags(), tx, range)
            .prop_map(|(session, name, mode, flags, tx, range)| Step::Ask { session, name, mode, flags, tx, range }),
        3 => (any::<prop::sample::Index>(), mode(), flags())
            .prop_map(|(lock, mode, flags)| Step::Convert { lock: lock.index(64), mode, flags }),
        1 => any::<prop::sample::Index>().prop_map(|lock| Step::Unlock { lock: lock.index(64) }),
        1 => any::<prop::sample::Index>().prop_map(|lock| Step::Cancel { lock: lock.index(64) }),
    ]
}

fn owner_of(view: &LockView<'_, Tx>) -> Owner {
    match view.payload.0 {
        0 => Owner::Session(view.lock.session),
        tx => Owner::Transaction(tx),
    }
}

/// What a waiting lock needs out of its way, from the definition.
fn needs(table: &Table<Tx>, lock: LockId) -> BTreeSet<LockId> {
    let wanted = table.get(lock).unwrap().wanted.unwrap();
    let mut needs = BTreeSet::new();
    for (blocker, why) in table.blockers(lock) {
        let view = table.get(blocker).unwrap();
        let its = view.wanted.filter(|_| is_ahead(table, lock, blocker));
        if why == Blocking::Holds || its.is_some_and(|mode| !mode.compatible(wanted)) {
            needs.insert(blocker);
        }
        if its.is_some() {
            needs.extend(self::needs(table, blocker).into_iter().filter(|&need| need != lock));
        }
    }
    needs
}

/// Whether `other` is to be served before `lock`.
fn is_ahead(table: &Table<Tx>, lock: LockId, other: LockId) -> bool {
    let (me, it) = (table.get(lock).unwrap(), table.get(other).unwrap());
    let place = |view: &LockView<'_, Tx>| {
        let queue = table.locks_on(view.resource).filter(|view| view.wanted.is_some());
        queue.into_iter().position(|other| other.lock == view.lock)
    };
    !me.flags.contains(LockFlags::NOORDER) && place(&it) < place(&me)
}

/// Every edge of the graph.
fn edges(table: &Table<Tx>) -> BTreeMap<Owner, BTreeSet<Owner>> {
    edges_but(table, &[LockFlags::NODLCKWT, LockFlags::NODLCKBLK])
}

/// Every edge that these flags, if any, do not leave out.
fn edges_but(table: &Table<Tx>, flags: &[LockFlags]) -> BTreeMap<Owner, BTreeSet<Owner>> {
    let out = |view: &LockView<'_, Tx>, flag| flags.contains(&flag) && view.flags.contains(flag);
    let mut edges: BTreeMap<Owner, BTreeSet<Owner>> = BTreeMap::new();
    for waiting in table.locks().filter(|view| view.wanted.is_some() && !out(view, LockFlags::NODLCKWT)) {
        let me = owner_of(&waiting);
        for blocker in needs(table, waiting.lock) {
            let blocker = table.get(blocker).unwrap();
            let other = owner_of(&blocker);
            let counts = !out(&blocker, LockFlags::NODLCKBLK);
            if counts && (other != me || matches!(me, Owner::Transaction(_))) {
                edges.entry(me).or_default().insert(other);
            }
        }
    }
    edges
}

/// Everybody that can be reached from `from` in at least one step.
fn reachable(edges: &BTreeMap<Owner, BTreeSet<Owner>>, from: Owner) -> BTreeSet<Owner> {
    let mut found = BTreeSet::new();
    let mut todo = vec![from];
    while let Some(owner) = todo.pop() {
        for next in edges.get(&owner).into_iter().flatten() {
            if found.insert(*next) {
                todo.push(*next);
            }
        }
    }
    found
}

fn check(table: &Table<Tx>) -> Result<(), TestCaseError> {
    table.check_invariants().map_err(|violation| TestCaseError::fail(violation.to_string()))?;
    let edges = edges(table);
    for view in table.locks() {
        let owner = owner_of(&view);
        let cycle = table.find_cycle(view.lock);
        prop_assert_eq!(cycle.is_some(), reachable(&edges, owner).contains(&owner), "{:?}: {:?}", owner, edges);
        let Some(cycle) = cycle else { continue };
        prop_assert_eq!(owner_of(&table.get(cycle[0]).unwrap()), owner);
        for (at, lock) in cycle.iter().enumerate() {
            let here = table.get(*lock).unwrap();
            let next = owner_of(&table.get(cycle[(at + 1) % cycle.len()]).unwrap());
            prop_assert!(here.wanted.is_some() && !here.flags.contains(LockFlags::NODLCKWT));
            prop_assert!(reachable(&edges, owner_of(&here)).contains(&next));
        }
    }
    Ok(())
}

const EVERYTHING: ChainLimits = ChainLimits { locks: usize::MAX, blockers: usize::MAX, steps: usize::MAX };

/// What people are shown are the detector's edges, followed to their ends, and the cycles that flags keep it from
/// breaking.
fn check_chains(table: &Table<Tx>) -> Result<(), TestCaseError> {
    let edges = edges_but(table, &[]);
    for name in NAMES.map(resource) {
        let chain = table.chain(&name, &EVERYTHING);
        prop_assert!(chain.complete && chain.omitted == 0);
        let listed: BTreeSet<LockId> = chain.links.iter().map(|link| link.lock).collect();
        prop_assert_eq!(listed.len(), chain.links.len(), "each lock once");
        let here: Vec<LockId> = table.locks_on(&name).map(|view| view.lock).collect();
        let first: Vec<LockId> = chain.links.iter().map(|link| link.lock).take(here.len()).collect();
        prop_assert_eq!(first, here);
        for link in &chain.links {
            let blockers: Vec<_> = table.blockers(link.lock).collect();
            prop_assert_eq!(&link.blockers, &blockers);
            prop_assert!(blockers.iter().all(|(blocker, _)| listed.contains(blocker)));
        }
        // Whom the waiters on this resource wait for, near or far.
        let mut waited_for = BTreeSet::new();
        for waiting in table.locks_on(&name).filter(|view| view.wanted.is_some()) {
            for need in needs(table, waiting.lock) {
                let owner = owner_of(&table.get(need).unwrap());
                waited_for.insert(owner);
                waited_for.extend(reachable(&edges, owner));
            }
        }
        for owner in &waited_for {
            for view in table.locks().filter(|view| view.wanted.is_some() && owner_of(view) == *owner) {
                prop_assert!(listed.contains(&view.lock), "{:?} waits for {:?}, which is not shown", owner, view.lock);
            }
        }
        let closed = waited_for.iter().any(|owner| reachable(&edges, *owner).contains(owner));
        prop_assert_eq!(chain.cycle.is_some(), closed);
        for (lock, next) in chain.cycle.iter().flat_map(|cycle| cycle.iter().zip(cycle.iter().cycle().skip(1))) {
            let (owner, next) = (owner_of(&table.get(*lock).unwrap()), owner_of(&table.get(*next).unwrap()));
            prop_assert!(listed.contains(lock));
            prop_assert!(reachable(&edges, owner).contains(&next));
        }
    }
    Ok(())
}

/// A million locks on one resource: what is listed is bounded, and says so.
#[test]
fn a_chain_has_bounds() {
    let mut yard = Yard::new();
    for session in 1..100 {
        yard.ask(session, 1, "a", Mode::PR, LockFlags::NONE, 0);
    }
    for session in 100..200 {
        yard.ex(session, 1, "a");
    }
    let limits = ChainLimits { locks: 40, blockers: 3, steps: 1_000_000 };
    let chain = yard.table.chain(&resource("a"), &limits);
    assert!(chain.links.len() <= 40 && chain.links.len() + chain.omitted == 199, "{chain:?}");
    let first_writer =
        chain.links.iter().find(|link| link.lock == lock(100, 1)).expect("the first that waits is shown");
    assert_eq!((first_writer.blockers.len(), first_writer.blockers_omitted), (3, 96));
    assert!(chain.cycle.is_none() && chain.complete);
    let chain = yard.table.chain(&resource("a"), &ChainLimits { steps: 10, ..limits });
    assert!(!chain.complete);
    assert_eq!(yard.table.chain(&resource("b"), &limits), Chain { complete: true, ..Chain::default() });
}

/// Takes a step.
fn take(yard: &mut Yard, known: &mut Vec<LockId>, step: Step, seq: u64) {
    match step {
        Step::Ask { session, name, mode, flags, tx, range } => {
            yard.ask_range(session, seq, NAMES[name], mode, flags, tx, range);
            known.push(lock(session, seq));
        }
        Step::Convert { lock, mode, flags } if !known.is_empty() => {
            yard.position += 16;
            let id = known[lock % known.len()];
            let _ = yard.table.convert(id, mode, flags, yard.position, LvbUpdate::Keep, &mut Vec::new());
        }
        Step::Unlock { lock } if !known.is_empty() => {
            let _ = yard.table.unlock(known[lock % known.len()], LvbUpdate::Keep, &mut Vec::new());
        }
        Step::Cancel { lock } if !known.is_empty() => {
            let _ = yard.table.cancel(known[lock % known.len()], &mut Vec::new());
        }
        _ => {}
    }
}

/// Refuses the youngest of each cycle that is found, as the master does.
fn break_all(table: &mut Table<Tx>) {
    while let Some(cycle) = table.next_cycle() {
        let youngest = cycle.into_iter().max_by_key(|lock| table.get(*lock).unwrap().position).unwrap();
        table.cancel(youngest, &mut Vec::new()).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Every cycle is found by the operation that closes it.
    #[test]
    fn no_cycle_is_missed(steps in vec(steps(), 1..60)) {
        let mut yard = Yard::new();
        let mut known: Vec<LockId> = Vec::new();
        for (step, seq) in steps.into_iter().zip(1u64..) {
            take(&mut yard, &mut known, step, seq);
            break_all(&mut yard.table);
            let edges = edges(&yard.table);
            for owner in edges.keys() {
                prop_assert!(!reachable(&edges, *owner).contains(owner), "{:?}: {:?}", owner, edges);
            }
        }
    }

    /// A cycle is found exactly where one is, and what is returned is one.
    #[test]
    fn cycles_are_found_exactly(steps in vec(steps(), 1..60)) {
        let mut yard = Yard::new();
        let mut known: Vec<LockId> = Vec::new();
        for (step, seq) in steps.into_iter().zip(1u64..) {
            take(&mut yard, &mut known, step, seq);
            check(&yard.table)?;
        }
        check_chains(&yard.table)?;
    }
}
