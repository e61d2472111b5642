//! IP addresses as the pattern language reads them (section 5.7): stricter and looser than the RFCs in places.

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
        let dots = text.iter().filter(|&&b| b == b'.').count();
        if text.contains(&b':') {
            return Self::v6(text);
        }
        let well_shaped = dots == 3
            && text.len() <= 15
            && text.iter().all(|b| b.is_ascii_digit() || *b == b'.')
            && text.split(|&b| b == b'.').all(|part| !part.is_empty());
        if !well_shaped {
            return Err(NotAddress::Shape);
        }
        text.split(|&b| b == b'.')
            .try_fold(0u32, |address, part| {
                let n = part.iter().fold(0u64, |n, d| n * 10 + u64::from(d - b'0'));
                Ok(address << 8 | u32::from(u8::try_from(n).map_err(|_| NotAddress::Range)?))
            })
            .map(Address::V4)
    }

    fn v6(text: &[u8]) -> Result<Self, NotAddress> {
        if !text.iter().all(|b| b.is_ascii_hexdigit() || *b == b':') {
            return Err(NotAddress::Shape);
        }
        let text = std::str::from_utf8(text).map_err(|_| NotAddress::Shape)?;
        let address: std::net::Ipv6Addr = text.parse().map_err(|_| NotAddress::Range)?;
        Ok(match address.to_ipv4_mapped() {
            Some(v4) => Address::V4(v4.to_bits()),
            None => Address::V6(address.to_bits()),
        })
    }
}

/// A CIDR block of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

    /// Whether every address of `other` lies in the block.
    pub fn covers(&self, other: &Block) -> bool {
        self.bits <= other.bits && self.contains(other.base)
    }
}
