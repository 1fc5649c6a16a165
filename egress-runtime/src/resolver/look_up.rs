//! One look-up of a name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use egress_config::DomainName;
use futures_util::future::{self, Either};
use hickory_resolver::Hosts;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};

use super::addresses::Looked;
use super::answer::Answer;
use super::error::LookupError;
use super::finding::Finding;
use super::metrics::ResolverMetrics;
use super::name_servers::NameServers;
use super::system::{MAX_TIME, System};

/// Look-ups at once; the others wait their turn. Each holds a socket or two
/// for each server, eight when nothing answers.
const AT_ONCE: usize = 256;
/// How long the second family may take once the first has addresses (RFC 8305
/// section 3 has 50 ms; here both are wanted, because both are judged, but
/// servers that drop AAAA questions must not cost the whole time).
const SECOND_FAMILY: Duration = Duration::from_millis(500);
/// How soon a look-up is worth repeating whose second family is not known.
const INCOMPLETE_TTL: Duration = Duration::from_secs(30);
/// What the hosts file says does not change while a pod runs.
const HOSTS_TTL: Duration = Duration::from_secs(3600);

/// How a name is completed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Names {
    /// As it is: what a client of a proxy wrote, or what ended with a dot.
    Absolute,
    /// As it is, then with each domain of the search list of resolv.conf(5),
    /// whatever its `ndots`: a name that is complete costs one question.
    Search,
}

/// Asks the hosts file and the name servers; remembers no answer.
pub(super) struct LookUps {
    hosts: Hosts,
    servers: NameServers,
    search: Vec<Name>,
    time: Duration,
    turns: Semaphore,
    metrics: ResolverMetrics,
}

impl LookUps {
    pub(super) fn new(system: System, metrics: ResolverMetrics) -> Self {
        Self {
            hosts: system.hosts,
            servers: NameServers::new(&system.servers),
            search: system.search,
            time: system.time,
            turns: Semaphore::new(AT_ONCE),
            metrics,
        }
    }

    /// Asks `servers` only, as tests want it.
    pub(super) fn of_servers(
        servers: &[SocketAddr],
        search: &[DomainName],
        metrics: ResolverMetrics,
    ) -> Self {
        let system = System {
            servers: servers.to_vec(),
            search: search.iter().filter_map(absolute).collect(),
            time: MAX_TIME,
            hosts: Hosts::default(),
        };
        Self::new(system, metrics)
    }

    /// Takes [`System::time`] at most.
    pub(super) async fn look_up(&self, name: &DomainName, names: Names) -> Finding {
        let Some(given) = absolute(name) else {
            let error = LookupError::NoSuchName;
            return Finding::Absent { error, ttl: None };
        };
        if let Some(addresses) = self.known(&given) {
            return Finding::Found(Looked::new(addresses, HOSTS_TTL));
        }
        let begun = Instant::now();
        let deadline = begun + self.time;
        let finding = match timeout_at(deadline, self.turns.acquire()).await {
            Ok(_turn) => self.search(given, names, deadline).await,
            Err(_) => Finding::Failed(LookupError::TimedOut),
        };
        self.metrics.looked_up(finding.as_result(), begun.elapsed());
        finding
    }

    /// What needs no name server: hosts(5), and `localhost` (RFC 6761 section
    /// 6.3).
    fn known(&self, name: &Name) -> Option<Box<[IpAddr]>> {
        let lines: Box<[IpAddr]> = [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| {
                self.hosts
                    .lookup_static_host(&Query::query(name.clone(), kind))
            })
            .flat_map(|found| {
                let addresses = found
                    .answers()
                    .iter()
                    .filter_map(|line| line.data.ip_addr());
                addresses.collect::<Vec<_>>()
            })
            .collect();
        if !lines.is_empty() {
            Some(lines)
        } else if name.is_localhost() {
            Some([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].into())
        } else {
            None
        }
    }

