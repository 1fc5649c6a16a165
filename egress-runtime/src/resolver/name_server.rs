//! One name server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::tcp::TcpClientStream;
use hickory_resolver::net::udp::UdpClientStream;
use hickory_resolver::net::xfer::{DnsHandle, DnsRequestSender, FirstAnswer};
use hickory_resolver::proto::op::{
    DnsRequest, DnsRequestOptions, DnsResponse, Query, ResponseCode,
};
use tokio::time::Instant;

use super::answer::Answer;
use super::error::LookupError;

/// A datagram may be lost: it is sent again after this long, from another
/// port.
const RESEND: Duration = Duration::from_millis(400);
/// How often a question is sent at most.
const SENDS: u8 = 4;
/// After so many questions in a row without answer a server counts as silent.
const SILENT_AFTER: u32 = 3;
/// How long it then is asked last.
const SILENT_FOR: Duration = Duration::from_secs(30);

/// A name server, and whether it has answered lately.
pub(super) struct NameServer {
    address: SocketAddr,
    provider: TokioRuntimeProvider,
    /// It does not know EDNS (RFC 6891 section 6.2.2).
    plain: AtomicBool,
    silence: Mutex<Silence>,
}

struct Silence {
    unanswered: u32,
    last: Instant,
}

impl NameServer {
    pub(super) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            provider: TokioRuntimeProvider::new(),
            plain: AtomicBool::new(false),
            silence: Mutex::new(Silence {
                unanswered: 0,
                last: Instant::now(),
            }),
        }
    }

    /// It said something.
    pub(super) fn heard(&self) {
        self.with_silence(|silence| silence.unanswered = 0);
    }

    /// It said nothing while it could have.
    pub(super) fn missed(&self) {
        self.with_silence(|silence| {
            silence.unanswered = silence.unanswered.saturating_add(1);
            silence.last = Instant::now();
        });
    }

    /// Whether to ask it last. After [`SILENT_FOR`] it gets one more chance.
    pub(super) fn is_silent(&self) -> bool {
        self.with_silence(|silence| {
            silence.unanswered >= SILENT_AFTER && silence.last.elapsed() < SILENT_FOR
        })
    }

    fn with_silence<T>(&self, act: impl FnOnce(&mut Silence) -> T) -> T {
        act(&mut self.silence.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Asks by UDP, by TCP where the answer does not fit, with EDNS where the
    /// server knows it.
    pub(super) async fn ask(
        &self,
        question: &Query,
        deadline: Instant,
    ) -> Result<Answer, LookupError> {
        let mut response = self.ask_by_udp(question, deadline).await?;
        let refused_edns = matches!(
            response.metadata.response_code,
            ResponseCode::FormErr | ResponseCode::NotImp | ResponseCode::BADVERS
        );
        if refused_edns && !self.plain.swap(true, Ordering::Relaxed) {
            response = self.ask_by_udp(question, deadline).await?;
        }
        if response.metadata.truncation {
            response = self.ask_by_tcp(question, deadline).await?;
        }
        Answer::read(&response, question)
    }

    async fn ask_by_udp(
        &self,
        question: &Query,
        deadline: Instant,
    ) -> Result<DnsResponse, LookupError> {
        let mut client = UdpClientStream::builder(self.address, self.provider.clone())
            .with_timeout(Some(until(deadline)))
            .with_max_retries(SENDS)
            .build();
        let response = client.send_message(self.request(question));
        response.first_answer().await.map_err(of_exchange)
    }

    async fn ask_by_tcp(
        &self,
        question: &Query,
        deadline: Instant,
    ) -> Result<DnsResponse, LookupError> {
        let provider = self.provider.clone();
        let client = TcpClientStream::exchange(self.address, None, until(deadline), None, provider)
            .await
            .map_err(of_exchange)?;
        let response = client.send(self.request(question));
        response.first_answer().await.map_err(of_exchange)
    }

    fn request(&self, question: &Query) -> DnsRequest {
        let mut options = DnsRequestOptions::default();
        options.use_edns = !self.plain.load(Ordering::Relaxed);
        options.retry_interval = RESEND;
        DnsRequest::from_query(question.clone(), options)
    }
}

fn until(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "used as a function of map_err"
)]
fn of_exchange(error: NetError) -> LookupError {
    LookupError::of_exchange(&error)
}
