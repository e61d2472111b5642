//! IP addresses as the pattern language reads them (section 5.7): stricter and looser than the RFCs in places.

use std::net::Ipv6Addr;

/// An address by value; an IPv4-mapped IPv6 address is its IPv4 address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// Four decimal numbers.
    V4(u32),
    /// Hexadecimal groups.
    V6(u128),
}

/// Why a text is not an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAddress {
    /// Not shaped like one.
    Shape,
    /// Shaped like one, but out of range.
    Range,
}

impl Address {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`NotAddress`] tells whether the shape or the range is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, NotAddress> {
        match text.first() {
            Some(b'0'..=b'9') => Self::v4(text).unwrap_or_else(|| Self::v6(text)),
            Some(b':' | b'a'..=b'f' | b'A'..=b'F') => Self::v6(text),
            _ => Err(NotAddress::Shape),
        }
    }

    /// Nothing for what is not four numbers with dots between; at most 15 characters are in range.
    fn v4(text: &[u8]) -> Option<Result<Self, NotAddress>> {
        let (mut address, mut part, mut digits, mut dots, mut fits) = (0u32, 0u64, 0u64, 0u64, text.len() <= 15);
        for &byte in text {
            match byte {
                b'0'..=b'9' => {
                    (part, digits) = (part.saturating_mul(10).saturating_add(u64::from(byte - b'0')), digits + 1)
                }
                b'.' if digits > 0 => {
                    fits &= part <= 255;
                    address = address << 8 | (part & 255) as u32;
                    (part, digits, dots) = (0, 0, dots + 1);
                }
                _ => return None,
            }
        }
        if dots != 3 || digits == 0 {
            return None;
        }
        fits &= part <= 255;
        Some(if fits { Ok(Self::V4(address << 8 | part as u32)) } else { Err(NotAddress::Range) })
    }

    fn v6(text: &[u8]) -> Result<Self, NotAddress> {
        if !text.contains(&b':') || !text.iter().all(|b| b.is_ascii_hexdigit() || *b == b':') {
            return Err(NotAddress::Shape);
        }
        let text = std::str::from_utf8(text).map_err(|_| NotAddress::Shape)?;
        let address = text.parse().or_else(|_| short(text).parse::<Ipv6Addr>()).map_err(|_| NotAddress::Range)?;
        Ok(match address.to_ipv4_mapped() {
            Some(v4) => Address::V4(v4.to_bits()),
            None => Address::V6(address.to_bits()),
        })
    }
}

/// The groups without leading zeros, of which there may be any number.
fn short(text: &str) -> String {
    let group = |group: &str| match group.trim_start_matches('0') {
        "" if !group.is_empty() => "0".to_owned(),
        digits => digits.to_owned(),
    };
    text.split(':').map(group).collect::<Vec<_>>().join(":")
}

/// A CIDR block of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Block {
    /// Any address of the block; bits beyond `bits` do not matter.
    pub base: Address,
    /// Length of the mask.
    pub bits: u8,
}

impl Block {
    /// Whether `address` lies in the block. Blocks of one family hold no address of the other.
    pub fn contains(&self, address: Address) -> bool {
        match (self.base, address) {
            (Address::V4(base), Address::V4(it)) => {
                (base ^ it).checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (Address::V6(base), Address::V6(it)) => {
                (base ^ it).checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    /// The same block with its lowest address as the base.
    pub fn canonical(&self) -> Self {
        let bits = u32::from(self.bits);
        let base = match self.base {
            Address::V4(base) => Address::V4(base & u32::MAX.checked_shl(32 - bits).unwrap_or(0)),
            Address::V6(base) => Address::V6(base & u128::MAX.checked_shl(128 - bits).unwrap_or(0)),
        };
        Self { base, bits: self.bits }
    }

    /// Whether every address of `other` lies in the block.
    pub fn covers(&self, other: &Block) -> bool {
        self.bits <= other.bits && self.contains(other.base)
    }
}
