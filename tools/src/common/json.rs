//! JSON documents: 64-bit numbers as decimal strings, names that are not UTF-8 also in hexadecimal (INTERFACE.md).

use super::text;
use mxlock_format::{ByteRange, QualifiedName, Resource, ResourceKind};
use serde::{Serialize, Serializer};

/// A document as it is printed: indented, with a final newline.
pub fn document<T: Serialize>(value: &T) -> String {
    let mut text = serde_json::to_string_pretty(value).expect("documents have only string keys");
    text.push('\n');
    text
}

/// For `#[serde(serialize_with)]`: an id as a decimal string, because readers round numbers above 2^53.
pub fn decimal<T: std::fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// What is locked.
#[derive(Serialize)]
pub struct ResourceJson {
    /// As people see it: the name with its namespace, or the typed id.
    resource: String,
    kind: ResourceKindJson,
    /// Home slot's input, for typed resources: volume, inode, offset, allocation group.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<IdJson>,
    /// The name, with a replacement character for what is not UTF-8; `null` for a typed resource.
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_hex: Option<String>,
}

#[derive(Serialize)]
struct IdJson {
    volume: String,
    ino: String,
    offset: String,
    ag: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum ResourceKindJson {
    Inode,
    Extent,
    Ag,
    Journal,
    Superblock,
    Name,
}

impl From<&Resource> for ResourceJson {
    fn from(resource: &Resource) -> ResourceJson {
        let id = resource.id();
        let kind = match id.kind {
            ResourceKind::Inode => ResourceKindJson::Inode,
            ResourceKind::Extent => ResourceKindJson::Extent,
            ResourceKind::Ag => ResourceKindJson::Ag,
            ResourceKind::Journal => ResourceKindJson::Journal,
            ResourceKind::Superblock => ResourceKindJson::Superblock,
            ResourceKind::Name => ResourceKindJson::Name,
        };
        let name = resource.name().map(QualifiedName::name);
        let namespace = resource.name().map(QualifiedName::namespace).filter(|namespace| !namespace.is_empty());
        ResourceJson {
            resource: resource.to_string(),
            kind,
            id: resource.name().is_none().then(|| IdJson {
                volume: id.volume.to_string(),
                ino: id.ino.to_string(),
                offset: id.offset.to_string(),
                ag: id.ag,
            }),
            name: name.map(lossy),
            name_hex: name.and_then(hex_unless_utf8),
            namespace: namespace.map(lossy),
            namespace_hex: namespace.and_then(hex_unless_utf8),
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn hex_unless_utf8(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).is_err().then(|| text::hex(bytes))
}

/// An inclusive byte range.
#[derive(Serialize)]
pub struct RangeJson {
    first: String,
    last: String,
}

impl From<ByteRange> for RangeJson {
    fn from(range: ByteRange) -> RangeJson {
        RangeJson { first: range.start().to_string(), last: range.end().to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::ResourceId;
    use serde_json::json;

    #[test]
    fn names() {
        let shown = |namespace: &[u8], name: &[u8]| {
            let resource = Resource::named(QualifiedName::new(namespace, name).unwrap());
            serde_json::to_value(ResourceJson::from(&resource)).unwrap()
        };
        assert_eq!(shown(b"", b"a"), json!({"resource": "a", "kind": "name", "name": "a"}));
        assert_eq!(
            shown(b"db", b"a\xff"),
            json!({"resource": "db/a\\xff", "kind": "name", "name": "a\u{fffd}", "name_hex": "61ff", "namespace": "db"})
        );
    }

    #[test]
    fn typed_resources_have_no_name() {
        let id = ResourceId { volume: u64::MAX, ino: 2, offset: 3, ag: 4, kind: ResourceKind::Inode };
        let shown = serde_json::to_value(ResourceJson::from(&Resource::typed(id).unwrap())).unwrap();
        assert_eq!(
            shown,
            json!({"resource": "inode:ffffffffffffffff:2:3:4", "kind": "inode", "name": null,
                   "id": {"volume": "18446744073709551615", "ino": "2", "offset": "3", "ag": 4}})
        );
    }
}
