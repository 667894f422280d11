//! Values of keys and flags that are more than a number or a path.

use mxlock_format::NodeId;
use serde::Deserialize;
use std::net::SocketAddr;
use std::str::FromStr;

/// Which slot the daemon shall take.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(try_from = "NodeText")]
pub enum NodeWish {
    /// The one it used before, else a free one.
    #[default]
    Auto,
    /// This one.
    Node(NodeId),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a node number 0..63, or \"auto\"")]
enum NodeText {
    Number(u32),
    Text(String),
}

impl TryFrom<NodeText> for NodeWish {
    type Error = String;

    fn try_from(value: NodeText) -> Result<NodeWish, String> {
        match value {
            NodeText::Number(slot) => NodeId::try_from(slot).map(NodeWish::Node),
            NodeText::Text(text) => text.parse(),
        }
    }
}

impl FromStr for NodeWish {
    type Err = String;

    fn from_str(text: &str) -> Result<NodeWish, String> {
        match text {
            "auto" => Ok(NodeWish::Auto),
            _ => match text.parse::<u32>() {
                Ok(slot) => NodeId::try_from(slot).map(NodeWish::Node),
                Err(_) => Err("a node is a number 0..63, or auto".to_owned()),
            },
        }
    }
}

/// An address to tell the peers; `IP` alone takes the port that the daemon listens on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(try_from = "String")]
pub struct Advertise {
    /// The address.
    pub ip: std::net::IpAddr,
    /// The port; `None` is the one that the daemon listens on.
    pub port: Option<u16>,
}

impl FromStr for Advertise {
    type Err = String;

    fn from_str(text: &str) -> Result<Advertise, String> {
        let parsed = match text.parse::<SocketAddr>() {
            Ok(address) => Some(Advertise { ip: address.ip(), port: Some(address.port()) }),
            Err(_) => text.parse().ok().map(|ip| Advertise { ip, port: None }),
        };
        match parsed {
            Some(Advertise { port: Some(0), .. }) => Err("port 0 cannot be reached".to_owned()),
            Some(a) if a.ip.is_unspecified() => Err("it must be an address that peers can reach".to_owned()),
            Some(address) => Ok(address),
            None => Err("an address is IP:PORT or IP; host names do not count on the shared disk".to_owned()),
        }
    }
}

impl TryFrom<String> for Advertise {
    type Error = String;

    fn try_from(text: String) -> Result<Advertise, String> {
        text.parse()
    }
}

/// How sectors and sockets are read and written.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IoChoice {
    /// One io_uring for sockets and record writes; where the kernel forbids it, as `pwrite`.
    Uring,
    /// Writer threads and epoll.
    Pwrite,
}

/// A way to make sure that a silent node is gone (DESIGN section 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FenceMethod {
    /// Silence for the dead time D counts.
    Wait,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_numbers_or_auto() {
        assert_eq!("auto".parse(), Ok(NodeWish::Auto));
        assert_eq!("63".parse(), Ok(NodeWish::Node(NodeId::new(63).unwrap())));
        // PROTOTYPE 8: a node id that does not fit must not start anything.
        assert!("64".parse::<NodeWish>().is_err());
        assert!("-1".parse::<NodeWish>().is_err());
        assert!("0x1".parse::<NodeWish>().is_err());
    }

    #[test]
    fn advertised_addresses_can_be_reached() {
        assert_eq!("10.0.0.1:7601".parse(), Ok(Advertise { ip: [10, 0, 0, 1].into(), port: Some(7601) }));
        assert_eq!("10.0.0.1".parse(), Ok(Advertise { ip: [10, 0, 0, 1].into(), port: None }));
        assert!("[fd00::1]:7600".parse::<Advertise>().is_ok());
        for wrong in ["0.0.0.0:7600", "[::]:1", "host:7600", "10.0.0.1:0", ""] {
            assert!(wrong.parse::<Advertise>().is_err(), "{wrong}");
        }
    }
}
