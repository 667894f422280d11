//! Shows the value of `counter` and keeps it current, without asking in between: `cache NAME`.
//!
//! A shared lock protects what is shown. When somebody wants to write, a blocking notice comes: the lock goes down to NL, and
//! queues for PR again behind the writer. Ends with its standard input.
//!
//! Shows: an event loop on [`Client::as_fd`], requests that do not wait, blocking notices, losses.

use mxlock_client::{Answer, Client, ConnectOptions, ConvertSpec, Event, Grant, LockSpec, Mode};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::error::Error;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let name = std::env::args().nth(1).ok_or("usage: cache NAME")?;
    let client = Client::connect(ConnectOptions::default())?;
    let cached = client.submit_lock(&LockSpec::name(&name)?.mode(Mode::PR))?;
    let input = std::io::stdin();
    // Whether the lock is held in PR and is not on its way down already.
    let mut current = false;
    loop {
        for event in client.poll_events(Some(Duration::ZERO))? {
            match event {
                Event::Answer { answer: Answer::Granted(grant), .. } if grant.mode == Mode::PR => {
                    current = true;
                    show(&grant);
                }
                // Behind the writer, whose value the next grant reads.
                Event::Answer { answer: Answer::Granted(_), .. } => {
                    client.submit_convert(cached, &ConvertSpec::new(Mode::PR))?;
                }
                Event::Answer { answer, .. } => return Err(format!("not granted: {answer:?}").into()),
                Event::Bast { .. } if current => {
                    current = false;
                    println!("out of date soon");
                    client.submit_convert(cached, &ConvertSpec::new(Mode::NL))?;
                }
                Event::Lost { loss, .. } => return Err(format!("the lock is lost: {loss}").into()),
                Event::LeaseLost => println!("not to be relied on until the lease is back"),
                // The lock is going down; the client connects again by itself, and the lock stands meanwhile.
                Event::Bast { .. } | Event::Disconnected | Event::Reconnected | Event::LeaseRegained => {}
                other => println!("{other:?}"),
            }
        }
        // Whatever loop the program has: the client's descriptor is one more in it.
        if wait([client.as_fd()?, input.as_fd()])[1] && input.lock().read(&mut [0; 64])? == 0 {
            return Ok(());
        }
    }
}

fn show(grant: &Grant) {
    let value = grant.lvb.as_ref().filter(|value| value.valid);
    match value.and_then(|value| value.bytes[..].try_into().ok()) {
        Some(bytes) => println!("{}", u64::from_le_bytes(bytes)),
        None => println!("nothing counted yet"),
    }
}

/// Waits until one of them is readable; which.
fn wait(descriptors: [BorrowedFd<'_>; 2]) -> [bool; 2] {
    let mut waited = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
    // An interrupted wait is a short one.
    let _ = poll(&mut waited, PollTimeout::NONE);
    waited.map(|descriptor| descriptor.any() == Some(true))
}
