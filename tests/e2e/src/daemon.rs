//! One daemon process, with directories and a network namespace of its own.

use crate::command::{Said, clean, program};
use crate::wait::{PATIENCE, until};
use mxlock_client::{AdminReply, AdminRequest, Client, ClientError, ConnectOptions};
use mxlock_format::NodeId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Status of a daemon, as it is reported.
pub use mxlock_proto::report::Status;

/// A daemon: its files stay while processes come and go.
#[derive(Debug)]
pub struct Daemon {
    node: usize,
    directory: PathBuf,
    namespace: Option<String>,
    /// Before the program: a wrapper that restricts it.
    wrapper: Vec<String>,
    args: Vec<String>,
    child: Option<Child>,
}

impl Daemon {
    /// Prepares a daemon: a directory for socket, state, configuration and log. It is not started.
    ///
    /// # Panics
    /// When the directory cannot be made.
    pub fn new(node: usize, directory: PathBuf, namespace: Option<String>, config: &str, args: Vec<String>) -> Daemon {
        std::fs::create_dir(&directory).expect("a directory for the daemon");
        let daemon = Daemon { node, directory, namespace, wrapper: Vec::new(), args, child: None };
        daemon.set_config(config);
        daemon
    }

    /// Writes its configuration file.
    ///
    /// # Panics
    /// When that fails.
    pub fn set_config(&self, config: &str) {
        std::fs::write(self.config_path(), config).expect("a configuration file");
    }

    /// Puts a program and its arguments in front of the daemon's.
    pub fn wrap(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
    }

    /// Its arguments beyond configuration, socket and state directory.
    pub fn args_mut(&mut self) -> &mut Vec<String> {
        &mut self.args
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.join("sock")
    }

    /// Its state directory.
    pub fn state_dir(&self) -> PathBuf {
        self.directory.join("state")
    }

    fn config_path(&self) -> PathBuf {
        self.directory.join("mxlock.toml")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Its slot, if it was given one by number.
    ///
    /// # Panics
    /// For a number that is no slot.
    pub fn id(&self) -> NodeId {
        NodeId::new(self.node as u32).expect("a slot")
    }

    /// The command line that starts it.
    pub fn command(&self) -> Command {
        let mut words: Vec<String> = Vec::new();
        if let Some(namespace) = &self.namespace {
            words.extend(["ip", "netns", "exec", namespace].map(str::to_owned));
        }
        // The daemon must not outlive a test process that was killed.
        words.extend(["setpriv", "--pdeathsig", "KILL"].map(str::to_owned));
        words.extend(self.wrapper.iter().cloned());
        words.push(program("mxlockd").display().to_string());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("--config").arg(self.config_path());
        command.arg("--socket").arg(self.socket()).arg("--state-dir").arg(self.state_dir()).args(&self.args);
        clean(&mut command);
        command
    }

    /// Starts it; its log goes to a file. It may take a while until it answers: see [`Daemon::ready`].
    ///
    /// # Panics
    /// When it runs already, or cannot be run.
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "node {} runs already", self.node);
        let log = File::options().create(true).append(true).open(self.log_path()).expect("a log file");
        let errors = log.try_clone().expect("a log file");
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        self.child = Some(command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}")));
    }

    /// Runs it to its end, where it is expected to refuse.
    ///
    /// # Panics
    /// When it runs on for longer than a daemon takes to refuse.
    pub fn refusal(&self) -> Said {
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
        let pid = Pid::from_raw(child.id() as i32);
        let started = std::time::Instant::now();
        while child.try_wait().expect("a child can be waited for").is_none() {
            if started.elapsed() > PATIENCE {
                let _ = kill(pid, Signal::SIGKILL);
                let said = Said::from_output(child.wait_with_output().expect("a child can be waited for"));
                panic!("it was to refuse, but runs: {}", said.err);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Said::from_output(child.wait_with_output().expect("a child can be waited for"))
    }

    /// Waits until it grants locks.
    ///
    /// # Panics
    /// When it ends, or does not within [`PATIENCE`].
    #[track_caller]
    pub fn ready(&mut self) {
        let what = format!("node {} answers", self.node);
        let client = until(&what, PATIENCE, || {
            if let Some(child) = &mut self.child
                && let Ok(Some(status)) = child.try_wait()
            {
                panic!("node {} ended with {status}: {}", self.node, self.log());
            }
            self.try_client().ok()
        });
        let timeout_ms = Some(PATIENCE.as_millis() as u64);
        client.admin(AdminRequest::WaitReady { timeout_ms }).unwrap_or_else(|e| panic!("node {}: {e}", self.node));
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it does not run.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.as_ref().expect("the daemon runs").id() as i32)
    }

    /// Whether a process was started and not taken back.
    pub fn is_started(&self) -> bool {
        self.child.is_some()
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When it does not run.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the daemon runs");
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.reap();
    }

    /// SIGTERM, and waits for the end: how it ended.
    ///
    /// # Panics
    /// When it does not run, or does not end.
    #[track_caller]
    pub fn terminate(&mut self) -> i32 {
        self.signal(Signal::SIGTERM);
        self.end()
    }

    /// Waits for an end that something else has caused; the exit code.
    ///
    /// # Panics
    /// When it does not end.
    #[track_caller]
    pub fn end(&mut self) -> i32 {
        let child = self.child.as_mut().expect("the daemon runs");
        let what = format!("node {} ends", self.node);
        let status = until(&what, PATIENCE, || child.try_wait().expect("a child can be waited for"));
        self.child = None;
        status.code().unwrap_or(-1)
    }

    fn reap(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }

    /// How to connect to it.
    pub fn options(&self) -> ConnectOptions {
        ConnectOptions { socket: Some(self.socket()), answer_timeout: PATIENCE, ..ConnectOptions::default() }
    }

    /// A session with it, if it answers.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn try_client(&self) -> Result<Client, ClientError> {
        Client::connect(self.options())
    }

    /// A session with it.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn client(&self) -> Client {
        self.try_client().unwrap_or_else(|e| panic!("{e}"))
    }

    /// Its status, if it answers.
    pub fn try_status(&self) -> Option<Box<Status>> {
        match self.try_client().ok()?.admin(AdminRequest::Status).ok()? {
            AdminReply::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Its status.
    ///
    /// # Panics
    /// When it does not answer.
    #[track_caller]
    pub fn status(&self) -> Box<Status> {
        self.try_status().unwrap_or_else(|| panic!("node {} does not answer", self.node))
    }

    /// What it has logged, over all its starts.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits for words in its log.
    ///
    /// # Panics
    /// When they do not come.
    #[track_caller]
    pub fn wait_log(&self, words: &str) {
        until(&format!("'{words}' in the log of node {}", self.node), PATIENCE, || {
            self.log().contains(words).then_some(())
        });
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // A stopped process is ended by SIGKILL too.
            let _ = child.kill();
        }
        self.reap();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("---- the log of node {}, its last lines", self.node);
            for line in &lines[lines.len().saturating_sub(40)..] {
                eprintln!("{line}");
            }
        }
    }
}
