//! The disk and the clients at each moment of a stream: what is durable, what may still be lost, what was told.

use crate::stream::{Event, LockName, Stream};
use mxlock_format::{
    Epoch, Heartbeat, LockId, LockRecord, MAX_NODES, Mode, NodeId, Process, QualifiedName, RECORD_BYTES, Resource,
    SessionId, Superblock, Token, Uuid, View,
};
use std::collections::BTreeMap;

/// A sector's number on the device, and its bytes.
pub type Sector = (usize, [u8; RECORD_BYTES]);

/// A write that is not durable.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Number of the request.
    pub id: u32,
    /// Whose path it came on.
    pub node: NodeId,
    /// What of it was not written over by something durable.
    pub sectors: Vec<Sector>,
    /// The device has said that it has ended.
    pub written: bool,
}

/// A value that was written to a resource.
#[derive(Clone, Copy, Debug)]
pub struct Value {
    /// The value, unique in the stream.
    pub number: u64,
    /// The writer was told so.
    pub acknowledged: bool,
}

/// An operation without an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Operation {
    Lock { mode: Mode },
    Convert { op: u32, mode: Mode, value: Option<u64> },
    Unlock { value: Option<u64> },
}

/// A lock as its client knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClientLock {
    /// What is locked.
    pub name: String,
    /// The mode last told.
    pub told: Option<Mode>,
    /// Its token.
    pub token: Token,
    /// What was asked and not answered.
    pub pending: Option<Operation>,
}

/// A client with its session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Client {
    /// The node of its daemon.
    pub node: NodeId,
    /// The daemon's run that confirmed it last.
    pub run: u32,
    /// The session.
    pub session: SessionId,
    /// Its locks.
    pub locks: BTreeMap<u64, ClientLock>,
}

/// Heartbeats of one daemon process.
#[derive(Clone, Copy, Default, Debug)]
struct Beats {
    /// When the last but one that is durable was issued.
    last_but_one_ns: Option<u64>,
    last_ns: Option<u64>,
}

/// Everything that is known at a moment.
#[derive(Clone, Debug)]
pub struct History {
    /// As formatted.
    pub superblock: Superblock,
    /// What no crash can undo.
    pub durable: Vec<u8>,
    /// What was issued after that, in the order of issue.
    pub pending: Vec<Pending>,
    flushes: BTreeMap<u32, Vec<u32>>,
    /// Clients that rely on something.
    pub clients: BTreeMap<u32, Client>,
    /// The greatest token told.
    pub token: Token,
    /// Views that were said to be committed, also by writes that a crash can undo: who says so has seen them chosen.
    pub views: BTreeMap<Epoch, View>,
    /// Values by name.
    pub values: BTreeMap<String, Vec<Value>>,
    /// All names ever locked.
    pub names: Vec<String>,
    /// The process of all clients, as the daemons know it.
    pub process: Process,
    /// Each node with the ids of its installation and its machine's boot.
    pub owners: Vec<(NodeId, Uuid, Uuid)>,
    /// Each node's `--node` daemon: the last run.
    runs: BTreeMap<NodeId, u32>,
    beats: BTreeMap<(NodeId, u32), Beats>,
    /// Heartbeat writes that are not durable: whose, which run, when.
    beating: BTreeMap<u32, (NodeId, u32, u64)>,
    /// Time of the moment.
    pub now_ns: u64,
}

impl ClientLock {
    /// The mode that the client acts on: between asking for another one and the answer only what both have.
    pub fn believed(&self) -> Option<Mode> {
        match (self.told?, self.pending) {
            (_, Some(Operation::Unlock { .. })) => None,
            (told, Some(Operation::Convert { mode, .. })) => Some(meet(told, mode)),
            (told, _) => Some(told),
        }
    }
}

/// What is left of a mode while a conversion is under way.
pub fn meet(old: Mode, new: Mode) -> Mode {
    if old.covers(new) {
        new
    } else if new.covers(old) {
        old
    } else {
        Mode::CR
    }
}

/// The resource of a name, as [`mxlock_client::LockSpec::name`] makes it.
///
/// # Panics
/// When it cannot be a name: a stream holds only such.
pub fn resource(name: &str) -> Resource {
    Resource::named(QualifiedName::new(b"", name.as_bytes()).expect("a name that was locked"))
}

