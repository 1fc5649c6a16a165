//! From a target to a connection: decide, resolve, decide, dial.

use std::net::SocketAddr;

use egress_runtime::dial::DialErrorKind;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::acl::{Decision, Host, Judgement, Target};
use crate::exchange::{Origin, Upstream};
use crate::record::Record;
use crate::refusal::Refusal;
use crate::shared::Worker;

/// Where a request may go: exactly the addresses that were judged.
pub(crate) type Candidates = SmallVec<[SocketAddr; 4]>;

/// Judges `target`, by name and by the addresses it has now.
///
/// # Errors
/// When it is denied, or has no addresses.
pub(crate) async fn route(
    worker: &Worker,
    target: &Target,
    record: &mut Record,
) -> Result<Candidates, Refusal> {
    let enforced = worker.shared.enforced();
    let policy = enforced.policy();
    let decide = |decision: Decision, record: &mut Record| {
        record.decided(decision);
        enforced.count(decision);
        worker.shared.metrics.decided(decision);
        if decision.passes() {
            Ok(())
        } else {
            Err(Refusal::Denied(decision))
        }
    };
    let port = target.port();
    let name = match target.host() {
        Host::Address(address) => {
            let admission = policy.judge_addresses(target, std::slice::from_ref(address));
            decide(admission.decision(), record)?;
            return Ok(candidates(admission.addresses(), port));
        }
        Host::Name(name) => name,
    };
    if let Judgement::Decided(decision) = policy.judge(target)
        && !decision.passes()
    {
        return decide(decision, record).map(|()| Candidates::new());
    }
    let resolved = match worker.shared.resolver.cached(name) {
        Some(addresses) => Ok(addresses),
        None => {
            let began = Instant::now();
            // Boxed, so that a connection has no room for it while it does
            // something else.
            let resolved = Box::pin(worker.shared.resolver.resolve(name)).await;
            record.resolved(began.elapsed());
            resolved
        }
    };
    let addresses = resolved
        .as_ref()
        .map_or(&[][..], |addresses| addresses.as_slice());
    let admission = policy.judge_addresses(target, addresses);
    decide(admission.decision(), record)?;
    let candidates = candidates(admission.addresses(), port);
    // The policy comes first: a name that is denied is no matter of the DNS.
    resolved.map(|_| candidates).map_err(Refusal::Resolve)
}

fn candidates(addresses: &[std::net::IpAddr], port: u16) -> Candidates {
    addresses
        .iter()
        .map(|&address| SocketAddr::new(address, port))
        .collect()
}

/// Opens a connection to one of `candidates`.
pub(crate) async fn dial(
    worker: &Worker,
    candidates: &[SocketAddr],
    record: &mut Record,
) -> Result<Upstream, Refusal> {
    let dialer = &worker.shared.dialer;
    let dialled = match dialer.dial(candidates).await {
        Err(error) if error.kind() == DialErrorKind::NoResources => {
            // What waits for another request has file descriptors to give.
            worker.pool.clear();
            Box::pin(dialer.dial(candidates)).await
        }
        dialled => dialled,
    }?;
    record.connected(dialled.address, Some(dialled.took));
    Ok(Upstream {
        stream: dialled.stream,
        address: dialled.address,
        origin: Origin::Dialled,
    })
}
