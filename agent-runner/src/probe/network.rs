//! Tries ways out of the container. It has a loopback and nothing else, so each attempt must fail at once with
//! "unreachable".

use std::io;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use ipc_schema::probe_report::Attempt;
use rustix::io::Errno;

use super::filesystem::names;

/// An attempt that takes this long reached some network.
const TIMEOUT: Duration = Duration::from_millis(700);

/// Addresses that answer on most networks, and the metadata addresses of clouds.
const OUTSIDE: [&str; 7] = [
    "1.1.1.1:443",
    "8.8.8.8:53",
    "[2606:4700:4700::1111]:443",
    "169.254.169.254:80",
    "[fd00:ec2::254]:80",
    "10.0.0.1:80",
    "192.168.1.1:80",
];

/// Public resolvers, tried besides those in the container's resolv.conf.
const RESOLVERS: [&str; 2] = ["1.1.1.1", "8.8.8.8"];

pub(super) fn interfaces() -> Vec<String> {
    let listed = std::fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let mut found = names("/sys/class/net");
    found.extend(listed.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())));
    found.sort();
    found.dedup();
    found
}

pub(super) fn ways_out(host: &[String]) -> Vec<Attempt> {
    let outside = OUTSIDE.into_iter().filter_map(|address| address.parse().ok());
    let to_host = host.iter().filter_map(|address| Some(SocketAddr::new(address.parse().ok()?, 22)));
    let mut tried: Vec<Attempt> = outside.chain(to_host).map(connect).collect();
    let own = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let own = own.lines().filter_map(|line| line.strip_prefix("nameserver")).map(|a| a.trim().to_owned());
    let mut resolvers: Vec<String> = own.chain(RESOLVERS.map(str::to_owned)).collect();
    resolvers.sort();
    resolvers.dedup();
    tried.extend(resolvers.iter().filter_map(|address| address.parse().ok()).map(query_dns));
    tried
}

fn connect(address: SocketAddr) -> Attempt {
    let outcome = TcpStream::connect_timeout(&address, TIMEOUT).map(drop);
    Attempt { what: format!("tcp {address}"), refused: outcome.err().map(|e| refusal(&e)) }
}

/// Sends the query "lazaret.invalid A" to see whether a datagram can be sent at all.
fn query_dns(address: std::net::IpAddr) -> Attempt {
    const QUESTION: &[u8] =
        b"\x13\x37\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07lazaret\x07invalid\x00\x00\x01\x00\x01";
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let ask = || {
        let socket = UdpSocket::bind(any)?;
        socket.connect((address, 53))?;
        socket.send(QUESTION)
    };
    Attempt { what: format!("dns {address}"), refused: ask().err().map(|e| refusal(&e)) }
}

/// The host judges which errors mean "unreachable"; the probe only reports them.
fn refusal(error: &io::Error) -> String {
    Errno::from_io_error(error).map_or_else(|| format!("{:?}", error.kind()), super::errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_is_told() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(connect(address).refused, None);
        drop(listener);
        assert_eq!(connect(address).refused.as_deref(), Some("ECONNREFUSED"));
        assert_eq!(refusal(&io::Error::from(io::ErrorKind::TimedOut)), "TimedOut");
    }
}