/// A record sector of an image, decoded: `None` when it is empty or damaged.
pub fn record_in(slot: usize, sector: &[u8]) -> Option<LockRecord> {
    LockRecord::decode(slot as u32, sector).ok().flatten()
}

impl History {
    /// The beginning of a stream.
    ///
    /// # Errors
    /// Its base is no lockstate.
    pub fn new(stream: &Stream) -> Result<History, String> {
        let first = NodeId::all().next().ok_or("there are nodes")?;
        let heartbeat = Heartbeat::decode(first, stream.base.get(..RECORD_BYTES).ok_or("the base is too short")?);
        let superblock = heartbeat.map_err(|e| format!("the base is no lockstate: {e}"))?.superblock;
        if stream.base.len() as u64 != superblock.geometry.total_bytes() {
            return Err("the base has not the length that its superblock says".to_owned());
        }
        Ok(History {
            superblock,
            durable: stream.base.clone(),
            pending: Vec::new(),
            flushes: BTreeMap::new(),
            clients: BTreeMap::new(),
            token: Token(0),
            views: BTreeMap::new(),
            values: BTreeMap::new(),
            names: Vec::new(),
            process: find_process(stream),
            owners: find_owners(stream),
            runs: BTreeMap::new(),
            beats: BTreeMap::new(),
            beating: BTreeMap::new(),
            now_ns: stream.moments.first().map_or(0, |moment| moment.at_ns),
        })
    }

    /// Until when the clients of a daemon run believe in their locks: the lease from the last but one durable heartbeat.
    /// The daemon's own is never shorter, since a beat is only good when the read after its write was.
    pub fn deadline_ns(&self, client: &Client) -> u64 {
        let beats = self.beats.get(&(client.node, client.run)).copied().unwrap_or_default();
        let lease_ns = u64::from(self.superblock.timing.lease_ms) * 1_000_000;
        beats.last_but_one_ns.map_or(0, |at| at + lease_ns)
    }

    /// Whether a client relies on its locks at this moment.
    pub fn trusts(&self, client: &Client) -> bool {
        self.now_ns < self.deadline_ns(client)
    }

    /// Takes in the next moment.
    ///
    /// # Errors
    /// A rule that the stream breaks by itself (I6).
    pub fn apply(&mut self, at_ns: u64, event: &Event) -> Result<(), String> {
        self.now_ns = at_ns;
        match event {
            Event::Write { id, node, offset, bytes } => self.write(*id, *node, *offset, bytes)?,
            Event::Written { id } => {
                if let Some(write) = self.pending.iter_mut().find(|write| write.id == *id) {
                    write.written = true;
                }
            }
            Event::Flush { id, node } => {
                let covered = self.pending.iter().filter(|write| write.written && write.node == *node);
                self.flushes.insert(*id, covered.map(|write| write.id).collect());
            }
            Event::Flushed { id } => {
                for write in self.flushes.remove(id).unwrap_or_default() {
                    self.settle(write);
                }
            }
            Event::Started { node } => *self.runs.entry(*node).or_default() += 1,
            Event::Ended { .. } => {}
            Event::Session { client, node, session } => {
                let run = self.runs.get(node).copied().unwrap_or_default();
                let known = Client { node: *node, run, session: *session, locks: BTreeMap::new() };
                self.clients.insert(*client, known);
            }
            Event::Confirmed { client, session } => {
                if let Some(client) = self.clients.get_mut(client) {
                    client.session = *session;
                    client.run = self.runs.get(&client.node).copied().unwrap_or_default();
                }
            }
            Event::Over { client } => {
                self.clients.remove(client);
            }
            Event::Asked { lock, name, mode } => {
                if !self.names.contains(name) {
                    self.names.push(name.clone());
                }
                let pending = Some(Operation::Lock { mode: *mode });
                let asked = ClientLock { name: name.clone(), told: None, token: Token(0), pending };
                if let Some(client) = self.clients.get_mut(&lock.client) {
                    client.locks.insert(lock.seq, asked);
                }
            }
            Event::Told { lock, mode, token } => {
                self.token = self.token.max(*token);
                self.end_operation(*lock, Some(*mode), Some(*token), true);
            }
            Event::Denied { lock, still } => self.end_operation(*lock, *still, None, false),
            Event::Converting { lock, op, mode, value } => {
                self.begin(*lock, Operation::Convert { op: *op, mode: *mode, value: *value }, *value);
            }
            Event::Releasing { lock, value } => self.begin(*lock, Operation::Unlock { value: *value }, *value),
            Event::Released { lock } => self.end_operation(*lock, None, None, true),
        }
        Ok(())
    }

