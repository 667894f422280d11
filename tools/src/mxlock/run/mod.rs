//! run
mod process;
mod status_fd;
