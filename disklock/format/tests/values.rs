//! The values that cannot be wrong: what their constructors allow.

mod common;

use common::*;
use mxlock_format::*;
use proptest::prelude::*;

/// PROTOTYPE 8: a node is a slot number 0..=63, never a hash.
#[test]
fn nodes_are_0_to_63() {
    assert_eq!(NodeId::all().map(NodeId::get).collect::<Vec<_>>(), (0..64).collect::<Vec<_>>());
    for slot in [64, 255, 256, 0xdead_beef, u32::MAX] {
        assert_eq!(NodeId::new(slot), None);
        assert!(NodeId::try_from(slot).unwrap_err().contains("0..=63"));
    }
}

#[test]
fn lockspace_names_are_directory_names() {
    for good in ["a", "default", "db_1.prod-x", "...", &"x".repeat(32)] {
        assert_eq!(Superblock::validate_name(good), Ok(()), "{good}");
    }
    for bad in ["", ".", "..", "a/b", "a b", "a\0", "é", "a\n", &"x".repeat(33)] {
        let error = Superblock::validate_name(bad).unwrap_err();
        assert_eq!(error, SuperblockError::Name(bad.to_owned()));
        assert!(!error.to_string().contains(['\n', '\0']), "{error}");
    }
}

/// Section 5: the profiles are safe, and D >= 1.05 (L+G+R) is enforced to the millisecond.
#[test]
fn unsafe_timing_is_refused() {
    assert_eq!(Timing::FAST.check(), Ok(()));
    assert_eq!(Timing::SAN.check(), Ok(()));
    let fast = Timing::FAST;
    let tight = Timing { dead_ms: 13_650, ..fast };
    assert_eq!(tight.check(), Ok(()));
    let short = Timing { dead_ms: 13_649, ..fast };
    assert_eq!(short.check(), Err(TimingError::DeadShort { dead_ms: 13_649, needed_ms: 13_650 }));
    assert_eq!(Timing { grace_ms: 0, ..fast }.check(), Err(TimingError::TooShort));
    assert_eq!(Timing { renew_ms: 49, ..fast }.check(), Err(TimingError::TooShort));
    assert!(matches!(Timing { lease_ms: 3_999, ..fast }.check(), Err(TimingError::LeaseShort { .. })));
    assert!(matches!(Timing { suspect_ms: 10_999, ..fast }.check(), Err(TimingError::SuspectShort { .. })));
    let huge = Timing { renew_ms: u32::MAX, lease_ms: u32::MAX, grace_ms: u32::MAX, dead_ms: 1, suspect_ms: 1 };
    assert!(huge.check().is_err(), "the check itself must not overflow");
}

/// I2: tokens of a later table epoch are above all of an earlier one.
#[test]
fn tokens_grow_over_epochs() {
    let last = Token::new(Epoch(490_000), (1 << TOKEN_COUNTER_BITS) - 1);
    assert!(last < Token::new(Epoch(490_001), 0));
    assert_eq!(Token::new(MAX_EPOCH, (1 << TOKEN_COUNTER_BITS) - 1), Token(u64::MAX));
}

#[test]
fn names_are_bounded() {
    assert_eq!(QualifiedName::new(b"", b""), Err(ResourceError::EmptyName));
    assert_eq!(QualifiedName::new(b"", &[b'a'; 136]), Err(ResourceError::NameTooLong(136)));
    assert_eq!(QualifiedName::new(&[b'a'; 65], b"a"), Err(ResourceError::NamespaceTooLong(65)));
    assert_eq!(QualifiedName::new(b"a\0b", b"a"), Err(ResourceError::Nul));
    assert_eq!(QualifiedName::new(b"a", b"a\0"), Err(ResourceError::Nul));
    let longest = QualifiedName::new(&[1; MAX_NAMESPACE_BYTES], &[255; MAX_NAME_BYTES]).unwrap();
    assert_eq!(longest.joined().len(), 200);
    let id = ResourceId { volume: 0, ino: 0, offset: 0, ag: 0, kind: ResourceKind::Name };
    assert_eq!(Resource::typed(id), Err(ResourceError::KindName));
}

proptest! {
    /// Ballots are unique per node: k * 64 + node, above the one before, and never 0.
    #[test]
    fn ballots_grow_and_name_their_node(before in 0..u64::MAX / 2, node in any_node()) {
        let ballot = Ballot(before).next_for(node);
        prop_assert!(ballot > Ballot(before) && ballot != Ballot::NONE);
        prop_assert_eq!(ballot.node(), node);
        prop_assert!(ballot.0 - before <= 2 * MAX_NODES as u64);
    }

    /// A joined name splits into the parts that it was made of.
    #[test]
    fn names_split_as_they_were_joined(name in any_name()) {
        prop_assert_eq!(QualifiedName::from_joined(name.joined()), Ok(name.clone()));
        prop_assert_eq!(QualifiedName::new(name.namespace(), name.name()), Ok(name));
    }

    /// Two ranges overlap exactly when some byte is in both.
    #[test]
    fn ranges_overlap_where_they_share_a_byte(a in 0u64..20, b in 0u64..20, c in 0u64..20, d in 0u64..20) {
        let (Some(first), Some(second)) = (ByteRange::new(a, b), ByteRange::new(c, d)) else { return Ok(()) };
        let inside = |range: ByteRange, byte| (range.start()..=range.end()).contains(&byte);
        let shared = (0..20).any(|byte| inside(first, byte) && inside(second, byte));
        prop_assert_eq!(first.overlaps(second), shared);
        prop_assert_eq!(second.overlaps(first), shared);
        let contained = (c..=d).all(|byte| inside(first, byte));
        prop_assert_eq!(first.contains(second), contained);
    }

    /// A set of nodes holds what was put in and not taken out.
    #[test]
    fn node_sets_are_sets(bits: u64, node in any_node()) {
        let set = NodeSet(bits);
        prop_assert_eq!(set.iter().collect::<NodeSet>(), set);
        prop_assert_eq!(set.iter().count(), set.len());
        prop_assert!(set.with(node).contains(node) && !set.without(node).contains(node));
        prop_assert_eq!(set.with(node).without(node), set.without(node));
        prop_assert_eq!(set.is_empty(), bits == 0);
    }
}
