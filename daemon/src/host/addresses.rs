//! Which addresses peers are told.

use crate::config::Advertise;
use mxlock_format::MAX_ADDRESSES;
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The addresses to write into the heartbeat: those given, else the one listened on, else all of this host's that
/// are not loopback, else loopback. IPv4 comes first; at most 3.
pub(crate) fn advertised(given: &[Advertise], listening: SocketAddr) -> Vec<SocketAddr> {
    if !given.is_empty() {
        return given.iter().map(|a| SocketAddr::new(a.ip, a.port.unwrap_or(listening.port()))).collect();
    }
    if !listening.ip().is_unspecified() {
        // Without an IPv6 scope, which means nothing on another host.
        return vec![SocketAddr::new(listening.ip(), listening.port())];
    }
    choose(host_addresses(), listening)
}

fn choose(mut host: Vec<IpAddr>, listening: SocketAddr) -> Vec<SocketAddr> {
    // A socket bound to :: serves IPv4 too, one bound to 0.0.0.0 serves nothing else.
    host.retain(|ip| usable(ip) && (listening.is_ipv6() || ip.is_ipv4()));
    host.sort_by_key(IpAddr::is_ipv6);
    host.dedup();
    host.truncate(MAX_ADDRESSES);
    if host.is_empty() {
        host.push(Ipv4Addr::LOCALHOST.into());
    }
    host.into_iter().map(|ip| SocketAddr::new(ip, listening.port())).collect()
}

/// Whether the address means the same host to everybody. Link-local ones need a scope, which another host does not
/// know.
fn usable(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local() && !v4.is_unspecified(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

fn host_addresses() -> Vec<IpAddr> {
    let interfaces = match getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            tracing::warn!(%error, "this host's addresses cannot be listed: loopback is advertised");
            return Vec::new();
        }
    };
    interfaces
        .filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| {
            let address = interface.address?;
            address
                .as_sockaddr_in()
                .map(|v4| IpAddr::V4(v4.ip()))
                .or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ips(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// INTERFACE.md: "all non-loopback addresses advertised, or loopback if there is none"; a heartbeat has room for 3.
    #[test]
    fn loopback_only_where_there_is_nothing_else() {
        let any: SocketAddr = "0.0.0.0:7600".parse().unwrap();
        assert_eq!(choose(ips(&["127.0.0.1", "::1", "fe80::1"]), any), ["127.0.0.1:7600".parse().unwrap()]);
        assert_eq!(choose(ips(&["127.0.0.1", "10.0.0.1", "fd00::1"]), any), ["10.0.0.1:7600".parse().unwrap()]);
        let any6: SocketAddr = "[::]:1".parse().unwrap();
        let all = choose(ips(&["fd00::1", "10.0.0.1", "169.254.1.1", "10.0.0.2", "10.0.0.3"]), any6);
        assert_eq!(all, ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.3:1"].map(|a| a.parse().unwrap()));
    }

    #[test]
    fn what_is_given_counts() {
        let listening: SocketAddr = "10.0.0.1:7611".parse().unwrap();
        assert_eq!(advertised(&[], listening), [listening]);
        let given = ["192.0.2.1".parse().unwrap(), "192.0.2.2:80".parse().unwrap()];
        assert_eq!(advertised(&given, listening), ["192.0.2.1:7611", "192.0.2.2:80"].map(|a| a.parse().unwrap()));
    }
}
