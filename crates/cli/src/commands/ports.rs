//! Free ports for nodes.
//!
//! They are taken from below the kernel's ephemeral range: a port out of that range could be
//! given to any outgoing connection while its node is down, even to one towards that very port.

use std::net::{IpAddr, SocketAddr, TcpListener};

use ringfs_platform::{Address, Platform};

use crate::error::{CliError, plain};

/// Lowest port tried; below it live well-known services.
const PORT_MIN: u16 = 10_240;
/// Where the ephemeral range begins if the kernel does not say.
const EPHEMERAL_DEFAULT: u16 = 32_768;
/// Ports tried per node before giving up.
const TRIES_MAX: u32 = 1000;

/// Finds a free port for each of `count` nodes.
pub(crate) fn choose(
    platform: &Platform,
    ip: IpAddr,
    count: u32,
) -> Result<Vec<Address>, CliError> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let end = ephemeral_start(&text.unwrap_or_default());
    // Held open until all are chosen, so that no port is chosen twice.
    let mut listeners = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..count {
        let mut tries = (0..TRIES_MAX).map(|_| {
            let offset = platform.random_u64() % u64::from(end - PORT_MIN);
            let address = SocketAddr::from((ip, PORT_MIN + offset as u16));
            TcpListener::bind(address).map(|listener| (listener, address))
        });
        let refusal = |why: &str| {
            CliError::failed(format!("cannot listen on {ip}: {why}; give --listen IP:PORT"))
        };
        let last = tries.next().expect("there are tries");
        // An address that is not this machine's refuses every port: the first answer tells.
        let in_use = |error: &std::io::Error| error.kind() == std::io::ErrorKind::AddrInUse;
        let found = match last {
            Err(error) if !in_use(&error) => return Err(refusal(&plain(&error))),
            Err(_) => tries.find_map(Result::ok).ok_or_else(|| refusal("no free port found"))?,
            Ok(found) => found,
        };
        listeners.push(found.0);
        addresses.push(Address::Tcp(found.1));
    }
    Ok(addresses)
}

/// Whether a node could listen at `address`; else why not.
pub(crate) fn check_free(address: &Address) -> Result<(), std::io::Error> {
    match address {
        Address::Tcp(address) => TcpListener::bind(address).map(drop),
        Address::Unix(_) => Ok(()),
    }
}

/// The first port of the kernel's ephemeral range, if that leaves room below it.
fn ephemeral_start(text: &str) -> u16 {
    let first = text.split_whitespace().next().and_then(|word| word.parse().ok());
    first.filter(|first| *first > PORT_MIN + 1000).unwrap_or(EPHEMERAL_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ephemeral_range_is_avoided() {
        assert_eq!(ephemeral_start("32768\t60999\n"), 32_768);
        assert_eq!(ephemeral_start("20000 60999"), 20_000);
        assert_eq!(ephemeral_start("1024 60999"), EPHEMERAL_DEFAULT);
        assert_eq!(ephemeral_start(""), EPHEMERAL_DEFAULT);
    }

    #[test]
    fn taken_ports_are_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = Address::Tcp(listener.local_addr().unwrap());
        assert!(check_free(&address).is_err());
        drop(listener);
        assert!(check_free(&address).is_ok());
    }
}
