//! What a DNS message answers.

use std::net::IpAddr;
use std::time::Duration;

use hickory_resolver::proto::op::{DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::RData;

use super::error::LookupError;

/// The longest chain of aliases that is followed.
const MAX_ALIASES: usize = 16;

/// What the DNS says about a name and a record type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// The addresses, at least one.
    Addresses {
        addresses: Vec<IpAddr>,
        ttl: Duration,
    },
    /// [`LookupError::NoSuchName`] or [`LookupError::NoAddress`].
    Absent {
        error: LookupError,
        /// How long that holds (RFC 2308 section 5).
        ttl: Option<Duration>,
    },
}

impl Answer {
    /// Reads the response to `question`. An alias is followed inside the
    /// response only: a resolver that recurses has put all of it there.
    pub(super) fn read(response: &DnsResponse, question: &Query) -> Result<Self, LookupError> {
        let code = response.metadata.response_code;
        if !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain) {
            return Err(LookupError::of_code(code));
        }
        let mut owner = question.name();
        let mut ttl = u32::MAX;
        for _ in 0..MAX_ALIASES {
            let alias = response
                .answers
                .iter()
                .find_map(|record| match &record.data {
                    RData::CNAME(alias) if record.name == *owner => Some((&alias.0, record.ttl)),
                    _ => None,
                });
            let Some((target, alias_ttl)) = alias else {
                break;
            };
            owner = target;
            ttl = ttl.min(alias_ttl);
        }
        let mut addresses = Vec::new();
        for record in &response.answers {
            if record.name == *owner && record.record_type() == question.query_type() {
                addresses.extend(record.data.ip_addr());
                ttl = ttl.min(record.ttl);
            }
        }
        if !addresses.is_empty() {
            let ttl = Duration::from_secs(ttl.into());
            return Ok(Self::Addresses { addresses, ttl });
        }
        let ttl = response.negative_ttl();
        if code == ResponseCode::NoError && ttl.is_none() && !response.metadata.recursion_available
        {
            // It points to other servers instead of asking them.
            return Err(LookupError::Other(
                "does not recurse and does not know the name".into(),
            ));
        }
        Ok(Self::Absent {
            error: match code {
                ResponseCode::NXDomain => LookupError::NoSuchName,
                _ => LookupError::NoAddress,
            },
            ttl: ttl.map(|seconds| Duration::from_secs(seconds.into())),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_resolver::proto::op::{Message, OpCode};
    use hickory_resolver::proto::rr::rdata::{CNAME, SOA};
    use hickory_resolver::proto::rr::{Name, Record, RecordType};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_str(text).unwrap()
    }

    fn response(code: ResponseCode, answers: Vec<Record>, soa: Option<(u32, u32)>) -> DnsResponse {
        let mut message = Message::response(1, OpCode::Query);
        message.metadata.response_code = code;
        message.metadata.recursion_available = true;
        message.add_answers(answers);
        if let Some((ttl, minimum)) = soa {
            let soa = SOA::new(name("ns."), name("root."), 1, 1, 1, 1, minimum);
            let record = Record::from_rdata(name("example."), ttl, RData::SOA(soa));
            message.add_authority(record);
        }
        DnsResponse::from_message(message).unwrap()
    }

    fn address(owner: &str, ttl: u32, address: &str) -> Record {
        let address: IpAddr = address.parse().unwrap();
        Record::from_rdata(name(owner), ttl, RData::from(address))
    }

    fn alias(owner: &str, ttl: u32, target: &str) -> Record {
        Record::from_rdata(name(owner), ttl, RData::CNAME(CNAME(name(target))))
    }

    fn read(response: &DnsResponse) -> Result<Answer, LookupError> {
        Answer::read(response, &Query::query(name("a.example."), RecordType::A))
    }

    fn addresses(list: &[&str], seconds: u64) -> Result<Answer, LookupError> {
        Ok(Answer::Addresses {
            addresses: list.iter().map(|ip| ip.parse().unwrap()).collect(),
            ttl: Duration::from_secs(seconds),
        })
    }

    #[test]
    fn aliases_are_followed_in_any_order_and_shorten_the_ttl() {
        let chain = response(
            ResponseCode::NoError,
            vec![
                address("c.example.", 60, "192.0.2.1"),
                alias("B.example.", 20, "c.example."),
                address("c.example.", 50, "192.0.2.2"),
                alias("a.example.", 40, "b.example."),
            ],
            None,
        );
        assert_eq!(read(&chain), addresses(&["192.0.2.1", "192.0.2.2"], 20));
    }

    #[test]
    fn records_of_other_names_and_types_do_not_count() {
        let other = response(
            ResponseCode::NoError,
            vec![
                address("evil.example.", 1, "203.0.113.1"),
                address("a.example.", 9, "192.0.2.1"),
                address("a.example.", 1, "2001:db8::1"),
            ],
            None,
        );
        assert_eq!(read(&other), addresses(&["192.0.2.1"], 9));
    }

    #[test]
    fn a_loop_of_aliases_ends() {
        let records = vec![
            alias("a.example.", 1, "b.example."),
            alias("b.example.", 1, "a.example."),
        ];
        let answer = read(&response(ResponseCode::NoError, records, None));
        assert_eq!(
            answer,
            Ok(Answer::Absent {
                error: LookupError::NoAddress,
                ttl: None
            })
        );
    }

    #[test]
    fn absence_holds_as_long_as_the_zone_says() {
        for (code, soa, error, ttl) in [
            (
                ResponseCode::NXDomain,
                Some((300, 20)),
                LookupError::NoSuchName,
                Some(20),
            ),
            (
                ResponseCode::NoError,
                Some((10, 20)),
                LookupError::NoAddress,
                Some(10),
            ),
            (ResponseCode::NXDomain, None, LookupError::NoSuchName, None),
        ] {
            let ttl = ttl.map(Duration::from_secs);
            let answer = read(&response(code, Vec::new(), soa));
            assert_eq!(answer, Ok(Answer::Absent { error, ttl }));
        }
    }

    #[test]
    fn failures_are_no_answers() {
        for (code, error) in [
            (ResponseCode::ServFail, LookupError::ServerFailure),
            (ResponseCode::Refused, LookupError::Refused),
            (
                ResponseCode::NotAuth,
                LookupError::of_code(ResponseCode::NotAuth),
            ),
        ] {
            let answer = read(&response(code, Vec::new(), None));
            assert_eq!(answer, Err(error.clone()));
            assert!(!error.is_dns_answer());
        }
    }

    #[test]
    fn a_referral_is_no_answer() {
        let mut message = Message::response(1, OpCode::Query);
        message.metadata.recursion_available = false;
        let answer = read(&DnsResponse::from_message(message).unwrap());
        assert!(matches!(answer, Err(LookupError::Other(_))), "{answer:?}");
    }
}
