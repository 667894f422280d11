//! The daemon that the global options mean.

use super::cli::Global;
use crate::common::failure::{Code, Failure};
use mxlock_client::{Client, ClientError, ConnectOptions};
use mxlock_proto::client::{AdminReply, AdminRequest};

/// Opens a session, for this process or another one.
///
/// # Errors
/// When no daemon answers, or it refuses.
pub(super) fn connect(global: &Global, on_behalf_of: Option<u32>) -> Result<Client, Failure> {
    let lockspace = global.lockspace.as_deref().unwrap_or(mxlock_client::DEFAULT_LOCKSPACE);
    let options = ConnectOptions { socket: global.socket.clone(), on_behalf_of, ..ConnectOptions::new(lockspace) };
    Ok(Client::connect(options)?)
}

/// Asks one administrative question.
///
/// # Errors
/// What the daemon says, or that it does not answer.
pub(super) fn ask(global: &Global, request: AdminRequest) -> Result<AdminReply, Failure> {
    Ok(connect(global, None)?.admin(request)?)
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        Failure::new(Code::from_number(error.exit_code()), error.to_string())
    }
}
