//! The netfilter netlink socket: one batch out, its answers back.

use std::io;

use netlink_packet_core::{
    ErrorBuffer, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer,
    NetlinkMessage, ParseableParametrized,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
    nftables::NfTablesMessage, none::ControlMessage,
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt};

/// Subsystem of a batch's frame, `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;

/// Why the kernel's packet rules could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The socket could not be made.
    #[error(
        "netfilter netlink socket: {0}; the kernel needs CONFIG_NF_TABLES, or set EGRESS_FIREWALL=iptables"
    )]
    Open(#[source] io::Error),
    /// Want of privilege.
    #[error(
        "packet rules: {step}: not permitted; the container needs the capability NET_ADMIN (securityContext.capabilities.add)"
    )]
    NotPermitted {
        /// What was being done.
        step: &'static str,
    },
    /// The kernel lacks an expression.
    #[error(
        "packet rules: {step}: {source}; the kernel lacks an nftables feature (needs 5.12 or later with nft_ct, nft_fib_inet, nft_nat and nft_reject_inet), or set EGRESS_FIREWALL=iptables"
    )]
    Unsupported {
        /// What was being done.
        step: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
    /// The batch does not fit the socket's buffer.
    #[error(
        "packet rules: a batch of {bytes} bytes is larger than the send buffer may be; raise net.core.wmem_max on the node to {bytes}, or run the pod without a user namespace"
    )]
    TooLarge {
        /// Bytes of the batch.
        bytes: usize,
    },
    /// Any other refusal.
    #[error("packet rules: {step}: {source}")]
    Refused {
        /// What was being done.
        step: &'static str,
        /// The kernel's word.
        source: io::Error,
    },
    /// An answer that could not be read.
    #[error("packet rules: {step}: answer of the kernel not understood: {reason}")]
    Answer {
        /// What was being done.
        step: &'static str,
        /// Why.
        reason: String,
    },
}

impl NftError {
    /// The kernel's refusal as advice.
    fn refused(step: &'static str, source: io::Error) -> Self {
        match source.raw_os_error().map(nix::errno::Errno::from_raw) {
            Some(nix::errno::Errno::EPERM) => Self::NotPermitted { step },
            Some(nix::errno::Errno::EOPNOTSUPP | nix::errno::Errno::ENOENT)
                if step == "a rule" || step == "a chain" || step == "a set" =>
            {
                Self::Unsupported { step, source }
            }
            _ => Self::Refused { step, source },
        }
    }
}

/// A socket of one network namespace: that of the thread which opened it.
#[derive(Debug)]
pub struct NftSocket {
    socket: Socket,
}

