//! The inspector on images made with the format crate.

use super::image::Image;
use super::json::{HeartbeatJson, LocksDocument};
use super::map::{Map, write_png};
use super::show;
use super::verify::{Kind, Report};
use mxlock_format::*;

fn node(slot: u32) -> NodeId {
    NodeId::new(slot).unwrap()
}

fn superblock(sector: SectorSize) -> Superblock {
    Superblock {
        geometry: Geometry { sector, slot_count: 64 },
        timing: Timing::FAST,
        lockspace: "test".to_owned(),
        uuid: Uuid(*b"lockspace's uuid"),
        key: ClusterKey([7; 32]),
        feature_level: FEATURE_LEVEL,
    }
}

fn view(epoch: u64) -> View {
    View {
        epoch: Epoch(epoch),
        master: node(0),
        master_incarnation: Incarnation(100),
        phase: Phase::Active,
        members: NodeSet::from_iter([node(0), node(1)]),
        owed: NodeSet::EMPTY,
        table_epoch: Epoch(epoch - 1),
        feature_level: FEATURE_LEVEL,
    }
}

/// A lockstate in memory: two members, nothing locked.
struct Disk {
    superblock: Superblock,
    region: Vec<u8>,
    table: Vec<u8>,
}

impl Disk {
    fn new() -> Disk {
        Disk::with(SectorSize::S512)
    }

    fn with(sector: SectorSize) -> Disk {
        let superblock = superblock(sector);
        let geometry = superblock.geometry;
        let mut disk = Disk {
            region: vec![0; geometry.heartbeat_region_bytes()],
            table: vec![0; geometry.slot_count as usize * sector.bytes()],
            superblock: superblock.clone(),
        };
        for node in NodeId::all() {
            let mut heartbeat = Heartbeat::empty(node, &superblock, Epoch(10));
            if node.index() < 2 {
                heartbeat.state = NodeState::Member;
                heartbeat.host = format!("host{node}");
                heartbeat.incarnation = Incarnation(100 + u64::from(node.get()));
                heartbeat.addresses = vec!["192.0.2.1:7600".parse().unwrap()];
                heartbeat.view = Some(view(12));
                heartbeat.epoch = Epoch(12);
                heartbeat.timestamp_ms = 1_790_000_000_000;
            }
            disk.heartbeat(&heartbeat);
        }
        disk
    }

    fn heartbeat(&mut self, heartbeat: &Heartbeat) {
        let sector = self.superblock.geometry.sector.bytes();
        let at = heartbeat.node.index() * sector;
        fill_sector(&heartbeat.encode(), &mut self.region[at..at + sector]);
    }

    /// Puts a record into the first free slot from its home, as the master does; returns the slot.
    fn put(&mut self, record: &LockRecord) -> u32 {
        let geometry = self.superblock.geometry;
        let sector = geometry.sector.bytes();
        let free = |slot: &u32| self.table[*slot as usize * sector..][..sector].iter().all(|&b| b == 0);
        let slot = probe(record.resource.home_slot(geometry.slot_count), geometry.slot_count).find(free).unwrap();
        let at = slot as usize * sector;
        fill_sector(&record.encode(), &mut self.table[at..at + sector]);
        slot
    }

    fn image(&self) -> Image {
        let sector = self.superblock.geometry.sector.bytes();
        let region = NodeId::all().zip(self.region.chunks(sector)).map(|(node, bytes)| Heartbeat::decode(node, bytes));
        let mut image = Image::new(self.superblock.clone(), region.collect());
        let records: Vec<u8> = self.table.chunks(sector).flat_map(|bytes| &bytes[..RECORD_BYTES]).copied().collect();
        image.add_slots(0, &records);
        image
    }

    fn kinds(&self) -> Vec<Kind> {
        Report::of(&self.image()).findings.iter().map(|finding| finding.kind).collect()
    }
}

fn lock(name: &str, owner: u32, mode: Mode, seq: u64) -> LockRecord {
    LockRecord {
        resource: Resource::named(QualifiedName::new(b"", name.as_bytes()).unwrap()),
        owner: node(owner),
        owner_incarnation: Incarnation(100 + u64::from(owner)),
        mode,
        wanted: mode,
        state: LockState::Granted,
        granted_at_ms: 1_790_000_000_000,
        epoch: Epoch(12),
        lock: LockId { session: SessionId(0xabc), seq },
        token: Token::new(Epoch(11), seq),
        table_epoch: Epoch(11),
        queue_position: seq,
        persistent: false,
        orphan: false,
        process: Process { pid: 4_242, start_time: 1, uid: 1_000 },
        transaction: 0,
        range: None,
        orphan_lifetime_ms: 0,
        lvb: None,
    }
}

