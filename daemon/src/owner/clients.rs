//! Client connections: unix sockets in, requests to the core, its responses out.

use super::page::SharedPage;
use super::slab::Slab;
use super::stream::Stream;
use super::token::Token;
use crate::host::process::{peer_process, process};
use crate::limits::*;
use crate::logging::RateLimit;
use mxlock_disklock::io::EventLoop;
use mxlock_dlm::io::{ConnId, Input};
use mxlock_dlm::time::BootTime;
use mxlock_format::Process;
use mxlock_proto::client::{AdminReply, Answer, Denial, Refusal, Request, Response};
use mxlock_proto::frame::{FrameReader, MAX_CLIENT_FRAME, MAX_HELLO_FRAME, encode_into};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// All client connections.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    slab: Slab<Client>,
    /// Connections with something to send.
    dirty: Vec<u64>,
    /// Connections that are closed unless they say hello, or take their last words, by then; the oldest first.
    timed: VecDeque<(BootTime, u64)>,
    complaints: RateLimit,
}

#[derive(Debug)]
struct Client {
    process: Process,
    stream: Stream<UnixStream>,
    reader: FrameReader,
    greeted: bool,
    /// Responses that wait for the send under way, so that what they promise is checked when they go.
    waiting: VecDeque<Promise>,
    waiting_bytes: usize,
    stage: Stage,
    /// It does not take answers any more; what it said before it left still counts.
    deaf: bool,
    dirty: bool,
}

#[derive(Debug)]
struct Promise {
    response: Response,
    valid_until: Option<BootTime>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// The core knows it.
    Open,
    /// The core has done with it; what was said before is still sent.
    Ending,
    /// It only waits for the loop to let go of it.
    Dead,
}

impl Clients {
    /// A connection came in.
    pub(crate) fn accepted(
        &mut self,
        socket: OwnedFd,
        now: BootTime,
        io: &mut dyn EventLoop,
        inputs: &mut VecDeque<Input>,
    ) {
        let socket = UnixStream::from(socket);
        if self.slab.len() >= MAX_CLIENTS {
            self.complain(now, format_args!("{MAX_CLIENTS} clients are connected: another one was turned away"));
            return;
        }
        let Some(process) = peer_process(&socket) else {
            self.complain(
                now,
                format_args!("a client was turned away: its process is gone or in another pid namespace"),
            );
            refuse_at_once(&socket, Refusal::NoSuchProcess);
            return;
        };
        let number = self.slab.insert(|_| Client {
            process,
            stream: Stream::new(socket),
            reader: FrameReader::new(MAX_HELLO_FRAME),
            greeted: false,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            stage: Stage::Open,
            deaf: false,
            dirty: false,
        });
        self.timed.push_back((now + HELLO_TIME, number));
        let client = self.slab.get_mut(number).expect("just inserted");
        client.stream.receive(io, Token::ClientReceive(number), CLIENT_RECEIVE_BYTES);
        inputs.push_back(Input::Connected { conn: ConnId(number), process });
    }

    /// A receive ended.
    pub(crate) fn received(
        &mut self,
        number: u64,
        room: Vec<u8>,
        result: io::Result<usize>,
        now: BootTime,
        io: &mut dyn EventLoop,
        inputs: &mut VecDeque<Input>,
    ) {
        let Some(client) = self.slab.get_mut(number) else { return };
        let open = client.stage == Stage::Open && matches!(result, Ok(count) if count > 0);
        if !open {
            client.stream.received(room);
            self.end(number, inputs);
            return;
        }
        client.reader.extend(&room);
        client.stream.received(room);
        if client.stream.backlog() + client.waiting_bytes > MAX_UNREAD_BYTES {
            let Process { pid, uid, .. } = client.process;
            self.complain(
                now,
                format_args!("client {pid} (uid {uid}) asks on but has not read {MAX_UNREAD_BYTES} bytes: closed"),
            );
            self.abort(number, inputs);
            return;
        }
        match client.take_requests(ConnId(number), inputs) {
            Ok(()) => {
                let bytes = if client.reader.pending() > CLIENT_RECEIVE_BYTES {
                    PEER_RECEIVE_BYTES
                } else {
                    CLIENT_RECEIVE_BYTES
                };
                client.stream.receive(io, Token::ClientReceive(number), bytes);
            }
            Err(fault) => {
                let Process { pid, uid, .. } = client.process;
                client.say(Response::Refused(Refusal::BadFrame), None);
                self.close(ConnId(number), now, inputs);
                self.complain(now, format_args!("client {pid} (uid {uid}) is closed: {fault}"));
            }
        }
    }

