//! A stream of orders like those of the classic EventBridge workshop, with the arithmetic of what matches.

use crate::time;
use std::fmt::Write;

/// From this value on an order is big.
pub const BIG: u32 = 1000;

/// A generated order.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    number: u64,
    location: &'static str,
    category: &'static str,
    value: u32,
}

const LOCATIONS: [&str; 5] = ["eu-west", "eu-east", "us-west", "us-east", "ap-south"];
const CATEGORIES: [&str; 3] = ["lab-supplies", "office-supplies", "books"];

impl Order {
    /// The order of a number: the same at every run.
    pub fn new(number: u64) -> Self {
        // Spreads consecutive numbers (Knuth's multiplicative hash).
        let mix = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        Self {
            number,
            location: LOCATIONS[(mix >> 33) as usize % LOCATIONS.len()],
            category: CATEGORIES[(mix >> 41) as usize % CATEGORIES.len()],
            value: ((mix >> 49) % 1200) as u32,
        }
    }

    /// Whether it comes from the EU.
    pub fn is_eu(&self) -> bool {
        matches!(self.location, "eu-west" | "eu-east")
    }

    /// Whether it is for lab supplies and comes from the US.
    pub fn is_us_lab(&self) -> bool {
        matches!(self.location, "us-west" | "us-east") && self.category == "lab-supplies"
    }

    /// Whether it is big.
    pub fn is_big(&self) -> bool {
        self.value >= BIG
    }

    /// The key that orders of one customer share.
    pub fn customer(&self) -> String {
        format!("c-{}", self.number % 997)
    }

    /// The event, one line.
    pub fn event(&self, now_millis: i64) -> String {
        let Self { number, location, category, value } = self;
        let mut line = String::with_capacity(512);
        // Writing to a String cannot fail.
        let written = write!(
            line,
            "{{\"version\":\"0\",\"id\":\"{:08x}-0000-4000-8000-{number:012x}\",\"detail-type\":\"Order Notification\",\
             \"source\":\"com.aws.orders\",\"account\":\"000000000000\",\"time\":\"{}\",\"region\":\"us-east-1\",\
             \"resources\":[],\"detail\":{{\"orderId\":\"{number}\",\"customer\":\"{}\",\"category\":\"{category}\",\
             \"location\":\"{location}\",\"value\":{value},\"items\":[{{\"sku\":\"s-{}\",\"quantity\":{}}}],\
             \"signature\":\"John Doe\"}}}}",
            number >> 32,
            time::iso_seconds(now_millis),
            self.customer(),
            number % 89,
            number % 7 + 1,
        );
        debug_assert!(written.is_ok());
        line
    }
}
