//! [`Child`]: a server in its own process, which is killed when the handle is dropped.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{self, Command, Stdio},
};

use crate::{
    Result,
    measure::{self, Others, Usage},
    servers::Setup,
};

#[derive(Debug)]
pub(crate) struct Child {
    process: process::Child,
    pub(crate) address: SocketAddr,
}

impl Child {
    pub(crate) fn start(setup: Setup) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(setup.to_arguments())
            // The server exits when this pipe closes, even if this process is killed.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        if let Some(output) = process.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let address = line.trim().parse();
        let address = address.map_err(|_| "a server did not start")?;
        Ok(Self { process, address })
    }

    pub(crate) fn usage(&self) -> Result<Usage> {
        Usage::of(self.process.id())
    }

    /// In KiB.
    pub(crate) fn memory(&self) -> Result<f64> {
        measure::resident(self.process.id())
    }

    pub(crate) fn watch_others(&self) -> Result<Others> {
        Others::watch(self.process.id())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // An error means that it has exited already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
