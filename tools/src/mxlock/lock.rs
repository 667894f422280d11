//! `mxlock lock` and `mxlock unlock`: locks that a process holds which knows nothing of them.

use super::cli::{Global, Lock, Unlock};
use super::connect::{ask, connect};
use crate::common::app::{Outcome, emit};
use crate::common::failure::{Code, Failure};
use crate::common::json::{ResourceJson, decimal, document};
use crate::common::names;
use mxlock_client::LockSpec;
use mxlock_format::Token;
use mxlock_proto::client::{AdminReply, AdminRequest};
use serde::Serialize;

/// What `lock` prints.
#[derive(Serialize)]
struct Granted {
    #[serde(flatten)]
    resource: ResourceJson,
    mode: String,
    #[serde(serialize_with = "decimal")]
    token: Token,
    pid: u32,
}

/// `mxlock lock`: the session belongs to the process, and stays when this program ends.
pub(super) fn lock(global: &Global, lock: &Lock) -> Outcome {
    let resource = names::resource(global.namespace.as_deref(), &lock.name)?;
    let pid = holder(lock.pid)?;
    let client = connect(global, Some(pid))?;
    let spec = LockSpec { mode: lock.how.mode(), timeout: lock.how.timeout(), ..LockSpec::new(resource.clone()) };
    let held = client.lock(&spec)?;
    let granted =
        Granted { resource: ResourceJson::from(&resource), mode: held.mode().to_string(), token: held.token(), pid };
    held.keep();
    client.detach();
    emit(&if global.json {
        document(&granted)
    } else {
        format!("granted {} on '{resource}' to process {pid}, token {}\n", granted.mode, granted.token)
    })?;
    Ok(0)
}

/// `mxlock unlock`.
pub(super) fn unlock(global: &Global, unlock: &Unlock) -> Outcome {
    let resource = names::resource(global.namespace.as_deref(), &unlock.name)?;
    let pid = holder(unlock.pid)?;
    match ask(global, AdminRequest::UnlockFor { pid, resource })? {
        AdminReply::Ok => super::done(global),
        _ => Err(super::odd_reply()),
    }
}

/// The process that is meant: the one that was named, or the one that called this program.
fn holder(pid: Option<u32>) -> Result<u32, Failure> {
    let parent = || u32::try_from(nix::unistd::getppid().as_raw()).ok().filter(|&pid| pid > 1);
    pid.or_else(parent).ok_or_else(|| {
        // Reparented to init, or in a process namespace whose parent is outside: nobody is there who could hold a lock.
        Failure::new(Code::Usage, "the calling process is not visible from here: name the holder with --pid")
    })
}
