//! Where messages may go: `https` to public addresses, so that nobody can make this process call machines
//! inside its own network (server-side request forgery).
//!
//! A URL is judged by what it says, and every address that its name resolves to by the IANA registries of
//! special-purpose addresses (RFC 6890; registries of 2026), at every attempt and before connecting.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use reqwest::Url;
use thiserror::Error;
use url::Host;

/// What common servers and proxies take.
const URL_CHARS_MAX: usize = 2048;
/// Ports of other services, of the kind that browsers refuse: a request line could be a command there.
const PORTS: [u16; 3] = [443, 8443, 9443];

/// Names that are never public: RFC 6761 (but for `example`, which documents use and nobody resolves), RFC 6762, RFC 7686, RFC 8375, RFC 9476, ICANN's `internal`, and names
/// that clouds give to their metadata.
const SUFFIXES: [&str; 16] = [
    "localhost",
    "local",
    "internal",
    "intranet",
    "private",
    "corp",
    "home",
    "lan",
    "home.arpa",
    "test",
    "invalid",
    "onion",
    "alt",
    "arpa",
    "localdomain",
    "domain",
];

/// Why an address is no place for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressClass {
    /// `0.0.0.0/8`, `::`.
    Unspecified,
    /// The machine itself.
    Loopback,
    /// RFC 1918, RFC 4193, site-local.
    Private,
    /// RFC 6598: behind a carrier's address translation.
    Shared,
    /// RFC 3927; metadata of clouds lives here.
    LinkLocal,
    /// Several machines at once.
    Multicast,
    /// `255.255.255.255`.
    Broadcast,
    /// For documents.
    Documentation,
    /// RFC 2544.
    Benchmarking,
    /// Protocol assignments, relays and what is not handed out.
    Reserved,
    /// IPv6 that stands for an address of IPv4 which is not public.
    Embedded,
}

/// Why a URL is no place for messages.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum UrlRefusal {
    /// It cannot be read.
    #[error("it is not a URL of at most 2048 characters")]
    Malformed,
    /// Not `https`.
    #[error("it does not begin with https://")]
    Scheme,
    /// It carries credentials.
    #[error("it has a user or a password in it")]
    UserInfo,
    /// It has a `#`.
    #[error("it has a fragment in it")]
    Fragment,
    /// Its port.
    #[error("its port is not 443, 8443 or 9443")]
    Port,
    /// Its name.
    #[error("its host is not a public name")]
    Host,
    /// Its address.
    #[error("its address is not a public one")]
    Address(AddressClass),
}

/// A URL that messages may be sent to, as far as it says itself.
#[derive(Clone, PartialEq, Eq)]
pub struct EndpointUrl(Url);

impl EndpointUrl {
    /// The URL.
    #[must_use]
    pub const fn url(&self) -> &Url {
        &self.0
    }
}

/// Without its path, which may hold a token.
impl std::fmt::Debug for EndpointUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "EndpointUrl({}://{}/…)", self.0.scheme(), self.0.host_str().unwrap_or_default())
    }
}

/// The rules.
#[derive(Debug, Clone, Default)]
pub struct Egress {
    /// Networks that are sent to though they are not public, over plain `http` and to any port if asked to: for
    /// receivers of one's own.
    allowed: Vec<IpNet>,
}

impl Egress {
    /// The rules, with exceptions.
    #[must_use]
    pub const fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Reads a URL in its one form (WHATWG): numbers and international names are what browsers take them for.
    pub fn parse(&self, text: &str) -> Result<EndpointUrl, UrlRefusal> {
        let malformed = |c: char| c.is_control() || c.is_whitespace() || c == '\\';
        if text.len() > URL_CHARS_MAX || text.contains(malformed) {
            return Err(UrlRefusal::Malformed);
        }
        let url = Url::parse(text).map_err(|_| UrlRefusal::Malformed)?;
        if !text.get(..8).is_some_and(|begin| begin.contains("://")) {
            return Err(UrlRefusal::Malformed);
        }
        if !url.username().is_empty() || url.password().is_some() || authority(text).contains('@') {
            return Err(UrlRefusal::UserInfo);
        }
        if url.fragment().is_some() {
            return Err(UrlRefusal::Fragment);
        }
        let address = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(name)) => {
                check_name(name)?;
                None
            }
            None => return Err(UrlRefusal::Malformed),
        };
        let is_own = address.is_some_and(|address| self.allows(address));
        match url.scheme() {
            "https" => {}
            "http" if is_own => {}
            _ => return Err(UrlRefusal::Scheme),
        }
        if let Some(address) = address {
            self.permits(address).map_err(UrlRefusal::Address)?;
        }
        if !is_own && !PORTS.contains(&url.port_or_known_default().unwrap_or(0)) {
            return Err(UrlRefusal::Port);
        }
        // What is kept is this form, and it is read again at every attempt.
        if url.as_str().len() > URL_CHARS_MAX {
            return Err(UrlRefusal::Malformed);
        }
        Ok(EndpointUrl(url))
    }

    /// Whether an address may be connected to.
    pub fn permits(&self, address: IpAddr) -> Result<(), AddressClass> {
        if self.allows(address) {
            return Ok(());
        }
        match address {
            IpAddr::V4(address) => class_v4(address),
            IpAddr::V6(address) => class_v6(address),
        }
        .map_or(Ok(()), Err)
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(&address))
    }
}

