//! What the daemon tells people: the log, and the service manager's status line.

use crate::host::systemd::Notifier;
use mxlock_dlm::event::{Event, Severity};
use mxlock_format::{NodeId, View};
use std::io;
use std::time::{Duration, Instant};

/// Tells what happens. Ten lines tell the story of a failover.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) notifier: Notifier,
    node: Option<NodeId>,
    view: Option<View>,
    /// When the last failed accept was logged.
    accept_failed: Option<Instant>,
}

impl Story {
    pub(crate) fn new(notifier: Notifier) -> Story {
        Story { notifier, node: None, view: None, accept_failed: None }
    }

    /// The slot that is being claimed.
    pub(crate) fn set_node(&mut self, node: NodeId) {
        self.node = Some(node);
        self.view = None;
    }

    /// An event of the core.
    pub(crate) fn tell(&mut self, event: &Event) {
        if let Event::ViewCommitted { view, .. } = event {
            self.view = Some(*view);
        }
        let node = self.node.map_or(u32::MAX, NodeId::get);
        let epoch = self.view.map_or(0, |view| view.epoch.0);
        match event.severity() {
            Severity::Debug => tracing::debug!(node, epoch, "{event}"),
            Severity::Info => tracing::info!(node, epoch, "{event}"),
            Severity::Warn => tracing::warn!(node, epoch, "{event}"),
            Severity::Error => tracing::error!(node, epoch, "{event}"),
        }
        match event {
            Event::SlotConfirmed { .. } => {
                self.notifier.ready();
                self.notifier.status(&format!("node {node}: joining"));
            }
            Event::ViewCommitted { view, .. } => {
                let role = if self.node == Some(view.master) { "master" } else { "member" };
                let members = view.members.len();
                self.notifier.status(&format!("node {node}: {role} in view {}, {members} members", view.epoch));
            }
            Event::LeaseLost => self.notifier.status(&format!("node {node}: lease lost, no lock is granted")),
            Event::FencingBlocked { .. } | Event::Isolated { .. } => self.notifier.status(&event.to_string()),
            _ => {}
        }
    }

    /// Accepting a connection failed (too many open files); said once a minute.
    pub(crate) fn accept_failed(&mut self, error: &io::Error) {
        if self.accept_failed.is_none_or(|at| at.elapsed() > Duration::from_secs(60)) {
            self.accept_failed = Some(Instant::now());
            tracing::warn!("a connection cannot be accepted: {error}");
        }
    }
}
