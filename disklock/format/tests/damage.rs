//! What is not believed (DESIGN section 3, I11; PROTOTYPE 4 and 5).

mod common;

use common::*;
use mxlock_format::*;
use std::net::{Ipv6Addr, SocketAddr, SocketAddrV6};

fn records() -> Vec<LockRecord> {
    let waiting = LockRecord { mode: Mode::NL, wanted: Mode::PR, state: LockState::Waiting, ..granted() };
    let id = ResourceId { volume: 1, ino: 2, offset: 3, ag: 4, kind: ResourceKind::Extent };
    let lvb = Lvb { bytes: vec![0xa5; 64], sequence: LvbSequence { epoch: Epoch(7), n: 8 }, valid: true };
    let full = LockRecord {
        resource: Resource::typed(id).unwrap(),
        persistent: true,
        orphan: true,
        range: ByteRange::new(10, 20),
        lvb: Some(lvb),
        ..granted()
    };
    vec![granted(), waiting, full]
}

fn member() -> Heartbeat {
    Heartbeat {
        state: NodeState::Member,
        host: "alpha".to_owned(),
        addresses: vec!["192.0.2.1:7600".parse().unwrap()],
        ..Heartbeat::empty(node(5), &superblock(), Epoch(490_000))
    }
}

fn record_fault(bytes: &[u8]) -> Fault {
    LockRecord::decode(7, bytes).expect_err("must not be believed").fault
}

fn heartbeat_fault(bytes: &[u8]) -> Fault {
    Heartbeat::decode(node(5), bytes).expect_err("must not be believed").fault
}

/// The fault that `record`'s image has once `bytes` are at `offset` and the checksum is right again.
fn record_with(record: &LockRecord, offset: usize, bytes: &[u8]) -> Fault {
    let mut image = record.encode().0;
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
    reseal(&mut image);
    record_fault(&image)
}

fn heartbeat_with(offset: usize, bytes: &[u8]) -> Fault {
    let mut image = member().encode().0;
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
    reseal(&mut image);
    heartbeat_fault(&image)
}

/// I11: one flipped bit, whichever of the 4096, is always found.
#[test]
fn every_flipped_bit_is_detected() {
    let images = records().into_iter().map(|record| record.encode()).chain([member().encode()]);
    for (nth, image) in images.enumerate() {
        for bit in 0..RECORD_BYTES * 8 {
            let mut bytes = image.0;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(LockRecord::decode(0, &bytes).is_err(), "image {nth} bit {bit}");
            assert!(Heartbeat::decode(node(5), &bytes).is_err(), "image {nth} bit {bit}");
        }
    }
}

/// I11, A1: a sector of which only the first part landed is found, wherever it was torn.
#[test]
fn every_torn_write_is_detected() {
    let records = records();
    let [old, new] = [&records[0], &records[2]].map(LockRecord::encode);
    for torn_at in (8..RECORD_BYTES).step_by(8) {
        let torn = [&new.0[..torn_at], &old.0[torn_at..]].concat();
        // Where the two agree up to here, nothing was torn yet.
        assert!(torn == old.0 || LockRecord::decode(0, &torn).is_err(), "torn at {torn_at}");
        let onto_empty = [&new.0[..torn_at], &[0; RECORD_BYTES][torn_at..]].concat();
        assert!(LockRecord::decode(0, &onto_empty).is_err(), "torn at {torn_at}");
        let cleared = [&[0; RECORD_BYTES][torn_at..], &old.0[RECORD_BYTES - torn_at..]].concat();
        assert!(LockRecord::decode(0, &cleared).is_err(), "last {torn_at} bytes left");
    }
}

/// PROTOTYPE 4: only an all-zero sector is an empty slot; a single byte anywhere makes it damage.
#[test]
fn garbage_is_not_empty() {
    let zero = [0; RECORD_BYTES];
    assert_eq!(LockRecord::decode(0, &zero), Ok(None));
    assert_eq!(LockRecord::decode(0, &[0; 4096]), Ok(None));
    for at in 0..RECORD_BYTES {
        let mut bytes = zero;
        bytes[at] = 1;
        assert!(LockRecord::decode(0, &bytes).is_err(), "byte {at}");
    }
}

/// PROTOTYPE 4: a file full of 0x5a is not an empty lockstate; no sector of it is believed, at either sector size.
#[test]
fn a_file_of_0x5a_is_no_lockstate() {
    for sector in [&[0x5a; 512][..], &[0x5a; 4096][..]] {
        for node in NodeId::all() {
            assert!(Heartbeat::decode(node, sector).is_err());
        }
        assert!(LockRecord::decode(0, sector).is_err());
    }
    assert_eq!(record_fault(&[0x5a; 512]), Fault::Magic { found: 0x5a5a_5a5a });
}

