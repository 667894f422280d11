//! What a client of the bench asks for next.

use mxlock_format::{Mode, QualifiedName, Resource};
use mxlock_proto::LockFlags;
use mxlock_proto::client::{ConvertRequest, LockRequest, Request, UnlockRequest};
use serde::Serialize;

/// The workloads of INTERFACE.md.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Workload {
    Fresh,
    Repeat,
    Contend,
    Convert,
    ReadMostly,
}

/// Chooses names and modes for one client.
pub(super) struct Generator {
    workload: Workload,
    /// Tells this run's names from those of all others.
    run: u64,
    client: u32,
    names: u32,
    /// Acquires so far.
    count: u64,
    random: u64,
}

impl Generator {
    pub(super) fn new(workload: Workload, run: u64, client: u32, names: u32) -> Generator {
        // An odd multiplier spreads the clients' seeds; zero would stay zero.
        let random = (run ^ u64::from(client + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1;
        Generator { workload, run, client, names, count: 0, random }
    }

    /// The name and mode of the next acquire.
    pub(super) fn next(&mut self) -> (Resource, Mode) {
        let (run, client, n) = (self.run, self.client, self.count);
        self.count += 1;
        match self.workload {
            Workload::Fresh => (name(format_args!("{run:x}/{client}/{n}")), Mode::EX),
            Workload::Repeat => (name(format_args!("{run:x}/{client}/{}", n % u64::from(self.names))), Mode::EX),
            Workload::Contend => (name(format_args!("{run:x}/all")), Mode::EX),
            Workload::Convert => (name(format_args!("{run:x}/{client}/{n}")), Mode::NL),
            Workload::ReadMostly => {
                let random = self.draw();
                let mode = if random.is_multiple_of(10) { Mode::EX } else { Mode::PR };
                (name(format_args!("{run:x}/shared/{}", (random >> 8) % u64::from(self.names))), mode)
            }
        }
    }

    /// Xorshift64 (Marsaglia 2003).
    fn draw(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }
}

fn name(text: std::fmt::Arguments<'_>) -> Resource {
    let name = QualifiedName::new(b"mxlock-bench", text.to_string().as_bytes()).expect("bench names are short");
    Resource::named(name)
}

/// A request for a new lock.
pub(super) fn lock(seq: u64, resource: Resource, mode: Mode) -> Request {
    Request::Lock(LockRequest {
        seq,
        resource,
        mode,
        flags: LockFlags::NONE,
        range: None,
        timeout_ms: None,
        transaction: 0,
        orphan_lifetime_ms: None,
    })
}

/// A conversion.
pub(super) fn convert(seq: u64, op: u32, mode: Mode) -> Request {
    Request::Convert(ConvertRequest { seq, op, mode, flags: LockFlags::NONE, timeout_ms: None, lvb: None })
}

/// A release.
pub(super) fn unlock(seq: u64) -> Request {
    Request::Unlock(UnlockRequest { seq, lvb: None, invalidate_lvb: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn drawn(workload: Workload, client: u32, count: usize) -> Vec<(Resource, Mode)> {
        let mut generator = Generator::new(workload, 1, client, 8);
        (0..count).map(|_| generator.next()).collect()
    }

    fn names(workload: Workload) -> HashSet<Resource> {
        (0..4).flat_map(|client| drawn(workload, client, 100)).map(|(resource, _)| resource).collect()
    }

    /// INTERFACE.md: fresh never uses a name twice, repeat cycles over N own names, contend has one.
    #[test]
    fn workloads_use_the_names_that_they_promise() {
        assert_eq!(names(Workload::Fresh).len(), 400);
        assert_eq!(names(Workload::Repeat).len(), 4 * 8);
        assert_eq!(names(Workload::Contend).len(), 1);
        assert_eq!(names(Workload::ReadMostly).len(), 8);
    }

    #[test]
    fn most_of_read_mostly_reads() {
        let all = drawn(Workload::ReadMostly, 0, 10_000);
        let reads = all.iter().filter(|(_, mode)| *mode == Mode::PR).count();
        assert!((8_800..9_200).contains(&reads), "{reads}");
    }
}
