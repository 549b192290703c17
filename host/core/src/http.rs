//! What a plugin may call over HTTP (`grants.http`): which servers, and at which addresses they may be.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One server that a plugin may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpGrant {
    /// `http` is not encrypted, and only there where it is written.
    pub scheme: Scheme,
    /// Who it is.
    pub host: Host,
    /// Where it listens.
    pub port: u16,
    /// Whether its name may lead to a private address (`grants.http_private`).
    pub private: bool,
}

/// How a server is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say it")]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

/// A name or an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    /// In small letters.
    Name(String),
    /// Written as such by the operator.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// Why a text names no server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoServer {
    /// Neither `http://` nor `https://`.
    #[error("the scheme `{0}` is not there; write https://HOST, or http://HOST where nothing is encrypted")]
    Scheme(String),
    /// More than a server.
    #[error("a server is granted as a whole; write it without what follows the port, and without a user")]
    More,
    /// A pattern.
    #[error("each server is granted by its name; a pattern is none")]
    Pattern,
    /// Neither a name nor an address.
    #[error("`{0}` is neither a host's name nor an address")]
    Host(String),
    /// An address that no server has.
    #[error("{0} is no server's address")]
    Address(IpAddr),
    /// No port.
    #[error("`{0}` is no port; it is a number from 1 to 65535")]
    Port(String),
}

impl HttpGrant {
    /// Reads `[https://|http://]HOST[:PORT]`.
    ///
    /// # Errors
    /// [`NoServer`], where it is anything else.
    pub fn parse(text: &str) -> Result<Self, NoServer> {
        let (scheme, rest) = match text.split_once("://") {
            None => (Scheme::Https, text),
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            Some((other, _)) => return Err(NoServer::Scheme(other.to_owned())),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(NoServer::More);
        }
        let (host, port) = split_port(rest);
        let host = Host::parse(host)?;
        let port = match port {
            None => scheme.port(),
            Some(text) => match text.parse() {
                Ok(port) if port > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => port,
                _ => return Err(NoServer::Port(text.to_owned())),
            },
        };
        Ok(Self { scheme, host, port, private: false })
    }

    /// Whether a request is for this server; none: the port that the scheme has by itself.
    #[must_use]
    pub fn is_for(&self, scheme: Scheme, host: &str, port: Option<u16>) -> bool {
        let same = match &self.host {
            Host::Name(name) => name.eq_ignore_ascii_case(host),
            Host::Address(address) => literal(host) == Some(*address),
        };
        same && self.scheme == scheme && self.port == port.unwrap_or(scheme.port())
    }

    /// Whether the server may be at this address, which its name led to.
    #[must_use]
    pub fn may_be_at(&self, address: IpAddr) -> bool {
        match self.host {
            Host::Address(named) => named == address.to_canonical(),
            Host::Name(_) => match reach(address) {
                Reach::Public => true,
                Reach::Private => self.private,
                Reach::Nobody => false,
            },
        }
    }

    /// Name or address and port as they stand in a request's `Host`: without the port that the scheme has by itself.
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == self.scheme.port() { self.host.to_string() } else { format!("{}:{}", self.host, self.port) }
    }
}

impl fmt::Display for HttpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority())
    }
}

impl Host {
    /// Reads a name or an address.
    ///
    /// # Errors
    /// [`NoServer`], where it is neither.
    pub fn parse(text: &str) -> Result<Self, NoServer> {
        if text.contains('*') {
            return Err(NoServer::Pattern);
        }
        if let Some(address) = literal(text) {
            return match reach(address) {
                Reach::Nobody if !is_link_local(address) => Err(NoServer::Address(address)),
                _ => Ok(Self::Address(address)),
            };
        }
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        };
        // What ends in a number is an address in one of its stranger forms (`127.1`, `0x7f000001`), and no name.
        let last = text.rsplit('.').next().unwrap_or(text);
        let number = last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X");
        if text.len() > 253 || number || !text.split('.').all(label) {
            return Err(NoServer::Host(text.to_owned()));
        }
        Ok(Self::Name(text.to_ascii_lowercase()))
    }
}

