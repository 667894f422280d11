//! Golden images and vectors: what version 1 writes, byte for byte, for ever. A change here breaks every lockstate
//! that exists; see "Versions" in docs/format.md. `MXLOCK_BLESS=1 cargo test -p mxlock-format --test golden`
//! rewrites the images.

mod common;

use common::*;
use mxlock_format::*;
use std::path::PathBuf;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/format")
}

fn view() -> View {
    View {
        epoch: Epoch(490_003),
        master: node(2),
        master_incarnation: Incarnation(0x2222_2222_2222_2222),
        phase: Phase::Active,
        members: [node(0), node(2), node(63)].into_iter().collect(),
        owed: NodeSet::only(node(5)),
        table_epoch: Epoch(490_002),
        feature_level: 1,
    }
}

/// A member in the middle of an agreement, with every field set.
fn member() -> Heartbeat {
    let proposed = View { epoch: Epoch(490_004), master: node(0), phase: Phase::Recovering, ..view() };
    Heartbeat {
        node: node(0),
        timestamp_ms: 1_790_000_000_123,
        epoch: Epoch(490_003),
        lock_count: 42,
        superblock: superblock(),
        node_uuid: Uuid(*b"this node's uuid"),
        boot_id: Uuid(*b"this boot's uuid"),
        host: "alpha.example".to_owned(),
        incarnation: Incarnation(0x1111_1111_1111_1111),
        hb_seq: 777,
        boottime_ns: 123_456_789_012,
        state: NodeState::Member,
        addresses: vec![
            "192.0.2.1:7600".parse().unwrap(),
            "[2001:db8::1]:7600".parse().unwrap(),
            "[::ffff:192.0.2.9]:7601".parse().unwrap(),
        ],
        protocols: (1, 2),
        reachable: [node(2), node(63)].into_iter().collect(),
        fence_target: Some(node(5)),
        successor: None,
        writes_uncertain: false,
        block: Block { instance: Epoch(490_004), promised: Ballot(128), accepted: Ballot(64), value: Some(proposed) },
        view: Some(view()),
    }
}

fn heartbeats() -> Vec<(&'static str, Heartbeat)> {
    let quiet = Heartbeat { fence_target: None, block: Block::default(), ..member() };
    let joining = Heartbeat { state: NodeState::Joining, epoch: Epoch(490_000), view: None, ..quiet.clone() };
    let resigned = Heartbeat {
        state: NodeState::Resigned,
        successor: Some(node(2)),
        writes_uncertain: true,
        addresses: vec!["[2001:db8::1]:7600".parse().unwrap()],
        ..quiet.clone()
    };
    let sector_4096 = Geometry { sector: SectorSize::S4096, slot_count: DEFAULT_SLOT_COUNT };
    let big = Superblock { geometry: sector_4096, timing: Timing::SAN, lockspace: "l".repeat(32), ..superblock() };
    vec![
        ("heartbeat-empty", Heartbeat::empty(node(63), &superblock(), Epoch(490_000))),
        ("heartbeat-joining", joining),
        ("heartbeat-member", member()),
        ("heartbeat-resigned", resigned),
        ("heartbeat-left", Heartbeat { state: NodeState::Left, ..quiet }),
        ("heartbeat-s4096", Heartbeat { superblock: big, host: "h".repeat(64), ..member() }),
    ]
}

fn records() -> Vec<(&'static str, LockRecord)> {
    let waiting = LockRecord {
        mode: Mode::NL,
        wanted: Mode::PR,
        state: LockState::Waiting,
        granted_at_ms: 0,
        token: Token(0),
        ..granted()
    };
    let converting = LockRecord { mode: Mode::PR, wanted: Mode::CW, state: LockState::Converting, ..granted() };
    let id = ResourceId { volume: 0x0123_4567_89ab_cdef, ino: 128, offset: 4096, ag: 7, kind: ResourceKind::Extent };
    let typed = LockRecord { resource: Resource::typed(id).unwrap(), ..granted() };
    let ranged = LockRecord { range: ByteRange::new(4_096, u64::MAX), transaction: 99, ..typed.clone() };
    let sequence = LvbSequence { epoch: Epoch(490_001), n: 12 };
    let lvb_valid = LockRecord {
        lvb: Some(Lvb { bytes: (0..64).collect(), sequence, valid: true }),
        mode: Mode::PW,
        wanted: Mode::PW,
        ..granted()
    };
    let lvb_invalid =
        LockRecord { lvb: Some(Lvb { bytes: b"stale".to_vec(), sequence, valid: false }), ..lvb_valid.clone() };
    let persistent = LockRecord { persistent: true, orphan: true, ..granted() };
    let longest = QualifiedName::new(&[b'n'; MAX_NAMESPACE_BYTES], &[b'm'; MAX_NAME_BYTES]).unwrap();
    let longest = LockRecord { resource: Resource::named(longest), ..lvb_valid.clone() };
    vec![
        ("record-granted", granted()),
        ("record-waiting", waiting),
        ("record-converting", converting),
        ("record-typed", typed),
        ("record-ranged", ranged),
        ("record-lvb-valid", lvb_valid),
        ("record-lvb-invalid", lvb_invalid),
        ("record-persistent-orphan", persistent),
        ("record-longest-name", longest),
        ("record-s4096", granted()),
    ]
}

