//! What holds for every value and for every sector (DESIGN section 3, I11).

mod common;

use common::*;
use mxlock_format::*;
use proptest::prelude::*;

/// What a decoder made of 512 bytes; if it believed them, they must be exactly the image of what it returned.
fn believed_heartbeat(node: NodeId, bytes: &[u8]) -> Result<Option<Fault>, TestCaseError> {
    match Heartbeat::decode(node, bytes) {
        Ok(heartbeat) => prop_assert_eq!(&heartbeat.encode().0[..], bytes),
        Err(error) => {
            let place = format!("node {node}");
            prop_assert!(error.to_string().contains(&place));
            return Ok(Some(error.fault));
        }
    }
    Ok(None)
}

fn believed_record(slot: u32, bytes: &[u8]) -> Result<Option<Fault>, TestCaseError> {
    match LockRecord::decode(slot, bytes) {
        Ok(None) => prop_assert!(bytes.iter().all(|&b| b == 0)),
        Ok(Some(record)) => prop_assert_eq!(&record.encode().0[..], bytes),
        Err(error) => {
            let place = format!("slot {slot}");
            prop_assert!(error.to_string().contains(&place));
            return Ok(Some(error.fault));
        }
    }
    Ok(None)
}

proptest! {
    /// Every heartbeat comes back as it went in, from both sector sizes.
    #[test]
    fn heartbeats_round_trip(heartbeat in any_heartbeat()) {
        let image = heartbeat.encode();
        prop_assert_eq!(Heartbeat::decode(heartbeat.node, image.as_ref()), Ok(heartbeat.clone()));
        let mut sector = [0xff; 4096];
        fill_sector(&image, &mut sector);
        prop_assert_eq!(Heartbeat::decode(heartbeat.node, &sector), Ok(heartbeat));
    }

    /// Every lock record comes back as it went in, from both sector sizes.
    #[test]
    fn records_round_trip(record in any_record(), slot: u32) {
        let image = record.encode();
        prop_assert_eq!(LockRecord::decode(slot, image.as_ref()), Ok(Some(record.clone())));
        let mut sector = [0xff; 4096];
        fill_sector(&image, &mut sector);
        prop_assert_eq!(LockRecord::decode(slot, &sector), Ok(Some(record)));
    }

    /// Random bytes are never believed and never panic.
    #[test]
    fn random_bytes_are_a_typed_error(bytes: [u8; 512], node in any_node(), slot: u32) {
        prop_assert!(believed_heartbeat(node, &bytes)?.is_some());
        prop_assert!(believed_record(slot, &bytes)?.is_some());
    }

    /// Random bytes of any length are never believed and never panic.
    #[test]
    fn random_lengths_are_a_typed_error(bytes in proptest::collection::vec(any::<u8>(), 0..1100), node in any_node()) {
        let fault = (bytes.len() != 512).then_some(Fault::Length(bytes.len()));
        prop_assume!(fault.is_some());
        prop_assert_eq!(believed_heartbeat(node, &bytes)?, fault.clone());
        prop_assert_eq!(believed_record(0, &bytes)?, fault);
    }

    /// Random bytes with a right frame (magic, version, flags, checksum) get as far as the fields, and still only
    /// what `encode` writes is believed.
    #[test]
    fn random_fields_are_checked(mut bytes: [u8; 512], node in any_node(), slot: u32, flags in 0u32..3) {
        bytes[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..8].copy_from_slice(&flags.to_le_bytes());
        for version_at in [40, 64] {
            bytes[version_at..version_at + 2].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        }
        bytes[8..12].copy_from_slice(&node.get().to_le_bytes());
        reseal(&mut bytes);
        believed_heartbeat(node, &bytes)?;
        believed_record(slot, &bytes)?;
    }

    /// A valid heartbeat in which a few bytes were replaced *and the checksum put right* is either refused or the
    /// image of another valid heartbeat. This reaches every field's own check.
    #[test]
    fn changed_heartbeats_are_checked(
        heartbeat in any_heartbeat(),
        changes in proptest::collection::vec((4usize..508, prop_oneof![0u8..8, any::<u8>()]), 1..4),
    ) {
        let mut bytes = heartbeat.encode().0;
        for (at, value) in changes {
            bytes[at] = value;
        }
        reseal(&mut bytes);
        believed_heartbeat(heartbeat.node, &bytes)?;
    }

    /// The same for lock records.
    #[test]
    fn changed_records_are_checked(
        record in any_record(),
        changes in proptest::collection::vec((4usize..508, prop_oneof![0u8..8, any::<u8>()]), 1..4),
    ) {
        let mut bytes = record.encode().0;
        for (at, value) in changes {
            bytes[at] = value;
        }
        reseal(&mut bytes);
        believed_record(7, &bytes)?;
    }

    /// A probe visits every slot once, starting at home and wrapping around (section 3).
    #[test]
    fn probe_visits_each_slot_once(slot_count in 1u32..2000, home in any::<proptest::sample::Index>()) {
        let home = home.index(slot_count as usize) as u32;
        let visited: Vec<u32> = probe(home, slot_count).collect();
        let expected: Vec<u32> = (0..slot_count).map(|i| (home + i) % slot_count).collect();
        prop_assert_eq!(visited, expected);
    }

    /// The home slot is FNV-1a-64 of the identity with its pad zeroed, mod the number of slots (section 3).
    #[test]
    fn home_slot_is_fnv(resource in any_resource(), slot_count in MIN_SLOT_COUNT..=MAX_SLOT_COUNT) {
        let hash = resource.id().to_bytes().iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        prop_assert_eq!(u64::from(resource.home_slot(slot_count)), hash % u64::from(slot_count));
    }
}
