//! Frames: any cut, any garbage, bounded memory.

use mxlock_format::{ByteRange, Mode, NodeId, QualifiedName, Resource, SessionId, Token};
use mxlock_proto::LockFlags;
use mxlock_proto::client::*;
use mxlock_proto::frame::*;
use proptest::prelude::*;

fn requests() -> impl Strategy<Value = Request> {
    let resource = (prop::collection::vec(1u8.., 0..=64), prop::collection::vec(1u8.., 1..=135))
        .prop_map(|(space, name)| Resource::named(QualifiedName::new(&space, &name).unwrap()));
    let mode = prop::sample::select(&Mode::ALL[..]);
    let lock = (any::<u64>(), resource.clone(), mode.clone(), any::<u32>(), any::<(u64, u64)>(), any::<Option<u64>>());
    prop_oneof![
        lock.prop_map(|(seq, resource, mode, flags, range, timeout_ms)| {
            let flags = LockFlags(flags & 0x7ff);
            let range = ByteRange::new(range.0, range.1);
            let orphan_lifetime_ms = timeout_ms.map(|ms| ms as u32);
            let transaction = seq / 3;
            Request::Lock(LockRequest {
                seq,
                resource,
                mode,
                flags,
                range,
                timeout_ms,
                transaction,
                orphan_lifetime_ms,
            })
        }),
        any::<u64>().prop_map(|seq| Request::Cancel { seq }),
        (any::<u64>(), prop::option::of(prop::collection::vec(any::<u8>(), 1..=64)), any::<bool>())
            .prop_map(|(seq, lvb, invalidate_lvb)| Request::Unlock(UnlockRequest { seq, lvb, invalidate_lvb })),
        (any::<Option<u64>>(), prop::collection::vec((any::<u64>(), resource, mode, any::<u64>()), 0..5)).prop_map(
            |(resume, claims)| {
                let claims: Vec<Claim> = claims
                    .into_iter()
                    .map(|(seq, resource, mode, token)| Claim { seq, resource, range: None, mode, token: Token(token) })
                    .collect();
                Request::Hello(Hello {
                    version: CLIENT_PROTOCOL,
                    resume: resume.map(SessionId),
                    asked: claims.iter().map(|claim| claim.seq).collect(),
                    claims,
                    on_behalf_of: resume.map(|id| id as u32),
                })
            }
        ),
        Just(Request::Bye),
    ]
}

fn encode<T: Frame>(message: &T) -> Vec<u8> {
    let mut wire = Vec::new();
    encode_into(message, &mut wire).unwrap();
    wire
}

proptest! {
    /// What is sent arrives, wherever the stream is cut and with whichever way of filling.
    #[test]
    fn any_cut_gives_the_same_messages(sent in prop::collection::vec(requests(), 0..8), cuts in prop::collection::vec(1usize..300, 1..20)) {
        let wire: Vec<u8> = sent.iter().flat_map(encode).collect();
        let mut reader = FrameReader::new(MAX_CLIENT_FRAME);
        let mut received = Vec::new();
        let (mut rest, mut turn) = (&wire[..], 0);
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(cuts[turn % cuts.len()]));
            if turn % 2 == 0 {
                reader.extend(part);
            } else {
                reader.spare_mut()[..part.len()].copy_from_slice(part);
                reader.filled(part.len());
            }
            while let Some(message) = reader.next_frame::<Request>().unwrap() {
                received.push(message);
            }
            (rest, turn) = (after, turn + 1);
        }
        prop_assert_eq!(received, sent);
        prop_assert_eq!(reader.pending(), 0);
    }

    /// Garbage gives messages or a typed error that stays; it never panics and never makes the reader keep more than
    /// the limit and one read.
    #[test]
    fn garbage_is_survived(parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2000), 0..10), good in requests()) {
        const MAX: usize = 4096;
        let mut reader = FrameReader::new(MAX);
        reader.extend(&encode(&good)[..]);
        let mut fault = None;
        for part in parts {
            reader.extend(&part);
            loop {
                match reader.next_frame::<Response>() {
                    Ok(Some(_)) => prop_assert_eq!(fault, None),
                    Ok(None) => break,
                    Err(error) => {
                        prop_assert_eq!(*fault.get_or_insert(error), error);
                        break;
                    }
                }
            }
            prop_assert!(fault.is_some() || reader.pending() <= LENGTH_BYTES + MAX);
            prop_assert!(reader.spare_mut().len() <= LENGTH_BYTES + MAX + (8 << 10));
        }
    }

    /// Every truncation of a body inside a whole frame is an error, never another message with bytes missing.
    #[test]
    fn truncated_bodies_are_malformed(message in requests(), cut in any::<prop::sample::Index>()) {
        let mut wire = encode(&message);
        let body = wire.len() - LENGTH_BYTES - 1;
        let keep = cut.index(body);
        wire.truncate(LENGTH_BYTES + 1 + keep);
        wire[..4].copy_from_slice(&(1 + keep as u32).to_le_bytes());
        let mut reader = FrameReader::new(MAX_HELLO_FRAME);
        reader.extend(&wire);
        prop_assert_eq!(reader.next_frame::<Request>(), Err(FrameError::Malformed { len: 1 + keep }));
    }
}

