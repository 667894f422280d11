//! The rules of fcntl(2): against a map of bytes, on the lock table of the daemon, and against the kernel's own locks on a
//! file (F_OFD_SETLK).

use super::RangeMode::{Exclusive, Shared};
use super::plan::Plan;
use super::set::{How, Locks, Set};
use super::*;
use mxlock_dlm::table::{LvbUpdate, Outcome, Payload, Request, Table};
use mxlock_format::{QualifiedName, SessionId};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use proptest::collection::vec;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::fs::File;

/// Bytes 0 to LAST - 1, and all from LAST on as one.
const LAST: u64 = 20;
const OWNERS: usize = 4;

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::new(start, end).expect("a start before its end")
}

fn byte(at: u64) -> u64 {
    if at == LAST { u64::MAX } else { at }
}

/// What each byte is locked as.
type Bytes = Vec<Option<RangeMode>>;

fn paint(bytes: &mut Bytes, range: ByteRange, mode: Option<RangeMode>) {
    (0..=LAST).filter(|&at| covers(range, at)).for_each(|at| bytes[at as usize] = mode);
}

fn covers(range: ByteRange, at: u64) -> bool {
    range.start() <= at && byte(at) <= range.end()
}

fn bytes_of(held: &[(ByteRange, RangeMode)]) -> Bytes {
    let mut bytes = vec![None; LAST as usize + 1];
    held.iter().for_each(|&(range, mode)| paint(&mut bytes, range, Some(mode)));
    bytes
}

#[derive(Debug)]
struct Owner(u64);

impl Payload for Owner {
    fn transaction(&self) -> u64 {
        self.0
    }
}

/// The daemon's table, and what it must never show.
struct World {
    table: RefCell<Table<Owner>>,
    next: Cell<u64>,
    /// The request of this number fails.
    fails: Cell<Option<usize>>,
    /// What the owner whose turn it is had, and is to have: each byte stays at least as well locked as the weaker of both.
    floor: RefCell<(Bytes, Bytes)>,
}

/// An owner's way to the table; two owners each share a session.
struct Way<'w>(&'w World, usize);

fn resource() -> Resource {
    Resource::named(QualifiedName::new(b"", b"r").expect("a name"))
}

#[derive(PartialEq, Eq, Debug)]
enum Failure {
    Busy,
    Planned,
}

impl Way<'_> {
    fn check(&self) {
        let (world, owner) = (self.0, self.1);
        let table = world.table.borrow();
        table.check_invariants().expect("the table is in order");
        let mut now: Bytes = vec![None; LAST as usize + 1];
        for view in table.locks().filter(|view| view.payload.0 == owner as u64 + 1) {
            let mode = if view.granted == Some(Mode::EX) { Exclusive } else { Shared };
            (0..=LAST).filter(|&at| covers(view.range, at)).for_each(|at| {
                let byte = &mut now[at as usize];
                *byte = (*byte).max(Some(mode));
            });
        }
        let (before, after) = &*world.floor.borrow();
        for at in 0..now.len() {
            assert!(now[at] >= before[at].min(after[at]), "byte {at} is {:?}, from {before:?} to {after:?}", now[at]);
        }
    }
}

impl Locks for Way<'_> {
    type Held = LockId;
    type Error = Failure;

    fn acquire(&self, range: ByteRange, mode: RangeMode, how: How) -> Result<LockId, Failure> {
        let Way(world, owner) = *self;
        assert_eq!(how.wait, Some(Duration::ZERO), "nobody waits here");
        match world.fails.get() {
            Some(0) => return Err(Failure::Planned),
            left => world.fails.set(left.map(|left| left - 1)),
        }
        world.next.set(world.next.get() + 1);
        let seq = world.next.get();
        let lock = LockId { session: SessionId(owner as u64 / 2), seq };
        let order = if how.out_of_turn { LockFlags::NOORDER } else { LockFlags::NONE };
        let flags = LockFlags::OWN | LockFlags::NOQUEUE | order;
        let payload = Owner(owner as u64 + 1);
        let position = (1 << 32) + seq * 16;
        let request = Request { lock, resource: resource(), mode: mode.mode(), flags, range, position, payload };
        let outcome = world.table.borrow_mut().request(request, &mut Vec::new()).expect("a request in order");
        self.check();
        if matches!(outcome, Outcome::Granted(_)) { Ok(lock) } else { Err(Failure::Busy) }
    }

    fn release(&self, lock: LockId) {
        self.0.table.borrow_mut().unlock(lock, LvbUpdate::Keep, &mut Vec::new()).expect("it is held");
        self.check();
    }

    fn would_wait(error: &Failure) -> bool {
        *error == Failure::Busy
    }
}

#[derive(Clone, Debug)]
struct Step {
    owner: usize,
    range: ByteRange,
    mode: Option<RangeMode>,
    fails: Option<usize>,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let span = (0..=LAST, 0..=LAST).prop_map(|(a, b)| range(a.min(b), byte(a.max(b))));
    let mode = prop::sample::select(vec![Some(Shared), Some(Shared), Some(Exclusive), None]);
    let fails = prop_oneof![5 => Just(None), 1 => (0usize..4).prop_map(Some)];
    let step =
        (0..OWNERS, span, mode, fails).prop_map(|(owner, range, mode, fails)| Step { owner, range, mode, fails });
    vec(step, 1..50)
}

/// The kernel's locks on a file, one open file description for each owner.
struct Kernel(Vec<File>);

impl Kernel {
    fn new() -> Kernel {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let open = || File::options().read(true).write(true).open(file.path()).expect("the file");
        Kernel((0..OWNERS).map(|_| open()).collect())
    }

