//! Which master of a Redis Cluster has a key. Plain code.
//!
//! A key belongs to one of 16384 slots, by its hash tag where it has one, and each slot to one master
//! (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>, "Key distribution model").
//! All keys of a topic have its tag, so each script finds all that it needs at one master.

use std::collections::BTreeMap;
use std::fmt;

use super::script::Reply;

/// How many slots a cluster has.
pub const SLOTS: u16 = 16_384;
/// The most masters: as many as Redis Cluster is made for; each costs a node a connection.
pub const MASTERS_MAX: usize = 1_000;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub host: String,
    pub port: u16,
}

impl Place {
    /// Of `host:port`, as a server writes it; none if it does not say both.
    pub fn read(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        Some(Place {
            host: Some(host).filter(|host| !host.is_empty())?.to_owned(),
            port: port.parse().ok()?,
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The masters of all slots that have one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots {
    /// By the first slot of a range: the last one, and the master.
    ranges: BTreeMap<u16, (u16, Place)>,
}

/// What a server says of the cluster that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Whether it reaches a majority of the masters.
    pub is_sure: bool,
    /// The newest configuration that it has heard of.
    pub epoch: u64,
    pub slots: Slots,
}

impl Account {
    /// From the answers to `CLUSTER INFO` and `CLUSTER SLOTS` of the server at `asked`; none if they are
    /// no such answers, or name more than [`MASTERS_MAX`] masters.
    pub fn read(info: &str, slots: Reply, asked: &Place) -> Option<Self> {
        let field = |name: &str| {
            let mut fields = info.lines().filter_map(|line| line.split_once(':'));
            fields.find_map(|(key, value)| (key == name).then(|| value.trim()))
        };
        let slots = Slots::read(slots, asked)?;
        Some(Account {
            is_sure: field("cluster_state")? == "ok",
            epoch: field("cluster_current_epoch")?.parse().ok()?,
            slots,
        })
    }

    /// Whether to believe this rather than the other: who is alone has not heard what the others
    /// decided since.
    pub fn is_better_than(&self, other: &Account) -> bool {
        (self.is_sure, self.epoch) > (other.is_sure, other.epoch)
    }
}

impl Slots {
    fn read(reply: Reply, asked: &Place) -> Option<Self> {
        let Reply::List(list) = reply else {
            return None;
        };
        let mut ranges = BTreeMap::new();
        for range in list {
            let Reply::List(parts) = range else {
                return None;
            };
            let [first, last, master, ..] = &parts[..] else {
                return None;
            };
            let slot = |part: &Reply| u16::try_from(part.number()?).ok().filter(|s| *s < SLOTS);
            let (first, last) = (slot(first)?, slot(last)?);
            let Reply::List(master) = master else {
                return None;
            };
            let [host, port, ..] = &master[..] else {
                return None;
            };
            // A server that does not know its own address means the one by which it was asked.
            let host = host.text().filter(|host| !host.is_empty() && host != "?");
            let master = Place {
                host: host.unwrap_or_else(|| asked.host.clone()),
                port: u16::try_from(port.number()?).ok()?,
            };
            ranges.insert(first, (last, master));
        }
        let slots = Slots { ranges };
        (slots.masters().len() <= MASTERS_MAX).then_some(slots)
    }

    pub fn master(&self, slot: u16) -> Option<&Place> {
        let (_, (last, master)) = self.ranges.range(..=slot).next_back()?;
        (slot <= *last).then_some(master)
    }

    /// Each master with the first of its slots.
    pub fn masters(&self) -> BTreeMap<&Place, u16> {
        let mut masters = BTreeMap::new();
        for (first, (_, master)) in &self.ranges {
            masters.entry(master).or_insert(*first);
        }
        masters
    }

    /// How many slots no master has.
    pub fn uncovered(&self) -> u16 {
        let covered = self.ranges.iter();
        SLOTS
            - covered
                .map(|(first, (last, _))| last - first + 1)
                .sum::<u16>()
    }
}

/// The slot of a key.
pub fn slot_of(key: &str) -> u16 {
    crc16(tag_of(key).as_bytes()) % SLOTS
}

/// A tag whose keys are in a slot.
pub fn tag_in(slot: u16) -> String {
    let mut tags = (0_u32..).map(|n| n.to_string());
    let found = tags.find(|tag| slot_of(tag) == slot);
    found.expect("every slot has a number below 200,000")
}

/// What stands between the first brace and the next that closes it, unless that is nothing.
fn tag_of(key: &str) -> &str {
    let tag = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    tag.map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty())
        .unwrap_or(key)
}

/// CRC-16/XMODEM: polynomial 0x1021, from zero.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(host: &str, port: u16) -> Place {
        Place {
            host: host.to_owned(),
            port,
        }
    }