    async fn search(&self, given: Name, names: Names, deadline: Instant) -> Finding {
        let single_label = given.num_labels() == 1;
        let mut absent = match self.both_families(&given, deadline).await {
            Finding::Absent { error, ttl } => Ok((error, ttl)),
            // Many servers refuse to ask the root for a name of one label; for
            // any other, a failure leaves open which of the names is meant.
            Finding::Failed(error @ (LookupError::ServerFailure | LookupError::Refused))
                if single_label =>
            {
                Err(error)
            }
            finding => return finding,
        };
        let domains = match names {
            Names::Absolute => [].iter(),
            Names::Search => self.search.iter(),
        };
        for domain in domains {
            let mut relative = given.clone();
            relative.set_fqdn(false);
            // A name that gets too long does not exist.
            let Ok(mut name) = relative.append_domain(domain) else {
                continue;
            };
            name.set_fqdn(true);
            match self.both_families(&name, deadline).await {
                Finding::Absent { error, ttl } => {
                    absent = absent.map(|(first, shortest)| (first.max(error), shortest.min(ttl)));
                }
                finding => return finding,
            }
        }
        match absent {
            Ok((error, ttl)) => Finding::Absent { error, ttl },
            Err(error) => Finding::Failed(error),
        }
    }

    async fn both_families(&self, name: &Name, deadline: Instant) -> Finding {
        let questions =
            [RecordType::A, RecordType::AAAA].map(|kind| Query::query(name.clone(), kind));
        let [ipv4, ipv6] = &questions;
        let ipv4 = pin!(self.servers.ask(ipv4, deadline));
        let ipv6 = pin!(self.servers.ask(ipv6, deadline));
        let (ipv4, ipv6) = match future::select(ipv4, ipv6).await {
            Either::Left((ipv4, ipv6)) => {
                let ipv6 = second(&ipv4, ipv6).await;
                (ipv4, ipv6)
            }
            Either::Right((ipv6, ipv4)) => (second(&ipv6, ipv4).await, ipv6),
        };
        combine(ipv4, ipv6)
    }
}

async fn second(
    first: &Result<Answer, LookupError>,
    second: impl Future<Output = Result<Answer, LookupError>>,
) -> Result<Answer, LookupError> {
    match first {
        Ok(Answer::Addresses { .. }) => timeout(SECOND_FAMILY, second)
            .await
            .unwrap_or(Err(LookupError::TimedOut)),
        _ => second.await,
    }
}

fn combine(ipv4: Result<Answer, LookupError>, ipv6: Result<Answer, LookupError>) -> Finding {
    use Answer::{Absent, Addresses};
    match (ipv4, ipv6) {
        (
            Ok(Addresses { addresses, ttl }),
            Ok(Addresses {
                addresses: more,
                ttl: other,
            }),
        ) => {
            let all = addresses.into_iter().chain(more).collect();
            Finding::Found(Looked::new(all, ttl.min(other)))
        }
        (Ok(Addresses { addresses, ttl }), rest) | (rest, Ok(Addresses { addresses, ttl })) => {
            let longest = if rest.is_ok() { ttl } else { INCOMPLETE_TTL };
            Finding::Found(Looked::new(addresses.into(), ttl.min(longest)))
        }
        (
            Ok(Absent { error, ttl }),
            Ok(Absent {
                error: other,
                ttl: other_ttl,
            }),
        ) => Finding::Absent {
            error: error.max(other),
            ttl: ttl.min(other_ttl),
        },
        (Err(error), Err(other)) => Finding::Failed(error.max(other)),
        (Err(error), Ok(_)) | (Ok(_), Err(error)) => Finding::Failed(error),
    }
}

/// `None` when it does not fit into a message, which a [`DomainName`] does.
fn absolute(name: &DomainName) -> Option<Name> {
    let mut name = Name::from_ascii(name.as_str()).ok()?;
    name.set_fqdn(true);
    Some(name)
}