    fn ask(range: ByteRange, mode: Option<RangeMode>) -> libc::flock {
        let kind = match mode {
            None => libc::F_UNLCK,
            Some(Shared) => libc::F_RDLCK,
            Some(Exclusive) => libc::F_WRLCK,
        };
        libc::flock {
            l_type: kind as i16,
            l_whence: libc::SEEK_SET as i16,
            l_start: range.start() as i64,
            // 0: to the end, wherever that is.
            l_len: if range.end() == u64::MAX { 0 } else { (range.end() - range.start() + 1) as i64 },
            l_pid: 0,
        }
    }

    fn set(&self, owner: usize, range: ByteRange, mode: Option<RangeMode>) -> bool {
        match fcntl(&self.0[owner], FcntlArg::F_OFD_SETLK(&Kernel::ask(range, mode))) {
            Ok(_) => true,
            Err(Errno::EAGAIN | Errno::EACCES) => false,
            Err(other) => panic!("F_OFD_SETLK: {other}"),
        }
    }

    /// Whether somebody else is in the way.
    fn blocked(&self, owner: usize, range: ByteRange, mode: RangeMode) -> bool {
        let mut ask = Kernel::ask(range, Some(mode));
        fcntl(&self.0[owner], FcntlArg::F_OFD_GETLK(&mut ask)).expect("F_OFD_GETLK");
        i32::from(ask.l_type) != libc::F_UNLCK
    }
}

fn run(steps: &[Step]) -> Result<(), TestCaseError> {
    let clear = || vec![None; LAST as usize + 1];
    let world = World {
        table: RefCell::new(Table::new()),
        next: Cell::new(0),
        fails: Cell::new(None),
        floor: RefCell::new((clear(), clear())),
    };
    let kernel = Kernel::new();
    let mut sets: Vec<Set<LockId>> = (0..OWNERS).map(|_| Set::new()).collect();
    let mut maps: Vec<Bytes> = vec![clear(); OWNERS];
    for Step { owner, range, mode, fails } in steps.iter().cloned() {
        let others = |at: u64| (0..OWNERS).filter(|&other| other != owner).filter_map(|o| maps[o][at as usize]).max();
        let in_the_way =
            |mode: RangeMode, held: Option<RangeMode>| held.is_some_and(|held| held.max(mode) == Exclusive);
        let allowed =
            mode.is_none_or(|mode| (0..=LAST).filter(|&at| covers(range, at)).all(|at| !in_the_way(mode, others(at))));
        if let Some(mode) = mode {
            prop_assert_eq!(kernel.blocked(owner, range, mode), !allowed, "F_GETLK");
        }
        let mut after = maps[owner].clone();
        paint(&mut after, range, mode);
        *world.floor.borrow_mut() = (maps[owner].clone(), after.clone());
        world.fails.set(fails);
        let result = sets[owner].change(&Way(&world, owner), range, mode, Some(Duration::ZERO));
        match result {
            Ok(()) => {
                prop_assert!(allowed, "{:?} was granted", mode);
                prop_assert!(kernel.set(owner, range, mode), "the kernel refuses");
                maps[owner] = after;
            }
            Err(Failure::Busy) => {
                prop_assert!(!allowed, "{:?} was refused", mode);
                prop_assert!(!kernel.set(owner, range, mode), "the kernel grants");
            }
            Err(Failure::Planned) => prop_assert!(fails.is_some()),
        }
        for (set, map) in sets.iter().zip(&maps) {
            prop_assert_eq!(&bytes_of(&set.held()), map);
        }
        // No lock is left behind, and no more than it takes: what touches is one.
        let locks = world.table.borrow().len();
        prop_assert_eq!(locks, sets.iter().map(|set| set.pieces.len()).sum::<usize>());
        for set in &sets {
            prop_assert_eq!(set.held().len(), set.pieces.len(), "{:?}", &set.pieces);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever four owners do, what is granted, refused and held is what the kernel grants, refuses and holds; no byte
    /// that stays locked is let go of; what fails half-way changes nothing.
    #[test]
    fn as_the_kernel_does(steps in steps()) {
        run(&steps)?;
    }
}

fn plan(held: &[(ByteRange, RangeMode)], range: ByteRange, mode: Option<RangeMode>) -> Plan {
    let pieces: Vec<plan::Piece<()>> =
        held.iter().map(|&(range, mode)| plan::Piece { range, mode, lock: () }).collect();
    Plan::new(&pieces, range, mode)
}

/// fcntl(2): "a single byte in the middle of a range": one lock becomes three.
#[test]
fn a_downgrade_in_the_middle_divides() {
    let plan = plan(&[(range(0, 99), Exclusive)], range(50, 59), Some(Shared));
    assert_eq!(plan.wanted, Some((range(50, 59), Shared)));
    assert_eq!(plan.rest, [(range(0, 49), Exclusive), (range(60, 99), Exclusive)]);
    assert_eq!((plan.replaced, plan.has_some, plan.merged), (vec![0], true, None));
}

#[test]
fn what_is_locked_already_changes_nothing() {
    assert_eq!(plan(&[(range(0, 99), Shared)], range(0, 99), Some(Shared)), Plan::default());
    assert_eq!(plan(&[(range(0, 99), Shared)], range(100, 120), None), Plan::default());
}

/// A gap between two is closed by one lock over all three; until it is granted both stay.
#[test]
fn neighbours_are_joined() {
    let plan = plan(&[(range(0, 9), Shared), (range(20, u64::MAX), Shared)], range(10, 19), Some(Shared));
    assert_eq!((plan.wanted, plan.merged), (Some((range(10, 19), Shared)), Some(ByteRange::ALL)));
    assert_eq!((plan.replaced, plan.merging, plan.has_some), (vec![], vec![0, 1], false));
}
