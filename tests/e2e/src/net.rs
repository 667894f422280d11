//! Networks: a bridge in a namespace of its own, and one namespace for each node, so that every node can have the same
//! port, and its cable can be pulled.

use crate::command::run;
use crate::disk::{complain, in_path};
use std::sync::atomic::{AtomicU32, Ordering};

/// Keeps names apart: of tests by the counter, of processes by their id.
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A network that goes away when it is dropped.
#[derive(Debug)]
pub struct Network {
    switch: Namespace,
    nodes: Vec<Namespace>,
}

#[derive(Debug)]
struct Namespace(String);

impl Network {
    /// A bridge with `nodes` hosts, 10.77.0.1 and up.
    ///
    /// # Errors
    /// What `ip` said.
    pub fn new(nodes: usize) -> Result<Network, String> {
        if !in_path("ip") {
            return Err("ip (iproute2) is not installed".into());
        }
        let name = format!("mxe{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let mut network = Network { switch: Namespace::add(format!("{name}-sw"))?, nodes: Vec::new() };
        let switch = network.switch.0.clone();
        ip(&format!("-n {switch} link add br0 type bridge"))?;
        ip(&format!("-n {switch} link set br0 up"))?;
        for node in 0..nodes {
            let host = Namespace::add(format!("{name}-n{node}"))?;
            ip(&format!("link add name eth0 netns {} type veth peer name port{node} netns {switch}", host.0))?;
            ip(&format!("-n {switch} link set port{node} master br0 up"))?;
            ip(&format!("-n {} addr add {}/24 dev eth0", host.0, address(node)))?;
            ip(&format!("-n {} link set eth0 up", host.0))?;
            ip(&format!("-n {} link set lo up", host.0))?;
            network.nodes.push(host);
        }
        Ok(network)
    }

    /// The namespace of a node, for `ip netns exec`.
    pub fn namespace(&self, node: usize) -> &str {
        &self.nodes[node].0
    }

    /// Pulls a node's cable, or plugs it in again.
    ///
    /// # Panics
    /// When `ip` fails.
    pub fn plug(&self, node: usize, connected: bool) {
        let state = if connected { "up" } else { "down" };
        ip(&format!("-n {} link set port{node} {state}", self.switch.0)).expect("a cable can be pulled");
    }
}

/// The address of a node.
pub fn address(node: usize) -> String {
    format!("10.77.0.{}", node + 1)
}

impl Namespace {
    fn add(name: String) -> Result<Namespace, String> {
        ip(&format!("netns add {name}"))?;
        Ok(Namespace(name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        complain(ip(&format!("netns del {}", self.0)));
    }
}

fn ip(args: &str) -> Result<(), String> {
    let said = run("ip", args.split_whitespace());
    if said.code == 0 { Ok(()) } else { Err(format!("ip {args}: {}", said.err.trim())) }
}
