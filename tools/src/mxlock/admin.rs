//! Questions to the daemon and orders for it.

use super::cli::Global;
use super::connect::{ask, connect};
use super::report::{self, Commands, LocksJson, NodesJson, StatusJson, WhyJson};
use super::{done, file_id, odd_reply};
use crate::common::app::{Outcome, emit};
use crate::common::failure::{Code, Failure};
use crate::common::json::document;
use crate::common::names;
use mxlock_format::NodeId;
use mxlock_proto::client::{AdminReply, AdminRequest};
use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often a daemon that does not answer is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// `mxlock status`.
pub(super) fn status(global: &Global, check: bool) -> Outcome {
    let AdminReply::Status(status) = ask(global, AdminRequest::Status)? else { return Err(odd_reply()) };
    if global.json {
        emit(&document(&StatusJson::from(&*status)))?;
    } else if !check {
        emit(&report::status(&status))?;
    }
    match report::not_ready(&status) {
        Some(sentence) if check => Err(Failure::new(Code::NotNow, sentence)),
        _ => Ok(0),
    }
}

/// `mxlock nodes`.
pub(super) fn nodes(global: &Global) -> Outcome {
    let AdminReply::Nodes(nodes) = ask(global, AdminRequest::Nodes)? else { return Err(odd_reply()) };
    emit(&if global.json { document(&NodesJson::from(nodes.as_slice())) } else { report::nodes(&nodes) })?;
    Ok(0)
}

/// `mxlock locks`.
pub(super) fn locks(global: &Global, name: Option<&OsStr>) -> Outcome {
    let resource = name.map(|name| names::resource(global.namespace.as_deref(), name)).transpose()?;
    let client = connect(global, None)?;
    let AdminReply::Locks { locks, .. } = client.admin(AdminRequest::Locks { resource })? else {
        return Err(odd_reply());
    };
    let commands = Commands::ask(&client, locks.iter())?;
    emit(&if global.json { document(&LocksJson::new(&locks, &commands)) } else { report::locks(&locks, &commands) })?;
    Ok(0)
}

/// `mxlock why`: 1 when there is no lock at all.
pub(super) fn why(global: &Global, name: Option<&OsStr>, file: Option<&Path>) -> Outcome {
    let resource = match (name, file) {
        (Some(name), _) => names::resource(global.namespace.as_deref(), name)?,
        (None, Some(file)) => file_id::resource(file)?,
        (None, None) => unreachable!("the arguments have one of them"),
    };
    let client = connect(global, None)?;
    let AdminReply::Why(why) = client.admin(AdminRequest::Why { resource: resource.clone() })? else {
        return Err(odd_reply());
    };
    let commands = Commands::ask(&client, why.locks.iter().map(|entry| &entry.lock))?;
    emit(&if global.json {
        document(&WhyJson::new(&resource, &why, &commands))
    } else {
        report::why(&resource, &why, &commands)
    })?;
    Ok(u8::from(why.locks.is_empty()))
}

/// `mxlock handover`.
pub(super) fn handover(global: &Global, to: Option<NodeId>) -> Outcome {
    order(global, AdminRequest::Handover { to })
}

/// `mxlock leave`.
pub(super) fn leave(global: &Global, release: bool) -> Outcome {
    order(global, AdminRequest::Leave { release })
}

/// `mxlock fence-ack`.
pub(super) fn fence_ack(global: &Global, node: NodeId, yes: bool) -> Outcome {
    if !yes {
        let sentence = format!(
            "fence-ack gives the locks of node {node} away: make sure that it is switched off, then repeat with --yes"
        );
        return Err(Failure::new(Code::Usage, sentence));
    }
    order(global, AdminRequest::FenceAck { node })
}

/// `mxlock wait-ready`. A daemon that is not there yet, or is being restarted, is waited for as well.
pub(super) fn wait_ready(global: &Global, wait: Option<Duration>) -> Outcome {
    let started = Instant::now();
    loop {
        let left = wait.map(|wait| wait.saturating_sub(started.elapsed()));
        let timeout_ms = left.map(|left| left.as_millis() as u64);
        match order(global, AdminRequest::WaitReady { timeout_ms }) {
            Err(failure) if failure.code == Code::Unreachable && left != Some(Duration::ZERO) => {
                std::thread::sleep(RETRY_INTERVAL);
            }
            outcome => return outcome,
        }
    }
}

fn order(global: &Global, request: AdminRequest) -> Outcome {
    match ask(global, request)? {
        AdminReply::Ok => done(global),
        _ => Err(odd_reply()),
    }
}