fn ranged(record: LockRecord, first: u64, last: u64) -> LockRecord {
    LockRecord { range: ByteRange::new(first, last), ..record }
}

#[test]
fn a_healthy_lockstate_has_no_findings() {
    for sector in [SectorSize::S512, SectorSize::S4096] {
        let mut disk = Disk::with(sector);
        assert_eq!(Report::of(&disk.image()), Report::default());
        disk.put(&lock("a", 0, Mode::PR, 1));
        disk.put(&lock("a", 1, Mode::PR, 2));
        disk.put(&ranged(lock("b", 0, Mode::EX, 3), 0, 9));
        disk.put(&ranged(lock("b", 1, Mode::EX, 4), 10, 19));
        // What waits or only wants a mode does not hold it.
        let waiting = LockState::Waiting;
        disk.put(&LockRecord { state: waiting, wanted: Mode::EX, token: Token(0), ..lock("a", 1, Mode::NL, 5) });
        disk.put(&LockRecord { state: waiting, wanted: Mode::EX, token: Token(0), ..lock("a", 1, Mode::NL, 6) });
        disk.put(&LockRecord { state: LockState::Converting, wanted: Mode::EX, ..lock("a", 1, Mode::PR, 7) });
        assert_eq!(disk.kinds(), []);
    }
}

/// I1: holders of one name in incompatible modes, also where only part of their ranges overlap.
#[test]
fn incompatible_grants_are_found() {
    let mut disk = Disk::new();
    let first = disk.put(&lock("a", 0, Mode::EX, 1));
    let second = disk.put(&lock("a", 1, Mode::PR, 2));
    let report = Report::of(&disk.image());
    let [finding] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!(finding.kind, Kind::IncompatibleGrants);
    assert_eq!(finding.slots, [first.min(second), first.max(second)]);
    assert!(finding.message.contains("'a' is held by node 0 in EX"), "{}", finding.message);

    let mut disk = Disk::new();
    disk.put(&ranged(lock("a", 0, Mode::PW, 1), 0, 10));
    disk.put(&ranged(lock("a", 1, Mode::PW, 2), 10, 20));
    assert_eq!(disk.kinds(), [Kind::IncompatibleGrants]);
}

/// Decision 014: a session divides a range before it lets go of the whole. Another transaction of it has no such right, and
/// whole resources are not divided.
#[test]
fn a_range_may_be_divided_by_its_owner() {
    let owned = |token, transaction| {
        let record = lock("a", 0, Mode::EX, token);
        LockRecord { lock: LockId { session: SessionId(77), seq: token }, transaction, ..record }
    };
    let mut disk = Disk::new();
    disk.put(&ranged(owned(1, 5), 0, 99));
    disk.put(&ranged(owned(2, 5), 0, 49));
    assert_eq!(disk.kinds(), []);
    disk.put(&ranged(owned(3, 6), 90, 99));
    assert_eq!(disk.kinds(), [Kind::IncompatibleGrants]);
    let mut disk = Disk::new();
    disk.put(&owned(1, 5));
    disk.put(&owned(2, 5));
    assert_eq!(disk.kinds(), [Kind::IncompatibleGrants]);
}

/// PROTOTYPE 11: PR and CW are incompatible although neither is above the other.
#[test]
fn a_converting_lock_still_holds_its_old_mode() {
    let mut disk = Disk::new();
    disk.put(&LockRecord { state: LockState::Converting, wanted: Mode::CW, ..lock("a", 0, Mode::PR, 1) });
    disk.put(&lock("a", 1, Mode::CW, 2));
    assert_eq!(disk.kinds(), [Kind::IncompatibleGrants]);
}

/// PROTOTYPE 2: one lock, two records.
#[test]
fn a_lock_with_two_records_is_found() {
    let mut disk = Disk::new();
    disk.put(&lock("a", 0, Mode::EX, 1));
    disk.put(&LockRecord { mode: Mode::PR, wanted: Mode::PR, ..lock("a", 0, Mode::EX, 1) });
    assert_eq!(disk.kinds(), [Kind::DuplicateLock]);
}

/// I2.
#[test]
fn a_token_given_twice_is_found() {
    let mut disk = Disk::new();
    disk.put(&lock("a", 0, Mode::EX, 1));
    disk.put(&LockRecord { token: Token::new(Epoch(11), 1), ..lock("b", 0, Mode::EX, 2) });
    assert_eq!(disk.kinds(), [Kind::DuplicateToken]);
}

