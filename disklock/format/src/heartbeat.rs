//! The heartbeat sector: one per node, written by that node alone (I6).

use crate::raw::{RawAddress, RawHeartbeat, RawView, padded, unpadded};
use crate::sector::{check_canonical, check_frame};
use crate::{
    Ballot, ClusterKey, Epoch, FORMAT_VERSION, Fault, Geometry, HeartbeatError, Incarnation, MAGIC, MAX_EPOCH, NodeId,
    NodeSet, RECORD_BYTES, SectorImage, SectorSize, Superblock, SuperblockError, Timing, Uuid, sector_to_image,
};
use bytemuck::Zeroable;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Most TCP addresses that a heartbeat carries.
pub const MAX_ADDRESSES: usize = 3;
/// Longest host name that a heartbeat carries, bytes.
pub const MAX_HOST_BYTES: usize = 64;

/// What a slot's owner says it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum NodeState {
    /// Never used since the format.
    Empty = 0,
    /// Claimed; this incarnation is not (yet) a member. With the slot's bit in the view's members it says that an
    /// earlier incarnation was one, and is gone.
    Joining = 1,
    /// This incarnation was admitted.
    Member = 2,
    /// A member that gave mastership up.
    Resigned = 3,
    /// Left for good.
    Left = 4,
}

/// Whether a view's master is still rebuilding the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
#[allow(missing_docs)]
pub enum Phase {
    Recovering = 1,
    Active = 2,
}

/// The agreed configuration (section 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, serde::Serialize, serde::Deserialize)]
#[allow(missing_docs)]
pub struct View {
    pub epoch: Epoch,
    pub master: NodeId,
    pub master_incarnation: Incarnation,
    pub phase: Phase,
    /// Slots whose locks stand. A slot leaves only by exclusion or `leave`; a restarted daemon's slot stays.
    pub members: NodeSet,
    /// Excluded nodes whose recovery hook has not succeeded.
    pub owed: NodeSet,
    /// Records stamped below it do not count (section 6).
    pub table_epoch: Epoch,
    pub feature_level: u16,
}

/// A node's block of single-disk Disk Paxos (section 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Block {
    /// The epoch that is being agreed on.
    pub instance: Epoch,
    /// Highest ballot this node entered in `instance` (`mbal`).
    pub promised: Ballot,
    /// Ballot in which `value` was accepted (`bal`); `NONE` with `value: None`.
    pub accepted: Ballot,
    /// The accepted value (`inp`).
    pub value: Option<View>,
}

/// A decoded heartbeat sector.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Heartbeat {
    pub node: NodeId,
    /// CLOCK_REALTIME, for people only.
    pub timestamp_ms: u64,
    /// Newest committed epoch that the node knows; after a format, the epoch below the first view's.
    pub epoch: Epoch,
    pub lock_count: u64,
    pub superblock: Superblock,
    pub node_uuid: Uuid,
    pub boot_id: Uuid,
    /// At most 64 bytes of UTF-8 without control characters.
    pub host: String,
    pub incarnation: Incarnation,
    pub hb_seq: u64,
    /// CLOCK_BOOTTIME of the write.
    pub boottime_ns: u64,
    pub state: NodeState,
    /// At most 3, without an IPv6 scope or flow label, which mean nothing on another host.
    pub addresses: Vec<SocketAddr>,
    /// Lowest and highest peer protocol version that the node speaks.
    pub protocols: (u16, u16),
    /// Nodes that this one has a live TCP link with.
    pub reachable: NodeSet,
    /// The node that this one is about to fence.
    pub fence_target: Option<NodeId>,
    /// With `Resigned`: who should stand for election first.
    pub successor: Option<NodeId>,
    /// A record write of this master ended in error or never ended: its successor waits D (section 4).
    pub writes_uncertain: bool,
    pub block: Block,
    /// The newest committed view that the node knows; its epoch equals `epoch`.
    pub view: Option<View>,
}

impl NodeState {
    /// All states in the order of their numbers.
    pub const ALL: [NodeState; 5] =
        [NodeState::Empty, NodeState::Joining, NodeState::Member, NodeState::Resigned, NodeState::Left];

    /// The state with this number.
    pub const fn from_number(number: u8) -> Option<NodeState> {
        if (number as usize) < NodeState::ALL.len() { Some(NodeState::ALL[number as usize]) } else { None }
    }

    /// Whether the slot has an owner; the "active" flag of the sector.
    pub const fn is_active(self) -> bool {
        !matches!(self, NodeState::Empty | NodeState::Left)
    }
}

/// "None" in the bytes that name a node.
const NO_NODE: u8 = 0xff;
const ACTIVE: u32 = 1;
const WRITES_UNCERTAIN: u8 = 1;

