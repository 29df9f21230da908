//! Real servers and real clients on a simulated platform, with tests that tell them step by step
//! what to do, where the swarm of seeds would seldom get.

mod check;
mod coherence;
mod holes;
mod inodes;
mod locks;
mod losses;
mod space;
mod stalls;
mod tails;
mod world;
