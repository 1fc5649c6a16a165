//! What to show.

/// A mode of the router.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Redirect,
    HttpProxy,
    DnsProxy,
}

impl Mode {
    const ALL: [Self; 3] = [Self::Redirect, Self::HttpProxy, Self::DnsProxy];

    fn name(self) -> &'static str {
        match self {
            Self::Redirect => "redirect",
            Self::HttpProxy => "http-proxy",
            Self::DnsProxy => "dns-proxy",
        }
    }

    /// The programs that run in the router pod, in their order.
    pub(crate) fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Redirect => &["egress-router-init"],
            Self::HttpProxy => &["egress-router-init", "egress-http-proxy"],
            Self::DnsProxy => &["egress-router-init", "egress-dns-proxy"],
        }
    }
}

/// The modes to show, and whether to keep the lab.
#[derive(Debug)]
pub(crate) struct Arguments {
    modes: Vec<Mode>,
    keep: bool,
}

impl Arguments {
    /// Reads the arguments, without the program's name. No mode means all.
    ///
    /// # Errors
    /// With what is wrong.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut parsed = Self {
            modes: Vec::new(),
            keep: false,
        };
        for argument in arguments {
            let mode = Mode::ALL.into_iter().find(|mode| mode.name() == argument);
            match mode {
                Some(mode) => parsed.modes.push(mode),
                None if argument == "--keep" => parsed.keep = true,
                None => {
                    return Err(format!(
                        "unknown argument {argument}; write redirect, http-proxy, dns-proxy or --keep"
                    ));
                }
            }
        }
        if parsed.modes.is_empty() {
            parsed.modes = Mode::ALL.to_vec();
        }
        Ok(parsed)
    }

    pub(crate) fn modes(&self) -> &[Mode] {
        &self.modes
    }

    /// Whether the lab is kept as it is once `mode` has been shown.
    pub(crate) fn keeps_after(&self, mode: Mode) -> bool {
        self.keep && self.modes.last() == Some(&mode)
    }
}
