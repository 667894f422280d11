//! What can be locked, and where its record's home slot is.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::hash::Hasher;
use std::sync::Arc;

/// Longest namespace, bytes.
pub const MAX_NAMESPACE_BYTES: usize = 64;
/// Longest name, bytes.
pub const MAX_NAME_BYTES: usize = 135;

/// The kind of a resource, with the numbers that are on disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum ResourceKind {
    Inode = 1,
    Extent = 2,
    Ag = 3,
    Journal = 4,
    Superblock = 5,
    Name = 6,
}

impl ResourceKind {
    /// The kind with this number.
    pub const fn from_number(number: u8) -> Option<ResourceKind> {
        match number {
            1 => Some(ResourceKind::Inode),
            2 => Some(ResourceKind::Extent),
            3 => Some(ResourceKind::Ag),
            4 => Some(ResourceKind::Journal),
            5 => Some(ResourceKind::Superblock),
            6 => Some(ResourceKind::Name),
            _ => None,
        }
    }
}

/// The 32-byte identity of a resource. The pad is not part of it (PROTOTYPE 5).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ResourceId {
    pub volume: u64,
    pub ino: u64,
    pub offset: u64,
    pub ag: u32,
    pub kind: ResourceKind,
}

/// A namespace (0..=64 bytes) and a name (1..=135 bytes), both without NUL; kept as `namespace NUL name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "Arc<[u8]>", into = "Arc<[u8]>")]
pub struct QualifiedName(Arc<[u8]>);

/// Why a resource cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum ResourceError {
    #[error("the name is empty: give 1..={MAX_NAME_BYTES} bytes")]
    EmptyName,
    #[error("the name has {0} bytes: at most {MAX_NAME_BYTES} are allowed")]
    NameTooLong(usize),
    #[error("the namespace has {0} bytes: at most {MAX_NAMESPACE_BYTES} are allowed")]
    NamespaceTooLong(usize),
    #[error("a name or namespace has a NUL byte: every other byte is allowed")]
    Nul,
    #[error("a typed id cannot have the kind 'name': give the name itself")]
    KindName,
    #[error("resource kind {0} is not one of 1..=6")]
    UnknownKind(u8),
}

impl QualifiedName {
    /// Checks and joins the two parts.
    pub fn new(namespace: &[u8], name: &[u8]) -> Result<QualifiedName, ResourceError> {
        if namespace.len() > MAX_NAMESPACE_BYTES {
            return Err(ResourceError::NamespaceTooLong(namespace.len()));
        }
        if name.is_empty() {
            return Err(ResourceError::EmptyName);
        }
        if name.len() > MAX_NAME_BYTES {
            return Err(ResourceError::NameTooLong(name.len()));
        }
        if namespace.contains(&0) || name.contains(&0) {
            return Err(ResourceError::Nul);
        }
        let joined: Vec<u8> = [namespace, b"\0", name].concat();
        Ok(QualifiedName(joined.into()))
    }

    /// Splits `namespace NUL name` as it is on disk and on the wire.
    pub fn from_joined(joined: &[u8]) -> Result<QualifiedName, ResourceError> {
        let nul = joined.iter().position(|&b| b == 0).ok_or(ResourceError::EmptyName)?;
        QualifiedName::new(&joined[..nul], &joined[nul + 1..])
    }

    /// `namespace NUL name`, at most 200 bytes.
    pub fn joined(&self) -> &[u8] {
        &self.0
    }

    /// The namespace; empty for the default one.
    pub fn namespace(&self) -> &[u8] {
        let nul = self.0.iter().position(|&b| b == 0).unwrap_or(0);
        &self.0[..nul]
    }

    /// The name.
    pub fn name(&self) -> &[u8] {
        &self.0[self.namespace().len() + 1..]
    }
}

impl TryFrom<Arc<[u8]>> for QualifiedName {
    type Error = ResourceError;

    fn try_from(joined: Arc<[u8]>) -> Result<QualifiedName, ResourceError> {
        QualifiedName::from_joined(&joined)
    }
}

impl From<QualifiedName> for Arc<[u8]> {
    fn from(name: QualifiedName) -> Arc<[u8]> {
        name.0
    }
}

/// A resource: a typed id, or a name whose id is derived from it. Equality is by name, never by hash alone
/// (section 3).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "WireResource", into = "WireResource")]
pub struct Resource {
    id: ResourceId,
    name: Option<QualifiedName>,
}

#[derive(Serialize, Deserialize)]
enum WireResource {
    Typed(ResourceId),
    Named(QualifiedName),
}

impl TryFrom<WireResource> for Resource {
    type Error = ResourceError;

