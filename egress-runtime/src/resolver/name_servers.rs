//! The name servers, one asked after the other.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_resolver::proto::op::Query;
use tokio::time::{Instant, sleep, sleep_until};

use super::answer::Answer;
use super::error::LookupError;
use super::name_server::NameServer;

/// How long a server may take before the next is asked beside it.
const ASK_NEXT_AFTER: Duration = Duration::from_millis(250);
/// How long the earlier servers may still contradict a later one that says
/// there is nothing: where the list mixes views of the DNS, only the first
/// may know the name.
const ABSENT_AFTER: Duration = Duration::from_millis(600);

/// The name servers in the order of preference.
pub(super) struct NameServers(Box<[NameServer]>);

impl NameServers {
    pub(super) fn new(addresses: &[SocketAddr]) -> Self {
        Self(addresses.iter().copied().map(NameServer::new).collect())
    }

    /// Asks the servers in order, the next one when one fails, or beside it
    /// after a quarter of a second; those that were silent lately come last.
    /// The first answer with addresses wins.
    pub(super) async fn ask(
        &self,
        question: &Query,
        deadline: Instant,
    ) -> Result<Answer, LookupError> {
        let (silent, mut order): (Vec<_>, Vec<_>) =
            self.0.iter().partition(|server| server.is_silent());
        order.extend(silent);
        let mut waiting = order.into_iter().enumerate();
        let mut running = FuturesUnordered::new();
        // Those of `running`, in the order of their start.
        let mut unanswered: Vec<(usize, &NameServer)> = Vec::new();
        let mut absent: Option<Answer> = None;
        let mut failure = LookupError::NoNameServer;
        let mut give_up = pin!(sleep_until(deadline));
        let mut believe_absence = pin!(sleep(ABSENT_AFTER));
        let mut next = pin!(sleep(ASK_NEXT_AFTER));
        while waiting.len() > 0 || !running.is_empty() {
            // Each round follows a failure or the end of the delay, or an
            // answer that earlier servers may still contradict.
            if absent.is_none()
                && let Some((place, server)) = waiting.next()
            {
                unanswered.push((place, server));
                running.push(async move { (place, server, server.ask(question, deadline).await) });
                next.as_mut().reset(Instant::now() + ASK_NEXT_AFTER);
            }
            tokio::select! {
                biased;
                Some((place, server, result)) = running.next() => {
                    let result: Result<Answer, LookupError> = result;
                    if result == Err(LookupError::TimedOut) {
                        NameServer::missed(server);
                    } else {
                        NameServer::heard(server);
                    }
                    let position = unanswered.iter().position(|&(other, _)| other == place);
                    let earlier = position.unwrap_or(0);
                    position.map(|position| unanswered.remove(position));
                    match result {
                        Ok(answer) => {
                            let found = matches!(answer, Answer::Addresses { .. });
                            if found || earlier == 0 {
                                for (_, server) in unanswered.iter().take(earlier) {
                                    server.missed();
                                }
                                return Ok(answer);
                            }
                            absent.get_or_insert(answer);
                        }
                        Err(error) => failure = failure.max(error),
                    }
                    if unanswered.is_empty() && let Some(answer) = absent {
                        return Ok(answer);
                    }
                }
                () = &mut next, if waiting.len() > 0 && absent.is_none() => {}
                () = &mut believe_absence, if absent.is_some() => {
                    for (_, server) in &unanswered {
                        server.missed();
                    }
                    break;
                }
                () = &mut give_up => {
                    for (_, server) in &unanswered {
                        server.missed();
                    }
                    failure = failure.max(LookupError::TimedOut);
                    break;
                }
            }
        }
        absent.ok_or(failure)
    }
}