impl NftSocket {
    /// Opens the socket.
    ///
    /// # Errors
    /// When the kernel has no nfnetlink or no socket is to be had.
    pub fn open() -> Result<Self, NftError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok(socket)
        };
        Ok(Self {
            socket: open().map_err(NftError::Open)?,
        })
    }

    /// Sends a batch, which the kernel takes whole or not at all.
    pub(super) fn commit(&mut self, batch: Batch) -> Result<(), NftError> {
        let (bytes, steps) = batch.finish();
        self.grow_send_buffer(bytes.len());
        self.socket.send(&bytes, 0).map_err(|source| {
            match source.raw_os_error().map(nix::errno::Errno::from_raw) {
                Some(nix::errno::Errno::EMSGSIZE | nix::errno::Errno::ENOBUFS) => {
                    NftError::TooLarge { bytes: bytes.len() }
                }
                _ => NftError::refused("sending the batch", source),
            }
        })?;
        // The kernel works the batch off inside send(2): every answer is
        // queued by now. A refusal names its message; success acknowledges the
        // last one.
        let step_of = |sequence: u32| {
            usize::try_from(sequence)
                .ok()
                .and_then(|index| steps.get(index).copied())
                .unwrap_or("the batch")
        };
        let last = u32::try_from(steps.len())
            .unwrap_or(u32::MAX)
            .saturating_sub(2);
        let mut buffer = Vec::new();
        loop {
            self.receive("the batch", &mut buffer)?;
            for message in (Messages {
                rest: &buffer,
                step: "the batch",
            }) {
                let message = message?;
                let sequence = message.sequence_number();
                if message.message_type() != NLMSG_ERROR {
                    continue;
                }
                let step = step_of(sequence);
                if let Some(error) = error_of(step, &message)? {
                    self.drain();
                    return Err(NftError::refused(step, error));
                }
                if sequence == last {
                    return Ok(());
                }
            }
        }
    }

    /// Asks for a dump and hands every answer to `each`.
    pub(super) fn dump(
        &mut self,
        step: &'static str,
        request: &NfTablesMessage,
        mut each: impl FnMut(&NfTablesMessage),
    ) -> Result<(), NftError> {
        self.dump_raw(step, request, |message_type, payload| {
            let message =
                NetfilterMessage::parse_with_param(payload, message_type).map_err(|error| {
                    NftError::Answer {
                        step,
                        reason: error.to_string(),
                    }
                })?;
            if let NetfilterMessageInner::NfTables(message) = message.inner {
                each(&message);
            }
            Ok(())
        })
    }

    /// As [`Self::dump`], with the type and the bytes of each answer (from its
    /// `struct nfgenmsg` on): for long lists.
    pub(super) fn dump_raw(
        &mut self,
        step: &'static str,
        request: &NfTablesMessage,
        each: impl FnMut(u16, &[u8]) -> Result<(), NftError>,
    ) -> Result<(), NftError> {
        let bytes = frame(0, NLM_F_REQUEST | NLM_F_DUMP, request.clone());
        self.exchange(step, &bytes, each)
    }

    /// Sends a request and hands every answer to `each`, until the end of the
    /// dump or the acknowledgement.
    pub(in crate::netlink) fn exchange(
        &mut self,
        step: &'static str,
        request: &[u8],
        mut each: impl FnMut(u16, &[u8]) -> Result<(), NftError>,
    ) -> Result<(), NftError> {
        self.socket
            .send(request, 0)
            .map_err(|source| NftError::refused(step, source))?;
        let mut buffer = Vec::new();
        loop {
            self.receive(step, &mut buffer)?;
            for message in (Messages {
                rest: &buffer,
                step,
            }) {
                let message = message?;
                match message.message_type() {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => {
                        return match error_of(step, &message)? {
                            Some(error) => Err(NftError::refused(step, error)),
                            None => Ok(()),
                        };
                    }
                    message_type => each(message_type, message.payload())?,
                }
            }
        }
    }

    /// One datagram of answers.
    fn receive(&mut self, step: &'static str, buffer: &mut Vec<u8>) -> Result<(), NftError> {
        // The kernel fills a datagram of a dump up to the size of the reader's
        // last buffer, at most 32 KiB (net/netlink/af_netlink.c).
        buffer.clear();
        buffer.reserve(1 << 16);
        let length = self
            .socket
            .recv(buffer, 0)
            .map_err(|source| NftError::refused(step, source))?;
        if length > buffer.len() {
            return Err(NftError::Answer {
                step,
                reason: format!("{length} bytes at once"),
            });
        }
        Ok(())
    }

    /// Throws away what is still queued after a refusal, so that the next
    /// request reads its own answers.
    fn drain(&mut self) {
        let mut scratch = Vec::with_capacity(1 << 16);
        loop {
            scratch.clear();
            match self.socket.recv(&mut scratch, nix::libc::MSG_DONTWAIT) {
                Ok(length) if length > 0 => {}
                _ => return,
            }
        }
    }

    /// A batch is one datagram and must fit the send buffer. The forced option
    /// passes net.core.wmem_max with NET_ADMIN; without it the plain one goes
    /// as far as the node allows, and send(2) says if that was not enough.
    fn grow_send_buffer(&self, bytes: usize) {
        let wanted = bytes + 4096;
        if setsockopt(&self.socket, sockopt::SndBufForce, &wanted).is_err() {
            // send(2) reports what is left of this failure, with its remedy.
            let _ = setsockopt(&self.socket, sockopt::SndBuf, &wanted);
        }
    }
}

/// The messages of a datagram.
struct Messages<'a> {
    rest: &'a [u8],
    step: &'static str,
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<NetlinkBuffer<&'a [u8]>, NftError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let message = NetlinkBuffer::new_checked(self.rest);
        let length = message.as_ref().map_or(self.rest.len(), |message| {
            usize::try_from(message.length())
                .unwrap_or(usize::MAX)
                .next_multiple_of(4)
        });
        self.rest = self.rest.get(length..).unwrap_or_default();
        Some(message.map_err(|error| NftError::Answer {
            step: self.step,
            reason: error.to_string(),
        }))
    }
}

/// The refusal in an `NLMSG_ERROR`; `None` in an acknowledgement.
fn error_of(
    step: &'static str,
    message: &NetlinkBuffer<&[u8]>,
) -> Result<Option<io::Error>, NftError> {
    let error = ErrorBuffer::new_checked(message.payload()).map_err(|error| NftError::Answer {
        step,
        reason: error.to_string(),
    })?;
    Ok(error
        .code()
        .map(|code| io::Error::from_raw_os_error(code.get().abs())))
}

