//! Crash points on the real write path (`docs/crash-points.md`).
//!
//! Real daemons run on a device that puts every sector write and every flush down, with what clients were told, in one
//! order. From every disk that a crash at any moment could have left, a cluster is started, and DESIGN section 9 is
//! checked on it.
//!
//! | file | subject |
//! |---|---|
//! | `stream` | what is recorded, and its file |
//! | `device` | the recording device: FUSE under one loop device per node |
//! | `lab`, `clients`, `record` | real daemons, real clients, and what is done to them |
//! | `history` | at each moment: what is durable, what may be lost, what was told; I3, I4 and I6 of the stream itself |
//! | `points` | the disks that a crash at a moment could leave |
//! | `replay` | a cluster started from a disk, with the clients that lived; I1 to I11 |
//! | `campaign` | all points of a stream, or an even sample |
//! | `real` | real daemons started on some of the disks |

#![forbid(unsafe_code)]

pub mod campaign;
pub mod clients;
pub mod device;
pub mod history;
pub mod lab;
pub mod points;
pub mod real;
pub mod record;
pub mod replay;
pub mod stream;
