//! The laws.

use crate::law::Forbidden::{Async, Attribute, Ending, Macro, Method, Path, Word};
use crate::law::{Forbidden, Law, Tests};

/// Which packages of the workspace a package may need. Programs stand side by
/// side: what two of them share belongs to `egress-config` (text to types) or
/// `egress-runtime` (what long-running programs share). A package that is not
/// listed is a mistake, so that a new one says where it stands.
pub const MAY_DEPEND: &[(&str, &[&str])] = &[
    ("egress-config", &[]),
    ("egress-runtime", &["egress-config"]),
    ("egress-router-init", &["egress-config", "egress-runtime"]),
    ("egress-http-proxy", &["egress-config", "egress-runtime"]),
    ("egress-dns-proxy", &["egress-config", "egress-runtime"]),
    // The lab runs the programs and reads their types.
    (
        "egress-lab",
        &[
            "egress-config",
            "egress-runtime",
            "egress-router-init",
            "egress-http-proxy",
            "egress-dns-proxy",
        ],
    ),
    (
        "egress-benches",
        &[
            "egress-config",
            "egress-runtime",
            "egress-router-init",
            "egress-http-proxy",
            "egress-dns-proxy",
            "egress-lab",
        ],
    ),
    ("egress-house-rules", &[]),
];

/// Packages whose code ends up in an image.
pub const SHIPPED: &[&str] = &[
    "egress-config",
    "egress-runtime",
    "egress-router-init",
    "egress-http-proxy",
    "egress-dns-proxy",
];

/// What may not be linked into a package: (package, crates, why).
pub const NEVER_LINKED: &[(&str, &[&str], &str)] = &[(
    "egress-config",
    &["tokio", "nix", "libc", "socket2", "mio", "futures-util"],
    "it turns text into types and needs no operating system",
)];

/// Reaching out of the process: files, sockets, environment, clock, terminal.
const OUTSIDE: &[Forbidden] = &[
    Path("std::fs"),
    Path("std::env"),
    Path("std::process"),
    Path("std::thread"),
    Path("std::io::stdin"),
    Path("std::io::stdout"),
    Path("std::io::stderr"),
    Path("std::net::TcpListener"),
    Path("std::net::TcpStream"),
    Path("std::net::UdpSocket"),
    Path("std::net::ToSocketAddrs"),
    Path("std::os"),
    Method("to_socket_addrs"),
    Macro("print"),
    Macro("println"),
    Macro("eprint"),
    Macro("eprintln"),
    Ending("Instant::now"),
    Ending("SystemTime::now"),
    Method("elapsed"),
    Path("libc"),
    Path("nix"),
    Path("socket2"),
    Path("iptables"),
];

/// Waiting for something.
const ASYNC: &[Forbidden] = &[
    Async,
    Path("tokio"),
    Path("futures_util"),
    Path("hyper"),
    Path("hyper_util"),
];

/// The crates that speak netlink.
const NETLINK: &[Forbidden] = &[
    Path("rtnetlink"),
    Path("netlink_packet_core"),
    Path("netlink_packet_netfilter"),
    Path("netlink_packet_route"),
    Path("netlink_packet_utils"),
    Path("netlink_proto"),
    Path("netlink_sys"),
];

/// Our own modules that reach out; a pure module that uses them is not pure.
const IMPURE_MODULES: &[Forbidden] = &[Path("egress_runtime"), Path("crate::netlink")];