    /// A send ended.
    pub(crate) fn sent(
        &mut self,
        number: u64,
        bytes: Vec<u8>,
        result: io::Result<usize>,
        io: &mut dyn EventLoop,
        inputs: &mut VecDeque<Input>,
    ) {
        let Some(client) = self.slab.get_mut(number) else { return };
        match client.stream.sent(io, Token::ClientSend(number), bytes, result) {
            Ok(()) => self.mark(number),
            // It has closed its end, perhaps right after its last requests: those are still to be read.
            Err(_) if client.stage == Stage::Open => client.deafen(),
            Err(_) => self.abort(number, inputs),
        }
        self.reap(number);
    }

    /// The core answers. An answer that comes too late is replaced when it is sent, see `flush`.
    pub(crate) fn reply(
        &mut self,
        conn: ConnId,
        response: Response,
        valid_until: Option<BootTime>,
        inputs: &mut VecDeque<Input>,
    ) {
        let Some(client) = self.slab.get_mut(conn.0).filter(|client| client.stage == Stage::Open) else { return };
        client.say(response, valid_until);
        let backlog = client.stream.backlog() + client.waiting_bytes;
        if backlog > MAX_CLIENT_BACKLOG_BYTES {
            let pid = client.process.pid;
            tracing::warn!(pid, "client is closed: it does not read, and {backlog} bytes wait for it");
            self.abort(conn.0, inputs);
            return;
        }
        self.mark(conn.0);
    }

    /// The core has done with a connection; what was said before is sent.
    pub(crate) fn close(&mut self, conn: ConnId, now: BootTime, inputs: &mut VecDeque<Input>) {
        let Some(client) = self.slab.get_mut(conn.0).filter(|client| client.stage == Stage::Open) else { return };
        client.stage = Stage::Ending;
        self.timed.push_back((now + HELLO_TIME, conn.0));
        self.mark(conn.0);
        inputs.push_back(Input::Disconnected { conn });
    }

