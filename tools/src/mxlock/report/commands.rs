//! Which command a lock holder is.

use mxlock_client::{Client, ClientError};
use mxlock_format::{NodeId, Process};
use mxlock_proto::client::{AdminReply, AdminRequest};
use mxlock_proto::report::Lock;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Processes that one question may ask for.
const AT_ONCE: usize = 256;

/// The command names of lock holders.
#[derive(Default)]
pub(in crate::mxlock) struct Commands {
    names: HashMap<(NodeId, Process), String>,
}

impl Commands {
    /// Asks each node for the commands of the processes on its machine. Those of a node that does not answer stay unknown.
    ///
    /// # Errors
    /// When this node's daemon does not answer any more.
    pub(in crate::mxlock) fn ask<'a>(
        client: &Client,
        locks: impl Iterator<Item = &'a Lock>,
    ) -> Result<Commands, ClientError> {
        let mut by_node: BTreeMap<NodeId, BTreeSet<(u32, u64, u32)>> = BTreeMap::new();
        for Lock { node, process, .. } in locks {
            by_node.entry(*node).or_default().insert((process.pid, process.start_time, process.uid));
        }
        let mut commands = Commands::default();
        for (node, processes) in by_node {
            let processes: Vec<Process> =
                processes.into_iter().map(|(pid, start_time, uid)| Process { pid, start_time, uid }).collect();
            for part in processes.chunks(AT_ONCE) {
                match client.admin(AdminRequest::Commands { node, processes: part.to_vec() }) {
                    Ok(AdminReply::Commands(names)) => commands.add(node, part, names),
                    Ok(_) | Err(ClientError::Admin { .. }) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(commands)
    }

    /// What a node has said of these processes.
    pub(super) fn add(&mut self, node: NodeId, processes: &[Process], names: Vec<Option<String>>) {
        for (process, name) in processes.iter().zip(names) {
            if let Some(name) = name {
                self.names.insert((node, *process), name);
            }
        }
    }

    pub(super) fn of(&self, lock: &Lock) -> Option<&str> {
        self.names.get(&(lock.node, lock.process)).map(String::as_str)
    }
}