/// Section 6: a record below the table epoch does not count, a record above the newest view cannot be.
#[test]
fn stamps_are_compared_with_the_newest_view() {
    let mut disk = Disk::new();
    disk.put(&lock("a", 0, Mode::EX, 1));
    let stale = LockRecord { table_epoch: Epoch(10), epoch: Epoch(10), token: Token(5), ..lock("a", 1, Mode::EX, 2) };
    disk.put(&stale);
    let report = Report::of(&disk.image());
    assert_eq!(report.findings, []);
    assert!(report.remarks.iter().any(|remark| remark.contains("1 records have a stamp below table epoch 11")));

    let mut disk = Disk::new();
    disk.put(&LockRecord { table_epoch: Epoch(13), ..lock("a", 0, Mode::EX, 1) });
    disk.put(&LockRecord { epoch: Epoch(13), ..lock("b", 0, Mode::EX, 2) });
    disk.put(&LockRecord { token: Token::new(Epoch(13), 1), ..lock("c", 0, Mode::EX, 3) });
    assert_eq!(disk.kinds(), [Kind::FromTheFuture; 3]);
}

/// PROTOTYPE 4: no sector is believed or called empty that is not exactly valid.
#[test]
fn damaged_sectors_are_found() {
    let mut disk = Disk::new();
    let slot = disk.put(&lock("a", 0, Mode::EX, 1));
    disk.table[slot as usize * 512 + 100] ^= 1;
    disk.region[512 * 5..512 * 6].fill(0);
    let report = Report::of(&disk.image());
    let kinds: Vec<Kind> = report.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [Kind::HeartbeatDamaged, Kind::RecordDamaged]);
    assert_eq!(report.findings[0].node, Some(5));
    assert_eq!(report.findings[1].slots, [slot]);
    assert!(show::heartbeats(&disk.image()).contains("DAMAGED"));
    assert_eq!(LocksDocument::of(&disk.image(), |_| true).damaged.len(), 1);
}

/// Section 3: every heartbeat sector is a copy of the superblock.
#[test]
fn sectors_that_disagree_are_found() {
    let mut disk = Disk::new();
    let mut foreign = superblock(SectorSize::S512);
    foreign.uuid = Uuid(*b"another lockspac");
    disk.heartbeat(&Heartbeat::empty(node(9), &foreign, Epoch(10)));
    let report = Report::of(&disk.image());
    assert_eq!(report.findings.len(), 1);
    assert_eq!(report.findings[0].kind, Kind::SuperblockDiffers);
    assert_eq!(report.findings[0].message, "heartbeat sector of node 9: its lockspace uuid differs");
}

/// A slot that nobody uses keeps the timing that it was formatted with when the cluster's is changed.
#[test]
fn an_unused_slot_may_have_old_timing() {
    let mut disk = Disk::new();
    let mut old = superblock(SectorSize::S512);
    old.timing = Timing::SAN;
    disk.heartbeat(&Heartbeat::empty(node(9), &old, Epoch(10)));
    assert_eq!(disk.kinds(), []);
}

/// INTERFACE.md: on a live lockspace a finding counts only if it is still there in a second reading.
#[test]
fn only_what_both_readings_show_is_confirmed() {
    let mut before = Disk::new();
    before.put(&lock("a", 0, Mode::EX, 1));
    before.put(&lock("a", 1, Mode::EX, 2));
    before.put(&lock("b", 0, Mode::EX, 3));
    before.put(&lock("b", 1, Mode::EX, 4));
    // Lock 2 was released, and lock 5, which conflicts as well, is another finding in another slot or of another lock.
    let mut after = Disk::new();
    after.put(&lock("a", 0, Mode::EX, 1));
    after.put(&lock("a", 1, Mode::EX, 5));
    after.put(&lock("b", 0, Mode::EX, 3));
    after.put(&lock("b", 1, Mode::EX, 4));
    let confirmed = Report::of(&before.image()).confirm(Report::of(&after.image()));
    assert_eq!(confirmed.findings.len(), 1);
    assert!(confirmed.findings[0].message.contains("'b'"));
}

/// PROTOTYPE 1: clearing a record never breaks another's lookup, so a gap before a record is no finding.
#[test]
fn a_cleared_slot_before_a_record_is_a_remark() {
    let mut disk = Disk::new();
    let first = disk.put(&lock("a", 0, Mode::PR, 1));
    let second = disk.put(&lock("a", 1, Mode::PR, 2));
    disk.table[first as usize * 512..][..512].fill(0);
    let image = disk.image();
    let report = Report::of(&image);
    assert_eq!(report.findings, []);
    assert!(report.remarks.contains(&"1 records stand behind slots that were cleared since".to_owned()));
    let distance = image.records().map(|(slot, record)| (slot, image.distance(slot, record))).next();
    assert_eq!(distance, Some((second, 1)));
}

