//! Daemons that are not there, do not greet, or greet with nonsense.

use super::*;

/// Bad greetings are typed errors, said with the socket's path.
#[test]
fn bad_greetings_are_refused() {
    let fake = Fake::new();
    let expect = |error: ClientError, code: u8, words: &str| {
        assert!(error.to_string().contains(words), "{error}");
        assert!(error.to_string().contains("/sock"), "{error}");
        assert_eq!(error.exit_code(), code, "{error}");
    };
    let huge = (MAX_HELLO_FRAME as u32 + 1).to_le_bytes();
    expect(fake.refusal(|mut c| c.send_raw(b"HTTP/1.1 400 Bad Request\r\n")), 69, "above the limit");
    expect(fake.refusal(|mut c| c.send_raw(&huge)), 69, "above the limit");
    expect(fake.refusal(|mut c| c.send_raw(&[2, 0, 0, 0, 9, 9])), 69, "version 9");
    expect(fake.refusal(|mut c| drop(c.hello())), 69, "is mxlockd running");
    expect(fake.refusal(|mut c| c.send(&Response::LeaseLost)), 69, "out of turn");
    expect(fake.refusal(|mut c| c.send(&Response::Refused(Refusal::Version { daemon: 9 }))), 69, "client protocol 9");
    expect(fake.refusal(|mut c| c.send(&Response::Refused(Refusal::Permission))), 77, "another user");
    expect(fake.refusal(|mut c| c.send(&Response::Refused(Refusal::TooManySessions))), 75, "as many sessions");
}

/// A lease page whose memory could vanish would kill its reader with SIGBUS: it is refused, as is a foreign one.
#[test]
fn bad_pages_are_refused() {
    let fake = Fake::new();
    let refused = |page: Option<&Page>| fake.refusal(|mut c| c.send_with(&welcome(7, &[]), page)).to_string();
    assert!(refused(None).contains("no lease page"));
    assert!(refused(Some(&Page::unsealed(4096))).contains("not a sealed memory file"));
    let short = Page::unsealed(8);
    use nix::fcntl::{FcntlArg, SealFlag, fcntl};
    fcntl(&short.file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK)).unwrap();
    assert!(refused(Some(&short)).contains("not a sealed memory file"));
    let foreign = Page::new(1, 0);
    foreign.write(0, 77);
    assert!(refused(Some(&foreign)).contains("no magic number"));
    let newer = Page::new(1, 0);
    newer.write(1, 2);
    assert!(refused(Some(&newer)).contains("version 2"));
    let file = Page { file: tempfile::tempfile().unwrap() };
    assert!(refused(Some(&file)).contains("not a sealed memory file"));
}

/// Nobody there: the message names the sockets that were tried and what to look at.
#[test]
fn no_daemon_is_said_plainly() {
    let mut options = ConnectOptions::new("blue");
    options.socket = Some("/nonexistent/sock".into());
    let error = Client::connect(options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "no mxlockd answers for lockspace 'blue' (/nonexistent/sock: no such socket): is mxlockd running?"
    );
    assert_eq!(error.exit_code(), 69);

    let mut fake = Fake::new();
    let mut options = fake.options();
    options.reconnect_timeout = Duration::from_millis(50);
    let (client, conn) = fake.client(options, 7);
    fake.stop();
    drop(conn);
    let error = client.lock(&spec("a")).unwrap_err();
    assert!(matches!(error, ClientError::Disconnected { .. }), "{error}");
    assert!(error.to_string().contains("nobody listens"), "{error}");
}

/// The welcome has a deadline too.
#[test]
fn a_daemon_that_does_not_greet_is_not_waited_for() {
    let fake = Fake::new();
    let mut options = fake.options();
    options.connect_timeout = Duration::from_millis(50);
    let error = Client::connect(options).unwrap_err();
    assert!(matches!(error, ClientError::NoAnswer { waited_ms: 50, .. }), "{error}");
}
