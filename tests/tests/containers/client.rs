//! A client in a container.

use egress_lab::{Seen, harness::libtest_mimic::Failed};

use crate::machine::Machine;

/// A container that has curl, and whatever variables its manifest gives it.
pub(crate) struct Client<'m> {
    machine: &'m Machine,
    container: String,
}

impl<'m> Client<'m> {
    pub(crate) fn new(machine: &'m Machine, container: &str) -> Self {
        Self {
            machine,
            container: container.to_owned(),
        }
    }

    /// `curl URL` in the container.
    pub(crate) fn get(&self, url: &str) -> Result<Seen, Failed> {
        self.curl(&[url])
    }

    /// `curl` in the container; the answer says whom the outside saw.
    pub(crate) fn curl(&self, arguments: &[&str]) -> Result<Seen, Failed> {
        Ok(self.run(arguments)?.parse()?)
    }

    /// The error of a `curl` in the container that gets no answer.
    pub(crate) fn refused(&self, url: &str) -> Result<String, Failed> {
        match self.run(&[url]) {
            Ok(answer) => Err(format!("{url} is answered: {answer}").into()),
            Err(error) => Ok(error.message().unwrap_or_default().to_owned()),
        }
    }

    fn run(&self, arguments: &[&str]) -> Result<String, Failed> {
        let fixed = [
            "exec",
            &self.container,
            "curl",
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "10",
            "--cacert",
            "/ca.pem",
        ];
        let all: Vec<_> = fixed.into_iter().chain(arguments.iter().copied()).collect();
        self.machine.ask(&all)
    }
}