    fn text(text: &str) -> Reply {
        Reply::Bytes(text.to_owned().into())
    }

    fn range(first: i64, last: i64, host: Reply, port: i64) -> Reply {
        let master = Reply::List(vec![host, Reply::Integer(port), text("id")]);
        Reply::List(vec![Reply::Integer(first), Reply::Integer(last), master])
    }

    fn account(state: &str, ranges: Vec<Reply>) -> Option<Account> {
        let info = format!("cluster_state:{state}\r\ncluster_current_epoch:7\r\n");
        Account::read(&info, Reply::List(ranges), &place("asked", 1))
    }

    #[test]
    fn keys_are_in_the_slots_that_redis_says() {
        // The check value of CRC-16/XMODEM, and answers of `CLUSTER KEYSLOT`.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [
            ("foo", 12_182),
            ("bar", 5_061),
            ("a{foo}b", 12_182),
            ("a{foo}{bar}", 12_182),
            ("{}foo", 9_500),
            ("", 0),
        ] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }

    #[test]
    fn every_slot_has_a_tag() {
        let mut found = vec![false; usize::from(SLOTS)];
        for n in 0..200_000 {
            found[usize::from(slot_of(&n.to_string()))] = true;
        }
        assert!(found.iter().all(|found| *found));
        assert_eq!(slot_of(&format!("x:{{{}}}", tag_in(77))), 77);
    }

    #[test]
    fn slots_have_the_masters_that_a_server_names() {
        let ranges = vec![
            range(0, 99, text("a"), 7_000),
            range(200, 16_383, Reply::Nothing, 7_001),
            range(150, 199, text("a"), 7_000),
        ];
        let account = account("ok", ranges).expect("an account");
        assert_eq!((account.is_sure, account.epoch), (true, 7));
        let (a, asked) = (place("a", 7_000), place("asked", 7_001));
        for (slot, master) in [
            (0, Some(&a)),
            (99, Some(&a)),
            (100, None),
            (149, None),
            (150, Some(&a)),
            (200, Some(&asked)),
            (16_383, Some(&asked)),
        ] {
            assert_eq!(account.slots.master(slot), master, "{slot}");
        }
        let masters = account.slots.masters();
        assert_eq!(masters, BTreeMap::from([(&a, 0), (&asked, 200)]));
        assert_eq!(account.slots.uncovered(), 50);
    }

    #[test]
    fn what_is_no_account_is_none() {
        for ranges in [
            vec![Reply::Integer(1)],
            vec![Reply::List(vec![Reply::Integer(0)])],
            vec![range(0, 16_384, text("a"), 1)],
            vec![range(0, 1, text("a"), 70_000)],
        ] {
            assert_eq!(account("ok", ranges.clone()), None, "{ranges:?}");
        }
        let many = (0..1_001).map(|n| range(n, n, text(&format!("host-{n}")), 1));
        assert_eq!(account("ok", many.collect()), None);
    }

    #[test]
    fn who_reaches_a_majority_is_believed_then_who_heard_of_the_newest() {
        let of = |is_sure, epoch| Account {
            is_sure,
            epoch,
            slots: Slots::default(),
        };
        assert!(of(true, 3).is_better_than(&of(false, 9)));
        assert!(of(false, 9).is_better_than(&of(false, 3)));
        assert!(!of(true, 3).is_better_than(&of(true, 3)));
    }
}