    fn begin(&mut self, lock: LockName, operation: Operation, value: Option<u64>) {
        let Some(client) = self.clients.get_mut(&lock.client) else { return };
        let Some(held) = client.locks.get_mut(&lock.seq) else { return };
        held.pending = Some(operation);
        if let Some(number) = value {
            let name = held.name.clone();
            self.values.entry(name).or_default().push(Value { number, acknowledged: false });
        }
    }

    fn end_operation(&mut self, lock: LockName, mode: Option<Mode>, token: Option<Token>, done: bool) {
        let Some(client) = self.clients.get_mut(&lock.client) else { return };
        let Some(held) = client.locks.get_mut(&lock.seq) else { return };
        if let Some(Operation::Convert { value: Some(number), .. } | Operation::Unlock { value: Some(number) }) =
            held.pending
            && done
            && let Some(values) = self.values.get_mut(&held.name)
        {
            for value in values.iter_mut().filter(|value| value.number == number) {
                value.acknowledged = true;
            }
        }
        held.pending = None;
        held.told = mode;
        held.token = token.unwrap_or(held.token);
        if mode.is_none() {
            client.locks.remove(&lock.seq);
        }
    }

    fn write(&mut self, id: u32, node: NodeId, offset: u64, bytes: &[u8]) -> Result<(), String> {
        if !offset.is_multiple_of(RECORD_BYTES as u64) || !bytes.len().is_multiple_of(RECORD_BYTES) {
            return Err(format!("I6: write {id} of node {node} is not of whole sectors"));
        }
        let first = (offset / RECORD_BYTES as u64) as usize;
        let sectors: Vec<Sector> = bytes
            .chunks_exact(RECORD_BYTES)
            .enumerate()
            .filter_map(|(at, chunk)| Some((first + at, chunk.try_into().ok()?)))
            .collect();
        if first < MAX_NODES {
            self.heartbeat(id, node, &sectors)?;
        } else {
            self.records(id, node, &sectors)?;
        }
        self.pending.push(Pending { id, node, sectors, written: false });
        Ok(())
    }

    /// I6: heartbeat i is written by node i, and by itself.
    fn heartbeat(&mut self, id: u32, node: NodeId, sectors: &[Sector]) -> Result<(), String> {
        let [(sector, bytes)] = sectors else {
            return Err(format!("I6: write {id} of node {node} covers {} sectors of heartbeats", sectors.len()));
        };
        if *sector != node.index() {
            return Err(format!("I6: node {node} writes the heartbeat sector of node {sector}"));
        }
        let heartbeat = Heartbeat::decode(node, bytes).map_err(|e| format!("I6: node {node} writes damage: {e}"))?;
        if let Some(view) = heartbeat.view {
            let known = *self.views.entry(view.epoch).or_insert(view);
            if known != view {
                return Err(format!("I4: two views of epoch {}: {known:?} and {view:?}", view.epoch));
            }
        }
        let run = self.runs.get(&node).copied().unwrap_or_default();
        self.beating.insert(id, (node, run, self.now_ns));
        Ok(())
    }

    /// I6: records are written by the master. Writes to one sector are not in flight together (section 7).
    fn records(&mut self, id: u32, node: NodeId, sectors: &[Sector]) -> Result<(), String> {
        let master = self.views.values().next_back().map(|view| view.master);
        if master != Some(node) {
            return Err(format!("I6: node {node} writes records while {master:?} is master"));
        }
        for write in self.pending.iter().filter(|write| !write.written && write.node == node) {
            if let Some((sector, _)) = write.sectors.iter().find(|(at, _)| sectors.iter().any(|(new, _)| new == at)) {
                return Err(format!(
                    "section 7: writes {} and {id} of sector {sector} are in flight together",
                    write.id
                ));
            }
        }
        Ok(())
    }