/// An address as it stands in a URL; IPv6 in brackets.
fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inside) => inside.parse::<Ipv6Addr>().ok().map(|address| IpAddr::V6(address).to_canonical()),
        None => host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn split_port(text: &str) -> (&str, Option<&str>) {
    match text.rsplit_once(':') {
        // Not within an IPv6 address.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Anybody's.
    Public,
    /// Of a network that strangers are not in: this machine's, a company's, a provider's.
    Private,
    /// No server that a name should lead to: many at once, none, or, on the link, where clouds keep their machines' credentials.
    Nobody,
}

fn reach(address: IpAddr) -> Reach {
    match address.to_canonical() {
        IpAddr::V4(address) => reach4(address),
        IpAddr::V6(address) => reach6(address),
    }
}

/// By IANA's registry of special addresses (RFC 6890 and what came after it).
fn reach4(address: Ipv4Addr) -> Reach {
    match address.octets() {
        [10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18..=19, ..] => {
            Reach::Private
        }
        [0 | 224.., ..]
        | [169, 254, ..]
        | [192, 0, 0 | 2, _]
        | [192, 88, 99, _]
        | [198, 51, 100, _]
        | [203, 0, 113, _] => Reach::Nobody,
        _ => Reach::Public,
    }
}

fn reach6(address: Ipv6Addr) -> Reach {
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        reach4(Ipv4Addr::new(a, b, c, d))
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => Reach::Private,
        // Translated to an address of IPv4 on the way: what that one is, this one is.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => embedded(high, low),
        [0x64, 0xff9b, 1, ..] => Reach::Private,
        // Unique local, and site-local before that.
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Reach::Private,
        // What is special within the space of global addresses: Teredo, benchmarks, ORCHID; documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reach::Nobody,
        [0x2000..=0x3fff, ..] => Reach::Public,
        _ => Reach::Nobody,
    }
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, shown: &str) {
        assert_eq!(HttpGrant::parse(text).map(|grant| grant.to_string()).as_deref(), Ok(shown), "{text}");
    }

    #[track_caller]
    fn refused(text: &str, why: &str) {
        let error = HttpGrant::parse(text).expect_err(text);
        assert!(error.to_string().contains(why), "{text}: {error}");
    }

    #[test]
    fn a_server_is_a_scheme_a_host_and_a_port() {
        check("api.example.com", "https://api.example.com");
        check("https://API.Example.com", "https://api.example.com");
        check("https://api.example.com/", "https://api.example.com");
        check("api.example.com:443", "https://api.example.com");
        check("api.example.com:8443", "https://api.example.com:8443");
        check("http://inventory", "http://inventory");
        check("http://inventory:80", "http://inventory");
        check("http://inventory:443", "http://inventory:443");
        check("http://10.0.0.7:8080", "http://10.0.0.7:8080");
        check("https://[fd00::7]", "https://[fd00::7]");
        check("https://[fd00::7]:8443", "https://[fd00::7]:8443");
        check("http://[::ffff:10.0.0.7]", "http://10.0.0.7");
        check("http://169.254.169.254", "http://169.254.169.254");
    }

    #[test]
    fn what_is_no_server_is_refused_with_the_reason() {
        refused("ftp://a", "the scheme `ftp`");
        refused("HTTP://a", "the scheme `HTTP`");
        refused("https://a/v1", "without what follows the port");
        refused("https://a?x", "without what follows the port");
        refused("https://u@a", "without a user");
        refused("*.example.com", "a pattern is none");
        refused("*", "a pattern is none");
        refused("", "neither");
        refused("https://", "neither");
        refused("a..b", "neither");
        refused("a.example.com.", "neither");
        refused("exämple.com", "neither");
        refused("a b", "neither");
        refused("fd00::7", "neither");
        for strange in ["127.1", "2130706433", "0x7f000001", "127.0.0.0x1", "1.2.3.4.5", "010.0.0.1", "a.7"] {
            refused(strange, "neither");
        }
        refused("a:0", "no port");
        refused("a:+80", "no port");
        refused("a:", "no port");
        refused("a:65536", "no port");
        refused("0.0.0.0", "no server's address");
        refused("255.255.255.255", "no server's address");
        refused("[ff02::1]", "no server's address");
        refused("[::]", "no server's address");
    }

    #[test]
    fn a_request_is_for_a_server_only_where_all_of_it_is_the_same() {
        let grant = HttpGrant::parse("https://api.example.com").expect("a server");
        assert!(grant.is_for(Scheme::Https, "API.example.com", None));
        assert!(grant.is_for(Scheme::Https, "api.example.com", Some(443)));
        for (scheme, host, port) in [
            (Scheme::Http, "api.example.com", None),
            (Scheme::Http, "api.example.com", Some(443)),
            (Scheme::Https, "api.example.com", Some(444)),
            (Scheme::Https, "api.example.com.", None),
            (Scheme::Https, "example.com", None),
            (Scheme::Https, "x.api.example.com", None),
            (Scheme::Https, "api.example.com.evil.org", None),
        ] {
            assert!(!grant.is_for(scheme, host, port), "{scheme}://{host}:{port:?}");
        }
        let address = HttpGrant::parse("http://[::1]:8080").expect("a server");
        assert!(address.is_for(Scheme::Http, "[0:0:0:0:0:0:0:1]", Some(8080)));
        assert!(!address.is_for(Scheme::Http, "localhost", Some(8080)));
    }

    #[test]
    fn a_name_leads_to_public_addresses_alone_unless_it_may_lead_to_private_ones() {
        let mut named = HttpGrant::parse("api.example.com").expect("a server");
        let reached = |grant: &HttpGrant, address: &str| grant.may_be_at(address.parse().expect("an address"));
        let public = [
            "93.184.216.34",
            "1.1.1.1",
            "172.32.0.1",
            "100.63.0.1",
            "2606:4700::1111",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
        ];
        let private = [
            "127.0.0.1",
            "127.8.8.8",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "198.18.0.1",
            "::1",
            "fc00::1",
            "fdff::1",
            "fec0::1",
            "::ffff:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:a00:1::1",
        ];
        let nobody = [
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::7f00:1",
            "fe80::1",
            "ff02::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "5f00::1",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
        ];
        for address in public {
            assert!(reached(&named, address), "{address}");
        }
        for address in private.into_iter().chain(nobody) {
            assert!(!reached(&named, address), "{address}");
        }
        named.private = true;
        for address in public.into_iter().chain(private) {
            assert!(reached(&named, address), "{address}");
        }
        for address in nobody {
            assert!(!reached(&named, address), "{address}");
        }
    }

    #[test]
    fn an_address_that_is_named_is_reached_and_no_other() {
        let grant = HttpGrant::parse("http://169.254.169.254").expect("a server");
        assert!(grant.may_be_at("169.254.169.254".parse().expect("an address")));
        assert!(grant.may_be_at("::ffff:169.254.169.254".parse().expect("an address")));
        assert!(!grant.may_be_at("169.254.169.253".parse().expect("an address")));
    }
}
