//! A name server that answers as a test scripts it.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_resolver::proto::rr::rdata::{CNAME, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A question, as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    pub(super) name: String,
    pub(super) kind: RecordType,
    pub(super) tcp: bool,
    pub(super) edns: bool,
}

/// How to answer a question.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// Those of the type asked for; a TTL.
    Addresses(Vec<IpAddr>, u32),
    /// Aliases first, then addresses.
    Chain(Vec<&'static str>, Vec<IpAddr>, u32),
    /// A code, and the minimum of the SOA.
    Code(ResponseCode, Option<u32>),
    /// By UDP nothing but the flag; by TCP the other.
    Truncated(Box<Reply>),
    /// The other, later.
    Late(Duration, Box<Reply>),
    /// Nothing.
    Silence,
}

impl Reply {
    pub(super) fn addresses(list: &[&str], ttl: u32) -> Self {
        Self::Addresses(list.iter().map(|ip| ip.parse().unwrap()).collect(), ttl)
    }
}

type Script = Arc<dyn Fn(&Asked) -> Reply + Send + Sync>;

/// A server on loopback, by UDP and TCP, until it is dropped.
pub(super) struct Scripted {
    pub(super) address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    tasks: [JoinHandle<()>; 2],
}

impl Scripted {
    pub(super) async fn start(script: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            let address = udp.local_addr().unwrap();
            if let Ok(tcp) = TcpListener::bind(address).await {
                break (Arc::new(udp), tcp);
            }
        };
        let address = udp.local_addr().unwrap();
        let script: Script = Arc::new(script);
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (log, other) = (asked.clone(), script.clone());
        let datagrams = tokio::spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
                let request = buffer[..length].to_vec();
                let (udp, script, log) = (udp.clone(), script.clone(), log.clone());
                tokio::spawn(async move {
                    if let Some(response) = answer(&request, false, &script, &log).await {
                        udp.send_to(&response, client).await.unwrap();
                    }
                });
            }
        });
        let log = asked.clone();
        let streams = tokio::spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let (script, log) = (other.clone(), log.clone());
                tokio::spawn(async move {
                    while let Ok(length) = stream.read_u16().await {
                        let mut request = vec![0; length.into()];
                        stream.read_exact(&mut request).await.unwrap();
                        if let Some(response) = answer(&request, true, &script, &log).await {
                            let length = u16::try_from(response.len()).unwrap();
                            let framed = [&length.to_be_bytes()[..], &response].concat();
                            stream.write_all(&framed).await.unwrap();
                        }
                    }
                });
            }
        });
        Self {
            address,
            asked,
            tasks: [datagrams, streams],
        }
    }

    /// What was asked so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// How often `name` was asked for, of one type.
    pub(super) fn count(&self, name: &str, kind: RecordType) -> usize {
        let asked = self.asked();
        let same = |asked: &&Asked| asked.name == name && asked.kind == kind;
        asked.iter().filter(same).count()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

async fn answer(
    request: &[u8],
    tcp: bool,
    script: &Script,
    log: &Mutex<Vec<Asked>>,
) -> Option<Vec<u8>> {
    let request = Message::from_vec(request).unwrap();
    let question = request.queries[0].clone();
    let asked = Asked {
        name: question.name().to_ascii(),
        kind: question.query_type(),
        tcp,
        edns: request.edns.is_some(),
    };
    log.lock().unwrap().push(asked.clone());
    let mut reply = script(&asked);
    loop {
        reply = match reply {
            Reply::Late(delay, reply) => {
                sleep(delay).await;
                *reply
            }
            Reply::Truncated(reply) if tcp => *reply,
            reply => break compose(&request, question, reply),
        };
    }
}

fn compose(request: &Message, question: Query, reply: Reply) -> Option<Vec<u8>> {
    let mut response = Message::response(request.metadata.id, OpCode::Query);
    response.metadata.recursion_desired = true;
    response.metadata.recursion_available = true;
    let mut owner = question.name().clone();
    let kind = question.query_type();
    response.add_query(question);
    match reply {
        Reply::Silence | Reply::Late(..) => return None,
        Reply::Truncated(_) => response.metadata.truncation = true,
        Reply::Addresses(addresses, ttl) => add(&mut response, &owner, kind, &addresses, ttl),
        Reply::Chain(aliases, addresses, ttl) => {
            for alias in aliases {
                let target = Name::from_ascii(alias).unwrap();
                let data = RData::CNAME(CNAME(target.clone()));
                response.add_answer(Record::from_rdata(owner, ttl, data));
                owner = target;
            }
            add(&mut response, &owner, kind, &addresses, ttl);
        }
        Reply::Code(code, minimum) => {
            response.metadata.response_code = code;
            if let Some(minimum) = minimum {
                let root = Name::root();
                let soa = SOA::new(root.clone(), root.clone(), 1, 1, 1, 1, minimum);
                response.add_authority(Record::from_rdata(root, 3600, RData::SOA(soa)));
            }
        }
    }
    Some(response.to_vec().unwrap())
}

fn add(response: &mut Message, owner: &Name, kind: RecordType, addresses: &[IpAddr], ttl: u32) {
    let records = addresses
        .iter()
        .map(|&address| RData::from(address))
        .filter(|data| data.record_type() == kind)
        .map(|data| Record::from_rdata(owner.clone(), ttl, data));
    response.add_answers(records);
}