/// Each kind of damage has its own error, and it stays.
#[test]
fn errors_are_typed_and_stay() {
    let read = |wire: &[u8]| {
        let mut reader = FrameReader::new(MAX_CLIENT_FRAME);
        reader.extend(wire);
        let first = reader.next_frame::<Request>();
        reader.extend(&encode(&Request::Bye));
        assert_eq!(reader.next_frame::<Request>(), first);
        first.unwrap_err()
    };
    let max = MAX_CLIENT_FRAME;
    assert_eq!(read(&(max as u32 + 1).to_le_bytes()), FrameError::Oversized { len: max + 1, max });
    assert_eq!(read(&[0, 0, 0, 0]), FrameError::Malformed { len: 0 });
    // The version is judged before the body has come.
    assert_eq!(read(&[200, 0, 0, 0, 9]), FrameError::Version { found: 9, expected: FRAME_VERSION });
    assert_eq!(read(&[2, 0, 0, 0, FRAME_VERSION, 99]), FrameError::Malformed { len: 2 });
    let mut longer = encode(&Request::Bye);
    longer[0] += 2;
    longer.extend_from_slice(&[0, 0]);
    assert_eq!(read(&longer), FrameError::Trailing { excess: 2 });
}

/// A frame above the limit is refused at the sender, and nothing of it is left in the buffer.
#[test]
fn oversized_messages_are_not_sent() {
    let message = "x".repeat(MAX_CLIENT_FRAME);
    let reply = AdminReply::Failed { kind: FailureKind::NotNow, message };
    let mut wire = vec![1, 2, 3];
    let result = encode_into(&Response::Admin { id: 1, reply }, &mut wire);
    assert!(matches!(result, Err(FrameError::Oversized { max: MAX_CLIENT_FRAME, .. })), "{result:?}");
    assert_eq!(wire, [1, 2, 3]);
}

/// The limits fit what they are named after: a session of 65,536 locks with the longest names can claim them all, and
/// hear that all are lost.
#[test]
fn the_largest_hello_and_welcome_fit() {
    let resource = Resource::named(QualifiedName::new(&[b'n'; 64], &[b'x'; 135]).unwrap());
    let claim = |seq| Claim {
        seq,
        resource: resource.clone(),
        range: ByteRange::new(u64::MAX, u64::MAX),
        mode: Mode::EX,
        token: Token(u64::MAX),
    };
    let claims: Vec<Claim> = (0..65_536).map(claim).collect();
    let (resume, asked) = (Some(SessionId(u64::MAX)), vec![u64::MAX; 65_536]);
    let hello = Request::Hello(Hello { version: 1, resume, claims, asked, on_behalf_of: None });
    let wire = encode(&hello);
    assert!(wire.len() < MAX_HELLO_FRAME, "{}", wire.len());
    let mut reader = FrameReader::new(MAX_HELLO_FRAME);
    for part in wire.chunks(50_000) {
        assert_eq!(reader.next_frame::<Request>(), Ok(None));
        reader.extend(part);
    }
    assert_eq!(reader.next_frame(), Ok(Some(hello)));
    // The memory of the large frame is given back.
    assert!(reader.spare_mut().len() < 100_000);
    let welcome = Welcome {
        session: SessionId(1),
        node: NodeId::new(0).unwrap(),
        lost: vec![u64::MAX; 65_536],
        grace_ms: 1,
        daemon: String::new(),
    };
    encode(&Response::Welcome(welcome));
}

/// Golden bytes: the encoding does not change by accident.
#[test]
fn golden_frames() {
    assert_eq!(encode(&Request::Bye), [2, 0, 0, 0, 1, 6]);
    let lock = Request::Lock(LockRequest {
        seq: 300,
        resource: Resource::named(QualifiedName::new(b"", b"a").unwrap()),
        mode: Mode::EX,
        flags: LockFlags::NOQUEUE,
        range: None,
        timeout_ms: Some(5),
        transaction: 0,
        orphan_lifetime_ms: None,
    });
    assert_eq!(encode(&lock), [15, 0, 0, 0, 1, 1, 0xac, 2, 1, 2, 0, b'a', 5, 1, 0, 1, 5, 0, 0]);
    let bast = Response::Bast { seq: 1, wanted: Mode::PR };
    assert_eq!(encode(&bast), [4, 0, 0, 0, 1, 3, 1, 3]);
}