/// Messages on their way to the kernel, with the name of each for errors.
pub(super) struct Batch {
    bytes: Vec<u8>,
    steps: Vec<&'static str>,
    /// Where the flags of the newest message are, to ask for an answer to the
    /// last one.
    last_flags: usize,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self {
            bytes: Vec::new(),
            steps: Vec::new(),
            last_flags: 0,
        };
        batch.control(ControlMessage::BatchBegin);
        batch
    }

    pub(super) fn push(&mut self, step: &'static str, flags: u16, message: NfTablesMessage) {
        // Flags stand 6 bytes into the header (struct nlmsghdr).
        self.last_flags = self.bytes.len() + 6;
        let sequence = self.next_sequence();
        self.bytes
            .extend(frame(sequence, NLM_F_REQUEST | flags, message));
        self.steps.push(step);
    }

    fn finish(mut self) -> (Vec<u8>, Vec<&'static str>) {
        if let Some(flags) = self
            .bytes
            .get_mut(self.last_flags..)
            .and_then(|rest| rest.first_chunk_mut::<2>())
        {
            *flags = (u16::from_ne_bytes(*flags) | NLM_F_ACK).to_ne_bytes();
        }
        self.control(ControlMessage::BatchEnd);
        (self.bytes, self.steps)
    }

    fn control(&mut self, message: ControlMessage) {
        let header = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, NFTABLES);
        let message = NetfilterMessage::new(header, message);
        let sequence = self.next_sequence();
        self.bytes
            .extend(serialize(sequence, NLM_F_REQUEST, message));
        self.steps.push("the batch");
    }

    fn next_sequence(&self) -> u32 {
        u32::try_from(self.steps.len()).unwrap_or(u32::MAX)
    }
}

fn frame(sequence: u32, flags: u16, message: NfTablesMessage) -> Vec<u8> {
    let header = NetfilterHeader::new(NetfilterProtoFamily::Inet, 0, 0);
    serialize(sequence, flags, NetfilterMessage::new(header, message))
}

pub(in crate::netlink) fn serialize(
    sequence: u32,
    flags: u16,
    message: NetfilterMessage,
) -> Vec<u8> {
    let mut message = NetlinkMessage::from(message);
    message.header.sequence_number = sequence;
    message.header.flags = flags;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::errno::Errno;

    fn refused(step: &'static str, errno: Errno) -> String {
        NftError::refused(step, errno.into()).to_string()
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        assert_eq!(
            refused("a rule", Errno::EPERM),
            "packet rules: a rule: not permitted; the container needs the capability NET_ADMIN \
             (securityContext.capabilities.add)"
        );
        assert!(refused("a rule", Errno::ENOENT).contains("the kernel lacks an nftables feature"));
        assert!(refused("a chain", Errno::EOPNOTSUPP).contains("EGRESS_FIREWALL=iptables"));
        assert_eq!(
            refused("elements", Errno::EEXIST),
            "packet rules: elements: File exists (os error 17)"
        );
    }

    #[test]
    fn a_batch_is_framed_and_asks_for_one_answer() {
        let mut batch = Batch::new();
        for _ in 0..2 {
            let message =
                NfTablesMessage::GetTable(netlink_packet_netfilter::nftables::TableMessage {
                    attributes: vec![],
                });
            batch.push("the table", 0, message);
        }
        let (bytes, steps) = batch.finish();
        assert_eq!(steps, ["the batch", "the table", "the table", "the batch"]);
        let messages: Vec<_> = Messages {
            rest: &bytes,
            step: "the batch",
        }
        .map(|message| message.unwrap())
        .map(|message| (message.sequence_number(), message.flags() & NLM_F_ACK != 0))
        .collect();
        assert_eq!(messages, [(0, false), (1, false), (2, true), (3, false)]);
    }

    #[test]
    fn half_an_answer_is_an_error() {
        let (bytes, _) = Batch::new().finish();
        for length in 1..bytes.len() {
            let cut = Messages {
                rest: &bytes[..length],
                step: "the batch",
            };
            let whole = Messages {
                rest: &bytes,
                step: "the batch",
            }
            .take_while(|_| true)
            .filter(Result::is_ok)
            .count();
            assert!(cut.filter(Result::is_ok).count() < whole, "{length} bytes");
        }
    }
}
