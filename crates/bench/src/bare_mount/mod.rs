//! The bare mount: the limit of what any file system in user space reaches through the kernel.
//!
//! A process that answers the kernel's FUSE requests from memory. It agrees with the kernel on the
//! same abilities as a mount of RingFS, has as many threads, and has the same files bypass the page
//! cache, so that the kernel does the same work; names and attributes stay valid for as long as
//! anybody wants. Each thread fetches a request, answers it and fetches the next, with one system
//! call each. Large writes are kept where they were received. Deliberately absent: times, links,
//! locks, and everything else that the workloads do not use.

mod protocol;
mod tree;

use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::sync::Arc;

use ringfs_fuse::{MountError, REQUEST_DATA_MAX, REQUEST_LEN_MAX};
use ringfs_platform::fuse::{BlockingFuseChannel, FuseMount, MountRequest};
use ringfs_platform::{Buffer, Platform, RuntimeOptions};
use serde::{Deserialize, Serialize};

use crate::cluster::mount_workers;
use crate::error::{BenchError, Context};
use crate::process::Parent;
use protocol::{Errno, Reply, Request, opcode};
use tree::{Extent, Node, Tree};

/// Data of writes from this length on are not moved out of the buffer they came in.
const KEPT_DATA_MIN: usize = REQUEST_DATA_MAX as usize / 2;
/// What the kernel may hold as many answers of as it wants: seconds that names and attributes
/// are valid.
const VALID_SECONDS: u64 = 3_600;
/// Most pieces of a file in one answer, as the kernel takes them beside the header.
const PIECES_MAX: usize = 1_000;

/// The bare mount as a process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct BareMountTask {
    pub(crate) directory: PathBuf,
}

impl BareMountTask {
    pub(crate) fn run(self, parent: &Parent) -> Result<(), BenchError> {
        ringfs_platform::fuse::become_io_flusher();
        let run = ringfs_platform::run(RuntimeOptions::default(), |platform| async move {
            let request = MountRequest {
                directory: self.directory,
                source: "ringfs-bench".to_owned(),
                allow_other: false,
                read_only: false,
                max_read: REQUEST_DATA_MAX,
            };
            let mount = platform.mount_fuse(&request).await.map_err(MountError::from)?;
            let result = start(&platform, &mount).await;
            if result.is_ok() {
                parent.ready(Vec::new())?;
                while parent.next().await.is_some() {}
            }
            mount.unmount().await.map_err(MountError::from)?;
            result
        });
        run.context("start a runtime")?
    }
}

/// Starts the threads; they end with the mount.
async fn start(platform: &Platform, mount: &FuseMount) -> Result<(), BenchError> {
    let action = "serve the bare mount";
    let first = mount.first().and_then(|first| first.adopt(platform)).context(action)?;
    ringfs_fuse::agree(&first).await?;
    let tree = Arc::new(Tree::new());
    for _ in 0..mount_workers() {
        let channel = mount.handoff().and_then(|handoff| handoff.block()).context(action)?;
        let tree = tree.clone();
        std::thread::spawn(move || {
            if let Err(error) = serve(&channel, &tree) {
                eprintln!("ringfs: the bare mount: {error}");
            }
        });
    }
    Ok(())
}

/// Answers requests until the mount is gone.
fn serve(channel: &BlockingFuseChannel, tree: &Tree) -> io::Result<()> {
    let mut buffer = Buffer::with_capacity(REQUEST_LEN_MAX);
    let mut reply = Reply::new();
    loop {
        buffer.set_len(REQUEST_LEN_MAX);
        let Some(len) = channel.receive(&mut buffer)? else { return Ok(()) };
        buffer.set_len(len);
        let Some(request) = Request::parse(&buffer) else { continue };
        let (unique, node) = (request.unique, request.node);
        reply.clear();
        let result = match request.opcode {
            opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT => {
                forget(tree, &request);
                continue;
            }
            opcode::READ => match read(tree, &request) {
                Ok(extents) => {
                    reply_with(channel, &mut reply, unique, &extents)?;
                    continue;
                }
                Err(errno) => Err(errno),
            },
            opcode::WRITE => {
                let (offset, data) = (request.u64(8), request.data(40, request.u32(16)));
                let size = data.len();
                let extent = if size < KEPT_DATA_MIN {
                    Extent::from(&buffer[data])
                } else {
                    let fresh = Buffer::with_capacity(REQUEST_LEN_MAX);
                    Extent::new(std::mem::replace(&mut buffer, fresh), data)
                };
                tree.file(node).map(|file| {
                    file.write().put(offset, extent);
                    reply.u32(size as u32).u32(0);
                })
            }
            _ => perform(tree, &request, &mut reply),
        };
        channel.reply(&[IoSlice::new(reply.finish(unique, result, 0))])?;
    }
}

