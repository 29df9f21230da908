//! One thread of the mount: takes requests, has them carried out, and answers.
//!
//! A request is answered at once if it need not wait, and otherwise goes on as a task of its own, so
//! that it stops no other; the kernel bounds how many there are. Invariant: every request that wants an answer gets exactly one, also when
//! its handler fails in a way it should not.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, join_all, select};
use ringfs_client::{Client, OpenFile, OpenMode, SpaceUsage};
use ringfs_platform::fuse::{FuseChannel, FuseNotifier};
use ringfs_platform::{Buffer, MailboxReceiver, MailboxSender, Platform, Slice};
use ringfs_wire::{Errno, InodeNumber};

use crate::abi::{self, Abi, InHeader, Operation, Reply, Request};
use crate::connection::{Agreement, REQUEST_LEN_MAX};
use crate::failure::Failure;
use crate::gate::Gate;
use crate::handles::Handles;
use crate::interrupts::Waits;
use crate::kernel_cache::{Answer, LastSeen, LeaseNumbers};
use crate::revocation::{Promises, note_failure};

/// Requests up to this length are moved out of their large receive buffer.
const SMALL_REQUEST_MAX: usize = 8 << 10;

/// How long a worker that ends waits for the servers to close its session.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// What one worker tells another.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Message {
    /// A handle that you hold state for was closed.
    Closed(u64),
}

/// What all workers of a mount share.
#[derive(Debug)]
pub(crate) struct MountState {
    pub(crate) agreement: Agreement,
    /// Whether anything is cached.
    pub(crate) caching: bool,
    pub(crate) handles: Handles,
    pub(crate) gate: Gate,
    pub(crate) pages: LeaseNumbers,
    /// Leases since which only this mount has changed a file: the kernel knows its size.
    pub(crate) settled: LeaseNumbers,
    pub(crate) seen: LastSeen,
    pub(crate) promises: Promises,
    pub(crate) waits: Waits,
    /// Space of the cluster, and when that was.
    pub(crate) space: Mutex<Option<(Duration, SpaceUsage)>>,
    workers: Vec<MailboxSender<Message>>,
}

impl MountState {
    pub(crate) fn new(
        agreement: Agreement,
        caching: bool,
        workers: Vec<MailboxSender<Message>>,
    ) -> Self {
        Self {
            agreement,
            caching,
            handles: Handles::default(),
            gate: Gate::default(),
            pages: LeaseNumbers::default(),
            settled: LeaseNumbers::default(),
            seen: LastSeen::default(),
            promises: Promises::default(),
            waits: Waits::default(),
            space: Mutex::default(),
            workers,
        }
    }

    /// Ends all workers, whatever is still open.
    pub(crate) fn stop(&self) {
        self.workers.iter().for_each(MailboxSender::close);
    }
}

/// One worker.
pub(crate) struct Worker {
    pub(crate) platform: Platform,
    pub(crate) client: Client,
    pub(crate) mount: Arc<MountState>,
    pub(crate) index: usize,
    channel: FuseChannel,
    notifier: FuseNotifier,
    /// What this worker holds of open handles.
    files: RefCell<BTreeMap<u64, OpenFile>>,
}

impl Worker {
    pub(crate) fn new(
        platform: &Platform,
        client: Client,
        channel: FuseChannel,
        notifier: FuseNotifier,
        mount: Arc<MountState>,
        index: usize,
    ) -> Self {
        let (platform, files) = (platform.clone(), RefCell::default());
        Self { platform, client, mount, index, channel, notifier, files }
    }