    fn try_from(wire: WireResource) -> Result<Resource, ResourceError> {
        match wire {
            WireResource::Typed(id) => Resource::typed(id),
            WireResource::Named(name) => Ok(Resource::named(name)),
        }
    }
}

impl From<Resource> for WireResource {
    fn from(resource: Resource) -> WireResource {
        match resource.name {
            None => WireResource::Typed(resource.id),
            Some(name) => WireResource::Named(name),
        }
    }
}

impl Resource {
    /// A resource identified by its 32 bytes.
    pub fn typed(id: ResourceId) -> Result<Resource, ResourceError> {
        if id.kind == ResourceKind::Name {
            return Err(ResourceError::KindName);
        }
        Ok(Resource { id, name: None })
    }

    /// A resource identified by its name; its id carries the name's hash.
    pub fn named(name: QualifiedName) -> Resource {
        let hash = name_hash(&name);
        let id =
            ResourceId { volume: 0, ino: hash as u64, offset: (hash >> 64) as u64, ag: 0, kind: ResourceKind::Name };
        Resource { id, name: Some(name) }
    }

    /// The 32-byte identity.
    pub fn id(&self) -> &ResourceId {
        &self.id
    }

    /// The name, for a named resource.
    pub fn name(&self) -> Option<&QualifiedName> {
        self.name.as_ref()
    }

    /// The slot where the search for a place for its records starts: FNV-1a-64 of the 32 bytes, pad zeroed,
    /// mod `slot_count`.
    pub fn home_slot(&self, slot_count: u32) -> u32 {
        let mut hasher = fnv::FnvHasher::default();
        hasher.write(&self.id.to_bytes());
        (hasher.finish() % u64::from(slot_count)) as u32
    }
}

impl ResourceId {
    /// The 32 bytes that are on disk, little-endian, pad zeroed.
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        bytes[0..8].copy_from_slice(&self.volume.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.ino.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.ag.to_le_bytes());
        bytes[28] = self.kind as u8;
        bytes
    }
}

/// FNV-1a-128 over `namespace NUL name`: its low half becomes `ino`, its high half `offset`.
pub fn name_hash(name: &QualifiedName) -> u128 {
    const OFFSET_BASIS: u128 = 0x6c62272e07bb014262b821756295c58d;
    const PRIME: u128 = 0x0000000001000000000000000000013b;
    name.joined().iter().fold(OFFSET_BASIS, |hash, &byte| (hash ^ u128::from(byte)).wrapping_mul(PRIME))
}

impl fmt::Display for Resource {
    /// `namespace/name` or `name` with bytes that are not printable ASCII escaped, or `inode:volume:ino:...`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) if name.namespace().is_empty() => name.name().escape_ascii().fmt(f),
            Some(name) => write!(f, "{}/{}", name.namespace().escape_ascii(), name.name().escape_ascii()),
            None => {
                let ResourceId { volume, ino, offset, ag, kind } = self.id;
                write!(f, "{}:{volume:x}:{ino:x}:{offset:x}:{ag:x}", format!("{kind:?}").to_lowercase())
            }
        }
    }
}

impl fmt::Debug for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{self}`")
    }
}

/// An inclusive byte range of a resource.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "(u64, u64)", into = "(u64, u64)")]
pub struct ByteRange {
    start: u64,
    end: u64,
}

impl ByteRange {
    /// Every byte: what a lock without a range covers.
    pub const ALL: ByteRange = ByteRange { start: 0, end: u64::MAX };

    /// `start..=end`, or `None` when `end < start`.
    pub const fn new(start: u64, end: u64) -> Option<ByteRange> {
        if start <= end { Some(ByteRange { start, end }) } else { None }
    }

    /// First byte.
    pub const fn start(self) -> u64 {
        self.start
    }

    /// Last byte.
    pub const fn end(self) -> u64 {
        self.end
    }

    /// Whether the two have a byte in common.
    pub const fn overlaps(self, other: ByteRange) -> bool {
        self.start <= other.end && other.start <= self.end
    }

    /// Whether `other` lies within `self`.
    pub const fn contains(self, other: ByteRange) -> bool {
        self.start <= other.start && other.end <= self.end
    }
}

impl TryFrom<(u64, u64)> for ByteRange {
    type Error = String;

    fn try_from((start, end): (u64, u64)) -> Result<ByteRange, String> {
        ByteRange::new(start, end).ok_or_else(|| format!("byte range {start}-{end} ends before it starts"))
    }
}

impl From<ByteRange> for (u64, u64) {
    fn from(range: ByteRange) -> (u64, u64) {
        (range.start, range.end)
    }
}
