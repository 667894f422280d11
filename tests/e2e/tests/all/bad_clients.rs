//! Clients and peers that do not keep to the rules: they are cut off, and the daemon goes on serving the others (issue 2,
//! "Bad input").

use mxlock_client::{Client, LockSpec, Mode};
use mxlock_e2e::wait::{PATIENCE, until_true};
use mxlock_e2e::{Cluster, Setup, shared};
use mxlock_format::{ClusterKey, Incarnation, NodeId, Uuid};
use mxlock_proto::client::{AdminRequest, Hello, Request};
use mxlock_proto::frame::{MAX_CLIENT_FRAME, encode_into};
use mxlock_proto::noise::{PeerHandshake, PeerHello};
use mxlock_proto::peer::PEER_PROTOCOLS;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

/// Bytes that are no protocol, but look random: an xorshift.
fn garbage(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    })
    .take(len)
    .collect()
}

fn connect(cluster: &Cluster, node: usize) -> UnixStream {
    let stream = UnixStream::connect(cluster.daemons[node].socket()).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn frame(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_into(request, &mut bytes).expect("it fits");
    bytes
}

fn hello() -> Vec<u8> {
    frame(&Request::Hello(Hello::first()))
}

/// The other side has closed, or does so now.
#[track_caller]
fn closes(stream: &mut impl Read) {
    match stream.read_to_end(&mut Vec::new()) {
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(e) => panic!("the daemon does not close the connection: {e}"),
    }
}

#[track_caller]
fn still_serves(cluster: &mut Cluster) {
    for node in 0..cluster.daemons.len() {
        cluster.daemons[node].ready();
        cluster.mxlock(node, &["run", "-w", "60", "alpha", "--", "true"]).ok();
    }
}

/// Garbage on the client socket: before the hello, instead of it, behind it.
#[test]
fn garbage_from_a_client_is_cut_off() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).start();
    let held = cluster.hold(0, &["held"]);
    for seed in 1..20 {
        for introduction in [Vec::new(), hello()] {
            let mut stream = connect(&cluster, (seed % 2) as usize);
            // A length that is never met would be waited for: small frames of garbage.
            let mut bytes = introduction;
            bytes.extend([200, 0, 0, 0, 1]);
            bytes.extend(garbage(seed, 4_096));
            let _ = stream.write_all(&bytes);
            closes(&mut stream);
        }
    }
    let mut stream = connect(&cluster, 0);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: mxlock\r\n\r\n").expect("it is taken");
    closes(&mut stream);
    assert!(held.command_runs());
    still_serves(&mut cluster);
    cluster.stop();
}

/// A frame above the limit: refused by its length, before anything of it is stored.
#[test]
fn an_oversized_frame_is_cut_off() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(1).start();
    for length in [MAX_CLIENT_FRAME as u32 + 1, u32::MAX] {
        let mut stream = connect(&cluster, 0);
        stream.write_all(&hello()).expect("it is taken");
        stream.write_all(&length.to_le_bytes()).expect("it is taken");
        stream.write_all(&[1; 64]).expect("it is taken");
        closes(&mut stream);
    }
    let mut stream = connect(&cluster, 0);
    stream.write_all(&u32::MAX.to_le_bytes()).expect("it is taken");
    closes(&mut stream);
    cluster.daemons[0].wait_log("above the limit");
    still_serves(&mut cluster);
    cluster.stop();
}

/// A client that asks and asks and never reads is closed at a bound; its lock goes with its process, not before.
#[test]
fn a_client_that_never_reads_is_cut_off() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).start();
    let mut stream = connect(&cluster, 0);
    stream.write_all(&hello()).expect("it is taken");
    let mut asked = 0;
    loop {
        let bytes: Vec<u8> =
            (0..100).flat_map(|id| frame(&Request::Admin { id, request: AdminRequest::Status })).collect();
        if stream.write_all(&bytes).is_err() {
            break;
        }
        asked += 100;
        assert!(asked < 1_000_000, "nothing stops it");
    }
    still_serves(&mut cluster);
    cluster.stop();
}

/// Clients that connect and say nothing do not keep others out.
#[test]
fn silent_connections_keep_nobody_out() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(1).start();
    let _silent: Vec<UnixStream> = (0..200).map(|_| connect(&cluster, 0)).collect();
    still_serves(&mut cluster);
    cluster.stop();
}

