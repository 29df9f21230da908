//! The handshake that opens a connection: Hello, Challenge, Proof, Welcome.
//!
//! The server proves first that it knows the cluster key, then the client; the Welcome comes from
//! the shard of the target. Before the Proof was checked, nothing that the other
//! end sends reaches anybody, and it learns no more than why it is turned away. Nothing here
//! retries.

use std::io;
use std::time::Duration;

use ringfs_platform::{Frame, Handoff, Link, LinkReceiver, LinkSender, Platform};
use ringfs_wire::{
    Challenge, ClusterId, Epoch, FrameHeader, HELLO_OPCODE, Hello, NO_SLOT, Proof, SessionId,
    Status, TargetId, Welcome, Wire,
};

use crate::framing::OTHER_VERSION;
use crate::{Identity, Refusal};

/// How long a new connection may take to prove itself.
pub const GREETING_DEADLINE: Duration = Duration::from_secs(5);

/// A connection whose other end has proved that it knows the cluster key. Moves to the shard of
/// its target, where [`crate::Connections::serve`] takes it.
pub struct Greeted {
    /// What the other end said.
    pub hello: Hello,
    /// The target it wants; one of those offered.
    pub target: TargetId,
    pub(crate) cluster: ClusterId,
    pub(crate) handoff: Handoff,
}

/// A connection that was turned away; its text makes one log line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("connection from {peer} turned away: {reason}")]
pub struct Rejection {
    /// Where it came from.
    pub peer: String,
    /// Why.
    pub reason: RejectionReason,
}

/// Why a connection was turned away.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectionReason {
    /// The other end and we do not belong together.
    #[error("{0}")]
    Refused(Refusal),
    /// It did not finish the handshake within [`GREETING_DEADLINE`].
    #[error("the handshake took too long")]
    TooSlow,
    /// What it sent is no handshake, or it left.
    #[error("{0}")]
    Broken(String),
}

