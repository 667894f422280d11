//! How fast the simulator is: simulated time of a calm cluster per second of one core.

use crate::run::play;
use crate::scenario::Scenario;
use std::fmt;

/// What was measured.
#[derive(Clone, Copy, Debug)]
pub struct Speed {
    /// Simulated seconds.
    pub simulated_s: f64,
    /// Processor seconds, of one thread.
    pub took_s: f64,
    /// Inputs that cores handled.
    pub inputs: u64,
    /// Grants told to clients.
    pub grants: u64,
}

/// Plays five nodes under light load and without faults for `seconds`.
///
/// # Panics
/// When a rule is broken: a calm cluster breaks none.
pub fn measure(seconds: u64) -> Speed {
    let scenario = Scenario { seconds, calm: true, ..Scenario::whole(1, 1) };
    let began = processor_s();
    let outcome = play(&scenario, false);
    let took_s = processor_s() - began;
    assert!(outcome.failure.is_none(), "a calm cluster breaks a rule: {:?}", outcome.failure);
    let coverage = outcome.coverage;
    Speed { simulated_s: coverage.simulated_s as f64, took_s, inputs: coverage.inputs, grants: coverage.grants }
}

/// Processor time of this thread so far: other programs on the machine do not count (proc(5), schedstat).
fn processor_s() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split_whitespace().next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e9
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "5 nodes, light load: {:.2} simulated hours per core-second ({:.0} s in {:.2} s, {} grants, {:.0} inputs/s)",
            self.simulated_s / self.took_s / 3_600.0,
            self.simulated_s,
            self.took_s,
            self.grants,
            self.inputs as f64 / self.took_s,
        )
    }
}