/// The address that a node's peers connect to, and a stream to it. Loopback daemons, so that the test can reach them.
fn dial(cluster: &Cluster, node: usize) -> TcpStream {
    let heartbeat = cluster.inspector().heartbeat(node);
    let address: SocketAddr =
        heartbeat["addresses"][0].as_str().and_then(|text| text.parse().ok()).expect("an address");
    let stream = TcpStream::connect(address).expect("the daemon listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Garbage on the peer port.
#[test]
fn garbage_from_a_peer_is_cut_off() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).local().start();
    for seed in 1..20 {
        let mut stream = dial(&cluster, (seed % 2) as usize);
        let _ = stream.write_all(&garbage(seed, 4_096));
        closes(&mut stream);
    }
    let mut stream = dial(&cluster, 0);
    stream.write_all(b"GET / HTTP/1.1\r\nHost: mxlock\r\n\r\n").expect("it is taken");
    closes(&mut stream);
    cluster.daemons[0].wait_log("a peer connection is closed");
    // More that say nothing than may be unproven at once: the members' links stand.
    let _silent: Vec<TcpStream> = (0..100).map(|_| dial(&cluster, 0)).collect();
    still_serves(&mut cluster);
    cluster.stop();
}

/// What a peer says of itself in the handshake.
fn introduction(lockspace: Uuid) -> PeerHello {
    PeerHello {
        protocols: PEER_PROTOCOLS,
        lockspace,
        node: NodeId::new(9).expect("a slot"),
        incarnation: Incarnation(9),
        to_node: NodeId::new(0),
        feature_level: mxlock_format::FEATURE_LEVEL,
    }
}

/// Runs a handshake over a stream; why it failed.
#[track_caller]
fn shake(stream: &mut TcpStream, key: &ClusterKey, lockspace: Uuid) -> String {
    let mut out = Vec::new();
    let mut shaking = PeerHandshake::initiator(key, introduction(lockspace), &mut out).expect("a cipher");
    let mut buffer = [0; 4_096];
    loop {
        stream.write_all(&out).expect("it is taken");
        out.clear();
        let count = stream.read(&mut buffer).expect("an answer");
        assert_ne!(count, 0, "the connection was closed without a reason");
        match shaking.receive(&buffer[..count], &mut out) {
            Ok(None) => {}
            Ok(Some(_)) => panic!("a link was made"),
            Err(error) => return error.to_string(),
        }
    }
}

/// A peer with another cluster key, and one of another lockspace, are refused with the reason, on both sides.
#[test]
fn a_peer_with_the_wrong_key_is_refused() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).local().start();
    let lockspace = cluster.daemons[0].status().uuid;
    let mut stream = dial(&cluster, 0);
    let error = shake(&mut stream, &ClusterKey([0x42; 32]), lockspace);
    assert!(error.contains("key"), "{error}");
    closes(&mut stream);
    cluster.daemons[0].wait_log("does not know this lockspace's cluster key");
    let mut stream = dial(&cluster, 0);
    let error = shake(&mut stream, &ClusterKey([0x42; 32]), Uuid([1; 16]));
    assert!(error.contains("lockspace"), "{error}");
    for daemon in &cluster.daemons {
        assert!(!daemon.log().contains("42424242"), "keys are not logged");
    }
    still_serves(&mut cluster);
    cluster.stop();
}

/// A client that holds locks and dies is cleaned up after; those of others stay.
#[test]
fn the_locks_of_a_dead_client_are_freed_at_once() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).start();
    let mut dies = cluster.hold(0, &["alpha"]);
    let stays = cluster.hold(0, &["beta"]);
    let waiter = cluster.request(1, &["alpha"]);
    cluster.await_waiters(0, "alpha", 1);
    dies.kill();
    waiter.granted();
    until_true("COMMAND is killed with mxlock", PATIENCE, || !dies.command_runs());
    assert!(stays.command_runs());
    assert_eq!(waiter.release(), 0);
    assert_eq!(stays.release(), 0);
    cluster.stop();
}

/// Many locks of one client: all on disk, all gone with it.
#[test]
fn a_client_with_many_locks() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).start();
    let client: Client = cluster.client(1);
    let specs = (0..500).map(|i| LockSpec::name(format!("many-{i}")).expect("a name").mode(Mode::PW));
    let locks: Vec<_> = specs.map(|spec| client.lock(&spec).expect("it is free")).collect();
    assert_eq!(cluster.inspector().records().len(), locks.len());
    drop(locks);
    drop(client);
    until_true("all records are cleared", PATIENCE, || cluster.inspector().records().is_empty());
    cluster.inspector().verify();
    cluster.stop();
}