#[test]
fn heartbeats_and_locks_as_people_see_them() {
    let mut disk = Disk::new();
    let slot = disk.put(&lock("a", 1, Mode::EX, 1));
    let image = disk.image();
    assert_eq!(
        show::heartbeats(&image),
        "\
NODE  STATE   HOST   ADDRESSES       EPOCH  LOCKS  SEQUENCE  WRITTEN               INCARNATION
   0  member  host0  192.0.2.1:7600  12         0         0  2026-09-21T14:13:20Z  100
   1  member  host1  192.0.2.1:7600  12         0         0  2026-09-21T14:13:20Z  101
"
    );
    let shown = show::locks(&image, |_| true);
    let [header, line] = shown.lines().collect::<Vec<_>>()[..] else { panic!("{shown}") };
    let cells: Vec<&str> = line.split_whitespace().collect();
    assert_eq!(header.split_whitespace().next(), Some("SLOT"));
    assert_eq!(
        cells,
        [
            slot.to_string().as_str(),
            "a",
            "1",
            "EX",
            "granted",
            "4242",
            "1000",
            "12094627905537",
            "2026-09-21T14:13:20Z",
            "all",
            "0000000000000abc.1"
        ]
    );
    assert_eq!(show::locks(&image, |_| false), "no locks\n");
}

/// INTERFACE.md, "JSON keys": these are a contract with scripts.
#[test]
fn json_has_the_keys_of_the_contract() {
    let mut disk = Disk::new();
    disk.put(&lock("a", 1, Mode::EX, 1));
    let image = disk.image();
    let locks = serde_json::to_value(LocksDocument::of(&image, |_| true)).unwrap();
    let lock = &locks["locks"][0];
    for key in ["slot", "resource", "name", "owner", "mode", "state", "epoch", "token", "lock_id", "pid"] {
        assert!(lock.get(key).is_some(), "{key}: {lock}");
    }
    assert_eq!(lock["token"], "12094627905537", "64-bit numbers are strings");
    assert_eq!((&lock["state"], &lock["mode"], &lock["owner"]), (&"granted".into(), &"EX".into(), &1.into()));
    let heartbeat = serde_json::to_value(HeartbeatJson::new(&image.heartbeats[1])).unwrap();
    for key in ["node", "active", "host", "addresses", "epoch", "timestamp_ms", "lock_count", "incarnation"] {
        assert!(heartbeat.get(key).is_some(), "{key}: {heartbeat}");
    }
    assert!(!heartbeat.to_string().contains("key"), "the cluster key is never printed");
    let view = serde_json::to_value(super::json::ViewJson::from(image.view().unwrap())).unwrap();
    for key in ["epoch", "master", "members", "phase"] {
        assert!(view.get(key).is_some(), "{key}: {view}");
    }
}

#[test]
fn the_map_shows_every_slot() {
    let mut disk = Disk::new();
    let first = disk.put(&lock("a", 0, Mode::PR, 1));
    disk.put(&lock("a", 1, Mode::PR, 2));
    disk.put(&lock("a", 1, Mode::PR, 3));
    let image = disk.image();
    let map = Map::of(&image).to_string();
    let row = map.lines().find(|line| line.contains('|')).unwrap();
    let cells: String = row.chars().skip_while(|&c| c != '|').skip(1).take(64).collect();
    let expected: String =
        (0..64).map(|slot| if (0..3).any(|i| (first + i) % 64 == slot) { '@' } else { ' ' }).collect();
    assert_eq!(cells, expected);
    assert!(map.starts_with("3 of 64 slots used (4.6 %), 0 damaged\n"), "{map}");
    let counts: Vec<&str> = map.lines().rev().take(3).collect();
    assert_eq!(counts[2].split_whitespace().take(2).collect::<Vec<_>>(), ["0", "1"]);
    assert_eq!(counts[0].split_whitespace().take(2).collect::<Vec<_>>(), ["2-3", "1"]);
}

#[test]
fn the_picture_has_a_pixel_for_every_slot() {
    let mut disk = Disk::new();
    let slot = disk.put(&lock("a", 0, Mode::EX, 1));
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("map.png");
    write_png(&disk.image(), &path).unwrap();
    let file = std::io::BufReader::new(std::fs::File::open(&path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!((info.width, info.height), (8, 8));
    let coloured: Vec<usize> = (0..64).filter(|&i| pixels[i] == 3).collect();
    assert_eq!(coloured, [slot as usize]);
    assert!(pixels.iter().all(|&pixel| pixel == 1 || pixel == 3));

    let nowhere = directory.path().join("missing/map.png");
    assert_eq!(write_png(&disk.image(), &nowhere).unwrap_err().code.number(), 73);
}