/// PROTOTYPE 4: a corrupt owner and mode 250 are not believed, not even under a right checksum.
#[test]
fn corrupt_owner_and_mode_250_are_refused() {
    for offset in [40, 44] {
        let mut image = granted().encode().0;
        image[offset] = 250;
        assert!(matches!(record_fault(&image), Fault::Checksum { .. }));
    }
    assert_eq!(record_with(&granted(), 40, &[250]), Fault::NodeNumber(250));
    assert_eq!(record_with(&granted(), 40, &64u32.to_le_bytes()), Fault::NodeNumber(64));
    assert_eq!(record_with(&granted(), 44, &[250]), Fault::Mode(250));
    assert_eq!(record_with(&granted(), 66, &[250]), Fault::Mode(250));

    let mut image = granted().encode().0;
    image[44] = 250;
    reseal(&mut image);
    let error = LockRecord::decode(65_535, &image).unwrap_err();
    assert_eq!(error.to_string(), "lock record in slot 65535: lock mode 250 is not one of 0..=5");
}

/// PROTOTYPE 5: padding takes part in neither hash nor comparison, because a sector in which it is not zero is
/// damage: there is one image of one resource.
#[test]
fn padding_must_be_zero() {
    let record = &records()[2];
    let pads = [37..40, 46..48, 70..72, 180..184, 248..448, 448..508];
    for offset in pads.into_iter().flatten() {
        assert_eq!(record_with(record, offset, &[1]), Fault::Stray { offset }, "record byte {offset}");
    }
    // What belongs to an absent range or LVB, or lies behind the end of a name, is padding too.
    for offset in (144..176).chain(184..248).chain(258..448) {
        assert_eq!(record_with(&granted(), offset, &[1]), Fault::Stray { offset }, "record byte {offset}");
    }
    let pads = [12..16, 289..290, 309..328, 329..348, 348..352, 376..385, 386..433, 434..508];
    for offset in pads.into_iter().flatten() {
        assert_eq!(heartbeat_with(offset, &[1]), Fault::Stray { offset }, "heartbeat byte {offset}");
    }
    let id = ResourceId { volume: 1, ino: 2, offset: 3, ag: 4, kind: ResourceKind::Ag };
    assert_eq!(id.to_bytes()[29..], [0; 3]);
}

/// Each field of a record has its own check behind the checksum.
#[test]
fn record_fields_are_checked() {
    let record = granted();
    let with = |offset, bytes: &[u8]| record_with(&record, offset, bytes);
    let mut image = record.encode().0;
    image[0] = 0x4c;
    assert_eq!(record_fault(&image), Fault::Magic { found: 0x4d58_4c4c });
    assert_eq!(with(4, &[0]), Fault::Flags(0));
    assert_eq!(with(4, &[3]), Fault::Flags(3));
    assert_eq!(with(36, &[0]), ResourceError::UnknownKind(0).into());
    assert_eq!(with(36, &[7]), ResourceError::UnknownKind(7).into());
    assert_eq!(with(36, &[1]), Fault::NameOnTyped(1));
    assert_eq!(with(45, &[5]), Fault::LockState(5));
    for (state, name) in [(0, "unlocked"), (1, "waiting"), (4, "blocked")] {
        assert_eq!(with(45, &[state]), Fault::ModeForState { state: name, mode: Mode::EX, wanted: Mode::EX });
    }
    assert_eq!(with(66, &[3]), Fault::ModeForState { state: "granted", mode: Mode::EX, wanted: Mode::PR });
    assert_eq!(with(64, &2u16.to_le_bytes()), Fault::Version(2));
    assert_eq!(with(64, &0u16.to_le_bytes()), Fault::Version(0));
    assert_eq!(with(67, &[1 << 5]), Fault::Bits(1 << 5));
    assert_eq!(with(67, &[1 << 3]), Fault::Bits(1 << 3), "an absent LVB cannot be invalid");
    assert_eq!(with(69, &[1]), Fault::Stray { offset: 69 });

    // The name: `db NUL orders`, 9 bytes at 248.
    assert_eq!(with(16, &[0]), Fault::NameHash);
    assert_eq!(with(24, &[0]), Fault::NameHash);
    assert_eq!(with(8, &[1]), Fault::NameHash, "a named resource has no volume");
    assert_eq!(with(32, &[1]), Fault::NameHash, "a named resource has no allocation group");
    assert_eq!(with(248, b"x"), Fault::NameHash);
    assert_eq!(with(68, &[201]), Fault::NameLength(201));
    assert_eq!(with(68, &[8]), Fault::NameHash);
    assert_eq!(with(68, &[3]), ResourceError::EmptyName.into());
    assert_eq!(with(68, &[2]), ResourceError::EmptyName.into());
    assert_eq!(with(68, &[0]), ResourceError::EmptyName.into());
    assert_eq!(with(68, &[11]), ResourceError::Nul.into());
    assert_eq!(with(68, &[[200].as_slice(), &[0; 179], &[b'a'; 200]].concat()), ResourceError::EmptyName.into());
    let long_namespace = [[200].as_slice(), &[0; 179], &[b'a'; 65], b"\0", &[b'b'; 134]].concat();
    assert_eq!(with(68, &long_namespace), ResourceError::NamespaceTooLong(65).into());
    let long_name = [[200].as_slice(), &[0; 179], &[b'a'; 63], b"\0", &[b'b'; 136]].concat();
    assert_eq!(with(68, &long_name), ResourceError::NameTooLong(136).into());

    let full = &records()[2];
    assert_eq!(record_with(full, 36, &[6]), ResourceError::EmptyName.into());
    assert_eq!(record_with(full, 68, &[1]), Fault::NameOnTyped(2));
    assert_eq!(record_with(full, 69, &[65]), Fault::LvbLength(65));
    assert_eq!(record_with(full, 69, &[63]), Fault::Stray { offset: 247 });
    assert_eq!(record_with(full, 144, &[21]), Fault::Range { start: 21, end: 20 });
}