/// The laws over source files. Paths are those of `git ls-files`.
pub const LAWS: &[Law] = &[
    Law {
        name: "pure modules touch no socket, file, clock, environment or async",
        reason: "what they decide can then be tested without a kernel, and replayed",
        governs: &[
            "egress-config/src/**",
            "egress-router-init/src/**",
            "egress-*/src/{plan,acl,backends,config,http1,mapping}{.rs,/**}",
        ],
        except: &[
            // Looking at the pod, changing it, and staying to watch it.
            "egress-router-init/src/{main,program,cli,capabilities,router,stay,status}{.rs,/**}",
            "egress-router-init/src/netlink{.rs,/**}",
            // The rules are pure; what gives them to the kernel is not.
            "egress-router-init/src/firewall/{mod,nftables,iptables}{.rs,/**}",
            // Frames are pure; what sends and hears them is not.
            "egress-router-init/src/wire/{carrier,error,filter,probe,socket,station}.rs",
        ],
        tests: Tests::Exempt,
        forbids: &[OUTSIDE, ASYNC, NETLINK, IMPURE_MODULES],
        breaches: &[
            "use std::fs::File;",
            "fn f() { std::env::var(\"X\"); }",
            "use std::time::Instant; fn f() { Instant::now(); }",
            "async fn f() {}",
            "use tokio::time;",
            "use std::net::{IpAddr, UdpSocket};",
            "fn f() { println!(\"x\") }",
            "use crate::netlink::Link;",
            "use rtnetlink::Handle;",
        ],
    },
    Law {
        name: "netlink types stay inside one module tree",
        reason: "the rest of the program is written in our own nouns and survives a change of crate",
        governs: &["egress-*/src/**"],
        except: &["egress-router-init/src/netlink/**"],
        tests: Tests::Bound,
        forbids: &[NETLINK],
        breaches: &["use netlink_packet_route::link::LinkMessage;"],
    },
    Law {
        name: "the environment is read in one place",
        reason: "everything else takes its configuration as a value",
        governs: &["egress-*/src/**"],
        except: &["egress-runtime/src/environment.rs"],
        tests: Tests::Exempt,
        forbids: &[&[
            Path("std::env::var"),
            Path("std::env::var_os"),
            Path("std::env::vars"),
            Path("std::env::vars_os"),
            Path("std::env::set_var"),
            Path("std::env::remove_var"),
        ]],
        breaches: &[
            "use std::env; fn f() { env::var(\"X\"); }",
            "use std::env::vars_os;",
        ],
    },
    Law {
        name: "the process exits in one place",
        reason: "only a main function knows that nothing is left to undo",
        governs: &["egress-*/src/**"],
        except: &["egress-*/src/main.rs"],
        tests: Tests::Bound,
        forbids: &[&[
            Path("std::process::exit"),
            Path("std::process::abort"),
            Path("std::process::ExitCode"),
            Path("nix::unistd::_exit"),
            Path("libc::exit"),
            Path("libc::_exit"),
        ]],
        breaches: &[
            "fn f() { std::process::exit(1) }",
            "use std::process::{self, Command}; fn f() { process::exit(1) }",
        ],
    },
    Law {
        name: "nothing is executed inside an image",
        reason: "an image holds one binary and no shell",
        governs: &["egress-*/src/**"],
        except: &[],
        tests: Tests::Exempt,
        forbids: &[&[
            Path("std::process::Command"),
            Path("tokio::process"),
            Path("nix::unistd::execv"),
            Path("nix::unistd::execve"),
            Path("nix::unistd::execvp"),
            Path("nix::unistd::fork"),
        ]],
        breaches: &["use std::process::Command;", "use tokio::process::Child;"],
    },
    Law {
        name: "the iptables program is called from one file",
        reason: "the default driver needs no program at all",
        governs: &["egress-*/src/**"],
        except: &["egress-router-init/src/firewall/iptables{.rs,/**}"],
        tests: Tests::Bound,
        forbids: &[&[Path("iptables")]],
        breaches: &["fn f() { iptables::new(false); }"],
    },
    Law {
        name: "every test runs and nothing is left for later",
        reason: "an ignored test and a stub both look like work that was done",
        governs: &["*/{src,tests,benches}/**"],
        except: &["house/src/laws.rs"],
        tests: Tests::Bound,
        forbids: &[&[
            Attribute("ignore"),
            Macro("todo"),
            Macro("unimplemented"),
            Word("TODO"),
            Word("FIXME"),
        ]],
        breaches: &[
            "#[test] #[ignore] fn f() {}",
            "#[cfg(test)] mod tests { #[test] #[ignore = \"slow\"] fn f() {} }",
            "fn f() { todo!() }",
            "// TODO: the rest",
        ],
    },
];
