//! The cluster's DNS server, which answers as a test scripts it.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use egress_config::{AddressFamily as Family, Protocol};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query as Question, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{CNAME, PTR},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
};

use crate::{
    error::{Context, Result},
    host::Host,
    server::Worker,
};

const PORT: u16 = 53;

/// How a name is answered. A name without script does not exist (NXDOMAIN).
#[derive(Debug, Clone)]
pub enum Answer {
    /// These addresses; of the family asked for, so perhaps none. Where they
    /// are more than the client takes by UDP, the answer says that they are to
    /// be asked for by TCP.
    Addresses(Vec<IpAddr>),
    /// The first list, the next time the second, and so on around.
    Rotating(Vec<Vec<IpAddr>>),
    /// An alias, with what the other name is scripted to answer.
    Alias(String),
    /// The name behind an address; for names below `in-addr.arpa`.
    Pointer(String),
    /// SERVFAIL.
    Failure,
    /// No answer at all.
    Silence,
}

/// A question that reached the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The name, in lower case, without a final dot.
    pub name: String,
    /// Its type, such as `AAAA`.
    pub kind: String,
    /// By which transport it came.
    pub protocol: Protocol,
    /// Who asked.
    pub client: SocketAddr,
}

/// A running DNS server.
#[derive(Debug)]
pub struct Resolver {
    script: Arc<Mutex<Script>>,
    worker: Option<Worker>,
}

#[derive(Debug, Default)]
struct Script {
    answers: HashMap<String, Scripted>,
    queries: Vec<Query>,
}

#[derive(Debug)]
struct Scripted {
    answer: Answer,
    ttl: u32,
    asked: usize,
}

impl Resolver {
    /// Serves port 53, UDP and TCP, on all of a host's addresses.
    ///
    /// # Errors
    /// When it is taken.
    pub fn start(host: &Host) -> Result<Self> {
        let addresses = host.addresses().to_vec();
        let script = Arc::<Mutex<Script>>::default();
        let shared = script.clone();
        let worker = Worker::start(host.netns(), async move || {
            for address in addresses {
                let udp = UdpSocket::bind((address, PORT)).await?;
                let tcp = TcpListener::bind((address, PORT)).await?;
                tokio::spawn(serve_udp(udp, shared.clone()));
                tokio::spawn(serve_tcp(tcp, shared.clone()));
            }
            Ok(())
        })
        .context(|| format!("starting a resolver in {}", host.name()))?;
        Ok(Self {
            script,
            worker: Some(worker),
        })
    }

    /// Scripts a name; `ttl` in seconds.
    pub fn answer(&self, name: &str, ttl: u32, answer: Answer) {
        lock(&self.script).answers.insert(
            canonical(name),
            Scripted {
                answer,
                ttl,
                asked: 0,
            },
        );
    }

    /// Makes a name unknown again.
    pub fn forget(&self, name: &str) {
        lock(&self.script).answers.remove(&canonical(name));
    }

    /// Ends the server: its ports are closed from then on.
    pub fn stop(&mut self) {
        drop(self.worker.take());
    }

    /// All questions so far.
    #[must_use]
    pub fn queries(&self) -> Vec<Query> {
        lock(&self.script).queries.clone()
    }
}

fn lock(script: &Mutex<Script>) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(PoisonError::into_inner)
}

fn canonical(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

async fn serve_udp(socket: UdpSocket, script: Arc<Mutex<Script>>) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let request = buffer.get(..length).unwrap_or_default();
        let response = lock(&script).respond(request, Protocol::Udp, client);
        if let Some(response) = response {
            let _ = socket.send_to(&response, client).await;
        }
    }
}

async fn serve_tcp(listener: TcpListener, script: Arc<Mutex<Script>>) {
    while let Ok((stream, client)) = listener.accept().await {
        let script = script.clone();
        tokio::spawn(async move { answer_stream(stream, client, &script).await });
    }
}

/// RFC 1035 section 4.2.2: every message has its length before it.
async fn answer_stream(
    mut stream: TcpStream,
    client: SocketAddr,
    script: &Mutex<Script>,
) -> io::Result<()> {
    loop {
        let length = stream.read_u16().await?;
        let mut request = vec![0; usize::from(length)];
        stream.read_exact(&mut request).await?;
        let response = lock(script).respond(&request, Protocol::Tcp, client);
        if let Some(response) = response {
            stream.write_all(&framed(&response)?).await?;
        }
    }
}