impl Heartbeat {
    /// The sector of a slot that nobody has used since the format: a copy of the superblock, with the epoch that
    /// the first view will follow.
    pub fn empty(node: NodeId, superblock: &Superblock, base_epoch: Epoch) -> Heartbeat {
        Heartbeat {
            node,
            timestamp_ms: 0,
            epoch: base_epoch,
            lock_count: 0,
            superblock: superblock.clone(),
            node_uuid: Uuid::default(),
            boot_id: Uuid::default(),
            host: String::new(),
            incarnation: Incarnation(0),
            hb_seq: 0,
            boottime_ns: 0,
            state: NodeState::Empty,
            addresses: Vec::new(),
            protocols: (0, 0),
            reachable: NodeSet::EMPTY,
            fence_target: None,
            successor: None,
            writes_uncertain: false,
            block: Block::default(),
            view: None,
        }
    }

    /// Whether the value can stand in a sector. `encode` demands it and `decode` guarantees it.
    ///
    /// # Errors
    /// The first field that cannot.
    pub fn check(&self) -> Result<(), Fault> {
        self.superblock.check()?;
        if self.host.len() > MAX_HOST_BYTES || self.host.chars().any(char::is_control) {
            return Err(Fault::Host);
        }
        if self.addresses.len() > MAX_ADDRESSES {
            return Err(Fault::AddressCount(self.addresses.len()));
        }
        if self.addresses.iter().any(|a| matches!(a, SocketAddr::V6(v6) if v6.scope_id() != 0 || v6.flowinfo() != 0)) {
            return Err(Fault::ScopedAddress);
        }
        let (lowest, highest) = self.protocols;
        if lowest > highest {
            return Err(Fault::Protocols { lowest, highest });
        }
        if self.epoch > MAX_EPOCH {
            return Err(Fault::EpochLimit(self.epoch.0));
        }
        if let Some(view) = &self.view {
            view.check()?;
            if view.epoch != self.epoch {
                return Err(Fault::ViewEpoch { sector: self.epoch.0, view: view.epoch.0 });
            }
        }
        self.block.check()
    }

    /// The sector's first 512 bytes.
    ///
    /// # Panics
    /// When [`Heartbeat::check`] fails: that is a programmer's error, nothing is ever cut to fit.
    pub fn encode(&self) -> SectorImage {
        if let Err(fault) = self.check() {
            panic!("heartbeat of node {} cannot be encoded: {fault}", self.node);
        }
        let mut image = self.to_image();
        image.seal();
        image
    }

    /// The heartbeat in a sector of 512 or 4096 bytes that stands in `expected_node`'s place.
    ///
    /// # Errors
    /// Whatever is not exactly what [`Heartbeat::encode`] could have written. An all-zero sector is damage too:
    /// formatting writes all 64.
    pub fn decode(expected_node: NodeId, bytes: &[u8]) -> Result<Heartbeat, HeartbeatError> {
        Heartbeat::from_sector(expected_node, bytes).map_err(|fault| HeartbeatError { node: expected_node, fault })
    }

    fn from_sector(node: NodeId, sector: &[u8]) -> Result<Heartbeat, Fault> {
        let bytes = sector_to_image(sector)?;
        if *bytes == [0; RECORD_BYTES] {
            return Err(Fault::Zero);
        }
        check_frame(bytes, offset_of!(RawHeartbeat, version))?;
        let raw: &RawHeartbeat = bytemuck::cast_ref(bytes);
        let node_id = u32::from_le_bytes(raw.node_id);
        if node_id != node.get() {
            return Err(Fault::WrongNode(node_id));
        }
        let heartbeat = Heartbeat::from_raw(node, raw)?;
        heartbeat.check()?;
        let flags = u32::from_le_bytes(raw.flags);
        if flags != heartbeat.flags() {
            return Err(Fault::Flags(flags));
        }
        check_canonical(bytes, &heartbeat.to_image())?;
        Ok(heartbeat)
    }

    fn flags(&self) -> u32 {
        if self.state.is_active() { ACTIVE } else { 0 }
    }

