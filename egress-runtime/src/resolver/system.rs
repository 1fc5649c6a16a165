//! resolv.conf(5) and hosts(5).

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::Hosts;
use hickory_resolver::proto::rr::Name;
use hickory_resolver::system_conf::parse_resolv_conf;

use super::error::ResolverError;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const DNS_PORT: u16 = 53;
/// The longest look-up, whatever resolv.conf says: who asks has a user
/// waiting.
pub(super) const MAX_TIME: Duration = Duration::from_secs(5);

/// Whom to ask, and for how long.
pub(super) struct System {
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: Vec<Name>,
    /// For one look-up over all: `timeout` times `attempts`, at most
    /// [`MAX_TIME`]. Within it the resolver has its own pace.
    pub(super) time: Duration,
    pub(super) hosts: Hosts,
}

impl System {
    /// Reads both files. A pod without hosts file has no hosts.
    pub(super) fn read() -> Result<Self, ResolverError> {
        let path = RESOLV_CONF;
        let text = fs::read(path).map_err(|cause| ResolverError::Read { path, cause })?;
        Ok(Self {
            hosts: Hosts::from_system().unwrap_or_default(),
            ..Self::parse(&text)?
        })
    }

    fn parse(text: &[u8]) -> Result<Self, ResolverError> {
        let (config, options) =
            parse_resolv_conf(text).map_err(|cause| ResolverError::Unusable {
                path: RESOLV_CONF,
                cause: cause.to_string().into(),
            })?;
        let attempts = u32::try_from(options.attempts).unwrap_or(u32::MAX);
        Ok(Self {
            servers: config
                .name_servers()
                .iter()
                .map(|server| SocketAddr::new(server.ip, DNS_PORT))
                .collect(),
            search: config.search().to_vec(),
            time: options
                .timeout
                .saturating_mul(attempts.max(1))
                .clamp(Duration::from_secs(1), MAX_TIME),
            hosts: Hosts::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_s_resolv_conf() {
        let text = "search shop.svc.cluster.local svc.cluster.local\n\
                    nameserver 10.96.0.10\nnameserver fd00::a\n\
                    options ndots:5 timeout:1 attempts:3\n";
        let system = System::parse(text.as_bytes()).unwrap();
        let servers: Vec<String> = system.servers.iter().map(SocketAddr::to_string).collect();
        assert_eq!(servers, ["10.96.0.10:53", "[fd00::a]:53"]);
        let search: Vec<String> = system.search.iter().map(Name::to_string).collect();
        assert_eq!(search, ["shop.svc.cluster.local", "svc.cluster.local"]);
        assert_eq!(system.time, Duration::from_secs(3));
    }

    #[test]
    fn a_look_up_never_takes_longer_than_a_user_waits() {
        for (options, seconds) in [("", 5), ("options timeout:30", 5), ("options timeout:0", 1)] {
            let text = format!("nameserver 10.0.0.1\n{options}\n");
            let time = System::parse(text.as_bytes()).unwrap().time;
            assert_eq!(time.as_secs(), seconds, "{options}");
        }
    }

    #[test]
    fn without_name_server_there_is_no_resolver() {
        let error = System::parse(b"search example.com\n").err().unwrap();
        let text = error.to_string();
        assert!(
            text.starts_with("/etc/resolv.conf cannot be used"),
            "{text}"
        );
    }
}