/// Each field of a heartbeat has its own check behind the checksum.
#[test]
fn heartbeat_fields_are_checked() {
    let with = heartbeat_with;
    assert_eq!(heartbeat_fault(&[0; 512]), Fault::Zero, "formatting writes all 64, so zeros are damage");
    assert_eq!(heartbeat_fault(&[0; 4096]), Fault::Zero);
    assert_eq!(with(4, &[0]), Fault::Flags(0));
    assert_eq!(with(280, &[NodeState::Left as u8]), Fault::Flags(1));
    assert_eq!(with(8, &[6]), Fault::WrongNode(6));
    assert_eq!(with(24, &[0xff; 8]), Fault::EpochLimit(u64::MAX));
    assert_eq!(with(40, &[2]), Fault::Version(2));
    assert_eq!(with(44, &1024u32.to_le_bytes()), SuperblockError::SectorSize(1024).into());
    assert_eq!(with(48, &63u32.to_le_bytes()), SuperblockError::SlotCount(63).into());
    assert_eq!(with(48, &(MAX_SLOT_COUNT + 1).to_le_bytes()), SuperblockError::SlotCount(MAX_SLOT_COUNT + 1).into());
    assert_eq!(with(52, &[0; 4]), SuperblockError::Timing(TimingError::TooShort).into());
    assert!(matches!(with(64, &[0; 4]), Fault::Superblock(SuperblockError::Timing(TimingError::DeadShort { .. }))));
    assert_eq!(with(72, b"a/b\0\0\0\0"), SuperblockError::Name("a/b".to_owned()).into());
    assert_eq!(with(72, &[0; 32]), SuperblockError::Name(String::new()).into());
    assert_eq!(with(72, b"a\0b\0\0\0\0"), SuperblockError::Name("a\0b".to_owned()).into());
    assert!(matches!(with(72, &[0xff]), Fault::Superblock(SuperblockError::Name(_))));
    assert_eq!(with(184, &[0xff]), Fault::Host);
    assert_eq!(with(184, b"a\nb"), Fault::Host);
    assert_eq!(with(184, b"\0"), Fault::Host);
    assert_eq!(with(280, &[5]), Fault::NodeState(5));
    assert_eq!(with(281, &[2]), Fault::Bits(2));
    assert_eq!(with(282, &[64]), Fault::NodeNumber(64));
    assert_eq!(with(283, &[254]), Fault::NodeNumber(254));
    assert_eq!(with(284, &[2, 0, 1, 0]), Fault::Protocols { lowest: 2, highest: 1 });
    assert_eq!(with(288, &[5]), Fault::AddressFamily(5));
    assert_eq!(with(292, &[1]), Fault::AddressFamily(4), "the bytes are not IPv4-mapped");
    assert_eq!(with(288, &[0]), Fault::Stray { offset: 290 }, "bytes of an address that is not there");
    assert_eq!(with(328, &[6]), Fault::Stray { offset: 328 }, "an address behind an unset one");
    assert_eq!(with(433, &[3]), Fault::Phase(3));
    assert_eq!(with(432, &[64, 1]), Fault::NodeNumber(64));
    assert_eq!(with(433, &[1]), Fault::ViewEpoch { sector: 490_000, view: 0 });
    assert_eq!(with(464, &[1]), Fault::Stray { offset: 464 });
    assert_eq!(with(433, &[&[1][..], &[0; 30], &[1]].concat()), Fault::TableEpoch { epoch: 0, table_epoch: 1 });

    // The ballot block: instance, promised, accepted, then the value's epoch, master and phase.
    let with_block = |[instance, promised, accepted]: [u64; 3], value_epoch: u64, phase: u8| {
        let mut block = [instance, promised, accepted, value_epoch].map(u64::to_le_bytes).concat();
        block.extend([0, phase]);
        with(352, &block).to_string()
    };
    assert!(with_block([9, 1, 2], 9, 1).contains("a higher ballot than it promised"));
    assert!(with_block([9, 1, 1], 0, 0).contains("a ballot without a value"));
    assert!(with_block([9, 1, 0], 9, 1).contains("a value without a ballot"));
    assert!(with_block([9, 1, 1], 8, 1).contains("of another instance"));
    assert!(with_block([1 << 24, 1, 1], 1 << 24, 1).contains("epoch 16777216 is above 16777215"));

    let mut image = member().encode().0;
    image[280] = 5;
    reseal(&mut image);
    let error = Heartbeat::decode(node(5), &image).unwrap_err();
    assert_eq!(error.to_string(), "heartbeat sector of node 5: node state 5 is not one of 0..=4");
}