/// The sector that `name` stands for: 4096 bytes where it says so.
fn sector(name: &str, image: &SectorImage) -> Vec<u8> {
    let mut sector = vec![0xff; if name.ends_with("-s4096") { 4096 } else { 512 }];
    fill_sector(image, &mut sector);
    sector
}

/// The image in the repository; it is written first where MXLOCK_BLESS asks for that.
fn golden(name: &str, encoded: &[u8]) -> Vec<u8> {
    let path = directory().join(name).with_extension("bin");
    if std::env::var_os("MXLOCK_BLESS").is_some_and(|bless| bless == "1") {
        std::fs::create_dir_all(directory()).unwrap();
        std::fs::write(&path, encoded).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; MXLOCK_BLESS=1 writes it", path.display()))
}

#[track_caller]
fn assert_same(name: &str, encoded: &[u8], golden: &[u8]) {
    assert_eq!(encoded.len(), golden.len(), "{name}: sector size");
    let differing = (0..golden.len()).find(|&at| encoded[at] != golden[at]);
    assert_eq!(differing, None, "{name}: first byte that is not as in the golden image");
}

#[test]
fn heartbeat_images_do_not_change() {
    for (name, heartbeat) in heartbeats() {
        let sector = sector(name, &heartbeat.encode());
        let golden = golden(name, &sector);
        assert_same(name, &sector, &golden);
        assert_eq!(Heartbeat::decode(heartbeat.node, &golden).as_ref(), Ok(&heartbeat), "{name}");
    }
}

#[test]
fn record_images_do_not_change() {
    for (name, record) in records() {
        let sector = sector(name, &record.encode());
        let golden = golden(name, &sector);
        assert_same(name, &sector, &golden);
        assert_eq!(LockRecord::decode(0, &golden), Ok(Some(record)), "{name}");
    }
}

/// Every image in the directory is one that a test here knows.
#[test]
fn no_image_is_forgotten() {
    let known: Vec<&str> = heartbeats().iter().map(|h| h.0).chain(records().iter().map(|r| r.0)).collect();
    for entry in std::fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert!(known.contains(&stem), "{} belongs to no test", path.display());
    }
}

/// The fixed parts are a published layout (section 3): read here by number, as a foreign reader would.
#[test]
fn published_parts_read_back() {
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());

    let heartbeat = member();
    let bytes = heartbeat.encode().0;
    assert_eq!([0, 4, 8, 12].map(|at| u32_at(&bytes, at)), [0x4D58_4C4B, 1, 0, 0]);
    assert_eq!([16, 24, 32].map(|at| u64_at(&bytes, at)), [1_790_000_000_123, 490_003, 42]);
    assert_eq!(u32_at(&bytes, 508), checksum(&bytes));
    for (name, heartbeat) in heartbeats() {
        let active = u32::from(!matches!(heartbeat.state, NodeState::Empty | NodeState::Left));
        assert_eq!(u32_at(&heartbeat.encode().0, 4), active, "{name}");
    }

    let id = ResourceId { volume: 11, ino: 12, offset: 13, ag: 14, kind: ResourceKind::Journal };
    let record = LockRecord {
        resource: Resource::typed(id).unwrap(),
        mode: Mode::CW,
        wanted: Mode::PR,
        state: LockState::Converting,
        ..granted()
    };
    let bytes = record.encode().0;
    assert_eq!([0, 4].map(|at| u32_at(&bytes, at)), [0x4D58_4C4B, 1]);
    assert_eq!([8, 16, 24].map(|at| u64_at(&bytes, at)), [11, 12, 13]);
    assert_eq!([32, 36, 40].map(|at| u32_at(&bytes, at)), [14, 4, 3], "ag; type and pad; owner");
    assert_eq!(bytes[44..48], [2, 3, 0, 0], "mode, state, pad");
    assert_eq!([48, 56].map(|at| u64_at(&bytes, at)), [1_790_000_000_000, 490_001]);
    assert_eq!(u32_at(&bytes, 508), checksum(&bytes));
}

/// The numbers of modes, states and kinds are on disk.
#[test]
fn numbers_do_not_change() {
    assert_eq!(LockState::ALL.map(|s| s as u8), [0, 1, 2, 3, 4]);
    assert_eq!(NodeState::ALL.map(|s| s as u8), [0, 1, 2, 3, 4]);
    for number in 0..=u8::MAX {
        assert!(LockState::from_number(number).map_or(number >= 5, |s| s as u8 == number));
        assert!(NodeState::from_number(number).map_or(number >= 5, |s| s as u8 == number));
        assert_eq!(ResourceKind::from_number(number).is_some(), (1..=6).contains(&number));
        assert_eq!(Phase::from_number(number).is_some(), (1..=2).contains(&number));
    }
}