fn reply_with(
    channel: &BlockingFuseChannel,
    reply: &mut Reply,
    unique: u64,
    extents: &[Extent],
) -> io::Result<()> {
    let joined: Vec<u8>;
    let mut pieces: Vec<&[u8]> = extents.iter().map(Extent::bytes).collect();
    if pieces.len() > PIECES_MAX {
        joined = pieces.concat();
        pieces = vec![&joined];
    }
    let bulk = pieces.iter().map(|piece| piece.len()).sum();
    let head = reply.finish(unique, Ok(()), bulk);
    let all: Vec<IoSlice<'_>> = std::iter::once(head).chain(pieces).map(IoSlice::new).collect();
    channel.reply(&all)
}

fn read(tree: &Tree, request: &Request<'_>) -> Result<Vec<Extent>, Errno> {
    let (offset, len) = (request.u64(8), u64::from(request.u32(16)));
    Ok(tree.file(request.node)?.read().get(offset, len))
}

fn forget(tree: &Tree, request: &Request<'_>) {
    match request.opcode {
        opcode::FORGET => tree.forget(request.node, request.u64(0)),
        opcode::BATCH_FORGET => {
            for index in 0..request.u32(0) as usize {
                let at = 8 + 16 * index;
                tree.forget(request.u64(at), request.u64(at + 8));
            }
        }
        _ => {}
    }
}

/// Carries out what neither reads nor writes.
fn perform(tree: &Tree, request: &Request<'_>, reply: &mut Reply) -> Result<(), Errno> {
    let node = request.node;
    match request.opcode {
        opcode::LOOKUP => put_entry(reply, &*tree.look_up(node, request.name(0))?),
        opcode::GETATTR => put_attributes(reply, &*tree.node(node)?),
        opcode::SETATTR => {
            let found = tree.node(node)?;
            if request.u32(0) & protocol::SET_SIZE != 0 {
                tree.file(node)?.write().cut(request.u64(16));
            }
            put_attributes(reply, &found);
        }
        opcode::MKDIR => {
            let made = tree.make(node, request, request.u32(0), request.name(8))?;
            put_entry(reply, &made);
        }
        opcode::CREATE => {
            let made = tree.make(node, request, request.u32(4), request.name(16))?;
            put_entry(reply, &made);
            put_open(reply, request.u32(0));
        }
        opcode::OPEN => put_open(reply, request.u32(0)),
        opcode::OPENDIR => {
            reply.u64(0).u64(0);
        }
        opcode::UNLINK | opcode::RMDIR => tree.remove(node, request.name(0))?,
        opcode::READDIR | opcode::READDIRPLUS => list(tree, request, reply)?,
        opcode::STATFS => protocol::put_space(reply),
        opcode::FLUSH
        | opcode::RELEASE
        | opcode::FSYNC
        | opcode::RELEASEDIR
        | opcode::FSYNCDIR
        | opcode::DESTROY => {}
        // No file has access lists; without an answer the kernel would stop asking.
        opcode::GETXATTR => return Err(Errno::NO_DATA),
        _ => return Err(Errno::NO_SYSTEM_CALL),
    }
    Ok(())
}

/// Lists part of a directory.
fn list(tree: &Tree, request: &Request<'_>, reply: &mut Reply) -> Result<(), Errno> {
    let (after, size) = (request.u64(8), request.u32(16) as usize);
    let plus = request.opcode == opcode::READDIRPLUS;
    let attributes_len = if plus { protocol::ENTRY_LEN } else { 0 };
    tree.list(request.node, after, |name, node| {
        let len = attributes_len + protocol::listed_len(name);
        if reply.body_len() + len > size {
            return false;
        }
        if plus {
            put_entry(reply, node);
        }
        reply.listed(node.number(), node.mode(), name);
        true
    })
}

fn put_entry(reply: &mut Reply, node: &Node) {
    node.note_lookup();
    // Number, generation, validity of the name and of the attributes.
    reply.u64(node.number()).u64(0).u64(VALID_SECONDS).u64(VALID_SECONDS).u32(0).u32(0);
    put_node(reply, node);
}

fn put_attributes(reply: &mut Reply, node: &Node) {
    reply.u64(VALID_SECONDS).u32(0).u32(0);
    put_node(reply, node);
}

fn put_node(reply: &mut Reply, node: &Node) {
    let (uid, gid) = node.owner();
    reply.attributes(node.number(), node.size(), node.mode(), uid, gid);
}

/// As a mount of RingFS does: only what is opened for reading alone goes through the page cache.
fn put_open(reply: &mut Reply, flags: u32) {
    let reads_only = flags & (protocol::ACCESS_MODE | protocol::APPEND | protocol::DIRECT) == 0;
    let flags = if reads_only {
        protocol::KEEP_CACHE
    } else {
        protocol::DIRECT_IO | protocol::PARALLEL_DIRECT_WRITES
    };
    reply.u64(0).u32(flags).u32(0);
}