/// In a sector of 4096 bytes everything behind the record is zero.
#[test]
fn the_tail_of_a_sector_must_be_zero() {
    let mut sector = vec![0; 4096];
    for offset in [512, 1024, 4095] {
        fill_sector(&granted().encode(), &mut sector);
        assert_eq!(sector_to_image(&sector), Ok(&granted().encode().0));
        sector[offset] = 1;
        assert_eq!(record_fault(&sector), Fault::TailNotZero { offset });
        fill_sector(&SectorImage::zeroed(), &mut sector);
        assert!(sector.iter().all(|&b| b == 0));
        sector[offset] = 1;
        assert_eq!(record_fault(&sector), Fault::TailNotZero { offset }, "not an empty slot");
    }
    for length in [0, 511, 513, 1024, 4095, 8192] {
        assert_eq!(record_fault(&vec![0; length]), Fault::Length(length));
    }
}

/// The encoder cannot be made to write what the decoder refuses: it panics rather than cut anything to fit.
#[test]
fn encode_refuses_what_does_not_fit() {
    let refused = |record: LockRecord| {
        assert!(std::panic::catch_unwind(|| record.encode()).is_err());
        record.check().unwrap_err()
    };
    let lvb = Lvb { bytes: vec![0; 65], sequence: LvbSequence::default(), valid: true };
    assert_eq!(refused(LockRecord { lvb: Some(lvb), ..granted() }), Fault::LvbLength(65));
    for state in [LockState::Unlocked, LockState::Blocked, LockState::Waiting] {
        assert!(matches!(refused(LockRecord { state, ..granted() }), Fault::ModeForState { .. }));
    }

    let refused = |heartbeat: Heartbeat| {
        assert!(std::panic::catch_unwind(|| heartbeat.encode()).is_err());
        heartbeat.check().unwrap_err()
    };
    assert_eq!(refused(Heartbeat { host: "h".repeat(65), ..member() }), Fault::Host);
    let address: SocketAddr = "192.0.2.1:7600".parse().unwrap();
    assert_eq!(refused(Heartbeat { addresses: vec![address; 4], ..member() }), Fault::AddressCount(4));
    let scoped = SocketAddrV6::new(Ipv6Addr::LOCALHOST, 7600, 0, 2).into();
    assert_eq!(refused(Heartbeat { addresses: vec![scoped], ..member() }), Fault::ScopedAddress);
    let long = Superblock { lockspace: "l".repeat(33), ..superblock() };
    assert!(matches!(refused(Heartbeat { superblock: long, ..member() }), Fault::Superblock(_)));
}

/// The cluster key is never printed (INTERFACE), not even in an error or by `{:?}`.
#[test]
fn the_key_is_not_printed() {
    let heartbeat = member();
    let key = String::from_utf8(heartbeat.superblock.key.0.to_vec()).unwrap();
    let numbers = format!("{:?}", heartbeat.superblock.key.0);
    let mut torn = heartbeat.encode();
    torn.0[0] ^= 1;
    let printed = format!("{heartbeat:?} {:?} {:?}", heartbeat.encode(), Heartbeat::decode(node(5), &torn.0));
    assert!(!printed.contains(&key) && !printed.contains(&numbers));
}
