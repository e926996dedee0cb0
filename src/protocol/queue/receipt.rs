//! What stands for one delivery of one message.

use std::fmt;
use std::str::FromStr;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// One delivery of one message: `<sequence>.<delivery>.<token>`. The token is random, so that a
/// receipt cannot be made up; it is valid through every node, since all of it is kept in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub seq: u64,
    pub delivery: u64,
    /// 16 hexadecimal digits.
    pub token: String,
}

/// Digits of a token.
const TOKEN_DIGITS: usize = 16;
/// Bits of a token that follow from the others: two topics have them in common once in 16 million times.
const CHECK_BITS: u32 = 24;

impl Receipt {
    /// A token for messages of a topic, from random bits. Some of its digits follow from the topic and the others, so
    /// that a receipt which was mixed up with one of another topic is known by itself, when nothing else is kept of it.
    pub fn token(topic: &str, random: u64) -> String {
        let random = random >> CHECK_BITS;
        format!("{:016x}", random << CHECK_BITS | check(topic, random))
    }

    /// Whether its token was made for this topic.
    pub fn is_of(&self, topic: &str) -> bool {
        let token = u64::from_str_radix(&self.token, 16);
        token.is_ok_and(|token| {
            token == token >> CHECK_BITS << CHECK_BITS | check(topic, token >> CHECK_BITS)
        })
    }
}

fn check(topic: &str, random: u64) -> u64 {
    xxh3_64_with_seed(topic.as_bytes(), random) >> (u64::BITS - CHECK_BITS)
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.seq, self.delivery, self.token)
    }
}

/// The text is no receipt.
#[derive(Debug, PartialEq, Eq)]
pub struct NoReceipt;

impl FromStr for Receipt {
    type Err = NoReceipt;

    fn from_str(text: &str) -> Result<Self, NoReceipt> {
        let mut parts = text.split('.');
        let (Some(seq), Some(delivery), Some(token), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NoReceipt);
        };
        let number = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
            true => digits.parse().map_err(|_| NoReceipt),
            false => Err(NoReceipt),
        };
        let hex = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if token.len() != TOKEN_DIGITS || !token.bytes().all(hex) {
            return Err(NoReceipt);
        }
        let receipt = Receipt {
            seq: number(seq)?,
            delivery: number(delivery)?,
            token: token.to_owned(),
        };
        match receipt.seq <= crate::protocol::INTEGER_MAX {
            true => Ok(receipt),
            false => Err(NoReceipt),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_whether_it_is_of_a_topic() {
        for random in [0, 1, 0xffff_ffff, u64::MAX] {
            let receipt = Receipt {
                seq: 1,
                delivery: 1,
                token: Receipt::token("a", random),
            };
            assert_eq!(
                receipt.to_string().parse::<Receipt>().as_ref(),
                Ok(&receipt)
            );
            assert!(receipt.is_of("a"));
            assert!(!receipt.is_of("b"));
        }
    }

    #[test]
    fn a_receipt_is_read_back_and_nothing_else_is_one() {
        let receipt = Receipt {
            seq: 7,
            delivery: 2,
            token: format!("{:016x}", 255),
        };
        assert_eq!(receipt.to_string(), "7.2.00000000000000ff");
        assert_eq!(receipt.to_string().parse(), Ok(receipt));
        for wrong in [
            "",
            "7.2",
            "7.2.ff",
            "7.2.00000000000000fF",
            "+7.2.00000000000000ff",
            "7.2.00000000000000ff.",
            "99999999999999999.2.00000000000000ff",
        ] {
            assert_eq!(wrong.parse::<Receipt>(), Err(NoReceipt), "{wrong}");
        }
    }
}