    /// Encodes what has gathered and sends it, one send for each connection. What promises a lock is compared with
    /// the clock here (DESIGN section 2).
    pub(crate) fn flush(
        &mut self,
        clock: impl Fn() -> BootTime,
        page: &SharedPage,
        io: &mut dyn EventLoop,
        inputs: &mut VecDeque<Input>,
    ) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for number in dirty.drain(..) {
            let Some(client) = self.slab.get_mut(number) else { continue };
            client.dirty = false;
            match client.flush(ConnId(number), &clock, page, io, inputs) {
                Ok(()) => self.reap(number),
                Err(_) => self.abort(number, inputs),
            }
        }
        // `abort` may have marked others; nothing is lost.
        dirty.append(&mut self.dirty);
        self.dirty = dirty;
    }

    /// Closes those whose time is up. Returns when to look again.
    pub(crate) fn expire(&mut self, now: BootTime, inputs: &mut VecDeque<Input>) -> Option<BootTime> {
        while let Some(&(deadline, number)) = self.timed.front() {
            let (silent, ending) = self.slab.get(number).map_or((false, false), |client| {
                (client.stage == Stage::Open && !client.greeted, client.stage == Stage::Ending)
            });
            if (silent || ending) && now < deadline {
                return Some(deadline);
            }
            self.timed.pop_front();
            if silent {
                self.complain(now, format_args!("a client has said nothing for {} s: closed", HELLO_TIME.as_secs()));
            }
            if silent || ending {
                self.abort(number, inputs);
            }
        }
        None
    }

    /// Whether nothing waits to be sent, at the daemon's end.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.slab.values_mut().all(|c| c.stage == Stage::Dead || (c.stream.backlog() == 0 && c.waiting.is_empty()))
    }

    /// The connection ended from the other side, or is to end without a last word.
    fn end(&mut self, number: u64, inputs: &mut VecDeque<Input>) {
        let Some(client) = self.slab.get_mut(number) else { return };
        match client.stage {
            Stage::Open => self.abort(number, inputs),
            // Half-closed by the client: it may still read the last words.
            Stage::Ending => self.mark(number),
            Stage::Dead => self.reap(number),
        }
    }

    fn abort(&mut self, number: u64, inputs: &mut VecDeque<Input>) {
        let Some(client) = self.slab.get_mut(number) else { return };
        if client.stage == Stage::Open {
            inputs.push_back(Input::Disconnected { conn: ConnId(number) });
        }
        client.die();
        self.reap(number);
    }

    fn reap(&mut self, number: u64) {
        if self.slab.get(number).is_some_and(|client| client.stage == Stage::Dead && client.stream.is_idle()) {
            self.slab.remove(number);
        }
    }

    fn mark(&mut self, number: u64) {
        if let Some(client) = self.slab.get_mut(number)
            && !client.dirty
        {
            client.dirty = true;
            self.dirty.push(number);
        }
    }

    fn complain(&mut self, now: BootTime, what: std::fmt::Arguments<'_>) {
        if let Some(suppressed) = self.complaints.permit(now) {
            tracing::warn!("{what}{}", Suppressed(suppressed));
        }
    }
}

/// How many lines like this one were left out.
pub(crate) struct Suppressed(pub(crate) u64);

impl std::fmt::Display for Suppressed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            0 => Ok(()),
            n => write!(f, " ({n} more like this)"),
        }
    }
}

impl Client {
    fn take_requests(
        &mut self,
        conn: ConnId,
        inputs: &mut VecDeque<Input>,
    ) -> Result<(), mxlock_proto::frame::FrameError> {
        while let Some(request) = self.reader.next_frame::<Request>()? {
            let mut subject = None;
            if let Request::Hello(hello) = &request {
                self.greeted = true;
                self.reader.set_max(MAX_CLIENT_FRAME);
                subject = hello.on_behalf_of.and_then(|pid| self.subject(pid));
            }
            inputs.push_back(Input::Client { conn, request, subject });
        }
        Ok(())
    }

    /// The process that this client may act for: its own user's, or any for uid 0.
    fn subject(&self, pid: u32) -> Option<Process> {
        process(pid).filter(|subject| self.process.uid == 0 || subject.uid == self.process.uid)
    }

    fn say(&mut self, response: Response, valid_until: Option<BootTime>) {
        if self.deaf {
            return;
        }
        self.waiting_bytes += estimate(&response);
        self.waiting.push_back(Promise { response, valid_until });
    }

    fn die(&mut self) {
        self.stage = Stage::Dead;
        self.stream.shut();
        self.deafen();
    }

    fn deafen(&mut self) {
        self.deaf = true;
        self.stream.out = Vec::new();
        self.waiting = VecDeque::new();
        self.waiting_bytes = 0;
    }