    /// A write is durable: older ones of its sectors do not matter any more.
    fn settle(&mut self, id: u32) {
        let Some(at) = self.pending.iter().position(|write| write.id == id) else { return };
        let done = self.pending.remove(at);
        for (sector, bytes) in &done.sectors {
            self.durable[sector * RECORD_BYTES..][..RECORD_BYTES].copy_from_slice(bytes);
            for older in &mut self.pending[..at] {
                older.sectors.retain(|(other, _)| other != sector);
            }
        }
        self.pending.retain(|write| !write.sectors.is_empty());
        if let Some((node, run, at_ns)) = self.beating.remove(&id) {
            let beats = self.beats.entry((node, run)).or_default();
            beats.last_but_one_ns = beats.last_ns;
            beats.last_ns = Some(at_ns);
        }
    }

    /// I3 for every subset of the writes that a crash may lose: each lock that its client relies on is named by a record
    /// whatever lands. A lock is safe if one slot names it before and after each write that is under way there.
    ///
    /// # Errors
    /// The lock that would be lost.
    pub fn check_superset(&self) -> Result<(), String> {
        let mut possible: BTreeMap<usize, Vec<Option<LockRecord>>> = BTreeMap::new();
        for (sector, bytes) in self.pending.iter().flat_map(|write| &write.sectors).filter(|(at, _)| *at >= MAX_NODES) {
            let slot = sector - MAX_NODES;
            possible.entry(slot).or_default().push(record_in(slot, bytes));
        }
        let believed: Vec<(LockId, &ClientLock, Mode)> =
            self.clients
                .values()
                .filter(|client| self.trusts(client))
                .flat_map(|client| {
                    client.locks.iter().filter_map(|(&seq, lock)| {
                        Some((LockId { session: client.session, seq }, lock, lock.believed()?))
                    })
                })
                .collect();
        if believed.is_empty() {
            return Ok(());
        }
        let slots = self.superblock.geometry.slot_count as usize;
        let durable: Vec<Option<LockRecord>> = (0..slots)
            .map(|slot| record_in(slot, &self.durable[(MAX_NODES + slot) * RECORD_BYTES..][..RECORD_BYTES]))
            .collect();
        for (id, lock, mode) in believed {
            let resource = resource(&lock.name);
            let names = |record: &Option<LockRecord>| {
                record.as_ref().is_some_and(|record| names(record, id.session, &resource, mode))
            };
            let safe = (0..slots)
                .any(|slot| names(&durable[slot]) && possible.get(&slot).is_none_or(|others| others.iter().all(names)));
            if !safe {
                return Err(format!(
                    "I3: no record that survives every crash names {id:?} on '{}' in {mode}; token {:?}",
                    lock.name, lock.token
                ));
            }
        }
        Ok(())
    }
}

/// Whether a record stands for a lock of this session on this resource, with at least this mode (section 7: the record
/// of an earlier lock of the session may stand for a later one).
pub fn names(record: &LockRecord, session: SessionId, resource: &Resource, mode: Mode) -> bool {
    record.lock.session == session
        && record.resource == *resource
        && (record.mode.covers(mode) || record.wanted.covers(mode))
}

/// All clients of a recording are threads of one process; the first record says which.
fn find_process(stream: &Stream) -> Process {
    let first = stream.moments.iter().find_map(|moment| match &moment.event {
        Event::Write { offset, bytes, .. } if *offset >= (MAX_NODES * RECORD_BYTES) as u64 => {
            let slot = (*offset as usize / RECORD_BYTES).checked_sub(MAX_NODES)?;
            bytes.chunks_exact(RECORD_BYTES).enumerate().find_map(|(at, chunk)| record_in(slot + at, chunk))
        }
        _ => None,
    });
    first.map(|record| record.process).unwrap_or_default()
}

/// Whose slots the stream's heartbeats are.
fn find_owners(stream: &Stream) -> Vec<(NodeId, Uuid, Uuid)> {
    let mut owners = BTreeMap::new();
    for moment in &stream.moments {
        if let Event::Write { node, bytes, .. } = &moment.event
            && let Ok(heartbeat) = Heartbeat::decode(*node, bytes)
        {
            owners.insert(*node, (heartbeat.node_uuid, heartbeat.boot_id));
        }
    }
    owners.into_iter().map(|(node, (uuid, boot))| (node, uuid, boot)).collect()
}
