//! A deterministic simulator of an mxlock cluster.
//!
//! N cores, the same code that `mxlockd` runs, over one fake disk of real encoded sectors, a fake network and fake
//! clocks; one seed determines everything. Clients lock, convert, release and die; daemons crash, hosts lose power, disks
//! stall, networks part. Oracles (one file each, in [`oracle`]) watch the invariants of DESIGN section 9 from outside.
//! After each storm everything is healed, and the cluster must be well again.
//!
//! | file | subject |
//! |---|---|
//! | `world` | true time, the queue of events, the hooks of the oracles |
//! | `setup`, `focus`, `scenario` | what is drawn per seed; storms that are about one thing; what is played |
//! | `elections` | what befalls a proposer in the middle of its ballot |
//! | `faults`, `trouble`, `operator` | what goes wrong, disks that fail, and what people do about it (`docs/faults.md`) |
//! | `clock`, `disk`, `net` | the fake world, as kind as DESIGN section 10 says and no kinder |
//! | `storage`, `links` | the disk and the network as a host has them |
//! | `node` | the driver of a core: event loop, heartbeat thread, lease page, pauses |
//! | `client`, `behaviour`, `requests`, `hearing` | what clients know, how they live, what they ask for and are told |
//! | `oracle` | I1 to I11; liveness is in `run` |
//! | `coverage` | what a run came across, with floors |
//! | `crash_points` | deaths at every output boundary |
//! | `shrink` | from a failing seed to a short scenario |

#![forbid(unsafe_code)]

pub mod behaviour;
pub mod client;
pub mod clock;
pub mod coverage;
pub mod crash_points;
pub mod dice;
pub mod disk;
pub mod elections;
pub mod faults;
pub mod focus;
pub mod hearing;
pub mod links;
pub mod net;
pub mod node;
pub mod operator;
pub mod oracle;
pub mod requests;
pub mod run;
pub mod scenario;
pub mod setup;
pub mod shrink;
pub mod speed;
pub mod storage;
pub mod trouble;
pub mod world;

pub use run::{Outcome, play, run};

use std::cell::RefCell;

thread_local! {
    static PANIC_PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics of the code under test are failures of a seed: they are kept with their place instead of printed.
pub fn keep_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(|at| format!(" ({}:{})", at.file(), at.line())).unwrap_or_default();
        PANIC_PLACE.with(|kept| *kept.borrow_mut() = place);
    }));
}

fn take_panic_place() -> String {
    PANIC_PLACE.with(|kept| std::mem::take(&mut *kept.borrow_mut()))
}
