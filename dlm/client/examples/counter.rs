//! Counts in a value block, on however many nodes at once: `counter NAME ROUNDS`.
//!
//! ```text
//! cargo run -p mxlock-client --example counter -- visits 100
//! ```
//!
//! Shows: guards, timeouts, conversion, value blocks, tokens, and asking whether a lock may still be relied on.

use mxlock_client::{Client, ClientError, ConnectOptions, Lock, LockSpec, Mode, UnlockSpec};
use std::error::Error;
use std::time::Duration;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, rounds] = &arguments[..] else { return Err("usage: counter NAME ROUNDS".into()) };
    let spec = LockSpec::name(name)?;
    let client = Client::connect(ConnectOptions::default())?;

    // A value lives as long as any lock on its name: this one conflicts with nothing.
    let mut keeper = client.lock(&spec.clone().mode(Mode::NL))?;
    for _ in 0..rounds.parse::<u32>()? {
        let lock = client.lock_timeout(&spec, Duration::from_secs(20))?;
        let count = value(&lock)? + 1;
        // The last look before what the lock protects. Storage would get `lock.token()` as well.
        if !lock.is_valid() {
            return Err(ClientError::LeaseLost.into());
        }
        // Waits until the value is safe; dropping the guard would release the lock and leave the value.
        lock.unlock_with(&UnlockSpec::new().lvb(count.to_le_bytes()))?;
    }

    // Every grant of PR reads the value.
    keeper.convert(Mode::PR)?;
    println!("{} after token {}", value(&keeper)?, keeper.token());
    Ok(())
}

/// The count that a grant has read; 0 where nobody has counted yet.
fn value(lock: &Lock<'_>) -> Result<u64, Box<dyn Error>> {
    let Some(value) = lock.lvb() else { return Ok(0) };
    if !value.valid {
        return Err("somebody died while counting: the value cannot be trusted".into());
    }
    Ok(u64::from_le_bytes(value.bytes[..].try_into()?))
}