    fn to_image(&self) -> SectorImage {
        let mut image = SectorImage::zeroed();
        let raw: &mut RawHeartbeat = bytemuck::cast_mut(&mut image.0);
        raw.magic = MAGIC.to_le_bytes();
        raw.flags = self.flags().to_le_bytes();
        raw.node_id = self.node.get().to_le_bytes();
        raw.timestamp_ms = self.timestamp_ms.to_le_bytes();
        raw.epoch = self.epoch.0.to_le_bytes();
        raw.lock_count = self.lock_count.to_le_bytes();

        let Superblock { geometry, timing, lockspace, uuid, key, feature_level } = &self.superblock;
        raw.version = FORMAT_VERSION.to_le_bytes();
        raw.feature_level = feature_level.to_le_bytes();
        raw.sector_bytes = (geometry.sector as u32).to_le_bytes();
        raw.slot_count = geometry.slot_count.to_le_bytes();
        raw.renew_ms = timing.renew_ms.to_le_bytes();
        raw.lease_ms = timing.lease_ms.to_le_bytes();
        raw.grace_ms = timing.grace_ms.to_le_bytes();
        raw.dead_ms = timing.dead_ms.to_le_bytes();
        raw.suspect_ms = timing.suspect_ms.to_le_bytes();
        raw.lockspace = padded(lockspace.as_bytes());
        raw.uuid = uuid.0;
        raw.key = key.0;

        raw.node_uuid = self.node_uuid.0;
        raw.boot_id = self.boot_id.0;
        raw.host = padded(self.host.as_bytes());
        raw.incarnation = self.incarnation.0.to_le_bytes();
        raw.hb_seq = self.hb_seq.to_le_bytes();
        raw.boottime_ns = self.boottime_ns.to_le_bytes();
        raw.reachable = self.reachable.0.to_le_bytes();
        raw.state = self.state as u8;
        raw.bits = if self.writes_uncertain { WRITES_UNCERTAIN } else { 0 };
        raw.fence_target = node_byte(self.fence_target);
        raw.successor = node_byte(self.successor);
        raw.protocol_min = self.protocols.0.to_le_bytes();
        raw.protocol_max = self.protocols.1.to_le_bytes();
        for (slot, &address) in raw.addresses.iter_mut().zip(&self.addresses) {
            *slot = RawAddress::from(address);
        }
        raw.block_instance = self.block.instance.0.to_le_bytes();
        raw.block_promised = self.block.promised.0.to_le_bytes();
        raw.block_accepted = self.block.accepted.0.to_le_bytes();
        raw.block_value = RawView::from(self.block.value);
        raw.view = RawView::from(self.view);
        image
    }

    fn from_raw(node: NodeId, raw: &RawHeartbeat) -> Result<Heartbeat, Fault> {
        if raw.bits & !WRITES_UNCERTAIN != 0 {
            return Err(Fault::Bits(raw.bits));
        }
        Ok(Heartbeat {
            node,
            timestamp_ms: u64::from_le_bytes(raw.timestamp_ms),
            epoch: Epoch(u64::from_le_bytes(raw.epoch)),
            lock_count: u64::from_le_bytes(raw.lock_count),
            superblock: superblock_from_raw(raw)?,
            node_uuid: Uuid(raw.node_uuid),
            boot_id: Uuid(raw.boot_id),
            host: std::str::from_utf8(unpadded(&raw.host)).map_err(|_| Fault::Host)?.to_owned(),
            incarnation: Incarnation(u64::from_le_bytes(raw.incarnation)),
            hb_seq: u64::from_le_bytes(raw.hb_seq),
            boottime_ns: u64::from_le_bytes(raw.boottime_ns),
            state: NodeState::from_number(raw.state).ok_or(Fault::NodeState(raw.state))?,
            addresses: addresses_from_raw(&raw.addresses)?,
            protocols: (u16::from_le_bytes(raw.protocol_min), u16::from_le_bytes(raw.protocol_max)),
            reachable: NodeSet(u64::from_le_bytes(raw.reachable)),
            fence_target: node_from_byte(raw.fence_target)?,
            successor: node_from_byte(raw.successor)?,
            writes_uncertain: raw.bits & WRITES_UNCERTAIN != 0,
            block: Block {
                instance: Epoch(u64::from_le_bytes(raw.block_instance)),
                promised: Ballot(u64::from_le_bytes(raw.block_promised)),
                accepted: Ballot(u64::from_le_bytes(raw.block_accepted)),
                value: raw.block_value.decode()?,
            },
            view: raw.view.decode()?,
        })
    }
}

fn superblock_from_raw(raw: &RawHeartbeat) -> Result<Superblock, SuperblockError> {
    let sector_bytes = u32::from_le_bytes(raw.sector_bytes);
    Ok(Superblock {
        geometry: Geometry {
            sector: SectorSize::from_bytes(sector_bytes).ok_or(SuperblockError::SectorSize(sector_bytes))?,
            slot_count: u32::from_le_bytes(raw.slot_count),
        },
        timing: Timing {
            renew_ms: u32::from_le_bytes(raw.renew_ms),
            lease_ms: u32::from_le_bytes(raw.lease_ms),
            grace_ms: u32::from_le_bytes(raw.grace_ms),
            dead_ms: u32::from_le_bytes(raw.dead_ms),
            suspect_ms: u32::from_le_bytes(raw.suspect_ms),
        },
        lockspace: String::from_utf8_lossy(unpadded(&raw.lockspace)).into_owned(),
        uuid: Uuid(raw.uuid),
        key: ClusterKey(raw.key),
        feature_level: u16::from_le_bytes(raw.feature_level),
    })
}