    fn flush(
        &mut self,
        conn: ConnId,
        clock: &impl Fn() -> BootTime,
        page: &SharedPage,
        io: &mut dyn EventLoop,
        inputs: &mut VecDeque<Input>,
    ) -> io::Result<()> {
        if self.stage == Stage::Dead || self.stream.is_sending() {
            return Ok(());
        }
        while let Some(promise) = self.waiting.pop_front() {
            if matches!(promise.response, Response::Welcome(_)) {
                // Its descriptor goes with its first byte: everything before it must have left.
                if !self.stream.out.is_empty() {
                    self.waiting.push_front(promise);
                    break;
                }
                self.send_welcome(&promise.response, page)?;
                continue;
            }
            let response = kept(promise, conn, clock, inputs);
            if let Err(fault) = encode_into(&response, &mut self.stream.out) {
                tracing::error!(pid = self.process.pid, "a response cannot be sent: {fault}");
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        if self.waiting.is_empty() {
            self.waiting_bytes = 0;
        }
        self.stream.flush(io, Token::ClientSend(conn.0));
        if self.stage == Stage::Ending && self.waiting.is_empty() && self.stream.backlog() == 0 {
            self.die();
        }
        Ok(())
    }

    fn send_welcome(&mut self, welcome: &Response, page: &SharedPage) -> io::Result<()> {
        let mut frame = Vec::new();
        encode_into(welcome, &mut frame).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        let fds = [page.as_fd().as_raw_fd()];
        let sent = sendmsg::<()>(
            self.stream.socket.as_raw_fd(),
            &[IoSlice::new(&frame)],
            &[ControlMessage::ScmRights(&fds)],
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
            None,
        )?;
        // The rest needs no descriptor.
        self.stream.out.extend_from_slice(&frame[sent..]);
        Ok(())
    }
}

/// The response, or a denial where the time for what it promises is over: then the core is told.
fn kept(promise: Promise, conn: ConnId, clock: &impl Fn() -> BootTime, inputs: &mut VecDeque<Input>) -> Response {
    let Promise { response, valid_until } = promise;
    match (response, valid_until) {
        (Response::Answer { seq, op, .. }, Some(until)) if clock() >= until => {
            inputs.push_back(Input::Undelivered { conn, seq, op });
            Response::Answer { seq, op, answer: Answer::Denied(Denial::LeaseLost) }
        }
        (response, _) => response,
    }
}

/// About how many bytes the response will take.
fn estimate(response: &Response) -> usize {
    const SMALL: usize = 64;
    match response {
        Response::Admin { reply: AdminReply::Locks { locks, .. }, .. } => SMALL + locks.len() * 256,
        Response::Admin { reply: AdminReply::Nodes(nodes), .. } => SMALL + nodes.len() * 256,
        Response::Admin { reply: AdminReply::Why(why), .. } => SMALL + why.locks.len() * 512,
        Response::Admin { reply: AdminReply::Commands(names), .. } => SMALL + names.len() * 32,
        Response::Admin { .. } => 1024,
        Response::Welcome(welcome) => SMALL + welcome.lost.len() * 10,
        _ => SMALL,
    }
}

fn refuse_at_once(socket: &UnixStream, refusal: Refusal) {
    let mut frame = Vec::new();
    if encode_into(&Response::Refused(refusal), &mut frame).is_ok() {
        // A fresh socket takes some bytes; if not, the client sees the end of the stream.
        let _ = nix::sys::socket::send(socket.as_raw_fd(), &frame, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mxlock_format::{Mode, Token as FencingToken};
    use mxlock_proto::client::Grant;

    fn grant() -> Response {
        let grant = Grant { mode: Mode::EX, token: FencingToken(9), lvb: None, valid_until_ns: 100 };
        Response::Answer { seq: 3, op: 0, answer: Answer::Granted(grant) }
    }

    /// DESIGN section 2: whoever passes a promise on compares `valid_until` with its own clock. The core hears of it.
    #[test]
    fn a_grant_is_not_sent_after_its_time() {
        let mut inputs = VecDeque::new();
        let promise = || Promise { response: grant(), valid_until: Some(BootTime(100)) };
        assert_eq!(kept(promise(), ConnId(1), &|| BootTime(99), &mut inputs), grant());
        assert!(inputs.is_empty());
        let late = kept(promise(), ConnId(1), &|| BootTime(100), &mut inputs);
        assert_eq!(late, Response::Answer { seq: 3, op: 0, answer: Answer::Denied(Denial::LeaseLost) });
        assert_eq!(inputs.len(), 1);
        assert!(matches!(inputs[0], Input::Undelivered { conn: ConnId(1), seq: 3, op: 0 }));
    }
}
