//! Where HTTP targets may lead: public addresses, and what `egress.allow` names.
//!
//! While every listener is on loopback, loopback and plain http are fine as well. Every address that a name resolves to
//! is looked at in the resolver, and the connection goes to one of those that were: a second answer of a name server
//! changes nothing.

use ipnet::IpNet;
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// The rule.
#[derive(Debug, Clone, Default)]
pub struct Egress {
    /// Whether somebody on another machine may reach one of our listeners.
    public: bool,
    allow: Vec<IpNet>,
}

impl Egress {
    /// Reads networks and addresses.
    ///
    /// # Errors
    /// The first that is neither.
    pub fn new(public: bool, allow: &[String]) -> Result<Self, String> {
        let read = |text: &String| {
            let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            network.ok_or_else(|| format!("`{text}` is no network; write one as 10.0.0.0/8, or an address"))
        };
        Ok(Self { public, allow: allow.iter().map(read).collect::<Result<_, _>>()? })
    }

    /// Whether a connection to an address may be made.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn check(&self, address: IpAddr, plain: bool) -> Result<(), String> {
        let address = embedded(address);
        if self.allow.iter().any(|network| network.contains(&address)) {
            return Ok(());
        }
        if !self.public && address.is_loopback() {
            return Ok(());
        }
        if !is_public(address) {
            return Err(format!("{address} is not a public address; add it, or its network, to egress.allow"));
        }
        if plain && self.public {
            return Err(format!("plain http to {address}: use https, or add the address to egress.allow"));
        }
        Ok(())
    }

    /// Whether an address that is written out in a URL may be connected to. Names are looked at when they are resolved.
    ///
    /// # Errors
    /// Why not, and what to do.
    pub fn check_url(&self, url: &str) -> Result<(), String> {
        let url = Url::parse(url).map_err(|error| error.to_string())?;
        let host = url.host_str().unwrap_or_default();
        match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => self.check(address, url.scheme() == "http"),
            Err(_) => Ok(()),
        }
    }

    /// A resolver that gives out only what may be connected to.
    pub fn resolver(&self, plain: bool) -> Arc<Guard> {
        Arc::new(Guard { egress: self.clone(), plain })
    }
}

/// The address that is meant, where an IPv6 address embeds an IPv4 one: mapped, NAT64 (RFC 6052), 6to4 (RFC 3056).
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let segments = v6.segments();
    let v4 = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match segments {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => v4(high, low),
        _ => v6.to_canonical(),
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            let shared = a == 100 && (64..128).contains(&b);
            let assigned = a == 192 && b == 0 && c == 0;
            let benchmark = a == 198 && (b == 18 || b == 19);
            !(v4.is_loopback()
                || v4.is_private()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.is_documentation()
                || shared
                || assigned
                || benchmark
                || a == 0
                || a >= 240)
        }
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v6(v6: Ipv6Addr) -> bool {
    // Only 2000::/3 is given out for the whole Internet; of it 2001::/23 is for protocols (Teredo among them, which leads to
    // IPv4), 2001:db8::/32 and 3fff::/20 are for documents.
    let [first, second, ..] = v6.segments();
    let special = first == 0x2001 && (second < 0x200 || second == 0xdb8);
    first & 0xe000 == 0x2000 && !special && !(first == 0x3fff && second < 0x1000)
}

/// See [`Egress::resolver`].
pub struct Guard {
    egress: Egress,
    plain: bool,
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, plain) = (self.egress.clone(), self.plain);
        Box::pin(async move {
            let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            // One bad answer among good ones is somebody's attempt.
            for address in &found {
                egress.check(address.ip(), plain).map_err(|why| format!("{}: {why}", name.as_str()))?;
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