    /// Serves until the mount ends, or somebody ends the workers; then closes the session.
    pub(crate) async fn run(
        self: Rc<Self>,
        messages: MailboxReceiver<Message>,
    ) -> Result<(), io::Error> {
        let result = {
            let requests = pin!(self.clone().receive_requests());
            let messages = pin!(self.receive_messages(messages));
            match select(requests, messages).await {
                Either::Left((result, _)) => result,
                Either::Right(((), _)) => Ok(()),
            }
        };
        self.files.borrow_mut().clear();
        let closing = self.client.clone().close();
        match self.platform.timeout(CLOSE_PATIENCE, closing).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::warn!(%error, "the session is left to expire"),
            None => tracing::warn!("the servers do not answer; the session is left to expire"),
        }
        result
    }

    async fn receive_requests(self: Rc<Self>) -> Result<(), io::Error> {
        while let Some(buffer) = self.channel.receive(REQUEST_LEN_MAX).await? {
            let bytes = if buffer.len() <= SMALL_REQUEST_MAX {
                Buffer::from_slice(&buffer).freeze()
            } else {
                buffer.freeze()
            };
            let worker = self.clone();
            let mut serving = Box::pin(async move { worker.serve(bytes).await });
            if (&mut serving).now_or_never().is_none() {
                self.platform.spawn(serving);
            }
        }
        Ok(())
    }

    async fn receive_messages(&self, messages: MailboxReceiver<Message>) {
        while let Some(Message::Closed(handle)) = messages.receive().await {
            self.files.borrow_mut().remove(&handle);
        }
    }

    /// Carries one request out and answers it.
    async fn serve(&self, bytes: Slice) {
        let request = match Request::decode(&bytes) {
            Ok(request) => request,
            Err(_) => {
                let header = InHeader::get(&mut &bytes[..]).unwrap_or_default();
                tracing::error!(opcode = header.opcode, "the kernel sent a malformed request");
                return self.reply(Reply::refusal(header.unique, Errno::EIO), Vec::new()).await;
            }
        };
        let header = request.header;
        tracing::trace!(unique = header.unique, node = header.node, operation = ?request.operation);
        if !request.operation.wants_reply() {
            if let Operation::Interrupt { unique } = request.operation {
                self.interrupt(unique);
            }
            return;
        }
        // Files opened under a session that expired are stale; everything else goes on.
        self.client.renew_expired_session();
        let moment = self.mount.gate.now();
        let work = AssertUnwindSafe(self.perform(&request, &bytes)).catch_unwind().await;
        let outcome = work.unwrap_or_else(|_| {
            tracing::error!(opcode = header.opcode, "a request ended by a panic");
            Err(Failure(Errno::EIO))
        });
        match outcome {
            Ok(answer) => self.answer(header.unique, moment, answer).await,
            Err(Failure(errno)) => {
                self.reply(Reply::refusal(header.unique, errno), Vec::new()).await;
            }
        }
    }

    /// Writes an answer; what it promises is decided at the last moment.
    async fn answer(&self, unique: u64, moment: crate::gate::Moment, answer: Answer) {
        let unleased = answer.unleased_pages();
        let passage = answer.promises().then(|| self.mount.gate.pass());
        let reply = self.reply_of(answer, moment, passage.as_ref());
        let (head, bulk) = reply.finish(unique);
        self.reply(head, bulk).await;
        drop(passage);
        if let Some(inode) = unleased {
            let dropping =
                self.notifier.notify_waiting(abi::notify_invalidate_inode(inode.0, true));
            note_failure(dropping.await);
        }
    }

    /// Has the kernel ask for the attributes of an inode again: after changes that it did not ask
    /// for. Must not be awaited by what holds up pages.
    pub(crate) async fn drop_attributes(&self, inode: InodeNumber) {
        note_failure(self.notifier.notify(abi::notify_invalidate_inode(inode.0, false)).await);
    }

    async fn reply(&self, head: Vec<u8>, bulk: Vec<Slice>) {
        if let Err(error) = self.channel.reply(head, bulk).await {
            tracing::error!(%error, "the kernel refused an answer");
        }
    }

    /// This worker's view of an open file.
    pub(crate) async fn file(&self, handle: u64) -> Result<OpenFile, Failure> {
        if let Some(file) = self.files.borrow().get(&handle) {
            return Ok(file.clone());
        }
        let known = self.mount.handles.get(handle).ok_or(Errno::EBADF)?;
        let file = self.client.attach(&known.attributes, OpenMode::READ_WRITE, &known.told)?;
        self.files.borrow_mut().insert(handle, file.clone());
        if !self.mount.handles.join(handle, self.index) {
            self.files.borrow_mut().remove(&handle);
        }
        Ok(file)
    }

    /// Enters a file that this worker has opened.
    pub(crate) fn enter(&self, file: OpenFile, writes: bool) -> u64 {
        let told = file.told_losses().clone();
        let handle = self.mount.handles.open(file.attributes(), told, self.index, writes);
        self.files.borrow_mut().insert(handle, file);
        handle
    }

    /// Closes a handle, here and at the other workers that hold state for it.
    pub(crate) async fn close(&self, handle: u64) {
        let workers = self.mount.handles.close(handle);
        self.files.borrow_mut().remove(&handle);
        let others = workers.into_iter().filter(|worker| *worker != self.index);
        join_all(others.map(|worker| async move {
            if let Some(sender) = self.mount.workers.get(worker) {
                // A worker that has ended holds nothing.
                let _ = sender.send(Message::Closed(handle)).await;
            }
        }))
        .await;
    }
}