impl From<io::Error> for RejectionReason {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

/// Receives a new connection on the door's shard: checks protocol version, cluster, target and
/// key. The caller logs a [`Rejection`] as one warning; the connection is closed by then.
pub async fn greet(
    platform: &Platform,
    link: Link,
    identity: &Identity,
    targets: &[TargetId],
) -> Result<Greeted, Rejection> {
    let peer = link.peer();
    let (mut sender, mut receiver) = link.split();
    let exchange = receive_hello(platform, &mut sender, &mut receiver, identity, targets);
    let result = match platform.timeout(GREETING_DEADLINE, exchange).await {
        Some(result) => result,
        None => Err(RejectionReason::TooSlow),
    };
    match result {
        Ok(hello) => {
            let handoff = Link::reunite(sender, receiver).into_handoff();
            Ok(Greeted { target: hello.target, hello, cluster: identity.cluster, handoff })
        }
        Err(reason) => {
            if let RejectionReason::Refused(refusal) = reason {
                let frame = reply(identity.cluster, TargetId(0), refusal.status(), &[]);
                // Politeness only: whoever does not take it goes without.
                let _ = platform.timeout(GREETING_DEADLINE, sender.send(vec![frame])).await;
            }
            sender.close();
            Err(Rejection { peer, reason })
        }
    }
}

async fn receive_hello(
    platform: &Platform,
    sender: &mut LinkSender,
    receiver: &mut LinkReceiver,
    identity: &Identity,
    targets: &[TargetId],
) -> Result<Hello, RejectionReason> {
    let frame = match receiver.receive().await {
        Err(error) if is_other_version(&error) => {
            return Err(RejectionReason::Refused(Refusal::Version));
        }
        result => result?,
    };
    let malformed = RejectionReason::Refused(Refusal::Malformed);
    let (header, hello) = open::<Hello>(&frame)?;
    if header.reply || header.session != hello.session || header.target != hello.target {
        return Err(malformed);
    }
    if header.cluster != identity.cluster {
        return Err(RejectionReason::Refused(Refusal::Cluster));
    }
    if !targets.contains(&hello.target) {
        return Err(RejectionReason::Refused(Refusal::Target));
    }
    let nonce = random_nonce(platform);
    let challenge = Challenge { nonce, proof: identity.key.server_proof(&hello, &nonce) };
    let status = None;
    sender.send(vec![reply(identity.cluster, hello.target, status, &challenge.to_bytes())]).await?;
    let (header, proof) = open::<Proof>(&receiver.receive().await?)?;
    if header.reply || header.session != hello.session {
        return Err(malformed);
    }
    if !identity.key.is_client(&hello, &nonce, &proof.proof) {
        return Err(RejectionReason::Refused(Refusal::Key));
    }
    Ok(hello)
}

/// Why a handshake did not lead to a welcome.
#[derive(Debug)]
pub(crate) enum Unwelcome {
    /// It never will.
    Refused(Refusal),
    /// The target's own answer.
    Status(Status),
    /// The connection failed; another may succeed.
    Broken(String),
}

impl From<io::Error> for Unwelcome {
    fn from(error: io::Error) -> Self {
        if is_other_version(&error) {
            Self::Refused(Refusal::Version)
        } else {
            Self::Broken(error.to_string())
        }
    }
}

/// Opens a fresh link to `target`, up to and including its welcome.
pub(crate) async fn introduce(
    platform: &Platform,
    sender: &mut LinkSender,
    receiver: &mut LinkReceiver,
    identity: &Identity,
    target: TargetId,
    fresh: bool,
) -> Result<Welcome, Unwelcome> {
    let nonce = random_nonce(platform);
    let hello = Hello { target, session: identity.session, holder: identity.holder, fresh, nonce };
    let header = greeting(identity.cluster, identity.session, target);
    sender.send(vec![frame(&header, &hello.to_bytes())]).await?;

    let answer = receiver.receive().await?;
    if let Some(status) = refusal(&answer)? {
        return Err(Unwelcome::Refused(Refusal::from_status(status)));
    }
    let (header_received, challenge) =
        open::<Challenge>(&answer).map_err(|_| Unwelcome::Refused(Refusal::Malformed))?;
    if header_received.cluster != identity.cluster {
        return Err(Unwelcome::Refused(Refusal::Cluster));
    }
    let known = identity.key.is_server(&hello, &challenge.nonce, &challenge.proof);
    // Sent even to a server without our key, which then can log why nobody came in.
    let proof = Proof { proof: identity.key.client_proof(&hello, &challenge.nonce) };
    sender.send(vec![frame(&header, &proof.to_bytes())]).await?;
    if !known {
        return Err(Unwelcome::Refused(Refusal::Key));
    }

    let answer = receiver.receive().await?;
    match refusal(&answer)? {
        None => match open::<Welcome>(&answer) {
            Ok((_, welcome)) => Ok(welcome),
            Err(_) => Err(Unwelcome::Refused(Refusal::Malformed)),
        },
        Some(status) if status == Refusal::Key.status() => Err(Unwelcome::Refused(Refusal::Key)),
        Some(status) => Err(Unwelcome::Status(status)),
    }
}

/// The reply that opens or refuses a connection.
pub(crate) fn welcome(
    cluster: ClusterId,
    target: TargetId,
    admitted: Result<Welcome, Status>,
) -> Frame {
    match admitted {
        Ok(welcome) => reply(cluster, target, None, &welcome.to_bytes()),
        Err(status) => reply(cluster, target, status, &[]),
    }
}

/// The status of a reply in the handshake, if it is a failure.
fn refusal(frame: &Frame) -> Result<Option<Status>, Unwelcome> {
    match FrameHeader::parse(&frame.head) {
        Ok((header, _, _)) if header.reply && header.opcode == HELLO_OPCODE => {
            Ok((header.status != 0).then(|| Status::from_code(header.status)))
        }
        Ok(_) => Err(Unwelcome::Refused(Refusal::Malformed)),
        Err(error) => Err(Unwelcome::Broken(error.to_string())),
    }
}

/// Header and message of a handshake frame.
fn open<T: Wire>(frame: &Frame) -> Result<(FrameHeader, T), RejectionReason> {
    let (header, body, bulk) = FrameHeader::parse(&frame.head)
        .map_err(|error| RejectionReason::Broken(error.to_string()))?;
    match T::from_bytes(body) {
        Ok(message) if header.opcode == HELLO_OPCODE && bulk == 0 => Ok((header, message)),
        _ => Err(RejectionReason::Refused(Refusal::Malformed)),
    }
}

fn is_other_version(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::InvalidData && error.to_string() == OTHER_VERSION
}

fn random_nonce(platform: &Platform) -> [u64; 4] {
    let mut bytes = [0; 32];
    platform.random_bytes(&mut bytes);
    <[u64; 4]>::from_bytes(&bytes).expect("a nonce has 32 bytes")
}

/// The header of a handshake frame from the side that connects.
fn greeting(cluster: ClusterId, session: SessionId, target: TargetId) -> FrameHeader {
    FrameHeader {
        opcode: HELLO_OPCODE,
        cluster,
        epoch: Epoch::default(),
        session,
        request: 0,
        sequence: 0,
        slot: NO_SLOT,
        reply: false,
        target,
        status: 0,
    }
}

fn reply(
    cluster: ClusterId,
    target: TargetId,
    status: impl Into<Option<Status>>,
    body: &[u8],
) -> Frame {
    let status = status.into().map_or(0, Status::code);
    let header = greeting(cluster, SessionId::default(), target);
    frame(&FrameHeader { reply: true, status, ..header }, body)
}

fn frame(header: &FrameHeader, body: &[u8]) -> Frame {
    Frame { head: header.frame(body, 0), bulk: None }
}
