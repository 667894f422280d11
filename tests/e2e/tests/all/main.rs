//! End-to-end tests: real daemons, real clients, real disks (issue 2). See the crate's documentation for the harness.

mod bad_clients;
mod bad_lockstate;
mod bad_start;
mod clients;
mod counter;
mod failover;
mod flock;
mod handover;
mod kernel_dlm;
mod libdlm;
mod locking;
mod lvm;
mod ranges;
mod restart;
mod why;