/// CRC-32C is the Castagnoli one (check value of RFC 3720 and of every catalogue).
#[test]
fn checksum_is_crc32c() {
    assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(checksum(&[0; 512]), crc32c::crc32c(&[0; 508]));
}

/// Namespace, name, name hash, home slot of 65,536, of 64 and of 100,003 slots; computed by another program
/// (docs/format.md has the same table).
#[test]
fn names_have_these_hashes_and_homes() {
    let long = ([b'n'; 64], [b'm'; 135]);
    let vectors = [
        (&b""[..], &b"a"[..], 0x0880945aeeab1be95aa073305526c0ea, [13012, 20, 38132]),
        (b"", b"hello", 0x6141ca7d2d3c64bf6dc57d8f76f4cf45, [33306, 26, 87469]),
        (b"db", b"orders", 0x040882a63206078ee24bc5e27a811ec8, [1853, 61, 29237]),
        (b"x", b"\xff\xfe/ \n", 0xaa6bc986354ff78dcf9117073c04b787, [61483, 43, 51352]),
        (b"", "é".as_bytes(), 0xa68bb42a138b5822836dbc78c79f684f, [49181, 29, 70709]),
        (&long.0, &long.1, 0x6891674a89def995cc3256148b2a4e58, [54167, 23, 67121]),
    ];
    for (namespace, name, hash, homes) in vectors {
        let name = QualifiedName::new(namespace, name).unwrap();
        assert_eq!(name_hash(&name), hash, "{name:?}");
        let resource = Resource::named(name);
        let id = resource.id();
        assert_eq!((id.ino, id.offset, id.volume, id.ag), (hash as u64, (hash >> 64) as u64, 0, 0));
        assert_eq!([65_536, 64, 100_003].map(|slots| resource.home_slot(slots)), homes, "{resource}");
        let [a, b, c] = homes;
        assert!(documentation().contains(&format!("| {hash:#034x} | {a} | {b} | {c} |")), "{resource}");
    }
}

/// Typed id, home slot of 65,536, of 64 and of 100,003 slots.
#[test]
fn typed_ids_have_these_homes() {
    let vectors = [
        ((1, 2, 3, 4, ResourceKind::Inode), [35984, 16, 40379]),
        ((0x0123_4567_89ab_cdef, 128, 4096, 7, ResourceKind::Extent), [2784, 32, 65127]),
        ((1, 0, 0, 3, ResourceKind::Ag), [24020, 20, 5788]),
        ((u64::MAX, u64::MAX, u64::MAX, u32::MAX, ResourceKind::Journal), [57453, 45, 76150]),
        ((0, 0, 0, 0, ResourceKind::Superblock), [18128, 16, 77630]),
    ];
    for ((volume, ino, offset, ag, kind), homes) in vectors {
        let resource = Resource::typed(ResourceId { volume, ino, offset, ag, kind }).unwrap();
        assert_eq!([65_536, 64, 100_003].map(|slots| resource.home_slot(slots)), homes, "{resource}");
        let [a, b, c] = homes;
        assert!(documentation().contains(&format!("| {a} | {b} | {c} |")), "{resource}");
    }
}

/// Sizes and offsets for both sector sizes (section 3).
#[test]
fn lockstates_have_these_sizes() {
    let [small, big] =
        [SectorSize::S512, SectorSize::S4096].map(|sector| Geometry { sector, slot_count: DEFAULT_SLOT_COUNT });
    assert_eq!((small.total_bytes(), big.total_bytes()), (33_587_200, 268_697_600));
    assert_eq!((small.slot_offset(0), big.slot_offset(0)), (32_768, 262_144));
    assert_eq!((small.heartbeat_offset(node(63)), big.heartbeat_offset(node(63))), (32_256, 258_048));
    assert_eq!(big.heartbeat_region_bytes() as u64, big.slot_offset(0));
    assert_eq!(small.slot_offset(65_535) + 512, small.total_bytes());
}

fn documentation() -> String {
    std::fs::read_to_string(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/format.md")).unwrap()
}

/// The two byte tables of docs/format.md cover 512 bytes without gap or overlap.
#[test]
fn documented_tables_cover_every_byte() {
    let documentation = documentation();
    for heading in ["## Heartbeat sector", "## Lock record"] {
        let section = documentation.split(heading).nth(1).unwrap();
        let mut covered = 0;
        for row in section.lines().filter(|line| line.starts_with("| ")) {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let (Ok(at), Ok(size)) = (cells[1].parse::<usize>(), cells[2].parse::<usize>()) else { continue };
            assert_eq!(at, covered, "{heading}: {row}");
            covered += size;
            if covered == RECORD_BYTES {
                break;
            }
        }
        assert_eq!(covered, RECORD_BYTES, "{heading}");
    }
}