fn framed(message: &[u8]) -> io::Result<Vec<u8>> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes(), message].concat())
}

impl Script {
    /// The answer to a request; `None` to stay silent.
    fn respond(
        &mut self,
        request: &[u8],
        protocol: Protocol,
        client: SocketAddr,
    ) -> Option<Vec<u8>> {
        let request = Message::from_vec(request).ok()?;
        let question = request.queries.first()?.clone();
        self.queries.push(Query {
            name: canonical(&question.name.to_ascii()),
            kind: question.query_type.to_string(),
            protocol,
            client,
        });
        let mut response = Message::response(request.metadata.id, OpCode::Query);
        response.metadata.recursion_desired = request.metadata.recursion_desired;
        response.metadata.recursion_available = true;
        match self.records(&question.name, question.query_type) {
            Outcome::Records(records) => {
                response.add_answers(records);
            }
            Outcome::Code(code) => response.metadata.response_code = code,
            Outcome::Silence => return None,
        }
        response.add_query(question);
        let bytes = response.to_vec().ok()?;
        // RFC 1035 section 4.2.1, RFC 6891 section 6.2.3
        if protocol == Protocol::Udp && bytes.len() > usize::from(request.max_payload()) {
            return response.truncate().to_vec().ok();
        }
        Some(bytes)
    }

    fn records(&mut self, name: &Name, kind: RecordType) -> Outcome {
        let Some(scripted) = self.answers.get_mut(&canonical(&name.to_ascii())) else {
            return Outcome::Code(ResponseCode::NXDomain);
        };
        let turn = scripted.asked;
        scripted.asked += 1;
        let ttl = scripted.ttl;
        let record = |data| Record::from_rdata(name.clone(), ttl, data);
        let addresses = |addresses: &[IpAddr]| {
            let data = addresses.iter().map(|ip| match ip {
                IpAddr::V4(v4) => RData::A((*v4).into()),
                IpAddr::V6(v6) => RData::AAAA((*v6).into()),
            });
            Outcome::Records(
                data.filter(|data| data.record_type() == kind)
                    .map(record)
                    .collect(),
            )
        };
        match &scripted.answer {
            Answer::Addresses(list) => addresses(list),
            Answer::Rotating(lists) => addresses(
                lists
                    .iter()
                    .cycle()
                    .nth(turn)
                    .map(Vec::as_slice)
                    .unwrap_or_default(),
            ),
            Answer::Alias(target) => {
                let Ok(target) = Name::from_ascii(format!("{target}.")) else {
                    return Outcome::Code(ResponseCode::ServFail);
                };
                let alias = record(RData::CNAME(CNAME(target.clone())));
                match self.records(&target, kind) {
                    Outcome::Records(rest) => {
                        Outcome::Records(std::iter::once(alias).chain(rest).collect())
                    }
                    other => other,
                }
            }
            Answer::Pointer(target) => match Name::from_ascii(format!("{target}.")) {
                Ok(target) if kind == RecordType::PTR => {
                    Outcome::Records(vec![record(RData::PTR(PTR(target)))])
                }
                _ => Outcome::Records(Vec::new()),
            },
            Answer::Failure => Outcome::Code(ResponseCode::ServFail),
            Answer::Silence => Outcome::Silence,
        }
    }
}

enum Outcome {
    Records(Vec<Record>),
    Code(ResponseCode),
    Silence,
}

/// `dig NAME A|AAAA`: the message to send.
pub(crate) fn question(name: &str, family: Family) -> io::Result<Vec<u8>> {
    let kind = match family {
        Family::Ipv4 => RecordType::A,
        Family::Ipv6 => RecordType::AAAA,
    };
    let name = Name::from_ascii(format!("{name}.")).map_err(io::Error::other)?;
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Question::query(name, kind));
    message.to_vec().map_err(io::Error::other)
}

/// The addresses in an answer.
pub(crate) fn addresses(response: &[u8]) -> io::Result<Vec<IpAddr>> {
    let message = Message::from_vec(response).map_err(io::Error::other)?;
    match message.metadata.response_code {
        ResponseCode::NoError => Ok(message
            .answers
            .iter()
            .filter_map(|record| match &record.data {
                RData::A(a) => Some(IpAddr::V4(a.0)),
                RData::AAAA(aaaa) => Some(IpAddr::V6(aaaa.0)),
                _ => None,
            })
            .collect()),
        code => Err(io::Error::other(code.to_string())),
    }
}
