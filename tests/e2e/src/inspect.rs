//! The lockstate as mxlock-inspect shows it: from disk, whatever the daemons believe.

use crate::command::{Said, ours, output};
use serde_json::Value;
use std::path::PathBuf;

/// The inspector on one lockstate.
#[derive(Clone, Debug)]
pub struct Inspector {
    lockstate: PathBuf,
}

/// A lock record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Record {
    pub slot: u64,
    pub resource: String,
    pub owner: u64,
    pub mode: String,
    pub state: String,
    pub token: u64,
    pub pid: u64,
    pub stale: bool,
}

/// The newest committed view.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct View {
    pub epoch: u64,
    pub master: usize,
    pub members: Vec<usize>,
    /// The master has rebuilt the table.
    pub active: bool,
}

impl Inspector {
    /// For a lockstate.
    pub fn new(lockstate: PathBuf) -> Inspector {
        Inspector { lockstate }
    }

    /// Runs it.
    pub fn run(&self, args: &[&str]) -> Said {
        output(ours("mxlock-inspect").arg("--json").arg(&self.lockstate).args(args))
    }

    /// A JSON document.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.run(args).ok()).expect("a JSON document")
    }

    /// All records that count.
    #[track_caller]
    pub fn records(&self) -> Vec<Record> {
        let document = self.json(&["locks"]);
        let locks = document["locks"].as_array().expect("a list of locks");
        locks.iter().map(Record::from_json).filter(|record| !record.stale).collect()
    }

    /// The records of one name.
    #[track_caller]
    pub fn records_of(&self, name: &str) -> Vec<Record> {
        self.records().into_iter().filter(|record| record.resource == name).collect()
    }

    /// The newest committed view.
    #[track_caller]
    pub fn view(&self) -> Option<View> {
        let document = self.json(&["view"]);
        let view = &document["view"];
        let number = |value: &Value| value.as_u64().expect("a number") as usize;
        (!view.is_null()).then(|| View {
            epoch: decimal(&view["epoch"]),
            master: number(&view["master"]),
            members: view["members"].as_array().expect("a list of members").iter().map(number).collect(),
            active: view["phase"] == "active",
        })
    }

    /// A node's heartbeat.
    #[track_caller]
    pub fn heartbeat(&self, node: usize) -> Value {
        let document = self.json(&["heartbeats"]);
        let all = document["heartbeats"].as_array().expect("a list of heartbeats");
        all.iter().find(|heartbeat| heartbeat["node"] == node).cloned().unwrap_or(Value::Null)
    }

    /// `verify` has nothing to say.
    ///
    /// # Panics
    /// With the findings.
    #[track_caller]
    pub fn verify(&self) {
        let said = self.run(&["verify"]);
        assert_eq!(said.code, 0, "the inspector has findings: {}{}", said.out, said.err);
    }
}

impl Record {
    fn from_json(lock: &Value) -> Record {
        let text = |key: &str| lock[key].as_str().expect("a text").to_owned();
        let number = |key: &str| lock[key].as_u64().expect("a number");
        Record {
            slot: number("slot"),
            resource: text("resource"),
            owner: number("owner"),
            mode: text("mode"),
            state: text("state"),
            token: decimal(&lock["token"]),
            pid: number("pid"),
            stale: lock["stale"].as_bool().expect("true or false"),
        }
    }
}

/// INTERFACE.md: 64-bit ids, tokens and epochs are decimal strings.
fn decimal(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).expect("a decimal string")
}
