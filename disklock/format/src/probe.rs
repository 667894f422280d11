//! Where a record may go.

/// The slots to try for a record whose home slot is `home`, in order: linear, wrapping around, each of the
/// `slot_count` slots once (section 3).
///
/// # Panics
/// When `home` is not below `slot_count`.
pub fn probe(home: u32, slot_count: u32) -> impl Iterator<Item = u32> {
    assert!(home < slot_count, "home slot {home} is not below {slot_count}");
    (home..slot_count).chain(0..home)
}