/// What stands before the path. `https://@host/` has an empty user, which the parsed URL no longer shows.
fn authority(text: &str) -> &str {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

fn check_name(name: &str) -> Result<(), UrlRefusal> {
    // A trailing dot is the same name, and would miss the list.
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_under =
        |suffix: &&str| name.strip_suffix(*suffix).is_some_and(|before| before.is_empty() || before.ends_with('.'));
    // A label with `_` is no host's, and a last label of digits no public name's.
    let last = name.rsplit('.').next().unwrap_or_default();
    let odd = name.is_empty() || name.len() > 253 || name.starts_with('.') || name.contains("..") || name.contains('_');
    if odd || !name.contains('.') || SUFFIXES.iter().any(is_under) || last.bytes().all(|b| b.is_ascii_digit()) {
        return Err(UrlRefusal::Host);
    }
    Ok(())
}

const fn v4(address: [u8; 4], prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(address[0], address[1], address[2], address[3]), prefix)
}

/// IANA IPv4 Special-Purpose Address Registry, but for what is globally reachable, RFC 1112 (240/4), and the address
/// at which a cloud answers its own machines only.
const V4: [(Ipv4Net, AddressClass); 17] = [
    (v4([0, 0, 0, 0], 8), AddressClass::Unspecified),
    (v4([10, 0, 0, 0], 8), AddressClass::Private),
    (v4([100, 64, 0, 0], 10), AddressClass::Shared),
    (v4([127, 0, 0, 0], 8), AddressClass::Loopback),
    (v4([169, 254, 0, 0], 16), AddressClass::LinkLocal),
    (v4([168, 63, 129, 16], 32), AddressClass::Reserved),
    (v4([172, 16, 0, 0], 12), AddressClass::Private),
    (v4([192, 0, 0, 0], 24), AddressClass::Reserved),
    (v4([192, 0, 2, 0], 24), AddressClass::Documentation),
    (v4([192, 88, 99, 0], 24), AddressClass::Reserved),
    (v4([192, 168, 0, 0], 16), AddressClass::Private),
    (v4([198, 18, 0, 0], 15), AddressClass::Benchmarking),
    (v4([198, 51, 100, 0], 24), AddressClass::Documentation),
    (v4([203, 0, 113, 0], 24), AddressClass::Documentation),
    (v4([224, 0, 0, 0], 4), AddressClass::Multicast),
    (v4([255, 255, 255, 255], 32), AddressClass::Broadcast),
    (v4([240, 0, 0, 0], 4), AddressClass::Reserved),
];

const fn v6(high: [u16; 4], prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(high[0], high[1], high[2], high[3], 0, 0, 0, 0), prefix)
}

/// Global unicast addresses that are handed out (RFC 4291, RFC 3587): everything else of IPv6 is not public.
const V6_GLOBAL: Ipv6Net = v6([0x2000, 0, 0, 0], 3);
/// Parts of it that are not: IANA IPv6 Special-Purpose Address Registry.
const V6: [(Ipv6Net, AddressClass); 3] = [
    // RFC 2928: Teredo, benchmarking, ORCHID, drone identification …
    (v6([0x2001, 0, 0, 0], 23), AddressClass::Reserved),
    (v6([0x2001, 0xdb8, 0, 0], 32), AddressClass::Documentation),
    (v6([0x3fff, 0, 0, 0], 20), AddressClass::Documentation),
];
const V6_LOCAL: [(Ipv6Net, AddressClass); 6] = [
    (v6([0xfc00, 0, 0, 0], 7), AddressClass::Private),
    (v6([0xfe80, 0, 0, 0], 10), AddressClass::LinkLocal),
    (v6([0xfec0, 0, 0, 0], 10), AddressClass::Private),
    (v6([0xff00, 0, 0, 0], 8), AddressClass::Multicast),
    (v6([0x100, 0, 0, 0], 64), AddressClass::Reserved),
    (v6([0x5f00, 0, 0, 0], 16), AddressClass::Reserved),
];
/// Prefixes before an address of IPv4 in the last 32 bits: mapped, translated (RFC 2765), compatible, and NAT64
/// (RFC 6052, RFC 8215).
const V6_OVER_V4: [Ipv6Net; 5] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    Ipv6Net::new_assert(Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96),
    v6([0, 0, 0, 0], 96),
    v6([0x64, 0xff9b, 0, 0], 96),
    v6([0x64, 0xff9b, 1, 0], 48),
];
/// RFC 3056: the address of IPv4 follows the prefix.
const V6_6TO4: Ipv6Net = v6([0x2002, 0, 0, 0], 16);

fn class_v4(address: Ipv4Addr) -> Option<AddressClass> {
    V4.iter().find(|(network, _)| network.contains(&address)).map(|(_, class)| *class)
}

fn class_v6(address: Ipv6Addr) -> Option<AddressClass> {
    if address.is_unspecified() {
        return Some(AddressClass::Unspecified);
    }
    if address.is_loopback() {
        return Some(AddressClass::Loopback);
    }
    // None of them is where a public receiver is: what stands behind a translator is its operator's business.
    if V6_OVER_V4.iter().any(|network| network.contains(&address)) || V6_6TO4.contains(&address) {
        return Some(AddressClass::Embedded);
    }
    let within = |networks: &[(Ipv6Net, AddressClass)]| {
        networks.iter().find(|(network, _)| network.contains(&address)).map(|(_, class)| *class)
    };
    if let Some(class) = within(&V6_LOCAL) {
        return Some(class);
    }
    if !V6_GLOBAL.contains(&address) {
        return Some(AddressClass::Reserved);
    }
    within(&V6)
}

#[cfg(test)]
mod tests;
