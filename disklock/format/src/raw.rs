//! The byte tables of DESIGN section 3 and docs/format.md, as types. Nothing else in the workspace knows an offset.
//!
//! Fields are arrays of bytes, little-endian, so that the structs have no alignment and no hidden padding; the
//! `layout!` macro asserts the offset of every field and the size of the whole at compile time.

use crate::{
    MAX_ADDRESSES, MAX_HOST_BYTES, MAX_LOCKSPACE_NAME_BYTES, MAX_LVB_BYTES, MAX_NAME_BYTES, MAX_NAMESPACE_BYTES,
    RECORD_BYTES,
};
use bytemuck::{Pod, Zeroable};
use std::mem::{align_of, offset_of, size_of};

type U16 = [u8; 2];
type U32 = [u8; 4];
type U64 = [u8; 8];

macro_rules! layout {
    ($(#[$doc:meta])* struct $name:ident, $size:literal bytes { $($offset:literal $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Pod, Zeroable)]
        #[repr(C)]
        pub(crate) struct $name { $(pub(crate) $field: $type,)* }

        const _: () = {
            assert!(size_of::<$name>() == $size);
            assert!(align_of::<$name>() == 1);
            $(assert!(offset_of!($name, $field) == $offset);)*
        };
    };
}

layout! {
    /// A view, 48 bytes; `phase` 0 and everything else zero: no view.
    struct RawView, 48 bytes {
        0 epoch: U64,
        8 master: u8,
        9 phase: u8,
        10 feature_level: U16,
        12 pad: [u8; 4],
        16 master_incarnation: U64,
        24 members: U64,
        32 owed: U64,
        40 table_epoch: U64,
    }
}

layout! {
    /// A TCP address, 20 bytes; `family` 0, 4 or 6.
    struct RawAddress, 20 bytes {
        0 family: u8,
        1 pad: u8,
        2 port: U16,
        4 ip: [u8; 16],
    }
}

layout! {
    /// The 32 bytes that identify a resource.
    struct RawResource, 32 bytes {
        0 volume: U64,
        8 ino: U64,
        16 offset: U64,
        24 ag: U32,
        28 kind: u8,
        29 pad: [u8; 3],
    }
}

layout! {
    /// A heartbeat sector: the published 40 bytes, then the extension.
    struct RawHeartbeat, 512 bytes {
        0 magic: U32,
        4 flags: U32,
        8 node_id: U32,
        12 pad: [u8; 4],
        16 timestamp_ms: U64,
        24 epoch: U64,
        32 lock_count: U64,

        40 version: U16,
        42 feature_level: U16,
        44 sector_bytes: U32,
        48 slot_count: U32,
        52 renew_ms: U32,
        56 lease_ms: U32,
        60 grace_ms: U32,
        64 dead_ms: U32,
        68 suspect_ms: U32,
        72 lockspace: [u8; MAX_LOCKSPACE_NAME_BYTES],
        104 uuid: [u8; 16],
        120 key: [u8; 32],
        152 node_uuid: [u8; 16],
        168 boot_id: [u8; 16],
        184 host: [u8; MAX_HOST_BYTES],
        248 incarnation: U64,
        256 hb_seq: U64,
        264 boottime_ns: U64,
        272 reachable: U64,
        280 state: u8,
        281 bits: u8,
        282 fence_target: u8,
        283 successor: u8,
        284 protocol_min: U16,
        286 protocol_max: U16,
        288 addresses: [RawAddress; MAX_ADDRESSES],
        348 pad_block: [u8; 4],
        352 block_instance: U64,
        360 block_promised: U64,
        368 block_accepted: U64,
        376 block_value: RawView,
        424 view: RawView,
        472 reserved: [u8; 36],
        508 crc: U32,
    }
}

layout! {
    /// A lock-record sector: the published 64 bytes, then the extension.
    struct RawRecord, 512 bytes {
        0 magic: U32,
        4 flags: U32,
        8 resource: RawResource,
        40 owner: U32,
        44 mode: u8,
        45 state: u8,
        46 pad: [u8; 2],
        48 granted_at_ms: U64,
        56 epoch: U64,

        64 version: U16,
        66 wanted: u8,
        67 bits: u8,
        68 name_len: u8,
        69 lvb_len: u8,
        70 pad_queue: [u8; 2],
        72 queue_position: U64,
        80 session: U64,
        88 seq: U64,
        96 owner_incarnation: U64,
        104 token: U64,
        112 table_epoch: U64,
        120 transaction: U64,
        128 process_start_time: U64,
        136 pid: U32,
        140 uid: U32,
        144 range_start: U64,
        152 range_end: U64,
        160 lvb_epoch: U64,
        168 lvb_n: U64,
        176 orphan_lifetime_ms: U32,
        180 pad_lvb: [u8; 4],
        184 lvb: [u8; MAX_LVB_BYTES],
        248 name: [u8; MAX_NAMESPACE_BYTES + 1 + MAX_NAME_BYTES],
        448 reserved: [u8; 60],
        508 crc: U32,
    }
}

const _: () = {
    assert!(size_of::<RawHeartbeat>() == RECORD_BYTES);
    assert!(size_of::<RawRecord>() == RECORD_BYTES);
    assert!(offset_of!(RawHeartbeat, version) == 40, "the published heartbeat part ends at 40");
    assert!(offset_of!(RawRecord, version) == 64, "the published record part ends at 64");
};

/// `text` followed by zeros. Panics when it does not fit: the callers have checked the length.
pub(crate) fn padded<const N: usize>(text: &[u8]) -> [u8; N] {
    let mut bytes = [0; N];
    bytes[..text.len()].copy_from_slice(text);
    bytes
}

/// What stands before the zeros that fill a text field.
pub(crate) fn unpadded(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1)]
}