fn node_byte(node: Option<NodeId>) -> u8 {
    node.map_or(NO_NODE, |node| node.index() as u8)
}

fn node_from_byte(byte: u8) -> Result<Option<NodeId>, Fault> {
    match byte {
        NO_NODE => Ok(None),
        _ => NodeId::new(byte.into()).map(Some).ok_or(Fault::NodeNumber(byte.into())),
    }
}

impl From<SocketAddr> for RawAddress {
    fn from(address: SocketAddr) -> RawAddress {
        let (family, ip) = match address.ip() {
            IpAddr::V4(v4) => (4, v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => (6, v6),
        };
        RawAddress { family, pad: 0, port: address.port().to_le_bytes(), ip: ip.octets() }
    }
}

/// The addresses that are set; they stand before the unset ones.
fn addresses_from_raw(raw: &[RawAddress]) -> Result<Vec<SocketAddr>, Fault> {
    let set = raw.iter().take_while(|address| address.family != 0);
    set.map(|&RawAddress { family, port, ip, .. }| {
        let ip = Ipv6Addr::from(ip);
        let ip = match family {
            4 => ip.to_ipv4_mapped().map(IpAddr::V4),
            6 => Some(IpAddr::V6(ip)),
            _ => None,
        };
        ip.map(|ip| SocketAddr::new(ip, u16::from_le_bytes(port))).ok_or(Fault::AddressFamily(family))
    })
    .collect()
}

impl Phase {
    /// The phase with this number.
    pub const fn from_number(number: u8) -> Option<Phase> {
        match number {
            1 => Some(Phase::Recovering),
            2 => Some(Phase::Active),
            _ => None,
        }
    }
}

impl View {
    /// Records of a table epoch exist only once its view does (section 6).
    fn check(&self) -> Result<(), Fault> {
        if self.epoch > MAX_EPOCH {
            return Err(Fault::EpochLimit(self.epoch.0));
        }
        if self.table_epoch > self.epoch {
            return Err(Fault::TableEpoch { epoch: self.epoch.0, table_epoch: self.table_epoch.0 });
        }
        Ok(())
    }
}

impl Block {
    /// What holds for every block that the algorithm writes (Gafni and Lamport 2003: `bal <= mbal`, `inp` is set
    /// exactly when `bal` is), with the instance as the epoch of what it agrees on.
    fn check(&self) -> Result<(), Fault> {
        if self.accepted > self.promised {
            return Err(Fault::Block("it accepted a higher ballot than it promised"));
        }
        match &self.value {
            None if self.accepted != Ballot::NONE => Err(Fault::Block("it accepted a ballot without a value")),
            None => Ok(()),
            Some(_) if self.accepted == Ballot::NONE => Err(Fault::Block("it has a value without a ballot")),
            Some(view) if view.epoch != self.instance => Err(Fault::Block("its value is of another instance")),
            Some(view) => view.check(),
        }
    }
}

impl From<Option<View>> for RawView {
    fn from(view: Option<View>) -> RawView {
        let Some(view) = view else { return RawView::zeroed() };
        RawView {
            epoch: view.epoch.0.to_le_bytes(),
            master: node_byte(Some(view.master)),
            phase: view.phase as u8,
            feature_level: view.feature_level.to_le_bytes(),
            pad: [0; 4],
            master_incarnation: view.master_incarnation.0.to_le_bytes(),
            members: view.members.0.to_le_bytes(),
            owed: view.owed.0.to_le_bytes(),
            table_epoch: view.table_epoch.0.to_le_bytes(),
        }
    }
}

impl RawView {
    fn decode(&self) -> Result<Option<View>, Fault> {
        if self.phase == 0 {
            return Ok(None);
        }
        Ok(Some(View {
            epoch: Epoch(u64::from_le_bytes(self.epoch)),
            master: NodeId::new(self.master.into()).ok_or(Fault::NodeNumber(self.master.into()))?,
            master_incarnation: Incarnation(u64::from_le_bytes(self.master_incarnation)),
            phase: Phase::from_number(self.phase).ok_or(Fault::Phase(self.phase))?,
            members: NodeSet(u64::from_le_bytes(self.members)),
            owed: NodeSet(u64::from_le_bytes(self.owed)),
            table_epoch: Epoch(u64::from_le_bytes(self.table_epoch)),
            feature_level: u16::from_le_bytes(self.feature_level),
        }))
    }
}
