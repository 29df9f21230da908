//! A mount as the kernel holds it: requests on their way, answers, notifies, and the caches.
//!
//! The kernel outlives the mount process: it runs on a machine of its own, and when the process is
//! gone every call fails with ENOTCONN.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use ringfs_platform::sim::{FuseEvent, FuseKernel};
use ringfs_platform::{Platform, Signal};
use ringfs_wire::{Errno, InodeNumber};

use super::abi::{self, Message, Opcode};
use super::cache::{Cache, PAGE};

/// Longest that a notify waits for a processor, in some of the cases.
const NOTIFY_DELAYS_MS: [u64; 3] = [0, 2, 20];

/// A call whose mount process is gone.
pub(crate) const NOT_CONNECTED: Errno = Errno(107);

/// How a request ended.
type Answer = Result<Vec<u8>, Errno>;

/// The kernel's side of one mount.
pub(crate) struct Kernel {
    platform: Platform,
    channel: FuseKernel,
    pub(super) cache: RefCell<Cache>,
    /// Requests without an answer, and answers nobody has taken yet.
    calls: RefCell<BTreeMap<u64, Option<Answer>>>,
    last_unique: Cell<u64>,
    /// Both sides have agreed on the protocol; until then every other call waits.
    is_agreed: Cell<bool>,
    is_gone: Cell<bool>,
    /// What the mount did that no mount may do.
    offence: RefCell<Option<String>>,
    /// Something in here changed.
    pub(super) changed: Signal,
}

impl Kernel {
    /// Takes up a new mount: starts listening to it and agrees on the protocol in the background.
    pub(crate) fn start(platform: &Platform, channel: FuseKernel) -> Rc<Self> {
        let kernel = Rc::new(Self {
            platform: platform.clone(),
            channel,
            cache: RefCell::default(),
            calls: RefCell::default(),
            last_unique: Cell::new(0),
            is_agreed: Cell::new(false),
            is_gone: Cell::new(false),
            offence: RefCell::default(),
            changed: Signal::default(),
        });
        let (listening, greeting) = (kernel.clone(), kernel.clone());
        platform.spawn(async move { listening.listen().await });
        platform.spawn(async move {
            let zero = InodeNumber(0);
            if let Ok(reply) = greeting.call(Opcode::Init, zero, &abi::init()).await {
                if let Err(why) = abi::check_init(&reply) {
                    greeting.accuse(why);
                }
                greeting.is_agreed.set(true);
                greeting.changed.notify();
            }
        });
        kernel
    }

    /// What the mount did wrong, if anything.
    pub(crate) fn offence(&self) -> Option<String> {
        self.offence.borrow().clone()
    }

    /// Takes the mount out of the tree.
    pub(crate) fn unmount(&self) {
        self.channel.unmount();
    }

    /// Calls answered without asking the mount.
    pub(crate) fn hits(&self) -> u64 {
        self.cache.borrow().hits
    }

    pub(super) fn accuse(&self, why: String) {
        self.offence.borrow_mut().get_or_insert(why);
    }

    pub(super) fn now(&self) -> Duration {
        self.platform.monotonic()
    }

    /// Sends a request and waits for its answer.
    pub(super) async fn call(
        &self,
        opcode: Opcode,
        node: InodeNumber,
        body: &[u8],
    ) -> Result<Vec<u8>, Errno> {
        let may_begin = || opcode == Opcode::Init || self.is_agreed.get() || self.is_gone.get();
        self.changed.until(|| may_begin().then_some(())).await;
        if self.is_gone.get() {
            return Err(NOT_CONNECTED);
        }
        // Even numbers, as the kernel has it; odd ones are interrupts.
        let unique = self.last_unique.get() + 2;
        self.last_unique.set(unique);
        self.calls.borrow_mut().insert(unique, None);
        self.channel.send(abi::request(opcode, unique, node, body));
        let answer = || match self.calls.borrow().get(&unique) {
            Some(Some(answer)) => Some(answer.clone()),
            _ if self.is_gone.get() => Some(Err(NOT_CONNECTED)),
            _ => None,
        };
        let answer = self.changed.until(answer).await;
        self.calls.borrow_mut().remove(&unique);
        let error = answer.as_ref().err();
        tracing::trace!(unique, ?opcode, %node, ?error, "answered");
        answer
    }

    /// A call whose answer is read by `read`; one that cannot be read is an offence.
    pub(super) async fn ask<T>(
        &self,
        opcode: Opcode,
        node: InodeNumber,
        body: &[u8],
        read: impl FnOnce(&mut abi::Reader<'_>) -> Result<T, String>,
    ) -> Result<T, Errno> {
        let reply = self.call(opcode, node, body).await?;
        read(&mut abi::Reader(&reply)).map_err(|why| {
            self.accuse(format!("answer to {opcode:?}: {why}"));
            Errno::EIO
        })
    }

    async fn listen(self: Rc<Self>) {
        while let Some(event) = self.channel.receive().await {
            match event {
                FuseEvent::Reply(bytes) => match abi::message(&bytes) {
                    Ok(Message::Reply(unique, answer)) => self.take_answer(unique, answer),
                    Ok(other) => self.accuse(format!("a notify as a reply: {other:?}")),
                    Err(why) => self.accuse(why),
                },
                FuseEvent::Notify(bytes, done) => {
                    let kernel = self.clone();
                    self.platform.spawn(async move {
                        kernel.get_round_to_it().await;
                        match abi::message(&bytes) {
                            Ok(message) => kernel.obey(message).await,
                            Err(why) => kernel.accuse(why),
                        }
                        done.complete();
                    });
                }
            }
        }
        self.is_gone.set(true);
        self.changed.notify();
    }

    /// A notify is carried out when its thread gets to run.
    async fn get_round_to_it(&self) {
        let random = self.platform.random_u64();
        let longest = NOTIFY_DELAYS_MS[(random % 3) as usize];
        if longest > 0 {
            self.platform.sleep(Duration::from_micros((random >> 8) % (1_000 * longest))).await;
        }
    }

    fn take_answer(&self, unique: u64, answer: Result<Vec<u8>, Errno>) {
        match self.calls.borrow_mut().get_mut(&unique) {
            Some(place @ None) => *place = Some(answer),
            Some(Some(_)) => self.accuse(format!("two answers to request {unique}")),
            // A caller that died takes no answer.
            None => {}
        }
        self.changed.notify();
    }

    /// Carries out a notify. Pages that are being read or written are waited for.
    async fn obey(&self, message: Message) {
        tracing::trace!(?message, "notify");
        match message {
            Message::IncrementEpoch => self.cache.borrow_mut().increment_epoch(),
            Message::InvalidateInode { inode, offset, len } => {
                self.cache.borrow_mut().revoke_attr(inode);
                if offset >= 0 {
                    let end = match len {
                        len if len <= 0 => u64::MAX,
                        len => (offset + len) as u64,
                    };
                    self.drop_idle_pages(inode, offset as u64 / PAGE..end.div_ceil(PAGE)).await;
                }
            }
            Message::Reply(..) => self.accuse(String::from("a reply as a notify")),
        }
        self.changed.notify();
    }

    pub(super) async fn drop_idle_pages(&self, inode: InodeNumber, pages: Range<u64>) {
        let are_idle = || self.cache.borrow_mut().are_idle(inode, &pages).then_some(());
        self.changed.until(are_idle).await;
        self.cache.borrow_mut().drop_pages(inode, pages);
    }
}
